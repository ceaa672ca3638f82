//! `nuwa lock`, `nuwa elect`: a command that runs while a lock is held.

use std::os::unix::process::ExitStatusExt as _;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use anyhow::Context as _;
use clap::Args;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use nuwa_api::{ClientError, LockRequest, Session, SessionState};
use tokio::process::{Child, Command};

use crate::Context;

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
    #[arg(long, value_name = "SECONDS", default_value_t = 10)]
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
        let session = context.session(Duration::from_secs(self.lease)).await?;
        let Some(fence) = self.take(context, &session, request).await? else {
            eprintln!("nuwa: others hold {}", request.path);
            context.end(session).await;
            return Ok(ExitCode::FAILURE);
        };
        let (program, arguments) = self.command.split_first().context("no command is given")?;
        let started = Command::new(program).args(arguments).env(FENCE, fence.to_string()).spawn();
        let ended = match started {
            Ok(child) => attend(child, &session).await,
            Err(error) => Err(anyhow::Error::new(error).context(format!("run {program}"))),
        };
        if session.state() != SessionState::Lost {
            context.end(session).await;
        }
        ended
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
async fn attend(mut child: Child, session: &Session) -> anyhow::Result<ExitCode> {
    let mut state = session.watch_state();
    let status = tokio::select! {
        status = child.wait() => status?,
        _ = state.wait_for(|state| *state != SessionState::Open) => {
            eprintln!("nuwa: Nuwa was not heard for the whole lease: the lock may be lost; stopping the command");
            stop(&mut child).await?;
            return Ok(ExitCode::FAILURE);
        }
    };
    let code = status.code().or_else(|| status.signal().map(|signal| 128 + signal)).unwrap_or(1);
    Ok(ExitCode::from(u8::try_from(code).unwrap_or(1)))
}

async fn stop(child: &mut Child) -> anyhow::Result<()> {
    let Some(pid) = child.id() else { return Ok(()) };
    // It may have ended by itself just now.
    let _ = kill(Pid::from_raw(pid.cast_signed()), Signal::SIGTERM);
    if tokio::time::timeout(STOP_TIMEOUT, child.wait()).await.is_err() {
        child.kill().await?;
    }
    Ok(())
}
