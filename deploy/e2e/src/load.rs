//! Programs on a mount: writers that check what they read and keep a ledger of what was confirmed to them.

use std::io;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::Context as _;

use crate::writer::{Owed, Writer, verify};

/// Operations that must succeed before programs count as going on.
const GOING_ON: u64 = 20;
/// Longer than any system needs, its repairs by hand included.
const GIVE_UP: Duration = Duration::from_secs(180);

/// An error that a writer met: it ended with that.
#[derive(Debug)]
pub struct Met {
    /// When the operation began.
    pub from: Instant,
    /// When it had ended for sure.
    pub upto: Instant,
    /// What the file system said.
    pub error: io::Error,
}

/// What came of all writers.
#[derive(Debug, Default)]
pub struct Ended {
    /// Errors they met.
    pub errors: Vec<Met>,
    /// What is wrong of what was confirmed to them.
    pub wrong: Vec<String>,
    /// How many files and blocks are right.
    pub right: usize,
    /// Bytes that were confirmed to them.
    pub written_bytes: u64,
    /// To be checked again.
    pub owed: Vec<Owed>,
}

/// Writers at work.
#[derive(Debug)]
pub struct Load {
    root: PathBuf,
    seed: u64,
    writers: Vec<Writer>,
    started: u64,
    ended: Ended,
}

impl Load {
    /// So many writers, each in a folder of its own below `root`.
    ///
    /// # Errors
    /// A folder cannot be made.
    pub fn start(root: &Path, writers: u64, seed: u64) -> anyhow::Result<Self> {
        let (root, none) = (root.to_owned(), Vec::new());
        let mut load = Self { root, seed, writers: none, started: 0, ended: Ended::default() };
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
        Ok(Writer::start(&folder, self.seed + self.started))
    }

    /// The writers of the moment.
    #[must_use]
    pub fn writers(&self) -> &[Writer] {
        &self.writers
    }

    /// The longest operation since the last time, of any writer, those under way included. Forgets it.
    #[must_use]
    pub fn take_longest(&self) -> Duration {
        self.writers.iter().map(Writer::take_longest).max().unwrap_or_default()
    }

    /// Writers that met an error are counted, checked, and replaced; answers whether there were any.
    ///
    /// # Errors
    /// A folder for the new one cannot be made.
    pub fn replace_ended(&mut self) -> anyhow::Result<bool> {
        let mut any = false;
        for at in 0..self.writers.len() {
            if self.writers[at].has_ended() {
                any = true;
                let new = self.another()?;
                let old = std::mem::replace(&mut self.writers[at], new);
                self.end(old);
            }
        }
        Ok(any)
    }

    /// Returns when every writer has done some operations more. One that met an error is replaced.
    ///
    /// # Errors
    /// They do not go on for minutes, or a folder for a new one cannot be made.
    pub fn wait_going_on(&mut self) -> anyhow::Result<()> {
        anyhow::ensure!(self.goes_on_within(GIVE_UP)?, "programs wait for more than {GIVE_UP:?}");
        Ok(())
    }

    /// Whether every writer does some operations more within this time. Returns as soon as that is known.
    ///
    /// # Errors
    /// A folder for a new writer cannot be made.
    pub fn goes_on_within(&mut self, patience: Duration) -> anyhow::Result<bool> {
        let began = Instant::now();
        let mut wanted = self.goal();
        loop {
            if self.replace_ended()? {
                wanted = self.goal();
            }
            if self.writers.iter().zip(&wanted).all(|(writer, wanted)| writer.done() >= *wanted) {
                return Ok(true);
            }
            if began.elapsed() > patience {
                return Ok(false);
            }
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    fn goal(&self) -> Vec<u64> {
        self.writers.iter().map(|writer| writer.done() + GOING_ON).collect()
    }

    fn end(&mut self, writer: Writer) {
        self.ended.written_bytes += writer.written_bytes();
        let began = writer.began();
        // It panics if it read something wrong.
        let ended = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| writer.finish()));
        let Ok((result, owed)) = ended else {
            self.ended.wrong.push("a writer read something it never wrote".to_owned());
            return;
        };
        if let Err(error) = result {
            let upto = Instant::now();
            self.ended.errors.push(Met { from: began.unwrap_or(upto), upto, error });
        }
        let (wrong, right) = verify(&owed);
        self.ended.wrong.extend(wrong);
        self.ended.right += right;
        self.ended.owed.push(owed);
    }

    /// Ends the writers and checks what each is owed.
    #[must_use]
    pub fn finish(mut self) -> Ended {
        for writer in std::mem::take(&mut self.writers) {
            self.end(writer);
        }
        self.ended
    }
}
