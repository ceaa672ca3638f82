//! `fuxi top`: how full the cluster is, and the jobs that hold most of it.

use std::cmp::Reverse;
use std::collections::BTreeMap;

use anyhow::Context as _;
use sched_api::proto::OverviewReply;
use serde::Deserialize;

use crate::nodes::{Node, parse, used};
use crate::show;
use crate::table::Table;

/// What the master says of a job.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
struct Job {
    job: String,
    queue: String,
    state: String,
    priority: i64,
    grants: u64,
    instances: u64,
    instances_done: u64,
    why: String,
}

pub(crate) fn run(reply: &OverviewReply, json: bool) -> anyhow::Result<()> {
    if json {
        return show::print(format!("{}\n", reply.jobs).as_bytes());
    }
    let jobs = serde_json::from_str(&reply.jobs).context("read what the master says of jobs")?;
    show::print(page(&parse(reply)?, jobs).as_bytes())
}

fn page(nodes: &[Node], mut jobs: Vec<Job>) -> String {
    // Nothing is granted on the others, so what they have is not there.
    let here: Vec<&Node> = nodes.iter().filter(|node| node.state == "ok").collect();
    let sum = |of: fn(&Node) -> &BTreeMap<String, u64>| {
        let mut sum = BTreeMap::<String, u64>::new();
        for (name, amount) in here.iter().flat_map(|node| of(node)) {
            let so_far = sum.entry(name.clone()).or_default();
            *so_far = so_far.saturating_add(*amount);
        }
        sum
    };
    let full = used(&sum(|node| &node.used), &sum(|node| &node.capacity));
    let mut page = show::harmless(&format!("{} of {} machines  {full}\n\n", here.len(), nodes.len()));
    if jobs.is_empty() {
        page.push_str("no jobs\n");
        return page;
    }
    jobs.sort_by(|a, b| (Reverse(a.grants), &a.job).cmp(&(Reverse(b.grants), &b.job)));
    let mut table = Table::new(["JOB", "QUEUE", "PRIORITY", "STATE", "GRANTS", "DONE", "WHY"]);
    for job in jobs {
        table.row([
            job.job,
            job.queue,
            job.priority.to_string(),
            job.state,
            job.grants.to_string(),
            format!("{}/{}", job.instances_done, job.instances),
            job.why,
        ]);
    }
    page.push_str(&table.text());
    page
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_holds_most_comes_first_and_lost_machines_do_not_count() {
        let nodes = r#"[{"node": "a", "state": "ok", "capacity": {"cpu": 4000}, "used": {"cpu": 1000}},
            {"node": "b", "state": "lost", "capacity": {"cpu": 4000}}]"#;
        let jobs = r#"[{"job": "small-1", "grants": 1}, {"job": "large-2", "queue": "q", "state": "running", "priority": 100,
            "grants": 3, "instances": 10, "instances_done": 4, "why": "waits for cpu"}]"#;
        let page =
            page(&serde_json::from_str::<Vec<Node>>(nodes).unwrap(), serde_json::from_str(jobs).unwrap());
        assert!(page.starts_with("1 of 2 machines  cpu 1/4\n"), "{page}");
        let lines: Vec<&str> = page.lines().collect();
        assert_eq!(lines[3], "large-2  q      100       running  3       4/10  waits for cpu", "{page}");
        assert!(lines[4].starts_with("small-1  -"), "{page}");
    }
}
