//! Starts processes from a shell that has none of this process's open files.
//!
//! A test that writes to a mount has files open there. A child of that test begins with copies of them, and closing a
//! copy (as exec does) makes the kernel ask the mount to flush, which waits for the very server the child was about to
//! become. So processes are children of a shell that was started before anything was mounted: it is told on its
//! standard input what to start and whom to wait for, and answers on its output.

use std::ffi::OsStr;
use std::io::{self, BufRead as _, BufReader, Write as _};
use std::os::unix::ffi::OsStrExt as _;
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::sync::{Arc, Mutex, PoisonError};

use crate::error::Error;

/// A handle on the shell; it ends with the last handle, its children live on.
#[derive(Debug, Clone)]
pub struct Launcher(Arc<Mutex<Shell>>);

#[derive(Debug)]
struct Shell {
    child: Child,
    // Taken when the shell is told to end.
    input: Option<ChildStdin>,
    output: BufReader<ChildStdout>,
}

impl Launcher {
    /// To be called while no file of a mount is open in this process.
    pub fn start() -> Result<Self, Error> {
        let error =
            |source| Error::Process { action: "start", name: "the launching shell".to_owned(), source };
        let mut child = Command::new("bash")
            .args(["--noprofile", "--norc"])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            // It reports every killed child there.
            .stderr(Stdio::null())
            .spawn()
            .map_err(error)?;
        let input = child.stdin.take();
        let output = child.stdout.take().ok_or_else(|| error(io::Error::other("it has no output")))?;
        Ok(Self(Arc::new(Mutex::new(Shell { child, input, output: BufReader::new(output) }))))
    }

    /// Starts a command in the background, output appended to a log; answers its process id.
    pub(crate) fn launch(&self, words: &[&OsStr], log: &OsStr) -> io::Result<u32> {
        let mut line = Vec::new();
        for word in words {
            quote(word, &mut line);
            line.push(b' ');
        }
        line.extend_from_slice(b">>");
        quote(log, &mut line);
        line.extend_from_slice(b" 2>&1 </dev/null & echo $!\n");
        let answer = self.ask(&line)?;
        answer.parse().map_err(|_| io::Error::other(format!("the launching shell said {answer:?}")))
    }

    /// Waits for a process this launcher started; answers its exit status as the shell gives it (128 + signal).
    pub(crate) fn wait(&self, pid: u32) -> io::Result<i32> {
        let answer = self.ask(format!("wait {pid}; echo $?\n").as_bytes())?;
        answer.parse().map_err(|_| io::Error::other(format!("the launching shell said {answer:?}")))
    }

    fn ask(&self, line: &[u8]) -> io::Result<String> {
        let mut shell = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let input = shell.input.as_mut().ok_or_else(|| io::Error::other("the launching shell has ended"))?;
        input.write_all(line)?;
        let mut answer = String::new();
        shell.output.read_line(&mut answer)?;
        Ok(answer.trim().to_owned())
    }
}

impl Drop for Shell {
    fn drop(&mut self) {
        // The end of its input ends it; what it started lives on.
        drop(self.input.take());
        drop(self.child.wait());
    }
}

fn quote(word: &OsStr, line: &mut Vec<u8>) {
    line.push(b'\'');
    for byte in word.as_bytes() {
        if *byte == b'\'' {
            line.extend_from_slice(b"'\\''");
        } else {
            line.push(*byte);
        }
    }
    line.push(b'\'');
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    #[test]
    fn words_arrive_as_they_are() {
        let folder = tempfile::tempdir().unwrap();
        let log = folder.path().join("it's a log");
        let launcher = Launcher::start().unwrap();
        let words: Vec<&OsStr> =
            ["printf", "%s|", "a b", "it's", "$HOME", "*"].iter().map(OsStr::new).collect();
        let pid = launcher.launch(&words, log.as_os_str()).unwrap();
        assert_eq!(launcher.wait(pid).unwrap(), 0);
        assert_eq!(fs::read_to_string(&log).unwrap(), "a b|it's|$HOME|*|");
    }

    #[test]
    fn statuses_come_back() {
        let launcher = Launcher::start().unwrap();
        let null = OsStr::new("/dev/null");
        let words = |script| ["sh", "-c", script].map(OsStr::new);
        let pid = launcher.launch(&words("exit 3"), null).unwrap();
        assert_eq!(launcher.wait(pid).unwrap(), 3);
        let pid = launcher.launch(&words("kill -9 $$"), null).unwrap();
        assert_eq!(launcher.wait(pid).unwrap(), 128 + 9);
    }
}
