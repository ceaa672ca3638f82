//! From the first mount to a cluster: the store that `pangu-fuse MOUNT` alone made becomes the first node, with its Nuwa, others join it,
//! and in the end the first may be lost.
#![allow(clippy::unwrap_used, reason = "helpers of tests are tests")]

use std::ffi::OsString;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::time::Duration;

use deploy_e2e::{Content, run, shell};
use deploy_local_cluster::{
    Deadline, Launcher, Program, free_port, is_mounted, sweep_stale, unmount, wait_until,
};

const WAIT: Duration = Duration::from_secs(90);
const FILES: u64 = 30;

struct Scene {
    folder: tempfile::TempDir,
    launcher: Launcher,
    programs: Vec<Program>,
}

impl Scene {
    fn new() -> Self {
        sweep_stale();
        let prefix = format!("feitian-cluster-{}-", std::process::id());
        let folder = tempfile::Builder::new().prefix(&prefix).tempdir().unwrap();
        fs::create_dir(folder.path().join("mnt")).unwrap();
        fs::create_dir(folder.path().join("nuwa")).unwrap();
        Self { folder, launcher: Launcher::start().unwrap(), programs: Vec::new() }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn mount_point(&self) -> PathBuf {
        self.path("mnt")
    }

    fn start(&mut self, name: &str, program: &str, arguments: &[&str]) -> usize {
        let arguments = arguments.iter().map(OsString::from).collect();
        let log = self.path(&format!("{name}.log"));
        let mut started = Program::new(name, binary(program), arguments, log, self.launcher.clone());
        started.start().unwrap();
        self.programs.push(started);
        self.programs.len() - 1
    }

    fn mount(&mut self, arguments: &[&str]) -> usize {
        let point = self.mount_point();
        let all = [&[point.to_str().unwrap()], arguments].concat();
        let at = self.start("mount", "pangu-fuse", &all);
        let waited = wait_until("mounted", Deadline::within(WAIT), || {
            self.programs[at].check_alive()?;
            Ok(is_mounted(&point))
        });
        assert!(waited.is_ok(), "{waited:?}\n{}", self.tails());
        at
    }

    fn unmount(&mut self, at: usize) {
        assert!(unmount(&self.mount_point(), Deadline::within(WAIT)).unwrap(), "the mount is busy");
        self.programs[at].wait_end(WAIT).unwrap();
    }

    fn pangu(&self, arguments: &[&str]) -> Output {
        run(Command::new(binary("pangu")).args(arguments).env_remove("FEITIAN_CLUSTER"), WAIT)
    }

    fn must(&self, arguments: &[&str]) -> String {
        self.well("pangu", arguments, self.pangu(arguments))
    }

    fn nuwa(&self, cluster: &str, arguments: &[&str]) -> Output {
        run(Command::new(binary("nuwa")).args(["--cluster", cluster]).args(arguments), WAIT)
    }

    fn must_nuwa(&self, cluster: &str, arguments: &[&str]) -> String {
        self.well("nuwa", arguments, self.nuwa(cluster, arguments))
    }

    fn well(&self, program: &str, arguments: &[&str], output: Output) -> String {
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{program} {arguments:?}: {said}\n{}", self.tails());
        String::from_utf8_lossy(&output.stdout).into_owned()
    }

    fn tails(&self) -> String {
        let end = |log: &Path| {
            let text = fs::read_to_string(log).unwrap_or_default();
            let lines: Vec<_> = text.lines().collect();
            lines[lines.len().saturating_sub(20)..].join("\n")
        };
        self.programs.iter().map(|p| format!("--- {}\n{}\n", p.name(), end(p.log()))).collect()
    }

    fn health(&self) -> String {
        fs::read_to_string(self.mount_point().join(".pangu/health")).unwrap()
    }

    fn healthy(&self, what: &str) {
        let mut now = String::new();
        let waited = wait_until(what, Deadline::within(WAIT), || {
            now = self.health();
            Ok(now.starts_with("ok\n"))
        });
        let recovery = fs::read_to_string(self.mount_point().join(".pangu/recovery")).unwrap();
        assert!(waited.is_ok(), "{what}: {now}\n{recovery}\n{}", self.tails());
    }

    fn write(&self, seeds: std::ops::Range<u64>) {
        for seed in seeds {
            fs::write(self.mount_point().join(format!("d/{seed}")), content(seed)).unwrap();
        }
        shell(&self.mount_point(), "sync d/*");
    }

    fn verify(&self, seeds: std::ops::Range<u64>) {
        for seed in seeds {
            let found = fs::read(self.mount_point().join(format!("d/{seed}"))).unwrap();
            assert!(found == content(seed), "file {seed} is not what was written");
        }
    }
}

impl Drop for Scene {
    fn drop(&mut self) {
        for program in &mut self.programs {
            drop(program.kill());
        }
        for mount in [self.mount_point(), self.path("nuwa")] {
            drop(unmount(&mount, Deadline::within(Duration::ZERO)));
        }
    }
}

/// From nothing to a few chunks.
fn content(seed: u64) -> Vec<u8> {
    Content::new(seed).bytes(usize::try_from(seed).unwrap() * 400_000)
}

fn binary(name: &str) -> PathBuf {
    let folder = std::env::var_os("FEITIAN_BIN_DIR").map(PathBuf::from).or_else(|| {
        let own = std::env::current_exe().ok()?;
        own.ancestors().map(|f| f.join("release")).find(|f| f.join(name).is_file())
    });
    folder.unwrap_or_else(|| Path::new("target/release").to_owned()).join(name)
}

fn address() -> String {
    format!("tcp://127.0.0.1:{}", free_port().unwrap())
}

#[test]
fn an_embedded_store_grows_into_a_cluster_that_can_lose_it() {
    let mut scene = Scene::new();
    let data = scene.path("data");
    let data = data.to_str().unwrap();
    let nuwa = scene.path("nuwa");
    let nuwa = nuwa.to_str().unwrap();
    let embedded = scene.mount(&["--data", data, "--capacity", "4G", "--nuwa", nuwa]);
    fs::create_dir(scene.mount_point().join("d")).unwrap();
    scene.write(0..FILES);
    shell(&scene.path("nuwa"), "mkdir config && echo -n blue > config/colour");
    let (first, first_nuwa) = (address(), address());
    let adopt = ["adopt", data, "--listen", &first, "--nuwa-listen", &first_nuwa];
    let refused = scene.pangu(&adopt);
    let said = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert!(!refused.status.success() && said.contains("unmount that first"), "{said}");
    scene.unmount(embedded);

    let said = scene.must(&adopt);
    assert!(said.contains("pangu-master --id 1") && said.contains("chunkserver-1"), "{said}");
    assert!(said.contains("nuwa-server --id 1") && said.contains("nuwa member add"), "{said}");
    assert!(scene.must(&adopt).contains("already"));
    let mut alone = Command::new(binary("pangu-fuse"));
    alone.arg(scene.mount_point()).args(["--data", data]).env_remove("FEITIAN_CLUSTER");
    let alone = run(&mut alone, WAIT);
    let said = String::from_utf8_lossy(&alone.stderr);
    assert!(!alone.status.success() && said.contains("first node of a cluster"), "{said}");

    let cluster = format!("{data}/cluster.toml");
    let cluster = cluster.as_str();
    let chunkserver = |scene: &mut Scene, n: u32, dir: &str| {
        let (listen, location) = (address(), format!("/hall/rack{n}/host"));
        let arguments = ["--listen", &listen, "--data", dir, "--location", &location, "--cluster", cluster];
        let arguments = [&arguments[..], &["--capacity", "4G"]].concat();
        scene.start(&format!("chunkserver{n}"), "pangu-chunkserver", &arguments)
    };
    let arguments = ["--id", "1", "--data", &format!("{data}/nuwa"), "--cluster", cluster];
    let member = scene.start("nuwa1", "nuwa-server", &arguments);
    let master = scene.start(
        "master1",
        "pangu-master",
        &["--id", "1", "--data", &format!("{data}/master"), "--cluster", cluster],
    );
    let own = chunkserver(&mut scene, 1, &format!("{data}/chunkserver-1"));
    let mount = scene.mount(&["--cluster", cluster]);
    scene.verify(0..FILES);
    assert_eq!(scene.must_nuwa(cluster, &["get", "/config/colour"]), "blue");
    wait_until("the master is registered", Deadline::within(WAIT), || {
        let listed = scene.nuwa(cluster, &["service", "ls", "pangu-master"]);
        Ok(String::from_utf8_lossy(&listed.stdout).contains(&first))
    })
    .unwrap();
    // One copy is all there is yet, and it takes writes.
    scene.write(FILES..FILES + 3);
    let said = scene.health();
    assert!(said.starts_with("degraded\n") && said.contains("fewer than 3 members"), "{said}");

    let mut members = vec![first_nuwa];
    for n in 2..=3 {
        let dir = scene.path(&format!("chunkserver{n}"));
        chunkserver(&mut scene, n, dir.to_str().unwrap());
        let (dir, listen) = (scene.path(&format!("master{n}")), address());
        let id = n.to_string();
        let arguments = ["--join", "--id", &id, "--listen", &listen, "--data", dir.to_str().unwrap()];
        scene.start(
            &format!("master{n}"),
            "pangu-master",
            &[&arguments[..], &["--cluster", cluster]].concat(),
        );
        wait_until("the master can be added", Deadline::within(WAIT), || {
            Ok(scene.pangu(&["--cluster", cluster, "master", "add", &listen]).status.success())
        })
        .unwrap();
        let (dir, listen) = (scene.path(&format!("nuwa{n}")), address());
        let arguments = ["--join", "--id", &id, "--listen", &listen, "--data", dir.to_str().unwrap()];
        scene.start(&format!("nuwa{n}"), "nuwa-server", &[&arguments[..], &["--cluster", cluster]].concat());
        wait_until("the member can be added", Deadline::within(WAIT), || {
            Ok(scene.nuwa(cluster, &["member", "add", &listen]).status.success())
        })
        .unwrap();
        members.push(listen);
    }
    let of_three = scene.path("data/nuwa.toml");
    fs::write(&of_three, format!("name = \"three\"\nnuwa = {members:?}\n")).unwrap();
    let of_three = of_three.to_str().unwrap();
    scene.healthy("three copies of everything");
    let status: serde_json::Value =
        serde_json::from_str(&scene.must(&["--cluster", cluster, "status", "--json"])).unwrap();
    assert_eq!(status["masters"].as_array().unwrap().len(), 3, "{status}");
    for group in status["groups"].as_array().unwrap() {
        assert_eq!(group["members"].as_array().unwrap().len(), 3, "{group}");
    }
    assert_eq!((&status["replicas"], &status["min_replicas"]), (&3.into(), &2.into()));
    scene.verify(0..FILES + 3);
    for seed in 1..FILES + 3 {
        let path = scene.mount_point().join(format!("d/{seed}"));
        let said = scene.must(&["where", path.to_str().unwrap()]);
        assert!((1..=3).all(|n| said.contains(&format!("/hall/rack{n}/host"))), "{said}");
        scene.must(&["verify", path.to_str().unwrap()]);
    }

    // The first node is lost: what it had is elsewhere, and goes on.
    scene.programs[master].kill().unwrap();
    scene.programs[own].kill().unwrap();
    scene.programs[member].kill().unwrap();
    scene.verify(0..FILES + 3);
    scene.write(FILES + 3..FILES + 6);
    assert_eq!(scene.must_nuwa(of_three, &["get", "/config/colour"]), "blue");
    scene.must_nuwa(of_three, &["put", "/config/colour", "green"]);
    scene.programs[member].start().unwrap();
    scene.programs[master].start().unwrap();
    scene.programs[own].start().unwrap();
    scene.healthy("the first node is back");
    scene.verify(0..FILES + 6);
    wait_until("the first member of Nuwa is back", Deadline::within(WAIT), || {
        Ok(scene.nuwa(cluster, &["get", "/config/colour"]).stdout == b"green")
    })
    .unwrap();
    scene.unmount(mount);
}
