//! Feeds arbitrary bytes to the state machine as commands. Shared by the fuzz target and the test that runs in CI.

use coord_kv::{Durability, Kv, MemKv};
use nuwa_core::{apply, check, query};
use nuwa_model::proto::{OpenSession, Reply, command, reply};
use prost::Message as _;

/// The bytes are commands, each behind its length in two bytes. They meet a session that is open, and what those before left.
///
/// # Panics
/// If an invariant does not hold after one, the revision goes back, or a refused one changes anything.
pub(crate) fn drive(data: &[u8]) {
    let kv = MemKv::new();
    let open = command::What::OpenSession(OpenSession::default());
    run(&kv, &nuwa_model::proto::Command { what: Some(open) }.encode_to_vec());
    let mut rest = data;
    while let Some((len, behind)) = rest.split_first_chunk::<2>() {
        let (command, behind) = behind.split_at(usize::from(u16::from_le_bytes(*len)).min(behind.len()));
        run(&kv, command);
        rest = behind;
    }
}

fn run(kv: &MemKv, command: &[u8]) {
    let before = query::meta(kv).expect("memory can be read").revision;
    let applied = apply(kv, 1_000, command).expect("the store is whole");
    let reply = Reply::decode(applied.reply).expect("it was just encoded");
    if let Some(reply::What::Refused(refusal)) = &reply.what {
        assert!(!refusal.message.is_empty());
        assert!(applied.events.is_empty() && applied.restored.is_none());
        assert!(applied.batch.changes().is_empty(), "what is refused changes nothing");
    }
    kv.write(applied.batch, Durability::Synced).expect("memory takes it");
    let after = query::meta(kv).expect("memory can be read").revision;
    assert!(reply.revision == after && after >= before, "revisions go up");
    assert_eq!(check::check(kv).expect("memory can be read"), Vec::<String>::new());
}
