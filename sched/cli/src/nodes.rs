//! `fuxi nodes`: machines, what they have and what of it is used.

use std::collections::{BTreeMap, BTreeSet};

use anyhow::Context as _;
use sched_api::proto::OverviewReply;
use serde::Deserialize;

use crate::show;
use crate::table::{Table, age, amount};

/// What the master says of a machine. What a later release says besides is passed over.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub(crate) struct Node {
    pub(crate) node: String,
    /// ok, silent or lost.
    pub(crate) state: String,
    pub(crate) location: String,
    pub(crate) capacity: BTreeMap<String, u64>,
    pub(crate) used: BTreeMap<String, u64>,
    pub(crate) running: u64,
    pub(crate) silent_ms: u64,
    pub(crate) warning: String,
}

pub(crate) fn parse(reply: &OverviewReply) -> anyhow::Result<Vec<Node>> {
    serde_json::from_str(&reply.nodes).context("read what the master says of nodes")
}

pub(crate) fn run(reply: &OverviewReply, json: bool) -> anyhow::Result<()> {
    if json {
        return show::print(format!("{}\n", reply.nodes).as_bytes());
    }
    show::print(page(&parse(reply)?).as_bytes())
}

fn page(nodes: &[Node]) -> String {
    if nodes.is_empty() {
        return "no machines: a fuxi-agent on each makes it one\n".to_owned();
    }
    let mut table = Table::new(["NODE", "STATE", "HEARD", "RUNNING", "LOCATION", "USED"]);
    for node in nodes {
        table.row([
            node.node.clone(),
            node.state.clone(),
            format!("{} ago", age(node.silent_ms / 1000)),
            node.running.to_string(),
            node.location.clone(),
            used(&node.used, &node.capacity),
        ]);
    }
    let mut page = table.text();
    for node in nodes.iter().filter(|node| !node.warning.is_empty()) {
        page.push_str(&show::harmless(&format!("\n{}: {}\n", node.node, node.warning)));
    }
    page
}

/// `cpu 1.5/4  memory 2G/16G`: of everything that there is.
pub(crate) fn used(used: &BTreeMap<String, u64>, capacity: &BTreeMap<String, u64>) -> String {
    let names: BTreeSet<&String> = used.keys().chain(capacity.keys()).collect();
    let of =
        |amounts: &BTreeMap<String, u64>, name: &str| amount(name, amounts.get(name).copied().unwrap_or(0));
    let all: Vec<_> =
        names.iter().map(|name| format!("{name} {}/{}", of(used, name), of(capacity, name))).collect();
    all.join("  ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn machines_are_told_with_what_is_wrong_with_them() {
        let nodes = r#"[{"node": "n1", "state": "silent", "location": "/r/k/n1", "capacity": {"cpu": 4000, "memory": 2048, "gpu": 2},
            "used": {"cpu": 1500}, "running": 3, "silent_ms": 12000, "warning": "no\u001b control groups", "later": 1}]"#;
        let reply = OverviewReply { nodes: nodes.to_owned(), ..OverviewReply::default() };
        let page = page(&parse(&reply).unwrap());
        assert!(
            page.contains("n1    silent  12s ago  3        /r/k/n1   cpu 1.5/4  gpu 0/2  memory 0M/2G\n"),
            "{page}"
        );
        assert!(page.ends_with("\nn1: no\u{fffd} control groups\n"), "{page}");
        assert!(parse(&OverviewReply::default()).is_err());
    }
}
