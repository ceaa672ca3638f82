//! Arbitrary bytes for the decoder: it never panics, and what it takes has one encoding. The same as `fuzz/` does for longer.
#![allow(clippy::unwrap_used, reason = "helpers of tests are tests")]

mod common;

use common::{authorities, granted, key, terms};
use proptest::prelude::*;
use zhongkui::text::{read_capability, write_capability};
use zhongkui::{MalformedCapability, UnverifiedCapability};

fn drive(bytes: &[u8]) -> Result<(), MalformedCapability> {
    let sent = UnverifiedCapability::decode(bytes)?;
    // Nobody without the keys makes one that is taken.
    if let Ok(taken) = sent.verify(&authorities()) {
        assert_eq!(taken.bytes(), bytes);
    }
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2048))]

    #[test]
    fn any_bytes(bytes in prop::collection::vec(any::<u8>(), 0..1200)) {
        let _ = drive(&bytes);
        let _ = drive(&[b"ZKCP\x01\x01".as_slice(), &bytes].concat());
    }

    #[test]
    fn a_capability_with_some_bytes_changed(changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..6), cut in any::<prop::sample::Index>()) {
        let capability = granted(&key(2), &["read,write on directory:6", "lock on nuwa:/a/"])
            .narrow(&key(2), terms(&key(3), &["read on everything"])).unwrap();
        let mut bytes = capability.bytes().to_vec();
        for (at, byte) in changes {
            let at = at.index(bytes.len());
            bytes[at] = byte;
        }
        let _ = drive(&bytes);
        let _ = drive(&bytes[..cut.index(bytes.len())]);
    }
}

#[test]
fn what_is_wrong_is_said() {
    let good = granted(&key(2), &["read on directory:6"]).bytes().to_vec();
    let with = |at: usize, byte: u8| {
        let mut bytes = good.clone();
        bytes[at] = byte;
        drive(&bytes).unwrap_err()
    };
    assert_eq!(drive(&good), Ok(()));
    assert_eq!(with(0, b'X'), MalformedCapability::Magic);
    assert_eq!(with(4, 2), MalformedCapability::Version { found: 2 });
    assert_eq!(with(5, 0), MalformedCapability::Blocks(0));
    assert_eq!(with(5, 9), MalformedCapability::Blocks(9));
    assert_eq!(with(5, 2), MalformedCapability::Short);
    assert_eq!(drive(&[good.clone(), vec![0; 3]].concat()), Err(MalformedCapability::Excess { bytes: 3 }));
    assert_eq!(drive(&[0; 1025]), Err(MalformedCapability::TooLong(1025)));
    // The grant is the last thing before the signature: rights 2, tag 1, length 1, inode 8.
    let grant = good.len() - 64 - 12;
    assert_eq!(with(grant + 1, 0x80), MalformedCapability::UnknownRights { bits: 0x8001 });
    assert_eq!(with(grant, 0), MalformedCapability::Rights(zhongkui::terms::NoRights));
    assert_eq!(with(grant + 2, 200), MalformedCapability::UnknownResource { tag: 200 });
    assert_eq!(with(grant + 2, 0), MalformedCapability::Excess { bytes: 8 });
    assert_eq!(with(grant + 3, 9), MalformedCapability::Short);
}

#[test]
fn as_text_it_is_the_same() {
    let capability = granted(&key(2), &["read on directory:6"]);
    let text = format!("# alice's\n{}\n", write_capability(&capability));
    assert_eq!(read_capability(&text).unwrap().verify(&authorities()).unwrap(), capability);
}
