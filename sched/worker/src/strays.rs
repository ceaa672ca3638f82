//! Processes that an attempt left behind in groups of their own.
//!
//! The worker's process adopts them (it is a subreaper, see [`adopt`]), so each attempt can end with nothing of it alive. In the usual case
//! that costs one system call, which says that there are no children.

use std::fs;
use std::io;

/// Orphans of this process's children become its own children.
///
/// # Errors
/// The kernel does not know how.
pub fn adopt() -> io::Result<()> {
    // SAFETY: this prctl takes a number and no pointers.
    let result = unsafe { libc::prctl(libc::PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0) };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// Kills and waits for all children. Only for a process that has no others than those of an attempt that has ended.
pub fn kill_all() {
    loop {
        // SAFETY: a null status is allowed.
        let pid = unsafe { libc::waitpid(-1, std::ptr::null_mut(), libc::WNOHANG) };
        match pid {
            // One that had ended was waited for; there may be more.
            1.. => {}
            0 => {
                let children = children();
                for child in &children {
                    // SAFETY: kill takes no pointers; a child that was not waited for has its number still.
                    unsafe { libc::kill(*child, libc::SIGKILL) };
                }
                let Some(first) = children.first() else {
                    // They are there and cannot be seen (no such list in this kernel): whoever limits the worker ends them with it.
                    return;
                };
                // SAFETY: a null status is allowed.
                unsafe { libc::waitpid(*first, std::ptr::null_mut(), 0) };
            }
            _ => return,
        }
    }
}

/// The children of all threads of this process.
fn children() -> Vec<libc::pid_t> {
    let tasks = fs::read_dir("/proc/self/task").into_iter().flatten().flatten();
    let lists = tasks.filter_map(|task| fs::read_to_string(task.path().join("children")).ok());
    lists
        .flat_map(|list| list.split_whitespace().filter_map(|pid| pid.parse().ok()).collect::<Vec<_>>())
        .collect()
}
