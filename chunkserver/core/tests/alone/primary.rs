//! How a primary brings the members to one state, and what ends an attempt.

use chunkserver_core::{Effect, Fault, Page, PeerError, Refusal};
use coord_types::Epoch;

use super::member::{EPOCH, INCARNATION, ME, Member, PEER, answer, page};

/// The primary of two, active; what its attempt found different could not be read here, or was made equal.
fn active(chunks: impl IntoIterator<Item = u32>, equalised: Result<(), PeerError>) -> Member {
    let mut member = Member::new(chunks);
    member.lead(&[PEER], &[]);
    prepare(&mut member, equalised);
    member
}

fn prepare(member: &mut Member, equalised: Result<(), PeerError>) {
    member.prepared(page(Vec::new(), true));
    for effect in member.prepared(page(Vec::new(), true)) {
        if let Effect::Equalise { key, .. } = effect {
            member.equalised(key.chunk.index, equalised);
        }
    }
    member.activated();
}

#[test]
fn is_nobodys_secondary_in_its_epoch() {
    let mut member = Member::new([]);
    member.lead(&[], &[]);
    let refused = Refusal::Stale { epoch: EPOCH, activation: member.replica.activation() };
    assert_eq!(answer(&member.prepare(1, (EPOCH, 99))), Some(Err(refused)));
}

#[test]
fn prepares_nobody_before_its_epoch_is_promised_durably() {
    let mut member = Member::new([]);
    let next = Epoch(2);
    assert_eq!(member.table(next, &[ME, PEER], &[]), [Effect::Promise { epoch: next }]);
    let promised = member.run(|replica, io| replica.promised(next, io));
    assert!(matches!(promised[..], [Effect::Prepare { peer: PEER, after: None, .. }]), "{promised:?}");
}

/// What it promised before it was started again it does not know any more: only its epoch.
#[test]
fn begins_again_with_a_member_that_was_started_again_meanwhile() {
    let mut member = Member::new([]);
    member.lead(&[PEER], &[]);
    let listing = member.prepared(page(Vec::new(), true));
    assert!(matches!(listing[..], [Effect::Prepare { after: Some(None), .. }]), "{listing:?}");
    let other = member.prepared(Ok(Page { chunks: Vec::new(), end: true, incarnation: INCARNATION + 1 }));
    assert!(matches!(other[..], [Effect::Retry { .. }]), "{other:?}");
    let activation = member.replica.activation();
    let again = member.run(|replica, io| replica.retry(activation, io));
    assert!(matches!(again[..], [Effect::Prepare { after: None, .. }]), "{again:?}");
    assert!(member.replica.activation() > activation);
}

/// The other members may have it: only a comparison tells, and takes it off them.
#[test]
fn a_write_that_fails_here_is_taken_off_the_others() {
    let mut member = active([], Ok(()));
    let before = member.replica.activation();
    member.fault = Some(Fault::Full);
    let failed = member.write(0);
    let refused = Effect::Answer { token: 1, result: Err(Refusal::Fault(Fault::Full)) };
    assert!(failed.contains(&refused), "{failed:?}");
    assert!(matches!(failed.last(), Some(Effect::Prepare { after: None, .. })), "{failed:?}");
    assert!(member.replica.activation() > before);
}

#[test]
fn a_chunk_it_cannot_read_is_refused_until_an_attempt_finds_it_well() {
    let mut member = active([0], Err(PeerError::SourceDamaged));
    assert!(member.replica.is_broken());
    assert_eq!(answer(&member.write(0)), Some(Err(Refusal::Fault(Fault::Damaged))));
    member.run(|replica, io| replica.heard_of(PEER, INCARNATION + 1, io));
    prepare(&mut member, Ok(()));
    assert!(!member.replica.is_broken());
    assert!(member.write(0).iter().any(|effect| matches!(effect, Effect::Replicate { .. })));
}
