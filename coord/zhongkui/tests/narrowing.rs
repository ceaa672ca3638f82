//! A child never exceeds its parent, whatever it says; and what opens nothing is not made by mistake.
#![allow(clippy::unwrap_used, reason = "helpers of tests are tests")]

mod common;

use common::{BEGIN, END, Heap, NOW, authorities, granted, key, terms};
use proptest::prelude::*;
use zhongkui::{
    BLOCKS_MAX, Capability, Grant, NarrowError, Refusal, Request, Resource, Revocations, Rights, Target,
    Terms, Timestamp, UnverifiedCapability, Validity, decide,
};

const RESOURCES: [&str; 14] = [
    "everything",
    "directory:1",
    "directory:3",
    "directory:6",
    "file:13",
    "nuwa:/",
    "nuwa:/a/",
    "nuwa:/a",
    "queue:q",
    "queue:q/r",
    "action:upgrade",
    "service:s.S",
    "service:s.S/M",
    "file:6",
];

fn a_grant() -> impl Strategy<Value = Grant> {
    let rights = (1..=Rights::all().bits()).prop_map(Rights::from_bits_truncate);
    (rights, prop::sample::select(&RESOURCES[..]))
        .prop_map(|(rights, resource)| Grant::new(rights, resource.parse().unwrap()).unwrap())
}

fn some_terms() -> impl Strategy<Value = Vec<(Vec<Grant>, u32, u32)>> {
    // Few grants a block, so that several fit; times around now.
    prop::collection::vec((prop::collection::vec(a_grant(), 1..4), 0..20_u32, 1..20_u32), 1..5)
}

fn targets() -> Vec<(&'static str, Option<Heap>)> {
    let mut targets: Vec<_> = [1, 3, 6, 7, 12, 13].map(|inode| ("inode", Some(Heap(inode)))).to_vec();
    targets.extend(["/a", "/a/", "/a/b", "/b"].map(|path| (path, None)));
    targets
}

fn all_requests(mut ask: impl FnMut(Request<'_>)) {
    for needs in Rights::all().iter().chain([Rights::READ | Rights::WRITE]) {
        for (path, heap) in targets() {
            let target = heap.as_ref().map_or(Target::Nuwa(path), |heap| Target::Inode(heap));
            ask(Request { needs, target });
        }
        for target in [
            Target::Queue("q"),
            Target::Queue("q/r/s"),
            Target::Action("upgrade"),
            Target::Method("s.S/M"),
            Target::Method("s.S/N"),
        ] {
            ask(Request { needs, target });
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(256))]

    #[test]
    fn a_child_never_exceeds_its_parent(blocks in some_terms()) {
        let mut chain: Vec<Capability> = Vec::new();
        for (number, (grants, begin, span)) in blocks.into_iter().enumerate() {
            let (signer, holder) = (key(2 + number as u8), key(3 + number as u8));
            let begin = NOW.0 - 10 + begin;
            let terms = Terms::new(
                holder.public(), Validity::new(Timestamp(begin), Timestamp(begin + span)).unwrap(), grants,
            ).unwrap();
            let next = match chain.last() {
                None => Capability::grant(&common::authority(), common::root(), terms).unwrap(),
                Some(parent) => match parent.narrow(&signer, terms) {
                    Ok(child) => child,
                    // It would allow nothing: true of every moment and request, which is checked below for those that are made.
                    Err(NarrowError::NothingLeft { .. } | NarrowError::NoTimeLeft) => break,
                    Err(error) => panic!("{error}"),
                },
            };
            let sent = UnverifiedCapability::decode(next.bytes()).unwrap();
            prop_assert_eq!(&sent.verify(&authorities()).unwrap(), &next);
            chain.push(next);
        }
        let none = Revocations::default();
        for now in (NOW.0 - 100..NOW.0 + 40).step_by(7).map(Timestamp) {
            all_requests(|request| {
                let allowed: Vec<bool> = chain.iter().map(|link| decide(link, &request, now, &none).is_ok()).collect();
                assert!(allowed.is_sorted_by(|parent, child| *parent || !child), "{request:?} at {now}: {allowed:?}");
            });
        }
    }

    /// `narrow` refuses only what allows nothing.
    #[test]
    fn what_narrow_refuses_for_its_grants_would_open_nothing(parent in prop::collection::vec(a_grant(), 1..4), child in a_grant()) {
        let terms = |holder: u8, grants| Terms::new(key(holder).public(), Validity::new(BEGIN, END).unwrap(), grants).unwrap();
        let of = |grants: Vec<Grant>| Capability::grant(&common::authority(), common::root(), terms(2, grants)).unwrap();
        let refused = matches!(of(parent.clone()).narrow(&key(2), terms(3, vec![child.clone()])), Err(NarrowError::NothingLeft { .. }));
        if refused {
            // The child alone, and the parent alone: never both, for the child's rights.
            let (parent, alone) = (of(parent), of(vec![child.clone()]));
            let none = Revocations::default();
            all_requests(|request| {
                let request = Request { needs: child.rights(), ..request };
                let both = decide(&parent, &request, NOW, &none).is_ok() && decide(&alone, &request, NOW, &none).is_ok();
                assert!(!both, "{request:?}");
            });
        }
    }
}

#[test]
fn what_opens_nothing_is_not_made() {
    let capability = granted(&key(2), &["read on directory:6", "read,write on nuwa:/a/"]);
    for useless in
        ["write on directory:6", "read on nuwa:/b", "read on nuwa:/a", "read on queue:q", "lock on nuwa:/a/b"]
    {
        let error = capability.narrow(&key(2), terms(&key(3), &[useless])).unwrap_err();
        assert!(matches!(error, NarrowError::NothingLeft { .. }), "{useless}: {error}");
    }
    // A directory may be below the other, or not: the master knows.
    for useful in [
        "read on directory:7",
        "read on file:13",
        "read,write on nuwa:/a/",
        "read on everything",
        "read on nuwa:/",
    ] {
        capability.narrow(&key(2), terms(&key(3), &[useful])).unwrap();
    }
    let late = Terms::new(
        key(3).public(),
        Validity::new(END, Timestamp::FOREVER).unwrap(),
        vec![common::grant("read on directory:6")],
    );
    assert_eq!(capability.narrow(&key(2), late.unwrap()), Err(NarrowError::NoTimeLeft));
}

#[test]
fn eight_blocks_fit_and_no_ninth() {
    let mut capability = granted(&key(2), &["read,write on directory:1099511627776"]);
    for number in 2..=BLOCKS_MAX as u8 {
        let next = terms(&key(number + 1), &["read on directory:1099511627776"]);
        capability = capability.narrow(&key(number), next).unwrap();
    }
    assert_eq!(capability.terms().len(), BLOCKS_MAX);
    let last = BLOCKS_MAX as u8 + 1;
    let ninth = terms(&key(1), &["read on directory:1099511627776"]);
    assert_eq!(capability.narrow(&key(last), ninth), Err(NarrowError::TooManyBlocks));

    let long: Vec<String> = (0..4).map(|n| format!("read on nuwa:/{}{n}", "x".repeat(250))).collect();
    let long: Vec<&str> = long.iter().map(String::as_str).collect();
    let error = Capability::grant(&common::authority(), common::root(), terms(&key(2), &long)).unwrap_err();
    assert!(matches!(error, NarrowError::TooLong(bytes) if bytes > 1024), "{error}");
}

#[test]
fn each_reason_to_refuse_is_found_and_said() {
    let capability = granted(&key(2), &["read,write on directory:6", "read on nuwa:/a/"])
        .narrow(&key(2), terms(&key(3), &["read on everything"]))
        .unwrap();
    let id = capability.root().id;
    let file = Heap(13);
    let read = Request { needs: Rights::READ, target: Target::Inode(&file) };
    let none = Revocations::default();
    let ask = |request: Request<'_>, now, revoked: &Revocations| decide(&capability, &request, now, revoked);

    assert_eq!(ask(read, NOW, &none), Ok(()));
    assert_eq!(ask(Request { needs: Rights::READ, target: Target::Nuwa("/a/b") }, NOW, &none), Ok(()));

    // Clocks may differ by a minute at the beginning, and not at the end.
    assert_eq!(ask(read, Timestamp(BEGIN.0 - 60), &none), Ok(()));
    let early = Timestamp(BEGIN.0 - 61);
    assert_eq!(ask(read, early, &none), Err(Refusal::NotYetValid { id, not_before: BEGIN, now: early }));
    assert_eq!(ask(read, Timestamp(END.0 - 1), &none), Ok(()));
    assert_eq!(ask(read, END, &none), Err(Refusal::Expired { id, not_after: END, now: END }));

    // Rights of two grants do not add up, nor do resources of two blocks.
    for (needs, target, block) in [
        (Rights::WRITE, Target::Inode(&file), 1),
        (Rights::READ | Rights::WRITE, Target::Inode(&file), 1),
        (Rights::READ, Target::Inode(&Heap(7)), 0),
        (Rights::READ, Target::Nuwa("/b"), 0),
        (Rights::READ, Target::Method("s.S/M"), 0),
    ] {
        let refusal = ask(Request { needs, target }, NOW, &none).unwrap_err();
        assert_eq!(refusal, Refusal::NotGranted { id, block, needs, target: target.to_string() });
    }

    let user = capability.root().user.name.clone();
    let of_epoch = |epoch| Revocations {
        users: [(user.clone(), zhongkui::UserEpoch(epoch))].into(),
        ..Revocations::default()
    };
    assert_eq!(ask(read, NOW, &of_epoch(3)), Ok(()));
    assert!(matches!(ask(read, NOW, &of_epoch(4)), Err(Refusal::UserRevoked { .. })));
    for number in [1, 2, 3] {
        let revoked = Revocations { keys: [key(number).public().id()].into(), ..Revocations::default() };
        let expected = Err(Refusal::KeyRevoked { id, key: key(number).public().id() });
        assert_eq!(ask(read, NOW, &revoked), expected, "key {number}");
    }
    let others = Revocations { keys: [key(9).public().id()].into(), ..Revocations::default() };
    assert_eq!(ask(read, NOW, &others), Ok(()));
    let revoked = Revocations { capabilities: [id].into(), ..Revocations::default() };
    assert_eq!(ask(read, NOW, &revoked), Err(Refusal::CapabilityRevoked { id }));
}

#[test]
fn what_never_expires_never_expires() {
    let validity = Validity::new(BEGIN, Timestamp::FOREVER).unwrap();
    let terms =
        Terms::new(key(2).public(), validity, vec![Grant::new(Rights::READ, Resource::Everything).unwrap()])
            .unwrap();
    let capability = Capability::grant(&common::authority(), common::root(), terms).unwrap();
    let request = Request { needs: Rights::READ, target: Target::Queue("q") };
    assert_eq!(decide(&capability, &request, Timestamp::FOREVER, &Revocations::default()), Ok(()));
}

#[test]
fn who_was_handed_a_capability_owns_other_sessions() {
    let whole = granted(&key(2), &["read on everything"]);
    let handed_on = whole.narrow(&key(2), terms(&key(3), &["read on everything"])).unwrap();
    let again = handed_on.narrow(&key(3), terms(&key(4), &["read on everything"])).unwrap();
    assert_eq!(whole.principal(), "alice");
    assert_eq!(handed_on.principal(), format!("alice/{}", key(3).public().id()));
    assert_eq!(again.principal(), format!("alice/{}", key(4).public().id()));
}

#[test]
fn a_server_is_one_that_every_block_lets_serve() {
    let server = granted(&key(2), &["read on everything", "serve on service:s.S"]);
    let hands_on = |grants: &[&str]| server.narrow(&key(2), terms(&key(3), grants)).unwrap();
    assert!(server.may_serve());
    assert!(hands_on(&["read on everything", "serve on service:s.S/M"]).may_serve());
    assert!(!hands_on(&["read on everything"]).may_serve());
    let user = granted(&key(2), &["read,write on everything"]);
    assert!(!user.may_serve());
    let claims_to_serve = Terms::new(
        key(3).public(),
        Validity::new(BEGIN, END).unwrap(),
        vec![common::grant("serve on everything")],
    );
    let error = user.narrow(&key(2), claims_to_serve.unwrap()).unwrap_err();
    assert!(matches!(error, NarrowError::NothingLeft { .. }), "{error}");
}
