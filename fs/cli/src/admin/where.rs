//! `pangu where`: which chunkservers hold a file's chunks.

use std::path::Path;

use anyhow::Context as _;
use fs_control::show;
use master_api::Errno;
use master_api::proto::{WhereReply, where_request};
use serde_json::{Value, json};

use super::Session;

pub(super) async fn run(session: &Session, shown: &Path, path: Vec<u8>) -> anyhow::Result<String> {
    let reply = ask(session, shown, path).await?;
    Ok(if session.json {
        format!("{:#}\n", value(&reply))
    } else {
        show::place(&shown.display().to_string(), &reply)
    })
}

pub(super) async fn ask(session: &Session, shown: &Path, path: Vec<u8>) -> anyhow::Result<WhereReply> {
    let file = where_request::File::Path(path.into());
    let reply = session
        .master
        .where_is(file, session.deadline())
        .await
        .with_context(|| format!("ask the masters where {} is", shown.display()))?;
    if reply.errno != 0 {
        let reason = Errno::from_number(reply.errno)
            .map_or_else(|| format!("errno {}", reply.errno), |errno| errno.to_string());
        anyhow::bail!("{}: {reason}", shown.display());
    }
    Ok(reply)
}

fn value(reply: &WhereReply) -> Value {
    let groups: Vec<Value> = reply
        .groups
        .iter()
        .map(|group| {
            let places: Vec<Value> = group
                .places
                .iter()
                .map(|p| {
                    json!({"disk": p.disk, "chunkserver": p.server, "address": p.address, "location": p.location,
                           "state": show::state_name(p.state())})
                })
                .collect();
            json!({"group": group.group, "epoch": group.epoch, "replicas": places})
        })
        .collect();
    let attr = reply.attr.as_ref();
    json!({
        "inode": attr.map(|attr| attr.ino),
        "size_bytes": attr.map(|attr| attr.size_bytes),
        "chunk_size_bytes": attr.and_then(|attr| attr.layout.as_ref()).map(|layout| layout.chunk_size_bytes),
        "chunks": show::chunks(reply),
        "groups": groups,
    })
}
