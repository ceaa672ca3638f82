//! Running the programs a user would run, with a deadline and with their words at hand when they fail.

use std::fs::File;
use std::io::{Read as _, Seek as _};
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Output, Stdio};
use std::time::Duration;

use deploy_local_cluster::{Deadline, Error, wait_until};

/// Runs a command to its end; kills it when the time is over. Output goes through files, so that no pipe fills up.
///
/// # Panics
/// If it cannot be started, or does not end in time.
pub fn run(command: &mut Command, within: Duration) -> Output {
    let mut out = tempfile::tempfile().expect("a temporary file");
    let mut err = tempfile::tempfile().expect("a temporary file");
    let mut child = command
        .stdin(Stdio::null())
        .stdout(out.try_clone().expect("a second descriptor"))
        .stderr(err.try_clone().expect("a second descriptor"))
        .spawn()
        .unwrap_or_else(|error| panic!("cannot start {command:?}: {error}"));
    let mut status: Option<ExitStatus> = None;
    let waited = wait_until("its end", Deadline::within(within), || {
        status = child.try_wait().expect("our own child");
        Ok(status.is_some())
    });
    if waited.is_err() {
        child.kill().expect("our own child");
    }
    let output =
        Output { status: status.unwrap_or_default(), stdout: contents(&mut out), stderr: contents(&mut err) };
    assert!(waited.is_ok(), "{command:?} did not end within {within:?}; it said:\n{}", words(&output));
    output
}

/// As [`run`], and it must succeed; answers what it printed.
///
/// # Panics
/// If it fails.
pub fn run_ok(command: &mut Command, within: Duration) -> String {
    let output = run(command, within);
    assert!(output.status.success(), "{command:?}: {}; it said:\n{}", output.status, words(&output));
    String::from_utf8_lossy(&output.stdout).into_owned()
}

/// A line of bash in a folder, with `-e -u -o pipefail`, plain git, and two minutes at most.
pub fn shell(folder: &Path, line: &str) -> String {
    let mut bash = Command::new("bash");
    bash.args(["-euo", "pipefail", "-c", line]).current_dir(folder);
    run_ok(plain(&mut bash), Duration::from_secs(170))
}

/// Starts a command whose words nobody needs until it ends.
pub fn spawn_logged(command: &mut Command, log: &Path) -> Result<Child, Error> {
    let file = |source| Error::File { action: "make", path: log.to_owned(), source };
    let out = File::create(log).map_err(file)?;
    let err = out.try_clone().map_err(file)?;
    command.stdin(Stdio::null()).stdout(out).stderr(err).spawn().map_err(|source| Error::Process {
        action: "start",
        name: format!("{command:?}"),
        source,
    })
}

/// Without the configuration of whoever runs the tests.
fn plain(command: &mut Command) -> &mut Command {
    command
        .env("GIT_CONFIG_GLOBAL", "/dev/null")
        .env("GIT_CONFIG_NOSYSTEM", "1")
        .env("GIT_AUTHOR_NAME", "test")
        .env("GIT_AUTHOR_EMAIL", "test@localhost")
        .env("GIT_COMMITTER_NAME", "test")
        .env("GIT_COMMITTER_EMAIL", "test@localhost")
        .env("LC_ALL", "C")
}

fn contents(file: &mut File) -> Vec<u8> {
    let mut bytes = Vec::new();
    file.rewind().expect("a plain file");
    file.read_to_end(&mut bytes).expect("a plain file");
    bytes
}

fn words(output: &Output) -> String {
    let text =
        format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    let lines: Vec<&str> = text.lines().collect();
    lines[lines.len().saturating_sub(60)..].join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn output_and_status_come_back() {
        assert_eq!(run_ok(Command::new("echo").arg("x"), Duration::from_secs(10)), "x\n");
        assert!(!run(&mut Command::new("false"), Duration::from_secs(10)).status.success());
    }

    #[test]
    #[should_panic(expected = "did not end within")]
    fn what_hangs_is_ended() {
        run(Command::new("sleep").arg("100"), Duration::from_millis(100));
    }

    #[test]
    #[should_panic(expected = "a word of explanation")]
    fn what_fails_is_quoted() {
        shell(Path::new("/"), "echo a word of explanation; false | true");
    }
}
