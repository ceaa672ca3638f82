//! `nuwa lock`, `nuwa elect`: a command that runs while a lock is held, and not longer.
//!
//! It must not outlive `nuwa`, which keeps the lock. So signals that would end `nuwa` are passed on, and `nuwa` waits for the command; the kernel
//! sends it SIGTERM if `nuwa` is gone all the same; and it is stopped when the lock is not certain any more. The fence is for the rest.

use std::os::unix::process::ExitStatusExt as _;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use anyhow::Context as _;
use clap::Args;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use nuwa_api::{ClientError, LockRequest, Session, SessionState};
use tokio::process::{Child, Command};

use crate::signals::Signals;
use crate::{Context, show};

/// The environment variable with the fence.
const FENCE: &str = "NUWA_FENCE";
/// A command that was told to stop has so long to do so.
const STOP_TIMEOUT: Duration = Duration::from_secs(5);

/// What the two commands share.
#[derive(Debug, Args)]
struct Hold {
    /// Wait for at most so many seconds [default: for ever]
    #[arg(short, long, value_name = "SECONDS")]
    wait: Option<f64>,
    /// Do not wait
    #[arg(short, long, conflicts_with = "wait")]
    no_wait: bool,
    /// The lock is free again so many seconds after this machine was last heard
    #[arg(long, value_name = "SECONDS", default_value_t = 10, value_parser = clap::value_parser!(u64).range(1..=600))]
    lease: u64,
    /// The command and its arguments
    #[arg(value_name = "COMMAND", required = true, trailing_var_arg = true)]
    command: Vec<String>,
}

/// See [`crate::Command::Lock`].
#[derive(Debug, Args)]
pub(crate) struct Lock {
    /// The file, which is made if it is missing
    #[arg(value_name = "PATH")]
    path: String,
    /// Others may hold it at the same time, if they ask for it shared, too
    #[arg(short, long)]
    shared: bool,
    #[command(flatten)]
    hold: Hold,
}

/// See [`crate::Command::Elect`].
#[derive(Debug, Args)]
pub(crate) struct Elect {
    /// The file, which is made if it is missing
    #[arg(value_name = "PATH")]
    path: String,
    /// What the file says while this one leads
    #[arg(value_name = "VALUE")]
    value: String,
    #[command(flatten)]
    hold: Hold,
}

impl Lock {
    pub(crate) async fn run(self, context: &Context) -> anyhow::Result<ExitCode> {
        let request =
            LockRequest { path: self.path, shared: self.shared, with_file: true, ..LockRequest::default() };
        self.hold.run(context, &request).await
    }
}

impl Elect {
    pub(crate) async fn run(self, context: &Context) -> anyhow::Result<ExitCode> {
        let value = Some(self.value.into_bytes().into());
        let request = LockRequest { path: self.path, value, with_file: true, ..LockRequest::default() };
        self.hold.run(context, &request).await
    }
}

impl Hold {
    async fn run(self, context: &Context, request: &LockRequest) -> anyhow::Result<ExitCode> {
        // First of all: nothing was sent yet, so there is no thread but this one.
        let signals = Signals::catch()?;
        let session = tokio::select! {
            session = context.session(Duration::from_secs(self.lease)) => session?,
            caught = signals.next() => return Ok(died_of(caught?.signal)),
        };
        let ended = self.hold(context, request, &session, &signals).await;
        if session.state() != SessionState::Lost {
            tokio::select! {
                () = context.end(session) => {}
                // Who is told to end now, too, leaves the session to its time.
                _ = signals.next() => {}
            }
        }
        ended
    }

    async fn hold(
        &self,
        context: &Context,
        request: &LockRequest,
        session: &Session,
        signals: &Signals,
    ) -> anyhow::Result<ExitCode> {
        let fence = tokio::select! {
            fence = self.take(context, session, request) => fence?,
            // The place in the line goes with the session.
            caught = signals.next() => return Ok(died_of(caught?.signal)),
        };
        let Some(fence) = fence else {
            show::error(context.json, format_args!("others hold {}", request.path));
            return Ok(ExitCode::FAILURE);
        };
        let (program, arguments) = self.command.split_first().context("no command is given")?;
        let mut command = Command::new(program);
        command.args(arguments).env(FENCE, fence.to_string());
        signals.prepare(&mut command);
        let child = command.spawn().with_context(|| format!("run {program}"))?;
        attend(child, context, session, signals).await
    }

    /// The fence; `None` if others hold the lock.
    async fn take(
        &self,
        context: &Context,
        session: &Session,
        request: &LockRequest,
    ) -> anyhow::Result<Option<u64>> {
        if self.no_wait {
            let locked = session.try_lock(request, context.deadline()).await?;
            return Ok(locked.map(|locked| locked.fence));
        }
        let deadline = match self.wait {
            None => None,
            Some(seconds) => {
                let wait = Duration::try_from_secs_f64(seconds);
                Some(Instant::now() + wait.with_context(|| format!("--wait {seconds} is no time to wait"))?)
            }
        };
        match session.lock(request, deadline).await {
            Ok(locked) => Ok(Some(locked.fence)),
            Err(ClientError::Call(nuwa_api::CallError::Deadline { .. })) => Ok(None),
            Err(error) => Err(error.into()),
        }
    }
}

/// Waits for the command, and stops it if the lock is not certain any more.
async fn attend(
    mut child: Child,
    context: &Context,
    session: &Session,
    signals: &Signals,
) -> anyhow::Result<ExitCode> {
    let mut state = session.watch_state();
    let status = loop {
        tokio::select! {
            status = child.wait() => break status?,
            caught = signals.next() => {
                let caught = caught?;
                if caught.is_ours_alone {
                    send(&child, caught.signal);
                }
            }
            _ = state.wait_for(|state| *state != SessionState::Open) => {
                let why = "Nuwa was not heard for the whole lease, or has ended the session: the lock may be lost; stopping the command";
                show::error(context.json, format_args!("{why}"));
                stop(&mut child).await?;
                return Ok(ExitCode::FAILURE);
            }
        }
    };
    let code = status.code().or_else(|| status.signal().map(|signal| 128 + signal));
    Ok(exit_code(code.unwrap_or(1)))
}

fn exit_code(code: i32) -> ExitCode {
    ExitCode::from(u8::try_from(code).unwrap_or(1))
}

/// As a shell says it.
fn died_of(signal: Signal) -> ExitCode {
    exit_code(128 + signal as i32)
}

fn send(child: &Child, signal: Signal) {
    let Some(pid) = child.id() else { return };
    // It may have ended by itself just now.
    let _ = kill(Pid::from_raw(pid.cast_signed()), signal);
}

async fn stop(child: &mut Child) -> anyhow::Result<()> {
    send(child, Signal::SIGTERM);
    if tokio::time::timeout(STOP_TIMEOUT, child.wait()).await.is_err() {
        child.kill().await?;
    }
    Ok(())
}
