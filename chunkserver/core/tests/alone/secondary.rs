//! What a secondary takes, when, and of whom.

use chunkserver_core::{Effect, Fault, ReadVerdict, Refusal};
use coord_types::{Epoch, Version};

use super::member::{EPOCH, ME, Member, PEER, answer, key, replicate, version};

const NEXT: Epoch = Epoch(2);
const STALE: Refusal = Refusal::Stale { epoch: EPOCH, activation: 5 };
const CONFLICT: Refusal = Refusal::Fault(Fault::Conflict);

/// A primary's spell that is over has no say any more, within its epoch too.
#[test]
fn takes_nothing_of_an_activation_that_is_over() {
    let mut member = Member::follow([], 5);
    assert_eq!(answer(&member.prepare(3, (EPOCH, 4))), Some(Err(STALE)));
    assert_eq!(answer(&member.replicate(replicate(4, 4, 1))), Some(Err(STALE)));
    assert!(member.disk.0.is_empty());
    assert_eq!(answer(&member.replicate(replicate(5, 5, 1))), Some(Ok(version(1))));
    assert_eq!(member.disk.0.len(), 1);
}

/// Otherwise it could follow the old primary once more after a crash (I3).
#[test]
fn does_nothing_in_an_epoch_before_it_is_promised_durably() {
    let mut member = Member::follow([], 5);
    let at = (NEXT, 1);
    let begun = member.prepare(3, at);
    assert_eq!(begun, [Effect::Outdated { epoch: NEXT }, Effect::Promise { epoch: NEXT }]);
    let refused = Refusal::Stale { epoch: NEXT, activation: 1 };
    assert_eq!(member.replica.check_preparing(at), Err(refused));
    assert_eq!(member.install(at, 0), Err(refused));
    assert_eq!(answer(&member.activate(4, at)), Some(Err(refused)));
    let promised = member.run(|replica, io| replica.promised(NEXT, io));
    assert_eq!(answer(&promised), Some(Ok(Version::NONE)), "the answer to Prepare");
    assert_eq!(member.install(at, 0), Ok(()));
}

#[test]
fn follows_no_table_older_than_what_it_promised() {
    let mut member = Member::new([]);
    member.prepare(1, (NEXT, 1));
    assert_eq!(member.table(EPOCH, &[ME, PEER], &[]), []);
    assert!(!member.replica.is_primary());
    assert_eq!(member.replica.epoch(), NEXT);
}

#[test]
fn is_not_changed_by_a_late_install_once_it_is_active() {
    let mut member = Member::follow([0], 5);
    assert_eq!(member.replica.check_preparing((EPOCH, 5)), Err(STALE));
    assert_eq!(member.install((EPOCH, 5), 0), Err(STALE));
    assert_eq!(answer(&member.activate(3, (EPOCH, 5))), Some(Ok(Version::NONE)), "again is nothing new");
}

/// The primary gave up waiting for the install: what the disk does to the chunk is not decided yet.
#[test]
fn is_not_activated_while_the_disk_works() {
    let mut member = Member::new([0]);
    let at = (EPOCH, 5);
    member.prepare(1, at);
    assert_eq!(member.install(at, 0), Ok(()));
    assert_eq!(answer(&member.activate(2, at)), Some(Err(Refusal::NotServing)));
    member.installed(0, version(2));
    assert_eq!(answer(&member.activate(3, at)), Some(Ok(Version::NONE)));
}

/// What was read may have been taken back by the comparison, and its version given again.
#[test]
fn what_was_read_before_an_activation_is_not_shown_after_it() {
    let mut member = Member::follow([0], 5);
    let at = (key(0), version(1));
    let before = member.replica.may_read(EPOCH).unwrap();
    assert_eq!(member.replica.read(8, before, at), Ok(ReadVerdict::Show));
    member.prepare(3, (EPOCH, 6));
    assert_eq!(member.replica.read(8, before, at), Ok(ReadVerdict::Show), "it is what all had");
    member.activate(4, (EPOCH, 6));
    assert_eq!(member.replica.read(8, before, at), Err(Refusal::NotCommitted));
    let after = member.replica.may_read(EPOCH).unwrap();
    assert_eq!(member.replica.read(8, after, at), Ok(ReadVerdict::Show));
}

/// Not even if it is told of what was committed before.
#[test]
fn what_was_installed_is_not_shown_before_the_activation() {
    let mut member = Member::follow([0], 5);
    let at = (EPOCH, 6);
    member.prepare(3, at);
    assert_eq!(member.install(at, 0), Ok(()));
    member.replica.committed(key(0), version(1));
    member.installed(0, version(2));
    let permit = member.replica.may_read(EPOCH).unwrap();
    let read = member.replica.read(8, permit, (key(0), version(2)));
    assert_eq!(read, Err(Refusal::NotCommitted));
    member.activate(4, at);
    let permit = member.replica.may_read(EPOCH).unwrap();
    assert_eq!(member.replica.read(8, permit, (key(0), version(2))), Ok(ReadVerdict::Show));
}

#[test]
fn a_write_that_leaves_versions_out_is_refused() {
    let mut member = Member::follow([0], 5);
    for counter in 2..=3 {
        assert_eq!(answer(&member.replicate(replicate(3, 5, counter))), Some(Ok(version(counter))));
    }
    let mut other = replicate(4, 5, 5);
    other.previous = version(2);
    assert_eq!(answer(&member.replicate(other)), Some(Err(CONFLICT)));
    assert_eq!(member.disk.0[&key(0)], version(3));
}

/// The primary's second try of a write that failed here must not pass for one that came twice.
#[test]
fn a_write_that_failed_stays_failed_and_takes_its_followers_with_it() {
    let mut member = Member::follow([], 5);
    member.fault = Some(Fault::Full);
    let full = Refusal::Fault(Fault::Full);
    assert_eq!(answer(&member.replicate(replicate(3, 5, 1))), Some(Err(full)));
    member.fault = None;
    assert_eq!(answer(&member.replicate(replicate(4, 5, 1))), Some(Err(CONFLICT)));
    assert_eq!(answer(&member.replicate(replicate(5, 5, 2))), Some(Err(CONFLICT)));
    assert!(member.disk.0.is_empty());
}
