//! The bytes of a token are those of `docs/token.md`, and what is wrong with others is said.
#![allow(clippy::unwrap_used, reason = "helpers of tests are tests")]

mod common;

use common::END;
use common::tokens::{claims, signed, taken};
use coord_types::DataId;
use zhongkui::terms::BadValidity;
use zhongkui::token::{MalformedToken, NotDataRights};
use zhongkui::{Claims, DataRights, Rights, RootCache, Scope, UnverifiedToken};

/// Three that differ in scope and rights: the last is alone on its level.
fn three() -> [Claims; 3] {
    let read = Claims { rights: DataRights::READ, ..claims() };
    [claims(), read, Claims { scope: Scope::Everything, ..claims() }]
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Computed from the document in another language, by other implementations of SHA-512/256 and Ed25519. If these change, tokens of other
/// releases are refused: it is another version.
#[test]
fn tokens_are_what_they_were() {
    let hashes = [
        "5bd50cc61d17a35c27278fee507fcfafad67b3e177ff2117f741118690036299",
        "33931457f4ebec147949ef5f088a86cb4064973cf9d6ddf467216509d1c9dfcb",
        "15edbe6d2792bcec0297084b81fb9138ec05896003f49f787532ea9f2be49a9f",
    ];
    let node = "75fd2b66bf61fed140ace31b750333e5da29404caab1d483bf86b5bf907a8b89";
    let signature = "7ffa41ff1f2ca5a2837009b71a87e8df49cfb48192782655d9bcee5a3b038883\
                     ab2826e45255571c62e930edf0e126bb1c71b2527411ea12e705039bb8009204";
    let [of_first, of_second, of_third] = hashes;
    let expected = [
        [
            "5a4b4354010103002d05ecb45e86af3005000000000000000900000000000000\
             030000000000000040420f0080841e00",
            "5928892cbb91176600000300",
            &[of_second, of_third].concat(),
        ],
        [
            "5a4b4354010101002d05ecb45e86af3005000000000000000900000000000000\
             030000000000000040420f0080841e00",
            "5928892cbb91176601000300",
            &[of_first, of_third].concat(),
        ],
        [
            "5a4b4354010003002d05ecb45e86af3005000000000000000000000000000000\
             030000000000000040420f0080841e00",
            "5928892cbb91176602000300",
            &[node].concat(),
        ],
    ];
    for (token, [leaf, place, path]) in signed(&three()).iter().zip(expected) {
        assert_eq!(hex(token), [leaf, place, path, signature].concat());
    }
}

#[test]
fn what_is_wrong_is_said() {
    let good = &signed(&three())[0];
    let with = |changes: &[(usize, u8)]| {
        let mut bytes = good.clone();
        changes.iter().for_each(|(at, byte)| bytes[*at] = *byte);
        UnverifiedToken::decode(&bytes).unwrap_err()
    };
    assert_eq!(taken(good, &mut RootCache::default()), Some(claims()));
    assert_eq!(with(&[(3, b'P')]), MalformedToken::Magic);
    assert_eq!(with(&[(4, 2)]), MalformedToken::Version { found: 2 });
    assert_eq!(with(&[(5, 2)]), MalformedToken::UnknownScope(2));
    assert_eq!(with(&[(5, 0)]), MalformedToken::DataOfEverything(DataId(9)));
    assert_eq!(with(&[(7, 0x80)]), MalformedToken::UnknownRights { bits: 0x8003 });
    assert_eq!(
        with(&[(6, 7)]),
        MalformedToken::Rights(NotDataRights(DataRights::BOTH.rights() | Rights::LOCK))
    );
    assert_eq!(with(&[(6, 0)]), MalformedToken::Rights(NotDataRights(Rights::empty())));
    let validity = BadValidity { not_before: END, not_after: END };
    let same: Vec<(usize, u8)> = (40..).zip(END.0.to_le_bytes()).collect();
    assert_eq!(with(&same), MalformedToken::Validity(validity));
    assert_eq!(with(&[(56, 3)]), MalformedToken::Place { index: 3, count: 3 });
    assert_eq!(with(&[(58, 0)]), MalformedToken::Place { index: 0, count: 0 });
    assert_eq!(with(&[(58, 1), (59, 4)]), MalformedToken::Place { index: 0, count: 1025 });
    // A longer or shorter path than the place in the batch has.
    assert_eq!(with(&[(58, 5)]), MalformedToken::Short);
    assert_eq!(with(&[(58, 2)]), MalformedToken::Excess { bytes: 32 });
    assert_eq!(UnverifiedToken::decode(&good[..good.len() - 1]), Err(MalformedToken::Short));
    assert_eq!(UnverifiedToken::decode(&[0; 445]), Err(MalformedToken::TooLong(445)));
    assert_eq!(UnverifiedToken::decode(&[]), Err(MalformedToken::Short));
}
