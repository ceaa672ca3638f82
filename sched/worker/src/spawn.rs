//! Starting a program and waiting for it, by posix_spawn: no copy of the worker's page tables, no code between fork and exec.
//!
//! Not by `std::process::Command`: it makes a descriptor for each stream of each program and builds the environment anew each time.

use std::ffi::{CStr, CString};
use std::io;
use std::mem::MaybeUninit;
use std::os::fd::{AsRawFd as _, BorrowedFd};
use std::ptr;

/// A list of C strings, and of pointers to them that ends with a null pointer.
#[derive(Debug, Default)]
pub struct Strings {
    strings: Vec<CString>,
    pointers: Vec<*mut libc::c_char>,
}

// SAFETY: the pointers point into heap blocks that `strings` owns and nobody changes; they move with it.
unsafe impl Send for Strings {}

impl Strings {
    /// Adds one.
    pub fn push(&mut self, string: CString) {
        self.strings.push(string);
    }

    /// Keeps the first `len`, as before later ones were pushed.
    pub fn truncate(&mut self, len: usize) {
        self.strings.truncate(len);
    }

    /// How many.
    #[must_use]
    pub fn len(&self) -> usize {
        self.strings.len()
    }

    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.strings.is_empty()
    }

    /// As C wants them. Valid until the list changes.
    fn pointers(&mut self) -> *const *mut libc::c_char {
        self.pointers.clear();
        self.pointers.extend(self.strings.iter().map(|string| string.as_ptr().cast_mut()));
        self.pointers.push(ptr::null_mut());
        self.pointers.as_ptr()
    }
}

/// What is started.
#[derive(Debug)]
pub struct Start<'a> {
    /// Not looked up in PATH.
    pub program: &'a CStr,
    pub arguments: &'a mut Strings,
    pub environment: &'a mut Strings,
    /// The worker's own if absent.
    pub directory: Option<&'a CStr>,
    pub stdin: BorrowedFd<'a>,
    /// Standard output and standard error.
    pub output: BorrowedFd<'a>,
}

/// How a program ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Exit {
    Code(i32),
    Signal(i32),
}

/// Checks what C functions return that give the error as a number.
fn check(error: libc::c_int) -> io::Result<()> {
    if error == 0 { Ok(()) } else { Err(io::Error::from_raw_os_error(error)) }
}

struct Actions(libc::posix_spawn_file_actions_t);

impl Drop for Actions {
    fn drop(&mut self) {
        // SAFETY: it was initialized when this was made.
        unsafe { libc::posix_spawn_file_actions_destroy(&raw mut self.0) };
    }
}

struct Attributes(libc::posix_spawnattr_t);

impl Drop for Attributes {
    fn drop(&mut self) {
        // SAFETY: it was initialized when this was made.
        unsafe { libc::posix_spawnattr_destroy(&raw mut self.0) };
    }
}

/// Starts a program as the leader of a new process group, with no signal blocked and all at their defaults.
///
/// # Errors
/// As the system says it: of exec too.
pub fn spawn(start: Start<'_>) -> io::Result<libc::pid_t> {
    let actions = file_actions(&start)?;
    let attributes = attributes()?;
    let mut pid = 0;
    // SAFETY: program, arguments and environment are C strings and null-terminated lists of them, alive until this returns; actions and
    // attributes were initialized.
    check(unsafe {
        libc::posix_spawn(
            &raw mut pid,
            start.program.as_ptr(),
            &raw const actions.0,
            &raw const attributes.0,
            start.arguments.pointers(),
            start.environment.pointers(),
        )
    })?;
    Ok(pid)
}

fn file_actions(start: &Start<'_>) -> io::Result<Actions> {
    let mut actions = MaybeUninit::uninit();
    // SAFETY: init writes the whole structure, or fails, and then it is not used.
    check(unsafe { libc::posix_spawn_file_actions_init(actions.as_mut_ptr()) })?;
    // SAFETY: it was initialized just now.
    let mut actions = Actions(unsafe { actions.assume_init() });
    let (stdin, output) = (start.stdin.as_raw_fd(), start.output.as_raw_fd());
    for (from, to) in [(stdin, 0), (output, 1), (output, 2)] {
        // SAFETY: actions were initialized; the descriptors are borrowed for longer than this.
        check(unsafe { libc::posix_spawn_file_actions_adddup2(&raw mut actions.0, from, to) })?;
    }
    if let Some(directory) = start.directory {
        // SAFETY: actions were initialized; the path is a C string, which is copied.
        check(unsafe { libc::posix_spawn_file_actions_addchdir_np(&raw mut actions.0, directory.as_ptr()) })?;
    }
    Ok(actions)
}

fn attributes() -> io::Result<Attributes> {
    let mut attributes = MaybeUninit::uninit();
    // SAFETY: init writes the whole structure, or fails, and then it is not used.
    check(unsafe { libc::posix_spawnattr_init(attributes.as_mut_ptr()) })?;
    // SAFETY: it was initialized just now.
    let mut attributes = Attributes(unsafe { attributes.assume_init() });
    let mut none = MaybeUninit::uninit();
    let mut all = MaybeUninit::uninit();
    // SAFETY: both fill a whole signal set.
    unsafe {
        libc::sigemptyset(none.as_mut_ptr());
        libc::sigfillset(all.as_mut_ptr());
    }
    let flags = libc::POSIX_SPAWN_SETPGROUP | libc::POSIX_SPAWN_SETSIGMASK | libc::POSIX_SPAWN_SETSIGDEF;
    let flags = libc::c_short::try_from(flags).expect("three small flags");
    // SAFETY: attributes and signal sets were initialized; the sets are copied.
    unsafe {
        check(libc::posix_spawnattr_setflags(&raw mut attributes.0, flags))?;
        check(libc::posix_spawnattr_setpgroup(&raw mut attributes.0, 0))?;
        check(libc::posix_spawnattr_setsigmask(&raw mut attributes.0, none.as_ptr()))?;
        check(libc::posix_spawnattr_setsigdefault(&raw mut attributes.0, all.as_ptr()))?;
    }
    Ok(attributes)
}

/// Waits until a child has ended, and leaves it a zombie: its number stays its own.
///
/// # Errors
/// It is no child of this process.
pub fn wait_ended(pid: libc::pid_t) -> io::Result<()> {
    let id = libc::id_t::try_from(pid).map_err(io::Error::other)?;
    loop {
        let mut info = MaybeUninit::<libc::siginfo_t>::uninit();
        // SAFETY: waitid writes the structure, which nobody reads.
        let result =
            unsafe { libc::waitid(libc::P_PID, id, info.as_mut_ptr(), libc::WEXITED | libc::WNOWAIT) };
        if result == 0 {
            return Ok(());
        }
        let error = io::Error::last_os_error();
        if error.kind() != io::ErrorKind::Interrupted {
            return Err(error);
        }
    }
}

/// Takes the status of a child that has ended.
///
/// # Errors
/// It is no child of this process.
pub fn reap(pid: libc::pid_t) -> io::Result<Exit> {
    let mut status = 0;
    loop {
        // SAFETY: waitpid writes the one integer.
        if unsafe { libc::waitpid(pid, &raw mut status, 0) } == pid {
            break;
        }
        let error = io::Error::last_os_error();
        if error.kind() != io::ErrorKind::Interrupted {
            return Err(error);
        }
    }
    if libc::WIFSIGNALED(status) {
        return Ok(Exit::Signal(libc::WTERMSIG(status)));
    }
    Ok(Exit::Code(libc::WEXITSTATUS(status)))
}

#[cfg(test)]
mod tests {
    use std::fs::File;
    use std::io::Read as _;
    use std::os::fd::AsFd as _;

    use super::*;

    fn strings(list: &[&str]) -> Strings {
        let mut strings = Strings::default();
        for text in list {
            strings.push(CString::new(*text).unwrap());
        }
        strings
    }

    fn run(script: &str, directory: Option<&CStr>) -> (io::Result<Exit>, String) {
        let null = File::open("/dev/null").unwrap();
        let mut output = tempfile::tempfile().unwrap();
        let pid = spawn(Start {
            program: c"/bin/sh",
            arguments: &mut strings(&["sh", "-c", script]),
            environment: &mut strings(&["WORD=hello"]),
            directory,
            stdin: null.as_fd(),
            output: output.as_fd(),
        });
        let exit = pid.and_then(|pid| {
            wait_ended(pid)?;
            reap(pid)
        });
        std::io::Seek::rewind(&mut output).unwrap();
        let mut text = String::new();
        output.read_to_string(&mut text).unwrap();
        (exit, text)
    }

    #[test]
    fn environment_directory_streams_and_codes_arrive() {
        let (exit, text) = run("echo $WORD >&2; pwd; cat; exit 3", Some(c"/"));
        assert_eq!(exit.unwrap(), Exit::Code(3));
        assert_eq!(text, "hello\n/\n");
        assert_eq!(run("kill -9 $$", None).0.unwrap(), Exit::Signal(9));
    }

    #[test]
    fn it_leads_a_group_of_its_own() {
        let (_, text) = run("echo $$; cut -d' ' -f5 /proc/$$/stat", None);
        let numbers: Vec<&str> = text.lines().collect();
        assert_eq!(numbers[0], numbers[1], "its group is its own number");
    }

    #[test]
    fn a_missing_directory_is_an_error_of_the_start() {
        assert_eq!(run("true", Some(c"/no/such/place")).0.unwrap_err().kind(), io::ErrorKind::NotFound);
    }
}
