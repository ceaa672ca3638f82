//! The last answers to questions that must never hang: the size of the file system and the attributes of its root.
//! While no server answers, `df` and `cd` get these: after a second at first, then without much waiting, until a server
//! answers again.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, SystemTime};

use coord_types::InodeId;
use fs_client::{FileAttr, OpReply, OpResult, StatFs};
use parking_lot::Mutex;

/// Which of the questions was asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Question {
    StatFs,
    RootAttr,
}

#[derive(Debug, Default)]
pub(crate) struct LastKnown {
    statfs: Mutex<Option<StatFs>>,
    root: Mutex<Option<FileAttr>>,
    /// The last question had to be answered from here.
    silent: AtomicBool,
}

/// How long a question waits for the true answer.
const PATIENCE: Duration = Duration::from_secs(1);
/// The same when nobody answered the one before: `df` asks three times.
const PATIENCE_SILENT: Duration = Duration::from_millis(100);

impl LastKnown {
    /// How long to wait for the true answer.
    pub(crate) fn patience(&self) -> Duration {
        if self.silent.load(Ordering::Relaxed) { PATIENCE_SILENT } else { PATIENCE }
    }

    /// A question was answered from here.
    pub(crate) fn fell_silent(&self) {
        self.silent.store(true, Ordering::Relaxed);
    }

    /// Remembers a true answer, if it is a good one.
    pub(crate) fn note(&self, question: Question, result: &OpResult) {
        if result.is_ok() {
            self.silent.store(false, Ordering::Relaxed);
        }
        match (question, result) {
            (Question::StatFs, Ok(OpReply::StatFs(statfs))) => *self.statfs.lock() = Some(*statfs),
            (Question::RootAttr, Ok(OpReply::Attr { attr, .. })) => *self.root.lock() = Some(*attr),
            _ => {}
        }
    }

    /// What to say while nobody answers. The kernel is told to ask again next time.
    pub(crate) fn answer(&self, question: Question) -> OpReply {
        match question {
            Question::StatFs => OpReply::StatFs(self.statfs.lock().unwrap_or_default()),
            Question::RootAttr => {
                let attr = self.root.lock().unwrap_or_else(bare_root);
                OpReply::Attr { attr, ttl: Duration::ZERO }
            }
        }
    }
}

/// A root as it is made, for a mount that never reached a server.
fn bare_root() -> FileAttr {
    FileAttr {
        ino: InodeId::ROOT,
        mode: libc::S_IFDIR | 0o755,
        nlink: 2,
        uid: 0,
        gid: 0,
        rdev: 0,
        size_bytes: 0,
        allocated_bytes: 0,
        atime: SystemTime::UNIX_EPOCH,
        mtime: SystemTime::UNIX_EPOCH,
        ctime: SystemTime::UNIX_EPOCH,
    }
}

#[cfg(test)]
mod tests {
    use fs_client::Errno;

    use super::*;

    #[test]
    fn repeats_the_last_good_answer() {
        let known = LastKnown::default();
        assert!(matches!(known.answer(Question::StatFs), OpReply::StatFs(s) if s.total_bytes == 0));
        let statfs = StatFs { total_bytes: 10, free_bytes: 4, inodes: 3, inodes_free: 1 };
        known.note(Question::StatFs, &Ok(OpReply::StatFs(statfs)));
        known.note(Question::StatFs, &Err(Errno::EIO));
        assert_eq!(known.patience(), PATIENCE);
        assert!(matches!(known.answer(Question::StatFs), OpReply::StatFs(s) if s.total_bytes == 10));
        known.fell_silent();
        known.note(Question::StatFs, &Err(Errno::EIO));
        assert_eq!(known.patience(), PATIENCE_SILENT, "nobody waits as long again");
        known.note(Question::StatFs, &Ok(OpReply::StatFs(statfs)));
        assert_eq!(known.patience(), PATIENCE, "a server is back");

        let root = FileAttr { mode: libc::S_IFDIR | 0o700, ..bare_root() };
        known.note(Question::RootAttr, &Ok(OpReply::Attr { attr: root, ttl: Duration::from_secs(1) }));
        match known.answer(Question::RootAttr) {
            OpReply::Attr { attr, ttl } => {
                assert_eq!(attr, root);
                assert_eq!(ttl, Duration::ZERO);
            }
            other => panic!("{other:?}"),
        }
    }
}
