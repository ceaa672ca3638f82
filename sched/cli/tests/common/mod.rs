//! A spool without a master, and the program.
#![allow(dead_code, reason = "each test program uses what it needs")]

use std::fs;
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdout, Command, Stdio};
use std::time::{Duration, Instant};

use sched_spec::JobName;

pub(crate) const GOOD: &str = "name = \"x\"\n[[task]]\nname = \"t\"\ncommand = \"true\"\ninstances = 3\n";
/// For what takes a moment.
const WAIT: Duration = Duration::from_secs(60);

/// A mount with a spool of two queues, and room for files beside it.
pub(crate) struct Place {
    folder: tempfile::TempDir,
}

/// What a run of the program said.
#[derive(Debug)]
pub(crate) struct Said {
    pub(crate) code: i32,
    pub(crate) out: String,
    pub(crate) err: String,
}

impl Said {
    /// What it printed, if it did what was asked.
    pub(crate) fn done(self) -> String {
        assert_eq!(self.code, 0, "{}", self.err);
        self.out
    }
}

impl Place {
    pub(crate) fn new() -> Self {
        let place = Self { folder: tempfile::tempdir().unwrap() };
        for queue in ["default", "batch"] {
            for part in ["tmp", "new", "run", "done", "failed"] {
                fs::create_dir_all(place.queue(queue).join(part)).unwrap();
            }
        }
        place
    }

    pub(crate) fn folder(&self) -> &Path {
        self.folder.path()
    }

    pub(crate) fn queue(&self, queue: &str) -> PathBuf {
        self.folder.path().join("mnt/spool").join(queue)
    }

    /// A file beside the mount; says its path.
    pub(crate) fn file(&self, name: &str, text: &str) -> String {
        let path = self.folder.path().join(name);
        fs::write(&path, text).unwrap();
        path.to_str().unwrap().to_owned()
    }

    /// A job in a part of a queue.
    pub(crate) fn job(&self, queue: &str, part: &str, id: &str, files: &[(&str, &str)]) -> PathBuf {
        let dir = self.queue(queue).join(part).join(id);
        fs::create_dir(&dir).unwrap();
        fs::write(dir.join("spec"), GOOD).unwrap();
        self.write(queue, &format!("{part}/{id}"), files);
        dir
    }

    pub(crate) fn write(&self, queue: &str, dir: &str, files: &[(&str, &str)]) {
        for (name, text) in files {
            fs::write(self.queue(queue).join(dir).join(name), format!("{text}\n")).unwrap();
        }
    }

    /// A file that was refused; says the id that it would have had.
    pub(crate) fn refuse(&self, queue: &str, name: &str, why: &str) -> String {
        let path = self.queue(queue).join("failed").join(name);
        fs::write(&path, "rubbish").unwrap();
        fs::write(self.queue(queue).join("failed").join(format!("{name}.error")), why).unwrap();
        JobName::of(name, fs::metadata(path).unwrap().ino()).to_string()
    }

    /// The name of the file that is dropped first.
    pub(crate) fn first_dropped(&self, queue: &str) -> String {
        let until = Instant::now() + WAIT;
        loop {
            let first = fs::read_dir(self.queue(queue).join("new")).unwrap().next();
            if let Some(first) = first {
                return first.unwrap().file_name().into_string().unwrap();
            }
            assert!(Instant::now() < until, "nothing is dropped");
            std::thread::yield_now();
        }
    }

    /// Makes the file that is dropped first a job, as a master does; says its id.
    pub(crate) fn take_first(&self, queue: &str) -> String {
        let name = self.first_dropped(queue);
        let dropped = self.queue(queue).join("new").join(&name);
        let id = JobName::of(&name, fs::metadata(&dropped).unwrap().ino()).to_string();
        let dir = self.queue(queue).join("run").join(&id);
        fs::create_dir(&dir).unwrap();
        fs::rename(dropped, dir.join("spec")).unwrap();
        id
    }

    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_fuxi"));
        command.args(arguments).env_clear().env("FUXI_MOUNT", self.folder.path().join("mnt"));
        // Only a cluster beside the mount: none of whoever runs the tests.
        command
            .env("FEITIAN_CLUSTER", self.folder.path().join("cluster.toml"))
            .env("HOME", self.folder.path());
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        command
    }

    pub(crate) fn run(&self, arguments: &[&str]) -> Said {
        self.run_with(arguments, "")
    }

    /// With something on standard input.
    pub(crate) fn run_with(&self, arguments: &[&str], input: &str) -> Said {
        let mut child = self.command(arguments).spawn().unwrap();
        // Whoever does not read it has ended before.
        let _unread = child.stdin.take().unwrap().write_all(input.as_bytes());
        let output = child.wait_with_output().unwrap();
        let text = |bytes| String::from_utf8(bytes).unwrap();
        Said { code: output.status.code().unwrap(), out: text(output.stdout), err: text(output.stderr) }
    }

    pub(crate) fn spawn(&self, arguments: &[&str]) -> Running {
        let mut child = self.command(arguments).stderr(Stdio::inherit()).spawn().unwrap();
        let out = BufReader::new(child.stdout.take().unwrap());
        Running { child, out }
    }
}

/// A program that goes on while the test does.
pub(crate) struct Running {
    child: Child,
    out: BufReader<ChildStdout>,
}

impl Running {
    /// What it prints next.
    pub(crate) fn line(&mut self) -> String {
        let mut line = String::new();
        self.out.read_line(&mut line).unwrap();
        line.trim_end().to_owned()
    }

    /// What it prints until it ends, as it should.
    pub(crate) fn rest(mut self) -> String {
        let mut rest = String::new();
        self.out.read_to_string(&mut rest).unwrap();
        assert!(self.child.wait().unwrap().success());
        rest
    }
}
