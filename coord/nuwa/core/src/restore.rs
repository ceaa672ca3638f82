//! The tree of a snapshot, put into an empty tree in numbered steps (`coord/nuwa/docs/snapshot.md`, "Restore").
//!
//! Invariants: while a restore is under way nothing else changes the tree; every entry's directory was restored before it; the
//! revision moves once, at the end, to one that neither the snapshot nor this tree has given out.

use coord_kv::Range;
use nuwa_model::proto::{
    Restore, RestoreBegin, RestoreBlock, RestoreFinish, RestoreReply, SnapshotRecord, restore,
};
use nuwa_model::snapshot::{check_record, is_too_much};
use nuwa_model::{Path, Refusal};

use crate::entries::check_no_other_kind;
use crate::error::Outcome;
use crate::keys;
use crate::quotas::Use;
use crate::records::{EntryRecord, QuotaRecord, Restoring};
use crate::state::State;

/// How far the revision goes beyond what the snapshot has: more than is given out between two snapshots.
const REVISION_BUMP: u64 = 1_000_000_000;
/// No revision or session is above this: what counts on from there does not come to an end.
const NUMBER_MAX: u64 = 1 << 62;

/// What was done, and the new revision if the tree is whole now.
pub(crate) fn restore(state: &mut State<'_>, request: Restore) -> Outcome<(RestoreReply, Option<u64>)> {
    // The snapshot is what it is, whatever quotas it goes over.
    state.is_forced = true;
    let id = request.restore;
    match request.step.ok_or(Refusal::Invalid("a restore says which step is to be done"))? {
        restore::Step::Begin(_) if id == 0 => {
            Err(Refusal::Invalid("a restore has a number that is not 0").into())
        }
        restore::Step::Begin(request) => begin(state, id, &request).map(|reply| (reply, None)),
        restore::Step::Block(request) => block(state, id, request).map(|reply| (reply, None)),
        restore::Step::Finish(request) => finish(state, id, request),
        restore::Step::Abandon(_) => {
            if state.meta.restoring.is_some() {
                clear(state);
            }
            Ok((RestoreReply::default(), None))
        }
    }
}

fn reply(restoring: &Restoring) -> RestoreReply {
    RestoreReply { next_block: restoring.next_block, records: restoring.records }
}

/// The restore of this number, if it is under way.
fn under_way(state: &State<'_>, id: u64) -> Result<Restoring, Refusal> {
    match state.meta.restoring {
        Some(restoring) if restoring.restore == id => Ok(restoring),
        Some(_) => Err(Refusal::Invalid("another restore has begun: this one is over")),
        None => Err(Refusal::Invalid("this restore was not begun, or was given up: begin it again")),
    }
}

fn begin(state: &mut State<'_>, id: u64, request: &RestoreBegin) -> Outcome<RestoreReply> {
    let header = request.header.as_ref().ok_or(Refusal::Invalid("a restore begins with a header"))?;
    if let Some(restoring) = state.meta.restoring {
        if restoring.restore == id {
            return Ok(reply(&restoring));
        }
        clear(state);
    } else if !state.scan(keys::ENTRIES, &keys::below(&Path::root()), 1)?.is_empty() {
        return Err(Refusal::NotEmpty(Path::root()).into());
    }
    let bump = if request.revision_bump == 0 { REVISION_BUMP } else { request.revision_bump };
    let after = |snapshot: u64, here: u64| {
        let after = snapshot.max(here).checked_add(bump).filter(|after| *after <= NUMBER_MAX);
        after.ok_or(Refusal::Invalid("revisions and sessions go up to 2^62: take a smaller bump"))
    };
    let restoring = Restoring {
        restore: id,
        next_block: 0,
        records: 0,
        revision_after: after(header.revision, state.meta.revision)?,
        next_session_after: after(header.next_session, state.meta.next_session)?,
        history_events_max: header.history_events_max,
        history_bytes_max: header.history_bytes_max,
        revision: header.revision,
    };
    forget_all_quotas(state);
    state.meta.restoring = Some(restoring);
    Ok(reply(&restoring))
}

/// What was restored so far goes. The root's own record stays: its counter must not go back.
fn clear(state: &mut State<'_>) {
    state.delete_range(keys::ENTRIES, keys::below(&Path::root()));
    forget_all_quotas(state);
    state.meta.restoring = None;
}

fn forget_all_quotas(state: &mut State<'_>) {
    state.delete_range(keys::QUOTAS, Range::prefix(&[]));
    state.meta.quotas = 0;
}

fn block(state: &mut State<'_>, id: u64, request: RestoreBlock) -> Outcome<RestoreReply> {
    let mut restoring = under_way(state, id)?;
    if request.number < restoring.next_block {
        return Ok(reply(&restoring));
    }
    if request.number > restoring.next_block {
        return Err(Refusal::Invalid("the blocks of a restore come in order").into());
    }
    let records = request.records.unwrap_or_default().records;
    if is_too_much(&records) {
        return Err(Refusal::Invalid("a block of a restore has at most 1000 records, and 1 MiB").into());
    }
    restoring.next_block += 1;
    restoring.records += records.len() as u64;
    for record in records {
        put(state, restoring.revision, record)?;
    }
    state.meta.restoring = Some(restoring);
    Ok(reply(&restoring))
}

/// An entry as it was.
fn put(state: &mut State<'_>, newest: u64, record: SnapshotRecord) -> Outcome<()> {
    let target = check_record(&record, newest).map_err(Refusal::from)?;
    let SnapshotRecord { path: _, value, version, created, modified, modified_unix_nanos, .. } = record;
    let SnapshotRecord { sequence, quota_entries_max: entries_max, quota_bytes_max: bytes_max, .. } = record;
    let mut entry = EntryRecord {
        value,
        version,
        created,
        modified,
        owner: 0,
        modified_unix_nanos,
        sequence,
        numbered: 0,
    };
    if target.is_root() {
        let known = state.entry(&target)?.unwrap_or_default();
        entry.sequence = entry.sequence.max(known.sequence);
        entry.numbered = known.numbered;
    } else {
        if state.entry(&target)?.is_some() {
            return Err(Refusal::Exists(target).into());
        }
        let parent = target.parent().unwrap_or_else(Path::root);
        if state.entry(&parent)?.is_none() {
            return Err(Refusal::ParentNotFound(parent).into());
        }
        check_no_other_kind(state, &target)?;
        state.charge(&target, Use::of(&target, &entry))?;
        // A snapshot does not say it: its names do.
        state.note_number(&target)?;
    }
    state.put(keys::ENTRIES, keys::entry(&target), &entry);
    if (entries_max, bytes_max) != (0, 0) {
        // Nothing of it is used yet: what is below comes later.
        state.set_quota(&target, QuotaRecord { entries_max, bytes_max, ..QuotaRecord::default() });
    }
    Ok(())
}

fn finish(state: &mut State<'_>, id: u64, request: RestoreFinish) -> Outcome<(RestoreReply, Option<u64>)> {
    if state.meta.restoring.is_none() && id != 0 && state.meta.restored == id {
        return Ok((RestoreReply { next_block: 0, records: request.records }, None));
    }
    let restoring = under_way(state, id)?;
    if request.records != restoring.records {
        return Err(Refusal::Invalid("the restore does not have all records: begin it again").into());
    }
    state.delete_range(keys::HISTORY, Range::prefix(&[]));
    state.meta.restoring = None;
    state.meta.restored = id;
    state.meta.revision = restoring.revision_after;
    state.meta.next_session = restoring.next_session_after;
    state.meta.history_first = restoring.revision_after + 1;
    (state.meta.history_events, state.meta.history_bytes) = (0, 0);
    state.meta.history_events_max = restoring.history_events_max;
    state.meta.history_bytes_max = restoring.history_bytes_max;
    Ok((reply(&restoring), Some(restoring.revision_after)))
}
