//! Who was let in and who was not: one line of JSON each, in a file of the server's own.
//!
//! The file is bounded: at 16 MiB it becomes `audit.log.1`, in place of the one before. So is the rate: beyond 200 lines a second only their number is
//! written, so that whoever knocks in a storm fills no disk and delays nobody.

use std::fmt;
use std::fs::{File, OpenOptions};
use std::io::Write as _;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Instant, SystemTime};

use kuafu::PeerInfo;
use parking_lot::Mutex;
use serde::Serialize;
use zhongkui::{Capability, Timestamp};

const FILE_BYTES_MAX: u64 = 16 << 20;
const LINES_PER_SECOND: u32 = 200;

/// What happened.
#[derive(Debug, Serialize)]
pub struct Event {
    event: &'static str,
    peer: String,
    /// Whose capability, as its root says; absent if none could be proved.
    #[serde(skip_serializing_if = "Option::is_none")]
    who: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    capability: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    key: Option<String>,
    #[serde(skip_serializing_if = "String::is_empty")]
    what: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    why: String,
}

impl Event {
    /// Somebody proved to hold a capability.
    #[must_use]
    pub fn admitted(peer: &PeerInfo, capability: &Capability) -> Self {
        Self::new("admitted", peer, Some(capability), String::new(), String::new())
    }

    /// Somebody was refused.
    #[must_use]
    pub fn refused(
        peer: &PeerInfo,
        capability: Option<&Capability>,
        what: &str,
        why: &dyn fmt::Display,
    ) -> Self {
        Self::new("refused", peer, capability, what.to_owned(), why.to_string())
    }

    fn new(
        event: &'static str,
        peer: &PeerInfo,
        capability: Option<&Capability>,
        what: String,
        why: String,
    ) -> Self {
        Self {
            event,
            peer: peer.to_string(),
            who: capability.map(Capability::principal),
            capability: capability.map(|capability| capability.root().id.to_string()),
            key: capability.map(|capability| capability.holder().id().to_string()),
            what,
            why,
        }
    }
}

/// Where events go. Cheap to clone; clones write to the same file.
#[derive(Clone, Debug, Default)]
pub struct Audit(Option<Arc<Mutex<Log>>>);

#[derive(Debug)]
struct Log {
    path: PathBuf,
    /// Opened with the first line: not before its folder is what its server makes of it.
    file: Option<File>,
    bytes: u64,
    second: Instant,
    /// In this second.
    lines: u32,
    suppressed: u64,
}

impl Audit {
    /// Nowhere.
    #[must_use]
    pub fn none() -> Self {
        Self(None)
    }

    /// To a file, after what is in it. It is opened with the first line.
    #[must_use]
    pub fn to(path: &Path) -> Self {
        let log = Log {
            path: path.to_owned(),
            file: None,
            bytes: 0,
            second: Instant::now(),
            lines: 0,
            suppressed: 0,
        };
        Self(Some(Arc::new(Mutex::new(log))))
    }

    /// Writes a line. Without an error: an audit that cannot be written is said in the log, and stops nobody.
    pub fn note(&self, event: Event) {
        let Some(log) = &self.0 else { return };
        let mut log = log.lock();
        if let Err(error) = log.note(&event) {
            tracing::error!(%error, path = %log.path.display(), "the audit log cannot be written");
        }
    }
}

#[derive(Serialize)]
struct Line<'a, T> {
    time: String,
    unix: u32,
    #[serde(flatten)]
    event: &'a T,
}

#[derive(Serialize)]
struct Suppressed {
    event: &'static str,
    lines: u64,
}

impl Log {
    fn note(&mut self, event: &Event) -> std::io::Result<()> {
        let now = Instant::now();
        if now.duration_since(self.second).as_secs() >= 1 {
            let lines = std::mem::take(&mut self.suppressed);
            (self.second, self.lines) = (now, 0);
            if lines > 0 {
                self.write(&Suppressed { event: "suppressed", lines })?;
            }
        }
        if self.lines >= LINES_PER_SECOND {
            self.suppressed += 1;
            return Ok(());
        }
        self.lines += 1;
        self.write(event)
    }

    fn write<T: Serialize>(&mut self, event: &T) -> std::io::Result<()> {
        if self.bytes >= FILE_BYTES_MAX {
            let mut old = self.path.clone().into_os_string();
            old.push(".1");
            std::fs::rename(&self.path, old)?;
            self.file = None;
            self.bytes = 0;
        }
        if self.file.is_none() {
            let file = open(&self.path)?;
            self.bytes = file.metadata()?.len();
            self.file = Some(file);
        }
        let Some(file) = &mut self.file else { return Ok(()) };
        let now = Timestamp::from(SystemTime::now());
        let mut line = serde_json::to_vec(&Line { time: now.to_string(), unix: now.0, event })?;
        line.push(b'\n');
        self.bytes += line.len() as u64;
        file.write_all(&line)
    }
}

fn open(path: &Path) -> std::io::Result<File> {
    OpenOptions::new().create(true).append(true).mode(0o600).open(path)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lines(path: &Path) -> Vec<serde_json::Value> {
        let text = std::fs::read_to_string(path).unwrap();
        text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
    }

    #[test]
    fn a_line_is_json_whatever_a_stranger_says() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("audit.log");
        let audit = Audit::to(&path);
        audit.note(Event::refused(&PeerInfo::local(), None, "x\n{\"event\":\"admitted\"}", &"why"));
        let lines = lines(&path);
        assert_eq!(
            (lines.len(), &lines[0]["event"], &lines[0]["why"]),
            (1, &"refused".into(), &"why".into())
        );
    }

    #[test]
    fn a_storm_is_counted() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("audit.log");
        let audit = Audit::to(&path);
        for _ in 0..LINES_PER_SECOND + 7 {
            audit.note(Event::refused(&PeerInfo::local(), None, "x", &"y"));
        }
        assert_eq!(lines(&path).len(), LINES_PER_SECOND as usize);
        let log = audit.0.as_ref().unwrap();
        log.lock().second -= std::time::Duration::from_secs(1);
        audit.note(Event::refused(&PeerInfo::local(), None, "x", &"y"));
        let lines = lines(&path);
        assert_eq!(lines[LINES_PER_SECOND as usize]["lines"], 7);
    }

    #[test]
    fn a_long_log_makes_room() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("audit.log");
        let audit = Audit::to(&path);
        audit.note(Event::refused(&PeerInfo::local(), None, "x", &"y"));
        audit.0.as_ref().unwrap().lock().bytes = FILE_BYTES_MAX;
        audit.note(Event::refused(&PeerInfo::local(), None, "x", &"y"));
        assert_eq!(lines(&path).len(), 1);
        assert!(folder.path().join("audit.log.1").exists());
    }
}
