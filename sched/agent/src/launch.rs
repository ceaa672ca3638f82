//! Starting a grant's program: in a session of its own, in its control groups, as its user.

use std::ffi::OsString;
use std::fs::File;
use std::io;
use std::os::fd::AsRawFd as _;
use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::process::{Command, Stdio};

use nix::unistd::{Gid, Uid, User, getgrouplist};

use crate::process;
use crate::table::Process;

/// Whom a program runs as.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Account {
    pub uid: u32,
    pub gid: u32,
    /// All groups, the first one included.
    pub groups: Vec<u32>,
}

impl Account {
    /// With the groups the system's user database knows.
    ///
    /// # Errors
    /// The database cannot be read.
    pub fn of(uid: u32, gid: u32) -> io::Result<Self> {
        let user = User::from_uid(Uid::from_raw(uid)).map_err(io::Error::from)?;
        let groups = match user {
            Some(user) => {
                let name = std::ffi::CString::new(user.name)?;
                getgrouplist(&name, Gid::from_raw(gid)).map_err(io::Error::from)?
            }
            // Somebody of the cluster's whom this machine does not know.
            None => vec![Gid::from_raw(gid)],
        };
        Ok(Self { uid, gid, groups: groups.into_iter().map(Gid::as_raw).collect() })
    }
}

/// What is started.
#[derive(Debug)]
pub struct Launch<'a> {
    pub program: &'a Path,
    pub directory: &'a Path,
    /// All of it: the agent's own is not passed on.
    pub environment: Vec<(String, OsString)>,
    /// The agent's own if absent.
    pub account: Option<Account>,
    /// See [`crate::cgroup::Group::doors`].
    pub doors: Vec<File>,
    pub output: File,
    /// Processes of the user's, where no control group counts them.
    pub processes_max: Option<u64>,
}

/// Starts it. Its number stays its own until it is waited for.
///
/// # Errors
/// As the system says it, of exec too.
pub fn launch(launch: Launch<'_>) -> io::Result<Process> {
    let Launch { program, directory, environment, account, doors, output, processes_max } = launch;
    let mut command = Command::new(program);
    command.current_dir(directory).env_clear().envs(environment);
    command.stdin(Stdio::null()).stdout(output.try_clone()?).stderr(output);
    // SAFETY: setsid is a plain system call.
    unsafe { command.pre_exec(|| result(if libc::setsid() < 0 { -1 } else { 0 })) };
    // First the groups, which belong to the agent's user, then the account.
    enter(&mut command, doors);
    // SAFETY: setrlimit is a plain system call, and the limits are on the stack.
    unsafe {
        command.pre_exec(move || {
            limit(libc::RLIMIT_CORE, 0)?;
            processes_max.map_or(Ok(()), |processes| limit(libc::RLIMIT_NPROC, processes))
        });
    }
    if let Some(Account { uid, gid, groups }) = account {
        // SAFETY: three plain system calls; the list was made before the fork.
        unsafe {
            command.pre_exec(move || {
                result(libc::setgroups(groups.len(), groups.as_ptr()))?;
                result(libc::setgid(gid))?;
                result(libc::setuid(uid))
            });
        }
    }
    let child = command.spawn()?;
    let pid = i32::try_from(child.id()).map_err(io::Error::other)?;
    // Even if it has ended already: nobody else waits for it.
    let seen = process::look(pid).ok_or_else(|| io::Error::other("/proc does not show the process"))?;
    Ok(Process { pid, start_ticks: seen.start_ticks })
}

/// The process puts itself into control groups before it becomes the program: nothing of it is ever outside.
pub fn enter(command: &mut Command, doors: Vec<File>) {
    // SAFETY: write is a plain system call, on descriptors that the closure owns.
    unsafe {
        command.pre_exec(move || {
            for door in &doors {
                let written = libc::write(door.as_raw_fd(), c"0".as_ptr().cast(), 1);
                result(if written == 1 { 0 } else { -1 })?;
            }
            Ok(())
        });
    }
}

fn result(result: libc::c_int) -> io::Result<()> {
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

fn limit(what: libc::__rlimit_resource_t, at_most: u64) -> io::Result<()> {
    let limits = libc::rlimit { rlim_cur: at_most, rlim_max: at_most };
    // SAFETY: a pointer to a structure that outlives the call.
    result(unsafe { libc::setrlimit(what, &raw const limits) })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_program_is_its_users_and_leads_a_session() {
        if !Uid::effective().is_root() {
            eprintln!("only root becomes somebody else: not tried");
            return;
        }
        let dir = tempfile::tempdir().unwrap();
        let output = File::create(dir.path().join("output")).unwrap();
        let account = Account::of(64_321, 64_322).unwrap();
        let process = launch(Launch {
            program: Path::new("/usr/bin/id"),
            directory: Path::new("/"),
            environment: vec![("WORD".into(), "w".into()), ("PATH".into(), "/usr/bin:/bin".into())],
            account: Some(account),
            doors: Vec::new(),
            output: output.try_clone().unwrap(),
            processes_max: Some(100),
        });
        let process = process.unwrap();
        let seen = process::look(process.pid).unwrap();
        assert_eq!(seen.session, process.pid);
        let mut status = 0;
        // SAFETY: waitpid writes the one integer.
        assert_eq!(unsafe { libc::waitpid(process.pid, &raw mut status, 0) }, process.pid);
        assert_eq!(status, 0);
        let said = std::fs::read_to_string(dir.path().join("output")).unwrap();
        assert_eq!(said, "uid=64321 gid=64322 groups=64322\n");
    }
}
