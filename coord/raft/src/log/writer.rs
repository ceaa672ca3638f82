//! The thread that writes the log, and who waits for it. Group commit: all that was submitted while a write was under
//! way goes into the next one.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, sync_channel};
use std::task::{Context, Poll, Waker};
use std::thread::JoinHandle;

use parking_lot::{Condvar, Mutex};

use crate::log::LogError;
use crate::log::files::{SegmentFile, SegmentFiles};
use crate::log::state::{LogState, Pending, Write};

/// The log as its writer, its readers and its waiters share it.
#[derive(Debug)]
pub(crate) struct Shared {
    pub(crate) state: Mutex<LogState>,
    submitted: Condvar,
    stopping: std::sync::atomic::AtomicBool,
    pub(crate) files: Arc<SegmentFiles>,
    pub(crate) durability: Durability,
    io: Mutex<Io>,
}

/// Whoever holds this writes.
#[derive(Debug)]
struct Io {
    active: Option<SegmentFile>,
    /// Segments as they come from the thread that makes them in advance.
    prepared: Option<Receiver<Result<SegmentFile, LogError>>>,
}

/// Owns the threads; dropping it writes what was submitted and ends them.
#[derive(Debug)]
pub(crate) struct Writer {
    pub(crate) shared: Arc<Shared>,
    threads: Mutex<Vec<JoinHandle<()>>>,
}

impl Writer {
    /// Writes what was submitted and ends the threads. What is submitted later is never durable.
    pub(crate) fn close(&self) {
        self.shared.stopping.store(true, Ordering::SeqCst);
        {
            // The writer looks at `stopping` under this lock before it sleeps, so it cannot miss the wake-up.
            let _state = self.shared.state.lock();
            self.shared.submitted.notify_all();
        }
        for thread in self.threads.lock().drain(..) {
            if thread.join().is_err() {
                tracing::error!("a thread of the log panicked");
            }
            // The first to end is the writer; without its receiver the other one ends too.
            self.shared.io.lock().prepared = None;
        }
    }

    pub(crate) fn start(
        files: Arc<SegmentFiles>,
        state: LogState,
        active: Option<SegmentFile>,
    ) -> Result<Self, LogError> {
        let next = state.end.sequence + u64::from(state.end.begun);
        // A rendezvous: one segment lies ready, the next is made when that one is taken.
        let (send, prepared) = sync_channel(0);
        let spawn = |name: &str, body: Box<dyn FnOnce() + Send>| {
            std::thread::Builder::new()
                .name(name.to_owned())
                .spawn(body)
                .map_err(|source| LogError::io("start a thread for", files.dir(), source))
        };
        let maker = {
            let files = Arc::clone(&files);
            spawn(
                "raft-segments",
                Box::new(move || {
                    for sequence in next.. {
                        let segment = files.prepare(sequence);
                        let failed = segment.is_err();
                        if send.send(segment).is_err() || failed {
                            return;
                        }
                    }
                }),
            )?
        };
        let shared = Arc::new(Shared {
            state: Mutex::new(state),
            submitted: Condvar::new(),
            stopping: std::sync::atomic::AtomicBool::new(false),
            durability: Durability::default(),
            io: Mutex::new(Io { active, prepared: Some(prepared) }),
            files: Arc::clone(&files),
        });
        let writer = {
            let shared = Arc::clone(&shared);
            spawn("raft-log", Box::new(move || shared.run()))?
        };
        Ok(Self { shared, threads: Mutex::new(vec![writer, maker]) })
    }
}

impl Drop for Writer {
    fn drop(&mut self) {
        self.close();
    }
}

impl Shared {
    /// Has the thread write what was submitted.
    pub(crate) fn kick(&self) {
        self.submitted.notify_one();
    }

    fn run(&self) {
        loop {
            {
                let mut state = self.state.lock();
                while !state.has_pending() {
                    if self.stopping.load(Ordering::SeqCst) {
                        return;
                    }
                    self.submitted.wait(&mut state);
                }
            }
            let mut io = self.io.lock();
            self.write_pending(&mut io);
        }
    }

    /// Whether there was something to write.
    fn write_pending(&self, io: &mut Io) -> bool {
        let Some(pending) = self.state.lock().take_pending() else { return false };
        if self.durability.failure().is_some() {
            return true;
        }
        // Order: the records, durable; then those who wait are told; then segments the records made free are
        // retired. A crash in between leaves segments that hold nothing live.
        if let Err(error) = io.write(&pending) {
            tracing::error!(%error, "the log could not be written; this member stops");
            self.durability.fail(&error);
            return true;
        }
        self.state.lock().made_durable(&pending);
        self.durability.reached(pending.submission);
        for sequence in &pending.retire {
            if let Err(error) = self.files.retire(*sequence) {
                tracing::warn!(%error, "a log segment that is not needed any more stays");
                break;
            }
        }
        true
    }
}

impl Io {
    fn write(&mut self, pending: &Pending) -> Result<(), LogError> {
        for write in &pending.writes {
            self.segment(write)?.write(u64::from(write.offset), &write.pieces)?;
        }
        Ok(())
    }

    fn segment(&mut self, write: &Write) -> Result<&mut SegmentFile, LogError> {
        while self.active.as_ref().is_none_or(|active| active.sequence < write.sequence) {
            let stopped = || LogError::Failed { reason: "the log is being closed".into() };
            let prepared = self.prepared.as_ref().ok_or_else(stopped)?;
            self.active = Some(prepared.recv().map_err(|_| stopped())??);
        }
        let active = self.active.as_mut().expect("just made sure of");
        assert_eq!(active.sequence, write.sequence, "writes go to segments in order");
        Ok(active)
    }
}

/// How far the log is durable, and who waits for more.
#[derive(Debug, Default)]
pub(crate) struct Durability {
    durable: AtomicU64,
    inner: Mutex<Waiting>,
}

#[derive(Debug, Default)]
struct Waiting {
    failure: Option<Arc<str>>,
    wakers: Vec<(u64, Waker)>,
    /// Told once when the log fails.
    on_failure: Vec<Waker>,
}

impl Durability {
    pub(crate) fn failure(&self) -> Option<Arc<str>> {
        self.inner.lock().failure.clone()
    }

    fn reached(&self, submission: u64) {
        let ready: Vec<Waker> = {
            let mut inner = self.inner.lock();
            self.durable.store(submission, Ordering::Release);
            let (ready, rest) = inner.wakers.drain(..).partition(|(wanted, _)| *wanted <= submission);
            inner.wakers = rest;
            let ready: Vec<(u64, Waker)> = ready;
            ready.into_iter().map(|(_, waker)| waker).collect()
        };
        ready.into_iter().for_each(Waker::wake);
    }

    fn fail(&self, error: &LogError) {
        let wakers: Vec<Waker> = {
            let mut inner = self.inner.lock();
            inner.failure = Some(describe(error).into());
            let waiting = inner.wakers.drain(..).map(|(_, waker)| waker).collect::<Vec<_>>();
            waiting.into_iter().chain(inner.on_failure.drain(..)).collect()
        };
        wakers.into_iter().for_each(Waker::wake);
    }

    /// Done when everything up to `submission` is durable.
    pub(crate) fn wait(&self, submission: u64) -> DurableWait<'_> {
        DurableWait { durability: self, submission }
    }

    /// Done when the log failed: never, if all goes well.
    pub(crate) async fn failed(&self) -> Arc<str> {
        std::future::poll_fn(|context| {
            let mut inner = self.inner.lock();
            match &inner.failure {
                Some(reason) => Poll::Ready(Arc::clone(reason)),
                None => {
                    inner.on_failure.retain(|waker| !waker.will_wake(context.waker()));
                    inner.on_failure.push(context.waker().clone());
                    Poll::Pending
                }
            }
        })
        .await
    }
}

fn describe(error: &dyn std::error::Error) -> String {
    match error.source() {
        Some(source) => format!("{error}: {source}"),
        None => error.to_string(),
    }
}

/// See [`Durability::wait`].
#[derive(Debug)]
pub(crate) struct DurableWait<'a> {
    durability: &'a Durability,
    submission: u64,
}

impl Future for DurableWait<'_> {
    type Output = Result<(), LogError>;

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        if self.durability.durable.load(Ordering::Acquire) >= self.submission {
            return Poll::Ready(Ok(()));
        }
        let mut inner = self.durability.inner.lock();
        if self.durability.durable.load(Ordering::Acquire) >= self.submission {
            return Poll::Ready(Ok(()));
        }
        if let Some(reason) = &inner.failure {
            return Poll::Ready(Err(LogError::Failed { reason: Arc::clone(reason) }));
        }
        // Polled again by the same task: one waker of it is enough.
        let known = inner
            .wakers
            .iter()
            .any(|(wanted, waker)| *wanted == self.submission && waker.will_wake(context.waker()));
        if !known {
            inner.wakers.push((self.submission, context.waker().clone()));
        }
        Poll::Pending
    }
}
