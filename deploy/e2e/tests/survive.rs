//! Chunkservers die, stop, hang, lose their disks; writes and reads go on, and whoever comes back serves again.
#![allow(clippy::unwrap_used, reason = "helpers of tests are tests")]

use std::fs;
use std::os::unix::fs::FileExt as _;
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

    fn leader(&self) -> Role {
        let output = self.cluster.pangu(&["status", "--json"]).unwrap();
        let status: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
        Role::Master(u32::try_from(status["leader"].as_u64().unwrap()).unwrap())
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

    fn servers(&self) -> Vec<serde_json::Value> {
        let output = self.cluster.pangu(&["status", "--json"]).unwrap();
        let status: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap_or_default();
        status["chunkservers"].as_array().cloned().unwrap_or_default()
    }

    /// The server in this rack that has the newest disk.
    fn server(&self, rack: u32) -> serde_json::Value {
        let rack = format!("/rack{rack}/");
        let here =
            |server: &serde_json::Value| server["location"].as_str().is_some_and(|at| at.contains(&rack));
        self.servers().into_iter().filter(here).max_by_key(|server| server["id"].as_u64()).unwrap()
    }

    /// In how many groups a rack serves.
    fn share(&self, rack: u32) -> usize {
        let disk = self.server(rack)["disks"][0]["id"].clone();
        let serves = |group: &serde_json::Value| {
            let members = group["members"].as_array().map(Vec::as_slice).unwrap_or_default();
            members.iter().any(|member| member["disk"] == disk && member["state"] == "serving")
        };
        self.groups().iter().filter(|group| serves(group)).count()
    }

    /// Waits until a rack has its share of the groups, of three members each.
    fn wait_share(&self, rack: u32, racks: usize) {
        let began = Instant::now();
        let waited = wait_until("it has its share", Deadline::within(PATIENCE), || {
            std::thread::sleep(Duration::from_millis(200));
            Ok(self.share(rack) >= self.groups().len() * 3 / racks * 9 / 10)
        });
        if let Err(error) = waited {
            panic!("{error}\n{}\n{}", self.status(), self.cluster.tails(40));
        }
        println!(
            "rack {rack} has {} of {} groups: after {:?}",
            self.share(rack),
            self.groups().len(),
            began.elapsed()
        );
    }

    /// Waits until every disk was scrubbed by a pass that begins from now on, and nothing is left to repair.
    fn wait_scrubbed(&self) {
        let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap();
        let now_ms = u64::try_from(now.as_millis()).unwrap();
        let mut began: Vec<Option<u64>> = vec![None; 3];
        let waited = wait_until("all is scrubbed", Deadline::within(PATIENCE), || {
            std::thread::sleep(Duration::from_millis(200));
            let mut done = true;
            for (at, server) in self.servers().iter().enumerate().take(began.len()) {
                let disk = &server["disks"][0];
                let (start, end) = (disk["scrub_began_ms"].as_u64(), disk["scrub_ended_ms"].as_u64());
                began[at] = began[at].or_else(|| start.filter(|start| *start > now_ms));
                let passed = began[at].is_some_and(|began| end.is_some_and(|end| end > began));
                done &= passed && disk["damaged_chunks"] == 0;
            }
            Ok(done)
        });
        if let Err(error) = waited {
            panic!("{error}\n{}\n{}", self.status(), self.cluster.tails(40));
        }
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

/// Connections are not closed, they fall silent: leases must run out, and what waits on a dead connection must be let go.
#[test]
fn long_work_goes_on_while_a_server_has_no_network() {
    if !nix::unistd::geteuid().is_root() {
        eprintln!("only root can make networks: not tested");
        return;
    }
    let mut options = Options::new(3, 3);
    options.network = true;
    let mut scene = Scene::of(options, 23);
    let leader = scene.leader();
    for role in [Role::Chunkserver(1), Role::Chunkserver(3), leader] {
        scene.cluster.cut(role, true).unwrap();
        scene.go_on(&format!("{role} is cut off"), Duration::from_secs(6), STALL_HUNG);
        scene.cluster.cut(role, false).unwrap();
        scene.wait_whole(&format!("{role} is connected again"));
        scene.go_on(&format!("{role} came back"), Duration::from_secs(1), STALL_HUNG);
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
    // Who was replaced comes back, lets go of what it has, and gets its share again.
    scene.cluster.restart(Role::Chunkserver(2)).unwrap();
    scene.cluster.restart(Role::Chunkserver(1)).unwrap();
    scene.wait_share(1, 4);
    scene.wait_whole("all are back");
    scene.finish();
}

#[test]
fn long_a_new_chunkserver_fills_by_itself_and_an_old_one_is_emptied() {
    let mut scene = Scene::new(18);
    scene.go_on("before", Duration::from_secs(1), STALL_DEAD);
    scene.cluster.grow().unwrap();
    scene.wait_share(4, 4);
    scene.go_on("the cluster grew", Duration::from_secs(1), STALL_DEAD);
    let old = scene.server(1);
    let id = old["id"].to_string();
    let output = scene.cluster.pangu(&["drain", &id, "--timeout", "30"]).unwrap();
    let said = String::from_utf8_lossy(&output.stdout);
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success() && said.contains("safe to pull"), "{said}{errors}");
    scene.go_on("one was emptied", Duration::from_secs(1), STALL_DEAD);
    assert_eq!(scene.share(1), 0);
    scene.cluster.kill(Role::Chunkserver(1)).unwrap();
    empty(&scene.cluster.folder().join(Role::Chunkserver(1).to_string()));
    scene.go_on("its directory was deleted", Duration::from_secs(1), STALL_DEAD);
    scene.wait_whole("all groups are whole without it");
    scene.finish();
}

#[test]
fn long_what_cannot_be_emptied_says_so_and_is_used_again() {
    let scene = Scene::new(19);
    let id = scene.server(2)["id"].to_string();
    let output = scene.cluster.pangu(&["drain", &id, "--no-wait"]).unwrap();
    assert!(output.status.success(), "{output:?}");
    scene.work(50);
    assert_eq!(scene.share(2), scene.groups().len(), "three copies need three racks");
    assert!(scene.status().contains("1 draining"), "{}", scene.status());
    let output = scene.cluster.pangu(&["undrain", &id]).unwrap();
    assert!(output.status.success(), "{output:?}");
    assert!(!scene.status().contains("draining"), "{}", scene.status());
    let output = scene.cluster.pangu(&["drain", "77"]).unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(!output.status.success() && said.contains("no chunkserver has the id 77"), "{said}");
    scene.finish();
}

#[test]
fn long_damaged_data_is_repaired_before_anybody_sees_it() {
    let mut options = Options::new(3, 3);
    options.survival = "scrub_period_s = 3\n".to_owned();
    let mut scene = Scene::of(options, 20);
    scene.work(200);
    let (result, owed) = scene.writer.take().unwrap().finish();
    result.unwrap();
    for round in 0..3 {
        // One disk at a time: others have it whole. Half of the blocks, free ones too.
        let victim = Role::Chunkserver(round % 3 + 1);
        let blocks = damage(&scene.cluster.folder().join(victim.to_string()), u64::from(round));
        let client = Role::Client(1);
        scene.cluster.stop(client).unwrap();
        scene.cluster.restart(client).unwrap();
        let (wrong, right) = verify(&owed);
        assert_eq!(wrong, Vec::<String>::new(), "{right} were right");
        scene.wait_scrubbed();
        println!("{blocks} blocks of {victim} were damaged, {right} files and blocks read right");
    }
    for n in 1..=3 {
        scene.cluster.stop(Role::Chunkserver(n)).unwrap();
        let folder = scene.cluster.folder().join(Role::Chunkserver(n).to_string());
        assert_clean(&scene.cluster, &folder);
        scene.cluster.restart(Role::Chunkserver(n)).unwrap();
        scene.wait_whole("it serves again");
    }
    scene.cluster.finish().unwrap();
}

#[test]
fn long_a_disk_with_many_damaged_blocks_is_emptied() {
    let mut options = Options::new(3, 4);
    options.survival = "scrub_period_s = 3\nerrors_max = 20\n".to_owned();
    let mut scene = Scene::of(options, 25);
    scene.work(200);
    let (result, owed) = scene.writer.take().unwrap().finish();
    result.unwrap();
    let began = Instant::now();
    let blocks = damage(&scene.cluster.folder().join(Role::Chunkserver(2).to_string()), 0);
    let disk = || scene.server(2)["disks"][0].clone();
    let wait = |what: &str, met: &dyn Fn() -> bool| {
        let waited = wait_until(what, Deadline::within(PATIENCE), || {
            std::thread::sleep(Duration::from_millis(200));
            Ok(met())
        });
        if let Err(error) = waited {
            panic!("{error}: {}\n{}\n{}", disk(), scene.status(), scene.cluster.tails(40));
        }
        println!("{what}: after {:?}", began.elapsed());
    };
    wait("the disk is marked", &|| disk()["draining"] == true);
    let root = scene.cluster.mounts()[0].1.clone();
    // The mount asks for the cluster's state now and then.
    wait("health says why", &|| {
        fs::read_to_string(root.join(".pangu/health")).is_ok_and(|text| text.contains("is failing"))
    });
    wait("it is in no group", &|| {
        let id = disk()["id"].clone();
        let is_member = |group: &serde_json::Value| {
            group["members"]
                .as_array()
                .is_some_and(|members| members.iter().any(|member| member["disk"] == id))
        };
        let groups = scene.groups();
        !groups.is_empty() && !groups.iter().any(is_member)
    });
    let (wrong, right) = verify(&owed);
    assert_eq!(wrong, Vec::<String>::new(), "{right} were right");
    println!("{blocks} blocks were damaged, {right} files and blocks read right");
    let marked = scene.servers().iter().filter(|server| server["disks"][0]["draining"] == true).count();
    assert_eq!(marked, 1, "{}", scene.status());
    // Somebody looked at it: it is used again, and what it had is forgotten.
    let output = scene.cluster.pangu(&["undrain", &scene.server(2)["id"].to_string()]).unwrap();
    assert!(output.status.success(), "{output:?}");
    let disk = || scene.server(2)["disks"][0].clone();
    wait_until("its errors are forgotten", Deadline::within(PATIENCE), || {
        std::thread::sleep(Duration::from_millis(200));
        Ok(disk()["errors"] == 0 && disk()["failing"] == false)
    })
    .unwrap();
    scene.wait_share(2, 4);
    assert!(disk()["draining"] == false, "{}", disk());
    scene.cluster.finish().unwrap();
}

#[test]
fn long_lost_and_cut_off_segments_are_filled_by_the_other_members() {
    let mut scene = Scene::of(Options::new(3, 3), 22);
    scene.cluster.announce("a segment is lost");
    scene.work(200);
    let (result, owed) = scene.writer.take().unwrap().finish();
    result.unwrap();
    let client = Role::Client(1);
    for n in 1..=3 {
        let victim = Role::Chunkserver(n);
        let folder = scene.cluster.folder().join(victim.to_string());
        scene.cluster.stop(victim).unwrap();
        let segment = folder.join("seg-00000000");
        if n == 2 {
            fs::OpenOptions::new().write(true).open(&segment).unwrap().set_len(1 << 20).unwrap();
        } else {
            fs::remove_file(&segment).unwrap();
        }
        scene.cluster.restart(victim).unwrap();
        scene.cluster.stop(client).unwrap();
        scene.cluster.restart(client).unwrap();
        let (wrong, right) = verify(&owed);
        assert_eq!(wrong, Vec::<String>::new(), "{right} were right");
        scene.wait_whole("it is back");
        // The next copy is hurt only when this one is whole again.
        let log = scene.cluster.folder().join("log").join(victim.to_string());
        wait_until("its data is whole again", Deadline::within(PATIENCE), || {
            Ok(fs::read_to_string(&log)
                .unwrap_or_default()
                .contains("the data of lost segments is whole again"))
        })
        .unwrap();
        println!("segment of {victim} lost, {right} files and blocks read right");
    }
    for n in 1..=3 {
        scene.cluster.stop(Role::Chunkserver(n)).unwrap();
    }
    for n in 1..=3 {
        let folder = scene.cluster.folder().join(Role::Chunkserver(n).to_string());
        assert_clean(&scene.cluster, &folder);
    }
    for n in 1..=3 {
        scene.cluster.restart(Role::Chunkserver(n)).unwrap();
    }
    scene.cluster.finish().unwrap();
}

#[test]
fn long_a_disk_with_damaged_metadata_begins_anew_and_is_filled() {
    let mut scene = Scene::new(24);
    scene.cluster.announce("damaged metadata");
    for (n, kind) in
        [(1, "its superblock is lost"), (2, "bits of its metadata are flipped"), (3, "its journal is lost")]
    {
        let victim = Role::Chunkserver(n);
        let folder = scene.cluster.folder().join(victim.to_string());
        scene.cluster.stop(victim).unwrap();
        match n {
            1 => fs::remove_file(folder.join("superblock")).unwrap(),
            2 => assert!(flip_tables(&folder.join("meta")) > 0),
            _ => fs::remove_file(folder.join("journal")).unwrap(),
        }
        scene.cluster.restart(victim).unwrap();
        scene.go_on(kind, Duration::from_secs(1), STALL_DEAD);
        scene.wait_whole(&format!("{victim} is filled"));
        let log = fs::read_to_string(scene.cluster.folder().join("log").join(victim.to_string())).unwrap();
        assert!(log.contains("what the disk has is set aside"), "nobody noticed that {kind}");
        wait_until("what was set aside is deleted", Deadline::within(PATIENCE), || {
            Ok(!folder.join("set-aside").exists())
        })
        .unwrap();
    }
    // None of what they had before is left: all of it came from the others.
    for n in 1..=3 {
        let victim = Role::Chunkserver(n);
        scene.cluster.stop(victim).unwrap();
        assert_clean(&scene.cluster, &scene.cluster.folder().join(victim.to_string()));
        scene.cluster.restart(victim).unwrap();
        scene.wait_whole(&format!("{victim} serves again"));
    }
    scene.finish();
}

/// Flips a bit in the middle of every table of a metadata store; gives how many there are.
fn flip_tables(meta: &Path) -> usize {
    let mut flipped = 0;
    for entry in fs::read_dir(meta).unwrap() {
        let path = entry.unwrap().path();
        if path.extension().is_some_and(|extension| extension == "sst") {
            let mut bytes = fs::read(&path).unwrap();
            let middle = bytes.len() / 4;
            bytes[middle] ^= 8;
            fs::write(&path, bytes).unwrap();
            flipped += 1;
        }
    }
    flipped
}

/// The offline check finds nothing.
fn assert_clean(cluster: &Cluster, folder: &Path) {
    let mut check = std::process::Command::new(cluster.binaries().join("pangu-chunkserver"));
    let check = check.arg("verify").arg(folder).output().unwrap();
    assert!(check.status.success(), "{}", String::from_utf8_lossy(&check.stdout));
}

#[test]
fn long_writes_into_damaged_blocks_succeed() {
    const BLOCK: usize = 4096;
    let mut options = Options::new(3, 3);
    options.survival = "scrub_period_s = 3\n".to_owned();
    let mut scene = Scene::of(options, 21);
    scene.writer.take().unwrap().finish().0.unwrap();
    let path = scene.cluster.mounts()[0].1.join("file");
    let mut bytes: Vec<u8> = (0..64 * BLOCK).map(|at| (at % 251) as u8 + 1).collect();
    fs::write(&path, &bytes).unwrap();
    fs::File::open(&path).unwrap().sync_all().unwrap();
    for n in 1..=3 {
        for seed in 0..2 {
            damage(&scene.cluster.folder().join(Role::Chunkserver(n).to_string()), seed);
        }
        let file = fs::OpenOptions::new().write(true).open(&path).unwrap();
        for block in (n as usize..64).step_by(3) {
            let at = block * BLOCK + 1000;
            file.write_all_at(&[n as u8; 10], at as u64).unwrap();
            bytes[at..at + 10].fill(n as u8);
        }
        file.sync_all().unwrap();
        assert!(fs::read(&path).unwrap() == bytes, "after damage to chunkserver {n}");
        // What nobody touched must be whole before the next copy is damaged.
        scene.wait_scrubbed();
        let output = scene.cluster.pangu(&["verify", &path.to_string_lossy()]).unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stdout));
    }
    scene.cluster.finish().unwrap();
}

/// Flips a bit in every second block of a chunkserver's segments that is not zero; gives how many.
fn damage(folder: &Path, seed: u64) -> usize {
    const BLOCK: usize = 4096;
    let mut damaged = 0;
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if !path.file_name().unwrap().to_string_lossy().starts_with("seg-") {
            continue;
        }
        let file = fs::OpenOptions::new().read(true).write(true).open(&path).unwrap();
        let mut block = [0; BLOCK];
        for at in (seed % 2..file.metadata().unwrap().len() / BLOCK as u64).step_by(2) {
            let offset = at * BLOCK as u64;
            file.read_exact_at(&mut block, offset).unwrap();
            if block.iter().all(|byte| *byte == 0) {
                continue;
            }
            // Blocks that are being written just now come out right or wrong: both are damage that may happen.
            file.write_all_at(&[block[100] ^ 4], offset + 100).unwrap();
            damaged += 1;
        }
        file.sync_all().unwrap();
    }
    damaged
}
