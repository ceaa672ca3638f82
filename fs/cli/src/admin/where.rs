//! `pangu where`: which chunkservers hold a file's chunks.

use std::path::Path;

use anyhow::Context as _;
use master_api::Errno;
use master_api::proto::{MemberState, WhereReply, where_request};
use serde_json::{Value, json};

use super::Session;
use crate::text::{Table, size};

pub(super) async fn run(session: &Session, shown: &Path, path: Vec<u8>) -> anyhow::Result<String> {
    let reply = ask(session, shown, path).await?;
    Ok(if session.json { format!("{:#}\n", value(&reply)) } else { text(shown, &reply) })
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

pub(super) fn state_name(state: MemberState) -> &'static str {
    match state {
        MemberState::Serving => "serving",
        MemberState::Syncing => "syncing",
        MemberState::Offline => "offline",
        MemberState::Joining => "joining",
        MemberState::Unspecified => "unknown",
    }
}

/// Chunks of a file of this length.
pub(super) fn chunks(reply: &WhereReply) -> u64 {
    let Some(attr) = &reply.attr else { return 0 };
    let size = attr.layout.as_ref().map_or(0, |layout| layout.chunk_size_bytes);
    if size == 0 { 0 } else { attr.size_bytes.div_ceil(size.into()) }
}

fn text(shown: &Path, reply: &WhereReply) -> String {
    let Some(attr) = &reply.attr else { return String::new() };
    let Some(layout) = &attr.layout else {
        return format!("{} has no data of its own: it is no regular file\n", shown.display());
    };
    let chunks = chunks(reply);
    let mut out = format!(
        "{}: inode {}, {} in {chunks} chunk(s) of {}, striped over {} group(s)\n",
        shown.display(),
        attr.ino,
        size(attr.size_bytes),
        size(layout.chunk_size_bytes.into()),
        reply.groups.len(),
    );
    let mut table =
        Table::new(["chunks", "group", "epoch", "disk", "chunkserver", "location", "address", "state"]);
    let width = reply.groups.len() as u64;
    for (at, group) in (0u64..).zip(&reply.groups) {
        let which = match (width, chunks) {
            (1, _) => "all".to_owned(),
            (_, chunks) if at >= chunks => "none yet".to_owned(),
            (_, chunks) if at + width >= chunks => at.to_string(),
            _ => format!("{at}, {}, ...", at + width),
        };
        let primary = group.places.iter().position(|place| place.state() == MemberState::Serving);
        for (at, place) in group.places.iter().enumerate() {
            let first = at == 0;
            let role = if Some(at) == primary { " (primary)" } else { "" };
            table.row([
                if first { which.clone() } else { String::new() },
                if first { group.group.to_string() } else { String::new() },
                if first { group.epoch.to_string() } else { String::new() },
                place.disk.to_string(),
                place.server.to_string(),
                place.location.clone(),
                place.address.clone(),
                format!("{}{role}", state_name(place.state())),
            ]);
        }
    }
    out.push_str(&table.render());
    out
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
                           "state": state_name(p.state())})
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
        "chunks": chunks(reply),
        "groups": groups,
    })
}
