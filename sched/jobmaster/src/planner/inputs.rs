//! What inputs match, and how they are cut.

use std::fs::{self, File};
use std::io;
use std::os::unix::fs::FileExt as _;
use std::path::Path;

use sched_api::proto;
use sched_spec::{INSTANCES_MAX, Records, Split, TaskKind, TaskSpec};
use serde::{Deserialize, Serialize};

use super::PlanFileError;

/// How much is read at a time to find where a line ends.
const LOOK_BYTES: usize = 64 << 10;

/// A part of a file.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Piece {
    /// In the mount.
    pub(crate) path: String,
    pub(crate) offset: u64,
    pub(crate) len: u64,
}

impl From<Piece> for proto::Piece {
    fn from(piece: Piece) -> Self {
        Self { path: piece.path, offset: piece.offset, len: piece.len }
    }
}

/// The files that a task's inputs match, whole, in the order of their names. Empty ones and directories are passed over.
pub(super) fn files(mount: &Path, task: &TaskSpec) -> Result<Vec<Piece>, PlanFileError> {
    let mut files = Vec::new();
    let root = glob::Pattern::escape(&mount.to_string_lossy());
    for pattern in &task.inputs {
        let matched = glob::glob(&format!("{root}/{pattern}")).map_err(|source| PlanFileError::Pattern {
            task: task.name.clone(),
            pattern: pattern.clone(),
            source,
        })?;
        for path in matched {
            let look = |path: &Path, source| PlanFileError::Look {
                task: task.name.clone(),
                path: path.to_owned(),
                source,
            };
            let path = path.map_err(|error| {
                let path = error.path().to_owned();
                look(&path, error.into())
            })?;
            let meta = fs::metadata(&path).map_err(|source| look(&path, source))?;
            let relative = path.strip_prefix(mount).unwrap_or(&path);
            if meta.is_file() && meta.len() > 0 {
                files.push(Piece {
                    path: relative.to_string_lossy().into_owned(),
                    offset: 0,
                    len: meta.len(),
                });
            }
        }
    }
    files.sort_by(|a, b| a.path.cmp(&b.path));
    files.dedup();
    if files.is_empty() {
        return Err(PlanFileError::NoInputs {
            task: task.name.clone(),
            patterns: task.inputs.join(", "),
            mount: mount.to_owned(),
        });
    }
    Ok(files)
}

/// The pieces of files, one an instance.
pub(super) fn split(mount: &Path, task: &TaskSpec, files: &[Piece]) -> Result<Vec<Piece>, PlanFileError> {
    let mut pieces = Vec::new();
    for file in files {
        let Split::Bytes(size) = task.split else {
            pieces.push(file.clone());
            continue;
        };
        let ends =
            match &task.kind {
                // A map looks for the borders of records itself, and so reads only what it needs.
                TaskKind::Map(map) => even(file.len, rounded(size, map.records)),
                _ => lines(&mount.join(&file.path), file.len, size).map_err(|source| {
                    PlanFileError::Look { task: task.name.clone(), path: mount.join(&file.path), source }
                })?,
            };
        let mut offset = 0;
        for end in ends {
            pieces.push(Piece { path: file.path.clone(), offset, len: end - offset });
            offset = end;
        }
    }
    if pieces.len() > INSTANCES_MAX as usize {
        let pieces = pieces.len();
        return Err(PlanFileError::TooMany { task: task.name.clone(), pieces, most: INSTANCES_MAX });
    }
    Ok(pieces)
}

/// A multiple of the records' length.
fn rounded(size: u64, records: Records) -> u64 {
    match records {
        Records::Lines => size,
        Records::Fixed(len) => size.div_ceil(u64::from(len)) * u64::from(len),
    }
}

fn even(len: u64, size: u64) -> Vec<u64> {
    (1..=len.div_ceil(size)).map(|piece| (piece * size).min(len)).collect()
}

/// Ends of pieces of about a size, each behind the end of a line.
fn lines(path: &Path, len: u64, size: u64) -> io::Result<Vec<u64>> {
    let file = File::open(path)?;
    let mut ends = Vec::new();
    let mut at = size;
    let mut buffer = vec![0; LOOK_BYTES];
    while at < len {
        // The byte before belongs to it: a line may end just there.
        let count = file.read_at(&mut buffer, at - 1)?;
        if count == 0 {
            break;
        }
        match buffer[..count].iter().position(|byte| *byte == b'\n') {
            Some(end) => {
                let end = at + end as u64;
                if end < len {
                    ends.push(end);
                }
                at = end + size;
            }
            None => at += count as u64,
        }
    }
    ends.push(len);
    Ok(ends)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn task(text: &str) -> TaskSpec {
        let text = format!("name = \"x\"\n[[task]]\nname = \"t\"\ncommand = \"true\"\n{text}");
        sched_spec::parse(&text).unwrap().tasks.remove(0)
    }

    #[test]
    fn pieces_end_where_lines_do_and_leave_nothing_out() {
        let dir = tempfile::tempdir().unwrap();
        let mut text = Vec::new();
        for n in 0..40_000u32 {
            text.extend_from_slice(format!("{}\n", "x".repeat(n as usize % 17)).as_bytes());
        }
        // A line longer than what is read at once, and none at the end.
        text.extend_from_slice(&vec![b'y'; 3 * LOOK_BYTES]);
        fs::write(dir.path().join("file"), &text).unwrap();
        let task = task("inputs = [\"*\"]\nsplit = \"64KiB\"\n");
        let files = files(dir.path(), &task).unwrap();
        let pieces = split(dir.path(), &task, &files).unwrap();
        assert!(pieces.len() > 3, "{pieces:?}");
        let mut at = 0;
        for piece in &pieces {
            assert_eq!(piece.offset, at);
            at += piece.len;
            assert!(at == text.len() as u64 || text[usize::try_from(at).unwrap() - 1] == b'\n', "{piece:?}");
        }
        assert_eq!(at, text.len() as u64);
    }

    #[test]
    fn globs_match_files_in_order_and_say_if_they_match_none() {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir_all(dir.path().join("a/b")).unwrap();
        for name in ["a/2", "a/b/1", "a/1", "c"] {
            fs::write(dir.path().join(name), "x").unwrap();
        }
        fs::write(dir.path().join("a/empty"), "").unwrap();
        let matched: Vec<String> = files(dir.path(), &task("inputs = [\"a/**/*\"]\n"))
            .unwrap()
            .into_iter()
            .map(|file| file.path)
            .collect();
        assert_eq!(matched, ["a/1", "a/2", "a/b/1"]);
        let error = files(dir.path(), &task("inputs = [\"nothing/*\"]\n")).unwrap_err();
        assert!(error.to_string().contains("match no file"), "{error}");
        assert!(matches!(
            files(dir.path(), &task("inputs = [\"a/***\"]\n")),
            Err(PlanFileError::Pattern { .. })
        ));
    }

    #[test]
    fn fixed_records_are_not_cut() {
        assert_eq!(even(1_000, rounded(256, Records::Fixed(100))), [300, 600, 900, 1_000]);
    }
}
