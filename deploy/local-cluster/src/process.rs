//! One process of a cluster: how it is started (again), its log, and how it is ended.

use std::ffi::{OsStr, OsString};
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use nix::errno::Errno;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::error::Error;
use crate::launcher::Launcher;
use crate::logs;
use crate::wait::{Deadline, wait_until};

/// A program with its arguments, its log, and the process that runs it now, if one does.
#[derive(Debug)]
pub struct Program {
    name: String,
    binary: PathBuf,
    arguments: Vec<OsString>,
    log: PathBuf,
    launcher: Launcher,
    pid: Option<u32>,
}

impl Program {
    /// Not started yet. The log is appended to over all starts.
    #[must_use]
    pub fn new(
        name: impl Into<String>,
        binary: PathBuf,
        arguments: Vec<OsString>,
        log: PathBuf,
        launcher: Launcher,
    ) -> Self {
        Self { name: name.into(), binary, arguments, log, launcher, pid: None }
    }

    /// What it is called in messages and logs.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Its log file.
    #[must_use]
    pub fn log(&self) -> &Path {
        &self.log
    }

    /// The running process's id.
    #[must_use]
    pub fn pid(&self) -> Option<u32> {
        self.pid
    }

    /// Starts it, in the process group of this process: whoever kills a test that hangs kills its servers with it. It
    /// must not run already.
    pub fn start(&mut self) -> Result<(), Error> {
        assert!(self.pid.is_none(), "{} is started twice", self.name);
        let settings = ["env", "-u", "FEITIAN_CLUSTER", "NO_COLOR=1", "RUST_BACKTRACE=1"];
        let mut words: Vec<&OsStr> = settings.iter().map(OsStr::new).collect();
        // What a mount remembers of the cluster goes with the cluster.
        let mut state = OsString::from("XDG_STATE_HOME=");
        state.push(self.log.parent().unwrap_or_else(|| Path::new("/")));
        words.push(&state);
        words.push(self.binary.as_os_str());
        words.extend(self.arguments.iter().map(OsString::as_os_str));
        let pid = self
            .launcher
            .launch(&words, self.log.as_os_str())
            .map_err(|source| self.error("start", source))?;
        self.pid = Some(pid);
        Ok(())
    }

    fn error(&self, action: &'static str, source: io::Error) -> Error {
        Error::Process { action, name: self.name.clone(), source }
    }

    /// The process is there and not a zombie.
    fn is_alive(&self) -> bool {
        self.pid.is_some_and(|pid| start_time(pid).is_some())
    }

    /// Takes note of its end.
    fn reap(&mut self) -> Result<i32, Error> {
        let Some(pid) = self.pid.take() else { return Ok(0) };
        self.launcher.wait(pid).map_err(|source| self.error("wait for", source))
    }

    /// Fails if it ended without being asked to.
    pub fn check_alive(&mut self) -> Result<(), Error> {
        if self.pid.is_none() || self.is_alive() {
            return Ok(());
        }
        let status = match self.reap()? {
            status if status > 128 => format!("signal {}", status - 128),
            status => format!("exit code {status}"),
        };
        Err(Error::Ended { name: self.name.clone(), status, tail: logs::tail(&self.log, 30) })
    }

    /// As [`Self::kill`], but does not wait for its end.
    pub(crate) fn tell_to_die(&self) {
        if let Some(pid) = self.pid {
            signal(pid, Signal::SIGKILL);
        }
    }

    /// Ends it at once, as a crash would: no handler of its own runs.
    pub fn kill(&mut self) -> Result<(), Error> {
        if let Some(pid) = self.pid {
            signal(pid, Signal::SIGKILL);
            self.reap()?;
        }
        Ok(())
    }

    /// Asks it to end (SIGTERM).
    pub fn ask_to_stop(&self) {
        if let Some(pid) = self.pid {
            signal(pid, Signal::SIGTERM);
        }
    }

    /// Asks it to end (SIGTERM) and waits for that; kills it when the time is over, which is an error.
    pub fn stop(&mut self, within: Duration) -> Result<(), Error> {
        self.ask_to_stop();
        self.wait_end(within)
    }

    /// Waits for its end, whoever causes it; kills it when the time is over, which is an error.
    pub fn wait_end(&mut self, within: Duration) -> Result<(), Error> {
        let what = format!("{} ended", self.name);
        if let Err(late) = wait_until(&what, Deadline::within(within), || Ok(!self.is_alive())) {
            self.kill()?;
            return Err(match late {
                Error::Late { what, within, .. } => {
                    Error::Late { what, within, tails: logs::tail(&self.log, 20) }
                }
                other => other,
            });
        }
        self.reap()?;
        Ok(())
    }

    /// Stops or continues it without its doing (SIGSTOP, SIGCONT).
    pub fn pause(&self, paused: bool) {
        if let Some(pid) = self.pid {
            signal(pid, if paused { Signal::SIGSTOP } else { Signal::SIGCONT });
        }
    }

    /// Lets it live on after this process.
    pub(crate) fn forget(&mut self) -> Option<u32> {
        self.pid.take()
    }
}

/// Sends a signal; a process that is gone already is what the sender wanted to achieve or will notice elsewhere.
fn signal(pid: u32, which: Signal) {
    if let Ok(pid) = i32::try_from(pid) {
        let sent = kill(Pid::from_raw(pid), which);
        debug_assert!(matches!(sent, Ok(()) | Err(Errno::ESRCH)), "{which} to {pid}: {sent:?}");
    }
}

/// When a process was started, in ticks since boot; none if it is gone or a zombie. With the id it names a process for
/// good: ids are used again.
#[must_use]
pub fn start_time(pid: u32) -> Option<u64> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The name, in brackets, may hold anything, brackets and blanks too.
    let (_, rest) = stat.rsplit_once(')')?;
    let fields: Vec<&str> = rest.split_whitespace().collect();
    if *fields.first()? == "Z" {
        return None;
    }
    fields.get(19)?.parse().ok()
}

/// Ends a process that an earlier run of a program started: SIGTERM, then SIGKILL when the time is over. Does nothing
/// if the process with that id is not the one that started at `started`.
pub fn end_process(pid: u32, started: u64, within: Duration) {
    let alive = || start_time(pid) == Some(started);
    for which in [Signal::SIGTERM, Signal::SIGKILL] {
        if !alive() {
            return;
        }
        signal(pid, which);
        if wait_until("end", Deadline::within(within), || Ok(!alive())).is_ok() {
            return;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn program(folder: &Path, script: &str) -> Program {
        let arguments = ["-c", script].map(OsString::from).to_vec();
        Program::new(
            "sh",
            PathBuf::from("/bin/sh"),
            arguments,
            folder.join("log"),
            Launcher::start().unwrap(),
        )
    }

    #[test]
    fn a_process_that_ends_by_itself_is_noticed_with_the_end_of_its_log() {
        let folder = tempfile::tempdir().unwrap();
        let mut sh = program(folder.path(), "echo last words; exit 3");
        sh.start().unwrap();
        let mut seen = None;
        wait_until("its end", Deadline::within(Duration::from_secs(10)), || {
            seen = sh.check_alive().err();
            Ok(seen.is_some())
        })
        .unwrap();
        let text = seen.unwrap().to_string();
        assert!(text.contains("exit code 3") && text.contains("last words"), "{text}");
    }

    #[test]
    fn kill_and_start_again_append_to_one_log() {
        let folder = tempfile::tempdir().unwrap();
        let mut sh = program(folder.path(), "echo up; exec sleep 100");
        for times in 1..=2 {
            sh.start().unwrap();
            wait_until("it says so", Deadline::within(Duration::from_secs(10)), || {
                Ok(logs::read(sh.log()).lines().count() == times)
            })
            .unwrap();
            sh.kill().unwrap();
            assert_eq!(sh.pid(), None);
        }
    }

    #[test]
    fn what_ignores_a_request_to_end_is_killed_and_reported() {
        let folder = tempfile::tempdir().unwrap();
        let mut sh = program(folder.path(), "trap '' TERM; echo up; while :; do sleep 0.05; done");
        sh.start().unwrap();
        wait_until("it says so", Deadline::within(Duration::from_secs(10)), || {
            Ok(logs::read(sh.log()).contains("up"))
        })
        .unwrap();
        assert!(matches!(sh.stop(Duration::from_millis(200)), Err(Error::Late { .. })));
        assert_eq!(sh.pid(), None);
    }

    #[test]
    fn a_process_is_known_by_its_start() {
        let folder = tempfile::tempdir().unwrap();
        let mut sh = program(folder.path(), "exec sleep 100");
        sh.start().unwrap();
        let pid = sh.pid().unwrap();
        let started = start_time(pid).unwrap();
        // Another start time: another process, which is left alone.
        end_process(pid, started + 1, Duration::from_secs(5));
        sh.check_alive().unwrap();
        end_process(pid, started, Duration::from_secs(5));
        assert!(sh.check_alive().is_err());
    }
}
