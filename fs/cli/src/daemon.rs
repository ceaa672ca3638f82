//! Leaving the terminal: the parent waits until the mount is up (or is not), then ends with that as its status.

use std::fs::OpenOptions;
use std::io::{Read as _, Write as _};
use std::os::fd::{AsFd, OwnedFd};

use anyhow::Context as _;
use nix::unistd::ForkResult;

use crate::fuse::one_line;

/// Told once, when the mount is up.
#[derive(Debug)]
pub(crate) struct Ready {
    /// The parent reads it to its end; a first line that begins with `+` is good news.
    parent: Option<std::fs::File>,
}

impl Ready {
    pub(crate) fn foreground() -> Self {
        Self { parent: None }
    }

    /// The mount is up: the parent says so and ends, and this process lets go of the terminal.
    pub(crate) fn tell(self, news: &str) {
        match self.parent {
            None => eprintln!("pangu-fuse: {news}"),
            Some(mut parent) => {
                // The parent may have been killed; the mount is up all the same.
                let _nobody_listens = parent.write_all(format!("+{news}\n").as_bytes());
                release_terminal();
            }
        }
    }
}

/// Runs `serve` in a process of its own, which outlives this one. Must be called before any thread is started.
pub(crate) fn run(serve: impl FnOnce(Ready) -> anyhow::Result<()>) -> anyhow::Result<()> {
    let (reader, writer) = nix::unistd::pipe().context("make a pipe")?;
    // SAFETY: the process has one thread here (called first thing by `main`), so the child may do anything.
    match unsafe { nix::unistd::fork() }.context("go to the background")? {
        ForkResult::Parent { .. } => {
            drop(writer);
            wait(reader)
        }
        ForkResult::Child => {
            drop(reader);
            // Without a terminal of its own it cannot be stopped by the one it came from.
            let _already_leader = nix::unistd::setsid();
            let mut failed = std::fs::File::from(writer.try_clone().context("keep the pipe")?);
            let code = match serve(Ready { parent: Some(std::fs::File::from(writer)) }) {
                Ok(()) => 0,
                Err(error) => {
                    let text = one_line(&error);
                    tracing::error!("{text}");
                    // After the mount was up nobody reads this any more.
                    let _nobody_listens = failed.write_all(text.as_bytes());
                    1
                }
            };
            std::process::exit(code);
        }
    }
}

fn wait(reader: OwnedFd) -> anyhow::Result<()> {
    let mut reader = std::fs::File::from(reader);
    let mut news = Vec::new();
    let mut byte = [0; 512];
    loop {
        match reader.read(&mut byte) {
            Ok(0) => break,
            Ok(n) => news.extend_from_slice(&byte[..n]),
            Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error).context("wait for the mount"),
        }
        // The child keeps the pipe open after good news, so their end is the end of the line.
        if news.first() == Some(&b'+') && news.last() == Some(&b'\n') {
            break;
        }
    }
    let text = String::from_utf8_lossy(&news);
    match text.strip_prefix('+') {
        Some(good) => {
            eprint!("pangu-fuse: {good}");
            Ok(())
        }
        None if text.is_empty() => anyhow::bail!("the process in the background ended before it had mounted"),
        None => anyhow::bail!("{text}"),
    }
}

/// Standard input, output and error become /dev/null, unless they are files that somebody wants written; the working
/// directory becomes the root.
fn release_terminal() {
    let _stays = std::env::set_current_dir("/");
    if let Ok(null) = OpenOptions::new().read(true).write(true).open("/dev/null") {
        // What cannot be released stays as it is.
        let _input = nix::unistd::dup2_stdin(&null);
        if !is_file(std::io::stdout()) {
            let _output = nix::unistd::dup2_stdout(&null);
        }
        if !is_file(std::io::stderr()) {
            let _error = nix::unistd::dup2_stderr(&null);
        }
    }
}

fn is_file(stream: impl AsFd) -> bool {
    let kind = |stat: nix::sys::stat::FileStat| stat.st_mode & libc::S_IFMT;
    nix::sys::stat::fstat(stream).is_ok_and(|stat| kind(stat) == libc::S_IFREG)
}
