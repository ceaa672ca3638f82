//! Chunkservers, asked by frames: the number of a chunk opens nothing, and no token but the master's own, for these data, in the hands of its holder.

use std::time::Duration;

use chunkserver_api::{Write, pb};
use coord_types::{ChunkKey, DataId, Epoch, Fence, SessionId, Stamp};
use deploy_e2e::Content;
use deploy_local_cluster::Role;
use kuafu::{Bytes, Code, Status};
use master_api::proto;
use zhongkui::{
    Capability, Claims, DataRights, RootCache, Scope, SecretKey, Timestamp, UnverifiedToken, Validity,
    keyring, token,
};
use zhongkui_access::directory;

use crate::people::{MOUNT, OWN, Person, Wanted, now, on};
use crate::scene::{Known, LEN, OWNER, Scene};
use crate::wire::{Given, Wire, method};

/// What can be asked of a chunkserver about a chunk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Ask {
    Read,
    Map,
    Write,
    Punch,
    RaiseFence,
}

impl Ask {
    pub(crate) const ALL: [Self; 5] = [Self::Read, Self::Map, Self::Write, Self::Punch, Self::RaiseFence];
    pub(crate) const CHANGES: [Self; 3] = [Self::Write, Self::Punch, Self::RaiseFence];

    /// A request that would be served, were it allowed.
    pub(crate) async fn of(self, wire: &Wire, key: ChunkKey, epoch: Epoch) -> Result<(), Status> {
        let (group, data, index) = (key.group.0, key.chunk.data.0, key.chunk.index);
        let (chunk, epoch) = (Some(pb::ChunkRef { group, data, index }), epoch.0);
        let call = |name| method(&pb::CHUNK_METHODS, name);
        match self {
            Self::Read => {
                let read = pb::ReadRequest { chunk, epoch, offset_bytes: 0, len_bytes: 4096 };
                wire.call(call("Read"), read).await
            }
            Self::Map => wire.call(call("Map"), pb::MapRequest { chunk, epoch }).await,
            Self::Write => {
                let bytes = [0xEE; 4096];
                let write = Write {
                    key,
                    epoch: Epoch(epoch),
                    offset_bytes: 0,
                    block_crcs: Vec::new(),
                    stamp: Some(Stamp { session: SessionId(77), seq: 1 }),
                    chunk_size_bytes: coord_types::CHUNK_SIZE_DEFAULT,
                    fence: Fence::NONE,
                };
                let write = pb::WriteRequest::from(&write.checksummed(&bytes));
                wire.call_with(call("Write"), write, Bytes::copy_from_slice(&bytes)).await
            }
            Self::Punch => {
                let punch = pb::PunchRequest {
                    chunk,
                    epoch,
                    offset_bytes: 0,
                    len_bytes: 4096,
                    stamp: Some(pb::Stamp { session: 77, seq: 2 }),
                    chunk_size_bytes: coord_types::CHUNK_SIZE_DEFAULT,
                    fence: 0,
                };
                wire.call(call("Punch"), punch).await
            }
            Self::RaiseFence => {
                let raise = pb::RaiseFenceRequest { group, epoch, data, fence: 9 };
                wire.call(call("RaiseFence"), raise).await
            }
        }
    }
}

/// Shows tokens.
pub(crate) async fn show(wire: &Wire, tokens: &[Bytes], signer: &Bytes) -> Result<(), Status> {
    let request = pb::ShowTokensRequest { tokens: tokens.to_vec(), signer: signer.clone() };
    wire.call(method(&pb::CHUNK_METHODS, "ShowTokens"), request).await
}

pub(crate) fn wanted(file: &Known, write: bool) -> proto::TokenWanted {
    let (ino, data) = (file.ino.0, file.attr.data.0);
    proto::TokenWanted { ino, data, write, renewed: Bytes::new() }
}

/// Somebody, and a connection of his to each chunkserver.
struct Visitor<'s> {
    scene: &'s Scene,
    who: &'static str,
    person: Person,
    wires: Vec<(Role, Wire)>,
}

impl<'s> Visitor<'s> {
    fn new(scene: &'s Scene, who: &'static str, person: Person) -> Self {
        let wires = scene.chunkservers().map(|role| (role, scene.wire(&person.access, role))).collect();
        Self { scene, who, person, wires }
    }

    /// All that can be asked about a chunk, of every server.
    fn is_refused(&self, with: &str, asks: &[Ask], key: ChunkKey, epoch: Epoch) {
        for (role, wire) in &self.wires {
            for ask in asks {
                let data = key.chunk.data;
                let what = format!("{} with {with}: {ask:?} of data {data}", self.who);
                self.scene.refused(*role, &self.person.by(), &what, ask.of(wire, key, epoch));
            }
        }
    }

    /// Tokens that no server takes.
    fn may_not_show(&self, what: &str, token: &Bytes, signer: &Bytes) {
        for (role, wire) in &self.wires {
            let what = format!("{} shows {what}", self.who);
            self.scene.refused(
                *role,
                &self.person.by(),
                &what,
                show(wire, std::slice::from_ref(token), signer),
            );
        }
    }

    /// Tokens that may be taken, and that open nothing.
    fn shows_in_vain(&self, what: &str, token: &Bytes, signer: &Bytes, file: &Known) {
        for (_, wire) in &self.wires {
            let shown = self.scene.run(show(wire, std::slice::from_ref(token), signer));
            let fine = shown.as_ref().err().is_none_or(|status| status.code == Code::PermissionDenied);
            self.scene.holds(&format!("{what}: {shown:?}"), fine);
        }
        self.is_refused(what, &Ask::ALL, file.chunk, file.epoch);
    }
}

/// A key that signs, and the capability that says for what.
struct Signer {
    key: SecretKey,
    capability: Bytes,
}

impl Signer {
    fn of(scene: &Scene, name: &str) -> Self {
        let keys = scene.cluster.keys();
        let key = keyring::read_secret_key(&keys.path(name, "key")).unwrap();
        let capability = keyring::read_capability(&keys.path(name, "cap")).unwrap().encode();
        Self { key, capability: capability.into() }
    }

    fn signs(&self, claims: &Claims) -> Bytes {
        token::sign(&self.key, &[*claims]).unwrap().remove(0).into()
    }
}

fn bytes_of(capability: &Capability) -> Bytes {
    Bytes::copy_from_slice(capability.bytes())
}

#[test]
fn chunkservers_give_no_byte_without_a_token_for_it() {
    let scene = Scene::new();
    let keys = scene.cluster.keys();
    let alice = Person::granted(&keys, &Wanted::new("alice", 1000, on(MOUNT, scene.a)));
    let bob = Person::granted(&keys, &Wanted::new("bob", OWNER, on(OWN, scene.a)));
    let (in_a, in_b) = (scene.known("a/in-a"), scene.known("b/in-b"));
    for (who, person) in [("a mount", &alice), ("a user", &bob)] {
        let visitor = Visitor::new(&scene, who, person.clone());
        visitor.is_refused("no token", &Ask::ALL, in_b.chunk, in_b.epoch);
        visitor.is_refused("no token", &Ask::ALL, in_a.chunk, in_a.epoch);
        with_a_token_for_a(&visitor, &in_a, &in_b);
    }
    let visitor = Visitor::new(&scene, "a user", bob.clone());
    let (hers, his) = (scene.namespace(&alice), scene.namespace(&bob));
    let given = |namespace: &crate::wire::Namespace, file, write| {
        let given = scene.run(namespace.token(wanted(file, write))).unwrap();
        assert_eq!(given.errno, 0);
        given
    };
    let own = given(&his, &in_a, true);
    anothers_tokens(&visitor, &given(&hers, &in_a, true), &in_b);
    damaged(&visitor, &own);
    not_the_masters(&visitor, &own, &in_b);
    at_other_times(&visitor, &own, &in_b);
    scene.b_is_untouched();
    let found = std::fs::read(scene.root.join("a/in-a")).unwrap();
    scene.holds("a/in-a has the content it had", found == Content::new(1).bytes(LEN));
    scene.finish();
}

/// With a token for one's own file that file can be read, and nothing else.
fn with_a_token_for_a(visitor: &Visitor<'_>, in_a: &Known, in_b: &Known) {
    let Visitor { scene, person, who, wires } = visitor;
    let own = scene.namespace(person);
    let Given { errno, token, signer } = scene.run(own.token(wanted(in_a, false))).unwrap();
    assert_eq!(errno, 0, "{who}");
    let mut read = 0;
    for (_, wire) in wires {
        scene.run(show(wire, std::slice::from_ref(&token), &signer)).unwrap();
        read += usize::from(scene.run(Ask::Read.of(wire, in_a.chunk, in_a.epoch)).is_ok());
    }
    scene.holds(&format!("{who} reads his own file with a token"), read > 0);
    visitor.is_refused("a token to read", &Ask::CHANGES, in_a.chunk, in_a.epoch);
    visitor.is_refused("a token for his own file", &Ask::ALL, in_b.chunk, in_b.epoch);
    let in_group = |data: u64, index| ChunkKey::new(in_b.chunk.group, DataId(data), index);
    let near = in_b.attr.data.0;
    for data in [0, 1, near - 1, near + 1, near + 2, u64::from(u32::MAX), u64::MAX] {
        if data != in_a.attr.data.0 {
            visitor.is_refused("a guess", &[Ask::Read, Ask::Write], in_group(data, 0), in_b.epoch);
        }
    }
    visitor.is_refused("another piece", &Ask::ALL, in_group(near, 1), in_b.epoch);
}

fn anothers_tokens(visitor: &Visitor<'_>, alices: &Given, in_b: &Known) {
    let scene = visitor.scene;
    visitor.may_not_show("the token of another user", &alices.token, &alices.signer);
    let admin = scene.master_client(&scene.admin);
    scene.run(admin.ready()).unwrap();
    let whole = admin.whole_token().unwrap();
    visitor.may_not_show("the administrator's token for everything", &whole.token, &whole.signer);
    // The administrator shows it himself, and uses it: for nobody else.
    for (role, _) in &visitor.wires {
        let admins = scene.wire(&scene.admin, *role);
        scene.run(show(&admins, std::slice::from_ref(&whole.token), &whole.signer)).unwrap();
        drop(scene.run(Ask::Read.of(&admins, in_b.chunk, in_b.epoch)));
    }
    visitor.is_refused("what another has shown", &Ask::ALL, in_b.chunk, in_b.epoch);
}

fn damaged(visitor: &Visitor<'_>, own: &Given) {
    for at in (0..own.token.len()).step_by(7).chain([16, 32, 40, 44, own.token.len() - 1]) {
        let mut token = own.token.to_vec();
        token[at] ^= 1 << (at % 8);
        visitor.may_not_show(&format!("a token with a wrong bit in byte {at}"), &token.into(), &own.signer);
    }
    let cut = own.token.slice(..own.token.len() - 1);
    visitor.may_not_show("a token that is cut off", &cut, &own.signer);
    let longer: Bytes = [&own.token[..], &[0]].concat().into();
    visitor.may_not_show("a token with a byte too many", &longer, &own.signer);
    visitor.may_not_show("an empty token", &Bytes::new(), &own.signer);
    visitor.may_not_show("a token without its signer", &own.token, &Bytes::new());
    let mut signer = own.signer.to_vec();
    signer[20] ^= 1;
    visitor.may_not_show("a token with a damaged signer", &own.token, &signer.into());
}

/// What the master said of a token of one's own, for other data.
fn claims(own: &Given, master: &Signer, file: &Known) -> Claims {
    let token = UnverifiedToken::decode(&own.token).unwrap();
    let claims = token.verify(&master.key.public(), &mut RootCache::default()).unwrap();
    Claims { scope: Scope::Data(file.attr.data), rights: DataRights::BOTH, ..claims }
}

/// Tokens that say the right things, signed by somebody who is no master.
fn not_the_masters(visitor: &Visitor<'_>, own: &Given, in_b: &Known) {
    let scene = visitor.scene;
    let master = Signer::of(scene, directory::MASTER);
    let for_b = claims(own, &master, in_b);
    let whole = Claims { scope: Scope::Everything, ..for_b };
    let bob = Signer {
        key: SecretKey::from_seed(visitor.person.key.seed()),
        capability: bytes_of(&visitor.person.capability),
    };
    let stranger = SecretKey::generate().unwrap();
    // Somebody who made an authority of his own, and by that a master.
    let serve =
        zhongkui::Resource::Service(zhongkui::resource::Name::new("feitian.master.v1.Namespace").unwrap());
    let grants = vec![zhongkui::Grant::new(zhongkui::Rights::SERVE, serve).unwrap()];
    let own_master = Wanted::new("master", 0, grants).granted_by(&stranger, &stranger);
    let signers = [
        ("signed by himself", &bob.key, bob.capability.clone()),
        ("signed by himself, in the master's name", &bob.key, master.capability.clone()),
        ("signed by a master of his own", &stranger, bytes_of(&own_master)),
        ("signed by a stranger, in the master's name", &stranger, master.capability.clone()),
    ];
    for (what, key, capability) in signers {
        let signer = Signer { key: SecretKey::from_seed(key.seed()), capability };
        for claims in [&for_b, &whole] {
            visitor.may_not_show(&format!("a token {what}"), &signer.signs(claims), &signer.capability);
        }
    }
    for name in [directory::CHUNKSERVER, directory::NUWA, directory::ADMIN] {
        let signer = Signer::of(scene, name);
        visitor.may_not_show(&format!("a token signed by {name}"), &signer.signs(&for_b), &signer.capability);
    }
    visitor.is_refused("false tokens", &Ask::ALL, in_b.chunk, in_b.epoch);
}

/// Tokens that the master signed, and that are good at another time, or for another holder. The test has the master's key, as it has the
/// whole cluster's: that the last one opens the file shows that the others were refused for what they say.
fn at_other_times(visitor: &Visitor<'_>, own: &Given, in_b: &Known) {
    let master = Signer::of(visitor.scene, directory::MASTER);
    let good = claims(own, &master, in_b);
    let hour = Duration::from_secs(3600);
    let (past, soon) = (now().saturating_sub(hour), now().saturating_add(hour));
    let valid = |from, until| Claims { validity: Validity::new(from, until).unwrap(), ..good };
    let expired =
        [valid(Timestamp(1), Timestamp(2)), valid(past, now().saturating_sub(Duration::from_secs(1)))];
    for claims in &expired {
        visitor.shows_in_vain("an expired token", &master.signs(claims), &master.capability, in_b);
    }
    let early = valid(soon, soon.saturating_add(hour));
    visitor.shows_in_vain("a token for later", &master.signs(&early), &master.capability, in_b);
    if let Some(epoch) = good.cluster_epoch.checked_sub(1) {
        let old = Claims { cluster_epoch: epoch, ..good };
        visitor.shows_in_vain("a token of an older epoch", &master.signs(&old), &master.capability, in_b);
    }
    let stolen = Claims { holder: visitor.scene.admin.keyring().capability().holder_id(), ..good };
    visitor.may_not_show("a token for another holder", &master.signs(&stolen), &master.capability);
    let to_read = Claims { rights: DataRights::READ, ..good };
    let mut read = 0;
    for (_, wire) in &visitor.wires {
        let token = master.signs(&to_read);
        visitor.scene.run(show(wire, &[token], &master.capability)).unwrap();
        read += usize::from(visitor.scene.run(Ask::Read.of(wire, in_b.chunk, in_b.epoch)).is_ok());
    }
    visitor.scene.holds("the same token at its time opens the file", read > 0);
    visitor.is_refused("a token to read", &Ask::CHANGES, in_b.chunk, in_b.epoch);
}
