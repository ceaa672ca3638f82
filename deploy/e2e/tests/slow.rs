//! One chunkserver of four has a slow disk: writes are slow for as long as the description says, then fast without it, and it comes
//! back when it is fast.
#![allow(clippy::unwrap_used, reason = "helpers of tests are tests")]

use std::fs;
use std::time::{Duration, Instant};

use deploy_e2e::{Writer, verify};
use deploy_local_cluster::{Cluster, Deadline, Options, Role, Throttle, wait_until};

const PATIENCE: Duration = Duration::from_secs(120);
/// What the description says below, what a change of epoch takes, and room for a busy machine.
const OUT_WITHIN: Duration = Duration::from_secs(3 + 12);
/// A durable write takes a tenth of a second and more, beside a few milliseconds.
const WRITES_PER_S: u64 = 8;

fn disk(cluster: &Cluster, role: &str) -> serde_json::Value {
    let output = cluster.pangu(&["status", "--json"]).unwrap();
    let status: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap_or_default();
    let servers = status["chunkservers"].as_array().cloned().unwrap_or_default();
    let here = servers.iter().find(|server| server["location"].as_str().is_some_and(|at| at.contains(role)));
    here.map(|server| server["disks"][0].clone()).unwrap_or_default()
}

fn wait_pace(cluster: &Cluster, role: &str, pace: &str, within: Duration) -> Duration {
    let began = Instant::now();
    let waited = wait_until(&format!("{role} is found {pace}"), Deadline::within(within), || {
        std::thread::sleep(Duration::from_millis(50));
        Ok(disk(cluster, role)["pace"] == pace)
    });
    if let Err(error) = waited {
        let status = cluster.pangu(&["status", "--json"]).unwrap();
        panic!("{error}\n{}\n{}", String::from_utf8_lossy(&status.stdout), cluster.tails(40));
    }
    began.elapsed()
}

/// Operations in this time, and the longest.
fn rate(writer: &Writer, time: Duration) -> (f64, Duration) {
    let _ = writer.take_longest();
    let (began, before) = (Instant::now(), writer.done());
    std::thread::sleep(time);
    let done = u32::try_from(writer.done() - before).unwrap();
    (f64::from(done) / began.elapsed().as_secs_f64(), writer.take_longest())
}

#[test]
fn long_writes_are_fast_again_soon_after_a_disk_became_slow() {
    if !Throttle::is_possible() {
        eprintln!("no disk can be slowed here: not tested");
        return;
    }
    let mut options = Options::new(3, 4);
    options.survival = "slow_after_s = 3\nslow_return_s = 3\n".to_owned();
    let mut cluster = options.start().unwrap();
    cluster.announce(" WARN ");
    let root = cluster.mount().unwrap();
    let folder = root.join("work");
    fs::create_dir(&folder).unwrap();
    let writer = Writer::start(&folder, 31);
    std::thread::sleep(Duration::from_secs(2));
    let usual = rate(&writer, Duration::from_secs(3));

    let victim = Role::Chunkserver(2);
    let (began, before) = (Instant::now(), writer.done());
    let throttle = match cluster.slow(victim, WRITES_PER_S) {
        Ok(throttle) => throttle,
        Err(error) => {
            eprintln!(
                "the disk below {} cannot be slowed, not tested: {error:?}",
                cluster.folder().display()
            );
            return;
        }
    };
    let found = wait_pace(&cluster, "rack2", "slow, out of use", OUT_WITHIN);
    let done = u32::try_from(writer.done() - before).unwrap();
    let slow = (f64::from(done) / began.elapsed().as_secs_f64(), writer.take_longest());
    // The lease is called back, and the groups have a new epoch.
    std::thread::sleep(Duration::from_secs(1));
    let without = rate(&writer, Duration::from_secs(3));
    println!(
        "operations/s and the longest: usual {usual:?}, slow {slow:?}, found after {found:?}, then {without:?}"
    );
    let health = fs::read_to_string(root.join(".pangu/health")).unwrap();
    assert!(health.contains("is slow (a write takes"), "{health}");
    assert!(without.0 > 3.0 * slow.0, "writes still wait for the slow disk: {}", cluster.tails(30));
    for other in ["rack1", "rack3", "rack4"] {
        assert_eq!(disk(&cluster, other)["pace"], "usual");
    }

    // It has little to do now, and is slow all the same: longer than it would have to be fast.
    std::thread::sleep(Duration::from_secs(6));
    assert_eq!(disk(&cluster, "rack2")["pace"], "slow, out of use", "{}", cluster.tails(30));
    drop(throttle);
    let back = wait_pace(&cluster, "rack2", "usual", PATIENCE);
    wait_until("all groups are whole", Deadline::within(PATIENCE), || {
        std::thread::sleep(Duration::from_millis(100));
        let output = cluster.pangu(&["status", "--json"])?;
        let status: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap_or_default();
        let groups = status["groups"].as_array().cloned().unwrap_or_default();
        let members = groups.iter().filter_map(|group| group["members"].as_array());
        let whole = |members: &Vec<serde_json::Value>| {
            members.len() == 3 && members.iter().all(|member| member["state"] == "serving")
        };
        Ok(!groups.is_empty() && members.clone().count() == groups.len() && members.clone().all(whole))
    })
    .unwrap();
    println!("fast again: in use after {back:?}, all groups whole after {:?}", began.elapsed());
    let (result, owed) = writer.finish();
    result.unwrap();
    let (wrong, right) = verify(&owed);
    assert_eq!(wrong, Vec::<String>::new(), "{right} were right");
    cluster.finish().unwrap();
}
