//! The disk by plain system calls on the runtime's blocking threads: for kernels (or sandboxes) without io_uring.
//! Correct, but each operation costs two wake-ups of a thread.

use std::future::Future;
use std::os::unix::fs::FileExt;
use std::pin::Pin;
use std::sync::Arc;

use crate::error::IoError;
use crate::io::files::DiskFiles;
use crate::io::{Completion, FileId, Io, Op, WriteMode, io_error};

/// See the module.
#[derive(Debug)]
pub(crate) struct SyncIo {
    files: Arc<DiskFiles>,
}

impl SyncIo {
    pub(crate) fn new(files: DiskFiles) -> Self {
        Self { files: Arc::new(files) }
    }
}

impl Io for SyncIo {
    fn submit(&self, file: FileId, offset_bytes: u64, mut op: Op) -> Completion {
        let (completer, completion) = Completion::new();
        let files = self.files.clone();
        tokio::task::spawn_blocking(move || {
            let result =
                run(&files, file, offset_bytes, &mut op).map_err(|e| io_error(file, offset_bytes, &op, e));
            // The buffer must be free before the waiter looks at it.
            drop(op);
            let _ = completer.send(result);
        });
        completion
    }

    fn create_segment(&self, index: u32, len_bytes: u64) -> Completion {
        create_segment(self.files.clone(), index, len_bytes, |_, _| Ok(()))
    }

    fn segments(&self) -> Vec<(u32, u64)> {
        self.files.segments()
    }

    fn journal_len_bytes(&self) -> Result<u64, IoError> {
        journal_len_bytes(&self.files)
    }

    fn shutdown(&self) -> Pin<Box<dyn Future<Output = ()> + Send + '_>> {
        // Operations in flight hold the files, and with them the lock.
        Box::pin(async {
            while Arc::strong_count(&self.files) > 1 {
                tokio::task::yield_now().await;
            }
            let _ = self.files.lock.unlock();
        })
    }
}

fn run(files: &DiskFiles, file: FileId, offset_bytes: u64, op: &mut Op) -> std::io::Result<()> {
    let file = files.get(file).ok_or(std::io::ErrorKind::NotFound)?;
    match op {
        Op::Read(target) => file.read_exact_at(target.as_mut_slice(), offset_bytes),
        Op::Write { data, mode } => {
            file.write_all_at(data, offset_bytes)?;
            if *mode == WriteMode::Durable { file.sync_data() } else { Ok(()) }
        }
        Op::Sync => file.sync_data(),
    }
}

pub(crate) fn journal_len_bytes(files: &DiskFiles) -> Result<u64, IoError> {
    files
        .journal
        .metadata()
        .map(|meta| meta.len())
        .map_err(|error| io_error(FileId::Journal, 0, &Op::Sync, error))
}

/// Makes a segment on a blocking thread, hands it to `made`, completes.
pub(crate) fn create_segment(
    files: Arc<DiskFiles>,
    index: u32,
    len_bytes: u64,
    made: impl FnOnce(u32, Arc<std::fs::File>) -> std::io::Result<()> + Send + 'static,
) -> Completion {
    let (completer, completion) = Completion::new();
    tokio::task::spawn_blocking(move || {
        let result =
            files.create_segment(index, len_bytes).and_then(|file| made(index, file)).map_err(|source| {
                IoError {
                    operation: "create",
                    file: FileId::Segment(index),
                    offset_bytes: 0,
                    len_bytes: usize::try_from(len_bytes).unwrap_or(usize::MAX),
                    source: Arc::new(source),
                }
            });
        drop(files);
        let _ = completer.send(result);
    });
    completion
}
