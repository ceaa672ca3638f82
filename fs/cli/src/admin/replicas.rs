//! `pangu replicas`: how many copies there are of everything.

use anyhow::Context as _;
use serde_json::json;

use super::Session;
use super::masters::{ready, told};

pub(super) async fn run(session: &Session, replicas: u32, min: Option<u32>) -> anyhow::Result<String> {
    ready(session).await?;
    let min = min.unwrap_or_else(|| replicas.min(2));
    let set = session.master.set_replicas(replicas, min, session.deadline()).await;
    set.map_err(told).context("set the number of replicas")?;
    if session.json {
        return Ok(format!("{:#}\n", json!({"replicas": replicas, "min_replicas": min})));
    }
    Ok(format!(
        "everything is to have {replicas} copies, and a write is to reach {min}; `pangu status` shows how far it is\n"
    ))
}
