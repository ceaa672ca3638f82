//! What the kernel says of processes, read from `/proc`.

use std::fs;
use std::io;

use crate::table::Process;

/// A process at one moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Seen {
    pub pid: i32,
    pub parent: i32,
    pub group: i32,
    pub session: i32,
    pub start_ticks: u64,
    pub rss_bytes: u64,
    /// It has ended and was not waited for.
    pub is_zombie: bool,
}

/// Pages are of this size wherever this runs; a wrong guess would be a wrong limit, so it is asked.
fn page_bytes() -> u64 {
    // SAFETY: sysconf takes no pointers.
    u64::try_from(unsafe { libc::sysconf(libc::_SC_PAGESIZE) }).unwrap_or(4096)
}

/// A process, if there is one with this number.
#[must_use]
pub fn look(pid: i32) -> Option<Seen> {
    parse(pid, &fs::read_to_string(format!("/proc/{pid}/stat")).ok()?, page_bytes())
}

/// All processes.
#[must_use]
pub fn all() -> Vec<Seen> {
    let page = page_bytes();
    let entries = fs::read_dir("/proc").into_iter().flatten().flatten();
    let pids = entries.filter_map(|entry| entry.file_name().to_str()?.parse::<i32>().ok());
    pids.filter_map(|pid| parse(pid, &fs::read_to_string(format!("/proc/{pid}/stat")).ok()?, page)).collect()
}

/// The fields after the name, which may have spaces and brackets in it.
fn parse(pid: i32, stat: &str, page_bytes: u64) -> Option<Seen> {
    let (_, rest) = stat.rsplit_once(") ")?;
    let fields: Vec<&str> = rest.split_ascii_whitespace().collect();
    let number = |at: usize| fields.get(at)?.parse::<i32>().ok();
    Some(Seen {
        pid,
        parent: number(1)?,
        group: number(2)?,
        session: number(3)?,
        start_ticks: fields.get(19)?.parse().ok()?,
        rss_bytes: fields.get(21)?.parse::<u64>().ok()?.saturating_mul(page_bytes),
        is_zombie: matches!(*fields.first()?, "Z" | "X"),
    })
}

/// Memory that is this process's, with its part of what it shares: dearer to ask for than [`Seen::rss_bytes`], and fairer.
#[must_use]
pub fn proportional_bytes(pid: i32) -> Option<u64> {
    let text = fs::read_to_string(format!("/proc/{pid}/smaps_rollup")).ok()?;
    let line = text.lines().find_map(|line| line.strip_prefix("Pss:"))?;
    Some(line.trim().trim_end_matches("kB").trim().parse::<u64>().ok()?.saturating_mul(1024))
}

/// Whether this process still runs.
#[must_use]
pub fn is_alive(process: Process) -> bool {
    look(process.pid).is_some_and(|seen| seen.start_ticks == process.start_ticks && !seen.is_zombie)
}

/// Whether a process has this in its environment, `NAME=VALUE`.
#[must_use]
pub fn has_in_environment(pid: i32, pair: &str) -> bool {
    fs::read(format!("/proc/{pid}/environ"))
        .is_ok_and(|environment| environment.split(|byte| *byte == 0).any(|entry| entry == pair.as_bytes()))
}

/// Names this run of the machine.
///
/// # Errors
/// There is no `/proc`.
pub fn boot_id() -> io::Result<String> {
    Ok(fs::read_to_string("/proc/sys/kernel/random/boot_id")?.trim().to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_with_brackets_is_no_trap() {
        let stat = "7 (a) b) S 1 2 3 0 -1 4194560 1 0 0 0 1 2 0 0 20 0 1 0 99 1000 5 1844";
        let seen = parse(7, stat, 4096).unwrap();
        assert_eq!((seen.parent, seen.group, seen.session), (1, 2, 3));
        assert_eq!((seen.start_ticks, seen.rss_bytes, seen.is_zombie), (99, 5 * 4096, false));
    }

    #[test]
    fn this_process_is_seen() {
        let pid = i32::try_from(std::process::id()).unwrap();
        let me = look(pid).unwrap();
        assert!(is_alive(Process { pid, start_ticks: me.start_ticks }));
        assert!(!is_alive(Process { pid, start_ticks: me.start_ticks + 1 }));
        assert!(all().iter().any(|seen| seen.pid == pid));
        assert!(proportional_bytes(pid).unwrap() > 0);
    }
}
