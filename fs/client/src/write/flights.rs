//! Writes of one file that were sent and are not answered yet.
//!
//! Invariant: no two of them overlap. It is what keeps newer bytes newest: the chunkservers order what arrives, and
//! a retry may arrive late.

use std::collections::BTreeMap;

use bytes::Bytes;
use coord_types::DataId;

/// Writes of a file in flight at once: twice what one chunk takes, so that the end of one chunk and the beginning
/// of the next travel together.
const WRITES_MAX: usize = 64;
/// Bytes of a file in flight at once: enough for a stream to keep three servers and their disks busy.
const BYTES_MAX: u64 = 16 << 20;

/// A write in flight.
#[derive(Debug)]
pub(crate) struct Flight {
    pub(crate) data: Bytes,
    pub(crate) generation: DataId,
    first_seq: u64,
}

/// All of a file, by where they begin.
#[derive(Debug, Default)]
pub(crate) struct Flights {
    flights: BTreeMap<u64, Flight>,
    bytes: u64,
}

impl Flights {
    pub(crate) fn is_empty(&self) -> bool {
        self.flights.is_empty()
    }

    pub(crate) const fn bytes(&self) -> u64 {
        self.bytes
    }

    /// The oldest write in here.
    pub(crate) fn oldest(&self) -> Option<u64> {
        self.flights.values().map(|flight| flight.first_seq).min()
    }

    /// Whether one more may start.
    pub(crate) fn has_room(&self) -> bool {
        self.flights.len() < WRITES_MAX && self.bytes < BYTES_MAX
    }

    /// Whether nothing in flight overlaps [start, end).
    pub(crate) fn is_free(&self, start: u64, end: u64) -> bool {
        self.next_in(start, end).is_none()
    }

    /// The first flight that ends after `offset`, if it begins before `end`: where it begins, and its bytes.
    pub(crate) fn next_in(&self, offset: u64, end: u64) -> Option<(u64, &Bytes)> {
        if offset >= end {
            return None;
        }
        if let Some((start, before)) = self.flights.range(..=offset).next_back()
            && start + before.data.len() as u64 > offset
        {
            return Some((*start, &before.data));
        }
        self.flights.range(offset..end).next().map(|(start, flight)| (*start, &flight.data))
    }

    pub(crate) fn start(&mut self, start: u64, data: Bytes, generation: DataId, first_seq: u64) {
        debug_assert!(self.is_free(start, start + data.len() as u64), "overlapping writes in flight");
        self.bytes += data.len() as u64;
        self.flights.insert(start, Flight { data, generation, first_seq });
    }

    /// The flight that began at `start` was answered.
    pub(crate) fn land(&mut self, start: u64) -> Option<Flight> {
        let flight = self.flights.remove(&start)?;
        self.bytes -= flight.data.len() as u64;
        Some(flight)
    }
}
