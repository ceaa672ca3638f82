//! What a chunk remembers of its writers, so that a retry is recognised (I5). Stored with the chunk's data, in one atomic record.

use crate::ids::{SessionId, Stamp};

/// Which writes of a session a chunk has seen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct WriterWindow {
    pub session: SessionId,
    /// The highest sequence number seen.
    pub newest: u64,
    /// Bit `i` stands for sequence number `newest - i`.
    pub seen: u64,
}

impl WriterWindow {
    /// Sequence numbers a window tells apart.
    pub const LEN: u64 = 64;
    /// Sessions a chunk remembers: one writer is the rule, a few may overlap; the one silent longest is forgotten.
    pub const PER_CHUNK: usize = 4;

    /// Whether `seq` was seen. What is older than the window counts as seen: a client has at most
    /// [`Stamp::WINDOW`] writes to a chunk in flight, so it can only be a late duplicate.
    #[must_use]
    pub const fn has_seen(&self, seq: u64) -> bool {
        if seq > self.newest {
            return false;
        }
        let age = self.newest - seq;
        age >= Self::LEN || (self.seen >> age) & 1 == 1
    }

    const fn note(&mut self, seq: u64) {
        if seq > self.newest {
            let step = seq - self.newest;
            self.seen = if step >= Self::LEN { 0 } else { self.seen << step };
            self.seen |= 1;
            self.newest = seq;
        } else if self.newest - seq < Self::LEN {
            self.seen |= 1 << (self.newest - seq);
        }
    }
}

/// Notes `stamp` in `windows`, most recent session first, at most [`WriterWindow::PER_CHUNK`].
pub fn note_stamp(windows: &mut Vec<WriterWindow>, stamp: Stamp) {
    let mut window = match windows.iter().position(|window| window.session == stamp.session) {
        Some(at) => windows.remove(at),
        None => WriterWindow { session: stamp.session, newest: stamp.seq, seen: 0 },
    };
    window.note(stamp.seq);
    windows.insert(0, window);
    windows.truncate(WriterWindow::PER_CHUNK);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_window_tells_its_last_64_apart_and_takes_older_ones_for_seen() {
        let mut windows = Vec::new();
        let stamp = |seq| Stamp { session: SessionId(1), seq };
        note_stamp(&mut windows, stamp(100));
        note_stamp(&mut windows, stamp(103));
        note_stamp(&mut windows, stamp(101));
        let window = windows[0];
        let seen: Vec<_> = (95..106).filter(|seq| window.has_seen(*seq)).collect();
        assert_eq!(seen, [100, 101, 103]);
        assert!(window.has_seen(103 - 64) && !window.has_seen(103 - 63));
        note_stamp(&mut windows, stamp(1000));
        assert_eq!(windows[0].seen, 1);
    }

    #[test]
    fn the_session_silent_longest_is_forgotten() {
        let mut windows = Vec::new();
        for session in [1, 2, 3, 1, 4, 5] {
            note_stamp(&mut windows, Stamp { session: SessionId(session), seq: 1 });
        }
        assert_eq!(windows.iter().map(|w| w.session.0).collect::<Vec<_>>(), [5, 4, 1, 3]);
    }
}
