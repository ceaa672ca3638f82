//! The control files: what they say while servers come and go, and that they answer when there is none.
#![allow(clippy::unwrap_used, reason = "helpers of tests are tests")]

use std::fs;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use deploy_e2e::{Content, shell};
use deploy_local_cluster::{Cluster, Role};

/// Long enough for whatever a server has to notice.
const PATIENCE: Duration = Duration::from_secs(60);
/// A question that nobody answers is given up after a second; a path of four names asks as often.
const ANSWER_MAX: Duration = Duration::from_secs(5);

struct Control(PathBuf);

impl Control {
    fn read(&self, name: &str) -> String {
        let path = self.0.join(name);
        fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
    }

    fn wait(&self, name: &str, wanted: &str) {
        let began = Instant::now();
        loop {
            let text = self.read(name);
            if text.contains(wanted) {
                return;
            }
            assert!(began.elapsed() < PATIENCE, "{name} does not say {wanted:?}:\n{text}");
            std::thread::sleep(Duration::from_millis(100));
        }
    }

    /// The status file of the chunkserver in a rack.
    fn status_of(&self, rack: &str) -> String {
        let files = self.chunkservers().into_iter().map(|id| format!("chunkservers/{id}/status"));
        files.into_iter().find(|name| self.read(name).contains(rack)).unwrap()
    }

    fn chunkservers(&self) -> Vec<String> {
        let list = fs::read_dir(self.0.join("chunkservers")).unwrap();
        let mut ids: Vec<_> = list.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
        ids.sort();
        ids
    }
}

fn names(dir: &Path) -> Vec<String> {
    let mut names: Vec<_> =
        fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

#[test]
fn control_files_tell_of_failures_and_answer_without_servers() {
    let mut cluster = Cluster::start(3, 3).unwrap();
    cluster.announce(" WARN ");
    let root = cluster.mount().unwrap();
    let control = Control(root.join(".pangu"));
    fs::create_dir(root.join("dir")).unwrap();
    fs::write(root.join("dir/file"), Content::new(1).bytes(20_000_000)).unwrap();

    control.wait("health", "ok\n");
    assert_eq!(names(&root), ["dir"], "the directory is not listed");
    assert_eq!(
        names(&control.0),
        ["chunkservers", "cluster", "errors", "groups", "health", "metrics", "recovery", "where", "whoami"]
    );
    assert_eq!(control.chunkservers(), ["1", "2", "3"]);
    let place = control.read("where/dir/file");
    for rack in ["rack1", "rack2", "rack3"] {
        assert!(place.contains(rack), "{place}");
    }
    assert_eq!(names(&control.0.join("where")), ["dir"]);
    let of_file = shell(&root, "getfattr --only-values -n user.pangu.where dir/file");
    assert_eq!(of_file, place);
    assert_eq!(shell(&root, "getfattr -d -m - dir/file"), "", "no list has it");
    shell(&root, "! getfattr -n user.pangu.where dir; ! setfattr -n user.pangu.where -v x dir/file");
    assert_eq!(control.read("errors"), "no errors\n");
    assert!(control.read("metrics").contains("pangu_mount_operations_total{op=\"write\"}"));
    assert!(control.read("chunkservers/2/status").starts_with("chunkserver 2\n"));
    // What people type.
    shell(&control.0, "grep -c serving groups; head -1 health | grep -x ok; ls -lR . >/dev/null; wc cluster");
    assert_eq!(fs::create_dir(&control.0).unwrap_err().kind(), ErrorKind::AlreadyExists);
    assert_eq!(
        fs::rename(root.join("dir"), control.0.join("dir")).unwrap_err().kind(),
        ErrorKind::PermissionDenied
    );
    assert_eq!(fs::write(control.0.join("health"), "ok").unwrap_err().kind(), ErrorKind::PermissionDenied);

    let third = control.status_of("rack3");
    cluster.kill(Role::Chunkserver(3)).unwrap();
    control.wait("health", "degraded\n");
    for name in ["recovery", "groups", "where/dir/file", &third] {
        control.wait(name, "offline");
    }
    cluster.restart(Role::Chunkserver(3)).unwrap();
    control.wait("health", "ok\n");
    cluster.kill(Role::Master(3)).unwrap();
    control.wait("health", "degraded\nmaster 3 (tcp://");
    cluster.restart(Role::Master(3)).unwrap();
    control.wait("health", "ok\n");
    control.wait("recovery", "nothing to recover\n");

    for role in cluster.servers() {
        cluster.kill(role).unwrap();
    }
    let began = Instant::now();
    control.wait("health", "unreachable\n");
    for name in ["cluster", "groups", "recovery", "chunkservers/2/status", "where/dir/file"] {
        let asked = Instant::now();
        let text = control.read(name);
        assert!(asked.elapsed() < ANSWER_MAX, "{name}: {:?}", asked.elapsed());
        assert!(text.starts_with("no master answers: this was so "), "{name}:\n{text}");
    }
    assert_eq!(control.chunkservers(), ["1", "2", "3"]);
    assert!(fs::read_to_string(control.0.join("where/never/seen")).is_err());
    assert!(began.elapsed() < 8 * ANSWER_MAX, "{:?}", began.elapsed());
    for role in cluster.servers() {
        cluster.restart(role).unwrap();
    }
    control.wait("health", "ok\n");
    cluster.finish().unwrap();
}

#[test]
fn a_chunkserver_is_drained_by_writing_to_its_ctl() {
    let mut cluster = Cluster::start(1, 4).unwrap();
    let root = cluster.mount().unwrap();
    let control = Control(root.join(".pangu"));
    let content = Content::new(2).bytes(30_000_000);
    fs::write(root.join("file"), &content).unwrap();
    control.wait("health", "ok\n");

    let ctl = control.0.join("chunkservers/2/ctl");
    shell(&control.0, "echo drain > chunkservers/2/ctl");
    control.wait("recovery", "of chunkserver 2 is drained: empty, safe to pull\n");
    assert!(control.read("chunkservers/2/status").contains("draining"));
    assert_eq!(fs::write(&ctl, "explode\n").unwrap_err().kind(), ErrorKind::InvalidInput);
    assert!(control.read("chunkservers/2/ctl").contains("undrain"));
    fs::write(&ctl, "undrain").unwrap();
    control.wait("recovery", "nothing to recover\n");
    assert!(fs::read(root.join("file")).unwrap() == content);
    cluster.finish().unwrap();
}
