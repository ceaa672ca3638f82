//! `errors`: why reads or writes of this mount failed.

use std::fmt::Write as _;
use std::time::SystemTime;

use fs_client::chunks::ErrorRecord;

use crate::text::ago;

/// Oldest first, each with what was tried below it.
#[must_use]
pub fn errors(records: &[ErrorRecord], now: SystemTime) -> String {
    let mut out = String::new();
    for record in records {
        let age = now.duration_since(record.when).unwrap_or_default().as_secs();
        let key = record.chunk;
        let (group, data, index) = (key.group, key.chunk.data, key.chunk.index);
        writeln!(out, "{}: chunk {index} of {data}, {group}\n    {}", ago(age), record.what)
            .expect("a String grows");
    }
    if out.is_empty() { "no errors\n".to_owned() } else { out }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use coord_types::{ChunkKey, DataId, GroupId};

    use super::*;

    #[test]
    fn says_when_which_chunk_and_what_was_tried() {
        let now = SystemTime::now();
        assert_eq!(errors(&[], now), "no errors\n");
        let record = ErrorRecord {
            when: now - Duration::from_secs(5),
            chunk: ChunkKey::new(GroupId(3), DataId(4), 7),
            what: "every copy is damaged".to_owned(),
        };
        let text = errors(&[record], now);
        assert!(text.starts_with("5 s ago: chunk 7 of "), "{text}");
        assert!(text.ends_with("\n    every copy is damaged\n"), "{text}");
    }
}
