//! The programs on the mount: writers that check what they read and keep a ledger of what was confirmed to them.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::Context as _;
use deploy_e2e::{Writer, verify};

/// Operations that must succeed before programs count as going on.
const GOING_ON: u64 = 20;
/// Longer than any system needs, its repairs by hand included.
const GIVE_UP: Duration = Duration::from_secs(180);

/// Writers at work.
#[derive(Debug)]
pub(crate) struct Load {
    root: PathBuf,
    writers: Vec<Writer>,
    started: u64,
    errors: Vec<String>,
    wrong: Vec<String>,
    right: usize,
}

impl Load {
    pub(crate) fn start(root: &Path, writers: u64) -> anyhow::Result<Self> {
        let (root, none) = (root.to_owned(), Vec::new());
        let mut load =
            Self { root, writers: none, started: 0, errors: Vec::new(), wrong: Vec::new(), right: 0 };
        for _ in 0..writers {
            let writer = load.another()?;
            load.writers.push(writer);
        }
        Ok(load)
    }

    fn another(&mut self) -> anyhow::Result<Writer> {
        self.started += 1;
        let folder = self.root.join(format!("writer{}", self.started));
        std::fs::create_dir(&folder).with_context(|| format!("make {}", folder.display()))?;
        Ok(Writer::start(&folder, self.started))
    }

    /// The longest operation since the last time, of any writer, those under way included. Forgets it.
    pub(crate) fn take_longest(&self) -> Duration {
        self.writers.iter().map(Writer::take_longest).max().unwrap_or_default()
    }

    /// Returns when every writer has done some operations more. One that met an error is counted, checked, and replaced.
    pub(crate) fn wait_going_on(&mut self) -> anyhow::Result<()> {
        let began = Instant::now();
        let mut wanted: Vec<u64> = self.writers.iter().map(|writer| writer.done() + GOING_ON).collect();
        loop {
            for (at, wanted) in wanted.iter_mut().enumerate() {
                if self.writers[at].has_ended() {
                    let new = self.another()?;
                    *wanted = GOING_ON;
                    let old = std::mem::replace(&mut self.writers[at], new);
                    self.end(old);
                }
            }
            if self.writers.iter().zip(&wanted).all(|(writer, wanted)| writer.done() >= *wanted) {
                return Ok(());
            }
            anyhow::ensure!(began.elapsed() < GIVE_UP, "programs wait for more than {GIVE_UP:?}");
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    fn end(&mut self, writer: Writer) {
        // It panics if it read something wrong.
        let ended = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| writer.finish()));
        let Ok((result, owed)) = ended else {
            self.wrong.push("a writer read something it never wrote".to_owned());
            return;
        };
        if let Err(error) = result {
            self.errors.push(error.to_string());
        }
        let (wrong, right) = verify(&owed);
        self.wrong.extend(wrong);
        self.right += right;
    }

    /// Ends the writers: errors they met, what is wrong of what was confirmed to them, and how many files and blocks are
    /// right.
    pub(crate) fn finish(mut self) -> (Vec<String>, Vec<String>, usize) {
        for writer in std::mem::take(&mut self.writers) {
            self.end(writer);
        }
        (self.errors, self.wrong, self.right)
    }
}
