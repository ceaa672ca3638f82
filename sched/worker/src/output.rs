//! What programs write to standard output and standard error: one local file that is used again and again.
//!
//! Most instances say nothing, and then the cost is one fstat. Only what one said is moved to the job's `log/` in the mount, where making a
//! file costs a round trip.

use std::fs::{File, OpenOptions};
use std::io::{self, Seek as _, Write as _};
use std::os::fd::{AsFd as _, BorrowedFd};
use std::os::unix::fs::FileExt as _;
use std::path::Path;

use parking_lot::Mutex;

/// Of a report's text.
const TAIL_BYTES: u64 = 1024;

/// See the module.
#[derive(Debug)]
pub struct Output {
    file: File,
    bytes_max: u64,
    /// One thread at a time cuts or moves.
    turn: Mutex<()>,
}

impl Output {
    /// Keeps at most about `bytes_max` of what one attempt says: its last words.
    ///
    /// # Errors
    /// The file cannot be made.
    pub fn open(path: &Path, bytes_max: u64) -> io::Result<Self> {
        // To append, so that programs that write together, and one that was truncated under its feet, go on at the end.
        let file = OpenOptions::new().read(true).append(true).create(true).open(path)?;
        file.set_len(0)?;
        Ok(Self { file, bytes_max, turn: Mutex::new(()) })
    }

    /// For programs to write to.
    #[must_use]
    pub fn descriptor(&self) -> BorrowedFd<'_> {
        self.file.as_fd()
    }

    /// Cuts what was said when it is too much, while the program runs. What it says between two steps of this is lost.
    ///
    /// # Errors
    /// The file cannot be read or changed.
    pub fn trim(&self) -> io::Result<()> {
        let _turn = self.turn.lock();
        self.cut()
    }

    fn cut(&self) -> io::Result<()> {
        let len = self.file.metadata()?.len();
        if len <= self.bytes_max {
            return Ok(());
        }
        let keep = self.bytes_max / 2;
        let mut tail = vec![0; usize::try_from(keep).map_err(io::Error::other)?];
        self.file.read_exact_at(&mut tail, len - keep)?;
        self.file.set_len(0)?;
        let mut file = &self.file;
        writeln!(file, "[{} bytes before this were left out: a log keeps {}]", len - keep, self.bytes_max)?;
        file.write_all(&tail)
    }

    /// Moves what was said to `log`, if anything was. Its last words.
    ///
    /// # Errors
    /// The log cannot be written; the file here is empty again all the same.
    pub fn collect(&self, log: &Path) -> io::Result<Option<String>> {
        if self.file.metadata()?.len() == 0 {
            return Ok(None);
        }
        let _turn = self.turn.lock();
        self.cut()?;
        let moved = self.tail().and_then(|tail| self.copy_to(log).map(|()| tail));
        self.file.set_len(0)?;
        moved.map(Some)
    }

    fn copy_to(&self, log: &Path) -> io::Result<()> {
        let mut file = &self.file;
        file.rewind()?;
        let make = || OpenOptions::new().write(true).create(true).truncate(true).open(log);
        let mut log_file = match make() {
            // The directory is made by whoever is the first to say something.
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                if let Some(folder) = log.parent() {
                    std::fs::create_dir_all(folder)?;
                }
                make()?
            }
            made => made?,
        };
        io::copy(&mut file, &mut log_file)?;
        Ok(())
    }

    fn tail(&self) -> io::Result<String> {
        let len = self.file.metadata()?.len();
        let keep = len.min(TAIL_BYTES);
        let mut tail = vec![0; usize::try_from(keep).map_err(io::Error::other)?];
        self.file.read_exact_at(&mut tail, len - keep)?;
        Ok(String::from_utf8_lossy(&tail).trim_end().to_owned())
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    fn output(bytes_max: u64) -> (tempfile::TempDir, Output) {
        let dir = tempfile::tempdir().unwrap();
        let output = Output::open(&dir.path().join("output"), bytes_max).unwrap();
        (dir, output)
    }

    fn say(output: &Output, text: &str) {
        (&output.file).write_all(text.as_bytes()).unwrap();
    }

    #[test]
    fn silence_makes_no_file() {
        let (dir, output) = output(1000);
        assert_eq!(output.collect(&dir.path().join("log/a")).unwrap(), None);
        assert!(!dir.path().join("log").exists());
    }

    #[test]
    fn words_are_moved_and_the_next_one_starts_empty() {
        let (dir, output) = output(1000);
        say(&output, "one\ntwo\n");
        assert_eq!(output.collect(&dir.path().join("log/a")).unwrap().as_deref(), Some("one\ntwo"));
        assert_eq!(fs::read_to_string(dir.path().join("log/a")).unwrap(), "one\ntwo\n");
        say(&output, "three");
        output.collect(&dir.path().join("log/b")).unwrap();
        assert_eq!(fs::read_to_string(dir.path().join("log/b")).unwrap(), "three");
    }

    #[test]
    fn too_many_words_are_cut_at_their_beginning_and_it_is_said() {
        let (dir, output) = output(1000);
        say(&output, &format!("{}last", "x".repeat(5000)));
        output.trim().unwrap();
        say(&output, " words");
        output.collect(&dir.path().join("a")).unwrap();
        let log = fs::read_to_string(dir.path().join("a")).unwrap();
        assert!(log.len() < 700 && log.ends_with("last words"), "{} bytes", log.len());
        assert!(log.starts_with("[4504 bytes before this were left out"), "{log}");
    }

    #[test]
    fn a_log_that_cannot_be_written_does_not_reach_the_next_attempt() {
        let (dir, output) = output(1000);
        fs::write(dir.path().join("log"), "a file, where a folder should be").unwrap();
        say(&output, "lost");
        output.collect(&dir.path().join("log/a")).unwrap_err();
        say(&output, "kept");
        assert_eq!(output.collect(&dir.path().join("b")).unwrap().as_deref(), Some("kept"));
    }
}
