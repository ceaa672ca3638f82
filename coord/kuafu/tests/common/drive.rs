//! Feeds arbitrary bytes to the decoder and the protocol. Shared by the fuzz target and the test that runs in CI.

use bytes::{BufMut, Bytes};
use kuafu::PayloadBuf;
use kuafu::conn::{Admit, Conn, Decoder, Event, Outbound, PayloadState, Role, Step, Timing};
use kuafu::frame::{HEADER_LEN, Header, Hello};
use std::time::{Duration, Instant};

/// The first bytes choose who listens and how the rest is cut; the rest is the stream.
///
/// # Panics
/// If the decoder accepts what is not exactly a frame.
pub(crate) fn drive(data: &[u8]) {
    let Some((choice, stream)) = data.split_first_chunk::<4>() else { return };
    let role = if choice[0] & 1 == 0 { Role::Client } else { Role::Server };
    let wanted = choice[0] & 2 == 0;
    let timing = Timing { ping_idle: None, ping_waiting: None, silence: Duration::from_secs(1) };
    let mut conn = Conn::new(role, timing, Instant::now());
    let (mut decoder, mut out) = (Decoder::new(), Outbound::default());
    let mut admit = |header: &Header| {
        if wanted { Admit::Into(PayloadBuf::heap(header.payload_len as usize)) } else { Admit::Drop }
    };
    let (mut fed, mut decoded, mut cut) = (0, 0, 0);
    loop {
        match decoder.step(&mut admit) {
            Err(_) => return,
            Ok(Step::Read) if fed == stream.len() => return,
            Ok(Step::Read) => {
                let room = decoder.chunk_mut().len();
                assert!(room > 0, "asks for bytes without room");
                cut = (cut + 1) % 3;
                let n = (usize::from(choice[cut + 1]) * 37 + 1).min(room).min(stream.len() - fed);
                decoder.put_slice(&stream[fed..fed + n]);
                fed += n;
            }
            Ok(Step::Frame(frame)) => {
                // What was accepted is what was sent, byte by byte.
                let header = frame.header;
                assert_eq!(stream[decoded..decoded + HEADER_LEN], header.encode());
                decoded += HEADER_LEN;
                assert_eq!(stream[decoded..decoded + frame.message.len()], frame.message);
                decoded += frame.message.len();
                if let PayloadState::Received(payload) = &frame.payload {
                    assert_eq!(stream[decoded..decoded + payload.len()], payload[..]);
                }
                decoded += header.payload_len as usize;
                assert!(decoded <= fed);
                match conn.handle_frame(frame, &mut out) {
                    Err(_) => return,
                    Ok(Event::Hello(_)) if role == Role::Server => {
                        let hello = Hello { credentials: Bytes::new(), ..Hello::default() };
                        conn.greet(&hello, &mut out);
                    }
                    Ok(_) => {}
                }
            }
        }
    }
}
