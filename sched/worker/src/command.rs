//! Runs an attempt of a task that is a program.

use std::ffi::CString;
use std::fs::{self, File};
use std::io;
use std::os::fd::AsFd as _;
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::SystemTime;

use crate::current::Stop;
use crate::desk::Assignment;
use crate::executor::{Environment, Executor};
use crate::files::Files;
use crate::oom::OomCounter;
use crate::output::Output;
use crate::place::{self, WorkingDirectory};
use crate::program::{Program, ProgramError};
use crate::report::{Outcome, Report};
use crate::spawn::{self, Exit, Start};
use crate::task::Task;

/// A list of inputs that is longer is put into a file: one variable of an environment may have 128 KiB.
const INPUT_BYTES_MAX: usize = 64 << 10;

/// Why a worker cannot run programs at all.
#[derive(Debug, thiserror::Error)]
#[error("{what} {}", .path.display())]
pub struct CommandError {
    what: &'static str,
    path: PathBuf,
    #[source]
    source: io::Error,
}

/// See the module.
#[derive(Debug)]
pub struct Command {
    environment: Environment,
    files: Files,
    output: Arc<Output>,
    null: File,
    place: WorkingDirectory,
    oom: OomCounter,
    /// Of the task that was run last: most workers run one task's instances for long.
    ready: Option<(Arc<Task>, Program)>,
}

impl Command {
    /// # Errors
    /// The scratch directory cannot be used.
    pub fn new(environment: Environment, output: Arc<Output>) -> Result<Self, CommandError> {
        let work = environment.config.scratch.join("work");
        let null = Path::new("/dev/null");
        let null = File::open(null).map_err(|source| CommandError {
            what: "open",
            path: null.to_path_buf(),
            source,
        })?;
        let place = WorkingDirectory::make(work.clone()).map_err(|source| CommandError {
            what: "make and empty",
            path: work,
            source,
        })?;
        let oom = OomCounter::new(environment.config.oom_file.clone());
        let files = Files::new(Arc::clone(&environment.config), Arc::clone(&output));
        Ok(Self { environment, files, output, null, place, oom, ready: None })
    }

    fn make_ready(&mut self, task: &Arc<Task>) -> Result<(), ProgramError> {
        if !self.ready.as_ref().is_some_and(|(ready, _)| Arc::ptr_eq(ready, task)) {
            let program = Program::of(task, &self.environment.config, self.place.path())?;
            self.ready = Some((Arc::clone(task), program));
        }
        Ok(())
    }

    fn tell_inputs(&mut self, assignment: &Assignment) -> io::Result<()> {
        let mount = &self.environment.config.mount;
        let Some((_, program)) = &mut self.ready else { return Ok(()) };
        if assignment.input.is_empty() {
            return Ok(());
        }
        let mut paths = Vec::new();
        for piece in &assignment.input {
            paths.extend_from_slice(piece.path_in(mount).as_os_str().as_bytes());
            paths.push(b'\n');
        }
        paths.pop();
        if paths.len() > INPUT_BYTES_MAX {
            let file = self.environment.config.scratch.join("input");
            fs::write(&file, &paths)?;
            program.set("FUXI_INPUT_FILE", &file).map_err(io::Error::other)?;
        } else {
            program.set("FUXI_INPUT", std::ffi::OsStr::from_bytes(&paths)).map_err(io::Error::other)?;
        }
        if let [piece] = &assignment.input[..] {
            program.set("FUXI_INPUT_OFFSET", piece.offset.to_string()).map_err(io::Error::other)?;
            program.set("FUXI_INPUT_LEN", piece.len.to_string()).map_err(io::Error::other)?;
        }
        Ok(())
    }

    /// Starts the program and waits for its end.
    fn execute(&mut self, assignment: &Assignment, outputs: Option<&Path>) -> Result<Exit, Failure> {
        let Some((_, program)) = &mut self.ready else { return Err(Failure::Program(ProgramError::Empty)) };
        program.set("FUXI_INSTANCE", assignment.attempt.instance.to_string()).map_err(Failure::Program)?;
        program.set("FUXI_ATTEMPT", assignment.attempt.number.to_string()).map_err(Failure::Program)?;
        if let Some(outputs) = outputs {
            program.set("FUXI_OUT", outputs).map_err(Failure::Program)?;
            place::make_outputs(outputs).map_err(|error| Failure::machine("make", outputs, &error))?;
        }
        self.tell_inputs(assignment)
            .map_err(|error| Failure::Machine(format!("write the list of inputs: {error}")))?;
        let directory = outputs.unwrap_or_else(|| self.place.path());
        let directory_c = CString::new(directory.as_os_str().as_bytes())
            .map_err(|_zero| Failure::Machine(format!("{}: a path with a zero byte", directory.display())))?;
        let Some((_, program)) = &mut self.ready else { return Err(Failure::Program(ProgramError::Empty)) };
        let current = &self.environment.current;
        if current.stopped().is_some() {
            return Err(Failure::Stopped);
        }
        current.limit(assignment.task.timeout);
        let pid = spawn::spawn(Start {
            program: &program.path,
            arguments: &mut program.arguments,
            environment: &mut program.environment,
            directory: Some(&directory_c),
            stdin: self.null.as_fd(),
            output: self.output.descriptor(),
        })
        .map_err(|error| Failure::of_start(&error, &program.path, directory))?;
        current.started(pid);
        let ended = spawn::wait_ended(pid);
        current.end();
        ended
            .and_then(|()| spawn::reap(pid))
            .map_err(|error| Failure::Machine(format!("wait for process {pid}: {error}")))
    }

    /// What the end of a program means.
    fn judge(&mut self, exit: Exit) -> (Outcome, Option<String>) {
        if exit == Exit::Code(0) {
            return (Outcome::Ok, None);
        }
        match self.environment.current.stopped() {
            Some(Stop::Cancel) => return (Outcome::Cancelled, None),
            Some(Stop::Timeout) => return (Outcome::Timeout, None),
            None => {}
        }
        let out_of_memory = self.oom.rose();
        match exit {
            // A shell tells of its child's signal by 128 more.
            Exit::Signal(libc::SIGKILL) | Exit::Code(137) if out_of_memory => (Outcome::OutOfMemory, None),
            Exit::Signal(signal) => (Outcome::Signal(signal), None),
            Exit::Code(code) if out_of_memory => {
                (Outcome::Exit(code), Some("a process was killed for want of memory".to_owned()))
            }
            Exit::Code(code) => (Outcome::Exit(code), None),
        }
    }
}

/// Why a program did not run.
enum Failure {
    Program(ProgramError),
    /// In words.
    NoSuchProgram(String),
    /// In words.
    Machine(String),
    Stopped,
}

impl Failure {
    fn machine(verb: &str, path: &Path, error: &io::Error) -> Self {
        Self::Machine(format!("{verb} {}: {error}", path.display()))
    }

    /// posix_spawn gives one number for all that can go wrong between fork and exec.
    fn of_start(error: &io::Error, program: &CString, directory: &Path) -> Self {
        let words = format!("start {}: {error}", program.to_string_lossy());
        match error.raw_os_error() {
            Some(libc::ENOENT | libc::EACCES | libc::ENOTDIR) if !directory.is_dir() => {
                Self::machine("work in", directory, error)
            }
            Some(libc::ENOENT) => Self::NoSuchProgram(format!(
                "{words} (if it is there: the program of its first line, after #!, is not)"
            )),
            Some(libc::EACCES | libc::ENOTDIR | libc::ENOEXEC | libc::ELOOP | libc::E2BIG) => {
                Self::NoSuchProgram(words)
            }
            _ => Self::Machine(words),
        }
    }

    fn report(self, started: SystemTime, stopped: Option<Stop>) -> Report {
        let (outcome, words) = match self {
            Self::Program(error) => (Outcome::NoSuchProgram, error.to_string()),
            Self::NoSuchProgram(words) => (Outcome::NoSuchProgram, words),
            Self::Machine(words) => (Outcome::Machine, words),
            Self::Stopped if stopped == Some(Stop::Timeout) => (Outcome::Timeout, String::new()),
            Self::Stopped => (Outcome::Cancelled, String::new()),
        };
        Report::new(outcome, words, started)
    }
}

impl Executor for Command {
    fn run(&mut self, assignment: &Assignment) -> Report {
        let started = SystemTime::now();
        let task = &assignment.task;
        if let Some(trouble) = &task.trouble {
            return Report::new(
                Outcome::Machine,
                format!("this worker does not understand the task: {trouble}"),
                started,
            );
        }
        if let Err(error) = self.make_ready(task) {
            return Report::new(Outcome::NoSuchProgram, error.to_string(), started);
        }
        let name = self.files.name(assignment);
        let outputs = task.has_outputs.then(|| self.files.outputs(&name));
        let ended = self.execute(assignment, outputs.as_deref());
        let stopped = self.environment.current.stopped();
        let mut report = match ended {
            Ok(exit) => {
                let (outcome, words) = self.judge(exit);
                Report::new(outcome, words.unwrap_or_default(), started)
            }
            Err(failure) => {
                self.ready = None;
                failure.report(started, stopped)
            }
        };
        if let Some((_, program)) = &mut self.ready {
            program.reset();
        }
        self.files.keep_words(&name, &mut report);
        if let Some(outputs) = &outputs {
            self.files.settle(outputs, &mut report);
        }
        if let Err(error) = self.place.clean() {
            // Nobody's fault who ran here; the next attempt may find things of the last one's, which is said once each time.
            tracing::warn!(%error, directory = %self.place.path().display(), "the working directory cannot be emptied");
        }
        report
    }
}
