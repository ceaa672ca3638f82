//! A client with one session at a time, which writes down all that it asks and is told.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use nuwa_api::client::Freshness;
use nuwa_api::proto::read_reply::What as Shown;
use nuwa_api::proto::read_request::What as Question;
use nuwa_api::proto::{Compare, Operation, RefusalCode};
use nuwa_api::session::TxnDone;
use nuwa_api::{ClientError, NuwaClient, Session, SessionState};
use rand::Rng as _;
use rand::rngs::StdRng;

use super::book::{Book, Looked};
use crate::crew::{Crew, Met, Span};

/// With faults that a majority survives every call is answered in less; who waits for longer waits in vain.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);
/// Pauses between the operations of a worker are shorter.
const PAUSE_MAX_MS: u64 = 40;
/// One call in so many is given up soon, so that its outcome is unknown.
const HASTY_EVERY: u32 = 15;
const HASTE_MAX_US: u64 = 5000;
/// Some of these after so many turns of the others at most.
const HASTE_TURNS_MAX: u32 = 60;
/// A call ends this long after its deadline at most.
const END_MAX: Duration = Duration::from_secs(5);

/// What became of a call.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Answer<T> {
    Done(T),
    Refused(RefusalCode),
    /// It may have been done, or may be yet.
    Unknown,
}

/// A session, and when it was last heard for certain.
#[derive(Debug)]
pub(crate) struct Kept {
    pub(crate) session: Session,
    /// When the last call was made that was answered: whoever leads cannot end it before its time to live after this is over.
    answered_ns: AtomicU64,
}

impl Kept {
    /// It is not over before, unless somebody ends it.
    pub(crate) fn lives_until_ns(&self) -> u64 {
        let ttl_ns = u64::try_from(self.session.ttl().as_nanos()).unwrap_or(u64::MAX);
        self.answered_ns.load(Ordering::Relaxed).saturating_add(ttl_ns)
    }

    pub(crate) fn is_over(&self) -> bool {
        self.session.state() == SessionState::Lost
    }
}

/// See the module.
pub(crate) struct Worker {
    pub(crate) crew: Arc<Crew>,
    pub(crate) number: usize,
    pub(crate) dice: StdRng,
    pub(crate) client: NuwaClient,
    ttl: Duration,
    kept: Option<Arc<Kept>>,
    pub(crate) book: Book,
}

impl Worker {
    pub(crate) fn new(
        crew: Arc<Crew>,
        number: usize,
        dice: StdRng,
        client: NuwaClient,
        ttl: Duration,
    ) -> Self {
        Self { crew, number, dice, client, ttl, kept: None, book: Book::default() }
    }

    pub(crate) async fn breathe(&mut self) {
        let pause = Duration::from_millis(self.dice.random_range(0..PAUSE_MAX_MS));
        tokio::time::sleep(pause).await;
    }

    /// The session; another one if it is over. None if none could be opened.
    pub(crate) async fn session(&mut self) -> Option<Arc<Kept>> {
        if let Some(kept) = self.kept.clone() {
            if !kept.is_over() {
                return Some(kept);
            }
            self.is_told_over(&kept);
        }
        let (client, ttl, name) = (self.client.clone(), self.ttl, format!("worker {}", self.number));
        let open = |deadline| async move { client.open_session(ttl, name, deadline).await };
        let (span, answer) = self.ask("open a session", Some(PATIENCE), open).await;
        let Answer::Done(session) = answer else { return None };
        self.book.sessions.push(session.id());
        let kept = Arc::new(Kept { session, answered_ns: AtomicU64::new(span.called_ns) });
        self.kept = Some(Arc::clone(&kept));
        Some(kept)
    }

    /// Lets go of the session: when nobody has it any more it ends with its time.
    pub(crate) fn forget_session(&mut self) {
        self.kept = None;
    }

    /// Ends the session; the answer is whether that is known.
    pub(crate) async fn end_session(&mut self) -> Option<(Span, bool)> {
        let kept = self.kept.take()?;
        let session = &kept.session;
        let end = |deadline| async move { session.end_shared(deadline).await };
        let (span, answer) = self.ask("end the session", Some(PATIENCE), end).await;
        Some((span, answer == Answer::Done(())))
    }

    /// The leader said that the session is over: not before its time, which it has from its last answered call on at least.
    fn is_told_over(&mut self, kept: &Kept) {
        let early_ns = kept.lives_until_ns().saturating_sub(self.crew.now_ns());
        if early_ns > 0 {
            let (id, early) = (kept.session.id(), Duration::from_nanos(early_ns));
            self.crew
                .wrong(format!("worker {}: session {id} was over {early:?} before its time", self.number));
        }
        self.kept = None;
    }

    /// As [`Self::ask`], under a session.
    pub(crate) async fn ask_as<T, W>(
        &mut self,
        kept: &Kept,
        what: &str,
        within: Option<Duration>,
        work: impl FnOnce(Option<Instant>) -> W,
    ) -> (Span, Answer<T>)
    where
        W: Future<Output = Result<T, ClientError>>,
    {
        let (span, answer) = self.ask(what, within, work).await;
        self.heard(kept, span, &answer);
        (span, answer)
    }

    /// The same, of something that others may hold up: its time is not noted, and may be over without an answer.
    pub(crate) async fn ask_waiting<T, W>(
        &mut self,
        kept: &Kept,
        what: &str,
        wait: Duration,
        work: impl FnOnce(Option<Instant>) -> W,
    ) -> (Span, Answer<T>)
    where
        W: Future<Output = Result<T, ClientError>>,
    {
        let called_ns = self.crew.now_ns();
        let done = work(Some(Instant::now() + wait)).await;
        let span = Span::new(called_ns, self.crew.now_ns());
        let answer = self.answer(span, what, wait, done);
        self.heard(kept, span, &answer);
        (span, answer)
    }

    fn heard<T>(&mut self, kept: &Kept, span: Span, answer: &Answer<T>) {
        if !matches!(answer, Answer::Unknown) {
            kept.answered_ns.fetch_max(span.called_ns, Ordering::Relaxed);
        }
        if kept.is_over() {
            self.is_told_over(kept);
        }
    }

    /// A transaction under the session.
    pub(crate) async fn txn(
        &mut self,
        kept: &Kept,
        compares: Vec<Compare>,
        then: Vec<Operation>,
        otherwise: Vec<Operation>,
    ) -> (Span, Answer<TxnDone>) {
        let session = &kept.session;
        let work = |deadline| session.txn(compares, then, otherwise, deadline);
        self.ask_as(kept, "a transaction", None, work).await
    }

    /// A current read.
    pub(crate) async fn look(&mut self, question: Question) -> Option<(Span, Result<Shown, RefusalCode>)> {
        let client = self.client.clone();
        let work = |deadline| async move { client.read(question, Freshness::Linearizable, deadline).await };
        let (span, answer) = self.ask("a read", None, work).await;
        match answer {
            Answer::Done((revision, shown)) => {
                self.book.looked.push(Looked { span, revision });
                Some((span, Ok(shown)))
            }
            Answer::Refused(code) => Some((span, Err(code))),
            Answer::Unknown => None,
        }
    }

    /// Something was answered that cannot be.
    pub(crate) fn wrong(&self, what: &str, answer: &dyn std::fmt::Debug) {
        self.crew.wrong(format!("worker {}: {what}: {answer:?}", self.number));
    }

    /// Asks until there is an answer, or nobody wants to know any more.
    ///
    /// `within`: none: usually for as long as it takes.
    pub(crate) async fn ask<T, W>(
        &mut self,
        what: &str,
        within: Option<Duration>,
        work: impl FnOnce(Option<Instant>) -> W,
    ) -> (Span, Answer<T>)
    where
        W: Future<Output = Result<T, ClientError>>,
    {
        let haste = within.is_none() && self.dice.random_ratio(1, HASTY_EVERY);
        let hasty = Duration::from_micros(self.dice.random_range(100..HASTE_MAX_US));
        let within = if haste { hasty } else { within.unwrap_or(PATIENCE) };
        let deadline = Instant::now() + within;
        // Some are told a deadline, some are given up without a word, most of them before an answer can be there.
        let told = (!haste || self.dice.random_bool(0.3)).then_some(deadline);
        let turns = self.dice.random_range(0..HASTE_TURNS_MAX);
        let given_up = async {
            match told {
                Some(deadline) => tokio::time::sleep_until((deadline + END_MAX).into()).await,
                None => {
                    for _ in 0..turns {
                        tokio::task::yield_now().await;
                    }
                }
            }
        };
        let work = async {
            tokio::select! {
                biased;
                done = work(told) => Some(done),
                () = given_up => None,
            }
        };
        let crew = Arc::clone(&self.crew);
        let (span, done) = crew.timed(work).await;
        let answer = match done {
            Some(done) => self.answer(span, what, within, done),
            None => {
                if told.is_some() {
                    self.met(span, what, &"no answer, and no end at its deadline either");
                }
                Answer::Unknown
            }
        };
        (span, answer)
    }

    fn answer<T>(&self, span: Span, what: &str, within: Duration, done: Result<T, ClientError>) -> Answer<T> {
        let error = match done {
            Ok(done) => return Answer::Done(done),
            Err(error) => error,
        };
        match error.refusal() {
            // A change that was asked for before may have been made, and its answer gone with the session.
            Some(RefusalCode::SessionOver) => Answer::Unknown,
            Some(code) => Answer::Refused(code),
            None => {
                if !error.retryable() || within >= PATIENCE {
                    self.met(span, what, &error);
                }
                Answer::Unknown
            }
        }
    }

    fn met(&self, span: Span, what: &str, error: &dyn std::fmt::Display) {
        self.crew.met(Met {
            span,
            what: format!("worker {}: {what}: {error}", self.number),
            no_space: false,
        });
    }
}
