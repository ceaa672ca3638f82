//! What clients wrote and saw, and whether that can be.
//!
//! A *register* is two blocks of a chunk that one task alone writes, one write after the other; everybody reads it. So its states are
//! numbered, and a read is right if it shows one of them, not older than what was acknowledged or shown before the read began, not
//! newer than what was begun before it ended.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use coord_types::ChunkKey;
use parking_lot::Mutex;

pub(crate) type Shared = Arc<Mutex<Oracle>>;

/// Which two blocks: the chunk, and the task that writes them.
pub(crate) type RegisterId = (ChunkKey, u32);

/// The newest write of each of the two blocks; 0: none.
pub(crate) type State = (u64, u64);

#[derive(Debug)]
struct Register {
    /// In the order they were written. The first: nothing.
    states: Vec<State>,
    /// Index of the newest acknowledged.
    acknowledged: usize,
    /// Index of the newest shown by a read that ended.
    shown: usize,
}

impl Default for Register {
    fn default() -> Self {
        Self { states: vec![(0, 0)], acknowledged: 0, shown: 0 }
    }
}

/// Which blocks a write covers.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Cover {
    pub(crate) first: bool,
    pub(crate) second: bool,
}

#[derive(Debug, Default)]
pub(crate) struct Oracle {
    pub(crate) keys: Vec<ChunkKey>,
    registers: BTreeMap<RegisterId, Register>,
    next: u64,
    /// Writes a primary has acknowledged, by chunk.
    pub(crate) acknowledged_of: BTreeMap<ChunkKey, BTreeSet<u64>>,
    pub(crate) acknowledged: u64,
    pub(crate) shown: u64,
    /// The clients begin nothing new.
    pub(crate) stopped: bool,
    pub(crate) error: Option<(&'static str, String)>,
}

impl Oracle {
    fn register(&mut self, id: RegisterId) -> &mut Register {
        self.registers.entry(id).or_default()
    }

    pub(crate) fn registers(&self) -> Vec<RegisterId> {
        self.registers.keys().copied().collect()
    }

    /// The number of a new write.
    pub(crate) fn begin_write(&mut self, id: RegisterId, cover: Cover) -> u64 {
        self.next += 1;
        let write = self.next;
        let register = self.register(id);
        let mut state = register.states.last().copied().unwrap_or_default();
        if cover.first {
            state.0 = write;
        }
        if cover.second {
            state.1 = write;
        }
        register.states.push(state);
        write
    }

    /// The client was told that its newest write is done.
    pub(crate) fn end_write(&mut self, id: RegisterId) {
        let register = self.register(id);
        register.acknowledged = register.states.len() - 1;
        self.acknowledged += 1;
    }

    /// The oldest state a read that begins now may show.
    pub(crate) fn begin_read(&mut self, id: RegisterId) -> usize {
        let register = self.register(id);
        register.acknowledged.max(register.shown)
    }

    /// A read that began at `oldest` shows this.
    pub(crate) fn end_read(&mut self, id: RegisterId, oldest: usize, state: State) {
        let register = self.register(id);
        let newest = state.0.max(state.1);
        let at = register.states.iter().position(|known| known.0.max(known.1) == newest);
        let wrong = match at {
            Some(at) if register.states[at] != state => {
                Some(("I2", format!("{state:?}, a mixture of writes, is shown of {id:?}")))
            }
            None => Some(("I2", format!("{state:?}, which nobody wrote, is shown of {id:?}"))),
            Some(at) if at < oldest => Some((
                "I4",
                format!(
                    "{id:?}: {state:?} is shown after {:?} was acknowledged or shown",
                    register.states[oldest]
                ),
            )),
            Some(at) => {
                register.shown = register.shown.max(at);
                None
            }
        };
        self.shown += 1;
        if self.error.is_none() {
            self.error = wrong;
        }
    }
}
