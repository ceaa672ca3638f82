//! Arbitrary bytes for the decoders: they never panic, and what they take has one encoding. `fuzz/` does the same for longer.
#![allow(clippy::unwrap_used, reason = "helpers of tests are tests")]

mod common;
#[path = "common/drive.rs"]
mod drive;

use common::tokens::{batch, signed};
use common::{authorities, granted, key, terms};
use proptest::prelude::*;
use proptest::sample::Index;
use zhongkui::text::{read_capability, write_capability};
use zhongkui::{Capability, MalformedCapability};

/// Up to five bytes are changed, put in or taken out, and what is behind some place is cut off.
#[derive(Clone, Debug)]
struct Mutation {
    steps: Vec<(u8, Index, u8)>,
    cut: Option<Index>,
}

impl Mutation {
    fn of(&self, bytes: &[u8]) -> Vec<u8> {
        let mut bytes = bytes.to_vec();
        for (kind, at, byte) in &self.steps {
            let at = at.index(bytes.len());
            match kind {
                0 => bytes.insert(at, *byte),
                1 if bytes.len() > 1 => drop(bytes.remove(at)),
                _ => bytes[at] = *byte,
            }
        }
        if let Some(cut) = self.cut {
            bytes.truncate(cut.index(bytes.len()));
        }
        bytes
    }
}

/// Mostly bytes that are changed: a length that does not fit hides what is behind it.
fn mutation() -> impl Strategy<Value = Mutation> {
    let steps = prop::collection::vec((0..8_u8, any::<Index>(), any::<u8>()), 1..6);
    (steps, prop::option::weighted(0.2, any::<Index>())).prop_map(|(steps, cut)| Mutation { steps, cut })
}

/// With a narrowing, and most kinds of resources.
fn capability() -> Capability {
    let grants = ["read,write on directory:6", "lock on nuwa:/a/", "run on queue:q", "serve on service:s.S"];
    granted(&key(2), &grants).narrow(&key(2), terms(&key(3), &["read on everything"])).unwrap()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(4096))]

    #[test]
    fn any_bytes(bytes in prop::collection::vec(any::<u8>(), 0..1200)) {
        let _ = drive::capability(&bytes);
        let _ = drive::capability(&[b"ZKCP\x01\x01", &bytes[..]].concat());
        let _ = drive::token(&bytes);
        let _ = drive::token(&[b"ZKCT\x01\x01\x01\0", &bytes[..]].concat());
        drive::text(&bytes);
    }

    #[test]
    fn any_text(words in prop::collection::vec(".{0,20}", 0..6)) {
        drive::text(words.join("\n").as_bytes());
        drive::text(format!("feitian-capability-1 {}", words.concat()).as_bytes());
    }

    #[test]
    fn a_capability_that_was_changed(mutation in mutation()) {
        let _ = drive::capability(&mutation.of(capability().bytes()));
    }

    #[test]
    fn a_token_that_was_changed(mutation in mutation(), at in any::<Index>()) {
        let _ = drive::token(&mutation.of(at.get::<Vec<u8>>(&signed(&batch(5)))));
    }

    #[test]
    fn a_text_that_was_changed(mutation in mutation()) {
        let text = format!("# alice's\n{}\n", write_capability(&capability()));
        drive::text(&mutation.of(text.as_bytes()));
    }
}

#[test]
fn what_is_wrong_is_said() {
    let good = granted(&key(2), &["read on directory:6"]).bytes().to_vec();
    let with = |at: usize, byte: u8| {
        let mut bytes = good.clone();
        bytes[at] = byte;
        drive::capability(&bytes).unwrap_err()
    };
    assert_eq!(drive::capability(&good), Ok(()));
    assert_eq!(with(0, b'X'), MalformedCapability::Magic);
    assert_eq!(with(4, 2), MalformedCapability::Version { found: 2 });
    assert_eq!(with(5, 0), MalformedCapability::Blocks(0));
    assert_eq!(with(5, 9), MalformedCapability::Blocks(9));
    assert_eq!(with(5, 2), MalformedCapability::Short);
    assert_eq!(
        drive::capability(&[good.clone(), vec![0; 3]].concat()),
        Err(MalformedCapability::Excess { bytes: 3 })
    );
    assert_eq!(drive::capability(&[0; 1025]), Err(MalformedCapability::TooLong(1025)));
    // The grant is the last thing before the signature: rights 2, tag 1, length 1, inode 8.
    let grant = good.len() - 64 - 12;
    assert_eq!(with(grant + 1, 0x80), MalformedCapability::UnknownRights { bits: 0x8001 });
    assert_eq!(with(grant, 0), MalformedCapability::Rights(zhongkui::terms::NoRights));
    assert_eq!(with(grant + 2, 200), MalformedCapability::UnknownResource { tag: 200 });
    assert_eq!(with(grant + 2, 0), MalformedCapability::Excess { bytes: 8 });
    assert_eq!(with(grant + 3, 9), MalformedCapability::Short);
}

/// What fuzzing begins with is taken by the decoders, else it would not come far.
#[test]
fn seeds_are_taken() {
    let seeds = |of: &str| -> Vec<Vec<u8>> {
        let folder = format!("{}/fuzz/seeds/{of}", env!("CARGO_MANIFEST_DIR"));
        std::fs::read_dir(folder).unwrap().map(|file| std::fs::read(file.unwrap().path()).unwrap()).collect()
    };
    let [capabilities, tokens, texts] = ["capability", "token", "text"].map(seeds);
    assert!(!capabilities.is_empty() && !tokens.is_empty() && !texts.is_empty());
    capabilities.iter().for_each(|seed| drive::capability(seed).unwrap());
    tokens.iter().for_each(|seed| drive::token(seed).unwrap());
    assert!(texts.iter().all(|seed| drive::text(seed)));
}

#[test]
fn as_text_it_is_the_same() {
    let capability = granted(&key(2), &["read on directory:6"]);
    let text = format!("# alice's\n{}\n", write_capability(&capability));
    assert_eq!(read_capability(&text).unwrap().verify(&authorities()).unwrap(), capability);
}
