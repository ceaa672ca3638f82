//! Other systems, brought up by a script with the interface of `scripts/peer`. Its servers are found among the processes the
//! script names, and started again as they were: the same words, environment, folder and network.

use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::os::fd::AsRawFd as _;
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::Context as _;
use deploy_local_cluster::{Deadline, end_process, start_time, wait_until};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use super::System;
use crate::fault::Fault;

/// The processes of a system: what its chunkservers and its master are called.
#[derive(Clone, Copy, Debug)]
struct Known {
    name: &'static str,
    chunkserver: &'static str,
    /// The one master, and a word it needs to start after a crash.
    master: Option<(&'static str, &'static str)>,
}

const KNOWN: [Known; 2] = [
    Known { name: "moosefs", chunkserver: "mfschunkserver", master: Some(("mfsmaster", "-a")) },
    Known { name: "gluster", chunkserver: "glusterfsd", master: None },
];

/// These systems do not say when they are whole. What was written meanwhile is little.
const SETTLE: Duration = Duration::from_secs(8);
/// For the end of a process that was asked to end.
const END: Duration = Duration::from_secs(20);

/// A system that a script brought up.
#[derive(Debug)]
pub(crate) struct Script {
    known: Known,
    script: PathBuf,
    mount: PathBuf,
    hurt: Option<Hurt>,
    /// How processes that were started again had been started: the new one opens what is open here.
    again: Vec<Started>,
    up: bool,
}

#[derive(Debug)]
enum Hurt {
    Ended(Started),
    Paused(u32),
}

/// How a process was started.
#[derive(Debug)]
struct Started {
    binary: PathBuf,
    words: Vec<OsString>,
    environment: Vec<(OsString, OsString)>,
    folder: PathBuf,
    network: File,
}

impl Started {
    fn of(pid: u32) -> anyhow::Result<Self> {
        let proc = PathBuf::from(format!("/proc/{pid}"));
        let read =
            |name: &str| std::fs::read(proc.join(name)).with_context(|| format!("look at process {pid}"));
        let split = |bytes: &[u8]| -> Vec<OsString> {
            let parts = bytes.split(|byte| *byte == 0).filter(|part| !part.is_empty());
            parts.map(|part| OsStr::from_bytes(part).to_owned()).collect()
        };
        let variables = split(&read("environ")?);
        let environment = variables.iter().filter_map(|variable| {
            let at = variable.as_bytes().iter().position(|byte| *byte == b'=')?;
            let (name, value) = variable.as_bytes().split_at(at);
            Some((OsStr::from_bytes(name).to_owned(), OsStr::from_bytes(&value[1..]).to_owned()))
        });
        Ok(Self {
            binary: std::fs::read_link(proc.join("exe")).context("find its program")?,
            words: split(&read("cmdline")?),
            environment: environment.collect(),
            folder: std::fs::read_link(proc.join("cwd")).context("find its folder")?,
            network: File::open(proc.join("ns/net")).context("find its network")?,
        })
    }

    /// With a word more, if it is needed.
    fn again(&self, more: Option<&str>) -> anyhow::Result<()> {
        let network = format!("--net=/proc/{}/fd/{}", std::process::id(), self.network.as_raw_fd());
        let child = Command::new("nsenter")
            .arg(network)
            .arg("--")
            .arg(&self.binary)
            .args(self.words.iter().skip(1))
            .args(more.filter(|more| !self.words.iter().any(|word| word == more)))
            .env_clear()
            .envs(self.environment.iter().map(|(name, value)| (name, value)))
            .current_dir(&self.folder)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn();
        let mut child = child.with_context(|| format!("start {} again", self.binary.display()))?;
        // A daemon goes to the background by itself; another one stays our child.
        drop(child.try_wait());
        Ok(())
    }
}

impl Script {
    pub(crate) fn up(name: &str, script: &Path) -> anyhow::Result<Self> {
        let known = KNOWN.iter().find(|known| known.name == name);
        let known = known.with_context(|| {
            let names: Vec<_> = KNOWN.iter().map(|known| known.name).collect();
            format!("{name} is not known here: {} are", names.join(" and "))
        })?;
        let mount = std::env::temp_dir().join(format!("pangu-faults-{}-{name}", std::process::id()));
        std::fs::create_dir_all(&mount).with_context(|| format!("make {}", mount.display()))?;
        let system =
            Self { known: *known, script: script.to_owned(), mount, hurt: None, again: Vec::new(), up: true };
        let status = Command::new(&system.script)
            .arg("up")
            .arg(&system.mount)
            .stdin(Stdio::null())
            .status()
            .with_context(|| format!("run {}", system.script.display()))?;
        anyhow::ensure!(status.success(), "{} up: {status}", system.script.display());
        Ok(system)
    }

    /// Its processes with this name.
    fn processes(&self, program: &str) -> anyhow::Result<Vec<u32>> {
        let output = Command::new(&self.script).arg("pids").output().context("ask for the processes")?;
        let pids = String::from_utf8_lossy(&output.stdout).into_owned();
        let pids = pids.split_whitespace().filter_map(|pid| pid.parse().ok());
        let is_it = |pid: &u32| {
            let name = std::fs::read_link(format!("/proc/{pid}/exe")).unwrap_or_default();
            name.file_name().is_some_and(|name| name == program)
        };
        Ok(pids.filter(is_it).collect())
    }
}

fn signal(pid: u32, signal: Signal) -> anyhow::Result<()> {
    let pid = i32::try_from(pid).context("a process id")?;
    kill(Pid::from_raw(pid), signal).with_context(|| format!("send {signal} to process {pid}"))
}

impl System for Script {
    fn name(&self) -> &str {
        self.known.name
    }

    fn mount(&self) -> &Path {
        &self.mount
    }

    fn can(&self, fault: Fault) -> bool {
        match fault {
            Fault::Kill | Fault::Hang | Fault::Stop => true,
            // All its servers share one network.
            Fault::Cut => false,
            Fault::KillMaster | Fault::StopMaster => self.known.master.is_some(),
        }
    }

    fn hurt(&mut self, fault: Fault, round: usize) -> anyhow::Result<()> {
        let master = self.known.master.filter(|_| matches!(fault, Fault::KillMaster | Fault::StopMaster));
        let program = master.map_or(self.known.chunkserver, |(master, _)| master);
        let pids = self.processes(program)?;
        anyhow::ensure!(!pids.is_empty(), "{} has no process {program}", self.known.name);
        // The master's first process is the master; others are its helpers.
        let pid = if master.is_some() { pids[0] } else { pids[round % pids.len()] };
        if fault == Fault::Hang {
            signal(pid, Signal::SIGSTOP)?;
            self.hurt = Some(Hurt::Paused(pid));
            return Ok(());
        }
        let started = Started::of(pid)?;
        let crash = matches!(fault, Fault::Kill | Fault::KillMaster);
        signal(pid, if crash { Signal::SIGKILL } else { Signal::SIGTERM })?;
        wait_until("its end", Deadline::within(END), || Ok(start_time(pid).is_none()))?;
        match master {
            None => self.hurt = Some(Hurt::Ended(started)),
            // Nothing goes on without it: whoever watches over it starts it again at once.
            Some((_, word)) => {
                started.again(Some(word).filter(|_| crash))?;
                self.again.push(started);
            }
        }
        Ok(())
    }

    fn heal(&mut self) -> anyhow::Result<()> {
        match self.hurt.take() {
            None => Ok(()),
            Some(Hurt::Paused(pid)) => signal(pid, Signal::SIGCONT),
            Some(Hurt::Ended(started)) => {
                started.again(None)?;
                self.again.push(started);
                Ok(())
            }
        }
    }

    fn wait_whole(&mut self) -> anyhow::Result<()> {
        std::thread::sleep(SETTLE);
        Ok(())
    }

    fn down(&mut self) -> anyhow::Result<()> {
        if !std::mem::take(&mut self.up) {
            return Ok(());
        }
        // What was started again here the script may not know.
        let mut ours = self.processes(self.known.chunkserver)?;
        if let Some((master, _)) = self.known.master {
            ours.extend(self.processes(master)?);
        }
        let ours: Vec<_> = ours.into_iter().filter_map(|pid| Some((pid, start_time(pid)?))).collect();
        let status = Command::new(&self.script).arg("down").status().context("take it down")?;
        for (pid, started) in ours {
            end_process(pid, started, END);
        }
        drop(std::fs::remove_dir(&self.mount));
        anyhow::ensure!(status.success(), "{} down: {status}", self.script.display());
        Ok(())
    }
}

impl Drop for Script {
    fn drop(&mut self) {
        if let Err(error) = self.down() {
            eprintln!("{}: {error:#}", self.known.name);
        }
    }
}
