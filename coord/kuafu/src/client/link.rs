//! One open connection of a client: what callers and the connection's task share, and that task.
//!
//! A caller encodes its request and, if nothing else is in flight, writes it to the socket itself: no hand-over to the
//! task, no wake-up. If other calls are in flight and the caller runs on the task's own thread, the write is left to
//! the task, which runs right after: many requests then go out in one write.
//!
//! Locks: `calls` and `out` are never held together. `out` is held over a non-blocking write; the task never waits
//! for it but asks the holder to wake it.

use std::future::{Future, poll_fn};
use std::io::{self, IoSlice};
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::task::{Context, Poll, Waker};
use std::thread::ThreadId;
use std::time::Instant;

use bytes::Bytes;
use futures::task::AtomicWaker;
use parking_lot::{Mutex, MutexGuard};
use prost::Message;
use tokio::runtime::Handle;
use tokio::sync::{Semaphore, SemaphorePermit};
use tokio::time::Sleep;
use tokio_util::io::poll_read_buf;

use super::calls::{Calls, Credit, Outcome};
use crate::auth::{Binding, Credentials};
use crate::conn::outbound::SLICES_MAX;
use crate::conn::{Admit, Body, Conn, ConnError, Decoder, Event, Outbound, Step};
use crate::frame::{
    HEADER_LEN, Header, Hello, Kind, MESSAGE_LEN_MAX, PAYLOAD_LEN_MAX, PROOFS_MAX, deadline_to_wire,
};
use crate::message::{CallOptions, PayloadCheck};
use crate::method::Method;
use crate::payload::PayloadAllocator;
use crate::status::Status;
use crate::transport::{ReadHalf, WriteHalf};

/// Credit in bytes is counted in units of this.
const CREDIT_UNIT: usize = 4096;
/// Payloads from this length on are written by their caller at once, even if other calls are in flight.
const WRITE_AT_ONCE: usize = 64 << 10;
/// Reads in a row before other tasks get a turn.
const READS_PER_TURN: usize = 32;

/// Why a call could not be started on this connection.
pub(super) enum StartError {
    /// The connection ended before anything was sent: another one may be tried.
    Gone,
    Failed(Status),
}

#[derive(Debug)]
pub(super) struct Link {
    calls: Mutex<Calls>,
    out: Mutex<Out>,
    /// The task wanted `out` and did not get it.
    out_wanted: AtomicBool,
    /// Wakes the task.
    task: AtomicWaker,
    task_thread: ThreadId,
    /// No new calls: the server goes away, or the connection ended.
    closed_for_calls: AtomicBool,
    /// Nobody needs the connection any more.
    abandoned: AtomicBool,
    credit_calls: Semaphore,
    credit_units: Semaphore,
    credit_units_max: u32,
    waiting_for_credit: AtomicUsize,
    waiting_max: usize,
}

#[derive(Debug)]
struct Out {
    queue: Outbound,
    /// Gone when the connection ended or writing failed. The socket closes with it, however long the link lives.
    writer: Option<WriteHalf>,
    presenter: Option<Presenter>,
}

/// Who this side is, to the server of this connection.
#[derive(Debug)]
pub(super) struct Identity {
    pub(super) credentials: Arc<dyn Credentials>,
    pub(super) binding: Binding,
    pub(super) introduction: Bytes,
}

/// Shows a proof before the first request that refers to it: at first, and whenever keys have changed.
#[derive(Debug)]
struct Presenter {
    identity: Identity,
    /// The credentials' generation that was shown last, under this number.
    generation: u64,
    number: u8,
}

impl Presenter {
    fn new(identity: Identity) -> Self {
        Self { identity, generation: 0, number: 0 }
    }

    /// The number to refer to; a proof that has to be shown first is put into the queue.
    fn number(&mut self, queue: &mut Outbound) -> u8 {
        let Identity { credentials, binding, introduction } = &self.identity;
        let generation = credentials.generation();
        if self.number == 0 || generation != self.generation {
            self.number = self.number % PROOFS_MAX + 1;
            self.generation = generation;
            let proof = credentials.present(binding, introduction);
            let header = Header { proof: self.number, ..Header::bare(Kind::Present, 0) };
            queue.push(header, Body { message: proof, payload: Bytes::new() });
        }
        self.number
    }
}

/// What the task alone owns.
pub(super) struct Task {
    link: Arc<Link>,
    reader: ReadHalf,
    decoder: Decoder,
    conn: Conn,
    /// Frames of the protocol itself, until `out` can be had.
    control: Outbound,
    allocator: Arc<dyn PayloadAllocator>,
    timer: Pin<Box<Sleep>>,
    timer_at: Instant,
}

/// The parts of a connection whose hellos were exchanged.
pub(super) struct Opened {
    pub(super) reader: ReadHalf,
    pub(super) writer: WriteHalf,
    pub(super) decoder: Decoder,
    pub(super) conn: Conn,
    pub(super) hello: Hello,
    pub(super) identity: Option<Identity>,
}

/// Bounds this side sets.
pub(super) struct Bounds {
    pub(super) in_flight_max: u32,
    pub(super) waiting_max: u32,
}

impl Link {
    /// Must be called on the thread that will run the task, if there is one thread.
    pub(super) fn new(
        opened: Opened,
        bounds: &Bounds,
        allocator: Arc<dyn PayloadAllocator>,
    ) -> (Arc<Self>, Task) {
        let Opened { reader, writer, decoder, conn, hello, identity } = opened;
        let presenter = identity.map(Presenter::new);
        let calls_max = hello.in_flight_max.min(bounds.in_flight_max).max(1);
        let units_max = u32::try_from(hello.in_flight_bytes_max / CREDIT_UNIT as u64)
            .unwrap_or(u32::MAX)
            .clamp(1, (Semaphore::MAX_PERMITS >> 1) as u32);
        let link = Arc::new(Self {
            calls: Mutex::default(),
            out: Mutex::new(Out { queue: Outbound::default(), writer: Some(writer), presenter }),
            out_wanted: AtomicBool::new(false),
            task: AtomicWaker::new(),
            task_thread: std::thread::current().id(),
            closed_for_calls: AtomicBool::new(false),
            abandoned: AtomicBool::new(false),
            credit_calls: Semaphore::new(calls_max as usize),
            credit_units: Semaphore::new(units_max as usize),
            credit_units_max: units_max,
            waiting_for_credit: AtomicUsize::new(0),
            waiting_max: bounds.waiting_max as usize,
        });
        let now = Instant::now();
        let timer_at = conn.poll_timeout(false);
        let task = Task {
            link: Arc::clone(&link),
            reader,
            decoder,
            conn,
            control: Outbound::default(),
            allocator,
            timer: Box::pin(tokio::time::sleep_until(timer_at.max(now).into())),
            timer_at,
        };
        (link, task)
    }

    pub(super) fn is_usable(&self) -> bool {
        !self.closed_for_calls.load(Ordering::Acquire)
    }

    /// The last client is gone: the task ends.
    pub(super) fn abandon(&self) {
        self.abandoned.store(true, Ordering::Release);
        self.task.wake();
    }

    /// Sends a request. The call is in flight when this returns.
    pub(super) async fn start<M: Message>(
        self: &Arc<Self>,
        runtime: &Handle,
        method: &Method,
        message: &M,
        payload: Bytes,
        deadline: Instant,
        options: &CallOptions,
    ) -> Result<Call, StartError> {
        let message_len = message.encoded_len();
        let units = self.units(message_len, payload.len()).map_err(StartError::Failed)?;
        self.take_credit(runtime, units, deadline).await?;
        let inserted = self.calls.lock().insert(deadline, units);
        // The connection ended between the two: the credit went with it.
        let Ok((id, earliest)) = inserted else { return Err(StartError::Gone) };
        let call = Call { link: Arc::clone(self), id, over: false };
        let header = Header {
            method: method.id,
            deadline_us: deadline_to_wire(deadline, Instant::now()),
            payload_check: if payload.is_empty() { PayloadCheck::Crc } else { options.payload_check },
            ..Header::bare(Kind::Request, id)
        };
        self.send(header, message, payload);
        if earliest {
            // The task's timer is set too late.
            self.task.wake();
        }
        Ok(call)
    }

    fn units(&self, message_len: usize, payload_len: usize) -> Result<u32, Status> {
        if message_len > MESSAGE_LEN_MAX {
            let text = format!("a message of {message_len} bytes is longer than {MESSAGE_LEN_MAX}");
            return Err(Status::invalid_argument(text));
        }
        if payload_len > PAYLOAD_LEN_MAX {
            let text = format!("a payload of {payload_len} bytes is longer than {PAYLOAD_LEN_MAX}");
            return Err(Status::invalid_argument(text));
        }
        let units = (message_len + payload_len).div_ceil(CREDIT_UNIT);
        let units = u32::try_from(units).expect("bounded above");
        // The server takes one call of any size when nothing else is in flight.
        Ok(units.min(self.credit_units_max))
    }

    async fn take_credit(&self, runtime: &Handle, units: u32, deadline: Instant) -> Result<(), StartError> {
        if let Ok(call) = self.credit_calls.try_acquire()
            && let Ok(bytes) = self.credit_units.try_acquire_many(units)
        {
            bytes.forget();
            call.forget();
            return Ok(());
        }
        let _waiting = Waiting::enter(self).map_err(StartError::Failed)?;
        let acquire = async {
            let call: SemaphorePermit<'_> = self.credit_calls.acquire().await?;
            let bytes = self.credit_units.acquire_many(units).await?;
            bytes.forget();
            call.forget();
            Ok::<_, tokio::sync::AcquireError>(())
        };
        match super::until(runtime, deadline, acquire).await {
            Some(Ok(())) => Ok(()),
            Some(Err(_closed)) => Err(StartError::Gone),
            None => {
                Err(StartError::Failed(Status::deadline_exceeded("the connection had no room for the call")))
            }
        }
    }

    fn give_credit(&self, credit: &Credit) {
        self.credit_units.add_permits(credit.units as usize);
        self.credit_calls.add_permits(1);
    }

    fn send<M: Message>(&self, header: Header, message: &M, payload: Bytes) {
        let long = payload.len() >= WRITE_AT_ONCE;
        let leave_to_task =
            !long && std::thread::current().id() == self.task_thread && self.calls.lock().waiting() > 1;
        let mut out = self.out.lock();
        let Out { queue, presenter, .. } = &mut *out;
        let proof = presenter.as_mut().map_or(0, |presenter| presenter.number(queue));
        queue.push_message(Header { proof, ..header }, message, payload);
        self.write_or_wake(out, leave_to_task);
    }

    /// Writes what the socket takes; what is left, and a failure, is the task's.
    fn write_or_wake(&self, mut out: MutexGuard<'_, Out>, leave_to_task: bool) {
        let to_do = leave_to_task || !out.try_write();
        drop(out);
        if to_do || self.out_wanted.swap(false, Ordering::AcqRel) {
            self.task.wake();
        }
    }

    fn send_cancel(&self, id: u64) {
        let mut out = self.out.lock();
        out.queue.push(Header::bare(Kind::Cancel, id), Body::EMPTY);
        let same_thread = std::thread::current().id() == self.task_thread;
        self.write_or_wake(out, same_thread);
    }
}

impl Out {
    /// Writes until the queue is empty (true) or the socket takes no more.
    fn try_write(&mut self) -> bool {
        let Some(writer) = &self.writer else { return false };
        while !self.queue.is_empty() {
            let mut slices = [IoSlice::new(&[]); SLICES_MAX];
            let count = self.queue.slices(&mut slices);
            match writer.try_write(&slices[..count]) {
                Ok(n) => self.queue.advance(n),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return false,
                Err(_) => {
                    // The task finds it gone, and ends the connection.
                    self.writer = None;
                    return false;
                }
            }
        }
        // The task finds a failure again.
        writer.try_flush().is_ok()
    }

    fn poll_write(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let writer = self.writer.as_mut().ok_or(io::ErrorKind::BrokenPipe)?;
        while !self.queue.is_empty() {
            let mut slices = [IoSlice::new(&[]); SLICES_MAX];
            let count = self.queue.slices(&mut slices);
            let n = std::task::ready!(writer.poll_write(cx, &slices[..count]))?;
            self.queue.advance(n);
        }
        writer.poll_flush(cx)
    }
}

/// Counts a caller that waits for credit, up to the bound.
struct Waiting<'a>(&'a AtomicUsize);

impl<'a> Waiting<'a> {
    fn enter(link: &'a Link) -> Result<Self, Status> {
        let waiting = Self(&link.waiting_for_credit);
        if waiting.0.fetch_add(1, Ordering::Relaxed) >= link.waiting_max {
            let text = format!("more than {} calls wait for the connection", link.waiting_max);
            return Err(Status::busy(text, std::time::Duration::from_millis(5)));
        }
        Ok(waiting)
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

/// A call in flight. Dropping it cancels the call.
#[derive(Debug)]
pub(super) struct Call {
    link: Arc<Link>,
    id: u64,
    over: bool,
}

impl Future for Call {
    type Output = Outcome;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Outcome> {
        let outcome = self.link.calls.lock().poll(self.id, cx.waker());
        self.over = outcome.is_ready();
        outcome
    }
}

impl Drop for Call {
    fn drop(&mut self) {
        if self.over {
            return;
        }
        let tell_server = self.link.calls.lock().abandon(self.id);
        if tell_server {
            self.link.send_cancel(self.id);
        }
    }
}

impl Task {
    /// Drives the connection until it ends, then fails what waits. Says why it ended.
    pub(super) async fn run(mut self) -> Option<ConnError> {
        let reason = poll_fn(|cx| self.poll(cx)).await;
        let why = reason.as_ref().map_or_else(|| "the client is gone".to_owned(), ToString::to_string);
        self.link.end(&why);
        reason
    }

    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Option<ConnError>> {
        self.link.task.register(cx.waker());
        if self.link.abandoned.load(Ordering::Acquire) {
            return Poll::Ready(None);
        }
        match self.turn(cx) {
            Ok(()) => {}
            Err(error) => return Poll::Ready(Some(error)),
        }
        let drained = !self.link.is_usable() && self.link.calls.lock().is_empty();
        if drained { Poll::Ready(Some(ConnError::Closed)) } else { Poll::Pending }
    }

    /// Reads what is there, looks at the time, writes what can be written.
    fn turn(&mut self, cx: &mut Context<'_>) -> Result<(), ConnError> {
        self.read(cx)?;
        self.flush(cx)?;
        loop {
            self.set_timer();
            if pin!(&mut self.timer).poll(cx).is_pending() {
                return Ok(());
            }
            self.handle_timeout()?;
            self.flush(cx)?;
        }
    }

    fn read(&mut self, cx: &mut Context<'_>) -> Result<(), ConnError> {
        for _ in 0..READS_PER_TURN {
            match poll_read_buf(Pin::new(&mut self.reader), cx, &mut self.decoder) {
                Poll::Pending => return Ok(()),
                Poll::Ready(Ok(0)) if self.decoder.at_boundary() => return Err(ConnError::Closed),
                Poll::Ready(Ok(0)) => return Err(crate::frame::FrameError::Truncated.into()),
                Poll::Ready(Ok(_)) => {}
                Poll::Ready(Err(_)) => return Err(ConnError::Closed),
            }
            self.conn.handle_life_sign(Instant::now());
            let allocator = &self.allocator;
            let mut admit = |header: &Header| Admit::Into(allocator.allocate(header.payload_len as usize));
            while let Step::Frame(frame) = self.decoder.step(&mut admit)? {
                let event = self.conn.handle_frame(frame, &mut self.control)?;
                self.link.handle_event(event);
            }
        }
        cx.waker().wake_by_ref();
        Ok(())
    }

    /// Writes everything that is queued, as far as the socket takes it.
    fn flush(&mut self, cx: &mut Context<'_>) -> Result<(), ConnError> {
        self.link.out_wanted.store(true, Ordering::Release);
        // A caller that holds the lock sees the mark when it is done, and wakes this task.
        let Some(mut out) = self.link.out.try_lock() else { return Ok(()) };
        self.link.out_wanted.store(false, Ordering::Release);
        out.queue.append(&mut self.control);
        match out.poll_write(cx) {
            Poll::Ready(Err(_)) => Err(ConnError::Closed),
            Poll::Ready(Ok(())) | Poll::Pending => Ok(()),
        }
    }

    fn set_timer(&mut self) {
        let (waiting, earliest) = {
            let calls = self.link.calls.lock();
            (calls.waiting() > 0, calls.earliest_deadline())
        };
        let life = self.conn.poll_timeout(waiting);
        let at = earliest.map_or(life, |earliest| earliest.min(life));
        // A timer that is too early costs one needless turn; moving it costs more, and traffic moves it all the time.
        if at < self.timer_at || self.timer.is_elapsed() {
            self.timer_at = at;
            self.timer.as_mut().reset(at.into());
        }
    }

    fn handle_timeout(&mut self) -> Result<(), ConnError> {
        let now = Instant::now();
        let mut ended = Vec::new();
        let waiting = {
            let mut calls = self.link.calls.lock();
            calls.expire(now, &mut ended);
            calls.waiting() > 0
        };
        for (id, waker) in ended {
            self.control.push(Header::bare(Kind::Cancel, id), Body::EMPTY);
            if let Some(waker) = waker {
                waker.wake();
            }
        }
        self.conn.handle_timeout(waiting, now, &mut self.control)
    }
}

impl Drop for Task {
    fn drop(&mut self) {
        // The runtime stopped, or the task panicked; otherwise this changes nothing any more.
        self.link.end("its task stopped");
    }
}

impl Link {
    /// Fails all calls, those that wait and those to come.
    fn end(&self, why: &str) {
        self.closed_for_calls.store(true, Ordering::Release);
        let mut wake = Vec::new();
        self.calls.lock().fail_all(&Status::unavailable(format!("the connection ended: {why}")), &mut wake);
        self.credit_calls.close();
        self.credit_units.close();
        wake.into_iter().for_each(Waker::wake);
        let mut out = self.out.lock();
        out.writer = None;
        out.queue = Outbound::default();
    }

    fn handle_event(&self, event: Event) {
        match event {
            Event::Answer { id, result } => {
                let completed = self.calls.lock().complete(id, result);
                if let Some((credit, waker)) = completed {
                    self.give_credit(&credit);
                    if let Some(waker) = waker {
                        waker.wake();
                    }
                }
            }
            Event::GoAway(status) => {
                tracing::debug!(%status, "the server goes away");
                self.closed_for_calls.store(true, Ordering::Release);
                // Callers that wait for credit go on with another connection.
                self.credit_calls.close();
                self.credit_units.close();
            }
            Event::Nothing
            | Event::Hello(_)
            | Event::Request(_)
            | Event::Present { .. }
            | Event::Cancel { .. } => {}
        }
    }
}

const _: () = assert!(HEADER_LEN + MESSAGE_LEN_MAX < u32::MAX as usize);
