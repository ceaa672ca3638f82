//! A grant's state file: `docs/state.md` has its form.

use serde::{Deserialize, Serialize};

use crate::order::Order;
use crate::table::{End, Entry, Phase, Process};

const MAGIC: &str = "fuxi-grant";
const VERSION: u32 = 1;

/// What is remembered of a grant over the agent's death.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Record {
    pub order: Order,
    pub started_unix_ms: u64,
    /// Of the machine's run in which it was started: numbers of processes mean nothing in another one.
    pub boot: String,
    /// Absent: it was about to be started.
    pub process: Option<Process>,
    pub end: Option<End>,
    pub acknowledged: bool,
}

/// Why bytes are no record.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum RecordError {
    #[error("it does not begin with the line `{MAGIC} VERSION LENGTH CRC32C`")]
    Head,
    #[error("it is of version {0}, and this agent reads version {VERSION}: a newer agent wrote it")]
    Version(u32),
    #[error("it has {found} bytes where its first line says {expected}")]
    Length { found: usize, expected: usize },
    #[error("its checksum does not match")]
    Checksum,
    #[error("it cannot be understood: {0}")]
    Body(String),
}

impl Record {
    #[must_use]
    pub fn of(entry: &Entry, boot: &str) -> Self {
        let (process, end, acknowledged) = match &entry.phase {
            Phase::Running(process) | Phase::Stopping { process, .. } => (*process, None, false),
            Phase::Ended { end, acknowledged } => (None, Some(end.clone()), *acknowledged),
        };
        Self {
            order: entry.order.clone(),
            started_unix_ms: entry.started_unix_ms,
            boot: boot.to_owned(),
            process,
            end,
            acknowledged,
        }
    }

    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let body = serde_json::to_vec(self).expect("numbers, texts, and maps with texts as keys");
        let mut bytes =
            format!("{MAGIC} {VERSION} {} {:08x}\n", body.len(), crc32c::crc32c(&body)).into_bytes();
        bytes.extend_from_slice(&body);
        bytes
    }

    /// # Errors
    /// See [`RecordError`].
    pub fn decode(bytes: &[u8]) -> Result<Self, RecordError> {
        let end = bytes.iter().position(|byte| *byte == b'\n').ok_or(RecordError::Head)?;
        let head = std::str::from_utf8(&bytes[..end]).map_err(|_| RecordError::Head)?;
        let parts: Vec<&str> = head.split(' ').collect();
        let [MAGIC, version, len, checksum] = parts[..] else { return Err(RecordError::Head) };
        let version: u32 = version.parse().map_err(|_| RecordError::Head)?;
        if version != VERSION {
            return Err(RecordError::Version(version));
        }
        let expected: usize = len.parse().map_err(|_| RecordError::Head)?;
        let checksum = u32::from_str_radix(checksum, 16).map_err(|_| RecordError::Head)?;
        let body = &bytes[end + 1..];
        if body.len() != expected {
            return Err(RecordError::Length { found: body.len(), expected });
        }
        if crc32c::crc32c(body) != checksum {
            return Err(RecordError::Checksum);
        }
        serde_json::from_slice(body).map_err(|error| RecordError::Body(error.to_string()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::order::{Grant, Program};

    fn record() -> Record {
        let order = Order {
            grant: Grant(7),
            job: "j".into(),
            limits: [("cpu".to_owned(), 1000)].into(),
            uid: 1,
            gid: 2,
            program: Program::JobMaster,
            directory: "spool/q/run/j".into(),
            job_master: String::new(),
            unit: 3,
        };
        let process = Some(Process { pid: 12, start_ticks: 34 });
        Record { order, started_unix_ms: 5, boot: "b".into(), process, end: None, acknowledged: false }
    }

    #[test]
    fn what_was_written_is_read() {
        assert_eq!(Record::decode(&record().encode()), Ok(record()));
    }

    #[test]
    fn every_damaged_byte_and_every_cut_is_noticed() {
        let bytes = record().encode();
        for at in 0..bytes.len() {
            let mut damaged = bytes.clone();
            damaged[at] ^= 1;
            assert_ne!(Record::decode(&damaged).ok(), Some(record()), "byte {at}");
            assert!(Record::decode(&bytes[..at]).is_err(), "cut at {at}");
        }
    }

    #[test]
    fn a_newer_version_is_named() {
        let bytes = record().encode();
        let newer = String::from_utf8(bytes).unwrap().replacen("fuxi-grant 1", "fuxi-grant 2", 1);
        assert_eq!(Record::decode(newer.as_bytes()), Err(RecordError::Version(2)));
    }
}
