//! Tokens as a client shows them: from where it has them, and what a server was shown.

use std::collections::HashMap;
use std::fmt;
use std::sync::Arc;
use std::time::Instant;

use bytes::Bytes;
use coord_types::DataId;
use futures::future::BoxFuture;

use crate::error::ChunkError;

/// Files whose tokens one server was shown: when there are more, those that ran out are forgotten.
const FILES_MAX: usize = 4096;

/// What a master signed (`coord/zhongkui/docs/token.md`).
#[derive(Clone, Debug)]
pub struct Token {
    pub token: Bytes,
    /// The capability of the master.
    pub signer: Bytes,
    /// Another one should be shown after this; well before it runs out.
    pub fresh_until: Instant,
}

/// From where a client has tokens.
pub trait Tokens: fmt::Debug + Send + Sync + 'static {
    /// For all data. `None`: there is none for this client.
    fn whole(&self) -> Option<Arc<Token>>;

    /// For the data of one file.
    fn of(&self, data: DataId, write: bool) -> BoxFuture<'_, Result<Token, ChunkError>>;
}

/// What one server was shown.
#[derive(Debug, Default)]
pub(crate) struct Shown {
    whole: Option<Arc<Token>>,
    files: HashMap<(DataId, bool), Instant>,
}

impl Shown {
    /// Whether a token that was shown covers this for a while.
    pub(crate) fn covers(&self, whole: Option<&Arc<Token>>, data: DataId, write: bool, now: Instant) -> bool {
        match whole {
            Some(token) => self.whole.as_ref().is_some_and(|shown| Arc::ptr_eq(shown, token)),
            None => [write, true]
                .iter()
                .any(|kind| self.files.get(&(data, *kind)).is_some_and(|until| now < *until)),
        }
    }

    pub(crate) fn note_whole(&mut self, token: Arc<Token>) {
        self.whole = Some(token);
    }

    pub(crate) fn note_file(&mut self, data: DataId, write: bool, until: Instant, now: Instant) {
        if self.files.len() >= FILES_MAX {
            self.files.retain(|_, until| now < *until);
        }
        if self.files.len() >= FILES_MAX {
            self.files.clear();
        }
        self.files.insert((data, write), until);
    }

    /// The server does not know any of them: it began anew.
    pub(crate) fn forget(&mut self) {
        *self = Self::default();
    }
}
