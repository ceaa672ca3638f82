//! All states of small groups: the real replicas and the master's real rules, in every order of messages, disk writes, crashes,
//! lost calls and changes of members that a configuration allows. `chunkserver/docs/model-check.md` says what is real, what the
//! bounds are and what came out.
//!
//! With `FEITIAN_FULL` set the larger configurations are run too.

mod model {
    pub(crate) mod bug;
    pub(crate) mod columns;
    pub(crate) mod disk;
    pub(crate) mod effects;
    pub(crate) mod explore;
    pub(crate) mod facts;
    pub(crate) mod invariants;
    pub(crate) mod master;
    pub(crate) mod member;
    pub(crate) mod message;
    pub(crate) mod setup;
    pub(crate) mod table;
    pub(crate) mod words;
    pub(crate) mod world;
}

use coord_types::DiskId;
use master_core::table::change::Change;
use model::bug::Bug;
use model::explore::explore;
use model::setup::{FENCE, Setup};
use model::table::Tables;

/// More than any configuration has: some 130 bytes each.
const STATES_MAX: usize = 20_000_000;

const ONE: DiskId = DiskId(1);
const TWO: DiskId = DiskId(2);
const THREE: DiskId = DiskId(3);

fn pair() -> Setup {
    Setup::group(2)
}

fn trio() -> Setup {
    Setup::group(3)
}

/// Out, and all the way back.
fn back(disk: DiskId) -> Vec<Change> {
    vec![Change::Out(disk), Change::Sync(disk), Change::Join(disk), Change::Settle(disk)]
}

/// One disk more, and another one less.
fn moves(new: DiskId, old: DiskId) -> Vec<Change> {
    vec![Change::Add(new), Change::Join(new), Change::Settle(new), Change::Drop(old)]
}

/// Every invariant holds in every state.
#[track_caller]
fn holds(name: &str, setup: Setup) {
    let report = explore(setup, STATES_MAX);
    println!("{name}: {report}");
    if let Some(broken) = &report.broken {
        panic!("{name}:\n{broken}");
    }
    assert!(report.complete, "{name}: there are more states");
    assert!(report.finished > 0, "{name}: no way leads to the end, so this tells little");
}

/// For configurations that take minutes.
#[track_caller]
fn holds_in_full(name: &str, setup: Setup) {
    if std::env::var_os("FEITIAN_FULL").is_some() {
        holds(name, setup);
    }
}

/// The mistake breaks this invariant.
#[track_caller]
fn breaks(bug: Bug, invariant: &str, setup: Setup) {
    let report = explore(Setup { bug: Some(bug), ..setup }, STATES_MAX);
    let broken = report.broken.as_ref();
    let broken = broken.unwrap_or_else(|| panic!("{bug:?} was not noticed: {report}"));
    println!("{bug:?}, after {} states:\n{broken}\n", report.states);
    assert!(broken.what.starts_with(invariant), "{bug:?} breaks not {invariant}:\n{broken}");
    assert!(!broken.trace.iter().any(|line| line == "?"), "the way there is not known:\n{broken}");
}

#[test]
fn writes_under_a_crash() {
    holds("two writes at once", Setup { writes: vec![0, 0], commits: true, ..trio() });
    let crash = Setup { writes: vec![0, 0], crashes: 1, retries: 1, commits: true, ..trio() };
    holds("two writes, a crash", crash.clone());
    holds_in_full("two writes sent twice, a crash", Setup { sends: 2, commits: false, ..crash });
    let crashes = Setup { writes: vec![0], crashes: 2, retries: 1, clock_back: true, ..pair() };
    holds("from the start, two crashes, a clock set back", Setup { cold: true, ..crashes });
}

#[test]
fn writes_under_lost_and_doubled_messages() {
    let lost = Setup { writes: vec![0], sends: 2, losses: 2, doubles: 1, retries: 2, ..trio() };
    holds("one write sent twice, two calls given up, a doubled message", lost);
    let lost = Setup { writes: vec![0, 0], losses: 3, retries: 2, ..pair() };
    holds("two writes, three calls given up", lost);
    let both = Setup { writes: vec![0, 0], sends: 2, crashes: 1, losses: 1, retries: 1, ..pair() };
    holds("two writes sent twice, a crash, a call given up", both.clone());
    holds_in_full("the same, a doubled message", Setup { doubles: 1, retries: 2, ..both });
}

#[test]
fn disks_that_refuse_and_lists_of_several_pages() {
    let faults = Setup { writes: vec![0, 0], disk_faults: 1, retries: 1, ..trio() };
    holds("two writes, one refused by a disk", faults);
    let faults = Setup { writes: vec![0, 0, 0], disk_faults: 1, crashes: 1, retries: 1, ..pair() };
    holds_in_full("three writes, one refused by a disk, a crash", faults);
    let pages = Setup { writes: vec![0, 1], page: 1, crashes: 1, losses: 1, retries: 1, ..pair() };
    holds("two chunks in two pages, a crash, a call given up", pages);
}

#[test]
fn a_member_is_taken_out() {
    holds(
        "two writes, the primary out",
        Setup { writes: vec![0, 0], changes: vec![Change::Out(ONE)], ..trio() },
    );
    let out = Setup { writes: vec![0, 0], changes: vec![Change::Out(ONE)], crashes: 1, retries: 1, ..pair() };
    holds("two writes, the primary of two out, a crash", out);
    let lead = vec![Change::Lead(TWO), Change::Lead(ONE)];
    holds(
        "two writes, the primary changes twice",
        Setup { writes: vec![0, 0], changes: lead.clone(), ..pair() },
    );
    holds_in_full("of three", Setup { writes: vec![0], sends: 2, changes: lead, ..trio() });
    let out = Setup { writes: vec![0], sends: 2, changes: vec![Change::Out(ONE)], ..trio() };
    holds_in_full("a write sent twice, the primary out, a crash", Setup { crashes: 1, retries: 1, ..out });
}

#[test]
fn a_member_comes_back() {
    holds("a write, a member comes back", Setup { writes: vec![0], changes: back(THREE), ..trio() });
    holds("two writes, the primary comes back", Setup { writes: vec![0, 0], changes: back(ONE), ..pair() });
    let there_and_back = [back(ONE), vec![Change::Out(TWO)]].concat();
    holds(
        "the primary comes back and leads",
        Setup { writes: vec![0], sends: 2, changes: there_and_back, ..pair() },
    );
    let crash = Setup { writes: vec![0], changes: back(TWO), crashes: 1, retries: 1, ..pair() };
    holds("a write, a member comes back, a crash", crash.clone());
    holds_in_full("two writes, a member comes back, a crash", Setup { writes: vec![0, 0], ..crash });
    let primary = Setup { writes: vec![0], sends: 2, changes: back(ONE), ..trio() };
    holds_in_full("a write sent twice, the primary of three comes back", primary);
}

#[test]
fn a_group_moves() {
    let pair = Setup { disks: 3, writes: vec![0], sends: 2, changes: moves(THREE, ONE), ..pair() };
    holds("a group of two moves away from its primary", pair);
}

/// A write under no fence, a raise, and a write under the new one.
fn fenced(setup: Setup) -> Setup {
    Setup { writes: vec![0, FENCE, 0], fences: vec![0, 1, 1], ..setup }
}

/// A write and a raise, sent twice, and a crash.
fn fenced_crash() -> Setup {
    Setup { writes: vec![0, FENCE], fences: vec![0, 1], sends: 2, crashes: 1, retries: 1, ..pair() }
}

#[test]
fn fences() {
    holds("a write, a raise, a write", Setup { sends: 2, ..fenced(pair()) });
    holds("of three", fenced(trio()));
    let lead = vec![Change::Lead(TWO), Change::Lead(ONE)];
    holds(
        "a write and a raise, the primary changes twice",
        Setup { crashes: 0, changes: lead, ..fenced_crash() },
    );
    let two = Setup { writes: vec![0, FENCE, 1, FENCE], fences: vec![0, 1, 1, 2], ..pair() };
    holds_in_full("two raises, writes of two chunks", two);
}

#[test]
fn fences_while_a_group_moves() {
    let changes = moves(THREE, ONE);
    holds(
        "a write and a raise, the group moves",
        Setup { sends: 1, crashes: 0, disks: 3, changes, ..fenced_crash() },
    );
}

#[test]
fn fences_and_crashes() {
    let crash = fenced_crash();
    holds("a write and a raise sent twice, a crash", crash.clone());
    holds(
        "a write and a raise, the primary of three crashes",
        Setup { sends: 1, ..Setup { disks: 3, serving: 3, rules: trio().rules, ..crash.clone() } },
    );
    holds(
        "a write and a raise, one refused by a disk, a call given up",
        Setup { crashes: 0, disk_faults: 1, losses: 1, ..crash.clone() },
    );
    holds_in_full("a write, a raise, a write, a crash", Setup { crashes: 1, retries: 1, ..fenced(pair()) });
    holds_in_full(
        "a write and a raise, the primary out, a crash",
        Setup { sends: 1, changes: vec![Change::Out(ONE)], ..crash },
    );
}

#[test]
fn reads_that_take_time() {
    let reads = Setup { writes: vec![0, 0], reads: 1, retries: 1, commits: true, ..pair() };
    holds("two writes, one refused by a disk, a read", Setup { disk_faults: 1, ..reads.clone() });
    holds("two writes, a crash, a read", Setup { crashes: 1, ..reads });
    let out = Setup { writes: vec![0], reads: 1, changes: vec![Change::Out(ONE)], ..trio() };
    holds("a write, the primary out, a read", out);
}

#[test]
fn mistakes_are_noticed() {
    let one = || Setup { writes: vec![0], ..pair() };
    let two = || Setup { writes: vec![0, 0], ..pair() };
    breaks(Bug::AcknowledgeEarly, "I1", one());
    breaks(Bug::Unsynced, "I1", Setup { crashes: 1, ..one() });
    let out = vec![Change::Out(ONE)];
    breaks(Bug::ForgetPromise, "I1", Setup { changes: out.clone(), crashes: 1, retries: 1, ..two() });
    breaks(Bug::ForgetStamp, "I5", Setup { sends: 2, ..one() });
    breaks(Bug::ForgetFence, "fence", fenced(pair()));
    breaks(Bug::RaiseAtOnce, "fence", fenced(pair()));
    breaks(Bug::SettleEarly, "I1", Setup { changes: back(ONE), ..two() });
    breaks(Bug::JoiningLeads, "I1", Setup { changes: back(ONE), ..two() });
    breaks(Bug::LeaseNotWaitedFor, "I4", Setup { changes: out.clone(), ..one() });
    breaks(Bug::NoLease, "I4", Setup { changes: out, ..one() });
    breaks(Bug::LateReadPermit, "I4", Setup { reads: 1, disk_faults: 1, retries: 1, commits: true, ..two() });
    breaks(Bug::CommitEarly, "I4", one());
    breaks(Bug::EqualiseEarly, "I1", Setup { losses: 1, retries: 1, ..one() });
    breaks(Bug::WriteOfAnyActivation, "equal versions", Setup { disk_faults: 1, retries: 1, ..two() });
    breaks(Bug::WriteOfAnyActivation, "equal versions", Setup { crashes: 1, ..two() });
    breaks(Bug::InstallOfAnyActivation, "I", Setup { losses: 3, retries: 2, ..two() });
    let crashes = Setup { crashes: 2, retries: 1, cold: true, clock_back: true, ..one() };
    breaks(Bug::ActivateOfAnyActivation, "I4", crashes);
    breaks(Bug::ForgetRetry, "rest", Setup { losses: 2, retries: 1, ..one() });
}

/// Each arrow in the tables of `replication.md` is taken. (That no other way is, and that what cannot be is not, is looked at in all
/// configurations.)
#[test]
fn the_tables_are_what_happens() {
    let faults = Setup { writes: vec![0, 0], disk_faults: 1, losses: 1, retries: 1, ..pair() };
    let crash = Setup { writes: vec![0, 0], crashes: 1, losses: 1, retries: 1, ..pair() };
    let cold = Setup { writes: vec![0], crashes: 1, losses: 1, doubles: 1, retries: 1, cold: true, ..pair() };
    let all = [faults, crash, cold].map(|setup| explore(setup, STATES_MAX));
    all.iter().for_each(|report| assert!(report.complete, "{:?}", report.broken));
    let moves = all.into_iter().flat_map(|report| report.moves).collect();
    let missing = Tables::read().missing(&moves);
    assert!(missing.is_empty(), "{missing:#?} of {moves:#?}");
}

/// What the protocol does without needing it, as far as these configurations tell.
#[test]
fn what_more_than_one_rule_prevents() {
    let fills = Setup { writes: vec![0, 0], changes: back(ONE), bug: Some(Bug::FillUncommitted), ..pair() };
    holds("uncommitted versions are filled", fills);
    let crash = Setup { writes: vec![0, 0], reads: 1, crashes: 1, retries: 1, commits: true, ..pair() };
    let bug = Some(Bug::MessagesOutliveProcesses);
    holds("messages outlive processes", Setup { bug, ..crash });
}
