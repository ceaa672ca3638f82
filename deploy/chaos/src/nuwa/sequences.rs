//! Sequential names, some owned by the session that asks: all different, ascending, and none without a change that asked for it.

use std::time::Duration;

use nuwa_api::ops;
use nuwa_api::proto::Put;
use rand::Rng as _;
use serde::Serialize;

use super::book::Told;
use super::sites::Arenas;
use super::value::value;
use super::worker::{Answer, Worker};
use crate::crew::Span;

/// Where they all are.
pub(crate) const ROOT: &str = "/sequences/";
/// Of the sessions here.
pub(crate) const TTL: Duration = Duration::from_secs(10);

/// A name that was given.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub(crate) struct Given {
    pub(crate) object: usize,
    pub(crate) span: Span,
    /// Its digits.
    pub(crate) number: u64,
}

/// Path and digits of a sequential name; none if it is no such name.
pub(crate) fn split(path: &str) -> Option<(&str, u64)> {
    let stem = path.starts_with(ROOT).then(|| path.trim_end_matches(|c: char| c.is_ascii_digit()))?;
    Some((stem, path[stem.len()..].parse().ok()?))
}

/// Asks for names until it is told to stop.
pub(crate) async fn work(worker: &mut Worker, arenas: &Arenas) {
    while worker.crew.goes_on() {
        let object = arenas.sequences.enter();
        let (number, owned) = (worker.crew.number(), worker.dice.random_bool(0.3));
        let stem = format!("{ROOT}{object}/n-");
        let put = Put { sequential: true, with_parents: true, owned, ..ops::put(&stem, value(number)) };
        if let Some(kept) = worker.session().await {
            let told = vec![Told::put(&stem, number)];
            let (span, answer) = worker.txn(&kept, Vec::new(), vec![put.into()], Vec::new()).await;
            match answer {
                Answer::Done(done) => {
                    worker.book.change(span, Some(done.revision), told);
                    let path =
                        done.results.first().and_then(|result| Some(result.entry.as_ref()?.path.clone()));
                    match path.as_deref().and_then(split) {
                        Some((_, number)) => worker.book.sequences.push(Given { object, span, number }),
                        None => worker.wrong("a sequential name", &path),
                    }
                }
                Answer::Refused(other) => worker.wrong("a sequential name was refused", &other),
                Answer::Unknown => {
                    worker.book.change(span, None, told);
                }
            }
            // What it owns goes with it.
            if worker.dice.random_ratio(1, 200) {
                worker.end_session().await;
            }
        }
        worker.breathe().await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_a_stem_and_digits() {
        assert_eq!(split("/sequences/3/n-0000000012"), Some(("/sequences/3/n-", 12)));
        assert_eq!(split("/sequences/3/"), None);
        assert_eq!(split("/cells/3/a1"), None);
    }
}
