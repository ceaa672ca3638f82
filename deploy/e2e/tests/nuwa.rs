//! Nuwa as processes: histories under every kind of fault, and many watchers while members die under them.
#![allow(clippy::unwrap_used, reason = "helpers of tests are tests")]

use std::collections::BTreeSet;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use deploy_local_cluster::{Deadline, Options, Role, binaries, wait_until};
use nuwa_api::{ClientConfig, NuwaClient, Place, Watched, ops};

/// What takes longer stands still.
const PATIENCE: Duration = Duration::from_secs(90);

fn soon() -> Option<Instant> {
    Some(Instant::now() + PATIENCE)
}

/// `scripts/chaos --nuwa` in short. What is done and checked: deploy/chaos/README.md.
#[test]
fn long_nuwa_is_linearizable_under_every_kind_of_fault() {
    if !nix::unistd::geteuid().is_root() {
        eprintln!("only root can make networks: not tested");
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let json = folder.path().join("report.json");
    let mut chaos = Command::new(binaries().unwrap().join("pangu-chaos"));
    let output =
        chaos.args(["--nuwa", "--seconds", "24", "--seed", "3", "--json"]).arg(&json).output().unwrap();
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    assert!(output.status.success(), "{}{}", text(&output.stderr), text(&output.stdout));
    let report: serde_json::Value = serde_json::from_slice(&std::fs::read(&json).unwrap()).unwrap();
    let faults = report["faults"].as_array().unwrap();
    let kinds: BTreeSet<&str> = faults.iter().map(|fault| fault["fault"].as_str().unwrap()).collect();
    assert_eq!(kinds.len(), 9, "not every kind of fault was done: {kinds:?}");
    // Nothing was checked if nothing was done.
    for figure in ["cell_operations", "name_operations", "lock_operations", "sequential_names", "stale_reads"]
    {
        assert!(report[figure].as_u64().unwrap() > 50, "{figure} of {report}");
    }
    println!("{}", text(&output.stdout));
}

/// Members are killed with -9 in turn, each twice, and started again. Watchers on a prefix are told every change below it, once,
/// in order, and nothing else.
///
/// Watchers of one client that wait alike are one call: a thousand of them on twenty clients were twenty calls. Those that are meant to
/// be a thousand calls at the members have a client each.
#[test]
fn long_a_thousand_watchers_lose_nothing_while_members_are_killed() {
    const ALONE: usize = 1000;
    const SHARING: usize = 50;
    let mut options = Options::new(0, 0);
    options.nuwa = 3;
    let mut cluster = options.start().unwrap();
    // They lose each other all the time.
    cluster.announce(" WARN ");
    cluster.announce(" ERROR ");
    let members = (1..=3).map(|n| cluster.address_of(Role::Nuwa(n)).unwrap().parse().unwrap());
    let config = ClientConfig::with(members.collect(), cluster.access().unwrap().transport());
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
    let client = || {
        let _runtime = runtime.enter();
        NuwaClient::new(config.clone())
    };
    let writer = client();
    let session = runtime.block_on(writer.open_session(Duration::from_secs(60), "writer", soon())).unwrap();
    runtime.block_on(session.change_one(ops::make_directory("/w/"), soon())).unwrap();
    let from = Place::after(writer.newest());

    let (clients, shared): (Vec<NuwaClient>, _) = ((0..ALONE).map(|_| client()).collect(), client());
    let watching: Vec<_> = clients
        .iter()
        .chain(std::iter::repeat_n(&shared, SHARING))
        .map(|client| {
            let _runtime = runtime.enter();
            let mut watcher = client.watch("/w/", from);
            runtime.spawn(async move {
                let mut told = Vec::new();
                loop {
                    let Watched::Event(event) = watcher.next().await.unwrap() else {
                        panic!("history is kept")
                    };
                    let value = String::from_utf8(event.entry.unwrap().value.into()).unwrap();
                    let last = value == "end";
                    told.push((event.revision, event.number, value));
                    if last {
                        return told;
                    }
                }
            })
        })
        .collect();
    // Each asks again after 800 ms of silence: at no moment do really all of them wait.
    let calls = || -> u64 {
        let statuses = runtime.block_on(writer.statuses(PATIENCE));
        statuses.into_iter().filter_map(|(_, status)| status.ok()).map(|status| status.watchers).sum()
    };
    let all_wait = || Ok(calls() >= ALONE as u64 * 95 / 100);
    wait_until("each waits at a member", Deadline::within(PATIENCE), all_wait).unwrap();

    let (done, ends) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicBool::new(false)));
    let puts = runtime.spawn({
        let (done, ends) = (Arc::clone(&done), Arc::clone(&ends));
        async move {
            let mut acknowledged = Vec::new();
            for n in 0_u64.. {
                let last = ends.load(Ordering::Acquire);
                let value = if last { "end".to_owned() } else { n.to_string() };
                let entry = session.put(&format!("/w/{}", n % 40), value.clone(), soon()).await.unwrap();
                acknowledged.push((entry.modified, 0, value));
                // None of their business.
                session.put("/other", n.to_string(), soon()).await.unwrap();
                done.fetch_add(1, Ordering::AcqRel);
                if last {
                    break;
                }
                tokio::time::sleep(Duration::from_millis(15)).await;
            }
            acknowledged
        }
    });
    let more = |puts: u64| {
        let goal = done.load(Ordering::Acquire) + puts;
        let is_there = || Ok(done.load(Ordering::Acquire) >= goal);
        wait_until("puts go on", Deadline::within(PATIENCE), is_there).unwrap();
    };
    more(10);
    for n in [1, 2, 3, 1, 2, 3] {
        cluster.kill(Role::Nuwa(n)).unwrap();
        more(20);
        cluster.restart(Role::Nuwa(n)).unwrap();
        more(20);
    }
    ends.store(true, Ordering::Release);
    let expected = runtime.block_on(puts).unwrap();
    println!("{} changes below the prefix, for {} watchers", expected.len(), watching.len());
    for (n, watcher) in watching.into_iter().enumerate() {
        let told =
            runtime.block_on(async { tokio::time::timeout(PATIENCE, watcher).await }).unwrap().unwrap();
        let differ = told.iter().zip(&expected).find(|(told, expected)| told != expected);
        assert_eq!(differ, None, "watcher {n}");
        assert_eq!(told.len(), expected.len(), "watcher {n}");
    }
    drop(runtime);
    cluster.finish().unwrap();
}
