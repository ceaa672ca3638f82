//! The tree as it was at one revision, page by page (`docs/snapshot.md`, "Export").

use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use coord_kv::KvError;
use kuafu::Status;
use nuwa_api::proto::{self, SnapshotHeader};
use nuwa_core::{export, query};
use nuwa_model::{Path, Refusal};

use crate::app::{App, store_status};
use crate::exports::Export;

/// Others' exports take seconds, or minutes.
const BUSY_DELAY: Duration = Duration::from_secs(1);

pub(crate) async fn export(
    app: &App,
    request: proto::ExportRequest,
    deadline: Instant,
) -> Result<proto::ExportReply, Status> {
    if request.end {
        let ended = app.exports.end(request.export);
        drop_aside(ended);
        return Ok(proto::ExportReply::default());
    }
    if request.export == 0 {
        return begin(app, &request, deadline).await;
    }
    let after = Path::new(request.after.clone()).map_err(|error| {
        Status::invalid_argument(format!("a page begins behind a path, {:?} is none: {error}", request.after))
    })?;
    let found = app.exports.find(request.export).ok_or_else(|| {
        Status::not_found(format!(
            "export {} is over, or was never begun here: begin another",
            request.export
        ))
    })?;
    page(request.export, found, None, Some(after)).await
}

async fn begin(
    app: &App,
    request: &proto::ExportRequest,
    deadline: Instant,
) -> Result<proto::ExportReply, Status> {
    if !request.after.is_empty() {
        return Err(Status::invalid_argument(
            "an export begins with its first page: `after` is for later ones",
        ));
    }
    let slot = app.exports.reserve().ok_or_else(|| {
        Status::busy("as many exports as this member keeps are under way: ask another member", BUSY_DELAY)
    })?;
    app.reach(request.at_least, deadline).await?;
    // A task of its own: who gives up gives the room back when the checkpoint is made and dropped, not before.
    let raft = app.raft.clone();
    let made = tokio::spawn(async move { (raft.checkpoint().await, slot) }).await;
    let (checkpoint, slot) = made.map_err(|error| Status::internal(format!("make a checkpoint: {error}")))?;
    let checkpoint = checkpoint.map_err(|error| {
        tracing::error!(%error, "make a checkpoint for an export");
        Status::unavailable(format!("this member cannot make a checkpoint: {error}"))
    })?;
    let (number, found) = app.exports.keep(checkpoint, slot);
    let described = describe(&found).map_err(|error| store_status(&error));
    match described {
        Ok(Ok(header)) => page(number, found, Some(header), None).await,
        Ok(Err(refusal)) => {
            let ended = app.exports.end(number);
            drop_aside((ended, found));
            Ok(proto::ExportReply { refused: Some((&refusal).into()), ..proto::ExportReply::default() })
        }
        Err(status) => {
            let ended = app.exports.end(number);
            drop_aside((ended, found));
            Err(status)
        }
    }
}

fn describe(export: &Export) -> Result<Result<SnapshotHeader, Refusal>, KvError> {
    let checkpoint = &export.checkpoint;
    if query::meta(checkpoint)?.restoring.is_some() {
        return Ok(Err(Refusal::Restoring));
    }
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    let made_unix_nanos = u64::try_from(now.as_nanos()).unwrap_or(u64::MAX);
    Ok(Ok(SnapshotHeader { made_unix_nanos, ..export::header(checkpoint)? }))
}

/// Reads a page aside from the event loop: it may be a thousand values.
async fn page(
    number: u64,
    export: Arc<Export>,
    header: Option<SnapshotHeader>,
    after: Option<Path>,
) -> Result<proto::ExportReply, Status> {
    let read = tokio::task::spawn_blocking(move || export::page(&export.checkpoint, after.as_ref()));
    let page = read
        .await
        .map_err(|error| Status::internal(format!("read a page of an export: {error}")))?
        .map_err(|error| store_status(&error))?;
    Ok(proto::ExportReply {
        refused: None,
        export: number,
        header,
        page: Some(proto::SnapshotRecords { records: page.records }),
        next_after: page.next_after.map(|path| path.to_string()).unwrap_or_default(),
    })
}

/// Closes and deletes aside from the event loop.
pub(crate) fn drop_aside(what: impl Send + 'static) {
    tokio::task::spawn_blocking(move || drop(what));
}
