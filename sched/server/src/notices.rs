//! Events of the spool's directories, as the Pangu masters tell them.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;
use std::time::Duration;

use coord_types::InodeId;
use fs_client::DirectoryEvents;
use fs_client::events::Notice as Told;
use master_api::MasterClient;
use master_api::model::EventKind;
use tokio::sync::mpsc;

use crate::keeper::{Notice, Place, Watches};

/// Places to be watched that were not taken up yet. They come as fast as jobs are accepted, and are taken up at once.
const ORDERS_MAX: usize = 65_536;
/// After the masters refused to tell.
const PAUSE: Duration = Duration::from_secs(1);

/// What is to be watched.
#[derive(Debug)]
enum Order {
    Watch(Place, InodeId),
    Unwatch(Place),
}

/// Hands orders to the task that watches.
#[derive(Debug)]
pub(crate) struct PanguWatches(mpsc::Sender<Order>);

impl Watches for PanguWatches {
    fn watch(&self, place: Place, directory: &Path) {
        // The number that a mount of the whole tree shows is the cluster's own.
        match fs::metadata(directory) {
            Ok(meta) => self.order(Order::Watch(place, InodeId(meta.ino()))),
            Err(error) => {
                tracing::warn!(%error, directory = %directory.display(), "a directory that is not there is not watched");
            }
        }
    }

    fn unwatch(&self, place: &Place) {
        self.order(Order::Unwatch(place.clone()));
    }
}

impl PanguWatches {
    fn order(&self, order: Order) {
        if self.0.try_send(order).is_err() {
            tracing::error!("a directory of the spool is not watched: too many are asked for at once");
        }
    }
}

/// Starts to watch. Ends when nobody hears the notices any more.
pub(crate) fn follow(master: MasterClient, notices: mpsc::Sender<Notice>) -> PanguWatches {
    let (orders, queue) = mpsc::channel(ORDERS_MAX);
    tokio::spawn(watch(master, queue, notices));
    PanguWatches(orders)
}

async fn watch(master: MasterClient, mut orders: mpsc::Receiver<Order>, notices: mpsc::Sender<Notice>) {
    let mut events = loop {
        match DirectoryEvents::open(master.clone()).await {
            Ok(events) => break events,
            Err(error) => tracing::error!(%error, "the masters tell no events; asking on"),
        }
        tokio::time::sleep(PAUSE).await;
    };
    let mut places: BTreeMap<InodeId, Place> = BTreeMap::new();
    let mut inodes: BTreeMap<Place, InodeId> = BTreeMap::new();
    loop {
        let told = tokio::select! {
            biased;
            order = orders.recv() => {
                let Some(order) = order else { return };
                match order {
                    Order::Watch(place, inode) => {
                        events.add(inode);
                        places.insert(inode, place.clone());
                        inodes.insert(place, inode);
                    }
                    Order::Unwatch(place) => {
                        if let Some(inode) = inodes.remove(&place) {
                            events.remove(inode);
                            places.remove(&inode);
                        }
                    }
                }
                continue;
            }
            told = events.next() => told,
            () = notices.closed() => return,
        };
        let told = match told {
            Ok(told) => told,
            Err(error) => {
                tracing::error!(%error, "the masters tell no events; asking on");
                tokio::time::sleep(PAUSE).await;
                continue;
            }
        };
        let mut tell = Vec::new();
        match told {
            Told::Lost => tell.push(Notice::Everywhere),
            Told::Refused(refused) => {
                for (inode, errno) in refused {
                    if let Some(place) = places.get(&inode) {
                        tracing::warn!(?place, %errno, "a directory of the spool is not watched");
                    }
                }
            }
            Told::Changed(changed) => {
                for (inode, events) in changed {
                    let Some(place) = places.get(&inode) else { continue };
                    let complete = events
                        .iter()
                        .filter(|event| matches!(event.kind, EventKind::MovedTo | EventKind::Written))
                        .map(|event| event.ino.0);
                    tell.push(Notice::At { place: place.clone(), complete: complete.collect() });
                }
            }
        }
        for notice in tell {
            if notices.send(notice).await.is_err() {
                return;
            }
        }
    }
}
