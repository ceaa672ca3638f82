//! Fences at the primary: what is refused, and what a raise waits for.

use chunkserver_core::{Effect, Refusal};
use coord_types::{ChunkKey, Fence};

use super::member::{Member, PEER, answer, page, version};

const ONE: Fence = Fence(1);
const TWO: Fence = Fence(2);
const RAISED: u64 = 77;

/// The primary of two, active.
fn primary() -> Member {
    let mut member = Member::new([]);
    member.lead(&[PEER], &[]);
    activate(&mut member);
    member
}

fn activate(member: &mut Member) -> Vec<Effect<()>> {
    member.prepared(page(Vec::new(), true));
    for effect in member.prepared(page(Vec::new(), true)) {
        if let Effect::Equalise { key, .. } = effect {
            member.equalised(key.chunk.index, Ok(()));
        }
    }
    member.activated()
}

fn is_raised(effects: &[Effect<()>]) -> bool {
    effects.iter().any(|effect| matches!(effect, Effect::Answer { token: RAISED, result: Ok(_) }))
}

/// The other member has the raise, too.
fn confirm_raise(member: &mut Member, fence: Fence) -> Vec<Effect<()>> {
    member.replicated(ChunkKey::FENCE_INDEX, version(fence.0))
}

#[test]
fn a_raise_refuses_what_is_lower_from_the_moment_it_is_ordered() {
    let mut member = primary();
    assert!(!is_raised(&member.raise(RAISED, ONE)));
    let fenced = Refusal::Fenced { fence: ONE };
    assert_eq!(answer(&member.write(0)), Some(Err(fenced)), "not on all members yet, and in force");
    assert_eq!(answer(&member.write_under(0, ONE)), None, "ordered");
    assert!(is_raised(&confirm_raise(&mut member, ONE)));
    assert_eq!(answer(&member.write(3)), Some(Err(fenced)), "as the record says");
    assert_eq!(answer(&member.raise(1, Fence::NONE)), Some(Err(fenced)));
    assert!(!is_raised(&member.raise(RAISED, TWO)));
    assert_eq!(answer(&member.write_under(4, ONE)), Some(Err(Refusal::Fenced { fence: TWO })));
}

#[test]
fn a_raise_is_answered_after_all_lower_writes_of_its_data() {
    let mut member = primary();
    member.write(0);
    member.write(3);
    member.raise(RAISED, ONE);
    member.write_under(5, ONE);
    assert!(!is_raised(&confirm_raise(&mut member, ONE)), "durable everywhere, and two may still land");
    assert!(!is_raised(&member.replicated(3, version(1))));
    assert!(is_raised(&member.replicated(0, version(1))), "the write under the new fence is not waited for");
}

#[test]
fn raises_are_answered_in_their_order() {
    let mut member = primary();
    member.raise(RAISED, ONE);
    member.write_under(0, ONE);
    member.raise(RAISED + 1, TWO);
    let first = confirm_raise(&mut member, ONE);
    assert!(is_raised(&first), "{first:?}");
    let second = confirm_raise(&mut member, TWO);
    assert_eq!(answer(&second), None, "a write under the first is in flight: {second:?}");
    let landed = member.replicated(0, version(1));
    let ends = landed.iter().filter(|effect| matches!(effect, Effect::Answer { result: Ok(_), .. })).count();
    assert_eq!(ends, 2, "the write, then the raise that waited for it: {landed:?}");
}

/// Writes that waited for the activation are looked at when they are ordered.
#[test]
fn what_was_queued_before_a_raise_is_queued_before_it() {
    let mut member = Member::new([]);
    member.lead(&[PEER], &[]);
    member.write(0);
    member.raise(RAISED, ONE);
    member.write(3);
    let begun = activate(&mut member);
    let refused = |effect: &&Effect<()>| {
        matches!(effect, Effect::Answer { result: Err(Refusal::Fenced { fence: ONE }), .. })
    };
    assert_eq!(begun.iter().filter(refused).count(), 1, "{begun:?}");
    assert!(!is_raised(&confirm_raise(&mut member, ONE)));
    assert!(is_raised(&member.replicated(0, version(1))));
}

/// An attempt commits all that is in flight at once.
#[test]
fn an_activation_ends_the_wait_of_a_raise() {
    let mut member = primary();
    member.write(0);
    member.raise(RAISED, ONE);
    let activation = member.replica.activation();
    member.run(|replica, io| replica.heard_of(PEER, 99, io));
    assert!(member.replica.activation() > activation);
    assert!(is_raised(&activate(&mut member)));
    assert_eq!(answer(&member.write(3)), Some(Err(Refusal::Fenced { fence: ONE })));
}
