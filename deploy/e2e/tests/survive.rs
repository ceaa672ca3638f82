//! Chunkservers die, stop, hang, lose their disks; writes and reads go on, and whoever comes back serves again.
#![allow(clippy::unwrap_used, reason = "helpers of tests are tests")]

use std::fs;
use std::path::Path;
use std::time::{Duration, Instant};

use deploy_e2e::{Writer, verify};
use deploy_local_cluster::{Cluster, Deadline, Options, Role, wait_until};

/// What takes longer stands still.
const PATIENCE: Duration = Duration::from_secs(120);
/// A member stays away for this long; the writer must get on all the time.
const AWAY: Duration = Duration::from_secs(4);
/// Longest stalls that fail a test. Each twice the promise and more: the machine of a test is busy with other things.
const STALL_DEAD: Duration = Duration::from_secs(3);
const STALL_HUNG: Duration = Duration::from_secs(8);

struct Scene {
    cluster: Cluster,
    writer: Option<Writer>,
    /// The worst stall of each kind of event, for the report.
    stalls: Vec<(String, Duration)>,
}

impl Scene {
    fn new(seed: u64) -> Self {
        Self::of(Options::new(3, 3), seed)
    }

    fn of(options: Options, seed: u64) -> Self {
        let mut cluster = options.start().unwrap();
        cluster.announce(" WARN ");
        let root = cluster.mount().unwrap();
        let folder = root.join("work");
        fs::create_dir(&folder).unwrap();
        let writer = Some(Writer::start(&folder, seed));
        let scene = Self { cluster, writer, stalls: Vec::new() };
        scene.work(60);
        // Groups are made, mounts warm: what stalls from here on is the fault's doing.
        let _ = scene.writer().take_longest();
        scene
    }

    fn writer(&self) -> &Writer {
        self.writer.as_ref().unwrap()
    }

    /// Waits until the writer did so many more operations.
    fn work(&self, operations: u64) {
        let goal = self.writer().done() + operations;
        let what = format!("{operations} more operations");
        let waited = wait_until(&what, Deadline::within(PATIENCE), || {
            Ok(self.writer().done() >= goal || self.writer().has_ended())
        });
        if let Err(error) = waited {
            panic!("{error}\n{}\n{}", self.status(), self.cluster.tails(30));
        }
        assert!(!self.writer().has_ended(), "the writer met an error");
    }

    /// Lets the writer go on for a while, and notes its longest stall since the last time.
    fn go_on(&mut self, what: &str, time: Duration, stall_max: Duration) {
        let began = Instant::now();
        self.work(20);
        if let Some(rest) = time.checked_sub(began.elapsed()) {
            std::thread::sleep(rest);
        }
        self.work(20);
        let stall = self.writer().take_longest();
        println!("{what}: longest operation {stall:?}, {} operations so far", self.writer().done());
        self.stalls.push((what.to_owned(), stall));
        assert!(stall < stall_max, "{what}: {stall:?}\n{}", self.status());
    }

    fn status(&self) -> String {
        let output = self.cluster.pangu(&["status"]).unwrap();
        String::from_utf8_lossy(&output.stdout).into_owned()
    }

    fn groups(&self) -> Vec<serde_json::Value> {
        let output = self.cluster.pangu(&["status", "--json"]).unwrap();
        let status: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap_or_default();
        status["groups"].as_array().cloned().unwrap_or_default()
    }

    /// How many members are in a state.
    fn count(&self, state: &str) -> usize {
        let groups = self.groups();
        let members = groups.iter().filter_map(|group| group["members"].as_array()).flatten();
        members.filter(|member| member["state"] == state).count()
    }

    fn wait_whole(&self, what: &str) {
        let began = Instant::now();
        let waited = wait_until(what, Deadline::within(PATIENCE), || {
            let groups = self.groups();
            let whole = |group: &serde_json::Value| {
                let members = group["members"].as_array().map(Vec::as_slice).unwrap_or_default();
                members.len() == 3 && members.iter().all(|member| member["state"] == "serving")
            };
            std::thread::sleep(Duration::from_millis(50));
            Ok(!groups.is_empty() && groups.iter().all(whole))
        });
        if let Err(error) = waited {
            panic!("{error}\n{}\n{}", self.status(), self.cluster.tails(40));
        }
        println!("{what}: after {:?}", began.elapsed());
    }

    /// All that was confirmed is there: as this mount has it, and as the servers have it.
    fn finish(mut self) {
        let (result, owed) = self.writer.take().unwrap().finish();
        result.unwrap();
        let (wrong, right) = verify(&owed);
        assert_eq!(wrong, Vec::<String>::new(), "{right} were right");
        let client = Role::Client(1);
        self.cluster.stop(client).unwrap();
        self.cluster.restart(client).unwrap();
        let (wrong, right) = verify(&owed);
        assert_eq!(wrong, Vec::<String>::new(), "{right} were right");
        println!("{right} files and blocks are right; stalls: {:?}", self.stalls);
        self.cluster.finish().unwrap();
    }
}

#[test]
fn long_work_goes_on_while_a_chunkserver_is_dead_and_it_comes_back() {
    let mut scene = Scene::new(11);
    for n in 1..=3 {
        let role = Role::Chunkserver(n);
        scene.cluster.kill(role).unwrap();
        scene.go_on(&format!("{role} is dead"), AWAY, STALL_DEAD);
        assert!(scene.count("offline") > 0, "{}", scene.status());
        scene.cluster.restart(role).unwrap();
        scene.wait_whole(&format!("{role} serves again"));
        scene.go_on(&format!("{role} came back"), Duration::from_secs(1), STALL_DEAD);
    }
    scene.finish();
}

#[test]
fn long_a_second_dies_while_the_first_is_filled() {
    let mut scene = Scene::new(12);
    let (one, two) = (Role::Chunkserver(1), Role::Chunkserver(2));
    for _ in 0..2 {
        scene.cluster.kill(one).unwrap();
        scene.go_on("the first is dead", AWAY, STALL_DEAD);
        scene.cluster.restart(one).unwrap();
        // It is being filled, or has just joined: two of the three must wait for the second if it is one of the last two.
        scene.cluster.kill(two).unwrap();
        std::thread::sleep(Duration::from_secs(1));
        scene.cluster.restart(two).unwrap();
        scene.go_on("the second died and came back", AWAY, PATIENCE);
        scene.wait_whole("both serve again");
    }
    scene.finish();
}

#[test]
fn long_who_is_filled_dies_again_and_again() {
    let mut scene = Scene::new(13);
    let role = Role::Chunkserver(3);
    for _ in 0..4 {
        scene.cluster.kill(role).unwrap();
        scene.go_on("it is dead", Duration::from_secs(2), STALL_DEAD);
        scene.cluster.restart(role).unwrap();
        std::thread::sleep(Duration::from_millis(300));
    }
    scene.wait_whole("it serves again");
    scene.finish();
}

#[test]
fn long_an_empty_disk_is_filled_without_a_command() {
    let mut scene = Scene::new(14);
    for n in [1, 3] {
        let role = Role::Chunkserver(n);
        scene.cluster.kill(role).unwrap();
        empty(&scene.cluster.folder().join(role.to_string()));
        scene.cluster.restart(role).unwrap();
        scene.go_on("its disk was replaced", AWAY, STALL_DEAD);
        scene.wait_whole("the empty disk is filled");
    }
    // Now only the replaced disks can have it all.
    scene.cluster.kill(Role::Chunkserver(2)).unwrap();
    scene.go_on("another is dead", AWAY, STALL_DEAD);
    scene.cluster.restart(Role::Chunkserver(2)).unwrap();
    scene.wait_whole("it serves again");
    scene.finish();
}

fn empty(folder: &Path) {
    fs::remove_dir_all(folder).unwrap();
    fs::create_dir(folder).unwrap();
}

#[test]
fn long_a_chunkserver_stops_in_good_order() {
    let mut scene = Scene::new(15);
    for n in 1..=3 {
        let role = Role::Chunkserver(n);
        scene.cluster.stop(role).unwrap();
        scene.go_on(&format!("{role} stopped"), Duration::from_secs(2), STALL_DEAD);
        scene.cluster.restart(role).unwrap();
        scene.wait_whole(&format!("{role} serves again"));
    }
    scene.finish();
}

#[test]
fn long_a_chunkserver_that_hangs_is_left_behind() {
    let mut scene = Scene::new(16);
    for n in 1..=2 {
        let role = Role::Chunkserver(n);
        scene.cluster.pause(role, true).unwrap();
        scene.go_on(&format!("{role} hangs"), Duration::from_secs(6), STALL_HUNG);
        scene.cluster.pause(role, false).unwrap();
        scene.wait_whole(&format!("{role} serves again"));
    }
    scene.finish();
}

#[test]
fn long_an_absent_member_is_replaced_elsewhere() {
    let mut options = Options::new(3, 4);
    options.survival = "replace_after_s = 2\n".to_owned();
    let mut scene = Scene::of(options, 17);
    scene.cluster.kill(Role::Chunkserver(1)).unwrap();
    scene.go_on("it is dead", Duration::from_secs(4), STALL_DEAD);
    scene.wait_whole("its groups are whole without it");
    scene.cluster.kill(Role::Chunkserver(2)).unwrap();
    scene.go_on("another is dead", AWAY, STALL_DEAD);
    // Who was replaced comes back and lets go of what it has; but not before all groups are whole.
    scene.cluster.restart(Role::Chunkserver(2)).unwrap();
    scene.cluster.restart(Role::Chunkserver(1)).unwrap();
    scene.wait_whole("all are back");
    wait_until("the disk that was replaced has nothing left", Deadline::within(PATIENCE), || {
        let output = scene.cluster.pangu(&["status", "--json"]).unwrap();
        let status: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap_or_default();
        let servers = status["chunkservers"].as_array().cloned().unwrap_or_default();
        std::thread::sleep(Duration::from_millis(200));
        Ok(servers.iter().any(|server| {
            let rack1 = server["location"].as_str().is_some_and(|location| location.contains("rack1"));
            rack1 && server["disks"][0]["used_bytes"] == 0
        }))
    })
    .unwrap();
    scene.finish();
}
