//! Masters come and go under a running writer: more of them, fewer, others in the place of lost ones; and what is wrong with a
//! request is said.
#![allow(clippy::unwrap_used, reason = "helpers of tests are tests")]

use std::fs;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use deploy_e2e::{Writer, run_ok, verify};
use deploy_local_cluster::{Cluster, Deadline, Options, Role, wait_until};

const PATIENCE: Duration = Duration::from_secs(120);
/// A change of masters may cost an election, never a timeout of anything else.
const STALL: Duration = Duration::from_secs(5);

struct Scene {
    cluster: Cluster,
    writer: Writer,
}

impl Scene {
    fn new(masters: u32, seed: u64) -> Self {
        Self::with(Options::new(masters, 3), seed)
    }

    fn with(mut options: Options, seed: u64) -> Self {
        options.capacity = "6G".to_owned();
        let mut cluster = options.start().unwrap();
        cluster.announce(" WARN ");
        let root = cluster.mount().unwrap();
        let folder = root.join("work");
        fs::create_dir(&folder).unwrap();
        let writer = Writer::start(&folder, seed);
        let scene = Self { cluster, writer };
        scene.work("the writer is at work");
        let _ = scene.writer.take_longest();
        scene
    }

    /// The writer goes on, and did not stand still for long since the last time.
    fn work(&self, what: &str) {
        let goal = self.writer.done() + 40;
        let waited = wait_until(what, Deadline::within(PATIENCE), || {
            Ok(self.writer.done() >= goal || self.writer.has_ended())
        });
        if let Err(error) = waited {
            panic!("{error}\n{}", self.cluster.tails(30));
        }
        assert!(!self.writer.has_ended(), "the writer met an error: {what}");
        let longest = self.writer.take_longest();
        println!("{what}: longest operation {longest:?}, {} so far", self.writer.done());
        assert!(longest < STALL, "{what}: {longest:?}");
    }

    /// What `pangu` printed, and whether it worked.
    fn pangu(&self, arguments: &[&str]) -> (bool, String) {
        let output = self.cluster.pangu(arguments).unwrap();
        let said =
            format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
        (output.status.success(), said)
    }

    fn must(&self, arguments: &[&str]) -> String {
        let (worked, said) = self.pangu(arguments);
        assert!(worked, "pangu {arguments:?}: {said}\n{}", self.cluster.tails(20));
        said
    }

    fn refused(&self, arguments: &[&str], because: &str) {
        let (worked, said) = self.pangu(arguments);
        assert!(!worked && said.contains(because), "pangu {arguments:?} should say {because:?}: {said}");
        assert!(!said.contains("panicked") && said.lines().count() <= 2, "{said}");
    }

    fn status(&self) -> serde_json::Value {
        serde_json::from_str(&self.must(&["status", "--json"])).unwrap()
    }

    fn leader(&self) -> Role {
        Role::Master(u32::try_from(self.status()["leader"].as_u64().unwrap()).unwrap())
    }

    fn voters(&self) -> Vec<u64> {
        let status = self.status();
        let voters = status["masters"].as_array().unwrap().iter().filter(|master| master["voter"] == true);
        voters.map(|master| master["id"].as_u64().unwrap()).collect()
    }

    fn add(&mut self) -> Role {
        let role = self.cluster.grow_masters().unwrap();
        let began = Instant::now();
        let said = self.must(&["master", "add", &self.cluster.address_of(role).unwrap()]);
        assert!(said.contains("is one of the cluster") && said.contains("masters = ["), "{said}");
        self.describe();
        self.work(&format!("{role} was added in {:?}", began.elapsed()));
        role
    }

    fn remove(&mut self, role: Role) {
        self.must(&["master", "remove", &number(role).to_string()]);
        self.describe();
        self.work(&format!("{role} was removed"));
        if self.cluster.pid(role).is_some() {
            self.cluster.stop(role).unwrap();
            self.work(&format!("{role} was stopped"));
        }
    }

    /// What starts from now on is told of the masters there are, as `pangu` said it should.
    fn describe(&self) {
        let status = self.status();
        let addresses: Vec<_> =
            status["masters"].as_array().unwrap().iter().map(|m| m["address"].to_string()).collect();
        let text = format!("name = \"local\"\nmasters = [{}]\n", addresses.join(", "));
        fs::write(self.cluster.description(), text).unwrap();
    }

    fn finish(self) {
        let (result, owed) = self.writer.finish();
        result.unwrap();
        let (wrong, right) = verify(&owed);
        assert_eq!(wrong, Vec::<String>::new(), "{right} were right");
        println!("{right} files and blocks are right");
        self.cluster.finish().unwrap();
    }
}

fn number(role: Role) -> u32 {
    match role {
        Role::Master(n) | Role::Chunkserver(n) | Role::Nuwa(n) | Role::Client(n) => n,
    }
}

#[test]
fn long_one_master_becomes_three_and_five_and_three_again() {
    let mut scene = Scene::new(1, 51);
    for expected in 2..=5 {
        scene.add();
        assert_eq!(scene.voters().len(), expected);
    }
    // Of five, any two may be lost, and whoever leads goes in good order.
    for _ in 0..2 {
        let leader = scene.leader();
        scene.remove(leader);
    }
    let voters = scene.voters();
    assert_eq!(voters.len(), 3);
    let leader = scene.leader();
    scene.cluster.kill(leader).unwrap();
    scene.work("the leader of the three that are left was killed");
    scene.cluster.restart(leader).unwrap();
    scene.finish();
}

#[test]
fn long_every_master_is_replaced_and_nobody_else_is_restarted() {
    let mut scene = Scene::new(3, 52);
    for lost in 1..=3 {
        let lost = Role::Master(lost);
        scene.cluster.kill(lost).unwrap();
        scene.cluster.wipe(lost).unwrap();
        scene.work(&format!("{lost} and its disk are lost"));
        scene.add();
        scene.remove(lost);
    }
    assert_eq!(scene.voters(), [4, 5, 6]);
    // Mount and chunkservers were told of the first three only when they started.
    for n in 4..=6 {
        let master = Role::Master(n);
        scene.cluster.kill(master).unwrap();
        scene.work(&format!("{master} was killed"));
        scene.cluster.restart(master).unwrap();
        scene.work(&format!("{master} is back"));
    }
    // And what starts anew finds them by the description.
    scene.cluster.stop(Role::Chunkserver(1)).unwrap();
    scene.cluster.restart(Role::Chunkserver(1)).unwrap();
    scene.work("a chunkserver was restarted");
    scene.finish();
}

#[test]
fn long_wrong_requests_are_refused_with_the_reason() {
    let mut scene = Scene::new(3, 53);
    let address = |scene: &Scene, n| scene.cluster.address_of(Role::Master(n)).unwrap();
    let said = scene.must(&["master", "add", &address(&scene, 2)]);
    assert!(said.contains("already"), "{said}");
    scene.refused(&["master", "add", "nonsense"], "no address of a master");
    scene.refused(&["master", "add", "tcp://127.0.0.1:1"], "no master answers");
    scene.refused(&["master", "remove", "9"], "there is no master 9: there are 1, 2, 3");
    let other = Cluster::start(1, 1).unwrap();
    let theirs = other.address_of(Role::Master(1)).unwrap();
    wait_until("the other cluster is made", Deadline::within(PATIENCE), || {
        Ok(other.pangu(&["status"]).unwrap().status.success())
    })
    .unwrap();
    scene.refused(&["master", "add", &theirs], "no server of ours");
    other.finish().unwrap();

    // A removed master does not come back with what it knew.
    scene.remove(Role::Master(3));
    scene.cluster.restart(Role::Master(3)).unwrap();
    scene.refused(&["master", "add", &address(&scene, 3)], "data of an earlier membership");
    scene.cluster.kill(Role::Master(3)).unwrap();

    let last = scene.leader();
    // Of two, the other one.
    scene.remove(Role::Master(3 - number(last)));
    scene.refused(&["master", "remove", &number(last).to_string()], "the only one");
    scene.finish();
}

/// What the masters of the next test are told: a snapshot after few entries, and small files.
const SHORT_LOG: &str = "snapshot_after_entries = 200\nkeep_entries = 50\nsegment_mib = 16\n";
/// The bound of `master/docs/log.md` for them: 200 + 50 + 256 entries of up to 64 KiB are less than two files, and half as many may come
/// while a snapshot is made; with four files more.
const LOG_MAX: u64 = 7 * (16 << 20);
/// Twice as much is written.
const ATTRIBUTES: u32 = 4000;
const ATTRIBUTE: usize = 60 << 10;

/// Fills the masters' log and not their state: the same attribute again and again.
fn fill_log(folder: &Path) {
    let script = format!(
        "import os\nfor n in range({ATTRIBUTES}): os.setxattr('.', 'user.long', (b'%08d' % n) * {})",
        ATTRIBUTE / 8
    );
    run_ok(Command::new("python3").args(["-c", &script]).current_dir(folder), PATIENCE);
}

fn size(folder: &Path) -> u64 {
    let files = fs::read_dir(folder).unwrap();
    // Spare files come and go.
    files.map(|file| file.unwrap().metadata().map_or(0, |meta| meta.len())).sum()
}

impl Scene {
    fn logs_are_short(&self) {
        for n in 1..=3 {
            let log = self.cluster.folder().join(Role::Master(n).to_string()).join("log");
            let mut now = 0;
            let waited = wait_until("the log is short", Deadline::within(PATIENCE), || {
                now = size(&log);
                Ok(now <= LOG_MAX)
            });
            assert!(waited.is_ok(), "{}: {now} bytes, allowed are {LOG_MAX}", log.display());
            println!("{}: {} MiB", log.display(), now >> 20);
        }
    }
}

#[test]
fn long_a_master_that_was_away_for_long_is_sent_a_snapshot_and_can_lead() {
    let mut options = Options::new(3, 3);
    options.raft = SHORT_LOG.to_owned();
    let mut scene = Scene::with(options, 54);
    let away = scene.leader();
    scene.cluster.kill(away).unwrap();
    scene.work("the leader was killed");
    let folder = scene.cluster.mounts()[0].1.clone();
    fill_log(&folder);
    let log = scene.cluster.folder().join("log").join(away.to_string());
    let installed = || fs::read_to_string(&log).unwrap().contains("got a snapshot from the leader");
    assert!(!installed());

    scene.cluster.restart(away).unwrap();
    let waited = wait_until("it was sent a snapshot", Deadline::within(PATIENCE), || Ok(installed()));
    assert!(waited.is_ok(), "{}", scene.cluster.tails(30));
    scene.work(&format!("{away} is back and was sent a snapshot"));
    scene.logs_are_short();

    // Of two that are left nothing is written without both, so it has caught up; and it leads once the other is stopped.
    let leader = scene.leader();
    assert_ne!(leader, away, "it may lead only after what follows");
    let other = (1..=3).map(Role::Master).find(|role| ![leader, away].contains(role)).unwrap();
    scene.cluster.kill(other).unwrap();
    scene.work("one of the others was killed");
    scene.cluster.stop(leader).unwrap();
    scene.cluster.restart(leader).unwrap();
    scene.work("the other one was stopped and started again");
    assert_eq!(scene.leader(), away);
    scene.cluster.restart(other).unwrap();
    scene.work("all three are there");
    fill_log(&folder);
    scene.logs_are_short();
    scene.finish();
}
