//! Reads: current at the leader, or what this member has.

use std::time::Instant;

use coord_kv::{KvError, Read};
use kuafu::Status;
use nuwa_api::proto::read_reply::What as Answer;
use nuwa_api::proto::read_request::What as Question;
use nuwa_api::proto::{self, Entry};
use nuwa_core::query;
use nuwa_model::{Path, PathError, Refusal};

use crate::app::{App, store_status};
use crate::hub::ANSWER_BYTES_MAX;
use crate::portions::Portions;

/// Entries of an answer.
const ENTRIES_MAX: usize = 1000;

pub(crate) async fn read(
    app: &App,
    request: proto::ReadRequest,
    deadline: Instant,
) -> Result<proto::ReadReply, Status> {
    let question = request.what.ok_or_else(|| Status::invalid_argument("the read asks nothing"))?;
    if !request.stale {
        app.barrier(deadline).await?;
    }
    app.reach(request.at_least, deadline).await?;
    // Before what it is said of.
    let revision = app.revision()?;
    let what = unless_restoring(app, question).map_err(|error| store_status(&error))?;
    let what = what.unwrap_or_else(|refusal| Answer::Refused((&refusal).into()));
    Ok(proto::ReadReply { revision, what: Some(what) })
}

/// A tree that is being restored is not shown; nor is what may have been read while it was.
fn unless_restoring(app: &App, question: Question) -> Result<Result<Answer, Refusal>, KvError> {
    if matches!(question, Question::Session(_) | Question::Summary(_)) {
        return answer(app, question);
    }
    let restored = || {
        let meta = query::meta(&app.view())?;
        Ok::<_, KvError>(if meta.restoring.is_some() { None } else { Some(meta.restored) })
    };
    let before = restored()?;
    let answer = answer(app, question)?;
    Ok(if before.is_some() && before == restored()? { answer } else { Err(Refusal::Restoring) })
}

fn answer(app: &App, question: Question) -> Result<Result<Answer, Refusal>, KvError> {
    let view = app.view();
    let path = |path: String, parse: fn(String) -> Result<Path, PathError>| {
        parse(path.clone()).map_err(|error| Refusal::BadPath { path, error })
    };
    Ok(Ok(match question {
        Question::Get(request) => match path(request.path, Path::new) {
            Ok(path) => Answer::Entry(proto::EntryReply { entry: query::get(&view, &path)? }),
            Err(refusal) => return Ok(Err(refusal)),
        },
        Question::List(request) => match path(request.path.clone(), Path::directory) {
            Ok(directory) => return list(&view, &directory, &request),
            Err(refusal) => return Ok(Err(refusal)),
        },
        Question::Lock(request) => match path(request.path, Path::file) {
            Ok(path) => {
                let (holders, waiters) = query::lock(&view, &path)?;
                Answer::Lock(proto::LockState { holders, waiters: waiters as u64 })
            }
            Err(refusal) => return Ok(Err(refusal)),
        },
        Question::Session(request) => {
            let record = query::session(&view, request.session)?;
            Answer::Session(record.map_or_else(proto::SessionState::default, |record| proto::SessionState {
                open: !record.ending,
                ttl_ms: record.ttl_ms,
                description: record.description,
                opened_unix_nanos: record.opened_unix_nanos,
                owner: record.owner,
            }))
        }
        Question::Quota(request) => match path(request.path, Path::directory) {
            Ok(directory) => {
                let record = query::quota(&view, &directory)?;
                Answer::Quota(record.map_or_else(proto::QuotaState::default, |record| proto::QuotaState {
                    entries_max: record.entries_max,
                    bytes_max: record.bytes_max,
                    entries: record.entries,
                    bytes: record.bytes,
                }))
            }
            Err(refusal) => return Ok(Err(refusal)),
        },
        Question::Summary(_) => {
            let meta = query::meta(&view)?;
            Answer::Summary(proto::Summary {
                history_first: meta.history_first,
                history_events: meta.history_events,
                history_bytes: meta.history_bytes,
                quotas: meta.quotas,
            })
        }
    }))
}

fn list(
    view: &dyn Read,
    directory: &Path,
    request: &proto::List,
) -> Result<Result<Answer, Refusal>, KvError> {
    let mut page = Page::new(request);
    let mut after = (!request.after.is_empty()).then(|| request.after.clone());
    let mut portions = Portions::new();
    let more = loop {
        let Some(portion) = portions.next() else { break true };
        // One beyond what was asked for says whether there are more.
        let limit = portion.min(page.room() + 1);
        let entries = query::list(view, directory, after.as_deref(), limit)?;
        portions.read(entries.len(), entries.iter().map(|entry| entry.path.len() + entry.value.len()).sum());
        after = entries.last().and_then(|last| Some(Path::new(&*last.path).ok()?.split()?.1.to_owned()));
        let is_last = entries.len() < limit;
        if !entries.into_iter().all(|entry| page.add(entry)) {
            break true;
        }
        if is_last {
            break false;
        }
    };
    let entries = page.entries;
    if entries.is_empty() && query::get(view, directory)?.is_none() {
        return Ok(Err(Refusal::NotFound(directory.clone())));
    }
    Ok(Ok(Answer::List(proto::ListReply { entries, more })))
}

/// A page of a directory that is being filled.
struct Page {
    entries: Vec<Entry>,
    entries_max: usize,
    bytes: usize,
    with_values: bool,
}

impl Page {
    fn new(request: &proto::List) -> Self {
        let entries_max = match request.entries_max {
            0 => ENTRIES_MAX,
            asked => (asked as usize).min(ENTRIES_MAX),
        };
        Self { entries: Vec::new(), entries_max, bytes: 0, with_values: request.with_values }
    }

    fn room(&self) -> usize {
        self.entries_max - self.entries.len()
    }

    /// False: it does not go into this page any more.
    fn add(&mut self, mut entry: Entry) -> bool {
        if !self.with_values {
            entry.value = bytes::Bytes::new();
        }
        let bytes = self.bytes + entry.value.len();
        if self.room() == 0 || (bytes > ANSWER_BYTES_MAX && !self.entries.is_empty()) {
            return false;
        }
        self.bytes = bytes;
        self.entries.push(entry);
        true
    }
}

#[cfg(test)]
mod tests;
