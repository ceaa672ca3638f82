//! The vote file: two slots, written in turn. Byte map and crash argument: docs/log-format.md.

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use crate::log::LogError;
use crate::log::files::{create_durably, write_durably};
use crate::types::Vote;

const MAGIC: &[u8; 8] = b"FTRLVOT1";
const VERSION: u32 = 1;
const SLOT_LEN: u64 = 4096;
const CRC_AT: usize = 56;

/// The open vote file.
#[derive(Debug)]
pub(crate) struct VoteFile {
    file: File,
    path: PathBuf,
    node_id: u64,
    /// Number of the newest write.
    written: u64,
    vote: Option<Vote>,
}

impl VoteFile {
    pub(crate) fn open(dir: &Path, node_id: u64) -> Result<Self, LogError> {
        let path = dir.join("vote");
        if !path.exists() {
            create_durably(&path, &vec![0; usize::try_from(2 * SLOT_LEN).expect("8192 fits")])?;
        }
        let io = |operation| {
            let path = path.clone();
            move |source| LogError::io(operation, &path, source)
        };
        let file = File::options().read(true).write(true).open(&path).map_err(io("open the vote"))?;
        // A process that was killed while it saved may have left the slot in the page cache only.
        file.sync_all().map_err(io("sync the vote"))?;
        let mut newest: Option<(u64, Vote)> = None;
        // The first slot gets the second vote, so there was one before.
        let mut saved_twice = false;
        for slot in 0..2 {
            let mut bytes = [0; CRC_AT + 4];
            file.read_exact_at(&mut bytes, slot * SLOT_LEN).map_err(io("read the vote"))?;
            saved_twice |= slot == 0 && bytes.iter().any(|byte| *byte != 0);
            let Some((number, owner, vote)) = decode(&bytes) else { continue };
            if owner != node_id {
                return Err(LogError::WrongMember { path, found: owner, wanted: node_id });
            }
            if newest.is_none_or(|(newest, _)| newest < number) {
                newest = Some((number, vote));
            }
        }
        if newest.is_none() && saved_twice {
            return Err(LogError::Corrupt { path, offset: 0, reason: "neither slot holds a valid vote" });
        }
        let (written, vote) = newest.map_or((0, None), |(number, vote)| (number, Some(vote)));
        Ok(Self { file, path, node_id, written, vote })
    }

    pub(crate) fn node_id(&self) -> u64 {
        self.node_id
    }

    /// The newest vote saved.
    pub(crate) fn vote(&self) -> Option<Vote> {
        self.vote
    }

    /// Durable when it returns. Overwrites the older slot, so that a crash leaves the newer one.
    pub(crate) fn save(&mut self, vote: Vote) -> Result<(), LogError> {
        let number = self.written + 1;
        let slot = (number % 2) * SLOT_LEN;
        write_durably(&self.file, &self.path, slot, &encode(number, self.node_id, vote))?;
        self.written = number;
        self.vote = Some(vote);
        Ok(())
    }
}

fn encode(number: u64, node_id: u64, vote: Vote) -> Vec<u8> {
    let mut out = Vec::with_capacity(CRC_AT + 4);
    out.extend_from_slice(MAGIC);
    out.extend_from_slice(&VERSION.to_le_bytes());
    out.extend_from_slice(&[0; 4]);
    for field in [number, node_id, vote.leader_id.term, vote.leader_id.node_id, u64::from(vote.committed)] {
        out.extend_from_slice(&field.to_le_bytes());
    }
    assert_eq!(out.len(), CRC_AT, "the byte map says so");
    out.extend_from_slice(&crc32c::crc32c(&out).to_le_bytes());
    out
}

fn decode(bytes: &[u8; CRC_AT + 4]) -> Option<(u64, u64, Vote)> {
    let number = |at: usize| u64::from_le_bytes(bytes[at..at + 8].try_into().expect("eight bytes"));
    let small = |at: usize| u32::from_le_bytes(bytes[at..at + 4].try_into().expect("four bytes"));
    if bytes[..8] != *MAGIC || small(8) != VERSION || small(CRC_AT) != crc32c::crc32c(&bytes[..CRC_AT]) {
        return None;
    }
    let mut vote = Vote::new(number(32), number(40));
    vote.committed = number(48) == 1;
    Some((number(16), number(24), vote))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_another_version_wrote_is_not_read() {
        let mut bytes = encode(3, 7, Vote::new(4, 7));
        assert!(decode(bytes.as_slice().try_into().unwrap()).is_some());
        bytes[8] = 2;
        let crc = crc32c::crc32c(&bytes[..CRC_AT]);
        bytes[CRC_AT..].copy_from_slice(&crc.to_le_bytes());
        assert_eq!(decode(bytes.as_slice().try_into().unwrap()), None);
    }

    #[test]
    fn a_vote_that_was_saved_is_not_forgotten() {
        let dir = tempfile::tempdir().unwrap();
        let mut file = VoteFile::open(dir.path(), 7).unwrap();
        for term in 1..4 {
            file.save(Vote::new(term, 7)).unwrap();
            let mut bytes = std::fs::read(dir.path().join("vote")).unwrap();
            let slots = bytes.chunks_mut(usize::try_from(SLOT_LEN).unwrap());
            slots.filter(|slot| slot[0] != 0).for_each(|slot| slot[40] ^= 1);
            let damaged = tempfile::tempdir().unwrap();
            std::fs::write(damaged.path().join("vote"), bytes).unwrap();
            match VoteFile::open(damaged.path(), 7) {
                Ok(file) => assert_eq!((term, file.vote()), (1, None), "a torn first save looks the same"),
                Err(error) => assert!(term > 1 && matches!(error, LogError::Corrupt { .. }), "{error}"),
            }
        }
    }

    #[test]
    fn a_torn_save_leaves_the_vote_before() {
        let dir = tempfile::tempdir().unwrap();
        let votes: Vec<_> = (1..6).map(|term| Vote::new_committed(term, 7)).collect();
        let mut file = VoteFile::open(dir.path(), 7).unwrap();
        assert_eq!(file.vote(), None);
        for (i, vote) in votes.iter().enumerate() {
            let before = std::fs::read(dir.path().join("vote")).unwrap();
            file.save(*vote).unwrap();
            let after = std::fs::read(dir.path().join("vote")).unwrap();
            let previous = i.checked_sub(1).map(|i| votes[i]);
            for torn in 0..=CRC_AT + 4 {
                // Both halves of the write may be the one that arrived.
                let slot = usize::try_from((i as u64 + 1) % 2 * SLOT_LEN).unwrap();
                for front in [true, false] {
                    let mut bytes = before.clone();
                    let arrived = if front { slot..slot + torn } else { slot + torn..slot + CRC_AT + 4 };
                    bytes[arrived.clone()].copy_from_slice(&after[arrived]);
                    let crashed = tempfile::tempdir().unwrap();
                    std::fs::write(crashed.path().join("vote"), &bytes).unwrap();
                    let found = VoteFile::open(crashed.path(), 7).unwrap().vote();
                    assert!(found == previous || found == Some(*vote), "torn at {torn}: {found:?}");
                    if bytes == after {
                        assert_eq!(found, Some(*vote));
                    }
                }
            }
        }
        drop(file);
        assert_eq!(VoteFile::open(dir.path(), 7).unwrap().vote(), Some(votes[4]));
        assert!(matches!(
            VoteFile::open(dir.path(), 8),
            Err(LogError::WrongMember { found: 7, wanted: 8, .. })
        ));
    }
}
