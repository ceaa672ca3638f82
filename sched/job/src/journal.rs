//! The journal's bytes: a header, then frames, each with all records of one append. The byte map is in `sched/docs/journal.md`.
//!
//! A frame is written and synced before the next one is begun, so a crash can damage only the last. Therefore a damaged frame
//! with a whole one behind it is not a crash's doing and is an error; one with nothing behind it is cut off.

use thiserror::Error;

use crate::codec;
use crate::record::Record;

const MAGIC: [u8; 8] = *b"FUXIJRNL";
const VERSION: u16 = 1;
/// Bytes of the header.
pub const HEADER_LEN_BYTES: usize = 24;
const MARKER: [u8; 4] = [0xf5, b'X', 0x1e, 0xa7];
const FRAME_HEAD_BYTES: usize = 16;
/// Of a frame's records: far above what one drain makes, far below what could not be read back.
pub const FRAME_MAX_BYTES: usize = 1 << 26;

/// Why a journal can not be read.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
pub enum JournalError {
    #[error("this is no journal of a Fuxi job: it does not begin with FUXIJRNL")]
    Magic,
    #[error(
        "the journal is of version {found}, this program reads {VERSION}: use the program that wrote it, or a newer one"
    )]
    Version { found: u16 },
    #[error(
        "the header of the journal is damaged (its checksum does not match): the job can not go on, submit it again"
    )]
    Header,
    #[error(
        "the journal is of another plan (fingerprint {found:#010x}, this job's is {expected:#010x}): did the job's inputs change after it began?"
    )]
    Plan { found: u32, expected: u32 },
    #[error(
        "the journal is damaged at byte {offset}, and whole again at byte {next}: what lies between is lost, submit the job again"
    )]
    Damaged { offset: usize, next: usize },
    #[error(
        "the journal has frame {found} at byte {offset}, where frame {expected} belongs: two job masters wrote it, or a part is missing"
    )]
    Sequence { offset: usize, found: u32, expected: u32 },
    #[error(
        "the frame at byte {offset} of the journal is whole, but says nothing this program knows: use the program that wrote it"
    )]
    Unknown { offset: usize },
}

/// What a journal says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Journal {
    /// In order.
    pub records: Vec<Record>,
    /// Bytes that are whole: the file is to be cut to this before anything is appended. 0 if not even the header is there: then a
    /// header is to be written first.
    pub len_bytes: usize,
    /// The number of the next frame.
    pub next_frame: u32,
}

/// The first bytes of a new journal. To be synced together with the first frame, or before it.
pub fn header(fingerprint: u32) -> [u8; HEADER_LEN_BYTES] {
    let mut out = [0; HEADER_LEN_BYTES];
    out[..8].copy_from_slice(&MAGIC);
    out[8..10].copy_from_slice(&VERSION.to_le_bytes());
    out[10..12].copy_from_slice(&(HEADER_LEN_BYTES as u16).to_le_bytes());
    out[12..16].copy_from_slice(&fingerprint.to_le_bytes());
    let crc = crc32c::crc32c(&out[..20]);
    out[20..].copy_from_slice(&crc.to_le_bytes());
    out
}

/// The bytes of one append. `number` counts them from 0.
pub fn frame(number: u32, records: &[Record]) -> Vec<u8> {
    let mut out = vec![0; FRAME_HEAD_BYTES];
    for record in records {
        codec::encode(record, &mut out);
    }
    let len = out.len() - FRAME_HEAD_BYTES;
    assert!(len <= FRAME_MAX_BYTES, "the outbox divides appends long before that");
    out[..4].copy_from_slice(&MARKER);
    out[4..8].copy_from_slice(&(len as u32).to_le_bytes());
    out[8..12].copy_from_slice(&number.to_le_bytes());
    let crc = checksum(&out[4..12], &out[FRAME_HEAD_BYTES..]);
    out[12..16].copy_from_slice(&crc.to_le_bytes());
    out
}

/// Reads all of a journal. An empty one, or one whose header was not written to its end, is the journal of a job that did not begin.
pub fn read(bytes: &[u8], fingerprint: u32) -> Result<Journal, JournalError> {
    let mut journal = Journal { records: Vec::new(), len_bytes: 0, next_frame: 0 };
    let expected = header(fingerprint);
    if bytes.len() < HEADER_LEN_BYTES {
        // Nothing was appended yet, so nothing can be lost; but a file of somebody else's is not to be overwritten. Zeros are what a
        // file system may leave of bytes that were not synced.
        let begins_well = bytes.iter().zip(MAGIC).all(|(is, should)| *is == should || *is == 0);
        return if begins_well { Ok(journal) } else { Err(JournalError::Magic) };
    }
    if bytes.iter().all(|byte| *byte == 0) {
        return Ok(journal);
    }
    if bytes[..8] != MAGIC {
        return Err(JournalError::Magic);
    }
    let version = u16::from_le_bytes([bytes[8], bytes[9]]);
    if version != VERSION {
        return Err(JournalError::Version { found: version });
    }
    if word(bytes, 20) != crc32c::crc32c(&bytes[..20]) {
        return Err(JournalError::Header);
    }
    if bytes[..HEADER_LEN_BYTES] != expected {
        return Err(JournalError::Plan { found: word(bytes, 12), expected: fingerprint });
    }
    journal.len_bytes = HEADER_LEN_BYTES;
    while journal.len_bytes < bytes.len() {
        let offset = journal.len_bytes;
        let Some((number, body)) = whole_frame(&bytes[offset..]) else {
            let next = (offset + 1..bytes.len()).find(|at| whole_frame(&bytes[*at..]).is_some());
            return next.map_or(Ok(journal), |next| Err(JournalError::Damaged { offset, next }));
        };
        if number != journal.next_frame {
            return Err(JournalError::Sequence { offset, found: number, expected: journal.next_frame });
        }
        journal.records.extend(codec::decode_all(body).ok_or(JournalError::Unknown { offset })?);
        journal.len_bytes += FRAME_HEAD_BYTES + body.len();
        journal.next_frame += 1;
    }
    Ok(journal)
}

/// Number and records of the frame at the beginning, if it is whole.
fn whole_frame(bytes: &[u8]) -> Option<(u32, &[u8])> {
    if bytes.len() < FRAME_HEAD_BYTES || bytes[..4] != MARKER {
        return None;
    }
    let len = word(bytes, 4) as usize;
    let body = bytes[FRAME_HEAD_BYTES..].get(..len)?;
    (checksum(&bytes[4..12], body) == word(bytes, 12)).then(|| (word(bytes, 8), body))
}

fn checksum(head: &[u8], body: &[u8]) -> u32 {
    crc32c::crc32c_append(crc32c::crc32c(head), body)
}

fn word(bytes: &[u8], at: usize) -> u32 {
    u32::from_le_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]])
}

#[cfg(test)]
mod tests;
