//! Watches: nothing is kept of a watcher between two calls (`docs/service.md`, "Watch").

use std::time::{Duration, Instant};

use kuafu::Status;
use nuwa_api::Place;
use nuwa_api::proto::{self, Event};
use nuwa_core::query;
use nuwa_model::Path;

use crate::app::{App, store_status};
use crate::hub::{Found, Look, is_watched, place_of};

/// Of one answer.
const EVENTS_MAX: usize = 1000;
/// How long a call waits at most.
const WAIT_MAX: Duration = Duration::from_secs(60);
/// An answer is under way this long before the caller's deadline.
const MARGIN: Duration = Duration::from_millis(50);
/// Events that are read from the store at a time, and how many of these one call reads: then it says how far it came.
const PAGE: usize = 512;
const PAGES_MAX: usize = 4;

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
            Look::Older => match older(app, &path, place, events_max)? {
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
fn older(app: &App, path: &Path, from: Place, events_max: usize) -> Result<Older, Status> {
    let view = app.view();
    let (mut place, mut found) = (from, Found::new(events_max));
    for _ in 0..PAGES_MAX {
        let page = query::events(&view, (place.revision, place.number), PAGE);
        let events = match page.map_err(|error| store_status(&error))? {
            query::Page::Lost { first } => return Ok(Older::Lost { first }),
            query::Page::Events(events) => events,
        };
        let Some(last) = events.last() else {
            // The place is behind the last event of the store's newest revision.
            place = place.max(Place::after(place.revision.min(app.revision()?)));
            break;
        };
        let behind = Place { revision: last.revision, number: last.number + 1 };
        for event in events {
            let at = place_of(&event);
            if is_watched(path, &event) && !found.add(event) {
                return Ok(Older::Found { events: found.events, next: at });
            }
        }
        place = behind;
        if !found.events.is_empty() {
            break;
        }
    }
    Ok(Older::Found { events: found.events, next: place })
}
