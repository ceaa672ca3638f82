//! The whole tree, as one member has it.

use std::collections::BTreeMap;

use nuwa_api::NuwaClient;
use nuwa_api::client::Freshness;
use nuwa_api::proto::{Entry, List};

use super::value::number;
use super::worker::PATIENCE;

/// An entry: the number its value stands for and its version, when it was changed, and the session it lives with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Leaf {
    pub(crate) cell: (u64, u64),
    pub(crate) modified: u64,
    pub(crate) owner: u64,
}

/// By path.
pub(crate) type Tree = BTreeMap<String, Leaf>;

/// Everything below the root.
pub(crate) async fn read(client: &NuwaClient, freshness: Freshness) -> anyhow::Result<Tree> {
    let mut tree = Tree::new();
    let mut folders = vec!["/".to_owned()];
    while let Some(path) = folders.pop() {
        let mut after = String::new();
        loop {
            let list = List { path: path.clone(), after, with_values: true, ..List::default() };
            let deadline = std::time::Instant::now() + PATIENCE;
            let listed = client.list(list, freshness, Some(deadline)).await?;
            after =
                listed.entries.last().map(|entry| entry.path[path.len()..].to_owned()).unwrap_or_default();
            for entry in listed.entries {
                if entry.path.ends_with('/') {
                    folders.push(entry.path.clone());
                }
                let leaf = leaf(&entry).map_err(|wrong| anyhow::anyhow!("{}: {wrong}", entry.path))?;
                tree.insert(entry.path, leaf);
            }
            if !listed.more {
                break;
            }
        }
    }
    Ok(tree)
}

fn leaf(entry: &Entry) -> Result<Leaf, String> {
    let cell = (number(&entry.value)?, entry.version);
    Ok(Leaf { cell, modified: entry.modified, owner: entry.owner })
}

/// Where two differ, at most so many of them.
pub(crate) fn differences(one: &Tree, other: &Tree, most: usize) -> Vec<String> {
    let paths: std::collections::BTreeSet<&String> = one.keys().chain(other.keys()).collect();
    let differ = paths.into_iter().filter(|path| one.get(*path) != other.get(*path));
    differ.take(most).map(|path| format!("{path}: {:?}, and {:?}", one.get(path), other.get(path))).collect()
}
