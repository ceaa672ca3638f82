//! A cluster whose clients know only Nuwa: servers are found by their names, wherever they go and whoever is restarted.
#![allow(clippy::unwrap_used, reason = "helpers of tests are tests")]

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use deploy_e2e::{Writer, run, verify};
use deploy_local_cluster::{Cluster, Deadline, Options, Role, wait_until};

const PATIENCE: Duration = Duration::from_secs(120);
/// A server that stops in good order costs nobody a timeout.
const STALL: Duration = Duration::from_secs(5);

/// Three of everything. What starts from now on, and every client, is told of Nuwa's members alone.
fn cluster() -> Cluster {
    let mut options = Options::new(3, 3);
    (options.nuwa, options.capacity) = (3, "6G".to_owned());
    let mut cluster = options.start().unwrap();
    cluster.announce(" WARN ");
    let described = fs::read_to_string(cluster.description()).unwrap();
    let unlisted: Vec<&str> = described.lines().filter(|line| !line.starts_with("masters")).collect();
    assert!(unlisted.iter().any(|line| line.starts_with("nuwa")), "{described}");
    fs::write(cluster.description(), unlisted.join("\n")).unwrap();
    cluster
}

/// The endpoints that are listed of a service; none before anybody has served it.
fn listed(cluster: &Cluster, service: &str) -> Vec<String> {
    let mut nuwa = Command::new(cluster.binaries().join("nuwa"));
    nuwa.arg("--cluster").arg(cluster.description()).args(["service", "ls", service, "--json"]);
    let lines = run(&mut nuwa, PATIENCE).stdout;
    let endpoints = serde_json::Deserializer::from_slice(&lines).into_iter::<serde_json::Value>();
    let address = |endpoint: serde_json::Value| endpoint["address"].as_str().unwrap().to_owned();
    let mut all: Vec<_> = endpoints.map(|endpoint| address(endpoint.unwrap())).collect();
    all.sort_unstable();
    all
}

fn wait_listed(cluster: &Cluster, service: &str, roles: &[Role]) {
    let mut wanted: Vec<String> = roles.iter().map(|role| cluster.address_of(*role).unwrap()).collect();
    wanted.sort_unstable();
    let what = format!("{service} lists {wanted:?}");
    wait_until(&what, Deadline::within(PATIENCE), || Ok(listed(cluster, service) == wanted)).unwrap();
}

/// Waits until every member of every group serves.
fn wait_whole(cluster: &Cluster) {
    wait_until("all groups are whole", Deadline::within(PATIENCE), || {
        let status = cluster.pangu(&["status", "--json"])?;
        let status: serde_json::Value = serde_json::from_slice(&status.stdout).unwrap_or_default();
        let groups = status["groups"].as_array().cloned().unwrap_or_default();
        let mut members = groups.iter().flat_map(|group| group["members"].as_array().into_iter().flatten());
        Ok(!groups.is_empty() && members.all(|member| member["state"] == "serving"))
    })
    .unwrap();
}

fn pangu(cluster: &Cluster, arguments: &[&str]) {
    let output = cluster.pangu(arguments).unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "pangu {arguments:?}: {said}\n{}", cluster.tails(20));
}

/// The writers go on, none of them met an error, and none stood still for long since the last time.
fn work(cluster: &Cluster, writers: &[Writer], what: &str) {
    for writer in writers {
        let goal = writer.done() + 30;
        let waited =
            wait_until(what, Deadline::within(PATIENCE), || Ok(writer.done() >= goal || writer.has_ended()));
        if let Err(error) = waited {
            panic!("{error}\n{}", cluster.tails(30));
        }
        assert!(!writer.has_ended(), "a writer met an error: {what}\n{}", cluster.tails(10));
        let longest = writer.take_longest();
        println!("{what}: longest operation {longest:?}, {} so far", writer.done());
        assert!(longest < STALL, "{what}: {longest:?}");
    }
}

fn start_writers(roots: &[&Path]) -> Vec<Writer> {
    let start = |(seed, root): (u64, &&Path)| {
        let folder = root.join(format!("work{seed}"));
        fs::create_dir(&folder).unwrap();
        Writer::start(&folder, seed)
    };
    (81..).zip(roots).map(start).collect()
}

fn finish(cluster: Cluster, writers: Vec<Writer>) {
    for writer in writers {
        let (result, owed) = writer.finish();
        result.unwrap();
        let (wrong, right) = verify(&owed);
        assert_eq!(wrong, Vec::<String>::new(), "{right} were right");
        println!("{right} files and blocks are right");
    }
    cluster.finish().unwrap();
}

/// All masters move to other addresses while one mount is stopped, and hears of none of it.
#[test]
fn long_masters_on_new_addresses_are_found_without_touching_a_client() {
    let mut cluster = cluster();
    let old: Vec<Role> = (1..=3).map(Role::Master).collect();
    wait_listed(&cluster, "pangu-master", &old);
    wait_listed(&cluster, "pangu-chunkserver", &[1, 2, 3].map(Role::Chunkserver));
    let (first, second) = (cluster.mount().unwrap(), cluster.mount().unwrap());
    let writers = start_writers(&[&first]);
    work(&cluster, &writers, "at work");
    let before: PathBuf = second.join("before");
    fs::write(&before, "written by who knew the old masters").unwrap();
    let away = cluster.mounts()[1].0;
    cluster.pause(away, true).unwrap();

    // A chunkserver that was away for all of it, too.
    cluster.stop(Role::Chunkserver(3)).unwrap();
    for old in &old {
        let new = cluster.grow_masters().unwrap();
        pangu(&cluster, &["master", "add", &cluster.address_of(new).unwrap()]);
        let Role::Master(number) = old else { unreachable!("masters only") };
        pangu(&cluster, &["master", "remove", &number.to_string()]);
        cluster.stop(*old).unwrap();
        work(&cluster, &writers, &format!("{old} went, {new} came"));
    }
    let new: Vec<Role> = (4..=6).map(Role::Master).collect();
    wait_listed(&cluster, "pangu-master", &new);

    cluster.restart(Role::Chunkserver(3)).unwrap();
    cluster.pause(away, false).unwrap();
    fs::write(second.join("after"), "by who knows the new ones").unwrap();
    assert_eq!(fs::read(&before).unwrap(), b"written by who knew the old masters");
    let third = cluster.mount().unwrap();
    assert_eq!(fs::read(third.join("after")).unwrap(), b"by who knows the new ones");
    wait_whole(&cluster);
    finish(cluster, writers);
}

/// Every server stops in good order and starts again, one after the other, under work on two mounts.
#[test]
fn long_a_rolling_restart_of_all_servers_fails_no_call() {
    let mut cluster = cluster();
    let (first, second) = (cluster.mount().unwrap(), cluster.mount().unwrap());
    let writers = start_writers(&[&first, &second]);
    work(&cluster, &writers, "at work");
    let roles = [Role::Nuwa, Role::Master, Role::Chunkserver];
    for role in (1..=3).flat_map(|n| roles.map(|role| role(n))) {
        cluster.stop(role).unwrap();
        work(&cluster, &writers, &format!("{role} is stopped"));
        cluster.restart(role).unwrap();
        work(&cluster, &writers, &format!("{role} is back"));
        wait_listed(&cluster, "pangu-master", &[1, 2, 3].map(Role::Master));
        wait_listed(&cluster, "pangu-chunkserver", &[1, 2, 3].map(Role::Chunkserver));
        // Which of them is stopped next must not be the only one that has everything.
        wait_whole(&cluster);
    }
    finish(cluster, writers);
}
