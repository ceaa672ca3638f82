//! Jobs dropped in the spool of an embedded platform, by nothing but files; and what becomes of them when processes die.
#![allow(clippy::unwrap_used, reason = "helpers of tests are tests")]

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command};
use std::time::Duration;

use deploy_e2e::{shell, spawn_logged};
use deploy_local_cluster::{Deadline, is_mounted, sweep_stale, unmount, wait_until};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

const WAIT: Duration = Duration::from_secs(60);

struct Platform {
    folder: tempfile::TempDir,
    mount: PathBuf,
    process: Option<Child>,
}

impl Platform {
    fn start() -> Self {
        sweep_stale();
        let prefix = format!("feitian-cluster-{}-", std::process::id());
        let folder = tempfile::Builder::new().prefix(&prefix).tempdir().unwrap();
        let mount = folder.path().join("mnt");
        fs::create_dir(&mount).unwrap();
        let mut platform = Self { folder, mount, process: None };
        platform.start_again();
        platform
    }

    fn start_again(&mut self) {
        let program = PathBuf::from(std::env::var_os("FEITIAN_BIN_DIR").unwrap()).join("pangu-fuse");
        let mut command = Command::new(program);
        command.env("NO_COLOR", "1").env_remove("FEITIAN_CLUSTER");
        command.env("HOME", self.folder.path()).env_remove("XDG_CONFIG_HOME").env_remove("XDG_DATA_HOME");
        command.arg(&self.mount).arg("--data").arg(self.folder.path().join("data")).arg("--fuxi");
        let mut child = spawn_logged(&mut command, &self.log()).unwrap();
        wait_until("mounted", Deadline::within(WAIT), || {
            assert!(child.try_wait().unwrap().is_none(), "{}", fs::read_to_string(self.log()).unwrap());
            Ok(is_mounted(&self.mount) && self.mount.join("spool/default/new").is_dir())
        })
        .unwrap();
        self.process = Some(child);
    }

    fn log(&self) -> PathBuf {
        self.folder.path().join("log")
    }

    fn queue(&self) -> PathBuf {
        self.mount.join("spool/default")
    }

    fn drop_job(&self, name: &str, text: &str) {
        fs::write(self.queue().join("tmp").join(name), text).unwrap();
        fs::rename(self.queue().join("tmp").join(name), self.queue().join("new").join(name)).unwrap();
    }

    /// The directory of the job of a name in a part of the queue, once it is there.
    fn wait_for(&self, part: &str, stem: &str) -> PathBuf {
        let mut found = None;
        let waited = wait_until(&format!("{stem} in {part}"), Deadline::within(WAIT), || {
            found = named(&self.queue().join(part), &format!("{stem}-"));
            Ok(found.is_some())
        });
        let tree =
            || shell(&self.queue(), "find . | head -100; tail -n 5 run/*/why run/*/progress run/*/events");
        assert!(waited.is_ok(), "{}\n{}", tree(), fs::read_to_string(self.log()).unwrap());
        found.unwrap()
    }

    fn read(&self, path: &Path) -> String {
        fs::read_to_string(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
    }

    /// The processes of this platform's jobs that run a program.
    fn pids(&self, program: &str) -> Vec<i32> {
        let mount = format!("FUXI_MOUNT={}\0", self.mount.display());
        let is_ours = |pid: &i32| {
            let of = |name: &str| fs::read(format!("/proc/{pid}/{name}")).unwrap_or_default();
            let (environment, command) = (of("environ"), of("cmdline"));
            let command = String::from_utf8_lossy(&command).into_owned();
            let executable = command.split('\0').next().unwrap_or_default();
            executable.ends_with(program) && String::from_utf8_lossy(&environment).contains(&mount)
        };
        let entries = fs::read_dir("/proc").unwrap();
        entries
            .filter_map(|entry| entry.unwrap().file_name().to_str()?.parse().ok())
            .filter(is_ours)
            .collect()
    }

    fn kill_one(&self, program: &str) {
        let mut victim = None;
        wait_until(&format!("a {program}"), Deadline::within(WAIT), || {
            victim = self.pids(program).first().copied();
            Ok(victim.is_some())
        })
        .unwrap();
        // It may have ended by itself just now.
        let _ended = kill(Pid::from_raw(victim.unwrap()), Signal::SIGKILL);
    }
}

impl Drop for Platform {
    fn drop(&mut self) {
        let _busy = unmount(&self.mount, Deadline::within(WAIT));
        if let Some(mut process) = self.process.take() {
            let ended = wait_until("pangu-fuse ended", Deadline::within(WAIT), || {
                Ok(process.try_wait().unwrap().is_some())
            });
            if ended.is_err() {
                process.kill().unwrap();
                process.wait().unwrap();
            }
        }
    }
}

fn named(directory: &Path, prefix: &str) -> Option<PathBuf> {
    let entries = fs::read_dir(directory).ok()?;
    let mut paths = entries.filter_map(|entry| Some(entry.ok()?.path()));
    paths.find(|path| {
        let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
        name.starts_with(prefix) && !name.ends_with(".error")
    })
}

/// Every instance leaves its number; slow enough to be killed in between.
const NUMBERS: &str = "name = \"numbers\"\n[[task]]\nname = \"n\"\ninstances = 40\nattempts = 10\n\
    command = \"sleep 0.3; echo $FUXI_INSTANCE > $FUXI_OUT/n.$FUXI_INSTANCE\"\noutputs = [\"n.{instance}\"]\n\
    resources = { cpu = 0.5, memory = \"64MiB\" }\n";

fn check_numbers(done: &Path) {
    for n in 0..40 {
        assert_eq!(fs::read_to_string(done.join(format!("out/n.{n}"))).unwrap(), format!("{n}\n"));
    }
    assert_eq!(fs::read_dir(done.join("out")).unwrap().count(), 40, "{}", shell(done, "ls -a out"));
}

#[test]
fn words_are_counted_as_a_shell_counts_them() {
    let platform = Platform::start();
    let text = concat!(env!("CARGO_MANIFEST_DIR"), "/tests");
    shell(&platform.mount, &format!("mkdir src && cp {text}/*.rs src/"));
    let job = concat!(env!("CARGO_MANIFEST_DIR"), "/../../sched/docs/examples/wordcount.toml");
    shell(&platform.queue(), &format!("cp {job} new/"));
    let done = platform.wait_for("done", "wordcount");
    let expected =
        shell(&platform.mount, "cat src/*.rs | tr -cs 'A-Za-z' '\\n' | grep . | LC_ALL=C sort | uniq -c");
    assert!(expected.lines().count() > 100);
    assert_eq!(platform.read(&done.join("out/counts/part-00000")), expected);
    assert_eq!(platform.read(&done.join("status")), "done\n");
    assert!(platform.read(&done.join("progress")).contains("100 %"));
    // Sorted by ranges of the same keys, in parts that follow one another.
    platform.drop_job(
        "sort.toml",
        "name = \"sort\"\n[mapreduce]\ninputs = [\"src/*\"]\npartition = \"range\"\nreducers = 3\noutput = \"sorted\"\n",
    );
    let done = platform.wait_for("done", "sort");
    assert_eq!(shell(&done, "cat out/sorted/part-*"), shell(&platform.mount, "LC_ALL=C sort src/*.rs"));
}

#[test]
fn what_is_wrong_with_a_job_is_said_beside_it() {
    let platform = Platform::start();
    platform.drop_job("typo.toml", "name = \"typo\"\n[[task]]\nname = \"a\"\ncomand = \"true\"\n");
    wait_until("refused", Deadline::within(WAIT), || {
        Ok(platform.queue().join("failed/typo.toml.error").exists())
    })
    .unwrap();
    let said = platform.read(&platform.queue().join("failed/typo.toml.error"));
    assert!(said.contains("typo.toml:4:1: a task has no key comand: did you mean command?"), "{said}");
    assert!(platform.queue().join("failed/typo.toml").exists());

    platform
        .drop_job("gone.toml", "name = \"x\"\n[[task]]\nname = \"a\"\ncommand = [\"/no/such/program\"]\n");
    let failed = platform.wait_for("failed", "gone");
    let why = platform.read(&failed.join("why"));
    assert!(why.contains("/no/such/program"), "{why}");

    platform.drop_job(
        "three.toml",
        "name = \"x\"\n[[task]]\nname = \"a\"\nattempts = 1\ncommand = \"echo no >&2; exit 3\"\n",
    );
    let failed = platform.wait_for("failed", "three");
    let why = platform.read(&failed.join("why"));
    assert!(why.contains("exit code 3"), "{why}");

    platform.drop_job(
        "nothing.toml",
        "name = \"x\"\n[[task]]\nname = \"a\"\ninputs = [\"no/*\"]\ncommand = \"true\"\n",
    );
    let failed = platform.wait_for("failed", "nothing");
    let why = platform.read(&failed.join("why"));
    assert!(why.contains("match no file") && why.contains("no/*"), "{why}");

    // Too large for any machine: it waits, and says for what; removed, it is forgotten.
    platform.drop_job(
        "huge.toml",
        "name = \"x\"\n[[task]]\nname = \"a\"\nresources = { cpu = 5000 }\ncommand = \"true\"\n",
    );
    let waits = platform.wait_for("run", "huge");
    wait_until("why", Deadline::within(WAIT), || {
        Ok(fs::read_to_string(waits.join("why")).is_ok_and(|why| why.contains("5000 cpu")))
    })
    .unwrap();
    fs::remove_dir_all(&waits).unwrap();
    wait_until("its job master ended", Deadline::within(WAIT), || {
        Ok(platform.pids("fuxi-jobmaster").is_empty())
    })
    .unwrap();
    assert!(named(&platform.queue().join("failed"), "huge-").is_none());
}

#[test]
fn a_job_obeys_its_ctl() {
    let platform = Platform::start();
    platform.drop_job(
        "sleep.toml",
        "name = \"x\"\n[[task]]\nname = \"a\"\ninstances = 1000\ncommand = \"sleep 1\"\n",
    );
    let run = platform.wait_for("run", "sleep");
    wait_until("it runs", Deadline::within(WAIT), || Ok(!platform.pids("fuxi-worker").is_empty())).unwrap();
    shell(&run, "echo kill > ctl");
    let failed = platform.wait_for("failed", "sleep");
    assert_eq!(platform.read(&failed.join("status")), "killed\n");
    wait_until("nothing of it runs", Deadline::within(WAIT), || {
        Ok(platform.pids("fuxi-worker").is_empty() && platform.pids("fuxi-jobmaster").is_empty())
    })
    .unwrap();
}

#[test]
fn a_job_ends_right_whoever_dies() {
    let mut platform = Platform::start();
    platform.drop_job("numbers.toml", NUMBERS);
    platform.wait_for("run", "numbers");
    platform.kill_one("fuxi-worker");
    platform.kill_one("fuxi-jobmaster");
    platform.kill_one("fuxi-worker");
    check_numbers(&platform.wait_for("done", "numbers"));

    // Masters, chunkserver, agent and mount are one process here; all of it goes at once.
    platform.drop_job("again.toml", &NUMBERS.replace("numbers", "again"));
    let run = platform.wait_for("run", "again");
    wait_until("some are done", Deadline::within(WAIT), || {
        Ok(fs::read_dir(run.join("out")).is_ok_and(|entries| entries.count() > 4))
    })
    .unwrap();
    let mut process = platform.process.take().unwrap();
    process.kill().unwrap();
    process.wait().unwrap();
    platform.start_again();
    check_numbers(&platform.wait_for("done", "again"));
}
