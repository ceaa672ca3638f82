//! One chunk of a server in memory: its blocks, and which writes it has seen.

use std::collections::{BTreeMap, HashMap};

use bytes::Bytes;
use chunkserver_api::{Punch, Write};
use coord_types::{BLOCK_SIZE, ChunkKey, Fence, SessionId, Stamp};

#[derive(Default)]
pub(crate) struct Chunk {
    pub(crate) blocks: BTreeMap<u32, Vec<u8>>,
    pub(crate) version: u64,
    /// Newest number of each session, and which of the 64 up to it were seen.
    windows: HashMap<SessionId, (u64, u64)>,
}

#[derive(Clone)]
pub(crate) enum Change {
    Write(Write, Bytes),
    Punch(Punch),
}

impl Change {
    pub(crate) fn key(&self) -> ChunkKey {
        match self {
            Self::Write(write, _) => write.key,
            Self::Punch(punch) => punch.key,
        }
    }

    pub(crate) fn stamp(&self) -> Stamp {
        let stamp = match self {
            Self::Write(write, _) => write.stamp,
            Self::Punch(punch) => punch.stamp,
        };
        stamp.expect("the client stamps every change")
    }

    pub(crate) fn fence(&self) -> Fence {
        match self {
            Self::Write(write, _) => write.fence,
            Self::Punch(punch) => punch.fence,
        }
    }

    pub(crate) fn range(&self) -> (u32, u32) {
        match self {
            Self::Write(write, data) => {
                (write.offset_bytes, write.offset_bytes + u32::try_from(data.len()).unwrap())
            }
            Self::Punch(punch) => (punch.offset_bytes, punch.offset_bytes + punch.len_bytes),
        }
    }
}

impl Chunk {
    pub(crate) fn seen(&self, stamp: Stamp) -> bool {
        self.windows.get(&stamp.session).is_some_and(|(newest, bits)| {
            stamp.seq <= *newest && (newest - stamp.seq >= 64 || bits & (1 << (newest - stamp.seq)) != 0)
        })
    }

    pub(crate) fn note(&mut self, stamp: Stamp) {
        let (newest, bits) = self.windows.entry(stamp.session).or_insert((stamp.seq, 0));
        if stamp.seq > *newest {
            *bits = bits.checked_shl(u32::try_from((stamp.seq - *newest).min(64)).unwrap()).unwrap_or(0);
            *newest = stamp.seq;
        }
        *bits |= 1 << (*newest - stamp.seq);
    }

    pub(crate) fn apply(&mut self, change: &Change) -> i64 {
        if self.seen(change.stamp()) {
            return 0;
        }
        self.note(change.stamp());
        self.version += 1;
        let before = self.blocks.len();
        let (start, end) = change.range();
        let mut at = start as usize;
        while at < end as usize {
            let block = u32::try_from(at / BLOCK_SIZE).unwrap();
            let within = at % BLOCK_SIZE;
            let len = (BLOCK_SIZE - within).min(end as usize - at);
            match change {
                Change::Write(_, data) => {
                    let from = at - start as usize;
                    let target = self.blocks.entry(block).or_insert_with(|| vec![0; BLOCK_SIZE]);
                    target[within..within + len].copy_from_slice(&data[from..from + len]);
                }
                Change::Punch(_) if len == BLOCK_SIZE => {
                    self.blocks.remove(&block);
                }
                Change::Punch(_) => {
                    if let Some(target) = self.blocks.get_mut(&block) {
                        target[within..within + len].fill(0);
                    }
                }
            }
            at += len;
        }
        (i64::try_from(self.blocks.len()).unwrap() - i64::try_from(before).unwrap()) * 4096
    }
}
