//! What a server wrote down of those it refused.

use std::fs::File;
use std::io::{Read as _, Seek as _, SeekFrom};
use std::path::PathBuf;

use serde_json::Value;

/// The audit log of one server, read on.
#[derive(Debug)]
pub(crate) struct AuditLog {
    path: PathBuf,
    read_upto: u64,
}

impl AuditLog {
    pub(crate) fn of(data: PathBuf) -> Self {
        Self { path: data.join("audit.log"), read_upto: 0 }
    }

    /// The lines since the last call. Each is JSON, whatever a stranger sent.
    pub(crate) fn news(&mut self) -> Vec<Value> {
        let Ok(mut file) = File::open(&self.path) else { return Vec::new() };
        file.seek(SeekFrom::Start(self.read_upto)).unwrap();
        let mut text = String::new();
        file.read_to_string(&mut text).unwrap();
        // A line that is being written is for the next time.
        let whole = text.rfind('\n').map_or(0, |end| end + 1);
        self.read_upto += whole as u64;
        text[..whole].lines().map(|line| serde_json::from_str(line).unwrap()).collect()
    }
}

/// Whom a refusal names.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum By {
    /// The holder's key id, or the capability's.
    Id(String),
    /// Nobody: nothing was proved.
    Unproved,
}

impl By {
    /// Whether this line says that it was refused something.
    pub(crate) fn is_refused_in(&self, line: &Value) -> bool {
        let named = ["key", "capability"].map(|field| line[field].as_str());
        line["event"] == "refused"
            && match self {
                Self::Id(id) => named.contains(&Some(id.as_str())),
                Self::Unproved => named == [None, None],
            }
    }
}
