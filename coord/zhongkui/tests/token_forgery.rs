//! Nobody makes or widens a token, alone or out of others of its batch: bits changed, leaves, paths and places swapped.
#![allow(clippy::unwrap_used, reason = "helpers of tests are tests")]

mod common;

use common::key;
use common::tokens::{batch, claims, master, signed, taken};
use coord_types::{DataId, SessionId};
use proptest::prelude::*;
use zhongkui::token::encoding::LEAF_BYTES;
use zhongkui::token::{BATCH_MAX, BadBatch, ForgedToken, TOKEN_BYTES_MAX, sign};
use zhongkui::{Claims, DataRights, KeyId, Rights, RootCache, Scope, Timestamp, UnverifiedToken, Validity};

const INDEX_AT: usize = LEAF_BYTES + 8;
const PATH_AT: usize = LEAF_BYTES + 12;

/// A cache that knows the batch of these tokens already: what is refused, is refused with it, too.
fn warm(tokens: &[Vec<u8>]) -> RootCache {
    let mut roots = RootCache::default();
    assert!(taken(&tokens[0], &mut roots).is_some());
    roots
}

fn refused(bytes: &[u8], warm: &mut RootCache, what: &str) {
    assert_eq!(taken(bytes, &mut RootCache::default()), None, "{what}");
    assert_eq!(taken(bytes, warm), None, "{what}, with the batch known");
}

#[test]
fn a_batch_of_every_size_is_taken_as_it_was_signed() {
    for count in (1..=65).chain([BATCH_MAX]) {
        let claims = batch(count);
        let tokens = signed(&claims);
        let mut roots = RootCache::default();
        for (token, claims) in tokens.iter().zip(&claims) {
            assert!(token.len() <= TOKEN_BYTES_MAX);
            assert_eq!(taken(token, &mut roots), Some(*claims), "one of {count}");
        }
        assert_eq!((tokens.len(), roots.len()), (claims.len(), 1), "a batch is one signature");
    }
    assert_eq!(sign(&master(), &[]), Err(BadBatch(0)));
    assert_eq!(sign(&master(), &[claims(); 1025]), Err(BadBatch(1025)));
    assert_eq!(signed(&batch(1))[0].len(), 124);
    assert_eq!(signed(&batch(BATCH_MAX))[0].len(), TOKEN_BYTES_MAX);
}

#[test]
fn any_changed_bit_is_refused() {
    for (count, index) in [(1, 0), (3, 0), (3, 2), (BATCH_MAX, 777)] {
        let tokens = signed(&batch(count));
        let (token, mut roots) = (&tokens[index], warm(&tokens));
        for bit in 0..token.len() * 8 {
            let mut bytes = token.clone();
            bytes[bit / 8] ^= 1 << (bit % 8);
            refused(&bytes, &mut roots, &format!("bit {bit} of {index} of {count}"));
        }
        assert_eq!(roots.len(), 1, "what is refused is not remembered");
    }
}

#[test]
fn any_cut_or_addition_is_refused() {
    let tokens = signed(&batch(5));
    let mut roots = warm(&tokens);
    for length in 0..tokens[1].len() {
        refused(&tokens[1][..length], &mut roots, &format!("{length} bytes"));
    }
    refused(&[&tokens[1][..], &[0]].concat(), &mut roots, "a byte more");
    refused(&[&tokens[1][..], &[0; 32]].concat(), &mut roots, "a hash more");
}

#[test]
fn no_token_of_a_batch_is_turned_into_another() {
    for count in [2, 3, 4, 5, 7, 8, 9, 33] {
        let tokens = signed(&batch(count));
        let mut roots = warm(&tokens);
        for (one, other) in tokens.iter().flat_map(|one| tokens.iter().map(move |other| (one, other))) {
            if one == other {
                continue;
            }
            // The leaf of one, with all that proves the other.
            let leaf = [&one[..LEAF_BYTES], &other[LEAF_BYTES..]].concat();
            refused(&leaf, &mut roots, "another's proof");
            let path = [&one[..PATH_AT], &other[PATH_AT..]].concat();
            refused(&path, &mut roots, "another's path");
            let place = [&one[..INDEX_AT], &other[INDEX_AT..PATH_AT], &one[PATH_AT..]].concat();
            refused(&place, &mut roots, "another's place");
        }
    }
}

#[test]
fn any_other_index_or_count_is_refused() {
    for count in [1, 2, 5, 8, 13] {
        let tokens = signed(&batch(count));
        let mut roots = warm(&tokens);
        for (index, token) in (0..count).zip(&tokens) {
            for (said_index, said_count) in (0..20).flat_map(|index| (0..20).map(move |count| (index, count)))
            {
                if (said_index, said_count) == (index, count) {
                    continue;
                }
                let mut bytes = token.clone();
                bytes[INDEX_AT..INDEX_AT + 2].copy_from_slice(&u16::to_le_bytes(said_index));
                bytes[INDEX_AT + 2..PATH_AT].copy_from_slice(&u16::to_le_bytes(said_count));
                refused(&bytes, &mut roots, &format!("{index} of {count} as {said_index} of {said_count}"));
            }
        }
    }
}

/// A subtree's root in place of a leaf of a smaller tree: the count that is signed is another.
#[test]
fn a_batch_is_not_made_smaller() {
    let tokens = signed(&batch(8));
    let mut roots = warm(&tokens);
    for steps in 1..=3 {
        let mut bytes = tokens[0][..PATH_AT + 32 * (3 - steps)].to_vec();
        bytes.extend_from_slice(&tokens[0][tokens[0].len() - 64..]);
        bytes[INDEX_AT + 2] = 8 >> steps;
        refused(&bytes, &mut roots, &format!("without the topmost {steps}"));
    }
}

#[test]
fn batches_do_not_mix() {
    let (ours, theirs) = (signed(&batch(8)), signed(&[claims(); 8]));
    let mut roots = warm(&ours);
    assert!(taken(&theirs[0], &mut roots).is_some());
    let signature = ours[0].len() - 64;
    refused(&[&ours[0][..signature], &theirs[0][signature..]].concat(), &mut roots, "another's signature");
    refused(&[&ours[0][..PATH_AT], &theirs[0][PATH_AT..]].concat(), &mut roots, "another's path");
}

#[test]
fn only_who_may_signs() {
    let stranger = key(8);
    let bytes = sign(&stranger, &batch(3)).unwrap().remove(0);
    let mut roots = RootCache::default();
    let token = UnverifiedToken::decode(&bytes).unwrap();
    let (master, stranger) = (master().public(), stranger.public());
    assert_eq!(token.signer(), stranger.id());
    assert_eq!(
        token.verify_with(|_| None, &mut roots),
        Err(ForgedToken::UnknownSigner { signer: stranger.id() })
    );
    let other = ForgedToken::OtherSigner { signer: stranger.id(), key: master.id() };
    assert_eq!(token.verify(&master, &mut roots), Err(other));
    // It says that the master signed it.
    let mut lie = bytes.clone();
    lie[LEAF_BYTES..INDEX_AT].copy_from_slice(&master.id().0);
    let lie = UnverifiedToken::decode(&lie).unwrap();
    assert_eq!(lie.verify(&master, &mut roots), Err(ForgedToken::Signature { signer: master.id() }));
    assert!(roots.is_empty());
    // A batch that is known is not known under another key, nor when its signer is not found any more.
    assert!(token.verify(&stranger, &mut roots).is_ok());
    assert_eq!(token.verify(&master, &mut roots), Err(other));
    assert!(token.verify_with(|_| None, &mut roots).is_err());
}

#[test]
fn what_is_forgotten_is_verified_again() {
    let mut roots = RootCache::new(2);
    let batches: Vec<_> = (1..=4).map(|count| signed(&batch(count))).collect();
    for tokens in batches.iter().chain(&batches) {
        assert!(tokens.iter().all(|token| taken(token, &mut roots).is_some()));
        assert!(roots.len() <= 2);
    }
}

fn any_claims() -> impl Strategy<Value = Claims> {
    let scope = prop_oneof![Just(Scope::Everything), any::<u64>().prop_map(|data| Scope::Data(DataId(data)))];
    let times =
        (any::<u32>(), any::<u32>()).prop_filter("an end after the beginning", |(from, to)| from < to);
    let (holder, session, epoch) = (any::<[u8; 8]>(), any::<u64>(), any::<u64>());
    (holder, session, scope, 1..=3_u16, epoch, times).prop_map(
        |(holder, session, scope, rights, cluster_epoch, (from, to))| Claims {
            holder: KeyId(holder),
            session: SessionId(session),
            scope,
            rights: DataRights::new(Rights::from_bits_truncate(rights)).unwrap(),
            cluster_epoch,
            validity: Validity::new(Timestamp(from), Timestamp(to)).unwrap(),
        },
    )
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(128))]

    #[test]
    fn what_is_said_comes_back(claims in prop::collection::vec(any_claims(), 1..40)) {
        let mut roots = RootCache::default();
        for (token, said) in signed(&claims).iter().zip(&claims) {
            prop_assert_eq!(taken(token, &mut roots), Some(*said));
            prop_assert_eq!(&UnverifiedToken::decode(token).unwrap().encode(), token);
        }
    }

    /// Whatever an enemy wants a token to say, he has no proof for it.
    #[test]
    fn a_leaf_that_was_not_signed_is_refused(claims in prop::collection::vec(any_claims(), 1..20), wanted in any_claims(), at in any::<prop::sample::Index>()) {
        let tokens = signed(&claims);
        let mut roots = warm(&tokens);
        let leaf = sign(&key(8), &[wanted]).unwrap().remove(0);
        let bytes = [&leaf[..LEAF_BYTES], &tokens[at.index(tokens.len())][LEAF_BYTES..]].concat();
        if !claims.contains(&wanted) {
            refused(&bytes, &mut roots, "made up");
        }
    }

    #[test]
    fn any_changes_of_bytes_are_refused(count in 1..20_u16, changes in prop::collection::vec((any::<prop::sample::Index>(), 1..=255_u8), 1..4), at in any::<prop::sample::Index>()) {
        let tokens = signed(&batch(count));
        let token = at.get(&tokens);
        let mut bytes = token.clone();
        changes.iter().for_each(|(at, by)| bytes[at.index(token.len())] ^= by);
        if bytes != *token {
            refused(&bytes, &mut warm(&tokens), "changed");
        }
    }
}
