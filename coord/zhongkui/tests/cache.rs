//! The cache answers as verifying does, remembers only what is true, and no more than it has room for.
#![allow(clippy::unwrap_used, reason = "helpers of tests are tests")]

mod common;

use std::sync::Arc;

use common::{authorities, granted, key, root, terms};
use zhongkui::{Authorities, Capability, CapabilityId, Forged, MalformedCapability, Unproved, VerifiedCache};

#[test]
fn what_was_verified_is_found_again() {
    let mut cache = VerifiedCache::default();
    let capability = granted(&key(2), &["read on everything"]);
    let first = cache.get_or_verify(capability.bytes(), &authorities()).unwrap();
    let again = cache.get_or_verify(capability.bytes(), &authorities()).unwrap();
    assert_eq!(*first, capability);
    assert!(Arc::ptr_eq(&first, &again));
    assert_eq!(cache.len(), 1);
}

#[test]
fn what_is_refused_is_not_remembered() {
    let mut cache = VerifiedCache::default();
    let capability = granted(&key(2), &["read on everything"]);
    cache.get_or_verify(capability.bytes(), &authorities()).unwrap();
    for bit in 0..capability.bytes().len() * 8 {
        let mut bytes = capability.bytes().to_vec();
        bytes[bit / 8] ^= 1 << (bit % 8);
        cache.get_or_verify(&bytes, &authorities()).unwrap_err();
    }
    let short = cache.get_or_verify(&[], &authorities()).unwrap_err();
    assert_eq!(short, Unproved::Malformed(MalformedCapability::Magic));
    assert!(!short.retryable());
    let made_up = Capability::grant(&key(9), root(), terms(&key(9), &["all on everything"])).unwrap();
    let stranger = cache.get_or_verify(made_up.bytes(), &authorities()).unwrap_err();
    assert_eq!(stranger, Unproved::Forged(Forged::Issuer { issuer: key(9).public().id() }));
    assert_eq!(cache.len(), 1);
}

#[test]
fn the_oldest_goes_when_there_is_no_room() {
    let mut cache = VerifiedCache::new(2);
    let numbered = |id| {
        let root = zhongkui::terms::Root { id: CapabilityId(id), ..root() };
        Capability::grant(&common::authority(), root, terms(&key(2), &["read on everything"])).unwrap()
    };
    let all: Vec<Capability> = (0..3).map(numbered).collect();
    let first = cache.get_or_verify(all[0].bytes(), &authorities()).unwrap();
    let second = cache.get_or_verify(all[1].bytes(), &authorities()).unwrap();
    cache.get_or_verify(all[2].bytes(), &authorities()).unwrap();
    assert_eq!(cache.len(), 2);
    assert!(Arc::ptr_eq(&second, &cache.get_or_verify(all[1].bytes(), &authorities()).unwrap()));
    assert!(!Arc::ptr_eq(&first, &cache.get_or_verify(all[0].bytes(), &authorities()).unwrap()));
    assert_eq!(cache.len(), 2);
}

#[test]
fn other_authorities_are_asked_again() {
    let mut cache = VerifiedCache::default();
    let capability = granted(&key(2), &["read on everything"]);
    cache.get_or_verify(capability.bytes(), &authorities()).unwrap();
    // Nobody cleared the cache, and the authority is one no more.
    let others: Authorities = [key(9).public()].into_iter().collect();
    let refused = cache.get_or_verify(capability.bytes(), &others).unwrap_err();
    assert!(refused.retryable(), "{refused}");
    cache.clear();
    assert!(cache.is_empty());
    cache.get_or_verify(capability.bytes(), &authorities()).unwrap();
}
