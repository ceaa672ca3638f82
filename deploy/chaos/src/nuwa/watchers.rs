//! Watchers: all along, slow, and broken off again and again to go on at another member. What each was told is laid beside the
//! history at the end: the same events, in the same order, none missing and none twice.

use std::sync::Arc;
use std::time::{Duration, Instant};

use nuwa_api::client::Freshness;
use nuwa_api::proto::List;
use nuwa_api::{NuwaClient, Place, Watched};
use rand::Rng as _;
use rand::rngs::StdRng;
use tokio::sync::watch;
use tokio::task::JoinSet;

use super::history::digest;
use super::sites::{Setting, clients};
use crate::crew::Crew;

/// When nothing changes any more, the slowest has all that there is within this.
const CATCH_UP: Duration = Duration::from_secs(90);
/// How long a watcher listens before it looks whether it is to end. Longer than a member waits before it says that there is nothing:
/// that answer moves the place, too.
pub(crate) const LISTEN: Duration = Duration::from_millis(1500);
/// From one break to the next.
const BREAK_MS: std::ops::Range<u64> = 100..4000;
/// What the slow one does between two events.
const SLOW_MS: std::ops::Range<u64> = 5..40;

/// How it watches.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Habit {
    Steady,
    Slow,
    /// Goes on where it was, at another member.
    Broken,
}

/// What one was told.
#[derive(Clone, Debug)]
pub(crate) struct Log {
    pub(crate) name: String,
    pub(crate) path: String,
    pub(crate) from: Place,
    /// Revision, number, digest.
    pub(crate) seen: Vec<(u64, u32, u64)>,
    /// How often it was broken off.
    pub(crate) breaks: usize,
    pub(crate) wrong: Vec<String>,
}

/// Starts the watchers of one place; each has begun when this returns.
pub(crate) async fn start(setting: &Setting) -> anyhow::Result<JoinSet<Log>> {
    let all = clients(&setting.members, &setting.access);
    let first = Place::after(0);
    // A list, and what comes after it.
    let list =
        all[0].list(List { path: "/".to_owned(), ..List::default() }, Freshness::Linearizable, None).await?;
    let listed = Place::after(list.revision);
    let wishes = match setting.place {
        0 => vec![
            ("/", first, Habit::Steady),
            ("/", first, Habit::Slow),
            ("/", first, Habit::Broken),
            ("/cells/", listed, Habit::Broken),
        ],
        _ => vec![
            ("/", Place::NOW, Habit::Broken),
            ("/locks/", first, Habit::Broken),
            ("/names/", listed, Habit::Steady),
            ("/sequences/", Place::NOW, Habit::Slow),
        ],
    };
    let mut watching = JoinSet::new();
    for (index, (path, from, habit)) in wishes.into_iter().enumerate() {
        let mut watcher = all[0].watch(path, from);
        watcher.begin().await?;
        let from = watcher.place();
        let name = format!("watcher {index} at {}, of {path}, {habit:?}", setting.place);
        let log = Log { name, path: path.to_owned(), from, seen: Vec::new(), breaks: 0, wrong: Vec::new() };
        let follower = Follower {
            crew: Arc::clone(&setting.crew),
            clients: all.clone(),
            habit,
            dice: setting.dice(100 + index),
            end: setting.end.clone(),
            log,
        };
        watching.spawn(follower.follow(watcher));
    }
    Ok(watching)
}

struct Follower {
    crew: Arc<Crew>,
    clients: Vec<NuwaClient>,
    habit: Habit,
    dice: StdRng,
    end: watch::Receiver<Option<u64>>,
    log: Log,
}

impl Follower {
    fn break_at(&mut self) -> Option<Instant> {
        let breaks = self.habit == Habit::Broken && self.crew.goes_on();
        breaks.then(|| Instant::now() + Duration::from_millis(self.dice.random_range(BREAK_MS)))
    }

    async fn follow(mut self, mut watcher: nuwa_api::Watcher) -> Log {
        let mut break_at = self.break_at();
        let mut patience = None;
        loop {
            let end = *self.end.borrow();
            if let Some(newest) = end {
                if watcher.place().revision > newest {
                    return self.log;
                }
                if *patience.get_or_insert_with(|| Instant::now() + CATCH_UP) < Instant::now() {
                    let place = watcher.place();
                    self.log.wrong.push(format!("came to {place:?} only, of revision {newest}"));
                    return self.log;
                }
            }
            if break_at.is_some_and(|at| at <= Instant::now()) {
                let place = watcher.place();
                let client = &self.clients[self.dice.random_range(0..self.clients.len())];
                watcher = client.watch(self.log.path.clone(), place);
                self.log.breaks += 1;
                break_at = self.break_at();
            }
            // What is dropped here loses nothing.
            let Ok(told) = tokio::time::timeout(LISTEN, watcher.next()).await else {
                // At a member that is away it would wait for ever.
                break_at = break_at.or_else(|| (self.habit == Habit::Broken).then(Instant::now));
                continue;
            };
            match told {
                Ok(Watched::Event(event)) => {
                    self.log.seen.push((event.revision, event.number, digest(&event)));
                    if self.habit == Habit::Slow && end.is_none() {
                        tokio::time::sleep(Duration::from_millis(self.dice.random_range(SLOW_MS))).await;
                    }
                }
                // Nothing was dropped: the limit is far away.
                Ok(Watched::HistoryLost { first }) => {
                    self.log.wrong.push(format!("told that history before {first} is lost"));
                    return self.log;
                }
                Err(error) => {
                    self.log.wrong.push(error.to_string());
                    return self.log;
                }
            }
        }
    }
}
