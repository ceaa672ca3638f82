//! One grant's processes: waits for the end of its program, ends the rest, and says how it ended.

use std::fs;
use std::io::{self, Read as _, Seek as _};
use std::os::fd::{AsRawFd as _, FromRawFd as _, OwnedFd};
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

use crate::sweep::Target;
use crate::table::{End, Process};

/// Of what a program said, in how it ended.
const LAST_WORDS_BYTES: u64 = 400;

/// A grant's program that runs.
#[derive(Clone, Debug)]
pub struct Container {
    pub target: Arc<Target>,
    pub process: Process,
    /// Stands for the process however its number is used again.
    handle: Arc<OwnedFd>,
    /// This agent started it, and not an earlier one.
    is_child: bool,
    pub folder: PathBuf,
    pub memory_bytes: Option<u64>,
}

/// What the end of a program was.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Status {
    Code(i32),
    Signal(i32),
    /// It is nobody's child that could be asked.
    Unseen,
}

impl Container {
    /// Of a process that runs, or that is this agent's child.
    ///
    /// # Errors
    /// There is no such process.
    pub fn new(target: Target, process: Process, is_child: bool, folder: PathBuf) -> io::Result<Self> {
        let handle = open_handle(process.pid)?;
        let target = Arc::new(target);
        Ok(Self { target, process, handle: Arc::new(handle), is_child, folder, memory_bytes: None })
    }

    /// Tells the program to stop.
    pub fn terminate(&self) {
        // SAFETY: no pointers but a null one, which is allowed; the descriptor is open.
        let result = unsafe {
            libc::syscall(
                libc::SYS_pidfd_send_signal,
                self.handle.as_raw_fd(),
                libc::SIGTERM,
                std::ptr::null::<u8>(),
                0,
            )
        };
        if result != 0 {
            tracing::debug!(grant = %self.target.grant, error = %io::Error::last_os_error(), "tell a program to stop");
        }
    }

    /// Waits until the program has ended, and ends what it left.
    pub async fn wait(&self) -> Status {
        let status = match self.wait_program().await {
            Ok(status) => status,
            Err(error) => {
                tracing::warn!(%error, grant = %self.target.grant, "a program cannot be waited for");
                Status::Unseen
            }
        };
        let target = Arc::clone(&self.target);
        let _ = tokio::task::spawn_blocking(move || target.sweep()).await;
        status
    }

    async fn wait_program(&self) -> io::Result<Status> {
        // SAFETY: a share of the descriptor's owner goes with it: it is the same one, and open, for as long as this is registered.
        let ready = unsafe { AsyncFd::register_with_interest(Arc::clone(&self.handle), Interest::READABLE)? };
        let _ready = ready.readable().await?;
        if !self.is_child {
            return Ok(Status::Unseen);
        }
        let mut status = 0;
        // SAFETY: waitpid writes the one integer. It does not block: the handle says that the process has ended.
        if unsafe { libc::waitpid(self.process.pid, &raw mut status, 0) } != self.process.pid {
            return Err(io::Error::last_os_error());
        }
        Ok(if libc::WIFSIGNALED(status) {
            Status::Signal(libc::WTERMSIG(status))
        } else {
            Status::Code(libc::WEXITSTATUS(status))
        })
    }
}

fn open_handle(pid: i32) -> io::Result<OwnedFd> {
    // SAFETY: two numbers.
    let handle = unsafe { libc::syscall(libc::SYS_pidfd_open, pid, 0) };
    let handle = i32::try_from(handle).map_err(io::Error::other)?;
    if handle < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the kernel made it for us just now.
    Ok(unsafe { OwnedFd::from_raw_fd(handle) })
}

/// How a program ended, in numbers and words. `folder` is the grant's, `oom_kills` counts processes killed for want of memory.
#[must_use]
pub fn end(status: Status, folder: &Path, memory_bytes: Option<u64>, oom_kills: u64) -> End {
    let (code, how) = match status {
        Status::Code(0) => (0, "exit code 0".to_owned()),
        Status::Code(code) => (code, with_words(format!("exit code {code}"), folder)),
        Status::Signal(signal) => (128 + signal, with_words(format!("signal {signal}"), folder)),
        Status::Unseen => match exit_record(folder) {
            Some(record) => record,
            None => (255, with_words("it ended while no agent was there to see how".to_owned(), folder)),
        },
    };
    let out_of_memory = oom_kills > 0 && code == 128 + libc::SIGKILL;
    let how = match memory_bytes {
        Some(bytes) if out_of_memory => format!("out of memory ({} MiB)", bytes >> 20),
        _ => how,
    };
    End { code, how, out_of_memory }
}

/// What the program wrote down as its last act: `CODE WORDS`.
fn exit_record(folder: &Path) -> Option<(i32, String)> {
    let text = fs::read_to_string(folder.join("scratch/exit")).ok()?;
    let (code, words) = text.trim().split_once(' ')?;
    Some((code.parse().ok()?, format!("exit code {code}: {words}")))
}

fn with_words(how: String, folder: &Path) -> String {
    match last_words(&folder.join("output.log")) {
        Some(words) => format!("{how}: {words}"),
        None => how,
    }
}

/// The last line of what a program said.
fn last_words(log: &Path) -> Option<String> {
    let mut file = fs::File::open(log).ok()?;
    let len = file.metadata().ok()?.len();
    file.seek(io::SeekFrom::Start(len.saturating_sub(LAST_WORDS_BYTES))).ok()?;
    let mut bytes = Vec::new();
    file.take(LAST_WORDS_BYTES).read_to_end(&mut bytes).ok()?;
    let text = String::from_utf8_lossy(&bytes).trim_end().to_owned();
    text.lines().next_back().map(str::to_owned).filter(|line| !line.is_empty())
}

/// Processes killed for want of memory, from a file with a line `oom_kill N`.
#[must_use]
pub fn oom_kills(file: &Path) -> u64 {
    let text = fs::read_to_string(file).unwrap_or_default();
    text.lines().filter_map(|line| line.strip_prefix("oom_kill ")?.trim().parse::<u64>().ok()).sum()
}

/// Cuts a log that has grown beyond `bytes_max`: its last half is kept beside it.
///
/// # Errors
/// The log cannot be read or changed.
pub fn bound_log(folder: &Path, bytes_max: u64) -> io::Result<()> {
    let path = folder.join("output.log");
    let len = fs::metadata(&path)?.len();
    if len <= bytes_max {
        return Ok(());
    }
    let file = fs::OpenOptions::new().read(true).write(true).open(&path)?;
    let keep = bytes_max / 2;
    let mut tail = vec![0; usize::try_from(keep).map_err(io::Error::other)?];
    file.read_exact_at(&mut tail, len - keep)?;
    fs::write(folder.join("output.log.1"), tail)?;
    // The program writes at the end, wherever that is.
    file.set_len(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ends_are_told_in_words() {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir(dir.path().join("scratch")).unwrap();
        let how = |status, kills| end(status, dir.path(), Some(512 << 20), kills);
        assert_eq!(how(Status::Unseen, 0).code, 255);
        fs::write(dir.path().join("output.log"), "one\nlast words\n").unwrap();
        assert_eq!(how(Status::Code(3), 0).how, "exit code 3: last words");
        let killed = how(Status::Signal(9), 0);
        assert_eq!((killed.code, killed.out_of_memory), (137, false));
        let eaten = how(Status::Signal(9), 1);
        assert_eq!((eaten.how.as_str(), eaten.out_of_memory), ("out of memory (512 MiB)", true));
        assert!(!how(Status::Code(1), 1).out_of_memory, "an instance of it was killed, not the program");
        fs::write(dir.path().join("scratch/exit"), "0 dismissed\n").unwrap();
        assert_eq!(
            how(Status::Unseen, 0),
            End { code: 0, how: "exit code 0: dismissed".into(), out_of_memory: false }
        );
    }

    #[test]
    fn a_long_log_is_cut() {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("output.log"), format!("{}end", "x".repeat(100))).unwrap();
        bound_log(dir.path(), 50).unwrap();
        assert_eq!(fs::metadata(dir.path().join("output.log")).unwrap().len(), 0);
        let kept = fs::read_to_string(dir.path().join("output.log.1")).unwrap();
        assert!(kept.len() == 25 && kept.ends_with("xend"));
    }
}
