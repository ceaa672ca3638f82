//! Writes a snapshot, block by block. What it writes is a snapshot once [`Writer::finish`] has returned.

use std::io::Write;

use nuwa_model::proto::snapshot_block::What;
use nuwa_model::proto::{SnapshotBlock, SnapshotEnd, SnapshotHeader, SnapshotRecord, SnapshotRecords};
use prost::Message as _;

use super::error::{BlockFault, SnapshotError};
use super::order::Order;
use super::{BLOCK_HEAD_LEN, BLOCK_LEN_MAX, Contents, MAGIC, START_LEN, VERSION, crc};

/// See the module.
#[derive(Debug)]
pub struct Writer<W> {
    out: W,
    number: u64,
    order: Order,
    contents: Contents,
}

impl<W: Write> Writer<W> {
    /// Writes the start and the header.
    ///
    /// # Errors
    /// [`SnapshotError`].
    pub fn new(mut out: W, header: SnapshotHeader) -> Result<Self, SnapshotError> {
        let mut start = [0; START_LEN];
        start[..8].copy_from_slice(MAGIC);
        start[8..12].copy_from_slice(&VERSION.to_le_bytes());
        let start_crc = crc(&[&start[..12]]);
        start[12..].copy_from_slice(&start_crc.to_le_bytes());
        out.write_all(&start).map_err(SnapshotError::io("write"))?;
        let order = Order::new(header.revision);
        let contents = Contents {
            header: header.clone(),
            file_bytes: START_LEN as u64,
            crc: crc(&[&start]),
            ..Contents::default()
        };
        let mut writer = Self { out, number: 0, order, contents };
        writer.write(What::Header(header))?;
        Ok(writer)
    }

    /// Writes the next records. None are no block.
    ///
    /// # Errors
    /// [`SnapshotError`]; also if no tree has such records after those before.
    pub fn add(&mut self, records: Vec<SnapshotRecord>) -> Result<(), SnapshotError> {
        if records.is_empty() {
            return Ok(());
        }
        self.order.check(&records).map_err(|fault| self.wrong(fault))?;
        self.contents.count(&records);
        self.write(What::Records(SnapshotRecords { records }))
    }

    /// What was written so far.
    #[must_use]
    pub fn contents(&self) -> &Contents {
        &self.contents
    }

    /// Writes the end, and gives back what was written to.
    ///
    /// # Errors
    /// [`SnapshotError`].
    pub fn finish(mut self) -> Result<(W, Contents), SnapshotError> {
        self.write(What::End(SnapshotEnd { records: self.contents.records }))?;
        self.out.flush().map_err(SnapshotError::io("write"))?;
        Ok((self.out, self.contents))
    }

    fn write(&mut self, what: What) -> Result<(), SnapshotError> {
        let block = SnapshotBlock { number: self.number, previous_crc: self.contents.crc, what: Some(what) };
        let message = block.encode_to_vec();
        let len = match u32::try_from(message.len()) {
            Ok(len) if message.len() <= BLOCK_LEN_MAX => len.to_le_bytes(),
            _ => return Err(self.wrong(BlockFault::TooMuch)),
        };
        let crc = crc(&[&len, &message]);
        let parts: [&[u8]; 3] = [&len, &crc.to_le_bytes(), &message];
        for part in parts {
            self.out.write_all(part).map_err(SnapshotError::io("write"))?;
        }
        self.number += 1;
        self.contents.crc = crc;
        self.contents.file_bytes += (BLOCK_HEAD_LEN + message.len()) as u64;
        Ok(())
    }

    fn wrong(&self, fault: BlockFault) -> SnapshotError {
        SnapshotError::Block { number: self.number, at: self.contents.file_bytes, fault }
    }
}
