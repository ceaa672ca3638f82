//! Reads a snapshot, block by block, and believes nothing: see the table in `coord/nuwa/docs/snapshot.md`, "The file".

use std::io::{self, Read};

use nuwa_model::proto::snapshot_block::What;
use nuwa_model::proto::{SnapshotBlock, SnapshotEnd, SnapshotHeader, SnapshotRecord};
use prost::Message as _;

use super::error::{BlockFault, SnapshotError};
use super::order::Order;
use super::{BLOCK_HEAD_LEN, BLOCK_LEN_MAX, Contents, MAGIC, START_LEN, VERSION, crc};

/// See the module. What it gives is known to be a snapshot once [`Reader::next_block`] has given `None`.
#[derive(Debug)]
pub struct Reader<R> {
    input: R,
    /// Of the block that is due.
    number: u64,
    /// Where the block that was read last begins.
    last_at: u64,
    order: Order,
    contents: Contents,
    is_at_end: bool,
}

/// Reads a snapshot to its end.
///
/// # Errors
/// [`SnapshotError`]: the first that is wrong.
pub fn verify(input: impl Read) -> Result<Contents, SnapshotError> {
    let mut reader = Reader::new(input)?;
    while reader.next_block()?.is_some() {}
    Ok(reader.contents)
}

impl<R: Read> Reader<R> {
    /// Reads the start and the header.
    ///
    /// # Errors
    /// [`SnapshotError`].
    pub fn new(mut input: R) -> Result<Self, SnapshotError> {
        let mut start = [0; START_LEN];
        let len = fill(&mut input, &mut start)?;
        let magic_len = len.min(MAGIC.len());
        if magic_len == 0 || start[..magic_len] != MAGIC[..magic_len] {
            return Err(SnapshotError::NotASnapshot);
        }
        let number = |at: usize| u32::from_le_bytes([start[at], start[at + 1], start[at + 2], start[at + 3]]);
        if len < START_LEN || number(12) != crc(&[&start[..12]]) {
            return Err(SnapshotError::Start);
        }
        if number(8) != VERSION {
            return Err(SnapshotError::Version { found: number(8) });
        }
        let contents = Contents { file_bytes: START_LEN as u64, crc: crc(&[&start]), ..Contents::default() };
        let mut reader =
            Self { input, number: 0, last_at: 0, order: Order::new(0), contents, is_at_end: false };
        let header = match reader.read()? {
            What::Header(header) => header,
            What::Records(_) | What::End(_) => return Err(reader.wrong_before(BlockFault::Header)),
        };
        reader.order = Order::new(header.revision);
        reader.contents.header = header;
        Ok(reader)
    }

    #[must_use]
    pub fn header(&self) -> &SnapshotHeader {
        &self.contents.header
    }

    /// What was read so far.
    #[must_use]
    pub fn contents(&self) -> &Contents {
        &self.contents
    }

    /// The next records; `None` if that was all, and all of it was as it should be.
    ///
    /// # Errors
    /// [`SnapshotError`].
    pub fn next_block(&mut self) -> Result<Option<Vec<SnapshotRecord>>, SnapshotError> {
        if self.is_at_end {
            return Ok(None);
        }
        match self.read()? {
            What::Header(_) => Err(self.wrong_before(BlockFault::Header)),
            What::Records(block) => {
                self.order.check(&block.records).map_err(|fault| self.wrong_before(fault))?;
                self.contents.count(&block.records);
                Ok(Some(block.records))
            }
            What::End(SnapshotEnd { records: said }) => {
                let found = self.contents.records;
                if said != found {
                    return Err(self.wrong_before(BlockFault::Records { said, found }));
                }
                // Not even the root.
                if found == 0 {
                    return Err(self.wrong_before(BlockFault::NoRoot));
                }
                if fill(&mut self.input, &mut [0])? > 0 {
                    return Err(self.wrong(BlockFault::BehindTheEnd));
                }
                self.is_at_end = true;
                Ok(None)
            }
        }
    }

    /// The block that is due, if it is that one, whatever is in it.
    fn read(&mut self) -> Result<What, SnapshotError> {
        let mut head = [0; BLOCK_HEAD_LEN];
        if fill(&mut self.input, &mut head)? < BLOCK_HEAD_LEN {
            return Err(self.wrong(BlockFault::CutOff));
        }
        let (len_bytes, crc_bytes) = head.split_at(4);
        let number = |bytes: &[u8]| u32::from_le_bytes([bytes[0], bytes[1], bytes[2], bytes[3]]);
        let len = number(len_bytes);
        if len == 0 || len as usize > BLOCK_LEN_MAX {
            return Err(self.wrong(BlockFault::Length(len)));
        }
        let mut message = vec![0; len as usize];
        if fill(&mut self.input, &mut message)? < message.len() {
            return Err(self.wrong(BlockFault::CutOff));
        }
        let found_crc = crc(&[len_bytes, &message]);
        if found_crc != number(crc_bytes) {
            return Err(self.wrong(BlockFault::Checksum));
        }
        let message = bytes::Bytes::from(message);
        let block_len = (BLOCK_HEAD_LEN + message.len()) as u64;
        let block = SnapshotBlock::decode(message).map_err(|_| self.wrong(BlockFault::Message))?;
        if block.number != self.number {
            return Err(self.wrong(BlockFault::Number { found: block.number }));
        }
        if block.previous_crc != self.contents.crc {
            return Err(self.wrong(BlockFault::Previous));
        }
        let what = block.what.ok_or_else(|| self.wrong(BlockFault::Message))?;
        self.number += 1;
        self.last_at = self.contents.file_bytes;
        self.contents.crc = found_crc;
        self.contents.file_bytes += block_len;
        Ok(what)
    }

    fn wrong(&self, fault: BlockFault) -> SnapshotError {
        SnapshotError::Block { number: self.number, at: self.contents.file_bytes, fault }
    }

    /// Of the block that was read last.
    fn wrong_before(&self, fault: BlockFault) -> SnapshotError {
        SnapshotError::Block { number: self.number - 1, at: self.last_at, fault }
    }
}

/// As many bytes as there are, up to the buffer's.
fn fill(input: &mut impl Read, buffer: &mut [u8]) -> Result<usize, SnapshotError> {
    let mut filled = 0;
    while filled < buffer.len() {
        match input.read(&mut buffer[filled..]) {
            Ok(0) => break,
            Ok(len) => filled += len,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(SnapshotError::io("read")(error)),
        }
    }
    Ok(filled)
}
