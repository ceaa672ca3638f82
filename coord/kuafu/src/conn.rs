//! The protocol as a state machine without IO: frames and the time go in, events and frames to send come out.
//! Used by the client's and the server's connection task and by tests; the table of states and events is in
//! `docs/wire.md`.
//!
//! [`decoder`] cuts the byte stream into frames, [`outbound`] holds what is to be written, [`Conn`] decides what a
//! frame means. None of them waits for anything or looks at a clock.

pub mod decoder;
pub mod outbound;

use std::time::{Duration, Instant};

use bytes::Bytes;
use prost::Message;

pub use self::decoder::{Admit, Decoder, Frame, Step};
pub use self::outbound::{Body, Outbound};
use crate::frame::{Header, Hello, Kind, VERSION, WireStatus};
use crate::message::PayloadCheck;
use crate::status::Status;

/// Which end of the connection this is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    Client,
    Server,
}

/// Where a connection stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    AwaitHello,
    Open,
    /// GOAWAY was sent or received.
    Draining,
}

/// When silence means something.
#[derive(Clone, Copy, Debug)]
pub struct Timing {
    /// Ping after this much silence; `None`: never (servers leave that to clients).
    pub ping_idle: Option<Duration>,
    /// The same while calls wait for answers.
    pub ping_waiting: Option<Duration>,
    /// Dead after this much more silence; without pings: after this much silence.
    pub silence: Duration,
}

/// What a frame means.
#[derive(Debug, PartialEq, Eq)]
pub enum Event {
    /// Nothing for the owner to do.
    Nothing,
    /// The peer's hello. A server answers with [`Conn::greet`] or [`Conn::send_go_away`].
    Hello(Hello),
    /// Server: a call.
    Request(Box<IncomingRequest>),
    /// Server: the client shows a proof, and refers to it by this number from now on.
    Present { number: u8, proof: Bytes },
    /// Server: the caller gave up.
    Cancel { id: u64 },
    /// Client: the answer of a call.
    Answer { id: u64, result: Result<Answer, Status> },
    /// Client: the server goes away, or refuses the connection if it was not open yet.
    GoAway(Status),
}

/// A call as it came.
#[derive(Debug, PartialEq, Eq)]
pub struct IncomingRequest {
    pub id: u64,
    pub method: u32,
    pub deadline_us: u32,
    pub message: Bytes,
    pub payload: PayloadState,
    pub payload_check: PayloadCheck,
    /// The proof it refers to, 0: none.
    pub proof: u8,
}

/// What became of a payload.
#[derive(Debug, PartialEq, Eq)]
pub enum PayloadState {
    Received(Bytes),
    /// Its checksum is wrong.
    Damaged,
    /// There was no room for it.
    Dropped,
}

/// A successful answer as it came.
#[derive(Debug, PartialEq, Eq)]
pub struct Answer {
    pub message: Bytes,
    pub payload: Bytes,
    pub payload_check: PayloadCheck,
}

/// Why a connection ends.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ConnError {
    #[error("{0}")]
    Frame(#[from] crate::frame::FrameError),
    #[error("a {kind:?} came in state {state:?}")]
    Unexpected { kind: Kind, state: State },
    #[error("the peer's {kind:?} cannot be decoded: {error}")]
    Malformed { kind: Kind, error: prost::DecodeError },
    #[error("the peer speaks versions {min} to {max}, this side only {VERSION}")]
    NoCommonVersion { min: u32, max: u32 },
    #[error("the peer was silent for {0:?}")]
    Silent(Duration),
    #[error("the peer showed more than {0} proofs")]
    TooManyProofs(u32),
    #[error("the server refused: {0}")]
    Refused(Status),
    #[error("one end speaks TLS and the other does not")]
    Mismatch,
    #[error("the peer closed the connection")]
    Closed,
}

/// The state of one connection.
#[derive(Debug)]
pub struct Conn {
    role: Role,
    state: State,
    timing: Timing,
    last_heard: Instant,
    /// When the ping that is not answered yet was sent.
    pinged: Option<Instant>,
    pings_sent: u64,
}

impl Conn {
    #[must_use]
    pub fn new(role: Role, timing: Timing, now: Instant) -> Self {
        Self { role, state: State::AwaitHello, timing, last_heard: now, pinged: None, pings_sent: 0 }
    }

    #[must_use]
    pub const fn state(&self) -> State {
        self.state
    }

    /// Bytes came.
    pub fn handle_life_sign(&mut self, now: Instant) {
        self.last_heard = now;
        self.pinged = None;
    }

    /// A frame came; answers of the protocol itself are put into `out`.
    ///
    /// # Errors
    /// The connection must be closed.
    pub fn handle_frame(&mut self, frame: Frame, out: &mut Outbound) -> Result<Event, ConnError> {
        let Frame { header, message, payload } = frame;
        let unexpected = Err(ConnError::Unexpected { kind: header.kind, state: self.state });
        let open = self.state != State::AwaitHello;
        match (header.kind, self.role) {
            (Kind::Hello, _) if !open => self.hello(message),
            (Kind::GoAway, Role::Client) => self.go_away(header, message),
            (Kind::Ping, _) if open => {
                out.push(Header::bare(Kind::Pong, header.id), Body::EMPTY);
                Ok(Event::Nothing)
            }
            (Kind::Pong, _) if open => Ok(Event::Nothing),
            (Kind::Request, Role::Server) if open => Ok(Event::Request(Box::new(IncomingRequest {
                id: header.id,
                method: header.method,
                deadline_us: header.deadline_us,
                message,
                payload,
                payload_check: header.payload_check,
                proof: header.proof,
            }))),
            (Kind::Present, Role::Server) if open => {
                Ok(Event::Present { number: header.proof, proof: message })
            }
            (Kind::Cancel, Role::Server) if open => Ok(Event::Cancel { id: header.id }),
            (Kind::Response, Role::Client) if open => {
                let result = answer(header, message, payload);
                Ok(Event::Answer { id: header.id, result })
            }
            (Kind::Error, Role::Client) if open => {
                let status = decode::<WireStatus>(Kind::Error, message)?.into_status(header.method);
                Ok(Event::Answer { id: header.id, result: Err(status) })
            }
            _ => unexpected,
        }
    }

    fn hello(&mut self, message: Bytes) -> Result<Event, ConnError> {
        let hello = decode::<Hello>(Kind::Hello, message)?;
        let (min, max) = (hello.version_min, hello.version_max);
        if !(min..=max).contains(&u32::from(VERSION)) {
            return Err(ConnError::NoCommonVersion { min, max });
        }
        if self.role == Role::Client {
            self.state = State::Open;
        }
        Ok(Event::Hello(hello))
    }

    fn go_away(&mut self, header: Header, message: Bytes) -> Result<Event, ConnError> {
        let status = decode::<WireStatus>(Kind::GoAway, message)?.into_status(header.method);
        if self.state == State::AwaitHello {
            return Err(ConnError::Refused(status));
        }
        self.state = State::Draining;
        Ok(Event::GoAway(status))
    }

    /// Client: begin. Server: the peer's hello is welcome.
    pub fn greet(&mut self, hello: &Hello, out: &mut Outbound) {
        out.push_message(Header::bare(Kind::Hello, 0), hello, Bytes::new());
        if self.role == Role::Server {
            self.state = State::Open;
        }
    }

    /// Server: no new calls any more. Before the hello was answered this refuses the connection.
    pub fn send_go_away(&mut self, status: Status, out: &mut Outbound) {
        if self.state == State::Draining {
            return;
        }
        self.state = State::Draining;
        let (code, message) = WireStatus::from_status(status);
        out.push_message(Header { method: code, ..Header::bare(Kind::GoAway, 0) }, &message, Bytes::new());
    }

    /// When [`handle_timeout`](Self::handle_timeout) has something to do. `waiting`: calls wait for answers.
    #[must_use]
    pub fn poll_timeout(&self, waiting: bool) -> Instant {
        let ping_after = if waiting { self.timing.ping_waiting } else { self.timing.ping_idle };
        match (self.pinged, ping_after) {
            (Some(sent), _) => sent + self.timing.silence,
            (None, Some(after)) if self.state != State::AwaitHello => self.last_heard + after,
            _ => self.last_heard + self.timing.silence,
        }
    }

    /// Time passed.
    ///
    /// # Errors
    /// [`ConnError::Silent`]: the peer is dead.
    pub fn handle_timeout(
        &mut self,
        waiting: bool,
        now: Instant,
        out: &mut Outbound,
    ) -> Result<(), ConnError> {
        if now < self.poll_timeout(waiting) {
            return Ok(());
        }
        let may_ping = self.timing.ping_idle.is_some() && self.state != State::AwaitHello;
        if self.pinged.is_some() || !may_ping {
            return Err(ConnError::Silent(now - self.last_heard));
        }
        self.pings_sent += 1;
        self.pinged = Some(now);
        out.push(Header::bare(Kind::Ping, self.pings_sent), Body::EMPTY);
        Ok(())
    }
}

fn answer(header: Header, message: Bytes, payload: PayloadState) -> Result<Answer, Status> {
    match payload {
        PayloadState::Received(payload) => {
            Ok(Answer { message, payload, payload_check: header.payload_check })
        }
        PayloadState::Damaged => Err(Status::data_loss("the answer's payload does not match its checksum")),
        PayloadState::Dropped => Err(Status::internal("the answer's payload was not wanted")),
    }
}

fn decode<M: Message + Default>(kind: Kind, message: Bytes) -> Result<M, ConnError> {
    M::decode(message).map_err(|error| ConnError::Malformed { kind, error })
}

/// Puts the answer of a call into `out`.
pub fn send_error(id: u64, status: Status, out: &mut Outbound) {
    let (code, message) = WireStatus::from_status(status);
    out.push_message(Header { method: code, ..Header::bare(Kind::Error, id) }, &message, Bytes::new());
}

#[cfg(test)]
mod tests;
