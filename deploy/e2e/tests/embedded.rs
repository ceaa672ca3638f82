//! `pangu-fuse MOUNT` alone: the whole platform in one process, as the quickstart starts it.
#![allow(clippy::unwrap_used, reason = "helpers of tests are tests")]

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command};
use std::time::Duration;

use deploy_e2e::{Writer, run, run_ok, shell, spawn_logged, verify};
use deploy_local_cluster::{Deadline, is_mounted, sweep_stale, unmount, wait_until};

const WAIT: Duration = Duration::from_secs(60);

struct Embedded {
    folder: tempfile::TempDir,
    mount: PathBuf,
    /// Where Nuwa is mounted, if it is.
    nuwa: Option<PathBuf>,
    process: Option<Child>,
    arguments: Vec<String>,
}

impl Embedded {
    fn new(arguments: &[&str]) -> Self {
        sweep_stale();
        let prefix = format!("feitian-cluster-{}-", std::process::id());
        let folder = tempfile::Builder::new().prefix(&prefix).tempdir().unwrap();
        let mount = folder.path().join("mnt");
        fs::create_dir(&mount).unwrap();
        let arguments = arguments.iter().map(|a| (*a).to_owned()).collect();
        Self { folder, mount, nuwa: None, process: None, arguments }
    }

    fn with_nuwa() -> Self {
        let mut embedded = Self::new(&[]);
        let nuwa = embedded.folder.path().join("nuwa");
        fs::create_dir(&nuwa).unwrap();
        embedded.arguments = vec!["--nuwa".to_owned(), nuwa.to_str().unwrap().to_owned()];
        embedded.nuwa = Some(nuwa);
        embedded
    }

    /// A program that is told of no cluster, as a person would call it.
    fn clean(&self, name: &str) -> Command {
        let mut command = Command::new(program(name));
        command.env("NO_COLOR", "1").env_remove("FEITIAN_CLUSTER");
        command.env("HOME", self.folder.path()).env_remove("XDG_CONFIG_HOME").env_remove("XDG_DATA_HOME");
        command
    }

    fn command(&self, name: &str, arguments: &[&str]) -> String {
        run_ok(self.clean(name).args(arguments), WAIT)
    }

    fn start(&mut self) {
        // No cluster description of whoever runs the tests.
        let mut command = self.clean("pangu-fuse");
        command.arg(&self.mount).arg("--data").arg(self.folder.path().join("data")).args(&self.arguments);
        let mut child = spawn_logged(&mut command, &self.log()).unwrap();
        let waited = wait_until("mounted", Deadline::within(WAIT), || {
            let ended = child.try_wait().unwrap();
            assert!(
                ended.is_none(),
                "pangu-fuse ended: {ended:?}\n{}",
                fs::read_to_string(self.log()).unwrap()
            );
            // A mount that a killed process left is there too, and the kernel may still know its attributes.
            Ok(is_mounted(&self.mount) && nix::sys::statvfs::statvfs(&self.mount).is_ok())
        });
        self.process = Some(child);
        assert!(waited.is_ok(), "not mounted; it said:\n{}", fs::read_to_string(self.log()).unwrap());
    }

    fn log(&self) -> PathBuf {
        self.folder.path().join("log")
    }

    /// Unmounted as a person would; the process must end by itself.
    fn unmount(&mut self) {
        assert!(unmount(&self.mount, Deadline::within(WAIT)).unwrap(), "the mount is busy");
        let mut child = self.process.take().unwrap();
        let ended = wait_until("its end", Deadline::within(WAIT), || Ok(child.try_wait().unwrap().is_some()));
        if ended.is_err() {
            child.kill().unwrap();
            panic!(
                "pangu-fuse did not end after the unmount; it said:\n{}",
                fs::read_to_string(self.log()).unwrap()
            );
        }
    }

    fn kill(&mut self) {
        let mut child = self.process.take().unwrap();
        child.kill().unwrap();
        child.wait().unwrap();
    }
}

impl Drop for Embedded {
    fn drop(&mut self) {
        if let Some(mut child) = self.process.take() {
            drop(child.kill());
            drop(child.wait());
        }
        for mount in [Some(&self.mount), self.nuwa.as_ref()].into_iter().flatten() {
            drop(unmount(mount, Deadline::within(Duration::ZERO)));
        }
    }
}

fn program(name: &str) -> PathBuf {
    let folder = std::env::var_os("FEITIAN_BIN_DIR").map(PathBuf::from).or_else(|| {
        let own = std::env::current_exe().ok()?;
        own.ancestors().map(|f| f.join("release")).find(|f| f.join(name).is_file())
    });
    folder.unwrap_or_else(|| Path::new("target/release").to_owned()).join(name)
}

#[test]
fn what_was_written_is_there_at_the_next_start() {
    let mut embedded = Embedded::new(&[]);
    embedded.start();
    fs::create_dir(embedded.mount.join("d")).unwrap();
    fs::write(embedded.mount.join("d/f"), "kept").unwrap();
    embedded.unmount();
    assert!(!embedded.mount.join("d").exists());
    embedded.start();
    assert_eq!(fs::read_to_string(embedded.mount.join("d/f")).unwrap(), "kept");
    embedded.unmount();
}

#[test]
fn it_survives_being_killed() {
    let mut embedded = Embedded::new(&[]);
    embedded.start();
    for round in 1..=2 {
        let folder = embedded.mount.join(format!("r{round}"));
        fs::create_dir(&folder).unwrap();
        let writer = Writer::start(&folder, round);
        wait_until("some work", Deadline::within(WAIT), || Ok(writer.done() > 150 || writer.has_ended()))
            .unwrap();
        embedded.kill();
        let (result, owed) = writer.finish();
        result.expect_err("the mount died under it");
        // The dead mount is in the way; starting again clears it by itself.
        embedded.start();
        let (wrong, right) = verify(&owed);
        assert_eq!(wrong, Vec::<String>::new(), "round {round}: {right} were right");
    }
    embedded.unmount();
}

#[test]
fn three_replicas_in_one_process() {
    let mut embedded = Embedded::new(&["--replicas", "3", "--chunkservers", "3"]);
    embedded.start();
    let path = embedded.mount.join("f");
    fs::write(&path, vec![7; 3_000_000]).unwrap();
    assert_eq!(fs::read(&path).unwrap(), vec![7; 3_000_000]);
    embedded.unmount();
}

#[test]
fn a_second_mount_of_the_same_store_is_refused_in_words() {
    let mut embedded = Embedded::new(&[]);
    embedded.start();
    let other = embedded.folder.path().join("other");
    fs::create_dir(&other).unwrap();
    let mut command = embedded.clean("pangu-fuse");
    command.arg(&other).arg("--data").arg(embedded.folder.path().join("data"));
    let output = run(&mut command, WAIT);
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(!output.status.success() && !said.trim().is_empty() && !said.contains("panicked"), "{said}");
    embedded.unmount();
}

/// `nuwa` had to be told where Nuwa is, though `pangu` finds an embedded platform by itself, and nobody was registered there; README said
/// otherwise.
#[test]
fn nuwa_beside_it_is_mounted_found_and_kept() {
    let mut embedded = Embedded::with_nuwa();
    let nuwa = embedded.nuwa.clone().unwrap();
    embedded.start();
    assert!(is_mounted(&nuwa));
    shell(&nuwa, "mkdir d && echo blue > d/x && test \"$(cat d/x)\" = blue");
    // Held by one, refused to the other, and free afterwards.
    let held = "! flock -n lock true && test \"$(getfattr --only-values -n user.nuwa.fence lock)\" -ge 1";
    shell(&nuwa, &format!("touch lock && flock lock sh -c '{held}' && flock -w 30 lock true"));

    // Root's embedded platform is looked for first; where there is one, it is meant.
    let hidden = nix::unistd::geteuid().is_root() && Path::new("/var/lib/feitian/cluster.toml").exists();
    let description = embedded.folder.path().join("data/cluster.toml");
    let flags = if hidden { vec!["--cluster", description.to_str().unwrap()] } else { Vec::new() };
    let ask = |embedded: &Embedded, arguments: &[&str]| {
        embedded.command("nuwa", &[flags.as_slice(), arguments].concat())
    };
    assert_eq!(ask(&embedded, &["get", "/d/x"]), "blue\n");
    ask(&embedded, &["put", "/d/y", "green"]);
    assert_eq!(fs::read_to_string(nuwa.join("d/y")).unwrap(), "green");
    for (service, socket) in [("pangu-master", "master.sock"), ("pangu-chunkserver", "chunkserver-1.sock")] {
        // They register by themselves, soon.
        wait_until(service, Deadline::within(WAIT), || {
            let listed = nuwa.join("services").join(service).exists();
            Ok(listed && ask(&embedded, &["service", "ls", service]).contains(socket))
        })
        .unwrap();
    }

    // One unmount ends both.
    embedded.unmount();
    assert!(!is_mounted(&nuwa), "{}", fs::read_to_string(embedded.log()).unwrap());
    embedded.start();
    shell(&nuwa, "test \"$(cat d/x) $(cat d/y)\" = 'blue green' && flock -w 30 lock true");
    assert_eq!(ask(&embedded, &["get", "/d/y"]), "green");
    embedded.kill();
    // What a killed process left is cleared by the next one, on both mount points.
    embedded.start();
    assert_eq!(ask(&embedded, &["get", "/d/x"]), "blue\n");
    embedded.unmount();
}
