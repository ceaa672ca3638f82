//! The masters' data is replaced by an older copy: nobody follows them until somebody says so, and then nothing that was given out
//! in the time that was lost is given out again.
#![allow(clippy::unwrap_used, reason = "helpers of tests are tests")]

use std::fs;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use deploy_e2e::{Content, run, run_ok, shell};
use deploy_local_cluster::{Cluster, Deadline, Role, wait_until};

const PATIENCE: Duration = Duration::from_secs(60);
const LENGTH: usize = 3_000_000;

fn masters() -> impl Iterator<Item = Role> {
    (1..=3).map(Role::Master)
}

fn copy(from: &Path, to: &Path) {
    run_ok(Command::new("cp").arg("-a").arg(from).arg(to), PATIENCE);
}

/// Waits until all of these said that they follow no more.
fn refused(cluster: &Cluster, roles: &[Role]) {
    let log = |role: &Role| cluster.folder().join("log").join(role.to_string());
    let says = |role: &Role| fs::read_to_string(log(role)).unwrap().contains("a master is not followed");
    let waited = wait_until("nobody follows", Deadline::within(PATIENCE), || Ok(roles.iter().all(says)));
    assert!(waited.is_ok(), "{}", cluster.tails(20));
}

fn new_mount(cluster: &Cluster, point: &Path) -> String {
    let mut command = Command::new(cluster.binaries().join("pangu-fuse"));
    command.arg(point).arg("--cluster").arg(cluster.description());
    command.env("XDG_STATE_HOME", cluster.folder().join("log")).env("NO_COLOR", "1");
    let output = run(&mut command, PATIENCE);
    assert!(!output.status.success(), "it mounted");
    String::from_utf8_lossy(&output.stderr).into_owned()
}

#[test]
fn masters_from_an_older_copy_are_followed_only_when_somebody_says_so() {
    let mut cluster = Cluster::start(3, 3).unwrap();
    cluster.announce(" WARN ");
    cluster.announce("a master is not followed");
    cluster.announce("these masters were restored from an older copy");
    let root = cluster.mount().unwrap();
    let content = |seed| Content::new(seed).bytes(LENGTH);
    fs::write(root.join("kept"), content(1)).unwrap();
    shell(&root, "sync kept");
    let data = |cluster: &Cluster, role: Role| cluster.folder().join(role.to_string());
    let backup = |cluster: &Cluster, role: Role| -> PathBuf { cluster.folder().join(format!("{role}.copy")) };
    for role in masters() {
        cluster.stop(role).unwrap();
    }
    for role in masters() {
        copy(&data(&cluster, role), &backup(&cluster, role));
    }
    for role in masters() {
        cluster.restart(role).unwrap();
    }
    for seed in 0..20 {
        shell(&root, &format!("head -c 100000 /dev/urandom > lost{seed}; sync lost{seed}"));
    }
    let overwrite = |seed| {
        // Not truncated: that would make other data of it.
        let mut file = fs::File::options().write(true).open(root.join("kept")).unwrap();
        file.write_all(&content(seed)).and_then(|()| file.sync_all()).unwrap();
    };
    overwrite(2);
    // Longer than what was seen may take to where it is remembered.
    shell(&root, "sleep 11; touch kept; sync kept; sleep 2");

    for role in masters() {
        cluster.kill(role).unwrap();
    }
    for role in masters() {
        cluster.wipe(role).unwrap();
        fs::remove_dir(data(&cluster, role)).unwrap();
        copy(&backup(&cluster, role), &data(&cluster, role));
    }
    cluster.restart_all().unwrap();
    let chunkservers: Vec<_> = (1..=3).map(Role::Chunkserver).collect();
    refused(&cluster, &[chunkservers.as_slice(), &[Role::Client(1)]].concat());
    // Those that are started now know it too.
    let point = cluster.folder().join("other");
    fs::create_dir(&point).unwrap();
    let said = new_mount(&cluster, &point);
    assert!(
        said.contains("restored from an older copy") && said.contains("pangu master new-epoch"),
        "{said}"
    );
    let waits =
        run(Command::new("timeout").args(["-s", "KILL", "2", "touch"]).arg(root.join("in vain")), PATIENCE);
    assert!(!waits.status.success(), "a file was made with masters that nobody follows");
    cluster.kill(Role::Chunkserver(1)).unwrap();
    cluster.restart(Role::Chunkserver(1)).unwrap();

    let said = cluster.pangu(&["master", "new-epoch"]).unwrap();
    assert!(said.status.success(), "{}\n{}", String::from_utf8_lossy(&said.stderr), cluster.tails(20));
    let gone = |seed: u64| !root.join(format!("lost{seed}")).exists();
    wait_until("names of the lost time are gone", Deadline::within(PATIENCE), || Ok((0..20).all(gone)))
        .unwrap();
    // Its length is as it was at the copy, which is the same.
    assert!(fs::read(root.join("kept")).unwrap() == content(2));
    // Were a number given twice, a hole would show what a lost file had there.
    for seed in 0..20 {
        shell(&root, &format!("printf x > new{seed}; truncate -s 100000 new{seed}; sync new{seed}"));
        let found = fs::read(root.join(format!("new{seed}"))).unwrap();
        assert!(found[0] == b'x' && found[1..].iter().all(|byte| *byte == 0), "new{seed}");
    }
    shell(&root, "rm -rf new* && mkdir d && cp kept d/again && sync d/again && cmp kept d/again");
    for role in chunkservers {
        cluster.stop(role).unwrap();
        cluster.restart(role).unwrap();
    }
    overwrite(3);
    assert!(fs::read(root.join("kept")).unwrap() == content(3));
    cluster.finish().unwrap();
}
