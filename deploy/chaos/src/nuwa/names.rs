//! Names of one directory, created, deleted, renamed and listed by everybody: the model is that of Pangu's names.

use nuwa_api::ops;
use nuwa_api::proto::read_reply::What as Shown;
use nuwa_api::proto::read_request::What as Question;
use nuwa_api::proto::{List, ListReply, Operation as Op, Put, RefusalCode, Rename};
use rand::Rng as _;

use super::book::{Noted, Told};
use super::sites::Arenas;
use super::value::value;
use super::worker::{Answer, Worker};
use crate::crew::Span;
use crate::linear::Operation;
use crate::names::{Act, Done, FILE, NAMED, NAMES, Said, WATCHED};

fn folder(object: usize) -> String {
    format!("/names/{object}/")
}

/// Works on names until it is told to stop.
pub(crate) async fn work(worker: &mut Worker, arenas: &Arenas) {
    while worker.crew.goes_on() {
        let object = arenas.names.enter();
        // Create, unlink, rename, list: what there is of Pangu's in Nuwa.
        let what = [0, 0, 0, 2, 2, 4, 6, 6][worker.dice.random_range(0..8)];
        let (one, other) = (worker.dice.random_range(0..NAMED), worker.dice.random_range(0..NAMED));
        match Act::of(what, one, other) {
            Act::List => list(worker, object).await,
            act => change(worker, object, act).await,
        }
        worker.breathe().await;
    }
}

/// As an operation, and what it tells.
fn operation(folder: &str, act: Act, number: u64) -> Option<(Op, Vec<Told>)> {
    let path = |name: usize| format!("{folder}{}", NAMES[name]);
    Some(match act {
        Act::Create(name) => {
            let put = Put { with_parents: true, ..ops::create(path(name), value(number)) };
            (put.into(), vec![Told::put(path(name), number)])
        }
        Act::Unlink(name) => (ops::delete(path(name)).into(), vec![Told::deleted(path(name))]),
        Act::Rename { from, to, replace } => {
            let rename = Rename { no_replace: !replace, ..ops::rename(path(from), path(to)) };
            // Of what is moved only whoever made it knows the number.
            (rename.into(), vec![Told::deleted(path(from)), Told::put(path(to), 0)])
        }
        Act::Mkdir(_) | Act::Rmdir(_) | Act::Link { .. } | Act::List => return None,
    })
}

async fn change(worker: &mut Worker, object: usize, act: Act) {
    let Some(kept) = worker.session().await else { return };
    let number = worker.crew.number();
    let Some((operation, told)) = operation(&folder(object), act, number) else { return };
    let (span, answer) = worker.txn(&kept, Vec::new(), vec![operation], Vec::new()).await;
    let (said, revision) = match answer {
        Answer::Done(done) => (Some(Said::Ok), done.revision),
        Answer::Refused(RefusalCode::Exists) => (Some(Said::Exists), 0),
        Answer::Refused(RefusalCode::NotFound) => (Some(Said::NoEntry), 0),
        Answer::Refused(other) => return worker.wrong("a change of names was refused", &(act, other)),
        Answer::Unknown => (None, 0),
    };
    let is_made = matches!(said, None | Some(Said::Ok));
    let change = is_made.then(|| worker.book.change(span, said.map(|_| revision), told));
    note(worker, object, (span, said.is_some()), Done::new(act, said), change);
}

async fn list(worker: &mut Worker, object: usize) {
    let question = Question::List(List { path: folder(object), ..List::default() });
    let Some((span, shown)) = worker.look(question).await else { return };
    let listed = match shown {
        Ok(Shown::List(reply)) => listed(&folder(object), &reply),
        // Whoever creates the first name makes the directory.
        Err(RefusalCode::NotFound) => Some([0; WATCHED]),
        other => return worker.wrong("a list", &other),
    };
    match listed {
        Some(listed) => {
            note(worker, object, (span, true), Done::new(Act::List, Some(Said::Listed(listed))), None)
        }
        None => worker.wrong("a list of other names", &()),
    }
}

fn listed(folder: &str, reply: &ListReply) -> Option<[u8; WATCHED]> {
    let mut listed = [0; WATCHED];
    for entry in &reply.entries {
        let name = entry.path.strip_prefix(folder)?;
        let place = NAMES.iter().position(|known| *known == name)?;
        // No name comes twice.
        if std::mem::replace(&mut listed[place], FILE) != 0 {
            return None;
        }
    }
    (!reply.more).then_some(listed)
}

fn note(
    worker: &mut Worker,
    object: usize,
    (span, is_known): (Span, bool),
    action: Done,
    change: Option<usize>,
) {
    let returned_ns = is_known.then_some(span.returned_ns);
    let operation = Operation { worker: worker.number, action, called_ns: span.called_ns, returned_ns };
    worker.book.names.push(Noted { object, operation, change });
}
