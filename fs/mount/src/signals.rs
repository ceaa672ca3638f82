//! Whether a process that waits for us wants to be let go.
//!
//! fuser answers FUSE_INTERRUPT with ENOSYS, so the kernel never tells of signals. We look ourselves, at what
//! `/proc` says of the thread that asked. It wants to be let go if
//! - a signal is pending whose action is to end the process, or
//! - SIGINT, SIGTERM, SIGQUIT or SIGHUP is pending and the process has a handler for it (Ctrl-C in an interpreter), or
//! - it was killed already and is only closing its files.
//!
//! Other caught signals do not interrupt: programs tick with SIGALRM and hear of children by SIGCHLD, and do not
//! expect EINTR from a file for that.

use std::fs;

/// The thread was ended by a signal and is on its way out.
const PF_EXITING: u64 = 0x4;

const fn bit(signal: i32) -> u64 {
    1 << (signal - 1)
}

/// Signals that end nothing when a process has not said otherwise: ignored, or they stop and continue it.
const NOT_FATAL: u64 = bit(libc::SIGCHLD)
    | bit(libc::SIGURG)
    | bit(libc::SIGWINCH)
    | bit(libc::SIGCONT)
    | bit(libc::SIGSTOP)
    | bit(libc::SIGTSTP)
    | bit(libc::SIGTTIN)
    | bit(libc::SIGTTOU);

/// Signals by which somebody asks a process to end, also if it has a handler.
const ASKS_TO_END: u64 = bit(libc::SIGINT) | bit(libc::SIGTERM) | bit(libc::SIGQUIT) | bit(libc::SIGHUP);

/// Which signals let a thread go.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Wanted {
    /// Those by which somebody asks it to end.
    AsksToEnd,
    /// All that it would hear of.
    Any,
}

/// Whether thread `pid` wants to be let go. `false` for a process that is gone or cannot be looked at.
pub(crate) fn wants_out(pid: u32, wanted: Wanted) -> bool {
    if pid == 0 {
        return false;
    }
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    if signals_ask(&status, wanted) {
        return true;
    }
    // The kernel makes who reads `stat` wait for a process that is within execve, and that one may wait for us: it closes files
    // there. Only a process that lost its memory, which is none within execve, may be looked at further.
    if !is_without_memory(&status) {
        return false;
    }
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    killed(&stat)
}

/// Judges `/proc/PID/status`.
fn signals_ask(status: &str, wanted: Wanted) -> bool {
    let mask = |name: &str| {
        status
            .lines()
            .find_map(|line| line.strip_prefix(name)?.strip_prefix(':'))
            .and_then(|value| u64::from_str_radix(value.trim(), 16).ok())
            .unwrap_or(0)
    };
    let pending = (mask("SigPnd") | mask("ShdPnd")) & !mask("SigBlk") & !mask("SigIgn");
    let caught = mask("SigCgt");
    let fatal = pending & !caught & !NOT_FATAL;
    let heard = match wanted {
        Wanted::AsksToEnd => caught & ASKS_TO_END,
        Wanted::Any => caught,
    };
    fatal != 0 || pending & heard != 0
}

/// Judges `/proc/PID/status`: on its way out, or gone.
fn is_without_memory(status: &str) -> bool {
    !status.lines().any(|line| line.starts_with("VmSize:"))
}

/// Judges `/proc/PID/stat`: exiting, because of a signal.
fn killed(stat: &str) -> bool {
    // The second field is the name in parentheses and may hold anything, so count from the last one.
    let Some((_, rest)) = stat.rsplit_once(')') else { return false };
    let fields: Vec<&str> = rest.split_ascii_whitespace().collect();
    // proc(5): flags is field 9 and exit_code field 52; the first of `rest` is field 3.
    let number = |field: usize| fields.get(field - 3).and_then(|text| text.parse::<u64>().ok());
    let exiting = number(9).is_some_and(|flags| flags & PF_EXITING != 0);
    let by_signal = number(52).is_some_and(|code| code & 0x7f != 0);
    exiting && by_signal
}

#[cfg(test)]
mod tests {
    use super::*;

    fn status(pending: u64, blocked: u64, ignored: u64, caught: u64) -> String {
        format!(
            "Name:\tx\nSigQ:\t0/7\nSigPnd:\t{pending:016x}\nShdPnd:\t0000000000000000\nSigBlk:\t{blocked:016x}\n\
             SigIgn:\t{ignored:016x}\nSigCgt:\t{caught:016x}\n"
        )
    }

    #[test]
    fn fatal_signals_ask_and_ticking_ones_do_not() {
        let int = bit(libc::SIGINT);
        let signals_ask = |status: &str| signals_ask(status, Wanted::AsksToEnd);
        assert!(!signals_ask(&status(0, 0, 0, 0)));
        assert!(signals_ask(&status(int, 0, 0, 0)));
        assert!(signals_ask(&status(int, 0, 0, int)), "a handler waits for it");
        assert!(!signals_ask(&status(int, int, 0, 0)), "blocked");
        assert!(!signals_ask(&status(int, 0, int, 0)), "ignored");
        assert!(signals_ask(&status(bit(libc::SIGKILL), 0, 0, 0)));
        let alarm = bit(libc::SIGALRM);
        assert!(signals_ask(&status(alarm, 0, 0, 0)), "an uncaught alarm ends the process");
        assert!(!signals_ask(&status(alarm, 0, 0, alarm)), "a caught one is a clock");
        assert!(super::signals_ask(&status(alarm, 0, 0, alarm), Wanted::Any), "unless it is waited for");
        assert!(!super::signals_ask(&status(alarm, alarm, 0, alarm), Wanted::Any), "blocked");
        assert!(!signals_ask(&status(bit(libc::SIGCHLD), 0, 0, 0)));
        assert!(!signals_ask(&status(bit(libc::SIGSTOP), 0, 0, 0)));
        assert!(!signals_ask("nonsense"));
    }

    #[test]
    fn shared_pending_counts() {
        let text = status(0, 0, 0, 0).replace("ShdPnd:\t0000000000000000", "ShdPnd:\t0000000000000002");
        assert!(signals_ask(&text, Wanted::AsksToEnd));
    }

    #[test]
    fn killed_means_exiting_by_a_signal() {
        let line = |flags: u64, code: u64| {
            let mut fields = vec!["0".to_owned(); 50];
            fields[0] = "D".into();
            fields[9 - 3] = flags.to_string();
            fields[52 - 3] = code.to_string();
            format!("17 (a) b) {}", fields.join(" "))
        };
        assert!(killed(&line(PF_EXITING, 9)));
        assert!(!killed(&line(PF_EXITING, 0)), "an ordinary exit waits for its files");
        assert!(!killed(&line(PF_EXITING, 1 << 8)), "exit(1)");
        assert!(!killed(&line(0, 9)));
        assert!(!killed(""));
    }

    #[test]
    fn only_who_exits_is_without_memory() {
        let own = fs::read_to_string("/proc/self/status").unwrap();
        assert!(!is_without_memory(&own));
        let lines = own.lines().filter(|line| !line.starts_with("Vm"));
        assert!(is_without_memory(&lines.collect::<Vec<_>>().join("\n")));
    }

    #[test]
    fn this_process_wants_to_stay() {
        assert!(!wants_out(std::process::id(), Wanted::AsksToEnd));
        assert!(!wants_out(0, Wanted::Any));
    }
}
