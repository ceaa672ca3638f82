//! What other members' disks can still take, so that a write is refused before one of them has to refuse it: a member
//! that is full after the primary has written stops its group.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use chunkserver_engine::Usage;
use coord_types::DiskId;
use parking_lot::Mutex;

/// Space kept free for what is in flight. Bounded by a share of the disk, or a small one would never be written to.
const MARGIN_MAX_BYTES: u64 = 256 << 20;
const MARGIN_SHARE: u64 = 16;

/// News older than this is not believed: one write a second then finds out whether there is room again. The margin
/// absorbs it.
const NEWS_MAX_AGE: Duration = Duration::from_secs(1);

/// Space a disk offers to client writes.
pub(crate) const fn offered_bytes(usage: &Usage) -> u64 {
    let share = usage.capacity_bytes / MARGIN_SHARE;
    let margin = if share < MARGIN_MAX_BYTES { share } else { MARGIN_MAX_BYTES };
    usage.available_bytes().saturating_sub(margin)
}

/// What members said, with their answers.
#[derive(Debug, Default)]
pub(crate) struct Space {
    offered: Mutex<HashMap<DiskId, (u64, Instant)>>,
}

impl Space {
    pub(crate) fn note(&self, disk: DiskId, offered_bytes: u64) {
        self.offered.lock().insert(disk, (offered_bytes, Instant::now()));
    }

    /// Whether the disk said lately that it has less than this.
    pub(crate) fn lacks(&self, disk: DiskId, needed_bytes: u64) -> bool {
        self.offered
            .lock()
            .get(&disk)
            .is_some_and(|(offered, at)| *offered < needed_bytes && at.elapsed() < NEWS_MAX_AGE)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_margin_fits_the_disk() {
        let usage = |capacity_bytes, used_bytes| Usage { capacity_bytes, used_bytes, reserve_bytes: 0 };
        assert_eq!(offered_bytes(&usage(16 << 30, 0)), (16 << 30) - (256 << 20));
        assert_eq!(offered_bytes(&usage(160 << 20, 0)), 150 << 20);
        assert_eq!(offered_bytes(&usage(160 << 20, 155 << 20)), 0);
    }

    #[test]
    fn only_fresh_news_counts() {
        let space = Space::default();
        assert!(!space.lacks(DiskId(1), 100));
        space.note(DiskId(1), 99);
        assert!(space.lacks(DiskId(1), 100));
        assert!(!space.lacks(DiskId(1), 99));
        let old = Instant::now().checked_sub(NEWS_MAX_AGE).expect("the machine runs for more than a second");
        space.offered.lock().insert(DiskId(1), (0, old));
        assert!(!space.lacks(DiskId(1), 100));
    }
}
