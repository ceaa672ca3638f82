//! What a request needs: rights, the paths they are needed on, and the sessions it names. Pure; handlers ask before they do anything.
//!
//! The table is in `docs/service.md`, "Rights". Nothing of the request was looked at before, so a path may be none: the tree
//! refuses it later, if a grant covers how it begins.
//!
//! Matches are exhaustive, and messages are taken apart field by field: what is added to a request does not get by without a decision.

use kuafu::Status;
use nuwa_api::proto::command::What as CommandKind;
use nuwa_api::proto::read_request::What as Question;
use nuwa_api::proto::{self, Compare, Operation, operation};
use nuwa_model::path::PATH_MAX_BYTES;
use zhongkui::{Rights, Target};
use zhongkui_access::Holder;
use zhongkui_access::revoked::FOLDER;

/// The registry, and what was taken back.
const FOR_ALL: [&str; 2] = ["/services/", FOLDER];
/// Whoever takes all of it, or sets what it is all kept by.
const ROOT: &str = "/";

/// Rights on a path.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Need<'a> {
    pub(crate) rights: Rights,
    pub(crate) path: &'a str,
}

impl<'a> Need<'a> {
    const fn new(rights: Rights, path: &'a str) -> Self {
        Self { rights, path }
    }
}

/// Of a command: all of these. None at all: any capability that is good.
pub(crate) fn change(what: &CommandKind) -> impl Iterator<Item = Need<'_>> {
    let (compares, then, otherwise): (&[Compare], &[Operation], &[Operation]) = match what {
        CommandKind::Txn(proto::Txn { session: _, compares, then, otherwise }) => (compares, then, otherwise),
        CommandKind::OpenSession(_)
        | CommandKind::EndSession(_)
        | CommandKind::Lock(_)
        | CommandKind::Unlock(_)
        | CommandKind::SetQuota(_)
        | CommandKind::SetHistory(_)
        | CommandKind::Restore(_) => (&[], &[], &[]),
    };
    let own = match what {
        CommandKind::Txn(_) => None,
        CommandKind::OpenSession(proto::OpenSession { ttl_ms: _, description: _, owner: _ })
        | CommandKind::EndSession(proto::EndSession { session: _ }) => None,
        CommandKind::Lock(lock) => Some(self::lock(lock)),
        CommandKind::Unlock(proto::Unlock { session: _, path, owner: _ }) => {
            Some(Need::new(Rights::LOCK, path))
        }
        CommandKind::SetQuota(proto::SetQuota { path, entries_max: _, bytes_max: _ }) => {
            Some(Need::new(Rights::ADMINISTER, path))
        }
        CommandKind::SetHistory(proto::SetHistory { events_max: _, bytes_max: _ }) => {
            Some(Need::new(Rights::ADMINISTER, ROOT))
        }
        CommandKind::Restore(proto::Restore { restore: _, step: _ }) => {
            Some(Need::new(Rights::WRITE | Rights::ADMINISTER, ROOT))
        }
    };
    // Both lists: which one is done is not known before.
    let operations =
        then.iter().chain(otherwise).flat_map(|operation| self::operation(operation).into_iter());
    compares.iter().map(compare).chain(operations.flatten()).chain(own)
}

fn compare(compare: &Compare) -> Need<'_> {
    let Compare { path, relation: _, with: _ } = compare;
    Need::new(Rights::READ, path)
}

fn operation(operation: &Operation) -> [Option<Need<'_>>; 2] {
    let Operation { what } = operation;
    // One that says nothing is refused by the tree, and the whole command with it.
    let Some(what) = what else { return [None, None] };
    match what {
        operation::What::Put(put) => {
            let proto::Put { path, value: _, existence: _, owned: _, sequential, with_parents: _ } = put;
            // Its name is not known yet, and is another one than this.
            let path = if *sequential { directory_of(path) } else { path };
            [Some(Need::new(Rights::WRITE, path)), None]
        }
        operation::What::MakeDirectory(proto::MakeDirectory { path, with_parents: _, may_exist: _ })
        | operation::What::Delete(proto::Delete { path, subtree: _, may_be_absent: _ }) => {
            [Some(Need::new(Rights::WRITE, path)), None]
        }
        operation::What::Rename(proto::Rename { from, to, no_replace: _ }) => [
            // Whoever may read where it goes reads what it was.
            Some(Need::new(Rights::READ | Rights::WRITE, from)),
            Some(Need::new(Rights::WRITE, to)),
        ],
        operation::What::Get(proto::Get { path }) => [Some(Need::new(Rights::READ, path)), None],
    }
}

/// A claim that makes the file, or gives it a value, writes.
fn lock(lock: &proto::Lock) -> Need<'_> {
    let proto::Lock { session: _, path, owner: _, shared: _, wait: _, value, with_file } = lock;
    let writes = *with_file || value.is_some();
    Need::new(if writes { Rights::LOCK | Rights::WRITE } else { Rights::LOCK }, path)
}

fn directory_of(path: &str) -> &str {
    path.rfind('/').map_or(path, |at| &path[..=at])
}

/// `None`: any capability that is good.
pub(crate) fn read(question: &Question) -> Option<Need<'_>> {
    match question {
        Question::Get(proto::Get { path })
        | Question::List(proto::List { path, after: _, entries_max: _, with_values: _ })
        | Question::Lock(proto::GetLock { path })
        | Question::Quota(proto::GetQuota { path }) => Some(Need::new(Rights::READ, path)),
        Question::Session(proto::GetSession { session: _ }) | Question::Summary(proto::GetSummary {}) => None,
    }
}

pub(crate) fn watch(request: &proto::WatchRequest) -> Need<'_> {
    let proto::WatchRequest { path, from_revision: _, from_number: _, wait_ms: _, events_max: _ } = request;
    Need::new(Rights::READ, path)
}

pub(crate) const fn export() -> Need<'static> {
    Need::new(Rights::READ, ROOT)
}

/// Sessions that a command names, each of which must be its caller's. First the one under which it is done once.
pub(crate) fn sessions(stamp: Option<&proto::Stamp>, what: &CommandKind) -> impl Iterator<Item = u64> {
    let stamp = stamp.map(|stamp| stamp.session);
    let own = match what {
        // Nobody's is 0.
        CommandKind::Txn(txn) => Some(txn.session).filter(|session| *session != 0),
        CommandKind::EndSession(end) => Some(end.session),
        CommandKind::Lock(lock) => Some(lock.session),
        CommandKind::Unlock(unlock) => Some(unlock.session),
        CommandKind::OpenSession(_)
        | CommandKind::SetQuota(_)
        | CommandKind::SetHistory(_)
        | CommandKind::Restore(_) => None,
    };
    stamp.into_iter().chain(own.filter(|own| Some(*own) != stamp))
}

/// All of them, or PERMISSION_DENIED.
pub(crate) fn check<'a>(holder: &Holder, needs: impl IntoIterator<Item = Need<'a>>) -> Result<(), Status> {
    // As much as a path can have: what is none may be as long as a message, and this goes into the audit log. A grant names fewer
    // bytes, so it covers the one as it does the other.
    let cut = |path: &'a str| &path[..path.floor_char_boundary(PATH_MAX_BYTES)];
    needs.into_iter().try_for_each(|need| {
        if need.rights == Rights::READ && for_all(need.path) {
            return holder.check_valid();
        }
        holder.check(need.rights, &Target::Nuwa(cut(need.path)))
    })
}

/// What every client reads to find servers, and to know which keys are followed. Nothing in it is secret, and whoever could not read it would not
/// hear of a new authority.
fn for_all(path: &str) -> bool {
    FOR_ALL.iter().any(|folder| path.starts_with(folder))
}

#[cfg(test)]
mod tests;
