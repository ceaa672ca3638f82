//! A place of clients: a thread in a network of its own, with workers and watchers.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, sync_channel};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use anyhow::Context as _;
use deploy_local_cluster::Site;
use nuwa_api::{Address, ClientConfig, NuwaClient};
use rand::SeedableRng as _;
use rand::rngs::StdRng;
use tokio::sync::watch;
use tokio::task::JoinSet;
use zhongkui_access::Access;

use super::book::Book;
use super::watchers::{self, Log};
use super::worker::Worker;
use super::{cells, locks, names, sequences};
use crate::crew::Crew;

/// Of each place.
const CELL_WORKERS: usize = 3;
const NAME_WORKERS: usize = 2;
const LOCK_WORKERS: usize = 3;
/// Of the sessions of those who own nothing and lock nothing.
const TTL: Duration = Duration::from_secs(10);
/// The thread starts its clients within this, or never.
const BEGIN: Duration = Duration::from_secs(30);

/// Objects of one kind: others after so many operations, since short histories are searched fast.
#[derive(Debug)]
pub(crate) struct Arena {
    entered: AtomicUsize,
    operations: usize,
}

impl Arena {
    const fn new(operations: usize) -> Self {
        Self { entered: AtomicUsize::new(0), operations }
    }

    /// The one to work in now.
    pub(crate) fn enter(&self) -> usize {
        self.entered.fetch_add(1, Ordering::Relaxed) / self.operations
    }
}

/// What all workers work on.
#[derive(Debug)]
pub(crate) struct Arenas {
    pub(crate) cells: Arena,
    pub(crate) names: Arena,
    pub(crate) locks: Arena,
    pub(crate) sequences: Arena,
}

impl Arenas {
    pub(crate) const fn new() -> Self {
        Self {
            cells: Arena::new(1500),
            names: Arena::new(500),
            locks: Arena::new(750),
            sequences: Arena::new(1500),
        }
    }
}

/// What a place needs to know.
#[derive(Clone, Debug)]
pub(crate) struct Setting {
    pub(crate) crew: Arc<Crew>,
    pub(crate) arenas: Arc<Arenas>,
    pub(crate) members: Vec<Address>,
    pub(crate) access: Access,
    /// From 0.
    pub(crate) place: usize,
    pub(crate) seed: u64,
    /// The newest revision, once nothing changes any more.
    pub(crate) end: watch::Receiver<Option<u64>>,
}

/// A place at work.
#[derive(Debug)]
pub(crate) struct Started {
    /// What its workers wrote down, once they have ended.
    pub(crate) books: Receiver<Vec<Book>>,
    /// What its watchers were told, once they have all there is.
    pub(crate) thread: JoinHandle<anyhow::Result<Vec<Log>>>,
}

pub(crate) fn start(site: Site, setting: Setting) -> anyhow::Result<Started> {
    let (hand_in, books) = sync_channel(1);
    let (begun, begins) = sync_channel(1);
    let work = move || {
        site.enter()?;
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        runtime.block_on(async {
            let watching = watchers::start(&setting).await?;
            let workers = start_workers(&setting);
            begun.send(())?;
            hand_in.send(workers.join_all().await)?;
            anyhow::Ok(watching.join_all().await)
        })
    };
    let thread = thread::Builder::new().name("clients".to_owned()).spawn(work)?;
    if begins.recv_timeout(BEGIN).is_err() {
        let why = if thread.is_finished() {
            thread.join().map_err(|_| anyhow::anyhow!("a panic"))?.err()
        } else {
            None
        };
        return Err(why.unwrap_or_else(|| anyhow::anyhow!("no answer"))).context("start clients");
    }
    Ok(Started { books, thread })
}

/// Clients of all members, and one of each member alone.
pub(crate) fn clients(members: &[Address], access: &Access) -> Vec<NuwaClient> {
    let alone = members.iter().map(|member| vec![member.clone()]);
    std::iter::once(members.to_vec())
        .chain(alone)
        .map(|members| NuwaClient::new(ClientConfig::with(members, access.transport())))
        .collect()
}

impl Setting {
    /// Dice of the one with this number at this place.
    pub(crate) fn dice(&self, number: usize) -> StdRng {
        StdRng::seed_from_u64(self.seed ^ (self.place as u64 + 1) << 48 ^ (number as u64 + 1) << 40)
    }
}

fn start_workers(setting: &Setting) -> JoinSet<Book> {
    let mut workers = JoinSet::new();
    let all = CELL_WORKERS + NAME_WORKERS + LOCK_WORKERS + 1;
    for index in 0..all {
        let Setting { crew, arenas, members, access, place, .. } = setting;
        let client = NuwaClient::new(ClientConfig::with(members.clone(), access.transport()));
        let (crew, arenas) = (Arc::clone(crew), Arc::clone(arenas));
        let (number, dice) = (place * all + index, setting.dice(index));
        let worker = move |ttl| Worker::new(crew, number, dice, client, ttl);
        workers.spawn(async move {
            let mut worker = match index {
                0..CELL_WORKERS => {
                    let mut worker = worker(TTL);
                    cells::work(&mut worker, &arenas).await;
                    worker
                }
                _ if index < CELL_WORKERS + NAME_WORKERS => {
                    let mut worker = worker(TTL);
                    names::work(&mut worker, &arenas).await;
                    worker
                }
                _ if index < CELL_WORKERS + NAME_WORKERS + LOCK_WORKERS => {
                    let mut worker = worker(locks::TTL);
                    locks::work(&mut worker, &arenas).await;
                    worker
                }
                _ => {
                    let mut worker = worker(sequences::TTL);
                    sequences::work(&mut worker, &arenas).await;
                    worker
                }
            };
            worker.end_session().await;
            worker.book
        });
    }
    workers
}
