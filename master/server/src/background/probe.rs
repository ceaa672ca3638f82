//! Looks at servers that are suspected dead: an address that refuses connections has no process behind it.

use std::collections::BTreeSet;
use std::time::Duration;

use coord_types::ServerId;
use futures::StreamExt as _;
use futures::stream::FuturesUnordered;
use kuafu::{Address, Presence};

use crate::app::{App, store_status};

/// A dying process closes its connections and its listener one after the other, within milliseconds.
const PROBES: usize = 10;
const PAUSE: Duration = Duration::from_millis(10);
/// A host that is there refuses within a round trip; one that is not is left to its lease.
const CONNECT_TIMEOUT: Duration = Duration::from_millis(300);

pub(super) async fn run(app: &App) {
    // At most one look at each server at a time.
    let mut looking = FuturesUnordered::new();
    let mut busy = BTreeSet::new();
    loop {
        tokio::select! {
            () = app.soft.suspected.notified() => {
                for server in app.soft.take_suspects() {
                    if busy.insert(server) {
                        looking.push(async move { look(app, server).await; server });
                    }
                }
            }
            Some(server) = looking.next(), if !looking.is_empty() => {
                busy.remove(&server);
            }
        }
    }
}

async fn look(app: &App, server: ServerId) {
    let record = match master_core::table::server(&app.raft.view(), server) {
        Ok(Some(record)) => record,
        Ok(None) => return,
        Err(error) => {
            store_status(&error);
            return;
        }
    };
    let Ok(address) = record.address.parse::<Address>() else { return };
    // The process that is looked at: a later one registers with a higher number.
    let heard = app.soft.server(server).map_or(0, |seen| seen.incarnation);
    let incarnation = heard.max(record.incarnation);
    for _ in 0..PROBES {
        match address.presence(CONNECT_TIMEOUT).await {
            Presence::Refused if !app.soft.has_stream(server) => {
                tracing::info!(%server, %address, "the process is dead: its address refuses connections");
                app.soft.gone(server, incarnation, false);
                return;
            }
            Presence::Refused | Presence::Listening => {}
            Presence::Silent => return,
        }
        tokio::time::sleep(PAUSE).await;
    }
}
