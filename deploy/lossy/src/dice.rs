//! What of the unsynced survives a power cut: the choices, from a seed, and the account of them.

use rand::rngs::StdRng;
use rand::{Rng as _, SeedableRng as _};

/// What a power cut does to what was not synced.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Loss {
    /// All of it is lost.
    All,
    /// Some of it survives, in any order, torn between sectors.
    Subset(u64),
}

/// What a power cut did.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Report {
    /// Files that had something unsynced.
    pub files: usize,
    /// Blocks of 4 KiB that went back to what was durable.
    pub blocks_lost: usize,
    /// Blocks that survived though nobody had synced them.
    pub blocks_kept: usize,
    /// Blocks of which some sectors survived.
    pub blocks_torn: usize,
    /// Changes of names that were undone.
    pub names_lost: usize,
    /// Changes of names that survived though nobody had synced them.
    pub names_kept: usize,
}

/// What becomes of one block.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Fate {
    Lost,
    Kept,
    /// The sectors whose bit is set survive.
    Torn(u8),
}

/// The choices of one power cut.
#[derive(Debug)]
pub(crate) struct Dice {
    /// None: everything is lost.
    random: Option<StdRng>,
}

impl Dice {
    pub(crate) fn new(loss: Loss) -> Self {
        let random = match loss {
            Loss::All => None,
            Loss::Subset(seed) => Some(StdRng::seed_from_u64(seed)),
        };
        Self { random }
    }

    /// In hundredths, for one file or directory: nothing survives, all, about half, or nearly all.
    pub(crate) fn chance(&mut self) -> u32 {
        match &mut self.random {
            None => 0,
            Some(random) => [0, 50, 90, 100][random.random_range(0..4)],
        }
    }

    pub(crate) fn hits(&mut self, chance: u32) -> bool {
        self.random.as_mut().is_some_and(|random| random.random_range(0..100) < chance)
    }

    pub(crate) fn block(&mut self, chance: u32) -> Fate {
        let Some(random) = &mut self.random else { return Fate::Lost };
        // Power goes once: few blocks are being written at that moment.
        if (1..100).contains(&chance) && random.random_range(0..8) == 0 {
            return Fate::Torn(random.random_range(1..255));
        }
        if random.random_range(0..100) < chance { Fate::Kept } else { Fate::Lost }
    }

    /// A size from `durable` to `now`, in either direction.
    pub(crate) fn size(&mut self, durable: u64, now: u64) -> u64 {
        let Some(random) = &mut self.random else { return durable };
        match random.random_range(0..3) {
            0 => durable,
            1 => now,
            _ => random.random_range(durable.min(now)..=durable.max(now)),
        }
    }
}
