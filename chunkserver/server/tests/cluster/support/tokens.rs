//! Tokens as a master signs them. In one process all trust the same authority, so that tests are masters, too.

use std::sync::Arc;
use std::time::{Duration, Instant};

use chunkserver_api::{ChunkError, Token, Tokens};
use coord_types::{DataId, SessionId};
use futures::future::BoxFuture;
use zhongkui::token::{DataRights, Scope, sign};
use zhongkui::{Claims, Rights, Timestamp, Validity};
use zhongkui_access::Access;

/// Signs whatever it is told to.
pub(crate) fn token(claims: &Claims) -> Token {
    let (key, capability) = Access::process().keyring().pair();
    let token = sign(&key, &[*claims]).expect("one is few enough").remove(0).into();
    let signer = capability.bytes().to_vec().into();
    Token { token, signer, fresh_until: Instant::now() + Duration::from_secs(3600) }
}

/// For all data, for everybody in this process, for ever, in any epoch.
pub(crate) fn everything() -> Claims {
    Claims {
        holder: Access::process().keyring().pair().0.public().id(),
        session: SessionId(0),
        scope: Scope::Everything,
        rights: DataRights::new(Rights::READ | Rights::WRITE).expect("these are for data"),
        cluster_epoch: u64::MAX,
        validity: Validity::new(Timestamp(0), Timestamp::FOREVER).expect("it begins before it ends"),
    }
}

/// Has one token.
#[derive(Debug)]
pub(crate) struct Everything(Arc<Token>);

impl Everything {
    pub(crate) fn new() -> Arc<Self> {
        Arc::new(Self(Arc::new(token(&everything()))))
    }
}

impl Tokens for Everything {
    fn whole(&self) -> Option<Arc<Token>> {
        Some(Arc::clone(&self.0))
    }

    fn of(&self, _data: DataId, _write: bool) -> BoxFuture<'_, Result<Token, ChunkError>> {
        Box::pin(async { Ok(Token::clone(&self.0)) })
    }
}
