//! The table of states and events in `docs/wire.md`, row by row; life signs; a conversation over cut bytes.

use std::io::IoSlice;

use bytes::BufMut;
use proptest::prelude::*;

use super::outbound::SLICES_MAX;
use super::*;
use crate::payload::PayloadBuf;
use crate::status::Code;

const SECOND: Duration = Duration::from_secs(1);

fn timing(role: Role) -> Timing {
    match role {
        Role::Client => {
            Timing { ping_idle: Some(5 * SECOND), ping_waiting: Some(SECOND), silence: 3 * SECOND }
        }
        Role::Server => Timing { ping_idle: None, ping_waiting: None, silence: 30 * SECOND },
    }
}

fn hello() -> Hello {
    Hello { version_min: 1, version_max: 3, in_flight_max: 4, ..Hello::default() }
}

fn conn(role: Role, state: State) -> (Conn, Outbound) {
    let mut conn = Conn::new(role, timing(role), Instant::now());
    let mut out = Outbound::default();
    if state != State::AwaitHello {
        conn.handle_frame(frame(Kind::Hello, 0), &mut out).unwrap();
        if role == Role::Server {
            conn.greet(&hello(), &mut out);
        }
    }
    if state == State::Draining {
        match role {
            Role::Client => {
                conn.handle_frame(frame(Kind::GoAway, 0), &mut out).unwrap();
            }
            Role::Server => conn.send_go_away(Status::unavailable("stopping"), &mut out),
        }
    }
    assert_eq!(conn.state(), state);
    (conn, Outbound::default())
}

fn frame(kind: Kind, id: u64) -> Frame {
    let message = match kind {
        Kind::Hello => hello().encode_to_vec(),
        Kind::Error | Kind::GoAway => WireStatus::from_status(Status::busy("b", SECOND)).1.encode_to_vec(),
        _ => Vec::new(),
    };
    let proof = if kind == Kind::Present { 2 } else { 0 };
    let header = Header { method: Code::Busy as u32, proof, ..Header::bare(kind, id) };
    Frame { header, message: message.into(), payload: PayloadState::Received(Bytes::new()) }
}

/// What a frame leads to, in a word.
fn outcome(role: Role, state: State, kind: Kind) -> String {
    let (mut conn, mut out) = conn(role, state);
    let result = conn.handle_frame(frame(kind, 9), &mut out);
    let word = match result {
        Ok(Event::Nothing) => "nothing",
        Ok(Event::Hello(_)) => "hello",
        Ok(Event::Request(_)) => "request",
        Ok(Event::Present { number: 2, .. }) => "present",
        Ok(Event::Cancel { id: 9 }) => "cancel",
        Ok(Event::Answer { id: 9, result: Ok(_) }) => "answer",
        Ok(Event::Answer { id: 9, result: Err(status) }) => {
            assert_eq!(status, Status::busy("b", SECOND));
            "error"
        }
        Ok(Event::GoAway(_)) => "goaway",
        Ok(event) => panic!("{event:?}"),
        Err(ConnError::Unexpected { .. }) => "x",
        Err(ConnError::Refused(_)) => "refused",
        Err(error) => panic!("{error}"),
    };
    let reply =
        decoded(&mut out).first().map(|frame| format!("+{:?}", frame.header.kind)).unwrap_or_default();
    format!("{word}{reply}")
}

fn decoded(out: &mut Outbound) -> Vec<Frame> {
    let mut decoder = Decoder::new();
    let mut frames = Vec::new();
    let mut slices = [IoSlice::new(&[]); SLICES_MAX];
    let count = out.slices(&mut slices);
    slices[..count].iter().for_each(|slice| decoder.put_slice(slice));
    while let Step::Frame(frame) = decoder.step(&mut |_| Admit::Drop).unwrap() {
        frames.push(frame);
    }
    frames
}

#[test]
fn client_table() {
    use Kind::*;
    let kinds = [Hello, Response, Error, Ping, Pong, GoAway, Request, Cancel, Present];
    let rows = [
        (State::AwaitHello, ["hello", "x", "x", "x", "x", "refused", "x", "x", "x"]),
        (State::Open, ["x", "answer", "error", "nothing+Pong", "nothing", "goaway", "x", "x", "x"]),
        (State::Draining, ["x", "answer", "error", "nothing+Pong", "nothing", "goaway", "x", "x", "x"]),
    ];
    for (state, expected) in rows {
        for (kind, expected) in kinds.into_iter().zip(expected) {
            assert_eq!(outcome(Role::Client, state, kind), expected, "{state:?} {kind:?}");
        }
    }
}

#[test]
fn server_table() {
    use Kind::*;
    let kinds = [Hello, Request, Present, Cancel, Ping, Pong, Response, Error, GoAway];
    let rows = [
        (State::AwaitHello, ["hello", "x", "x", "x", "x", "x", "x", "x", "x"]),
        (State::Open, ["x", "request", "present", "cancel", "nothing+Pong", "nothing", "x", "x", "x"]),
        (State::Draining, ["x", "request", "present", "cancel", "nothing+Pong", "nothing", "x", "x", "x"]),
    ];
    for (state, expected) in rows {
        for (kind, expected) in kinds.into_iter().zip(expected) {
            assert_eq!(outcome(Role::Server, state, kind), expected, "{state:?} {kind:?}");
        }
    }
}

#[test]
fn versions_without_a_common_one() {
    for (min, max) in [(2, 9), (0, 0), (5, 3)] {
        let (mut conn, mut out) = conn(Role::Server, State::AwaitHello);
        let message = Hello { version_min: min, version_max: max, ..hello() }.encode_to_vec().into();
        let error = conn.handle_frame(Frame { message, ..frame(Kind::Hello, 0) }, &mut out).unwrap_err();
        assert_eq!(error, ConnError::NoCommonVersion { min, max });
    }
}

#[test]
fn malformed_messages() {
    for (role, state, kind) in [
        (Role::Server, State::AwaitHello, Kind::Hello),
        (Role::Client, State::Open, Kind::Error),
        (Role::Client, State::Open, Kind::GoAway),
    ] {
        let (mut conn, mut out) = conn(role, state);
        let message = Bytes::from_static(b"\xff\xff\xff");
        let error = conn.handle_frame(Frame { message, ..frame(kind, 1) }, &mut out).unwrap_err();
        assert!(matches!(error, ConnError::Malformed { kind: k, .. } if k == kind), "{error}");
    }
}

#[test]
fn damaged_answer_is_data_loss() {
    let (mut conn, mut out) = conn(Role::Client, State::Open);
    let damaged = Frame { payload: PayloadState::Damaged, ..frame(Kind::Response, 3) };
    let Ok(Event::Answer { id: 3, result: Err(status) }) = conn.handle_frame(damaged, &mut out) else {
        panic!("no answer")
    };
    assert_eq!(status.code, Code::DataLoss);
}

#[test]
fn client_pings_a_silent_peer_then_gives_it_up() {
    for (waiting, ping_after) in [(false, 5 * SECOND), (true, SECOND)] {
        let (mut conn, mut out) = conn(Role::Client, State::Open);
        let start = Instant::now();
        conn.handle_life_sign(start);
        assert_eq!(conn.poll_timeout(waiting), start + ping_after);
        // Too early: nothing.
        conn.handle_timeout(waiting, start + ping_after - Duration::from_millis(1), &mut out).unwrap();
        assert!(out.is_empty());
        let pinged = start + ping_after;
        conn.handle_timeout(waiting, pinged, &mut out).unwrap();
        assert_eq!(decoded(&mut out)[0].header.kind, Kind::Ping);
        assert_eq!(conn.poll_timeout(waiting), pinged + 3 * SECOND);
        // Any byte is a life sign.
        conn.handle_life_sign(pinged + SECOND);
        assert_eq!(conn.poll_timeout(waiting), pinged + SECOND + ping_after);
        let again = pinged + SECOND + ping_after;
        conn.handle_timeout(waiting, again, &mut out).unwrap();
        let dead = conn.handle_timeout(waiting, again + 3 * SECOND, &mut out).unwrap_err();
        assert_eq!(dead, ConnError::Silent(ping_after + 3 * SECOND));
    }
}

#[test]
fn server_closes_silent_connections_without_a_ping() {
    for state in [State::AwaitHello, State::Open, State::Draining] {
        let (mut conn, mut out) = conn(Role::Server, state);
        let start = Instant::now();
        conn.handle_life_sign(start);
        conn.handle_timeout(false, start + 29 * SECOND, &mut out).unwrap();
        let error = conn.handle_timeout(false, start + 30 * SECOND, &mut out).unwrap_err();
        assert_eq!(error, ConnError::Silent(30 * SECOND));
        assert!(out.is_empty());
    }
}

#[test]
fn goaway_is_sent_once() {
    let (mut conn, mut out) = conn(Role::Server, State::Open);
    conn.send_go_away(Status::unavailable("a"), &mut out);
    conn.send_go_away(Status::unavailable("b"), &mut out);
    assert_eq!(decoded(&mut out).len(), 1);
}

/// One end of a conversation.
struct End {
    conn: Conn,
    decoder: Decoder,
    out: Outbound,
}

impl End {
    fn new(role: Role) -> Self {
        let conn = Conn::new(role, timing(role), Instant::now());
        Self { conn, decoder: Decoder::new(), out: Outbound::default() }
    }

    /// Takes up to `n` bytes from the other end.
    fn take(&mut self, from: &mut Outbound, n: usize, on_event: &mut dyn FnMut(&mut Self, Event)) {
        let mut slices = [IoSlice::new(&[]); SLICES_MAX];
        let count = from.slices(&mut slices);
        let bytes: Vec<u8> = slices[..count].iter().flat_map(|slice| slice.iter().copied()).collect();
        let mut rest = &bytes[..n.min(bytes.len())];
        from.advance(rest.len());
        let mut admit = |header: &Header| Admit::Into(PayloadBuf::heap(header.payload_len as usize));
        loop {
            match self.decoder.step(&mut admit).unwrap() {
                Step::Frame(frame) => {
                    let event = self.conn.handle_frame(frame, &mut self.out).unwrap();
                    on_event(self, event);
                }
                Step::Read if rest.is_empty() => return,
                Step::Read => {
                    let room = self.decoder.chunk_mut().len().min(rest.len());
                    self.decoder.put_slice(&rest[..room]);
                    rest = &rest[room..];
                }
            }
        }
    }
}

fn serve(server: &mut End, event: Event) {
    match event {
        Event::Hello(_) => server.conn.greet(&hello(), &mut server.out),
        Event::Request(request) => {
            let PayloadState::Received(payload) = request.payload else { panic!("no payload") };
            let body = Body { message: request.message, payload };
            server.out.push(Header::bare(Kind::Response, request.id), body);
        }
        event => panic!("{event:?}"),
    }
}

proptest! {
    /// Whatever the sizes of reads and writes, each request is answered once with its own bytes.
    #[test]
    fn conversation_over_cut_bytes(
        payloads in proptest::collection::vec(0..60_000usize, 1..20),
        cuts in proptest::collection::vec(1..50_000usize, 1..50),
    ) {
        let (mut client, mut server) = (End::new(Role::Client), End::new(Role::Server));
        client.conn.greet(&hello(), &mut client.out);
        for (id, len) in (1..).zip(&payloads) {
            let body = Body { message: Bytes::from_static(b"m"), payload: vec![id as u8; *len].into() };
            client.out.push(Header::bare(Kind::Request, id), body);
        }
        let (mut cuts, mut answered) = (cuts.into_iter().cycle(), Vec::new());
        while answered.len() < payloads.len() {
            server.take(&mut client.out, cuts.next().unwrap(), &mut serve);
            client.take(&mut server.out, cuts.next().unwrap(), &mut |_, event| match event {
                Event::Hello(_) => {}
                Event::Answer { id, result } => answered.push((id, result.unwrap().payload)),
                event => panic!("{event:?}"),
            });
        }
        for ((id, payload), (expected, len)) in answered.iter().zip((1..).zip(&payloads)) {
            prop_assert_eq!(*id, expected);
            prop_assert!(payload[..] == vec![expected as u8; *len][..]);
        }
    }
}
