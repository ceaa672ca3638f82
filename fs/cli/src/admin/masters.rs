//! `pangu master add`, `remove` and `new-epoch`: which masters there are, and that they are to be followed.

use std::time::{Duration, Instant};

use anyhow::Context as _;
use master_api::proto::StatusReply;
use master_api::{ClientError, MasterClient};
use serde_json::json;

use super::Session;

/// A new master may have to be sent a snapshot of everything.
const CATCH_UP: Duration = Duration::from_secs(600);

pub(super) async fn add(session: &Session, address: &str) -> anyhow::Result<String> {
    ready(session).await?;
    let deadline = Some(Instant::now() + session.timeout.max(CATCH_UP));
    let added = session.master.add_master(address, deadline).await;
    let added = added.map_err(told).with_context(|| format!("add the master at {address}"))?;
    let text = if added.already {
        format!("master {} at {address} is one of the cluster already\n", added.id)
    } else {
        format!("master {} at {address} has caught up and is one of the cluster\n", added.id)
    };
    after(session, &text).await
}

pub(super) async fn remove(session: &Session, id: u64) -> anyhow::Result<String> {
    ready(session).await?;
    let removed = session.master.remove_master(id, session.deadline()).await;
    removed.map_err(told).with_context(|| format!("remove master {id}"))?;
    after(session, &format!("master {id} is none of the cluster any more: stop it and delete its data\n"))
        .await
}

pub(super) async fn new_epoch(session: &Session) -> anyhow::Result<String> {
    // Without a session: there is none before the epoch is raised.
    let epoch = session.master.new_epoch(session.deadline()).await;
    let epoch = epoch.map_err(told).context("raise the cluster epoch")?;
    if session.json {
        return Ok(format!("{:#}\n", json!({ "cluster_epoch": epoch })));
    }
    Ok(format!("the cluster epoch is {epoch}: chunkservers and mounts follow these masters from now on\n"))
}

/// What a master refused is for people as it stands.
pub(super) fn told(error: ClientError) -> anyhow::Error {
    match error {
        ClientError::Refused { status, .. } => anyhow::anyhow!("{}", status.message),
        other => other.into(),
    }
}

pub(super) async fn ready(session: &Session) -> anyhow::Result<()> {
    let ready = tokio::time::timeout(session.timeout, session.master.ready()).await;
    ready
        .with_context(|| format!("no master answered within {:?}: are they running?", session.timeout))??;
    Ok(())
}

/// Processes that run learn the masters by themselves; those that start read the description.
async fn after(session: &Session, text: &str) -> anyhow::Result<String> {
    let status = leader_status(&session.master, session).await?;
    let masters: Vec<String> =
        status.members.iter().filter(|m| m.voter).map(|m| format!("{:?}", m.address)).collect();
    if session.json {
        let members: Vec<_> = status
            .members
            .iter()
            .map(|m| json!({"id": m.id, "address": m.address, "voter": m.voter}))
            .collect();
        return Ok(format!("{:#}\n", json!({ "masters": members })));
    }
    let path = session.found.description.display();
    Ok(format!(
        "{text}what starts from now on should read in {path}:\n  masters = [{}]\n",
        masters.join(", ")
    ))
}

/// As the leader has it: others may not have heard of the change yet.
async fn leader_status(master: &MasterClient, session: &Session) -> anyhow::Result<StatusReply> {
    master.status(session.deadline()).await.context("ask the masters for their state")
}
