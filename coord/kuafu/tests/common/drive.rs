//! Feeds arbitrary bytes to the decoder and the protocol. Shared by the fuzz target and the test that runs in CI.

use bytes::BufMut;
use kuafu::PayloadBuf;
use kuafu::conn::{Admit, Conn, Decoder, Event, Outbound, PayloadState, Role, Step, Timing};
use kuafu::frame::{HEADER_LEN, Header, Hello};
use std::time::{Duration, Instant};

/// The first bytes choose who listens, how the rest is cut, and whether checksums are put right, without which chance
/// never gets past them; the rest is the stream.
///
/// # Panics
/// If the decoder accepts what is not exactly a frame.
pub(crate) fn drive(data: &[u8]) {
    let Some((choice, stream)) = data.split_first_chunk::<4>() else { return };
    let mut stream = stream.to_vec();
    if choice[0] & 4 == 0 {
        repair(&mut stream);
    }
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
                        let hello = Hello::default();
                        conn.greet(&hello, &mut out);
                    }
                    Ok(_) => {}
                }
            }
        }
    }
}

/// Makes a stream of frames out of any bytes: magic, version, lengths that fit, and checksums are written over.
fn repair(stream: &mut [u8]) {
    let mut rest = stream;
    while rest.len() > HEADER_LEN {
        let (header, body) = rest.split_at_mut(HEADER_LEN);
        header[..4].copy_from_slice(b"KUAF");
        header[4] = 1;
        // Mostly one of the kinds and flags there are, sometimes others.
        header[5] %= 10;
        header[6] &= 3;
        header[7] = 0;
        header[40..44].fill(0);
        let lens = [24, 28].map(|at| usize::from(u16::from_le_bytes([header[at], header[at + 1]])) % 3000);
        let message_len = lens[0].min(body.len());
        let payload_len = lens[1].min(body.len() - message_len);
        let (message, tail) = body.split_at_mut(message_len);
        let (payload, tail) = tail.split_at_mut(payload_len);
        let put = |header: &mut [u8], at: usize, value: u32| {
            header[at..at + 4].copy_from_slice(&value.to_le_bytes());
        };
        put(header, 24, u32::try_from(message_len).expect("below 3000"));
        put(header, 28, u32::try_from(payload_len).expect("below 3000"));
        put(header, 32, crc32c::crc32c(message));
        put(header, 36, crc32c::crc32c(payload));
        let crc = crc32c::crc32c(&header[..HEADER_LEN - 4]);
        put(header, HEADER_LEN - 4, crc);
        rest = tail;
    }
}
