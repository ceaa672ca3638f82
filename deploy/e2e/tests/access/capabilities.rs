//! Capabilities that are not true, not of now, or not any more; and a handshake that is played again.

use std::sync::Arc;
use std::time::{Duration, Instant};

use chunkserver_api::pb;
use coord_types::InodeId;
use deploy_local_cluster::{Deadline, Options, Role, wait_until};
use kuafu::frame::Kind;
use kuafu::{Bytes, Code};
use master_api::model::Query;
use master_api::proto;
use nuwa_api::{ClientConfig, NuwaClient, ops};
use zhongkui::{Capability, Grant, Resource, SecretKey, Terms, Timestamp, Validity};

use crate::audit::By;
use crate::people::{MOUNT, OWN, Person, Wanted, always, now, on};
use crate::scene::{MASTER, OWNER, Scene};
use crate::wire::{ANSWER, Recorder, Shown, Verbatim, Wire, method, play};

fn attributes(of: InodeId) -> proto::QueryRequest {
    proto::QueryRequest { session: 0, op: Some(Query::GetAttr(of).into()) }
}

/// Servers that a capability is shown to, and a request that it would allow were it good.
const ASKED: [Role; 2] = [MASTER, Role::Chunkserver(2)];

impl Scene {
    async fn ask(&self, role: Role, wire: Wire) -> Result<(), kuafu::Status> {
        match role {
            MASTER => wire.call(method(&proto::NAMESPACE_METHODS, "Query"), attributes(self.a)).await,
            _ => wire.call(method(&pb::CHUNK_METHODS, "ShowTokens"), self.own_capability()).await,
        }
    }

    /// No tokens, and the master's name: anybody with a good capability may say that.
    fn own_capability(&self) -> pb::ShowTokensRequest {
        let keys = self.cluster.keys();
        let signer = zhongkui::keyring::read_capability(&keys.path("master", "cap")).unwrap().encode();
        pb::ShowTokensRequest { tokens: Vec::new(), signer: signer.into() }
    }

    fn shown(&self, role: Role, key: &Arc<SecretKey>, capability: &[u8]) -> Wire {
        let shown = Shown { key: Arc::clone(key), capability: Bytes::copy_from_slice(capability) };
        Wire::new(self.runtime(), &self.address(role), Some(Arc::new(shown)))
    }

    /// Refused by masters and chunkservers alike.
    fn refuses(&self, by: &By, what: &str, key: &Arc<SecretKey>, capability: &[u8]) {
        for role in ASKED {
            let wire = self.shown(role, key, capability);
            self.refused(role, by, what, self.ask(role, wire));
        }
    }

    fn takes(&self, what: &str, key: &Arc<SecretKey>, capability: &[u8]) {
        for role in ASKED {
            let wire = self.shown(role, key, capability);
            let answer = self.run(self.ask(role, wire));
            self.holds(&format!("{what} is taken by {role}: {answer:?}"), answer.is_ok());
        }
    }
}

fn narrowed(person: &Person, to: &SecretKey, validity: Validity, grants: Vec<Grant>) -> Capability {
    person.capability.narrow(&person.key, Terms::new(to.public(), validity, grants).unwrap()).unwrap()
}

fn id(capability: &Capability) -> By {
    By::Id(capability.holder_id().to_string())
}

#[test]
fn capabilities_that_are_not_true_or_not_of_now_are_refused() {
    let scene = Scene::new();
    let keys = scene.cluster.keys();
    let alice = Person::granted(&keys, &Wanted::new("alice", 1000, on(MOUNT, scene.a)));
    scene.takes("a good capability", &alice.key, alice.capability.bytes());
    let (hour, minute) = (Duration::from_secs(3600), Duration::from_secs(60));
    let until = |from: Timestamp, to: Timestamp| Validity::new(from, to).unwrap();
    let times = [
        ("expired long ago", until(Timestamp(1), Timestamp(1000))),
        ("expired just now", until(Timestamp(1), now().saturating_sub(Duration::from_secs(1)))),
        ("not yet valid", until(now().saturating_add(hour), Timestamp::FOREVER)),
        ("not yet valid, by minutes", until(now().saturating_add(3 * minute), Timestamp::FOREVER)),
    ];
    for (what, validity) in times {
        let wanted = Wanted { validity, ..Wanted::new("other", 1000, on(MOUNT, scene.a)) };
        let capability = wanted.granted_by(&keys.authority().unwrap(), &alice.key);
        scene.refuses(&id(&capability), what, &alice.key, capability.bytes());
        // The same, but by a block that was added.
        let to = Arc::new(SecretKey::generate().unwrap());
        let handed = narrowed(&alice, &to, validity, on(OWN, scene.a));
        scene.refuses(&id(&handed), &format!("handed on, {what}"), &to, handed.bytes());
    }
    narrower(&scene, &alice);
    forged(&scene, &alice);
    wrong_bits(&scene, &alice);
    scene.finish();
}

/// A capability that was handed on allows what is in all of its blocks, and shows no way back to the wider one.
fn narrower(scene: &Scene, alice: &Person) {
    let to = Arc::new(SecretKey::generate().unwrap());
    let sub = scene.known("a/sub/deep");
    let file = vec![Grant::new(OWN, Resource::File(sub.ino)).unwrap()];
    let handed = narrowed(alice, &to, always(), file);
    let wire = || scene.shown(MASTER, &to, handed.bytes());
    let query = method(&proto::NAMESPACE_METHODS, "Query");
    let allowed = scene.run(wire().call(query, attributes(sub.ino)));
    scene.holds(&format!("what was handed on may be used: {allowed:?}"), allowed.is_ok());
    for (what, ino) in
        [("the directory", scene.a), ("the root", InodeId::ROOT), ("another directory", scene.b)]
    {
        let what = format!("handed on for one file: {what}");
        scene.refused(MASTER, &id(&handed), &what, wire().call(query, attributes(ino)));
    }
    // The last block cut off is the parent, for whose holder he cannot sign.
    let parent = alice.capability.bytes();
    scene.refuses(&alice.by(), "the parent of what was handed on", &to, parent);
    // A block more that allows more is one more condition.
    let wider = [Grant::new(OWN, Resource::File(sub.ino)).unwrap()];
    let third = Arc::new(SecretKey::generate().unwrap());
    let again = handed.narrow(&to, Terms::new(third.public(), always(), wider.to_vec()).unwrap()).unwrap();
    let wire = scene.shown(MASTER, &third, again.bytes());
    scene.refused(MASTER, &id(&again), "handed on twice", wire.call(query, attributes(scene.a)));
    // Blocks of two chains.
    let mut mixed = parent.to_vec();
    let block = &handed.bytes()[parent.len()..];
    mixed[5] = 3;
    mixed.extend_from_slice(block);
    mixed.extend_from_slice(block);
    scene.refuses(&By::Unproved, "the same block twice", &to, &mixed);
    let mut hidden = handed.bytes().to_vec();
    hidden[5] = 1;
    scene.refuses(&By::Unproved, "a block behind the last", &to, &hidden);
}

fn forged(scene: &Scene, alice: &Person) {
    let own = Arc::new(SecretKey::generate().unwrap());
    let everything = vec![Grant::new(zhongkui::Rights::all(), Resource::Everything).unwrap()];
    let wanted = Wanted::new("admin", 0, everything);
    let made = wanted.granted_by(&own, &own);
    scene.refuses(&By::Unproved, "made by an authority of one's own", &own, made.bytes());
    // In the name of the cluster's authority.
    let mut claimed = made.bytes().to_vec();
    claimed[16..24].copy_from_slice(&alice.capability.root().issuer.0);
    scene.refuses(&By::Unproved, "made in the authority's name", &own, &claimed);
    // Whoever may hand on is no authority.
    let by_alice = wanted.granted_by(&alice.key, &own);
    scene.refuses(&By::Unproved, "granted by a user", &own, by_alice.bytes());
    let theirs = scene.admin.keyring().capability();
    scene.refuses(&id(&theirs), "another's capability", &own, theirs.bytes());
    scene.refuses(&id(&theirs), "another's capability, with a key that has one", &alice.key, theirs.bytes());
    for (what, proof) in [
        ("nothing", Vec::new()),
        ("a signature alone", vec![7; 64]),
        ("zeros", vec![0; 200]),
        ("a capability without a signature", alice.capability.bytes().to_vec()),
        ("no capability behind a signature", [&[1; 64][..], b"ZKCP"].concat()),
    ] {
        for role in ASKED {
            let wire = Wire::new(
                scene.runtime(),
                &scene.address(role),
                Some(Arc::new(Verbatim(proof.clone().into()))),
            );
            scene.refused(role, &By::Unproved, &format!("{what} as a proof"), scene.ask(role, wire));
        }
    }
}

/// Every byte counts.
fn wrong_bits(scene: &Scene, alice: &Person) {
    let bytes = alice.capability.bytes();
    for at in (0..bytes.len()).step_by(5).chain(bytes.len() - 3..bytes.len()) {
        let mut wrong = bytes.to_vec();
        wrong[at] ^= 1 << (at % 8);
        let wire = scene.shown(MASTER, &alice.key, &wrong);
        let what = format!("a wrong bit in byte {at} of a capability");
        scene.refused(MASTER, &By::Unproved, &what, scene.ask(MASTER, wire));
    }
    for len in [0, 5, 6, 8, bytes.len() / 2, bytes.len() - 1] {
        let wire = scene.shown(MASTER, &alice.key, &bytes[..len]);
        let what = format!("the first {len} bytes of a capability");
        scene.refused(MASTER, &By::Unproved, &what, scene.ask(MASTER, wire));
    }
    let longer = [bytes, &[0]].concat();
    scene.refuses(&By::Unproved, "a capability with a byte too many", &alice.key, &longer);
}

#[test]
fn a_user_whose_epoch_was_raised_is_out_at_once() {
    let mut options = Options::new(1, 3);
    options.nuwa = 1;
    let scene = Scene::of(options);
    let keys = scene.cluster.keys();
    let wanted = Wanted::new("alice", 1000, on(MOUNT, scene.a));
    let alice = Person::granted(&keys, &wanted);
    let bob = Person::granted(&keys, &Wanted::new("bob", OWNER, on(OWN, scene.a)));
    // What was handed on goes with it.
    let to = Arc::new(SecretKey::generate().unwrap());
    let handed = narrowed(&alice, &to, always(), on(OWN, scene.a));
    scene.takes("a capability", &alice.key, alice.capability.bytes());
    scene.takes("a capability that was handed on", &to, handed.bytes());
    // Connections that are open.
    let open: Vec<(Role, Wire, Wire)> = ASKED
        .into_iter()
        .map(|role| (role, scene.wire(&alice.access, role), scene.shown(role, &to, handed.bytes())))
        .collect();
    for (role, hers, theirs) in &open {
        scene.run(scene.ask(*role, hers.clone())).unwrap();
        scene.run(scene.ask(*role, theirs.clone())).unwrap();
    }

    let config =
        ClientConfig::with(vec![scene.address(Role::Nuwa(1)).parse().unwrap()], scene.admin.transport());
    scene.run(async {
        let nuwa = NuwaClient::new(config);
        let soon = || Some(Instant::now() + Duration::from_secs(30));
        let session = nuwa.open_session(Duration::from_secs(30), "access", soon()).await.unwrap();
        for directory in ["/zhongkui/", "/zhongkui/users/"] {
            drop(session.change_one(ops::make_directory(directory), soon()).await);
        }
        session.change_one(ops::put("/zhongkui/users/alice", "1"), soon()).await.unwrap();
    });
    for (role, hers, theirs) in &open {
        let out = wait_until("the user is out", Deadline::within(Duration::from_secs(5)), || {
            Ok(scene.run(scene.ask(*role, hers.clone())).is_err())
        });
        scene.holds(&format!("{role} hears that an epoch was raised"), out.is_ok());
        scene.refused(*role, &alice.by(), "an open connection of the user", scene.ask(*role, hers.clone()));
        scene.refused(
            *role,
            &id(&handed),
            "an open connection of whom it was handed to",
            scene.ask(*role, theirs.clone()),
        );
    }
    scene.refuses(&alice.by(), "a user of an old epoch", &alice.key, alice.capability.bytes());
    scene.refuses(&id(&handed), "what was handed on by a user of an old epoch", &to, handed.bytes());
    let again = Wanted { epoch: 1, ..wanted }.granted_by(&keys.authority().unwrap(), &alice.key);
    scene.takes("what was granted anew", &alice.key, again.bytes());
    scene.takes("another user's", &bob.key, bob.capability.bytes());
    scene.finish();
}

#[test]
fn a_handshake_that_is_played_again_opens_nothing() {
    let scene = Scene::new();
    let keys = scene.cluster.keys();
    let alice = Person::granted(&keys, &Wanted::new("alice", 1000, on(MOUNT, scene.a)));
    for role in ASKED {
        let recorder = Recorder::before(&scene.address(role));
        let wire = Wire::new(scene.runtime(), &recorder.address, alice.access.credentials());
        scene.run(scene.ask(role, wire.clone())).unwrap();
        let said = recorder.said();
        let kinds: Vec<Kind> =
            crate::wire::Frame::all_in(&said).iter().map(|frame| frame.header.kind).collect();
        assert_eq!(kinds, [Kind::Hello, Kind::Present, Kind::Request], "{role}");
        let frames = crate::wire::Frame::all_in(&said);
        let of =
            |kinds: &[usize]| kinds.iter().flat_map(|kind| frames[*kind].bytes.clone()).collect::<Vec<u8>>();
        let played = |what: &str, by: &By, bytes: &[u8]| {
            scene.check(role, by, what, || {
                let answers = play(&scene.address(role), bytes);
                let refused =
                    !answers.is_empty() && answers.iter().all(|code| *code == Code::PermissionDenied);
                if refused { Ok(()) } else { Err(format!("{answers:?}")) }
            });
        };
        played("what a client said, again", &alice.by(), &said);
        played("it and its request twice", &alice.by(), &of(&[0, 1, 2, 2]));
        played("the proof twice", &alice.by(), &of(&[0, 1, 1, 2]));
        // While the connection it was made for is open.
        drop(scene.run(scene.ask(role, wire.clone())));
        played("it, while the first connection is in use", &alice.by(), &said);
        // At another server of the same kind.
        if role != MASTER {
            let other = Role::Chunkserver(1);
            scene.check(other, &alice.by(), "what a client said, at another server", || {
                let answers = play(&scene.address(other), &said);
                if answers == [Code::PermissionDenied] { Ok(()) } else { Err(format!("{answers:?}")) }
            });
        }
        // Without the proof the request refers to nothing: Kuafu says so by itself, as nobody has shown anything.
        let answers = play(&scene.address(role), &of(&[0, 2]));
        scene.holds(
            &format!("a request without its proof is refused: {answers:?}"),
            answers == [Code::PermissionDenied],
        );
    }
    // It was the replay that was refused, and not the way it was sent.
    let client = scene.wire(&alice.access, MASTER);
    let answer = scene.run(async { tokio::time::timeout(ANSWER, scene.ask(MASTER, client)).await.unwrap() });
    scene.holds("the client itself is served", answer.is_ok());
    scene.finish();
}
