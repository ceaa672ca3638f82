//! `fuxi quota`: queues, what each uses, is guaranteed, and may use.

use std::collections::{BTreeMap, BTreeSet};

use anyhow::Context as _;
use sched_api::proto::OverviewReply;
use serde::Deserialize;

use crate::show;
use crate::table::{Table, amount};

/// What the master says of a queue.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
struct Queue {
    queue: String,
    used: BTreeMap<String, u64>,
    min: BTreeMap<String, u64>,
    /// What is not in it has no limit.
    max: BTreeMap<String, u64>,
}

pub(crate) fn run(reply: &OverviewReply, json: bool) -> anyhow::Result<()> {
    if json {
        return show::print(format!("{}\n", reply.queues).as_bytes());
    }
    let queues: Vec<Queue> =
        serde_json::from_str(&reply.queues).context("read what the master says of queues")?;
    show::print(page(&queues).as_bytes())
}

/// A line for each resource of each queue.
fn page(queues: &[Queue]) -> String {
    let mut table = Table::new(["QUEUE", "RESOURCE", "USED", "MIN", "MAX"]);
    for queue in queues {
        let mut names: BTreeSet<&str> = [&queue.used, &queue.min, &queue.max]
            .into_iter()
            .flat_map(BTreeMap::keys)
            .map(String::as_str)
            .collect();
        // A queue that uses nothing is there all the same.
        names.extend(["cpu", "memory"]);
        for name in names {
            let of = |amounts: &BTreeMap<String, u64>| amounts.get(name).map(|of| amount(name, *of));
            table.row([
                queue.queue.clone(),
                name.to_owned(),
                of(&queue.used).unwrap_or_else(|| "0".to_owned()),
                of(&queue.min).unwrap_or_else(|| "0".to_owned()),
                of(&queue.max).unwrap_or_else(|| "none".to_owned()),
            ]);
        }
    }
    table.text()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_limit_that_is_not_there_is_none() {
        let queues =
            r#"[{"queue": "batch", "used": {"cpu": 500}, "min": {"cpu": 4000}, "max": {"memory": 1024}}]"#;
        let queues: Vec<Queue> = serde_json::from_str(queues).unwrap();
        let page = page(&queues);
        assert!(page.contains("batch  cpu       0.5   4    none\n"), "{page}");
        assert!(page.contains("batch  memory    0     0    1G\n"), "{page}");
    }
}
