//! Tokens for the data of files (`coord/zhongkui/docs/token.md`). Those that are wanted at the same time are signed together.

use std::sync::Arc;
use std::time::Duration;

use coord_types::{DataId, InodeId};
use kuafu::Status;
use master_api::model::{Errno, Query};
use master_api::proto;
use master_core::access::{Access, DataUse, permit_data};
use parking_lot::Mutex;
use tokio::sync::oneshot;
use zhongkui::token::{BATCH_MAX, DataRights, RootCache, Scope};
use zhongkui::{Claims, DataRequest, Rights, Timestamp, UnverifiedToken, Validity};
use zhongkui_access::holder::now;

use crate::access::{Caller, Denied};
use crate::app::{App, store_status};

/// So much earlier they are valid: chunkservers go by the master's clock as they heard it last.
const EARLIER: Duration = Duration::from_secs(30);
/// Tokens of one request.
pub(crate) const WANTED_MAX: usize = BATCH_MAX as usize;

/// Claims that wait to be signed.
#[derive(Debug, Default)]
pub(crate) struct Signer {
    waiting: Mutex<Vec<(Claims, oneshot::Sender<Vec<u8>>)>>,
    /// Of tokens that are shown to be renewed.
    roots: Mutex<RootCache>,
}

/// A token for all data, if the caller may use all of it on others' behalf.
pub(crate) async fn whole(
    app: &Arc<App>,
    caller: &Caller,
    session: u64,
) -> Result<Option<proto::Token>, Status> {
    let rights: Rights =
        [Rights::READ, Rights::WRITE].into_iter().filter(|right| caller.covers_everything(*right)).collect();
    let Ok(rights) = DataRights::new(rights) else { return Ok(None) };
    let claims = claims(app, caller, session, Scope::Everything, rights)?;
    let token = sign(app, vec![claims]).await?.remove(0);
    Ok(Some(proto::Token { token: token.into(), signer: signer(app) }))
}

/// Tokens for single files.
pub(crate) async fn wanted(
    app: &Arc<App>,
    caller: &Caller,
    request: &proto::TokensRequest,
    view: &coord_raft::View,
) -> Result<proto::TokensReply, Status> {
    if request.wanted.len() > WANTED_MAX {
        let text = format!("{} tokens at one time, at most {WANTED_MAX} are given", request.wanted.len());
        return Err(Status::invalid_argument(text));
    }
    let mut admitted = Vec::new();
    let mut given = Vec::new();
    for wanted in &request.wanted {
        match one(app, caller, request.session, wanted, view) {
            Ok(claims) => {
                admitted.push(claims);
                given.push(proto::TokenGiven::default());
            }
            Err(Denied::Errno(errno)) => {
                given.push(proto::TokenGiven { errno: errno.wire(), token: bytes::Bytes::new() });
            }
            Err(Denied::Status(status)) => return Err(status),
        }
    }
    let tokens = if admitted.is_empty() { Vec::new() } else { sign(app, admitted).await? };
    let mut tokens = tokens.into_iter();
    for given in given.iter_mut().filter(|given| given.errno == 0) {
        given.token = tokens.next().unwrap_or_default().into();
    }
    Ok(proto::TokensReply { given, signer: signer(app) })
}

fn one(
    app: &Arc<App>,
    caller: &Caller,
    session: u64,
    wanted: &proto::TokenWanted,
    view: &coord_raft::View,
) -> Result<Claims, Denied> {
    let (ino, data) = (InodeId(wanted.ino), DataId(wanted.data));
    let access = if wanted.write { Access::Write } else { Access::Read };
    let identity = caller.admit_inode(view, ino, access)?;
    let rights = if wanted.write { DataRights::BOTH } else { DataRights::READ };
    // Also of one that is renewed: the rights were asked for of this inode, and are given on these data.
    let attr = master_core::query(view, &Query::GetAttr(ino))?.attr;
    if attr.is_none_or(|attr| attr.data != data) {
        return Err(Denied::Errno(Errno::ESTALE));
    }
    if let Some(identity) = identity
        && !is_renewal(app, caller, session, wanted, rights)
    {
        // Who made a file, or opened it when its permissions were others, has it open: the owner is believed.
        let usage = DataUse { read: true, write: wanted.write, opened_before: true };
        permit_data(view, &identity, ino, usage)?;
    }
    Ok(claims(app, caller, session, Scope::Data(data), rights)?)
}

/// Whether a token for the same is shown that this or another master signed and that is still valid.
fn is_renewal(
    app: &App,
    caller: &Caller,
    session: u64,
    wanted: &proto::TokenWanted,
    rights: DataRights,
) -> bool {
    let Ok(shown) = UnverifiedToken::decode(&wanted.renewed) else { return false };
    // Only our own: another master's key is not known here, and one more look at the file's permissions is no harm.
    let ours = app.config.access.keyring().pair().0.public();
    let Ok(claims) = shown.verify(&ours, &mut app.signer.roots.lock()) else { return false };
    let request = DataRequest {
        holder: caller.holder().key(),
        session: Some(coord_types::SessionId(session)),
        data: DataId(wanted.data),
        needs: rights.rights(),
        epoch_min: 0,
    };
    zhongkui::token::admit(&claims, &request, now()).is_ok()
}

fn claims(
    app: &App,
    caller: &Caller,
    session: u64,
    scope: Scope,
    rights: DataRights,
) -> Result<Claims, Status> {
    let cluster = master_core::table::cluster(&app.raft.view()).map_err(|error| store_status(&error))?;
    let now = now();
    // Until when the session would live without a word of its client: whoever is evicted for silence has no token left by then.
    let not_after = now.saturating_add(app.config.session_lease);
    let validity = Validity::new(now.saturating_sub(EARLIER), not_after.max(Timestamp(1)))
        .map_err(|error| Status::internal(error.to_string()))?;
    Ok(Claims {
        holder: caller.holder().key(),
        session: coord_types::SessionId(session),
        scope,
        rights,
        cluster_epoch: cluster.map_or(0, |cluster| cluster.epoch),
        validity,
    })
}

fn signer(app: &App) -> bytes::Bytes {
    bytes::Bytes::copy_from_slice(app.config.access.keyring().capability().bytes())
}

/// Signs, together with what others want at this moment.
async fn sign(app: &Arc<App>, claims: Vec<Claims>) -> Result<Vec<Vec<u8>>, Status> {
    let mut answers = Vec::with_capacity(claims.len());
    let first = {
        let mut waiting = app.signer.waiting.lock();
        let first = waiting.is_empty();
        for claims in claims {
            let (sender, answer) = oneshot::channel();
            waiting.push((claims, sender));
            answers.push(answer);
        }
        first
    };
    if first {
        let app = Arc::clone(app);
        tokio::spawn(async move {
            // After this all requests that came with ours have been looked at.
            tokio::task::yield_now().await;
            sign_waiting(&app);
        });
    }
    let mut tokens = Vec::with_capacity(answers.len());
    for answer in answers {
        tokens.push(answer.await.map_err(|_| Status::unavailable("the master is stopping"))?);
    }
    Ok(tokens)
}

fn sign_waiting(app: &App) {
    let waiting = std::mem::take(&mut *app.signer.waiting.lock());
    let key = app.config.access.keyring().pair().0;
    let mut waiting = waiting.into_iter();
    loop {
        let (claims, senders): (Vec<Claims>, Vec<_>) = waiting.by_ref().take(WANTED_MAX).unzip();
        if claims.is_empty() {
            return;
        }
        match zhongkui::token::sign(&key, &claims) {
            // Who does not wait any more needs none.
            Ok(tokens) => {
                senders.into_iter().zip(tokens).for_each(|(sender, token)| drop(sender.send(token)))
            }
            Err(error) => tracing::error!(%error, "sign tokens"),
        }
    }
}
