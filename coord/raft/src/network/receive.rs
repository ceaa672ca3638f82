//! A snapshot as it arrives: files in order, each from its beginning, checked against the sender's checksums.

use std::fs::File;
use std::io::Write;
use std::path::PathBuf;
use std::sync::Arc;

use kuafu::{Bytes, Status};

use crate::pb;
use crate::snapshot::{FileEntry, SnapshotDir, SnapshotStore};
use crate::types::SnapshotMeta;

/// A store has at most so many files.
const FILES_MAX: usize = 1 << 16;

/// A snapshot being received. Dropping it deletes what has arrived.
#[derive(Debug)]
pub(crate) struct Incoming {
    pub(crate) id: String,
    meta: SnapshotMeta,
    dir: Option<PathBuf>,
    files: Vec<FileEntry>,
    /// File being written, its number, what of it has arrived, and its crc so far.
    current: Option<(File, usize, u64, u32)>,
    /// Checksums of the files that are complete.
    complete: Vec<u32>,
}

fn failed(what: &str, error: &dyn std::error::Error) -> Status {
    Status::internal(format!("{what}: {error}"))
}

impl Incoming {
    pub(crate) fn begin(
        store: &SnapshotStore,
        message: &pb::SnapshotBeginRequest,
        meta: &[u8],
    ) -> Result<Self, Status> {
        let meta: SnapshotMeta = serde_json::from_slice(meta).map_err(|error| {
            Status::invalid_argument(format!("the snapshot's meta does not parse: {error}"))
        })?;
        if message.files.len() > FILES_MAX || !message.files.iter().all(|file| is_plain_name(&file.name)) {
            return Err(Status::invalid_argument("the snapshot's list of files is not acceptable"));
        }
        if meta.snapshot_id != message.id || !is_plain_name(&meta.snapshot_id) {
            return Err(Status::invalid_argument("the snapshot's id is not acceptable"));
        }
        let dir = store.temporary("incoming").map_err(|error| failed("make room for a snapshot", &error))?;
        std::fs::create_dir(&dir).map_err(|error| failed("make room for a snapshot", &error))?;
        Ok(Self {
            id: message.id.clone(),
            meta,
            dir: Some(dir),
            files: message
                .files
                .iter()
                .map(|file| FileEntry { name: file.name.clone(), len: file.len })
                .collect(),
            current: None,
            complete: Vec::new(),
        })
    }

    pub(crate) fn piece(&mut self, message: &pb::SnapshotPieceRequest, bytes: &Bytes) -> Result<(), Status> {
        let index = message.file as usize;
        self.open_up_to(index)?;
        let Some((file, number, received, crc)) = &mut self.current else {
            return Err(Status::invalid_argument("the snapshot has no such file"));
        };
        let len = self.files[*number].len;
        if message.offset != *received || *received + bytes.len() as u64 > len {
            return Err(Status::invalid_argument(
                "a piece of a snapshot that does not follow the one before",
            ));
        }
        file.write_all(bytes).map_err(|error| failed("write a piece of a snapshot", &error))?;
        *crc = crc32c::crc32c_append(*crc, bytes);
        *received += bytes.len() as u64;
        Ok(())
    }

    /// All pieces came: the directory as a snapshot, if it is what the sender had.
    pub(crate) fn finish(mut self, crcs: &[u32]) -> Result<(SnapshotMeta, Arc<SnapshotDir>), Status> {
        self.open_up_to(self.files.len())?;
        if self.complete != crcs {
            return Err(Status::data_loss("a file of the snapshot does not match its checksum"));
        }
        let dir = self.dir.take().ok_or_else(|| Status::internal("the snapshot was taken already"))?;
        Ok((
            self.meta.clone(),
            Arc::new(SnapshotDir::received(dir, self.meta.clone(), std::mem::take(&mut self.files))),
        ))
    }

    /// Closes files before `index`, which must be complete, and opens that one. Empty files get no piece.
    fn open_up_to(&mut self, index: usize) -> Result<(), Status> {
        let error = |error: std::io::Error| failed("write a file of a snapshot", &error);
        loop {
            let next = match &self.current {
                Some((_, number, ..)) if *number == index => return Ok(()),
                Some((_, number, received, _)) if *received < self.files[*number].len => {
                    return Err(Status::invalid_argument("a file of the snapshot is not complete"));
                }
                Some((file, number, _, crc)) => {
                    file.sync_all().map_err(error)?;
                    self.complete.push(*crc);
                    number + 1
                }
                None if index < self.complete.len() => {
                    return Err(Status::invalid_argument("a file of the snapshot is complete already"));
                }
                None => self.complete.len(),
            };
            self.current = None;
            let (Some(entry), Some(dir)) = (self.files.get(next), &self.dir) else { return Ok(()) };
            let file = File::create_new(dir.join(&entry.name)).map_err(error)?;
            self.current = Some((file, next, 0, 0));
        }
    }
}

impl Drop for Incoming {
    fn drop(&mut self) {
        if let Some(dir) = &self.dir
            && let Err(error) = std::fs::remove_dir_all(dir)
        {
            tracing::warn!(%error, path = %dir.display(), "a half-received snapshot stays until the next start");
        }
    }
}

/// A name that stays in its directory.
fn is_plain_name(name: &str) -> bool {
    let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '_');
    !name.is_empty() && name.len() <= 200 && !name.starts_with('.') && name.chars().all(plain)
}

#[cfg(test)]
mod tests {
    use kuafu::Code;

    use super::*;

    const CONTENTS: [&[u8]; 3] = [b"first file", b"", b"third"];

    fn begin(store: &SnapshotStore) -> Result<Incoming, Status> {
        begin_with(store, |_| {})
    }

    fn begin_with(
        store: &SnapshotStore,
        change: impl FnOnce(&mut pb::SnapshotBeginRequest),
    ) -> Result<Incoming, Status> {
        let file =
            |(i, bytes): (usize, &&[u8])| pb::SnapshotFile { name: format!("f{i}"), len: bytes.len() as u64 };
        let mut message = pb::SnapshotBeginRequest {
            id: "7-1".to_owned(),
            files: CONTENTS.iter().enumerate().map(file).collect(),
            ..pb::SnapshotBeginRequest::default()
        };
        change(&mut message);
        let meta = SnapshotMeta { snapshot_id: "7-1".to_owned(), ..SnapshotMeta::default() };
        Incoming::begin(store, &message, &serde_json::to_vec(&meta).unwrap())
    }

    fn piece(incoming: &mut Incoming, file: u32, offset: u64, bytes: &'static [u8]) -> Result<(), Status> {
        let message = pb::SnapshotPieceRequest { id: "7-1".to_owned(), file, offset, target: 1 };
        incoming.piece(&message, &Bytes::from_static(bytes))
    }

    fn crcs() -> Vec<u32> {
        CONTENTS.iter().map(|bytes| crc32c::crc32c(bytes)).collect()
    }

    #[test]
    fn files_arrive_whole_and_go_with_the_last_handle() {
        let dir = tempfile::tempdir().unwrap();
        let store = SnapshotStore::open(dir.path()).unwrap();
        let mut incoming = begin(&store).unwrap();
        piece(&mut incoming, 0, 0, b"first").unwrap();
        piece(&mut incoming, 0, 5, b" file").unwrap();
        piece(&mut incoming, 2, 0, b"third").unwrap();
        let (meta, received) = incoming.finish(&crcs()).unwrap();
        assert_eq!(meta.snapshot_id, "7-1");
        for (i, bytes) in CONTENTS.iter().enumerate() {
            assert_eq!(std::fs::read(received.path.join(format!("f{i}"))).unwrap(), *bytes);
        }
        drop(received);
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 0);
    }

    #[test]
    fn whatever_does_not_fit_is_refused_and_nothing_stays() {
        let dir = tempfile::tempdir().unwrap();
        let store = SnapshotStore::open(dir.path()).unwrap();
        let mut incoming = begin(&store).unwrap();
        let refused =
            |result: Result<(), Status>| assert_eq!(result.unwrap_err().code, Code::InvalidArgument);
        refused(piece(&mut incoming, 2, 0, b"third"));
        refused(piece(&mut incoming, 0, 3, b"gap"));
        refused(piece(&mut incoming, 0, 0, b"longer than announced"));
        refused(piece(&mut incoming, 9, 0, b"x"));
        piece(&mut incoming, 0, 0, b"first").unwrap();
        refused(piece(&mut incoming, 0, 0, b"first"));
        piece(&mut incoming, 0, 5, b" file").unwrap();
        piece(&mut incoming, 2, 0, b"third").unwrap();
        refused(piece(&mut incoming, 0, 10, b""));
        let mut wrong = crcs();
        wrong[2] ^= 1;
        assert_eq!(incoming.finish(&wrong).unwrap_err().code, Code::DataLoss);
        let incomplete = begin(&store).unwrap().finish(&crcs());
        assert_eq!(incomplete.unwrap_err().code, Code::InvalidArgument);
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 0);
        for name in ["../x", "a/b", "", ".hidden"] {
            assert!(!is_plain_name(name), "{name}");
            let outside = begin_with(&store, |message| message.files[1].name = name.to_owned());
            assert_eq!(outside.unwrap_err().code, Code::InvalidArgument, "{name}");
        }
        let other = begin_with(&store, |message| message.id = "8-1".to_owned());
        assert_eq!(other.unwrap_err().code, Code::InvalidArgument, "its meta is of another");
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 0);
    }
}
