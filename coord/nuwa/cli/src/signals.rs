//! Signals that are for the command `nuwa` runs, and not for `nuwa` alone.
//!
//! By signalfd, not by handlers: it says who sent a signal. Ctrl-C goes to everything in the terminal's foreground, the command
//! included, and a command that got it twice might drop what it is doing (terraform does).

use std::io;

use anyhow::Context as _;
use nix::errno::Errno;
use nix::sys::prctl;
use nix::sys::signal::{SigSet, SigmaskHow, Signal};
use nix::sys::signalfd::{SfdFlags, SignalFd};
use nix::unistd::{Pid, getpid, getppid};
use tokio::io::unix::AsyncFd;
use tokio::process::Command;

/// What asks a process to end.
const CAUGHT: [Signal; 3] = [Signal::SIGTERM, Signal::SIGINT, Signal::SIGHUP];

/// A signal that came.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Caught {
    pub(crate) signal: Signal,
    /// Sent to this process by another one; otherwise by the kernel, to the whole group.
    pub(crate) is_ours_alone: bool,
}

/// The signals wait here from the moment they are caught on.
#[derive(Debug)]
pub(crate) struct Signals {
    fd: AsyncFd<SignalFd>,
    /// The mask before, which is the command's.
    before: SigSet,
}

impl Signals {
    /// To be called before this process has a second thread, which would get them in spite of it.
    pub(crate) fn catch() -> anyhow::Result<Self> {
        // Who ignores one (nohup) goes on doing so.
        let mask: SigSet = CAUGHT.into_iter().filter(|signal| !is_ignored(*signal)).collect();
        let before = mask.thread_swap_mask(SigmaskHow::SIG_BLOCK).context("hold signals back")?;
        let fd = SignalFd::with_flags(&mask, SfdFlags::SFD_NONBLOCK | SfdFlags::SFD_CLOEXEC)
            .context("listen for signals")?;
        // SAFETY: the descriptor is the `SignalFd`'s own, stays open as long as that lives, and nobody replaces it in there.
        let fd = unsafe { AsyncFd::register(fd) }.context("listen for signals")?;
        Ok(Self { fd, before })
    }

    /// The next one.
    pub(crate) async fn next(&self) -> io::Result<Caught> {
        loop {
            let mut ready = self.fd.readable().await?;
            match self.fd.get_ref().read_signal()? {
                None => ready.clear_ready(),
                Some(info) => {
                    let number = i32::try_from(info.ssi_signo).unwrap_or_default();
                    let signal = Signal::try_from(number)?;
                    return Ok(Caught { signal, is_ours_alone: info.ssi_code != nix::libc::SI_KERNEL });
                }
            }
        }
    }

    /// The command gets its signals itself, and SIGTERM if this process dies: of SIGKILL, too.
    ///
    /// The kernel sends that when the *thread* that starts the command ends: it must be the main one.
    pub(crate) fn prepare(&self, command: &mut Command) {
        let (before, parent) = (self.before, getpid());
        // SAFETY: between fork and exec only what is async-signal-safe may be called: `set_up` makes three system calls, and neither
        // allocates nor takes locks.
        unsafe { command.pre_exec(move || set_up(&before, parent)) };
    }
}

/// In the new process, before it becomes the command.
fn set_up(mask: &SigSet, parent: Pid) -> io::Result<()> {
    prctl::set_pdeathsig(Signal::SIGTERM)?;
    // It was dead before the kernel was asked to tell of it.
    if getppid() != parent {
        return Err(Errno::ESRCH.into());
    }
    Ok(mask.thread_set_mask()?)
}

fn is_ignored(signal: Signal) -> bool {
    let mut now = std::mem::MaybeUninit::<nix::libc::sigaction>::zeroed();
    // SAFETY: without a new action the call only writes to `now`, which is one, and for which all zeros are a valid value.
    let now = unsafe {
        nix::libc::sigaction(signal as i32, std::ptr::null(), now.as_mut_ptr());
        now.assume_init()
    };
    now.sa_sigaction == nix::libc::SIG_IGN
}
