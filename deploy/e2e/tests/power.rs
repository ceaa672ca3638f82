//! The power goes, everywhere at once: every process is killed and every disk forgets what was not synced, or keeps
//! some of it, torn. All that was confirmed is there when it comes back.
//!
//! All servers keep their data on one lossy disk (`deploy/lossy`), so that the cut is one moment for all of them.
#![allow(clippy::unwrap_used, reason = "helpers of tests are tests")]

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use deploy_e2e::{Content, Owed, TreeOwed, TreeWriter, Writer, run, verify};
use deploy_local_cluster::{Cluster, Deadline, Options, Role, wait_until};
use deploy_lossy::{Loss, LossyDisk, Report};

/// What takes longer stands still.
const PATIENCE: Duration = Duration::from_secs(90);
/// Of a fast SSD without a battery: long enough for a cut to fall between a write and the end of its sync.
const SYNC: Duration = Duration::from_millis(1);
const WRITERS: u64 = 2;
/// Servers that find their own data damaged say one of these. A power cut is no damage: with other copies at hand it
/// would be mended, and nobody would notice that a disk had been emptied.
const DAMAGE: [&str; 6] = ["damage", "corrupt", "set aside", "is lost", "repaired", "panicked"];

struct Scene {
    cluster: Cluster,
    disk: LossyDisk,
    root: PathBuf,
    seed: u64,
    owed: Vec<(Vec<Owed>, TreeOwed)>,
    // Dropped last: the others live in it.
    _folder: tempfile::TempDir,
}

fn dice(seed: u64, what: u64, sides: u64) -> u64 {
    let mut bytes = [0; 8];
    Content::new(seed).fill(what * 8, &mut bytes);
    u64::from_le_bytes(bytes) / 256 % sides
}

impl Scene {
    fn new(seed: u64) -> Self {
        let prefix = format!("feitian-cluster-{}-", std::process::id());
        let folder = tempfile::Builder::new().prefix(&prefix).tempdir().unwrap();
        let [point, backing] = ["disk", "backing"].map(|name| folder.path().join(name));
        fs::create_dir(&point).unwrap();
        fs::create_dir(&backing).unwrap();
        let disk = LossyDisk::mount(&point, &backing, deploy_lossy::Options { sync_delay: SYNC }).unwrap();
        let mut options = Options::new(3, 3);
        options.folder = Some(folder.path().join("cluster"));
        options.disks = Some(point);
        options.capacity = "6G".to_owned();
        let mut cluster = options.start().unwrap();
        cluster.announce(" WARN ");
        let root = cluster.mount().unwrap();
        Self { cluster, disk, root, seed, owed: Vec::new(), _folder: folder }
    }

    /// Writers work; at some moment the power goes; it comes back.
    fn round(&mut self, round: u64, lie: bool) -> Report {
        let folder = self.root.join(format!("round{round}"));
        fs::create_dir(&folder).unwrap();
        let part = |name: &str| {
            let part = folder.join(name);
            fs::create_dir(&part).unwrap();
            part
        };
        let seed = self.seed * 1000 + round;
        let tree = TreeWriter::start(&part("tree"), seed);
        let writers: Vec<Writer> =
            (0..WRITERS).map(|n| Writer::start(&part(&format!("writer{n}")), seed * 10 + n)).collect();
        let done = || writers.iter().map(Writer::done).sum::<u64>() + tree.done();
        let wait = |operations: u64, what: &str| {
            let goal = done() + operations;
            let any_ended = || writers.iter().any(Writer::has_ended);
            let waited = wait_until(what, Deadline::within(PATIENCE), || Ok(done() >= goal || any_ended()));
            if let Err(error) = waited {
                panic!("{error}\n{}", self.cluster.tails(30));
            }
            assert!(!any_ended(), "a writer met an error before the cut");
        };
        wait(60 + dice(seed, 1, 400), "writers are at work");
        if lie {
            self.disk.ignore_syncs(true);
            wait(200, "writers go on with syncs that do nothing");
        }
        // Not when an operation has just ended, but at any time within one.
        std::thread::sleep(Duration::from_micros(dice(seed, 2, 20_000)));
        let loss = if lie || dice(seed, 3, 2) == 0 { Loss::All } else { Loss::Subset(seed) };
        self.disk.freeze();
        let mut report = Report::default();
        self.cluster.cut_power(|| report = self.disk.cut(loss).unwrap()).unwrap();
        self.disk.ignore_syncs(false);
        let total = done();
        let tree_owed = tree.finish().1;
        let owed = writers.into_iter().map(|writer| writer.finish().1).collect();
        self.owed.push((owed, tree_owed));
        println!("round {round}, {total} operations, {loss:?}: {report:?}");
        self.disk.power_on();
        report
    }

    fn restart(&mut self) {
        let began = Instant::now();
        self.cluster.restart_all().unwrap();
        let mut asked = String::new();
        let healthy = wait_until("all copies are there", Deadline::within(PATIENCE), || {
            std::thread::sleep(Duration::from_millis(50));
            asked = fs::read_to_string(self.root.join(".pangu/health")).unwrap_or_default();
            Ok(asked.starts_with("ok\n"))
        });
        if let Err(error) = healthy {
            panic!("{error}\n{asked}\n{}", self.cluster.tails(40));
        }
        println!("healthy again after {:?}", began.elapsed());
    }

    /// What is wrong of all that was confirmed in the last rounds.
    fn wrong(&self, rounds: usize) -> Vec<String> {
        let (mut wrong, mut right) = (Vec::new(), 0);
        let older = self.owed.len().saturating_sub(rounds);
        for (round, (writers, tree)) in self.owed.iter().enumerate().skip(older) {
            let results = writers.iter().map(verify).chain([tree.verify()]);
            for (more, fine) in results {
                right += fine;
                wrong.extend(more.into_iter().map(|line| format!("round {}: {line}", round + 1)));
            }
        }
        println!("{right} files and blocks are right, {} are wrong", wrong.len());
        wrong
    }

    /// What servers said of their disks since they were started first.
    fn damage(&self) -> Vec<String> {
        let logs = self.cluster.servers().into_iter().map(|role| {
            let log = self.cluster.folder().join("log").join(role.to_string());
            (role, fs::read_to_string(log).unwrap())
        });
        let of_damage = |line: &&str| {
            let line = line.to_lowercase();
            !line.contains(" info ") && DAMAGE.iter().any(|word| line.contains(word))
        };
        logs.flat_map(|(role, log)| {
            log.lines().filter(of_damage).map(|line| format!("{role}: {line}")).collect::<Vec<_>>()
        })
        .collect()
    }

    /// Every copy of some files, as each chunkserver has it, is the same.
    fn compare_copies(&self) {
        let mut files = Vec::new();
        regular_files(&self.root, &mut files);
        for n in 0..8 {
            let path = &files[usize::try_from(dice(self.seed, n, files.len() as u64)).unwrap()];
            let output = self.cluster.pangu(&["verify", &path.to_string_lossy()]).unwrap();
            let said = String::from_utf8_lossy(&output.stdout);
            assert!(
                output.status.success(),
                "{}: {said}{}",
                path.display(),
                String::from_utf8_lossy(&output.stderr)
            );
        }
    }

    fn finish(mut self) {
        self.compare_copies();
        for n in 1..=3 {
            let role = Role::Chunkserver(n);
            self.cluster.stop(role).unwrap();
            let mut check = Command::new(self.cluster.binaries().join("pangu-chunkserver"));
            let check = run(check.arg("verify").arg(self.cluster.data_of(role)), PATIENCE);
            assert!(check.status.success(), "{role}: {}", String::from_utf8_lossy(&check.stdout));
            self.cluster.restart(role).unwrap();
        }
        self.cluster.finish().unwrap();
    }
}

fn regular_files(folder: &Path, found: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(folder).unwrap() {
        let entry = entry.unwrap();
        match entry.file_type().unwrap() {
            kind if kind.is_dir() => regular_files(&entry.path(), found),
            kind if kind.is_file() => found.push(entry.path()),
            _ => {}
        }
    }
}

fn rounds() -> u64 {
    if std::env::var_os("FEITIAN_FULL").is_some() { 25 } else { 5 }
}

#[test]
fn long_what_was_confirmed_survives_power_cuts() {
    let seed = std::env::var("FEITIAN_SEED").ok().and_then(|seed| seed.parse().ok()).unwrap_or(1);
    println!("seed {seed}");
    let mut scene = Scene::new(seed);
    let mut lost = 0;
    for round in 1..=rounds() {
        let report = scene.round(round, false);
        lost += report.blocks_lost + report.blocks_torn + report.names_lost;
        scene.restart();
        // The rounds before grow old: all of them are looked at once more in the end.
        assert_eq!(scene.wrong(2), Vec::<String>::new(), "round {round}");
        assert_eq!(scene.damage(), Vec::<String>::new(), "round {round}");
    }
    assert_eq!(scene.wrong(usize::MAX), Vec::<String>::new(), "in the end");
    assert!(lost > 0, "nothing was unsynced in any round: this tests nothing");
    scene.finish();
}

/// The test above would notice: disks that answer syncs and forget all the same lose what was confirmed.
#[test]
fn long_syncs_that_lie_are_noticed() {
    let mut scene = Scene::new(2);
    scene.round(1, true);
    scene.cluster.announce(" ERROR ");
    scene.cluster.restart_all().unwrap();
    let wrong = scene.wrong(1);
    println!("{}", wrong.iter().take(10).map(|line| format!("{line}\n")).collect::<String>());
    assert!(!wrong.is_empty(), "nothing of what was confirmed is lost");
}
