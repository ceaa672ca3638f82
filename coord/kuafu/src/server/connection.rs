//! One connection of a server: reads frames, polls handlers, writes answers. All on one task, so a call that does not
//! have to wait costs no task, no channel and no wake-up; answers that are ready together go out in one write.

use std::future::{Future, poll_fn};
use std::io::{self, IoSlice};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::task::{Context, Poll};
use std::time::Instant;

use bytes::Bytes;
use tokio::time::Sleep;
use tokio_util::io::poll_read_buf;
use tokio_util::sync::{CancellationToken, WaitForCancellationFutureOwned};

use super::Shared;
use super::handlers::{CallInfo, Handlers};
use crate::auth::{Binding, CHANNEL_BYTES, NONCE_BYTES, PeerInfo, Principal};
use crate::conn::outbound::SLICES_MAX;
use crate::conn::{
    Admit, Body, Conn, ConnError, Decoder, Event, IncomingRequest, Outbound, PayloadState, Role, State, Step,
    Timing, send_error,
};
use crate::frame::{FrameError, Header, Hello, Kind, PROOFS_MAX, VERSION, deadline_from_wire};
use crate::message::{RawRequest, RawResponse};
use crate::status::{Code, Status};
use crate::tls;
use crate::transport::{ReadHalf, Socket, WriteHalf};

/// Reads in a row before other tasks get a turn.
const READS_PER_TURN: usize = 32;
/// Handlers polled in a row before other tasks, and this connection's socket, get a turn.
const POLLS_PER_TURN: usize = 256;
/// Proofs that a client may show in the life of a connection. Checking one costs signatures, and new ones are only needed when keys change.
const PROOFS_SHOWN_MAX: u32 = 1024;
/// The same for those that are refused.
const PROOFS_REFUSED_MAX: u32 = 16;
/// With this much to write, no more is read and no handler polled: the peer does not take its answers. Four of the
/// largest answers.
const OUT_HIGH_WATER: usize = 16 << 20;

pub(super) struct Connection {
    server: Arc<Shared>,
    peer: PeerInfo,
    reader: ReadHalf,
    writer: WriteHalf,
    decoder: Decoder,
    conn: Conn,
    out: Outbound,
    handlers: Handlers,
    /// What proofs sign, and what was said of this server; absent if nobody is asked who he is.
    binding: Option<(Binding, Bytes)>,
    channel: Option<[u8; CHANNEL_BYTES]>,
    /// It came plainly to a server that speaks TLS: it is told so, and nothing else.
    without_tls: bool,
    /// By their numbers, from 1.
    proofs: [Option<Result<Principal, Status>>; PROOFS_MAX as usize],
    proofs_shown: u32,
    proofs_refused: u32,
    timer: Pin<Box<Sleep>>,
    timer_at: Instant,
    stop: Pin<Box<WaitForCancellationFutureOwned>>,
    stopping: bool,
    /// Close as soon as everything is written, for this reason.
    closing: Option<ConnError>,
}

impl Connection {
    pub(super) fn new(
        server: Arc<Shared>,
        socket: Socket,
        stop: CancellationToken,
        number: u64,
        without_tls: bool,
    ) -> io::Result<Self> {
        let peer = PeerInfo::new(socket.peer()?, number);
        let channel = socket.channel();
        let (reader, writer) = socket.split();
        let now = Instant::now();
        let silence = server.config.silence_max;
        let conn = Conn::new(Role::Server, Timing { ping_idle: None, ping_waiting: None, silence }, now);
        let timer_at = now + silence;
        let stop = Box::pin(stop.cancelled_owned());
        server.connections.fetch_add(1, Ordering::Relaxed);
        Ok(Self {
            server,
            peer,
            reader,
            writer,
            decoder: Decoder::new(),
            conn,
            out: Outbound::default(),
            handlers: Handlers::default(),
            binding: None,
            channel,
            without_tls,
            proofs: Default::default(),
            proofs_shown: 0,
            proofs_refused: 0,
            timer: Box::pin(tokio::time::sleep_until(timer_at.into())),
            timer_at,
            stop,
            stopping: false,
            closing: None,
        })
    }

    pub(super) async fn run(mut self) {
        let reason = poll_fn(|cx| self.poll(cx)).await;
        tracing::debug!(peer = %self.peer, %reason, "a connection ended");
    }

    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<ConnError> {
        self.handlers.register(cx.waker());
        if !self.stopping && self.stop.as_mut().poll(cx).is_ready() {
            self.stopping = true;
            self.conn.send_go_away(Status::not_reached("the server is stopping"), &mut self.out);
        }
        let result = self.turn(cx);
        if let Err(reason) = result {
            return Poll::Ready(reason);
        }
        match self.closing.take_if(|_| self.out.is_empty() && self.writer.is_flushed()) {
            Some(reason) => Poll::Ready(reason),
            // A stopping server waits for the client to close when it has its answers: closing with requests unread would
            // reset the connection, and with it answers the client has not read yet. `drain` bounds it.
            None => Poll::Pending,
        }
    }

    fn turn(&mut self, cx: &mut Context<'_>) -> Result<(), ConnError> {
        self.read(cx)?;
        self.poll_handlers(cx);
        self.write(cx)?;
        loop {
            self.set_timer();
            if self.timer.as_mut().poll(cx).is_pending() {
                return Ok(());
            }
            self.handle_timeout()?;
            self.write(cx)?;
        }
    }

    fn read(&mut self, cx: &mut Context<'_>) -> Result<(), ConnError> {
        for _ in 0..READS_PER_TURN {
            if self.closing.is_some() || self.out.len() > OUT_HIGH_WATER {
                // write() is waiting for the peer, and this task is polled when it wrote something.
                return Ok(());
            }
            match poll_read_buf(Pin::new(&mut self.reader), cx, &mut self.decoder) {
                Poll::Pending => return Ok(()),
                Poll::Ready(Ok(0)) if self.decoder.at_boundary() => return Err(ConnError::Closed),
                Poll::Ready(Ok(0)) => return Err(FrameError::Truncated.into()),
                Poll::Ready(Ok(_)) => {}
                Poll::Ready(Err(_)) => return Err(ConnError::Closed),
            }
            let now = Instant::now();
            self.conn.handle_life_sign(now);
            self.handle_frames(now)?;
        }
        cx.waker().wake_by_ref();
        Ok(())
    }

    fn handle_frames(&mut self, now: Instant) -> Result<(), ConnError> {
        loop {
            let (server, handlers) = (&self.server, &self.handlers);
            let mut admit = |header: &Header| match server.room(handlers, header) {
                Ok(()) => Admit::Into(server.allocator.allocate(header.payload_len as usize)),
                Err(_busy) => Admit::Drop,
            };
            let frame = match self.decoder.step(&mut admit) {
                Ok(Step::Frame(frame)) => frame,
                Ok(Step::Read) => return Ok(()),
                Err(FrameError::Magic(first))
                    if tls::is_tls(first) && self.conn.state() == State::AwaitHello =>
                {
                    // What is sent is no TLS, by which the client knows.
                    self.server.mismatch.warn(&self.peer, tls::REFUSED_TLS);
                    self.refuse(Status::not_reached(tls::PLAIN_SERVER), ConnError::Mismatch);
                    return Ok(());
                }
                Err(error) => return Err(error.into()),
            };
            let header = frame.header;
            match self.conn.handle_frame(frame, &mut self.out) {
                Ok(Event::Hello(hello)) => self.hello(&hello),
                Ok(Event::Request(request)) => self.request(*request, &header, now),
                Ok(Event::Present { number, proof }) => self.identify(number, &proof)?,
                Ok(Event::Cancel { id }) => {
                    if let Some(info) = self.handlers.cancel(id) {
                        self.end(info, Err(Status::cancelled("cancelled by the caller")), now);
                    }
                }
                Ok(Event::Nothing | Event::Answer { .. } | Event::GoAway(_)) => {}
                Err(error @ ConnError::NoCommonVersion { .. }) => {
                    self.refuse(Status::unimplemented(error.to_string()), error);
                }
                Err(error) => return Err(error),
            }
            if self.closing.is_some() {
                return Ok(());
            }
        }
    }

    fn hello(&mut self, hello: &Hello) {
        if self.without_tls {
            self.server.mismatch.warn(&self.peer, tls::REFUSED_PLAIN);
            self.refuse(Status::not_reached(tls::PLAIN_CLIENT), ConnError::Mismatch);
            return;
        }
        // A client that says nothing of itself draws nothing: then nothing is bound, and it is nobody.
        let binding = Binding {
            client_nonce: hello.nonce[..].try_into().unwrap_or([0; NONCE_BYTES]),
            server_nonce: rand::random(),
            channel: self.channel,
        };
        let introduction = match self.server.authorizer.introduce(&binding) {
            Ok(introduction) => introduction,
            Err(status) => {
                self.refuse(status.clone(), ConnError::Refused(status));
                return;
            }
        };
        tracing::debug!(peer = %self.peer, agent = hello.agent, "a connection is open");
        self.binding = introduction.map(|introduction| (binding, introduction));
        let config = &self.server.config;
        let answer = Hello {
            version_min: VERSION.into(),
            version_max: VERSION.into(),
            in_flight_max: config.in_flight_max,
            in_flight_bytes_max: config.in_flight_bytes_max,
            agent: concat!("kuafu/", env!("CARGO_PKG_VERSION")).to_owned(),
            nonce: self
                .binding
                .as_ref()
                .map_or_else(Bytes::new, |(binding, _)| Bytes::copy_from_slice(&binding.server_nonce)),
            introduction: self.binding.as_ref().map_or_else(Bytes::new, |(_, said)| said.clone()),
        };
        self.conn.greet(&answer, &mut self.out);
    }

    /// A proof is looked at when it comes; what it came to is told to the calls that refer to it.
    fn identify(&mut self, number: u8, proof: &Bytes) -> Result<(), ConnError> {
        self.proofs_shown += 1;
        if self.proofs_shown > PROOFS_SHOWN_MAX {
            return Err(ConnError::TooManyProofs(PROOFS_SHOWN_MAX));
        }
        let identified = match &self.binding {
            Some((binding, said)) => self.server.authorizer.identify(&self.peer, binding, said, proof),
            None => Err(Status::permission_denied("this server did not ask for a proof")),
        };
        if identified.is_err() {
            self.proofs_refused += 1;
            if self.proofs_refused > PROOFS_REFUSED_MAX {
                return Err(ConnError::TooManyProofs(PROOFS_REFUSED_MAX));
            }
        }
        self.proofs[usize::from(number) - 1] = Some(identified);
        Ok(())
    }

    fn principal(&self, number: u8) -> Result<Option<&Principal>, Status> {
        let Some(index) = usize::from(number).checked_sub(1) else { return Ok(None) };
        match &self.proofs[index] {
            Some(Ok(principal)) => Ok(Some(principal)),
            Some(Err(status)) => Err(status.clone()),
            None => Err(Status::permission_denied(format!("no proof {number} was presented"))),
        }
    }

    fn refuse(&mut self, status: Status, reason: ConnError) {
        self.conn.send_go_away(status, &mut self.out);
        self.closing = Some(reason);
    }

    fn request(&mut self, request: IncomingRequest, header: &Header, now: Instant) {
        let Some(&method) = self.server.by_id.get(&request.method) else {
            let text = format!("method {:#010x} is not served here", request.method);
            send_error(request.id, Status::unimplemented(text), &mut self.out);
            return;
        };
        let info = CallInfo {
            id: request.id,
            method,
            deadline: deadline_from_wire(request.deadline_us, now),
            started: now,
            received_bytes: header.message_len as usize + header.payload_len as usize,
        };
        let metrics = &self.server.methods[method].metrics;
        metrics.start(info.received_bytes);
        self.server.in_flight.fetch_add(1, Ordering::Relaxed);
        match self.check(&info, request, header) {
            Ok(request) => {
                let served = &self.server.methods[method];
                let future = served.service.call(served.index, request);
                if let Some((info, result)) = self.handlers.start(info, future) {
                    self.end(info, result, Instant::now());
                }
            }
            Err(status) => self.end(info, Err(status), now),
        }
    }

    /// Whether the call may be handled.
    fn check(
        &self,
        info: &CallInfo,
        request: IncomingRequest,
        header: &Header,
    ) -> Result<RawRequest, Status> {
        if self.conn.state() == State::Draining {
            return Err(Status::not_reached("the server is stopping; not executed"));
        }
        let principal = self.principal(request.proof)?;
        self.server.authorizer.request(&self.peer, principal, &self.server.methods[info.method].method)?;
        self.server.room(&self.handlers, header)?;
        if info.deadline <= info.started {
            return Err(Status::deadline_exceeded("the time was up on arrival; not executed"));
        }
        let payload = match request.payload {
            PayloadState::Received(payload) => payload,
            PayloadState::Damaged => {
                return Err(Status::data_loss("the payload does not match its checksum"));
            }
            // There was no room when it came, though there is now.
            PayloadState::Dropped => return Err(self.server.busy("payload bytes on this connection")),
        };
        Ok(RawRequest {
            message: request.message,
            payload,
            payload_check: request.payload_check,
            deadline: info.deadline,
            peer: self.peer.clone(),
            principal: principal.cloned(),
        })
    }

    fn poll_handlers(&mut self, cx: &mut Context<'_>) {
        let mut polls = POLLS_PER_TURN;
        while self.out.len() <= OUT_HIGH_WATER {
            let Some((info, result)) = self.handlers.poll_next(&mut polls) else { break };
            self.end(info, result, Instant::now());
        }
        // Held up by the peer, the rest is polled when something was written: see write().
        if polls == 0 && self.handlers.has_ready() {
            cx.waker().wake_by_ref();
        }
    }

    /// The one answer of a call.
    fn end(&mut self, info: CallInfo, result: Result<RawResponse, Status>, now: Instant) {
        let (code, sent_bytes) = self.answer(info.id, result);
        self.server.in_flight.fetch_sub(1, Ordering::Relaxed);
        let took = now.saturating_duration_since(info.started);
        self.server.methods[info.method].metrics.finish(code, sent_bytes, took);
    }

    fn answer(&mut self, id: u64, result: Result<RawResponse, Status>) -> (Code, usize) {
        let result = result.and_then(super::check_response);
        match result {
            Ok(RawResponse { message, payload, payload_check }) => {
                let sent_bytes = message.len() + payload.len();
                let header = Header { payload_check, ..Header::bare(Kind::Response, id) };
                self.out.push(header, Body { message, payload });
                (Code::Ok, sent_bytes)
            }
            Err(status) => {
                let code = status.code;
                send_error(id, status, &mut self.out);
                (code, 0)
            }
        }
    }

    fn write(&mut self, cx: &mut Context<'_>) -> Result<(), ConnError> {
        let was_high = self.out.len() > OUT_HIGH_WATER;
        while !self.out.is_empty() {
            let mut slices = [IoSlice::new(&[]); SLICES_MAX];
            let count = self.out.slices(&mut slices);
            match self.writer.poll_write(cx, &slices[..count]) {
                Poll::Ready(Ok(n)) => self.out.advance(n),
                Poll::Ready(Err(_)) => return Err(ConnError::Closed),
                Poll::Pending => break,
            }
        }
        if let Poll::Ready(Err(_)) = self.writer.poll_flush(cx) {
            return Err(ConnError::Closed);
        }
        if was_high && self.out.len() <= OUT_HIGH_WATER {
            // Reading and handlers were held up.
            cx.waker().wake_by_ref();
        }
        Ok(())
    }

    fn set_timer(&mut self) {
        let life = self.conn.poll_timeout(false);
        let at = self.handlers.earliest_deadline().map_or(life, |deadline| deadline.min(life));
        // A timer that is too early costs one needless turn; moving it costs more, and traffic moves it all the time.
        if at < self.timer_at || self.timer.is_elapsed() {
            self.timer_at = at;
            self.timer.as_mut().reset(at.into());
        }
    }

    fn handle_timeout(&mut self) -> Result<(), ConnError> {
        let now = Instant::now();
        for info in self.handlers.expire(now) {
            self.end(info, Err(Status::deadline_exceeded("the handler was dropped at the deadline")), now);
        }
        self.conn.handle_timeout(false, now, &mut self.out)
    }
}

impl Drop for Connection {
    fn drop(&mut self) {
        // Nobody waits for these answers any more, but they count.
        let now = Instant::now();
        for info in self.handlers.clear() {
            self.end(info, Err(Status::cancelled("the connection ended")), now);
        }
        self.server.connections.fetch_sub(1, Ordering::Relaxed);
    }
}
