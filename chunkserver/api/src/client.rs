//! The calls a file system client makes. One [`ChunkClient`] talks to one chunkserver; which one to ask, and when to
//! ask again, is the caller's business ([`ChunkError`] says what helps).

use std::future::Future;
use std::sync::Arc;
use std::time::Instant;

use bytes::Bytes;
use coord_types::DataId;
use kuafu::CallOptions;
use parking_lot::Mutex;

use crate::convert::crcs_to_bytes;
use crate::error::ChunkError;
use crate::model::{Map, Punch, RaiseFence, Read, ReadData, Write, Written};
use crate::pb;
use crate::token::{Shown, Token, Tokens};

/// Typed calls over one connection. Cheap to clone.
#[derive(Clone, Debug)]
pub struct ChunkClient {
    chunk: pb::ChunkClient,
    tokens: Option<Arc<dyn Tokens>>,
    shown: Arc<Mutex<Shown>>,
}

/// A server that forgot what it was shown is shown it again, so often in one call.
const SHOWN_AGAIN_MAX: u32 = 2;

impl ChunkClient {
    /// For whoever needs no tokens: servers among themselves.
    #[must_use]
    pub fn new(client: kuafu::Client) -> Self {
        Self { chunk: pb::ChunkClient::new(client), tokens: None, shown: Arc::default() }
    }

    /// Shows tokens before they are asked for.
    #[must_use]
    pub fn with_tokens(client: kuafu::Client, tokens: Arc<dyn Tokens>) -> Self {
        Self { tokens: Some(tokens), ..Self::new(client) }
    }

    /// Writes `data`; durable on every serving member when this returns.
    ///
    /// # Errors
    /// See [`ChunkError`]. Retry with the same stamp.
    pub async fn write(
        &self,
        write: &Write,
        data: Bytes,
        options: &CallOptions,
    ) -> Result<Written, ChunkError> {
        let options = options.payload_covered();
        let request = pb::WriteRequest::from(write);
        let call = || async {
            let reply = self.chunk.write_with_payload(&request, data.clone(), &options).await?;
            Ok(Written::try_from(&reply.message)?)
        };
        self.permitted(write.key.chunk.data, true, &options, call).await
    }

    /// Makes a range zero; durable on every serving member when this returns.
    ///
    /// # Errors
    /// See [`ChunkError`]. Retry with the same stamp.
    pub async fn punch(&self, punch: &Punch, options: &CallOptions) -> Result<Written, ChunkError> {
        let request = pb::PunchRequest::from(*punch);
        let call = || async {
            let reply = self.chunk.punch(&request, options).await?;
            Ok(Written::try_from(&reply.message)?)
        };
        self.permitted(punch.key.chunk.data, true, options, call).await
    }

    /// Raises the fence of a file's data in one group. When this returns, nothing lower will be applied there any more.
    ///
    /// # Errors
    /// See [`ChunkError`]; [`ChunkError::Fenced`] if it is higher already.
    pub async fn raise_fence(&self, raise: &RaiseFence, options: &CallOptions) -> Result<(), ChunkError> {
        let request = pb::RaiseFenceRequest::from(*raise);
        let call = || async { Ok(self.chunk.raise_fence(&request, options).await.map(drop)?) };
        self.permitted(raise.record.chunk.data, true, options, call).await
    }

    /// Reads whole blocks that cover a range. The caller verifies the checksums
    /// ([`ReadData::verify`]).
    ///
    /// # Errors
    /// See [`ChunkError`].
    pub async fn read(&self, read: &Read, options: &CallOptions) -> Result<ReadData, ChunkError> {
        let request = pb::ReadRequest::from(*read);
        let call = || async {
            let reply = self.chunk.read(&request, options).await?;
            Ok(ReadData::from_reply(&reply.message, reply.payload, read)?)
        };
        self.permitted(read.key.chunk.data, false, options, call).await
    }

    /// The parts of a chunk that hold data: (offset, length), ascending.
    ///
    /// # Errors
    /// See [`ChunkError`].
    pub async fn map(&self, map: &Map, options: &CallOptions) -> Result<Vec<(u32, u32)>, ChunkError> {
        let request = pb::MapRequest::from(*map);
        let call = || async {
            let reply = self.chunk.map(&request, options).await?;
            Ok(reply.message.ranges.iter().map(|range| (range.offset_bytes, range.len_bytes)).collect())
        };
        self.permitted(map.key.chunk.data, false, options, call).await
    }

    /// Calls when the server was shown a token for it, and again if it has forgotten.
    async fn permitted<T, F>(
        &self,
        data: DataId,
        write: bool,
        options: &CallOptions,
        call: impl Fn() -> F,
    ) -> Result<T, ChunkError>
    where
        F: Future<Output = Result<T, ChunkError>>,
    {
        let Some(tokens) = &self.tokens else { return call().await };
        let mut again = 0;
        loop {
            // The second time one for this very file: the one for all may have run out meanwhile, or be for another session.
            let whole = tokens.whole().filter(|_| again < SHOWN_AGAIN_MAX);
            let covered = self.shown.lock().covers(whole.as_ref(), data, write, Instant::now());
            let shown = match covered {
                true => Ok(()),
                false => self.show(tokens.as_ref(), whole, data, write, options).await,
            };
            let result = match shown {
                Ok(()) => call().await,
                Err(error) => Err(error),
            };
            match result {
                Err(ChunkError::NeedsToken { .. }) if again < SHOWN_AGAIN_MAX => {
                    self.shown.lock().forget();
                    again += 1;
                }
                result => return result,
            }
        }
    }

    async fn show(
        &self,
        tokens: &dyn Tokens,
        whole: Option<Arc<Token>>,
        data: DataId,
        write: bool,
        options: &CallOptions,
    ) -> Result<(), ChunkError> {
        let token = match &whole {
            Some(token) => Token::clone(token),
            None => tokens.of(data, write).await?,
        };
        let request = pb::ShowTokensRequest { tokens: vec![token.token], signer: token.signer };
        self.chunk.show_tokens(&request, options).await?;
        let mut shown = self.shown.lock();
        match whole {
            Some(whole) => shown.note_whole(whole),
            None => shown.note_file(data, write, token.fresh_until, Instant::now()),
        }
        Ok(())
    }
}

impl Write {
    /// A write of `data`, with its checksums computed here.
    #[must_use]
    pub fn checksummed(mut self, data: &[u8]) -> Self {
        self.block_crcs = crate::checksum::piece_crcs(self.offset_bytes, data);
        self
    }
}

impl ReadData {
    /// The chunk offset of the first block that does not have its checksum, if any.
    #[must_use]
    pub fn verify(&self) -> Option<u32> {
        crate::checksum::first_mismatch(self.data_offset_bytes, &self.data, &self.block_crcs)
    }

    /// Checksums as the wire carries them.
    #[must_use]
    pub fn crc_bytes(&self) -> Bytes {
        crcs_to_bytes(&self.block_crcs)
    }
}
