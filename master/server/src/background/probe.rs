//! Looks at servers that are suspected dead: an address that refuses connections has no process behind it.

use std::collections::BTreeSet;

use coord_types::ServerId;
use futures::StreamExt as _;
use futures::stream::FuturesUnordered;
use kuafu::Address;

use crate::app::{App, store_status};

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
    if address.has_ended(|| !app.soft.has_stream(server)).await {
        tracing::info!(%server, %address, "the process is dead: its address refuses connections");
        app.soft.gone(server, incarnation, false);
    }
}
