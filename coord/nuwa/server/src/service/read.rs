//! Reads: current at the leader, or what this member has.

use std::time::Instant;

use coord_kv::KvError;
use kuafu::Status;
use nuwa_api::proto::read_reply::What as Answer;
use nuwa_api::proto::read_request::What as Question;
use nuwa_api::proto::{self, Entry};
use nuwa_core::query;
use nuwa_model::{Path, PathError, Refusal};

use crate::app::{App, store_status};
use crate::hub::ANSWER_BYTES_MAX;

/// Entries of an answer.
const ENTRIES_MAX: usize = 1000;
/// Entries that are read at a time, with their values.
const PAGE: usize = 64;

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
            Ok(directory) => return list(app, &directory, &request),
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

fn list(app: &App, directory: &Path, request: &proto::List) -> Result<Result<Answer, Refusal>, KvError> {
    let view = app.view();
    let asked = match request.entries_max {
        0 => ENTRIES_MAX,
        asked => (asked as usize).min(ENTRIES_MAX),
    };
    let mut after = (!request.after.is_empty()).then(|| request.after.clone());
    let (mut entries, mut bytes) = (Vec::<Entry>::new(), 0);
    let more = loop {
        let page = query::list(&view, directory, after.as_deref(), PAGE)?;
        let is_last = page.len() < PAGE;
        after =
            page.last().and_then(|last| Some(nuwa_model::Path::new(&*last.path).ok()?.split()?.1.to_owned()));
        let mut full = false;
        for mut entry in page {
            if !request.with_values {
                entry.value = bytes::Bytes::new();
            }
            full = entries.len() >= asked
                || (bytes + entry.value.len() > ANSWER_BYTES_MAX && !entries.is_empty());
            if full {
                break;
            }
            bytes += entry.value.len();
            entries.push(entry);
        }
        if full || is_last {
            break full;
        }
    };
    if entries.is_empty() && query::get(&view, directory)?.is_none() {
        return Ok(Err(Refusal::NotFound(directory.clone())));
    }
    Ok(Ok(Answer::List(proto::ListReply { entries, more })))
}
