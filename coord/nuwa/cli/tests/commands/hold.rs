//! `nuwa lock` and `nuwa elect`: the command runs while the lock is held, whatever happens to `nuwa`.

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use nuwa_api::proto::EndSession;
use nuwa_api::proto::command::What;

use crate::fixture::{Cluster, PATIENCE, run, soon, text, until};

/// A command that says its fence, and then waits for a signal: it says so, too, and ends with 3.
fn script(log: &str) -> String {
    format!(
        "for s in TERM INT HUP; do trap \"kill \\$!; echo got $s >> {log}; exit 3\" $s; done; \
         sleep 1000 & echo \"runs $$ $NUWA_FENCE\" >> {log}; wait"
    )
}

/// The process of the command, once it runs.
fn command_of(log: &std::path::Path) -> Pid {
    let mut pid = 0;
    until("the command", || {
        let said = std::fs::read_to_string(log).unwrap_or_default();
        let word = said.strip_suffix('\n').and_then(|line| line.split(' ').nth(1));
        word.is_some_and(|word| {
            pid = word.parse().unwrap();
            true
        })
    });
    Pid::from_raw(pid)
}

fn lines(log: &std::path::Path) -> Vec<String> {
    std::fs::read_to_string(log).unwrap().lines().map(str::to_owned).collect()
}

#[test]
fn a_command_runs_under_a_lock() {
    let cluster = Cluster::start();
    let ended = cluster.run(&["lock", "/locks/a", "--", "sh", "-c", "echo $NUWA_FENCE; exit 7"]);
    assert_eq!((ended.code, &*ended.error), (7, ""));
    let first: u64 = String::from_utf8(ended.out).unwrap().trim().parse().unwrap();
    let second: u64 =
        cluster.out(&["lock", "/locks/a", "sh", "-c", "echo $NUWA_FENCE"]).trim().parse().unwrap();
    assert!(second > first && first > 0, "{first} {second}");
    let died = cluster.run(&["lock", "/locks/a", "--", "sh", "-c", "kill -9 $$"]);
    assert_eq!(died.code, 128 + 9);
    for lease in ["0", "601"] {
        let refused = run(&["lock", "/locks/a", "--lease", lease, "--", "true"], b"");
        assert!(refused.code == 2 && refused.error.contains("is not in 1..=600"), "{}", refused.error);
    }
    assert_eq!(cluster.lock_state("/locks/a"), (None, 0));
}

/// A signal used to end `nuwa` alone: the command ran on while the next one held the lock.
#[test]
fn a_signal_is_passed_on_and_the_next_one_runs_when_the_command_has_ended() {
    let cluster = Cluster::start();
    for (signal, name) in [(Signal::SIGTERM, "TERM"), (Signal::SIGINT, "INT"), (Signal::SIGHUP, "HUP")] {
        let path = cluster.file(name);
        let log = text(&path);
        let mut first = cluster.begin(&["lock", "/lock", "--", "sh", "-c", &script(log)]);
        command_of(&path);
        let no_wait = cluster.refused(&["lock", "/lock", "--no-wait", "true"], b"");
        assert_eq!(no_wait, "others hold /lock");
        let next = format!("echo next $NUWA_FENCE >> {log}");
        let mut second = cluster.begin(&["lock", "/lock", "--", "sh", "-c", &next]);
        until("the second one waits", || cluster.lock_state("/lock").1 == 1);
        assert!(first.is_running() && second.is_running());
        first.send(signal);
        assert_eq!((first.ended(), second.ended()), (Some(3), Some(0)));
        let lines = lines(&path);
        assert_eq!((lines.len(), &*lines[1]), (3, &*format!("got {name}")), "{lines:?}");
        let fence = |line: &str| line.rsplit(' ').next().unwrap().parse::<u64>().unwrap();
        assert!(lines[2].starts_with("next ") && fence(&lines[2]) > fence(&lines[0]), "{lines:?}");
    }
}

#[test]
fn who_is_told_to_end_while_it_waits_leaves_the_line() {
    let cluster = Cluster::start();
    let path = cluster.file("log");
    let mut first = cluster.begin(&["lock", "/lock", "--", "sh", "-c", &script(text(&path))]);
    command_of(&path);
    // Long enough that only a waiter who leaves by itself is gone in time.
    let mut second = cluster.begin(&["lock", "/lock", "--lease", "600", "--", "true"]);
    until("the second one waits", || cluster.lock_state("/lock").1 == 1);
    second.send(Signal::SIGTERM);
    assert_eq!(second.ended(), Some(128 + 15));
    assert_eq!(cluster.lock_state("/lock").1, 0);
    assert!(first.is_running());
}

#[test]
fn a_command_does_not_outlive_a_killed_program() {
    let cluster = Cluster::start();
    let path = cluster.file("log");
    let mut program = cluster.begin(&["lock", "/lock", "--", "sh", "-c", &script(text(&path))]);
    let command = command_of(&path);
    kill(command, None).unwrap();
    program.send(Signal::SIGKILL);
    assert_eq!(program.ended(), None);
    until("the command is told", || lines(&path).len() == 2);
    assert_eq!(lines(&path)[1], "got TERM");
}

#[test]
fn a_command_is_stopped_when_the_session_is_lost() {
    let cluster = Cluster::start();
    let path = cluster.file("log");
    let mut program =
        cluster.begin(&["lock", "/lock", "--lease", "1", "--", "sh", "-c", &script(text(&path))]);
    command_of(&path);
    let session = cluster.lock_state("/lock").0.unwrap();
    cluster.ask(async |client| {
        let own = client.open_session(PATIENCE, "test", soon()).await.unwrap();
        own.change(What::EndSession(EndSession { session }), soon()).await.unwrap();
    });
    assert_eq!(program.ended(), Some(1), "whatever the command ends with");
    assert_eq!(lines(&path)[1], "got TERM");
}

#[test]
fn the_file_says_who_leads() {
    let cluster = Cluster::start();
    let nuwa = env!("CARGO_BIN_EXE_nuwa");
    let asks = cluster.with_flags(&["get", "/leader"]);
    let elect = [&["elect", "/leader", "me", "--", nuwa][..], &asks].concat();
    assert_eq!(cluster.out(&elect), "me");
    let path = cluster.file("log");
    let mut first = cluster.begin(&["elect", "/leader", "one", "--", "sh", "-c", &script(text(&path))]);
    command_of(&path);
    assert_eq!(cluster.out(&["get", "/leader"]), "one");
    let told = cluster.refused(&["elect", "/leader", "two", "--wait", "0.1", "--", "true"], b"");
    assert_eq!((&*told, &*cluster.out(&["get", "/leader"])), ("others hold /leader", "one"));
    let mut second = cluster.begin(&["elect", "/leader", "two", "--", nuwa, "--version"]);
    until("the second one waits", || cluster.lock_state("/leader").1 == 1);
    first.send(Signal::SIGTERM);
    assert_eq!(first.ended(), Some(3));
    assert!(second.line().starts_with("nuwa "));
    assert_eq!((second.ended(), &*cluster.out(&["get", "/leader"])), (Some(0), "two"));
}
