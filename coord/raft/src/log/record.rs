//! Bytes of a record and of a segment's header. Byte maps: docs/log-format.md.

use bytes::Bytes;
use openraft::{CommittedLeaderId, EntryPayload};

use crate::types::{Entry, EntryData, LogId, Membership};

pub(crate) const SEGMENT_HEADER_LEN: u64 = 4096;
pub(crate) const RECORD_HEADER_LEN: usize = 56;
const SEGMENT_MAGIC: &[u8; 8] = b"FTRLSEG1";
const SEGMENT_CRC_AT: usize = 72;
const RECORD_MAGIC: &[u8; 4] = b"FTLR";
const RECORD_CRC_AT: usize = 52;
const VERSION: u8 = 1;
/// Header of an entry on the wire.
const WIRE_HEADER_LEN: usize = 32;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum RecordType {
    Blank = 1,
    Normal = 2,
    Membership = 3,
    Truncate = 4,
    Purge = 5,
    Seal = 6,
}

impl RecordType {
    fn from_byte(byte: u8) -> Option<Self> {
        [Self::Blank, Self::Normal, Self::Membership, Self::Truncate, Self::Purge, Self::Seal]
            .into_iter()
            .find(|known| *known as u8 == byte)
    }
}

/// What a segment says of itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct SegmentHeader {
    pub(crate) sequence: u64,
    pub(crate) size: u64,
    pub(crate) node_id: u64,
    /// crc of the last record of the segment before.
    pub(crate) chain: u32,
    pub(crate) purged: Option<LogId>,
}

impl SegmentHeader {
    pub(crate) fn encode(&self) -> Vec<u8> {
        let mut out = vec![0; usize::try_from(SEGMENT_HEADER_LEN).expect("4096 fits")];
        out[0..8].copy_from_slice(SEGMENT_MAGIC);
        put_u32(&mut out, 8, u32::from(VERSION));
        put_u64(&mut out, 16, self.sequence);
        put_u64(&mut out, 24, self.size);
        put_u64(&mut out, 32, self.node_id);
        put_u32(&mut out, 40, self.chain);
        if let Some(purged) = self.purged {
            put_u32(&mut out, 44, 1);
            put_log_id(&mut out, 48, purged);
        }
        let crc = crc32c::crc32c(&out[..SEGMENT_CRC_AT]);
        put_u32(&mut out, SEGMENT_CRC_AT, crc);
        out
    }

    /// `None` if it is no valid header: of a prepared segment, torn, or damaged.
    pub(crate) fn decode(bytes: &[u8]) -> Option<Self> {
        let valid = bytes.len() >= SEGMENT_CRC_AT + 4
            && bytes[0..8] == *SEGMENT_MAGIC
            && get_u32(bytes, 8) == u32::from(VERSION)
            && get_u32(bytes, SEGMENT_CRC_AT) == crc32c::crc32c(&bytes[..SEGMENT_CRC_AT]);
        valid.then(|| Self {
            sequence: get_u64(bytes, 16),
            size: get_u64(bytes, 24),
            node_id: get_u64(bytes, 32),
            chain: get_u32(bytes, 40),
            purged: (get_u32(bytes, 44) == 1).then(|| get_log_id(bytes, 48)),
        })
    }
}

/// Where a record stands, which its header says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Place {
    pub(crate) sequence: u64,
    /// crc of the record before.
    pub(crate) previous: u32,
    /// The segment was durable below this offset when the record was made.
    pub(crate) durable_offset: u32,
}

/// Header and crc of a record; its payload follows, then zeros up to [`padded_len`].
pub(crate) fn encode_header(
    kind: RecordType,
    log_id: LogId,
    payload: &[u8],
    place: Place,
) -> ([u8; RECORD_HEADER_LEN], u32) {
    let mut out = [0; RECORD_HEADER_LEN];
    out[0..4].copy_from_slice(RECORD_MAGIC);
    out[4] = VERSION;
    out[5] = kind as u8;
    put_u64(&mut out, 8, place.sequence);
    put_log_id(&mut out, 16, log_id);
    put_u32(&mut out, 40, place.previous);
    put_u32(&mut out, 44, place.durable_offset);
    put_u32(
        &mut out,
        48,
        u32::try_from(payload.len()).expect("a record is smaller than a segment, which is < 4 GiB"),
    );
    let crc = crc32c::crc32c_append(crc32c::crc32c(&out[..RECORD_CRC_AT]), payload);
    put_u32(&mut out, RECORD_CRC_AT, crc);
    (out, crc)
}

/// A whole record that passed its crc.
#[derive(Debug)]
pub(crate) struct Record<'a> {
    pub(crate) kind: RecordType,
    pub(crate) log_id: LogId,
    pub(crate) place: Place,
    pub(crate) crc: u32,
    pub(crate) payload: &'a [u8],
}

impl<'a> Record<'a> {
    /// The record at the beginning of `bytes`, if there is a whole valid one.
    pub(crate) fn decode(bytes: &'a [u8]) -> Option<Self> {
        let header = bytes.get(..RECORD_HEADER_LEN)?;
        if header[0..4] != *RECORD_MAGIC || header[4] != VERSION {
            return None;
        }
        let kind = RecordType::from_byte(header[5])?;
        let payload_len = usize::try_from(get_u32(header, 48)).ok()?;
        let payload = bytes.get(RECORD_HEADER_LEN..RECORD_HEADER_LEN.checked_add(payload_len)?)?;
        let crc = crc32c::crc32c_append(crc32c::crc32c(&header[..RECORD_CRC_AT]), payload);
        (crc == get_u32(header, RECORD_CRC_AT)).then(|| Self {
            kind,
            log_id: get_log_id(header, 16),
            place: Place {
                sequence: get_u64(header, 8),
                previous: get_u32(header, 40),
                durable_offset: get_u32(header, 44),
            },
            crc,
            payload,
        })
    }

    /// Bytes of the record in the segment.
    pub(crate) fn len(&self) -> usize {
        padded_len(self.payload.len())
    }

    /// The entry, if the record is one. `Err` if its payload makes no sense in spite of its crc.
    pub(crate) fn entry(&self) -> Result<Option<Entry>, &'static str> {
        match self.kind {
            RecordType::Blank | RecordType::Normal | RecordType::Membership => {
                decode_entry(self.kind, self.log_id, Bytes::copy_from_slice(self.payload)).map(Some)
            }
            RecordType::Truncate | RecordType::Purge | RecordType::Seal => Ok(None),
        }
    }
}

/// Bytes a record with such a payload takes.
pub(crate) fn padded_len(payload_len: usize) -> usize {
    (RECORD_HEADER_LEN + payload_len).next_multiple_of(8)
}

/// Type and payload of an entry's record.
pub(crate) fn entry_payload(entry: &Entry) -> (RecordType, Bytes) {
    match &entry.payload {
        EntryPayload::Blank => (RecordType::Blank, Bytes::new()),
        EntryPayload::Normal(data) => (RecordType::Normal, data.bytes.clone()),
        EntryPayload::Membership(membership) => {
            let json =
                serde_json::to_vec(membership).expect("a membership has string keys and no failing parts");
            (RecordType::Membership, json.into())
        }
    }
}

fn decode_entry(kind: RecordType, log_id: LogId, payload: Bytes) -> Result<Entry, &'static str> {
    let payload = match kind {
        RecordType::Blank => EntryPayload::Blank,
        RecordType::Normal => EntryPayload::Normal(EntryData { bytes: payload, waiters: None }),
        RecordType::Membership => {
            let membership: Membership =
                serde_json::from_slice(&payload).map_err(|_| "the membership does not parse")?;
            EntryPayload::Membership(membership)
        }
        RecordType::Truncate | RecordType::Purge | RecordType::Seal => return Err("no entry"),
    };
    Ok(Entry { log_id, payload })
}

/// Entries as an append request carries them.
pub(crate) fn encode_wire(entries: &[Entry]) -> Bytes {
    let payloads: Vec<_> = entries.iter().map(entry_payload).collect();
    let len = payloads.iter().map(|(_, payload)| WIRE_HEADER_LEN + payload.len()).sum();
    let mut out = Vec::with_capacity(len);
    for (entry, (kind, payload)) in entries.iter().zip(&payloads) {
        let mut header = [0; WIRE_HEADER_LEN];
        put_log_id(&mut header, 0, entry.log_id);
        put_u32(&mut header, 24, *kind as u32);
        put_u32(&mut header, 28, u32::try_from(payload.len()).expect("an entry is smaller than a segment"));
        out.extend_from_slice(&header);
        out.extend_from_slice(payload);
    }
    out.into()
}

/// The inverse of [`encode_wire`]; the frame's crc was checked already. Entries share `bytes`.
pub(crate) fn decode_wire(mut bytes: Bytes) -> Result<Vec<Entry>, &'static str> {
    let mut entries = Vec::new();
    while !bytes.is_empty() {
        if bytes.len() < WIRE_HEADER_LEN {
            return Err("an entry's header is cut off");
        }
        let header = bytes.split_to(WIRE_HEADER_LEN);
        let kind = u8::try_from(get_u32(&header, 24)).ok().and_then(RecordType::from_byte);
        let len = get_u32(&header, 28) as usize;
        if len > bytes.len() {
            return Err("an entry is cut off");
        }
        let payload = bytes.split_to(len);
        entries.push(decode_entry(kind.ok_or("an unknown type of entry")?, get_log_id(&header, 0), payload)?);
    }
    Ok(entries)
}

fn put_u32(out: &mut [u8], at: usize, value: u32) {
    out[at..at + 4].copy_from_slice(&value.to_le_bytes());
}

fn put_u64(out: &mut [u8], at: usize, value: u64) {
    out[at..at + 8].copy_from_slice(&value.to_le_bytes());
}

fn put_log_id(out: &mut [u8], at: usize, id: LogId) {
    put_u64(out, at, id.leader_id.term);
    put_u64(out, at + 8, id.leader_id.node_id);
    put_u64(out, at + 16, id.index);
}

fn get_u32(bytes: &[u8], at: usize) -> u32 {
    u32::from_le_bytes(bytes[at..at + 4].try_into().expect("four bytes"))
}

fn get_u64(bytes: &[u8], at: usize) -> u64 {
    u64::from_le_bytes(bytes[at..at + 8].try_into().expect("eight bytes"))
}

fn get_log_id(bytes: &[u8], at: usize) -> LogId {
    let leader = CommittedLeaderId::new(get_u64(bytes, at), get_u64(bytes, at + 8));
    LogId::new(leader, get_u64(bytes, at + 16))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn log_id(term: u64, node: u64, index: u64) -> LogId {
        LogId::new(CommittedLeaderId::new(term, node), index)
    }

    proptest! {
        #[test]
        fn a_record_round_trips_and_every_flipped_bit_is_noticed(
            payload in proptest::collection::vec(any::<u8>(), 0..64), ids in any::<(u64, u64, u64)>(),
            place in any::<(u64, u32, u32)>(), flip in any::<usize>(), bit in 0..8_u32,
        ) {
            let place = Place { sequence: place.0, previous: place.1, durable_offset: place.2 };
            let id = log_id(ids.0, ids.1, ids.2);
            let (header, crc) = encode_header(RecordType::Normal, id, &payload, place);
            let mut bytes = header.to_vec();
            bytes.extend_from_slice(&payload);
            let record = Record::decode(&bytes).unwrap();
            prop_assert_eq!((record.log_id, record.place, record.crc), (id, place, crc));
            prop_assert_eq!(record.payload, payload.as_slice());
            for cut in 0..bytes.len() {
                prop_assert!(Record::decode(&bytes[..cut]).is_none());
            }
            let at = flip % bytes.len();
            bytes[at] ^= 1 << bit;
            prop_assert!(Record::decode(&bytes).is_none());
        }

        #[test]
        fn a_segment_header_round_trips_and_damage_is_noticed(
            numbers in any::<(u64, u64, u64, u32)>(), purged in proptest::option::of(any::<(u64, u64, u64)>()),
            at in 0..SEGMENT_CRC_AT + 4, bit in 0..8_u32,
        ) {
            let header = SegmentHeader {
                sequence: numbers.0, size: numbers.1, node_id: numbers.2, chain: numbers.3,
                purged: purged.map(|id| log_id(id.0, id.1, id.2)),
            };
            let mut bytes = header.encode();
            prop_assert_eq!(SegmentHeader::decode(&bytes), Some(header));
            bytes[at] ^= 1 << bit;
            prop_assert_eq!(SegmentHeader::decode(&bytes), None);
        }

        #[test]
        fn the_wire_decoder_takes_anything(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            let _ = decode_wire(bytes.into());
        }
    }

    #[test]
    fn what_another_version_wrote_is_not_read() {
        let place = Place { sequence: 1, previous: 2, durable_offset: 3 };
        let (mut record, _) = encode_header(RecordType::Blank, log_id(1, 2, 3), &[], place);
        record[4] = VERSION + 1;
        let crc = crc32c::crc32c(&record[..RECORD_CRC_AT]);
        put_u32(&mut record, RECORD_CRC_AT, crc);
        assert!(Record::decode(&record).is_none());
        let mut segment = SegmentHeader { sequence: 1, size: 2, node_id: 3, chain: 4, purged: None }.encode();
        put_u32(&mut segment, 8, u32::from(VERSION) + 1);
        let crc = crc32c::crc32c(&segment[..SEGMENT_CRC_AT]);
        put_u32(&mut segment, SEGMENT_CRC_AT, crc);
        assert_eq!(SegmentHeader::decode(&segment), None);
    }

    #[test]
    fn entries_round_trip_on_the_wire() {
        let nodes = std::collections::BTreeMap::from([(1, openraft::BasicNode::new("unix:///a"))]);
        let entries = vec![
            Entry { log_id: log_id(1, 2, 3), payload: EntryPayload::Blank },
            Entry {
                log_id: log_id(1, 2, 4),
                payload: EntryPayload::Normal(EntryData { bytes: Bytes::from_static(b"xyz"), waiters: None }),
            },
            Entry { log_id: log_id(1, 2, 5), payload: EntryPayload::Membership(Membership::from(nodes)) },
        ];
        let bytes = encode_wire(&entries);
        let back = decode_wire(bytes.clone()).unwrap();
        assert_eq!(back.len(), 3);
        for (a, b) in entries.iter().zip(&back) {
            assert_eq!((a.log_id, entry_payload(a)), (b.log_id, entry_payload(b)));
        }
        assert!(decode_wire(bytes.slice(..bytes.len() - 1)).is_err());
        for kind in [0, RecordType::Seal as u8, 7] {
            let mut unknown = bytes.to_vec();
            unknown[24] = kind;
            assert!(decode_wire(unknown.into()).is_err(), "type {kind}");
        }
    }
}
