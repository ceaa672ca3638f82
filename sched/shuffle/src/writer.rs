//! Writing one new file forwards: full blocks at aligned offsets, from a thread, while the next block is being filled.
//!
//! The file must not exist before. A writer that is dropped before [`FileWriter::finish`] removes it: what is half
//! written is of no use to anyone.

use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::thread::{Builder, JoinHandle};

use crate::error::{Error, Result, Step};

/// Blocks that wait to be written. Two let the producer fill one while one waits and one is written.
const QUEUED: usize = 2;

pub(crate) struct FileWriter {
    path: PathBuf,
    block: Vec<u8>,
    block_bytes: usize,
    /// Bytes that went to the thread.
    sent_bytes: u64,
    /// Where in `block` the part begins that `crc` does not cover yet.
    crc_from: usize,
    crc: u32,
    full: Option<SyncSender<Vec<u8>>>,
    empty: Receiver<Vec<u8>>,
    thread: Option<JoinHandle<io::Result<File>>>,
}

impl FileWriter {
    pub(crate) fn create(path: &Path, block_bytes: usize) -> Result<Self> {
        let mut file = OpenOptions::new()
            .write(true)
            .create_new(true)
            .open(path)
            .map_err(|e| Error::file(Step::Create, path, e))?;
        let (full, blocks) = sync_channel::<Vec<u8>>(QUEUED);
        let (give_back, empty) = sync_channel::<Vec<u8>>(QUEUED + 2);
        let thread = Builder::new().name("shuffle-write".into()).spawn(move || {
            for mut block in blocks {
                file.write_all(&block)?;
                block.clear();
                // If nobody takes blocks back they are simply freed.
                drop(give_back.try_send(block));
            }
            Ok(file)
        });
        let thread = thread.map_err(|e| Error::file(Step::Create, path, e))?;
        Ok(Self {
            path: path.to_path_buf(),
            block: Vec::with_capacity(block_bytes),
            block_bytes,
            sent_bytes: 0,
            crc_from: 0,
            crc: 0,
            full: Some(full),
            empty,
            thread: Some(thread),
        })
    }

    /// How long the file is so far, in bytes.
    pub(crate) fn position(&self) -> u64 {
        self.sent_bytes + self.block.len() as u64
    }

    #[inline]
    pub(crate) fn put(&mut self, mut bytes: &[u8]) -> Result<()> {
        loop {
            let room = self.block_bytes - self.block.len();
            if bytes.len() < room {
                self.block.extend_from_slice(bytes);
                return Ok(());
            }
            let (head, tail) = bytes.split_at(room);
            self.block.extend_from_slice(head);
            self.send()?;
            bytes = tail;
        }
    }

    /// The CRC-32C of all bytes since the last call, or the beginning.
    pub(crate) fn take_crc(&mut self) -> u32 {
        self.cover();
        std::mem::take(&mut self.crc)
    }

    /// Writes what is left; the file is whole, and durable if that is asked for. Returns its length in bytes.
    pub(crate) fn finish(mut self, sync: bool) -> Result<u64> {
        if !self.block.is_empty() {
            self.send()?;
        }
        self.full = None;
        let file = self.join()?;
        if sync {
            file.sync_all()
                .map_err(|e| Error::file(Step::Sync, &self.path, e))
                .inspect_err(|_| self.remove())?;
        }
        // A mount may say only at close that a write failed, and std's File swallows that.
        nix::unistd::close(file)
            .map_err(|e| Error::file(Step::Write, &self.path, e.into()))
            .inspect_err(|_| self.remove())?;
        Ok(self.sent_bytes)
    }

    fn cover(&mut self) {
        self.crc = crc32c::crc32c_append(self.crc, &self.block[self.crc_from..]);
        self.crc_from = self.block.len();
    }

    fn send(&mut self) -> Result<()> {
        self.cover();
        self.crc_from = 0;
        self.sent_bytes += self.block.len() as u64;
        let next = self.empty.try_recv().unwrap_or_else(|_| Vec::with_capacity(self.block_bytes));
        let block = std::mem::replace(&mut self.block, next);
        let sent = self.full.as_ref().is_some_and(|full| full.send(block).is_ok());
        if sent { Ok(()) } else { self.join().map(drop) }
    }

    /// Ends the thread and says how it went.
    fn join(&mut self) -> Result<File> {
        self.full = None;
        let ended = self
            .thread
            .take()
            .map_or_else(|| Ok(Err(io::Error::other("the file has failed before"))), JoinHandle::join);
        let result = ended.unwrap_or_else(|_| Err(io::Error::other("the thread that writes has panicked")));
        result.map_err(|e| Error::file(Step::Write, &self.path, e)).inspect_err(|_| self.remove())
    }

    fn remove(&self) {
        drop(std::fs::remove_file(&self.path));
    }
}

impl Drop for FileWriter {
    fn drop(&mut self) {
        if self.thread.is_some() {
            drop(self.join());
            self.remove();
        }
    }
}
