//! Watches: nothing is kept of a watcher between two calls (`docs/service.md`, "Watch").

use std::time::{Duration, Instant};

use coord_kv::Read;
use kuafu::Status;
use nuwa_api::Place;
use nuwa_api::proto::{self, Event};
use nuwa_core::query;
use nuwa_model::Path;

use crate::app::{App, store_status};
use crate::hub::{Found, Look, is_watched, place_of, size};
use crate::portions::Portions;

/// Of one answer.
const EVENTS_MAX: usize = 1000;
/// How long a call waits at most.
const WAIT_MAX: Duration = Duration::from_secs(60);
/// An answer is under way this long before the caller's deadline.
const MARGIN: Duration = Duration::from_millis(50);
/// Events that one call reads from the store: then it says how far it came.
const LOOKED_AT_MAX: usize = 2048;

pub(crate) async fn watch(
    app: &App,
    request: proto::WatchRequest,
    deadline: Instant,
) -> Result<proto::WatchReply, Status> {
    let path = Path::new(request.path.clone())
        .map_err(|error| Status::invalid_argument(format!("{:?} is no path: {error}", request.path)))?;
    let mut place = Place { revision: request.from_revision, number: request.from_number };
    let events_max = match request.events_max {
        0 => EVENTS_MAX,
        asked => (asked as usize).min(EVENTS_MAX),
    };
    let wait = Duration::from_millis(request.wait_ms.into()).min(WAIT_MAX);
    let end = (Instant::now() + wait).min(deadline - MARGIN);
    if place == Place::NOW {
        app.must_hear(deadline).await?;
    }
    loop {
        match app.hub.look(&path, place, events_max) {
            Look::Found { events, next } => return reply(app, events, next),
            Look::Unknown => {
                app.prime()?;
            }
            Look::Older => match older(&app.view(), &path, place, events_max, || app.revision())? {
                Older::Lost { first } => {
                    let revision = app.revision()?;
                    return Ok(proto::WatchReply {
                        lost_first: first,
                        next_revision: place.revision,
                        next_number: place.number,
                        revision,
                        events: Vec::new(),
                    });
                }
                Older::Found { events, next } => return reply(app, events, next),
            },
            Look::Wait { next, mut ticket } => {
                place = next;
                app.raft.follow_closely();
                tokio::select! {
                    biased;
                    () = ticket.woken() => {}
                    () = tokio::time::sleep_until(end.into()) => {
                        // Silence means something only from a member that would know.
                        app.must_hear(deadline).await?;
                        return reply(app, Vec::new(), place);
                    }
                }
            }
        }
    }
}

fn reply(app: &App, events: Vec<Event>, next: Place) -> Result<proto::WatchReply, Status> {
    let (next_revision, next_number) = (next.revision, next.number);
    Ok(proto::WatchReply { events, next_revision, next_number, revision: app.revision()?, lost_first: 0 })
}

enum Older {
    Found { events: Vec<Event>, next: Place },
    Lost { first: u64 },
}

/// From the store: the next events of the path, or how far there are none.
fn older(
    view: &dyn Read,
    path: &Path,
    from: Place,
    events_max: usize,
    newest: impl Fn() -> Result<u64, Status>,
) -> Result<Older, Status> {
    let (mut place, mut found) = (from, Found::new(events_max));
    let (mut portions, mut looked_at) = (Portions::new(), 0);
    while let Some(portion) = portions.next().filter(|_| looked_at < LOOKED_AT_MAX) {
        let page = query::events(view, (place.revision, place.number), portion);
        let events = match page.map_err(|error| store_status(&error))? {
            // What was found is told first: then the client asks from where this place is.
            query::Page::Lost { .. } if !found.events.is_empty() => break,
            query::Page::Lost { first } => return Ok(Older::Lost { first }),
            query::Page::Events(events) => events,
        };
        let Some(last) = events.last() else {
            // The place is behind the last event of the store's newest revision.
            place = place.max(Place::after(place.revision.min(newest()?)));
            break;
        };
        let behind = Place { revision: last.revision, number: last.number + 1 };
        looked_at += events.len();
        portions.read(events.len(), events.iter().map(size).sum());
        for event in events {
            let at = place_of(&event);
            if is_watched(path, &event) && !found.add(event) {
                return Ok(Older::Found { events: found.events, next: at });
            }
        }
        place = behind;
    }
    Ok(Older::Found { events: found.events, next: place })
}

#[cfg(test)]
mod tests;
