//! `pangu drain` and `pangu undrain`: empties a chunkserver or one of its disks, and says when it may be taken away.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use anyhow::Context as _;
use master_api::proto::{StatusReply, Table};
use serde_json::json;

use super::Session;
use fs_control::text::size;

/// How often the masters are asked how far it is.
const PERIOD: Duration = Duration::from_millis(500);
/// How often a line is printed while data moves.
const TOLD_PERIOD: Duration = Duration::from_secs(5);
/// Without any progress for this long, something is in the way.
const STUCK: Duration = Duration::from_secs(30);

/// What is to be emptied.
#[derive(Clone, Copy, Debug)]
pub(super) enum What {
    Server(u32),
    Disk(u32),
}

/// How far it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Left {
    groups: usize,
    bytes: u64,
}

pub(super) async fn run(session: &Session, what: What, wait: bool) -> anyhow::Result<String> {
    let disks = mark(session, what, true).await?;
    let mut told = Instant::now();
    let mut best = None;
    let mut best_at = Instant::now();
    loop {
        let left = left(&status(session).await?, &disks);
        let done = left.groups == 0 && left.bytes == 0;
        if session.json && (done || !wait) {
            let value = json!({"disks": disks, "groups_left": left.groups, "bytes_left": left.bytes, "safe_to_pull": done});
            return Ok(format!("{value:#}\n"));
        }
        if done {
            return Ok(format!("{} empty: safe to pull\n", names(&disks)));
        }
        if !wait {
            return Ok(format!(
                "{} being emptied: {} groups and {} to go; `pangu status` shows it\n",
                names(&disks),
                left.groups,
                size(left.bytes)
            ));
        }
        if best.is_none_or(|best: Left| (left.groups, left.bytes) < (best.groups, best.bytes)) {
            best = Some(left);
            best_at = Instant::now();
        }
        anyhow::ensure!(
            best_at.elapsed() < STUCK,
            "no progress for {STUCK:?}: {} groups and {} are still on {}. Is there room on well disks in other racks \
             (each copy needs one of its own)? The mark stays: `pangu undrain` takes it back",
            left.groups,
            size(left.bytes),
            names(&disks)
        );
        if told.elapsed() >= TOLD_PERIOD {
            told = Instant::now();
            eprintln!("{} groups and {} to go", left.groups, size(left.bytes));
        }
        tokio::time::sleep(PERIOD).await;
    }
}

pub(super) async fn undo(session: &Session, what: What) -> anyhow::Result<String> {
    let disks = mark(session, what, false).await?;
    if session.json {
        return Ok(format!("{:#}\n", json!({ "disks": disks })));
    }
    Ok(format!("{} in use again, and filled with the next moves\n", names(&disks)))
}

async fn mark(session: &Session, what: What, draining: bool) -> anyhow::Result<BTreeSet<u32>> {
    let status = status(session).await?;
    let disks = disks(&status.table.unwrap_or_default(), what)?;
    let marked = session.master.drain(disks.iter().copied().collect(), draining, session.deadline()).await;
    marked.with_context(|| format!("mark {}", names(&disks)))?;
    Ok(disks)
}

async fn status(session: &Session) -> anyhow::Result<StatusReply> {
    let ready = tokio::time::timeout(session.timeout, session.master.ready()).await;
    ready
        .with_context(|| format!("no master answered within {:?}: are they running?", session.timeout))??;
    session.master.status(session.deadline()).await.context("ask the masters for their state")
}

fn disks(table: &Table, what: What) -> anyhow::Result<BTreeSet<u32>> {
    let known = |of: fn(&master_api::proto::Server) -> Vec<u32>| {
        let all: Vec<_> = table.servers.iter().flat_map(of).map(|id| id.to_string()).collect();
        if all.is_empty() { "there are none".to_owned() } else { format!("there are {}", all.join(", ")) }
    };
    match what {
        What::Server(id) => {
            let server = table.servers.iter().find(|server| server.id == id);
            let server = server
                .with_context(|| format!("no chunkserver has the id {id}: {}", known(|s| vec![s.id])))?;
            Ok(server.disks.iter().copied().collect())
        }
        What::Disk(id) => {
            let exists = table.servers.iter().any(|server| server.disks.contains(&id));
            anyhow::ensure!(exists, "no disk has the id {id}: {}", known(|s| s.disks.clone()));
            Ok(BTreeSet::from([id]))
        }
    }
}

fn left(status: &StatusReply, disks: &BTreeSet<u32>) -> Left {
    let Some(table) = &status.table else { return Left { groups: 0, bytes: 0 } };
    let groups = table.groups.iter();
    let states = table.servers.iter().flat_map(|server| server.disks.iter().zip(&server.disk_states));
    // What a failed disk holds nobody waits for.
    let held = states.filter(|(id, state)| disks.contains(id) && !state.failed).map(|(_, s)| s.used_bytes);
    Left {
        groups: groups.filter(|group| group.members.iter().any(|m| disks.contains(&m.disk))).count(),
        bytes: held.sum(),
    }
}

fn names(disks: &BTreeSet<u32>) -> String {
    let ids: Vec<_> = disks.iter().map(ToString::to_string).collect();
    match ids.as_slice() {
        [one] => format!("disk {one} is"),
        _ => format!("disks {} are", ids.join(", ")),
    }
}

#[cfg(test)]
mod tests {
    use master_api::proto::{Disk, Group, Member, Server};

    use super::*;

    fn table() -> Table {
        let disk = |used_bytes, failed| Disk { used_bytes, failed, ..Disk::default() };
        let server = |id: u32, disk_states: Vec<Disk>| Server {
            id,
            disks: (0..disk_states.len() as u32).map(|at| id * 10 + at).collect(),
            disk_states,
            ..Server::default()
        };
        let group = |id, disks: &[u32]| Group {
            id,
            members: disks.iter().map(|disk| Member { disk: *disk, state: 1 }).collect(),
            ..Group::default()
        };
        Table {
            servers: vec![server(1, vec![disk(7, false), disk(5, true)]), server(2, vec![disk(9, false)])],
            groups: vec![group(1, &[10, 20]), group(2, &[20])],
            ..Table::default()
        }
    }

    #[test]
    fn counts_what_is_left_on_the_disks() {
        let status = StatusReply { table: Some(table()), ..StatusReply::default() };
        let of = |what| left(&status, &disks(&table(), what).unwrap());
        assert_eq!(of(What::Server(1)), Left { groups: 1, bytes: 7 });
        assert_eq!(of(What::Server(2)), Left { groups: 2, bytes: 9 });
        assert_eq!(of(What::Disk(11)), Left { groups: 0, bytes: 0 });
    }

    #[test]
    fn says_which_there_are() {
        let error = |what| disks(&table(), what).unwrap_err().to_string();
        assert_eq!(error(What::Server(3)), "no chunkserver has the id 3: there are 1, 2");
        assert_eq!(error(What::Disk(1)), "no disk has the id 1: there are 10, 11, 20");
    }
}
