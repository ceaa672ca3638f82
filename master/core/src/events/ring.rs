//! The newest events, in bounded memory and without an allocation for each.
//!
//! Every master keeps one: which will lead next is not known, and a watcher goes on there only if its place is in the ring. So it
//! is filled whether or not anybody watches, by the thread that applies; an event costs it 40 bytes and its name.
//!
//! Invariants: the ring holds every event behind its floor; what is shown ends at what is in the store, so a watcher that is told
//! of a change finds it when it looks.

use std::collections::VecDeque;

use coord_types::InodeId;
use master_model::{DirectoryEvent, EventKind, Name, Position};

use super::Change;

/// Events of a ring. At 20,000 changes a second it reaches 6 s back, several times what an election takes.
pub const EVENTS_MAX: usize = 1 << 17;
/// Their names together.
pub const NAMES_BYTES_MAX: usize = 8 << 20;

#[derive(Clone, Copy, Debug)]
struct Record {
    position: Position,
    directory: InodeId,
    ino: InodeId,
    /// Where its name begins, of all bytes of names that ever were in the ring.
    name_at: u64,
    kind: EventKind,
    /// 0: it has none.
    name_len: u8,
}

/// See the module.
#[derive(Debug)]
pub struct Ring {
    records: VecDeque<Record>,
    names: VecDeque<u8>,
    /// Bytes of names that have left it.
    names_gone: u64,
    events_max: usize,
    names_bytes_max: usize,
    /// Everything behind it is here; `None`: not known what there was before the next event.
    floor: Option<Position>,
    /// The last entry a command of which was applied.
    applied: u64,
    /// What is in the store. Before the floor only while more was applied at once than the ring holds: then nobody is told anything.
    shown: Position,
    /// Records at the end that are not shown yet.
    hidden: usize,
}

/// An event of a ring.
#[derive(Clone, Copy, Debug)]
pub struct Stored<'a> {
    ring: &'a Ring,
    record: &'a Record,
}

impl Stored<'_> {
    #[must_use]
    pub const fn position(self) -> Position {
        self.record.position
    }

    #[must_use]
    pub const fn directory(self) -> InodeId {
        self.record.directory
    }

    /// With a copy of its name.
    #[must_use]
    pub fn event(self) -> DirectoryEvent {
        let Record { position, directory, ino, kind, name_at, name_len } = *self.record;
        let start = usize::try_from(name_at - self.ring.names_gone).expect("it is in memory");
        let name: Vec<u8> = self.ring.names.range(start..start + usize::from(name_len)).copied().collect();
        // Those that have one had a checked one, which is not empty.
        DirectoryEvent { position, directory, kind, ino, name: Name::new(name).ok() }
    }
}

impl Default for Ring {
    fn default() -> Self {
        Self::new(EVENTS_MAX, NAMES_BYTES_MAX)
    }
}

impl Ring {
    /// At most so many events, and bytes of names.
    #[must_use]
    pub fn new(events_max: usize, names_bytes_max: usize) -> Self {
        Self {
            records: VecDeque::new(),
            names: VecDeque::new(),
            names_gone: 0,
            events_max,
            names_bytes_max,
            floor: None,
            applied: 0,
            shown: Position { index: 0, number: 0 },
            hidden: 0,
        }
    }

    /// A command of the log entry `index` was applied; the store does not have it yet. Entries come whole and in order.
    pub fn applied(&mut self, index: u64, changes: &[Change]) {
        self.know(Position::end_of(index.saturating_sub(1)));
        self.applied = index;
        for change in changes {
            let number = match self.records.back() {
                Some(last) if last.position.index == index => last.position.number.saturating_add(1),
                _ => 0,
            };
            let name = change.name.as_ref().map_or(&[][..], Name::as_slice);
            self.records.push_back(Record {
                position: Position { index, number },
                directory: change.directory,
                ino: change.ino,
                name_at: self.names_gone + self.names.len() as u64,
                kind: change.kind,
                // A name has at most 255 bytes.
                name_len: name.len() as u8,
            });
            self.names.extend(name);
            self.hidden += 1;
            self.make_room();
        }
    }

    /// What was applied is in the store. Gives the directories of what is shown from now on.
    pub fn publish(&mut self) -> impl Iterator<Item = InodeId> {
        let from = self.records.len() - std::mem::take(&mut self.hidden);
        self.shown = self.shown.max(Position::end_of(self.applied));
        self.records.range(from..).map(|record| record.directory)
    }

    /// Everything up to this entry of the log is in the store. Commands are not all that is in a log: a place may lie behind the last
    /// one that was applied here.
    pub fn stored(&mut self, index: u64) {
        self.know(Position::end_of(index));
        self.shown = self.shown.max(Position::end_of(index));
    }

    /// If nothing is known: that everything behind this, which the store has, will be here.
    fn know(&mut self, from: Position) {
        if self.floor.is_none() {
            (self.floor, self.shown) = (Some(from), from);
        }
    }

    /// The state was replaced: nothing is known of what came before the next event.
    pub fn forget(&mut self) {
        *self = Self::new(self.events_max, self.names_bytes_max);
    }

    /// The end of what is shown; `None` if nothing is known.
    #[must_use]
    pub fn newest(&self) -> Option<Position> {
        self.floor.map(|_| self.shown)
    }

    /// All events behind a place that are shown; `None` if some are not in the ring any more, or it is not known whether there were.
    #[must_use]
    pub fn behind(&self, place: Position) -> Option<impl Iterator<Item = Stored<'_>>> {
        let floor = self.floor?;
        if place < floor || place > self.shown {
            return None;
        }
        let start = self.records.partition_point(|record| record.position <= place);
        let end = (self.records.len() - self.hidden).max(start);
        Some(self.records.range(start..end).map(|record| Stored { ring: self, record }))
    }

    fn make_room(&mut self) {
        while self.records.len() > self.events_max || self.names.len() > self.names_bytes_max {
            let Some(oldest) = self.records.pop_front() else { return };
            self.names.drain(..usize::from(oldest.name_len));
            self.names_gone += u64::from(oldest.name_len);
            self.floor = Some(oldest.position);
            self.hidden = self.hidden.min(self.records.len());
        }
    }
}

#[cfg(test)]
mod tests;
