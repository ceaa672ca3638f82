//! A range of a file, read forwards in blocks that end at multiples of the block size, some of them ahead.

use std::collections::VecDeque;
use std::fs::File;
use std::io;
use std::sync::Arc;
use std::sync::mpsc::Receiver;

use crate::pool::Pool;

/// One reader of one range. At most `depth` reads are outstanding.
pub(crate) struct Stream<'p> {
    pool: &'p Pool,
    file: Arc<File>,
    next_offset: u64,
    end_exclusive: u64,
    block_bytes: u64,
    depth: usize,
    pending: VecDeque<Receiver<io::Result<Vec<u8>>>>,
    spare: Vec<Vec<u8>>,
}

/// What a stream reads and how.
pub(crate) struct Range {
    pub(crate) start: u64,
    pub(crate) end_exclusive: u64,
    pub(crate) block_bytes: usize,
    pub(crate) depth: usize,
}

impl<'p> Stream<'p> {
    pub(crate) fn new(pool: &'p Pool, file: Arc<File>, range: &Range) -> Self {
        let mut stream = Self {
            pool,
            file,
            next_offset: range.start,
            end_exclusive: range.end_exclusive,
            block_bytes: range.block_bytes as u64,
            depth: range.depth,
            pending: VecDeque::with_capacity(range.depth),
            spare: Vec::new(),
        };
        stream.ask();
        stream
    }

    /// The next block, or nothing at the end. `used` is the last one, to be filled again.
    pub(crate) fn next_block(&mut self, used: Vec<u8>) -> io::Result<Option<Vec<u8>>> {
        if used.capacity() > 0 {
            self.spare.push(used);
        }
        let Some(answer) = self.pending.pop_front() else { return Ok(None) };
        let block = answer.recv().map_err(|_| io::Error::other("a thread that reads has ended"))??;
        self.ask();
        Ok(Some(block))
    }

    fn ask(&mut self) {
        while self.pending.len() < self.depth && self.next_offset < self.end_exclusive {
            // The first block may be short; all others then begin at a multiple of the block size. A tiny first block
            // (a split that looks at the byte before it) is joined with the next one.
            let mut border = (self.next_offset / self.block_bytes + 1) * self.block_bytes;
            if border - self.next_offset < self.block_bytes / 64 {
                border += self.block_bytes;
            }
            let len = border.min(self.end_exclusive) - self.next_offset;
            let mut buffer = self.spare.pop().unwrap_or_default();
            buffer.resize(len as usize, 0);
            self.pending.push_back(self.pool.read(&self.file, self.next_offset, buffer));
            self.next_offset += len;
        }
    }
}
