//! What it costs to prove a capability or a token, and to decide by it, beside what we want it to cost.
//!
//!     cargo bench -p zhongkui --bench verify [-- WORD: only rows with this word in their title]
//!
//! The median of many rounds; a round has as many calls as take a millisecond, so that the clock's own cost does not show.

use std::hint::black_box;
use std::time::{Duration, Instant};

use coord_types::{DataId, InodeId, SessionId};
use zhongkui::resource::Place;
use zhongkui::terms::Root;
use zhongkui::token::{BATCH_MAX, sign};
use zhongkui::{
    Authorities, Capability, CapabilityId, Claims, DataRequest, DataRights, Grant, KeyId, PublicKey, Request,
    Resource, Revocations, Rights, RootCache, Scope, SecretKey, Target, Terms, Timestamp,
    UnverifiedCapability, UnverifiedToken, User, UserEpoch, UserName, Validity, VerifiedCache, admit, decide,
};

const ROUNDS: usize = 301;
const ROUND: Duration = Duration::from_millis(1);
const NOW: Timestamp = Timestamp(1_500_000);
const REVOKED: u64 = 1_000;

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    // `cargo bench` says so; `cargo test --benches` only asks whether it runs.
    let rounds = if arguments.iter().any(|argument| argument == "--bench") { ROUNDS } else { 1 };
    // What cargo itself passes begins with dashes; anything else chooses rows.
    let filter = arguments.into_iter().find(|argument| !argument.starts_with('-')).unwrap_or_default();
    println!("{:<52} {:>10} {:>10}", "", "median", "goal");
    let bench = Bench { rounds, filter };
    capabilities(&bench);
    tokens(&bench);
}

fn capabilities(bench: &Bench) {
    let authorities: Authorities = [key(1).public()].into_iter().collect();
    for (blocks, goal) in [(1, "100 us"), (2, ""), (8, "")] {
        let capability = chain(blocks);
        bench.row(&format!("{blocks}-block capability: decode and verify"), goal, || {
            let sent = UnverifiedCapability::decode(black_box(capability.bytes()));
            sent.expect("well formed").verify(&authorities).expect("signed")
        });
    }
    let (none, many) = (Revocations::default(), revocations());
    for blocks in [1, 8] {
        let capability = chain(blocks);
        for (revocations, what) in [(&none, "none"), (&many, "3 x 1,000")] {
            bench.row(&format!("{blocks}-block capability: decide, {what} revoked"), "", || {
                decide(black_box(&capability), &request(), NOW, revocations).expect("allowed")
            });
        }
    }
    for blocks in [1, 2, 8] {
        for (revocations, what) in [(&none, "none"), (&many, "3 x 1,000")] {
            let (mut cache, bytes) = (full_cache(&authorities), chain(blocks).bytes().to_vec());
            bench.row(&format!("{blocks}-block, cached: find, decide, {what} revoked"), "1 us", || {
                let known = cache.get_or_verify(black_box(&bytes), &authorities).expect("signed");
                decide(&known, &request(), NOW, revocations).expect("allowed");
            });
        }
    }
}

fn tokens(bench: &Bench) {
    let master = key(7);
    for count in [1, BATCH_MAX] {
        let claims: Vec<Claims> = (0..u64::from(count)).map(claims).collect();
        bench.row(&format!("token: sign a batch of {count}"), "", || sign(&master, &claims));
        let tokens = sign(&master, &claims).expect("a batch");
        bench.row(&format!("token: decode and verify, first of {count}"), "", || {
            verify(&tokens[0], master.public(), &mut RootCache::default())
        });
        let mut roots = RootCache::default();
        let _known = verify(&tokens[0], master.public(), &mut roots);
        let mut others = tokens.iter().cycle();
        bench.row(&format!("token: decode and verify, others of {count}"), "", || {
            verify(others.next().expect("endless"), master.public(), &mut roots)
        });
    }
    let claims = claims(9);
    let request = DataRequest {
        holder: claims.holder,
        session: Some(claims.session),
        data: DataId(9),
        needs: Rights::WRITE,
        epoch_min: 1,
    };
    bench.row("token: admit", "", || admit(black_box(&claims), black_box(&request), NOW).expect("admitted"));
}

struct Bench {
    rounds: usize,
    filter: String,
}

impl Bench {
    fn row<T>(&self, title: &str, goal: &str, mut call: impl FnMut() -> T) {
        if !title.contains(&self.filter) {
            return;
        }
        let mut round = |calls: u32| {
            let began = Instant::now();
            (0..calls).for_each(|_| drop(black_box(call())));
            began.elapsed()
        };
        // Doubled until it is a round; warms up as well.
        let calls = (0..24).map(|power| 1 << power).find(|calls| round(*calls) >= ROUND).unwrap_or(1 << 24);
        let mut rounds: Vec<Duration> = (0..self.rounds).map(|_| round(calls)).collect();
        rounds.sort_unstable();
        let ns = rounds[rounds.len() / 2].as_secs_f64() * 1e9 / f64::from(calls);
        let median = if ns < 10_000.0 { format!("{ns:.0} ns") } else { format!("{:.1} us", ns / 1e3) };
        println!("{title:<52} {median:>10} {goal:>10}");
    }
}

// ---- what is proved ----

fn key(seed: u8) -> SecretKey {
    SecretKey::from_seed(&[seed; 32])
}

fn validity() -> Validity {
    Validity::new(Timestamp(1_000_000), Timestamp(2_000_000)).expect("an end after the beginning")
}

fn user(name: &str, epoch: u32) -> User {
    User::new(name.parse().expect("a name"), UserEpoch(epoch), 1000, vec![100]).expect("a group")
}

fn grant(rights: Rights, resource: Resource) -> Grant {
    Grant::new(rights, resource).expect("rights")
}

fn terms(holder: u8, grants: Vec<Grant>) -> Terms {
    Terms::new(key(holder).public(), validity(), grants).expect("grants")
}

fn directory() -> Grant {
    grant(Rights::READ | Rights::WRITE, Resource::Directory(InodeId(5)))
}

/// As a mount has one: files of Nuwa, a directory of Pangu.
fn granted(id: u64) -> Capability {
    let root = Root { id: CapabilityId(id), issuer: KeyId([0; 8]), user: user("alice", 3) };
    let grants = vec![grant(Rights::READ, Resource::nuwa("/pangu/").expect("a path")), directory()];
    Capability::grant(&key(1), root, terms(2, grants)).expect("short enough")
}

fn chain(blocks: u8) -> Capability {
    (2..=blocks).fold(granted(u64::MAX), |parent, holder| {
        parent.narrow(&key(holder), terms(holder + 1, vec![directory()])).expect("short enough")
    })
}

/// As many as a busy server knows.
fn full_cache(authorities: &Authorities) -> VerifiedCache {
    let mut cache = VerifiedCache::default();
    for id in 0..1_000 {
        cache.get_or_verify(granted(id).bytes(), authorities).expect("signed");
    }
    cache
}

/// A thousand of each list, and none that fits.
fn revocations() -> Revocations {
    let name = |number| UserName::new(format!("user-{number}")).expect("a name");
    Revocations {
        users: (0..REVOKED).map(|number| (name(number), UserEpoch(9))).collect(),
        keys: (0..REVOKED).map(|number| KeyId(number.to_be_bytes())).collect(),
        capabilities: (0..REVOKED).map(CapabilityId).collect(),
    }
}

struct File;

impl Place for File {
    fn inode(&self) -> InodeId {
        InodeId(9)
    }
    fn within(&self, directory: InodeId) -> bool {
        directory == InodeId(5)
    }
}

fn request() -> Request<'static> {
    Request { needs: Rights::READ | Rights::WRITE, target: Target::Inode(&File) }
}

fn claims(data: u64) -> Claims {
    Claims {
        holder: KeyId([2; 8]),
        session: SessionId(5),
        scope: Scope::Data(DataId(data)),
        rights: DataRights::BOTH,
        cluster_epoch: 1,
        validity: validity(),
    }
}

fn verify(token: &[u8], master: PublicKey, roots: &mut RootCache) -> Claims {
    let sent = UnverifiedToken::decode(black_box(token)).expect("well formed");
    sent.verify_with(|_| Some(master), roots).expect("signed")
}
