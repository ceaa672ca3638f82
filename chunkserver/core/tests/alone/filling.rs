//! How a primary fills a syncing member, and how that member lets itself be filled.

use chunkserver_core::{Effect, Fault, Page, PeerError, Refusal};
use coord_types::Version;

use super::member::{
    EPOCH, INCARNATION, Member, PEER, SPARE, answer, forwards, key, page, replicate, version,
};

const CONFLICT: Refusal = Refusal::Fault(Fault::Conflict);

/// A member that is being filled.
fn filled(chunks: impl IntoIterator<Item = u32>, activation: u64) -> Member {
    let mut member = Member::new(chunks);
    member.run(|replica, io| replica.prepare(1, (EPOCH, activation), true, io));
    member
}

#[test]
fn only_what_is_compared_is_forwarded() {
    let mut member = Member::new([0]);
    member.lead(&[], &[PEER]);
    assert_eq!(forwards(&member.write(0)), 0, "nothing is prepared");
    member.prepared(page(Vec::new(), true));
    assert_eq!(forwards(&member.write(0)), 0, "no page has come");
    let next = member.prepared(page(vec![(key(0), version(3))], false));
    assert!(matches!(next[..], [Effect::Prepare { after: Some(Some(_)), .. }]), "{next:?}");
    assert_eq!((forwards(&member.write(0)), forwards(&member.write(5))), (1, 0), "up to the page's end");
}

/// A syncing member gets what is committed only: what is in flight counts as what is committed of it.
#[test]
fn what_is_in_flight_is_not_behind() {
    let mut member = Member::new([0]);
    member.lead(&[PEER], &[SPARE]);
    member.prepared(page(Vec::new(), true));
    member.prepared(page(vec![(key(0), version(1))], true));
    member.activated();
    member.prepared_by(SPARE, page(Vec::new(), true));
    assert_eq!(forwards(&member.write(0)), 0, "the other member has not said that it is durable");
    let compared = member.prepared_by(SPARE, page(vec![(key(0), version(1))], true));
    assert!(matches!(compared[..], [Effect::Level { peer: SPARE, .. }]), "{compared:?}");
    assert_eq!(forwards(&member.replicated(0, version(2))), 1);
}

#[test]
fn a_member_that_was_started_again_is_compared_from_the_beginning() {
    let (mut member, _) = Member::fill([]);
    assert!(member.is_level());
    let news = member.run(|replica, io| replica.heard_of(PEER, INCARNATION + 1, io));
    assert!(matches!(news[..], [Effect::Prepare { after: None, fill: true, .. }]), "{news:?}");
    member.prepared(page(Vec::new(), true));
    assert!(!member.is_level());
    assert_eq!(forwards(&member.write(0)), 0, "nothing is compared any more");
    let other = member.prepared(Ok(Page { chunks: Vec::new(), end: true, incarnation: INCARNATION + 2 }));
    assert!(matches!(other[..], [Effect::RetryFill { peer: PEER, .. }]), "{other:?}");
}

/// It follows an activation of this primary's earlier life, drawn from a clock that was ahead.
#[test]
fn a_member_that_promised_more_makes_the_group_begin_above_it() {
    let (mut member, _) = Member::fill([0]);
    assert_eq!(member.replica.behind().collect::<Vec<_>>(), [(PEER, 1)]);
    let above = member.filled(0, Err(PeerError::Stale { epoch: EPOCH, activation: 99 }));
    assert!(matches!(above[..], [Effect::Prepare { activation: 100, fill: true, .. }]), "{above:?}");
    assert_eq!(member.replica.activation(), 100);
}

#[test]
fn what_a_member_was_behind_is_forgotten_with_the_activation() {
    let mut member = Member::new([0]);
    member.lead(&[PEER], &[SPARE]);
    member.prepared(page(Vec::new(), true));
    member.prepared(page(vec![(key(0), version(1))], true));
    member.activated();
    member.prepared_by(SPARE, page(Vec::new(), true));
    member.prepared_by(SPARE, page(Vec::new(), true));
    assert_eq!(member.replica.behind().collect::<Vec<_>>(), [(SPARE, 1)]);
    member.run(|replica, io| replica.heard_of(PEER, INCARNATION + 1, io));
    assert_eq!(member.replica.behind().collect::<Vec<_>>(), [(SPARE, 0)]);
}

/// The disk would do both at once, and which comes first nobody knows.
#[test]
fn a_chunk_takes_no_write_while_it_is_installed() {
    let mut member = filled([0], 5);
    assert_eq!(member.install((EPOCH, 5), 0), Ok(()));
    assert_eq!(answer(&member.replicate(replicate(2, 5, 2))), Some(Err(CONFLICT)));
    member.installed(0, version(2));
    assert_eq!(answer(&member.replicate(replicate(3, 5, 3))), Some(Ok(version(3))));
}

/// Otherwise the disk might never be at rest, and its list never be told.
#[test]
fn a_member_whose_list_is_waited_for_takes_no_writes() {
    let mut member = filled([0], 5);
    assert_eq!(member.install((EPOCH, 5), 1), Ok(()));
    assert_eq!(member.run(|replica, io| replica.prepare(2, (EPOCH, 5), true, io)), []);
    let stale = Refusal::Stale { epoch: EPOCH, activation: 5 };
    assert_eq!(answer(&member.replicate(replicate(3, 5, 2))), Some(Err(stale)));
    let listed = member.installed(1, version(1));
    assert_eq!(answer(&listed), Some(Ok(Version::NONE)), "the answer to Prepare");
    assert_eq!(answer(&member.replicate(replicate(4, 5, 2))), Some(Ok(version(2))));
}

/// A member is filled with thousands of chunks that nobody will ever tell it are committed.
#[test]
fn what_was_forwarded_leaves_nothing_to_remember() {
    let mut member = filled([0], 5);
    let before = format!("{:?}", member.replica);
    assert_eq!(answer(&member.replicate(replicate(2, 5, 2))), Some(Ok(version(2))));
    assert_eq!(format!("{:?}", member.replica), before);
}
