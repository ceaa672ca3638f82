//! What a member keeps for others, and what it waits for, is bounded, whatever they do.

use chunkserver_core::{Effect, Limits, PeerError, Refusal};

use super::member::{Member, PEER, fills, forwards, key, page, replicate, version};

#[test]
fn two_chunks_are_on_their_way_at_a_time_and_without_a_damaged_one_nobody_is_level() {
    let (mut member, begun) = Member::fill(0..5);
    assert_eq!(fills(&begun), [0, 1]);
    assert_eq!(fills(&member.filled(0, Ok(version(1)))), [2]);
    assert_eq!(fills(&member.filled(1, Err(PeerError::SourceDamaged))), [3]);
    assert_eq!(fills(&member.filled(2, Ok(version(1)))), [4]);
    assert!(!member.is_level());
    member.filled(3, Ok(version(1)));
    let last = member.filled(4, Ok(version(1)));
    assert!(!member.is_level() && matches!(last[..], [Effect::RetryFill { peer: PEER, .. }]), "{last:?}");

    let (mut member, _) = Member::fill(0..2);
    member.filled(0, Ok(version(1)));
    let last = member.filled(1, Ok(version(1)));
    assert!(member.is_level() && matches!(last[..], [Effect::Level { peer: PEER, .. }]), "{last:?}");
}

#[test]
fn writes_are_kept_during_an_install_up_to_a_bound_and_then_it_begins_again() {
    for (writes, again) in [(64, false), (65, true)] {
        let (mut member, _) = Member::fill([0]);
        for _ in 0..writes {
            assert_eq!(forwards(&member.write(0)), 0, "the chunk is on its way");
        }
        // It was read after the first of them.
        let after = member.filled(0, Ok(version(2)));
        assert_eq!(fills(&after).len(), usize::from(again), "{writes} writes");
        assert_eq!(forwards(&after), if again { 0 } else { writes - 1 });
    }
}

#[test]
fn writes_that_are_not_answered_are_forwarded_up_to_a_bound_and_then_chunks_are_installed() {
    let (mut member, _) = Member::fill([]);
    assert!(member.is_level());
    for index in 0..64 {
        assert_eq!(forwards(&member.write(index)), 1);
    }
    let beyond = member.write(64);
    assert_eq!((forwards(&beyond), fills(&beyond)), (0, vec![64]));
    assert!(!member.is_level());
    let activation = member.replica.activation();
    let failed =
        member.run(|replica, io| replica.forwarded(PEER, activation, key(3), Err(PeerError::Failed), io));
    assert_eq!(fills(&failed), [3], "a write that did not arrive is made good");
    assert_eq!(forwards(&member.write(65)), 1, "there is room again");
}

#[test]
fn a_member_that_lists_the_same_page_again_is_not_asked_for_ever() {
    let mut member = Member::new(0..3);
    member.lead(&[PEER], &[]);
    member.prepared(page(Vec::new(), true));
    let first = vec![(key(0), version(1)), (key(1), version(1))];
    let next = member.prepared(page(first.clone(), false));
    assert!(matches!(next[..], [Effect::Prepare { after: Some(Some(_)), .. }]), "{next:?}");
    let again = member.prepared(page(first, false));
    assert!(matches!(again[..], [Effect::Retry { .. }]), "{again:?}");
}

#[test]
fn a_secondary_holds_back_a_bounded_number_of_early_writes() {
    let mut member = Member::follow([], 5);
    let bound = Limits::default().early_max as u64;
    for counter in 2..2 + bound {
        assert_eq!(member.replicate(replicate(counter, 5, counter)), []);
    }
    let beyond = member.replicate(replicate(9999, 5, 9999));
    assert_eq!(beyond, [Effect::Answer { token: 9999, result: Err(Refusal::Busy) }]);
    let answers = member.replicate(replicate(1, 5, 1));
    assert_eq!(answers.len() as u64, bound + 1, "the first one lets all that waited for it go on");
}
