//! Nobody makes or widens a capability: bits changed, blocks cut off, swapped, taken from others, keys made up.
#![allow(clippy::unwrap_used, reason = "helpers of tests are tests")]

mod common;

use common::{authorities, authority, granted, key, root, terms};
use zhongkui::{Authorities, Capability, Forged, NarrowError, UnverifiedCapability};

const BLOCKS_AT: usize = 5;

/// Granted to 2, handed on to 3, and by 3 to 4.
fn chain() -> Capability {
    let first = granted(&key(2), &["read,write on directory:1", "read,lock on nuwa:/"]);
    let second = first.narrow(&key(2), terms(&key(3), &["read on directory:6", "read on nuwa:/a/"])).unwrap();
    second.narrow(&key(3), terms(&key(4), &["read on nuwa:/a/b"])).unwrap()
}

fn accepted(bytes: &[u8]) -> Option<Capability> {
    UnverifiedCapability::decode(bytes).ok().and_then(|sent| sent.verify(&authorities()).ok())
}

/// The blocks with their lengths and signatures.
fn blocks(capability: &Capability) -> Vec<Vec<u8>> {
    let mut rest = &capability.bytes()[BLOCKS_AT + 1..];
    let mut blocks = Vec::new();
    while !rest.is_empty() {
        let length = 2 + usize::from(u16::from_le_bytes([rest[0], rest[1]])) + 64;
        blocks.push(rest[..length].to_vec());
        rest = &rest[length..];
    }
    blocks
}

fn joined(blocks: &[&Vec<u8>]) -> Vec<u8> {
    let header = [b"ZKCP".as_slice(), &[1, u8::try_from(blocks.len()).unwrap()]].concat();
    blocks.iter().fold(header, |bytes, block| [bytes, block.to_vec()].concat())
}

#[test]
fn what_was_granted_and_handed_on_is_accepted_as_it_was_made() {
    let chain = chain();
    assert_eq!(accepted(chain.bytes()), Some(chain.clone()));
    assert_eq!(chain.holder(), &key(4).public());
    let shown = chain.to_string();
    for word in [
        "alice, uid 1000, gids 100 27, epoch 3",
        "directory 1 and all below: read, write",
        "/a/b in Nuwa: read",
    ] {
        assert!(shown.contains(word), "{shown}");
    }
}

#[test]
fn any_changed_bit_is_refused() {
    let chain = chain();
    for bit in 0..chain.bytes().len() * 8 {
        let mut bytes = chain.bytes().to_vec();
        bytes[bit / 8] ^= 1 << (bit % 8);
        assert_eq!(accepted(&bytes), None, "bit {bit}");
    }
}

#[test]
fn any_cut_or_addition_is_refused() {
    let chain = chain();
    for length in 0..chain.bytes().len() {
        assert_eq!(accepted(&chain.bytes()[..length]), None, "{length} bytes");
    }
    assert_eq!(accepted(&[chain.bytes(), &[0]].concat()), None);
}

#[test]
fn blocks_have_one_place_only() {
    let (ours, other) = (chain(), chain_of_others());
    let (a, b) = (blocks(&ours), blocks(&other));
    // The parent again, whose last holder is another one: it has to be proved, which a child's holder cannot.
    let parent = accepted(&joined(&[&a[0], &a[1]])).unwrap();
    assert_eq!(parent.holder(), &key(3).public());
    for forged in [
        vec![&a[0], &a[2]],
        vec![&a[1], &a[2]],
        vec![&a[0], &a[2], &a[1]],
        vec![&a[0], &a[1], &a[1]],
        vec![&a[0], &a[1], &a[2], &a[2]],
        vec![&a[0], &b[1]],
        vec![&b[0], &a[1], &a[2]],
        vec![&a[0], &a[1], &b[2]],
    ] {
        assert_eq!(accepted(&joined(&forged)), None, "{forged:?}");
    }
}

/// The same keys, another id: nothing of it fits into the first.
fn chain_of_others() -> Capability {
    let mut root = root();
    root.id.0 += 1;
    let first = Capability::grant(&authority(), root, terms(&key(2), &["all on everything"])).unwrap();
    let second = first.narrow(&key(2), terms(&key(3), &["all on everything"])).unwrap();
    second.narrow(&key(3), terms(&key(4), &["all on everything"])).unwrap()
}

#[test]
fn only_authorities_grant() {
    let made_up = Capability::grant(&key(9), root(), terms(&key(9), &["all on everything"])).unwrap();
    let sent = UnverifiedCapability::decode(made_up.bytes()).unwrap();
    assert_eq!(sent.clone().verify(&authorities()), Err(Forged::Issuer { issuer: key(9).public().id() }));
    // It says that an authority signed it.
    let mut lie = made_up.bytes().to_vec();
    lie[16..24].copy_from_slice(&authority().public().id().0);
    let lie = UnverifiedCapability::decode(&lie).unwrap();
    assert_eq!(lie.claims().issuer, authority().public().id());
    assert!(matches!(lie.verify(&authorities()), Err(Forged::Signature { block: 0, .. })));
    // While keys are rotated both count.
    let both: Authorities = [authority().public(), key(9).public()].into_iter().collect();
    assert!(sent.verify(&both).is_ok());
}

#[test]
fn only_the_holder_hands_on() {
    let capability = granted(&key(2), &["read on directory:1"]);
    let error = capability.narrow(&key(3), terms(&key(3), &["read on directory:1"])).unwrap_err();
    assert_eq!(error, NarrowError::NotTheHolder { key: key(3).public().id(), holder: key(2).public().id() });
}
