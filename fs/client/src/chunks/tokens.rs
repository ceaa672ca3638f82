//! Tokens for chunkservers, from the masters: the one for all data where there is one, else one for each file.

use std::collections::HashMap;
use std::sync::{Arc, OnceLock, Weak};
use std::time::{Duration, Instant};

use bytes::Bytes;
use chunkserver_api::{ChunkError, Token, Tokens};
use coord_types::DataId;
use futures::future::BoxFuture;
use kuafu::Code;
use master_api::{ClientError, DataToken, FileToken, MasterClient};
use parking_lot::Mutex;

use crate::inode_table::InodeTable;

/// A file's token is shown again after this: a third of the lease that sessions have.
const FRESH: Duration = Duration::from_secs(10);
/// Files whose last tokens are kept, to renew them. Of more, those that are old are forgotten.
const RENEWED_MAX: usize = 4096;

/// Where the files of a client are found by their data, once it has begun.
pub(crate) type Files = Arc<OnceLock<Weak<InodeTable>>>;

/// The last token for a file's data, and when it was asked for.
type Renewable = HashMap<(DataId, bool), (Bytes, Instant)>;

/// Tokens of one client.
#[derive(Debug)]
pub(crate) struct MasterTokens {
    master: MasterClient,
    files: Files,
    /// As the masters gave it and as it is shown.
    whole: Mutex<Option<(Arc<DataToken>, Arc<Token>)>>,
    renewable: Mutex<Renewable>,
}

impl MasterTokens {
    pub(crate) fn new(master: MasterClient, files: Files) -> Self {
        Self { master, files, whole: Mutex::default(), renewable: Mutex::default() }
    }

    fn keep(&self, data: DataId, write: bool, token: &DataToken) {
        let mut renewable = self.renewable.lock();
        if renewable.len() >= RENEWED_MAX {
            renewable.retain(|_, (_, asked_at)| asked_at.elapsed() < 3 * FRESH);
        }
        if renewable.len() >= RENEWED_MAX {
            renewable.clear();
        }
        renewable.insert((data, write), (token.token.clone(), token.asked_at));
    }
}

impl Tokens for MasterTokens {
    fn whole(&self) -> Option<Arc<Token>> {
        let given = self.master.whole_token()?;
        let mut whole = self.whole.lock();
        match &*whole {
            Some((known, token)) if Arc::ptr_eq(known, &given) => Some(Arc::clone(token)),
            _ => {
                let token = Arc::new(Token {
                    token: given.token.clone(),
                    signer: given.signer.clone(),
                    fresh_until: given.asked_at + FRESH,
                });
                *whole = Some((given, Arc::clone(&token)));
                Some(token)
            }
        }
    }

    fn of(&self, data: DataId, write: bool) -> BoxFuture<'_, Result<Token, ChunkError>> {
        Box::pin(async move {
            let files = self.files.get().and_then(Weak::upgrade);
            let Some(file) = files.and_then(|files| files.with_data(data)) else {
                let message = format!("nobody has the file with data {data} open");
                return Err(ChunkError::Refused { code: Code::PermissionDenied, message });
            };
            let renewed = self.renewable.lock().get(&(data, write)).map(|(token, _)| token.clone());
            let wanted = FileToken { data, write, renewed: renewed.unwrap_or_default() };
            match self.master.file_token(file, &wanted).await {
                Ok(given) => {
                    self.keep(data, write, &given);
                    let fresh_until = given.asked_at + FRESH;
                    Ok(Token { token: given.token, signer: given.signer, fresh_until })
                }
                Err(ClientError::Errno(errno)) => Err(ChunkError::Refused {
                    code: Code::PermissionDenied,
                    message: format!("the masters give no token for data {data}: {errno}"),
                }),
                Err(ClientError::Refused { status, .. }) => {
                    Err(ChunkError::Refused { code: status.code, message: status.message })
                }
                Err(error) => Err(ChunkError::Unavailable { message: error.to_string() }),
            }
        })
    }
}
