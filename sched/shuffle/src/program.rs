//! Running an executable between what we feed it and what we collect from it.
//!
//! Every input has its own thread, and the caller's thread collects, so neither side ever waits for the other to be
//! read. A program is the leader of a process group; the whole group is killed if we give up. stderr goes to a file.

use std::ffi::OsString;
use std::fs::{File, OpenOptions};
use std::io::{self, Read, Seek, SeekFrom};
use std::os::fd::{AsRawFd, OwnedFd, RawFd};
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::Duration;

use nix::sys::signal::{Signal, killpg};
use nix::unistd::Pid;

use crate::control::Control;
use crate::error::{Error, Result, Step};
use crate::pipe::{self, PipeReader, PipeWriter};

/// How much of stderr an error quotes.
const STDERR_TAIL_BYTES: u64 = 2048;
/// A program that has closed its stdout is about to end: it is looked at this often.
const END_TICK: Duration = Duration::from_millis(5);

/// An executable and what it needs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Program {
    /// A path, or a name to be found in `PATH`.
    pub executable: PathBuf,
    /// What follows the name in argv.
    pub args: Vec<OsString>,
    /// Variables set besides those of this process.
    pub env: Vec<(OsString, OsString)>,
    /// Where it runs; here, if nothing is given.
    pub current_dir: Option<PathBuf>,
    /// Its stderr is appended to this file, which is created if need be.
    pub stderr: PathBuf,
}

/// How a program gets its inputs.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Inputs {
    /// One, on stdin.
    Stdin,
    /// Any number, as `/dev/fd/N` at the end of argv; stdin is empty.
    Paths,
}

/// Writes one input; runs in its own thread.
pub(crate) type Feed<'f> = Box<dyn FnOnce(&mut PipeWriter<'_>) -> Result<()> + Send + 'f>;

/// Runs a program to its end. An error means that nothing it wrote is to be used.
pub(crate) fn run<T>(
    program: &Program,
    inputs: Inputs,
    feeds: Vec<Feed<'_>>,
    control: &Control<'_>,
    block_bytes: usize,
    collect: impl FnOnce(&mut PipeReader<'_>) -> Result<T>,
) -> Result<T> {
    control.check()?;
    let stderr = Stderr::open(&program.stderr)?;
    let failed = |source| Error::Pipe { program: program.executable.clone(), source };
    let (mut theirs, mut writers) = (Vec::new(), Vec::new());
    for _ in &feeds {
        let (read, write) = pipe::new().map_err(failed)?;
        theirs.push(read);
        writers.push(PipeWriter::new(write, &program.executable, control).map_err(failed)?);
    }
    let (out, their_out) = pipe::new().map_err(failed)?;
    let mut reader = PipeReader::new(out, &program.executable, control, block_bytes).map_err(failed)?;
    let mut child =
        Running(spawn(program, inputs, theirs, their_out, stderr.file.try_clone().map_err(failed)?)?);
    let group = child.group();

    let (collected, fed) = std::thread::scope(|scope| {
        let threads: Vec<_> = feeds
            .into_iter()
            .zip(writers)
            .map(|(feed, mut writer)| {
                scope.spawn(move || {
                    let fed = feed(&mut writer).and_then(|()| writer.flush().map(drop));
                    if fed.is_err() {
                        // What it got is not all: it must not end as if it were. The child is not reaped before this
                        // thread has ended, so the number cannot be another's.
                        kill(group);
                    }
                    fed
                })
            })
            .collect();
        let collected = collect(&mut reader);
        if collected.is_err() {
            kill(group);
        }
        drop(reader);
        let fed = threads.into_iter().map(|thread| match thread.join() {
            Ok(fed) => fed,
            Err(panic) => std::panic::resume_unwind(panic),
        });
        (collected, fed.collect::<Vec<_>>())
    });
    let status = child.wait(control).map_err(failed)?;
    control.check()?;
    fed.into_iter().collect::<Result<()>>()?;
    match collected {
        // The program's own end explains more than a record that it left unfinished.
        Ok(collected) => check(program, status, &stderr).map(|()| collected),
        Err(Error::PartialRecord { .. }) if !status.success() && status.signal() != Some(libc::SIGKILL) => {
            check(program, status, &stderr)?;
            unreachable!("a status that is no success is an error")
        }
        Err(error) => Err(error),
    }
}

fn spawn(
    program: &Program,
    inputs: Inputs,
    theirs: Vec<OwnedFd>,
    out: OwnedFd,
    stderr: File,
) -> Result<Child> {
    let mut command = Command::new(&program.executable);
    command
        .args(&program.args)
        .envs(program.env.iter().map(|(k, v)| (k, v)))
        .stdout(out)
        .stderr(stderr)
        .process_group(0);
    if let Some(dir) = &program.current_dir {
        command.current_dir(dir);
    }
    // They are kept open here until the child has its own.
    let mut kept = Vec::new();
    match inputs {
        Inputs::Stdin => {
            for fd in theirs {
                command.stdin(fd);
            }
        }
        Inputs::Paths => {
            command.stdin(Stdio::null()).args(theirs.iter().map(|fd| format!("/dev/fd/{}", fd.as_raw_fd())));
            kept = theirs;
            inherit(&mut command, kept.iter().map(AsRawFd::as_raw_fd).collect());
        }
    }
    let child = command.spawn();
    drop(kept);
    child.map_err(|e| match e.kind() {
        io::ErrorKind::NotFound => Error::NoSuchProgram { program: program.executable.clone() },
        _ => Error::Start { program: program.executable.clone(), source: e },
    })
}

fn inherit(command: &mut Command, fds: Vec<RawFd>) {
    let keep = move || {
        for fd in &fds {
            // SAFETY: fcntl with F_SETFD touches no memory, and is safe between fork and exec.
            if unsafe { libc::fcntl(*fd, libc::F_SETFD, 0) } < 0 {
                return Err(io::Error::last_os_error());
            }
        }
        Ok(())
    };
    // SAFETY: the closure allocates nothing, takes no lock, and calls only fcntl, which is async-signal-safe. The flag
    // is cleared in the child alone, so no other child that starts meanwhile inherits the pipes.
    unsafe { command.pre_exec(keep) };
}

fn kill(group: Pid) {
    // It fails only if the group has gone, which is what was wanted.
    killpg(group, Signal::SIGKILL).ok();
}

/// A child that is killed and reaped whatever happens here.
struct Running(Child);

impl Running {
    fn group(&self) -> Pid {
        Pid::from_raw(self.0.id() as i32)
    }

    fn wait(&mut self, control: &Control<'_>) -> io::Result<ExitStatus> {
        loop {
            if let Some(status) = self.0.try_wait()? {
                return Ok(status);
            }
            if control.check().is_err() {
                kill(self.group());
                return self.0.wait();
            }
            std::thread::sleep(END_TICK);
        }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        if matches!(self.0.try_wait(), Ok(None)) {
            kill(self.group());
            drop(self.0.wait());
        }
    }
}

/// The file of stderr, and how long it was before.
struct Stderr {
    file: File,
    start: u64,
}

impl Stderr {
    fn open(path: &Path) -> Result<Self> {
        let file = OpenOptions::new()
            .create(true)
            .append(true)
            .read(true)
            .open(path)
            .map_err(|e| Error::file(Step::Open, path, e))?;
        let start = file.metadata().map_err(|e| Error::file(Step::Open, path, e))?.len();
        Ok(Self { file, start })
    }

    fn tail(&self) -> String {
        let read = || -> io::Result<Vec<u8>> {
            let mut file = &self.file;
            let len = file.metadata()?.len();
            file.seek(SeekFrom::Start(self.start.max(len.saturating_sub(STDERR_TAIL_BYTES))))?;
            let mut tail = Vec::new();
            file.take(STDERR_TAIL_BYTES).read_to_end(&mut tail)?;
            Ok(tail)
        };
        read().map_or_else(
            |e| format!("(its stderr cannot be read: {e})"),
            |tail| String::from_utf8_lossy(&tail).into_owned(),
        )
    }
}

fn check(program: &Program, status: ExitStatus, stderr: &Stderr) -> Result<()> {
    let program = program.executable.clone();
    match (status.code(), status.signal()) {
        (Some(0), _) => Ok(()),
        (Some(code), _) => Err(Error::Exit { program, code, stderr_tail: stderr.tail() }),
        (None, signal) => {
            Err(Error::Signal { program, signal: signal.unwrap_or_default(), stderr_tail: stderr.tail() })
        }
    }
}
