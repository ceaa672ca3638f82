//! Inodes that were just seen to have no extended attributes: `ls -l` asks each file for its access list.
//!
//! An answer is believed for one time to live after its question was sent, and not if this client has set an attribute since.

use std::time::{Duration, Instant};

use coord_types::InodeId;
use master_api::model::Attr;
use parking_lot::Mutex;

/// Inodes remembered at most: a large directory. A newer one takes the place of another whose number ends alike.
const SLOTS: usize = 1 << 14;

#[derive(Debug, Default)]
struct Inner {
    /// The inode, and when its attributes were asked for. Empty until the first one.
    slots: Vec<Option<(InodeId, Instant)>>,
    /// The last time an extended attribute was set here.
    set_at: Option<Instant>,
}

/// The table.
#[derive(Debug)]
pub(crate) struct Bare {
    inner: Mutex<Inner>,
    lasting: Duration,
}

const fn slot(ino: InodeId) -> usize {
    (ino.0 % SLOTS as u64) as usize
}

impl Bare {
    pub(crate) fn new(lasting: Duration) -> Self {
        Self { inner: Mutex::default(), lasting }
    }

    /// The master told these attributes; it was asked at `asked_at`.
    pub(crate) fn told(&self, attr: &Attr, asked_at: Instant) {
        if attr.has_xattrs {
            return;
        }
        let mut inner = self.inner.lock();
        if inner.slots.is_empty() {
            inner.slots.resize(SLOTS, None);
        }
        inner.slots[slot(attr.ino)] = Some((attr.ino, asked_at));
    }

    /// An extended attribute was set: the answer came before `now`.
    pub(crate) fn set(&self, now: Instant) {
        self.inner.lock().set_at = Some(now);
    }

    /// Whether the inode surely has no extended attributes.
    pub(crate) fn is(&self, ino: InodeId, now: Instant) -> bool {
        let inner = self.inner.lock();
        let Some(&Some((of, asked_at))) = inner.slots.get(slot(ino)) else { return false };
        of == ino
            && now.saturating_duration_since(asked_at) < self.lasting
            && inner.set_at.is_none_or(|set_at| set_at < asked_at)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn attr(ino: u64, has_xattrs: bool) -> Attr {
        Attr { has_xattrs, ..crate::known::tests::attr(ino, 1) }
    }

    #[test]
    fn believes_the_last_answer_for_a_while() {
        let bare = Bare::new(Duration::from_secs(1));
        let start = Instant::now();
        assert!(!bare.is(InodeId(7), start));
        bare.told(&attr(7, false), start);
        bare.told(&attr(8, true), start);
        assert!(bare.is(InodeId(7), start) && !bare.is(InodeId(8), start));
        assert!(!bare.is(InodeId(7 + SLOTS as u64), start));
        assert!(bare.is(InodeId(7), start + Duration::from_millis(999)));
        assert!(!bare.is(InodeId(7), start + Duration::from_secs(1)));
    }

    #[test]
    fn an_answer_older_than_our_own_change_is_not_believed() {
        let bare = Bare::new(Duration::from_secs(1));
        let asked_at = Instant::now();
        let later = asked_at + Duration::from_millis(1);
        bare.set(later);
        bare.told(&attr(7, false), asked_at);
        assert!(!bare.is(InodeId(7), later));
        let asked_again = later + Duration::from_millis(1);
        bare.told(&attr(7, false), asked_again);
        assert!(bare.is(InodeId(7), asked_again));
    }
}
