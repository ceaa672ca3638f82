//! What people read of a job: `status`, `why`, `progress` and `events`.

use std::fs;
use std::io::Write as _;
use std::path::Path;

use super::{At as _, SpoolError};

/// What the files say that are written anew each time; `None` leaves a file as it is.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Texts {
    /// One word: waiting, running, paused, done, failed, killed.
    pub status: Option<String>,
    /// One sentence.
    pub why: Option<String>,
    pub progress: Option<String>,
}

impl Texts {
    /// Writes them into a job's directory, each whole or not at all. They are for people and can be made again, so nothing
    /// is synced.
    ///
    /// # Errors
    /// See [`SpoolError`].
    pub fn write(&self, dir: &Path) -> Result<(), SpoolError> {
        let texts = [("status", &self.status), ("why", &self.why), ("progress", &self.progress)];
        for (name, text) in texts {
            let Some(text) = text else { continue };
            let temporary = dir.join(format!(".{name}"));
            let end = if text.is_empty() || text.ends_with('\n') { "" } else { "\n" };
            fs::write(&temporary, format!("{text}{end}")).at("write", &temporary)?;
            let path = dir.join(name);
            fs::rename(&temporary, &path).at("write", &path)?;
        }
        Ok(())
    }
}

/// Appends lines to a job's `events`.
///
/// # Errors
/// See [`SpoolError`].
pub fn append_events(dir: &Path, lines: &str) -> Result<(), SpoolError> {
    let path = dir.join("events");
    let file = fs::OpenOptions::new().create(true).append(true).open(&path);
    file.and_then(|mut file| file.write_all(lines.as_bytes())).at("append to", &path)
}
