//! Events of directories, for watchers (`master/docs/events.md`).
//!
//! The order of a call: who asks and that this master leads; which directories he may list; what is watched from now on; what there
//! is, or a wait. Served by the leader alone: the rights are asked of the newest state, as with every query, and who is told of a
//! change finds it in his next one.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::sync::Arc;
use std::time::{Duration, Instant};

use coord_raft::{Leadership, View};
use coord_types::{InodeId, SessionId};
use kuafu::{Code, Status};
use master_api::model::event::WATCH_CHANGES_MAX;
use master_api::model::{DirectoryEvent, Errno, EventKind, EventPlace, Position, Query, ReadDir};
use master_api::proto;

use crate::access::{Caller, Denied};
use crate::app::{App, store_status};
use crate::hub::{Key, Look, Refusal, Update};

/// Longest that a call is held.
const WAIT_MAX: Duration = Duration::from_secs(30);
/// An answer is under way this long before the caller's deadline.
const MARGIN: Duration = Duration::from_millis(50);
/// Until there may be room for one more watcher.
const FULL_RETRY: Duration = Duration::from_millis(200);

pub(crate) async fn watch(
    app: &Arc<App>,
    caller: &Caller,
    request: proto::WatchRequest,
    deadline: Instant,
) -> Result<proto::WatchReply, Status> {
    if request.session == 0 {
        return Err(Status::not_found("a watcher needs a session"));
    }
    if request.add.len() + request.remove.len() > WATCH_CHANGES_MAX {
        let text = format!("more than {WATCH_CHANGES_MAX} directories are added and removed at one time");
        return Err(Status::invalid_argument(text));
    }
    let key = Key { session: SessionId(request.session), watcher: request.watcher };
    let view = app.current(deadline).await?;
    let term = term(app)?;
    let epoch = epoch(&view)?;
    let mut refused = BTreeMap::new();
    let mut add = Vec::with_capacity(request.add.len());
    for directory in request.add.into_iter().map(InodeId) {
        match may_list(caller, &view, directory)? {
            Ok(()) => add.push(directory),
            Err(errno) => drop(refused.insert(directory, errno)),
        }
    }
    drop(view);
    let remove: Vec<InodeId> = request.remove.into_iter().map(InodeId).collect();
    let (sequence, acknowledged) = (request.sequence, request.acknowledged);
    let update = Update { sequence, acknowledged, add: &add, remove: &remove };
    match app.hub.update(key, update, Instant::now()) {
        Ok(without_room) => refused.extend(without_room),
        Err(refusal) => return refusal_of(refusal),
    }
    let wait = Duration::from_millis(request.wait_ms.into()).min(WAIT_MAX);
    let latest = deadline.checked_sub(MARGIN).unwrap_or(deadline);
    let end = (Instant::now() + wait).min(latest);
    let after = request.after.map(EventPlace::from);
    let of_other_log = after.is_some_and(|after| after.epoch != epoch);
    let mut after = after.filter(|_| !of_other_log).map(|after| after.position);
    loop {
        let known = after;
        let (events, next, lost) = match app.hub.look(key, sequence, after) {
            Err(refusal) => return refusal_of(refusal),
            Ok(Look::Blank) => {
                app.hub.stored(app.raft.status().applied_index);
                continue;
            }
            // A log has entries that are no commands, and the watcher may have heard of them elsewhere.
            Ok(Look::Lost { next }) if known.is_some_and(|known| known > next) && catches_up(app, known) => {
                continue;
            }
            Ok(Look::Lost { next }) => (Vec::new(), next, true),
            Ok(Look::Found { events, next }) => (events, next, false),
            Ok(Look::More { next }) => {
                after = Some(next);
                tokio::task::yield_now().await;
                continue;
            }
            Ok(Look::Wait { next, woken }) => {
                let over = Instant::now() >= end || !refused.is_empty();
                if !over {
                    after = Some(next);
                    wait_for(app, woken, end, deadline).await?;
                    continue;
                }
                (Vec::new(), next, false)
            }
        };
        let view = app.raft.view();
        let events = told(caller, &view, events, &mut refused)?;
        // A member that follows may have been given another state meanwhile; a leader never is.
        if self::term(app)? != term {
            return Err(Status::unavailable("the leader changed"));
        }
        let next = EventPlace { epoch, position: next };
        return Ok(proto::WatchReply {
            unknown: false,
            lost: lost || of_other_log,
            next: Some(next.into()),
            events: events.into_iter().map(Into::into).collect(),
            refused: refused.into_iter().map(refused_of).collect(),
        });
    }
}

/// Until there may be something, or the wait is over, or this master may not lead any more.
async fn wait_for(
    app: &App,
    woken: impl Future<Output = ()>,
    end: Instant,
    deadline: Instant,
) -> Result<(), Status> {
    let mut leadership = app.raft.watch_leadership();
    leadership.mark_unchanged();
    tokio::select! {
        () = woken => {}
        () = tokio::time::sleep_until(end.into()) => {}
        _ = leadership.changed() => drop(app.current(deadline).await?),
    }
    Ok(())
}

/// Whether the ring now knows of this place: entries without commands up to it are in the store.
fn catches_up(app: &App, place: Option<Position>) -> bool {
    let applied = app.raft.status().applied_index;
    let known = place.is_some_and(|place| place <= Position::end_of(applied));
    if known {
        app.hub.stored(applied);
    }
    known
}

/// What of this may be told now. Rights that were taken away meanwhile are asked again where something would be told.
fn told(
    caller: &Caller,
    view: &View,
    events: Vec<DirectoryEvent>,
    refused: &mut BTreeMap<InodeId, Errno>,
) -> Result<Vec<DirectoryEvent>, Status> {
    if caller.covers_everything(zhongkui::Rights::READ) {
        return Ok(events);
    }
    let mut asked = BTreeMap::new();
    for event in &events {
        if let Entry::Vacant(unasked) = asked.entry(event.directory) {
            unasked.insert(may_list(caller, view, event.directory)?);
        }
    }
    // That a directory is gone tells nothing else, and it was allowed to be watched.
    let is_told = |event: &DirectoryEvent| {
        event.kind == EventKind::Gone || asked.get(&event.directory).is_some_and(Result::is_ok)
    };
    let told: Vec<_> = events.into_iter().filter(is_told).collect();
    for event in told.iter().filter(|event| event.kind == EventKind::Gone) {
        asked.remove(&event.directory);
    }
    refused.extend(asked.into_iter().filter_map(|(directory, may)| Some((directory, may.err()?))));
    Ok(told)
}

/// Whether the caller may list this directory: an event says what a listing would.
fn may_list(caller: &Caller, view: &View, directory: InodeId) -> Result<Result<(), Errno>, Status> {
    let list = ReadDir { ino: directory, after_cookie: 0, limit: 1, with_attributes: false };
    match caller.admit_query(view, &Query::ReadDir(list)) {
        Ok(()) => {}
        Err(Denied::Errno(errno)) => return Ok(Err(errno)),
        Err(Denied::Status(status)) if status.code == Code::PermissionDenied => {
            return Ok(Err(Errno::EACCES));
        }
        Err(Denied::Status(status)) => return Err(status),
    }
    // Who may act for everybody was not asked about any directory.
    match master_core::query(view, &Query::GetAttr(directory)) {
        Ok(answer) if answer.attr.as_ref().is_some_and(|attr| attr.is_directory()) => Ok(Ok(())),
        Ok(_) => Ok(Err(Errno::ENOTDIR)),
        Err(error) => match Denied::from(error) {
            Denied::Errno(errno) => Ok(Err(errno)),
            Denied::Status(status) => Err(status),
        },
    }
}

fn refusal_of(refusal: Refusal) -> Result<proto::WatchReply, Status> {
    match refusal {
        Refusal::Unknown => Ok(proto::WatchReply { unknown: true, ..proto::WatchReply::default() }),
        // Nobody waits for this answer: whoever sent the later request did not wait for it.
        Refusal::Overtaken => Err(Status::cancelled("a later request of this watcher came before")),
        Refusal::TooMany => Err(Status::full("the session has too many watchers")),
        Refusal::Full => Err(Status::busy("there are too many watchers", FULL_RETRY)),
    }
}

fn refused_of((directory, errno): (InodeId, Errno)) -> proto::WatchRefused {
    proto::WatchRefused { directory: directory.0, errno: errno.wire() }
}

fn term(app: &App) -> Result<u64, Status> {
    match app.raft.leadership() {
        Leadership::Leader { term } => Ok(term),
        Leadership::Follower { .. } | Leadership::Stopped => {
            Err(Status::unavailable("this master does not lead any more"))
        }
    }
}

fn epoch(view: &View) -> Result<u64, Status> {
    let cluster = master_core::table::cluster(view).map_err(|error| store_status(&error))?;
    Ok(cluster.map_or(0, |cluster| cluster.epoch))
}
