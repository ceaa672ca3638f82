//! Keys that change, and capabilities that are taken back, while everybody works; and a machine whose clock is wrong.
#![allow(clippy::unwrap_used, reason = "helpers of tests are tests")]

use std::ffi::OsString;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::thread::sleep;
use std::time::{Duration, Instant};

use deploy_e2e::{Writer, run_ok, verify};
use deploy_local_cluster::{Cluster, Deadline, Options, Role, wait_until};

const PATIENCE: Duration = Duration::from_secs(60);
/// What is promised of taking back, and what a slow machine adds to it.
const TAKEN_BACK: Duration = Duration::from_secs(1);

fn cluster() -> Cluster {
    let mut options = Options::new(3, 3);
    (options.nuwa, options.capacity) = (3, "4G".to_owned());
    options.start().unwrap()
}

fn zhongkui(cluster: &Cluster, arguments: &[&str]) -> String {
    let mut program = Command::new(cluster.binaries().join("zhongkui"));
    program.arg("--keys").arg(cluster.keys().folder()).args(arguments);
    program.env("FEITIAN_CLUSTER", cluster.description());
    run_ok(&mut program, PATIENCE)
}

fn work(writers: &[Writer], what: &str) {
    for writer in writers {
        let goal = writer.done() + 30;
        let go_on = || Ok(writer.done() >= goal || writer.has_ended());
        wait_until(what, Deadline::within(PATIENCE), go_on).unwrap();
        assert!(!writer.has_ended(), "a writer met an error: {what}");
    }
}

/// Lines of all servers' audit logs.
fn audit(cluster: &Cluster) -> Vec<serde_json::Value> {
    let logs = cluster.servers().into_iter().map(|role| cluster.data_of(role).join("audit.log"));
    let texts: Vec<String> = logs.filter_map(|log| fs::read_to_string(log).ok()).collect();
    texts.iter().flat_map(|text| text.lines()).map(|line| serde_json::from_str(line).unwrap()).collect()
}

#[test]
fn every_key_is_exchanged_and_the_old_ones_revoked_and_no_request_fails() {
    let mut cluster = cluster();
    // Programs say once that keys of theirs were exchanged; none may say that anything failed.
    let mount = cluster.mount().unwrap();
    let folder = mount.join("work");
    fs::create_dir(&folder).unwrap();
    let start = |n: u64| {
        let folder = folder.join(n.to_string());
        fs::create_dir(&folder).unwrap();
        Writer::start(&folder, n)
    };
    let writers: Vec<Writer> = (0..3).map(start).collect();
    work(&writers, "before");
    let said = zhongkui(&cluster, &["rotate"]);
    let old: Vec<&str> =
        said.lines().filter_map(|line| line.trim().strip_prefix("zhongkui revoke key ")).collect();
    // The authority's, the administrator's, those of four kinds of servers, and the jobs'.
    assert_eq!(old.len(), 7, "{said}");
    work(&writers, "while both are good");
    // Every program looks at its files twice a second.
    sleep(Duration::from_secs(3));
    for key in &old {
        zhongkui(&cluster, &["revoke", "key", key, "--reason", "rotated"]);
    }
    work(&writers, "after the old ones were revoked");
    sleep(2 * TAKEN_BACK);
    work(&writers, "when everybody has heard of it");
    // New connections, both ways.
    for role in [Role::Master(1), Role::Chunkserver(2), Role::Nuwa(3)] {
        cluster.announce(" WARN ");
        cluster.stop(role).unwrap();
        cluster.restart(role).unwrap();
        work(&writers, "with new connections");
    }
    for writer in writers {
        let (worked, owed) = writer.finish();
        worked.unwrap();
        let (wrong, _) = verify(&owed);
        assert!(wrong.is_empty(), "{wrong:?}");
    }
    cluster.finish().unwrap();
}

/// A user with a directory of his own, mounted.
fn user(cluster: &mut Cluster, admin: &Path, name: &str, uid: u32) -> PathBuf {
    use std::os::unix::fs::MetadataExt as _;
    let home = admin.join(name);
    fs::create_dir(&home).unwrap();
    std::os::unix::fs::chown(&home, Some(uid), Some(uid)).unwrap();
    let inode = fs::metadata(&home).unwrap().ino();
    let uid = uid.to_string();
    zhongkui(cluster, &["user", "add", name, "--uid", &uid, "--gid", &uid]);
    zhongkui(cluster, &["grant", name, &format!("read,write on directory:{inode}"), "--for", "1h"]);
    let file = |kind| cluster.keys().path(name, kind).display().to_string();
    let (key, cap) = (file("key"), file("cap"));
    cluster.mount_with(&["--ttl-ms", "0", "--key", &key, "--cap", &cap]).unwrap()
}

#[test]
fn who_is_revoked_is_refused_within_a_second_and_others_go_on() {
    let mut cluster = cluster();
    let admin = cluster.mount().unwrap();
    let (bob, eve) = (user(&mut cluster, &admin, "bob", 1001), user(&mut cluster, &admin, "eve", 1002));
    cluster.announce(" WARN ");
    cluster.announce(" ERROR ");
    fs::write(bob.join("kept"), vec![7; 3 << 20]).unwrap();
    fs::write(eve.join("kept"), b"eve").unwrap();
    let reader = std::thread::spawn({
        let bob = bob.clone();
        move || {
            // Until it is refused; every round asks the masters and, for a file that was not read before, chunkservers.
            for round in 0_u64.. {
                let file = bob.join(format!("f{}", round % 64));
                let done = fs::write(&file, round.to_le_bytes()).and_then(|()| fs::read(&file));
                if let Err(error) = done {
                    return (Instant::now(), error);
                }
            }
            unreachable!("it goes on until it is refused")
        }
    });
    sleep(Duration::from_secs(1));
    zhongkui(&cluster, &["revoke", "user", "bob"]);
    let revoked = Instant::now();
    let (refused, error) = reader.join().unwrap();
    assert_eq!(error.kind(), std::io::ErrorKind::PermissionDenied, "{error}");
    let took = refused.saturating_duration_since(revoked);
    println!("refused {took:?} after the command");
    assert!(took < TAKEN_BACK, "{took:?}");
    sleep(TAKEN_BACK.saturating_sub(took));
    assert!(fs::read(bob.join("kept")).is_err(), "what he had is out of reach, too");
    assert_eq!(fs::read(eve.join("kept")).unwrap(), b"eve");
    assert_eq!(fs::read(admin.join("bob/kept")).unwrap().len(), 3 << 20);
    let refusals = audit(&cluster);
    let of_bob = |line: &&serde_json::Value| line["event"] == "refused" && line["who"] == "bob";
    let why = refusals
        .iter()
        .filter(of_bob)
        .any(|line| line["why"].as_str().unwrap_or_default().contains("were revoked"));
    assert!(why, "the refusals are in the audit log");
    // Granted anew, the same mount goes on.
    let inode =
        fs::metadata(admin.join("bob")).map(|meta| std::os::unix::fs::MetadataExt::ino(&meta)).unwrap();
    let cap = cluster.keys().path("bob", "cap");
    fs::remove_file(&cap).unwrap();
    zhongkui(&cluster, &["grant", "bob", &format!("read,write on directory:{inode}"), "--for", "1h"]);
    wait_until("bob is let in again", Deadline::within(PATIENCE), || Ok(fs::read(bob.join("kept")).is_ok()))
        .unwrap();
    cluster.finish().unwrap();
}

/// The clock of one server is `by` off, but not what it measures time spans with.
fn off_by(role: Role, by: &str) -> (Role, Vec<OsString>) {
    let library = fs::read_dir("/usr/lib").unwrap().find_map(|entry| {
        let library = entry.ok()?.path().join("faketime/libfaketime.so.1");
        library.exists().then_some(library)
    });
    let library = library.expect("scripts/test installs faketime");
    let mut preload = OsString::from("LD_PRELOAD=");
    preload.push(library);
    let words = ["FAKETIME_DONT_FAKE_MONOTONIC=1".to_owned(), format!("FAKETIME={by}")];
    let words = words.into_iter().map(OsString::from);
    (role, std::iter::once("env".into()).chain(words).chain([preload]).collect())
}

#[test]
fn a_clock_that_is_ten_minutes_off_is_said_and_harms_nobody() {
    for (role, by) in
        [(Role::Chunkserver(1), "+10m"), (Role::Chunkserver(1), "-10m"), (Role::Master(1), "+10m")]
    {
        let mut options = Options::new(1, 3);
        options.words_before = vec![off_by(role, by)];
        let mut cluster = options.start().unwrap();
        let mount = cluster.mount().unwrap();
        if matches!(role, Role::Chunkserver(_)) || by == "+10m" {
            cluster.announce("clock is ahead of the master's");
        }
        let data = vec![3; 5 << 20];
        fs::write(mount.join("f"), &data).unwrap();
        fs::File::open(mount.join("f")).unwrap().sync_all().unwrap();
        assert_eq!(fs::read(mount.join("f")).unwrap(), data);
        let said = cluster.offences().len();
        assert_eq!(said, 0, "{role} {by}: {}", cluster.tails(20));
        let wrong = match role {
            Role::Chunkserver(n) => vec![Role::Chunkserver(n)],
            _ => (1..=3).map(Role::Chunkserver).collect(),
        };
        for server in wrong {
            let log = fs::read_to_string(cluster.folder().join("log").join(server.to_string())).unwrap();
            let lines = log.lines().filter(|line| line.contains("clock is ahead of the master's")).count();
            assert_eq!(lines, 1, "{role} {by}: {server} says it once\n{log}");
        }
        // No storm: a refusal or two while the first token goes round, at most.
        let refused = audit(&cluster).iter().filter(|line| line["event"] == "refused").count();
        assert!(refused <= 10, "{role} {by}: {refused} refusals");
        cluster.finish().unwrap();
    }
}
