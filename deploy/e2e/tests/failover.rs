//! A writer that keeps a ledger goes on while each process in turn is killed; and what was confirmed is there after
//! everything was killed at once.
#![allow(clippy::unwrap_used, reason = "helpers of tests are tests")]

use std::fs;
use std::time::{Duration, Instant};

use deploy_e2e::{Writer, verify};
use deploy_local_cluster::{Cluster, Deadline, Role, wait_until};

/// While a member is dead the writer may have to wait for it; after its restart it must go on within this.
const GO_ON: Duration = Duration::from_secs(60);

/// What servers may say while others are killed under them.
fn expect_faults(cluster: &mut Cluster) {
    cluster.announce(" WARN ");
}

fn wait_for_work(writer: &Writer, operations: u64, what: &str) {
    let goal = writer.done() + operations;
    wait_until(what, Deadline::within(GO_ON), || Ok(writer.done() >= goal || writer.has_ended())).unwrap();
}

#[test]
fn long_each_process_in_turn_is_killed_under_a_writer() {
    let mut cluster = Cluster::start(3, 3).unwrap();
    expect_faults(&mut cluster);
    let root = cluster.mount().unwrap();
    let folder = root.join("work");
    fs::create_dir(&folder).unwrap();
    let writer = Writer::start(&folder, 42);
    wait_for_work(&writer, 50, "the writer is at work");
    for round in 1..=2 {
        for role in cluster.servers() {
            let before = writer.done();
            let killed = Instant::now();
            cluster.kill(role).unwrap();
            // Long enough for the death to be felt: work goes on without it, or has stood still for a while.
            wait_until("the death is felt", Deadline::within(GO_ON), || {
                Ok(writer.done() >= before + 40 || killed.elapsed() > Duration::from_millis(1500))
            })
            .unwrap();
            cluster.restart(role).unwrap();
            wait_for_work(&writer, 20, &format!("work goes on after {role} is back, round {round}"));
            println!(
                "round {round}: {role} was away {:?}; {} operations so far",
                killed.elapsed(),
                writer.done()
            );
            assert!(!writer.has_ended(), "the writer met an error after {role} was killed in round {round}");
        }
    }
    println!("longest operation: {:?}", writer.longest());
    let (result, owed) = writer.finish();
    result.unwrap();
    let (wrong, right) = verify(&owed);
    assert_eq!(wrong, Vec::<String>::new(), "{right} were right");
    // And as the servers have it, not as this mount remembers it.
    let client = Role::Client(1);
    cluster.stop(client).unwrap();
    cluster.restart(client).unwrap();
    let (wrong, right) = verify(&owed);
    assert_eq!(wrong, Vec::<String>::new(), "{right} were right");
    println!("{right} files and blocks are right");
    cluster.finish().unwrap();
}

#[test]
fn long_what_was_confirmed_survives_the_death_of_everything() {
    let mut cluster = Cluster::start(3, 3).unwrap();
    expect_faults(&mut cluster);
    let root = cluster.mount().unwrap();
    for round in 1_u64..=3 {
        let folder = root.join(format!("round{round}"));
        fs::create_dir(&folder).unwrap();
        let writer = Writer::start(&folder, round);
        wait_for_work(&writer, 150 + 37 * round, "the writer is at work");
        cluster.kill_all().unwrap();
        let (result, owed) = writer.finish();
        let error = result.expect_err("the mount died under it");
        println!("round {round}: {error}");
        cluster.restart_all().unwrap();
        let (wrong, right) = verify(&owed);
        assert_eq!(wrong, Vec::<String>::new(), "round {round}: {right} were right");
        println!("round {round}: {right} files and blocks are right");
    }
    cluster.finish().unwrap();
}

#[test]
fn a_client_that_dies_leaves_what_it_had_closed() {
    let mut cluster = Cluster::start(1, 3).unwrap();
    expect_faults(&mut cluster);
    let root = cluster.mount().unwrap();
    let writer = Writer::start(&root, 7);
    wait_for_work(&writer, 100, "the writer is at work");
    cluster.kill(Role::Client(1)).unwrap();
    let (result, owed) = writer.finish();
    result.expect_err("the mount died under it");
    cluster.restart(Role::Client(1)).unwrap();
    let (wrong, right) = verify(&owed);
    assert_eq!(wrong, Vec::<String>::new(), "{right} were right");
    cluster.finish().unwrap();
}
