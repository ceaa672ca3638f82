//! Whether memory ran out: a file with a line `oom_kill N`, which the kernel or the agent counts up when it kills a process of this grant.

use std::fs;
use std::path::PathBuf;

/// See the module.
#[derive(Debug)]
pub struct OomCounter {
    file: Option<PathBuf>,
    seen: u64,
}

impl OomCounter {
    /// Counts from now.
    #[must_use]
    pub fn new(file: Option<PathBuf>) -> Self {
        let mut counter = Self { file, seen: 0 };
        counter.seen = counter.read();
        counter
    }

    /// Whether it was counted up since this was last asked. Read only when an attempt failed: a file per attempt would cost more than the
    /// attempt.
    pub fn rose(&mut self) -> bool {
        let now = self.read();
        let rose = now > self.seen;
        self.seen = now;
        rose
    }

    fn read(&self) -> u64 {
        let text = self.file.as_ref().and_then(|file| fs::read_to_string(file).ok()).unwrap_or_default();
        let counts = text.lines().filter_map(|line| line.strip_prefix("oom_kill "));
        counts.filter_map(|count| count.trim().parse::<u64>().ok()).sum()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_tells_only_what_is_new() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("memory.events");
        fs::write(&file, "low 0\noom 4\noom_kill 2\noom_group_kill 0\n").unwrap();
        let mut counter = OomCounter::new(Some(file.clone()));
        assert!(!counter.rose());
        fs::write(&file, "oom 9\noom_kill 3\n").unwrap();
        assert!(counter.rose());
        assert!(!counter.rose());
    }
}
