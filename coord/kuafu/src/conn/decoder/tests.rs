//! Streams cut in every way give the same frames; each way a stream can be wrong is noticed.

use std::io::IoSlice;

use proptest::prelude::*;

use super::*;
use crate::conn::outbound::SLICES_MAX;
use crate::conn::{Body, Outbound};
use crate::frame::Kind;
use crate::payload::PayloadBuffer;

/// Everything queued, as one run of bytes, taken out `step` bytes at a time.
fn drain(out: &mut Outbound, step: usize) -> Vec<u8> {
    let mut bytes = Vec::new();
    while !out.is_empty() {
        let mut slices = [IoSlice::new(&[]); SLICES_MAX];
        let count = out.slices(&mut slices);
        let all: Vec<u8> = slices[..count].iter().flat_map(|slice| slice.iter().copied()).collect();
        let n = step.min(all.len());
        bytes.extend_from_slice(&all[..n]);
        out.advance(n);
    }
    bytes
}

fn encode(frames: &[(Header, Vec<u8>, Vec<u8>)], step: usize) -> Vec<u8> {
    let mut out = Outbound::default();
    for (header, message, payload) in frames {
        out.push(*header, Body { message: message.clone().into(), payload: payload.clone().into() });
    }
    drain(&mut out, step)
}

fn heap(header: &Header) -> Admit {
    Admit::Into(PayloadBuf::heap(header.payload_len as usize))
}

/// A buffer of somebody's pool.
struct Pooled(Vec<u8>);

impl PayloadBuffer for Pooled {
    fn as_mut_slice(&mut self) -> &mut [u8] {
        &mut self.0
    }

    fn freeze(self: Box<Self>) -> Bytes {
        self.0.into()
    }
}

fn pooled(header: &Header) -> Admit {
    Admit::Into(PayloadBuf::custom(Box::new(Pooled(vec![0; header.payload_len as usize]))))
}

/// Feeds `bytes` in pieces of the given lengths, over and over; frames until the end or an error.
fn decode(
    bytes: &[u8],
    pieces: &[usize],
    admit: &mut dyn FnMut(&Header) -> Admit,
) -> (Vec<Frame>, Option<FrameError>, bool) {
    let mut decoder = Decoder::new();
    let (mut frames, mut rest) = (Vec::new(), bytes);
    let mut pieces = pieces.iter().cycle();
    loop {
        match decoder.step(admit) {
            Ok(Step::Frame(frame)) => frames.push(frame),
            Ok(Step::Read) if rest.is_empty() => return (frames, None, decoder.at_boundary()),
            Ok(Step::Read) => {
                let room = decoder.chunk_mut().len();
                assert!(room > 0, "asked for bytes without room for any");
                let n = (*pieces.next().unwrap()).clamp(1, room.min(rest.len()));
                decoder.put_slice(&rest[..n]);
                rest = &rest[n..];
            }
            Err(error) => return (frames, Some(error), false),
        }
    }
}

fn request(id: u64) -> Header {
    Header { method: 7, deadline_us: 9, ..Header::bare(Kind::Request, id) }
}

#[test]
fn message_checksum() {
    let mut bytes = encode(&[(request(1), b"message".to_vec(), vec![])], usize::MAX);
    *bytes.last_mut().unwrap() ^= 1;
    let (frames, error, _) = decode(&bytes, &[usize::MAX], &mut heap);
    assert!(frames.is_empty() && matches!(error, Some(FrameError::MessageCrc { .. })), "{error:?}");
}

#[test]
fn header_errors_end_the_stream() {
    let good = encode(&[(request(1), vec![], vec![])], usize::MAX);
    let mut bytes = good.clone();
    bytes.extend(good);
    bytes[HEADER_LEN] = b'X';
    let (frames, error, _) = decode(&bytes, &[usize::MAX], &mut heap);
    assert_eq!((frames.len(), error), (1, Some(FrameError::Magic(*b"XUAF"))));
}

#[test]
fn damaged_payload_spares_the_stream() {
    for len in [10, 100_000] {
        let frames = [(request(1), b"m".to_vec(), vec![5; len]), (request(2), b"n".to_vec(), vec![6; len])];
        let mut bytes = encode(&frames, usize::MAX);
        bytes[HEADER_LEN + 1 + len / 2] ^= 0x40;
        let (frames, error, at_boundary) = decode(&bytes, &[5000], &mut heap);
        assert_eq!((error, at_boundary), (None, true));
        assert_eq!(frames[0].payload, PayloadState::Damaged);
        assert_eq!(frames[1].payload, PayloadState::Received(vec![6; len].into()));
    }
}

#[test]
fn covered_payload_is_not_checked() {
    let header = Header { payload_check: PayloadCheck::ByMessage, ..request(1) };
    let mut bytes = encode(&[(header, vec![], vec![5; 10])], usize::MAX);
    *bytes.last_mut().unwrap() ^= 1;
    let (frames, ..) = decode(&bytes, &[7], &mut heap);
    assert_eq!(frames[0].payload, PayloadState::Received(vec![5, 5, 5, 5, 5, 5, 5, 5, 5, 4].into()));
}

#[test]
fn unwanted_payloads_are_dropped() {
    for len in [1, 3000, 40_000, 200_000] {
        let frames: Vec<_> = (0..3).map(|id| (request(id), b"m".to_vec(), vec![id as u8; len])).collect();
        let bytes = encode(&frames, usize::MAX);
        let mut drop_second = |header: &Header| if header.id == 1 { Admit::Drop } else { heap(header) };
        let (frames, error, at_boundary) = decode(&bytes, &[usize::MAX, 11, 999], &mut drop_second);
        assert_eq!((error, at_boundary), (None, true));
        let states: Vec<_> = frames.into_iter().map(|frame| frame.payload).collect();
        let received = |with| PayloadState::Received(vec![with; len].into());
        assert_eq!(states, [received(0), PayloadState::Dropped, received(2)]);
    }
}

#[test]
fn end_inside_a_frame_is_no_boundary() {
    let bytes = encode(&[(request(1), b"message".to_vec(), vec![1; 100])], usize::MAX);
    for len in 1..bytes.len() {
        let (frames, error, at_boundary) = decode(&bytes[..len], &[usize::MAX], &mut heap);
        assert_eq!((frames.len(), error, at_boundary), (0, None, false), "{len}");
    }
    assert!(decode(&bytes, &[usize::MAX], &mut heap).2);
}

#[test]
fn long_payload_bypasses_the_scratch_buffer() {
    let frames: Vec<_> = (0..3).map(|id| (request(id), vec![1; 1100], vec![2; 1 << 20])).collect();
    let bytes = encode(&frames, usize::MAX);
    let mut decoder = Decoder::new();
    let (mut rest, mut direct) = (&bytes[..], 0);
    let mut count = 0;
    while count < 3 {
        match decoder.step(&mut heap).unwrap() {
            Step::Frame(_) => count += 1,
            Step::Read => {
                let in_payload = matches!(decoder.stage, Stage::Payload { .. });
                let n = decoder.chunk_mut().len().min(rest.len());
                decoder.put_slice(&rest[..n]);
                rest = &rest[n..];
                direct += if in_payload { n } else { 0 };
            }
        }
    }
    // The first frame's beginning came with a full scratch buffer, the others' with a short one.
    assert!(direct >= 3 * (1 << 20) - SCRATCH_LEN - 2 * SCRATCH_BULK, "{direct}");
}

prop_compose! {
    fn any_frame()(
        id: u64, covered: bool, response: bool,
        message in prop_oneof![
            4 => proptest::collection::vec(any::<u8>(), 0..300),
            1 => (2000..70_000usize).prop_map(|len| vec![3; len]),
        ],
        payload in prop_oneof![
            2 => Just(Vec::new()),
            2 => proptest::collection::vec(any::<u8>(), 1..300),
            2 => (2000..100_000usize).prop_map(|len| (0..len).map(|i| i as u8).collect()),
        ],
    ) -> (Header, Vec<u8>, Vec<u8>) {
        let kind = if response { Kind::Response } else { Kind::Request };
        let payload_check = if covered { PayloadCheck::ByMessage } else { PayloadCheck::Crc };
        (Header { payload_check, ..Header::bare(kind, id) }, message, payload)
    }
}

fn pieces() -> impl Strategy<Value = Vec<usize>> {
    proptest::collection::vec(prop_oneof![1..4usize, 1..100usize, 1..70_000usize, Just(usize::MAX)], 1..20)
}

proptest! {
    #[test]
    fn any_cut_gives_the_same_frames(
        frames in proptest::collection::vec(any_frame(), 1..12),
        pieces in pieces(),
        step in prop_oneof![Just(usize::MAX), 1..50_000usize],
        from_pool: bool,
    ) {
        let bytes = encode(&frames, step);
        let mut admit = if from_pool { pooled } else { heap };
        let (decoded, error, at_boundary) = decode(&bytes, &pieces, &mut admit);
        prop_assert_eq!((error, at_boundary), (None, true));
        prop_assert_eq!(decoded.len(), frames.len());
        for (got, (header, message, payload)) in decoded.iter().zip(&frames) {
            prop_assert_eq!((got.header.id, got.header.kind), (header.id, header.kind));
            prop_assert!(got.message == message[..]);
            prop_assert!(got.payload == PayloadState::Received(payload.clone().into()));
        }
    }

    /// One changed byte never gives a frame that differs unnoticed (payloads that the message covers aside).
    #[test]
    fn changed_bytes_are_noticed(
        frames in proptest::collection::vec(any_frame(), 1..5),
        pieces in pieces(), at: prop::sample::Index, change in 1..=255u8,
    ) {
        let frames: Vec<_> = frames
            .into_iter()
            .map(|(header, m, p)| (Header { payload_check: PayloadCheck::Crc, ..header }, m, p))
            .collect();
        let mut bytes = encode(&frames, usize::MAX);
        let at = at.index(bytes.len());
        bytes[at] ^= change;
        let (decoded, error, _) = decode(&bytes, &pieces, &mut heap);
        let damaged = decoded.iter().any(|frame| frame.payload == PayloadState::Damaged);
        prop_assert!(error.is_some() || damaged);
        for (got, (_, message, payload)) in decoded.iter().zip(&frames) {
            prop_assert!(got.message == message[..]);
            let right = PayloadState::Received(payload.clone().into());
            prop_assert!(got.payload == right || got.payload == PayloadState::Damaged);
        }
    }

    /// What the fuzzer does at greater length: neither panics nor reads beyond what a frame announced.
    #[test]
    fn random_bytes_never_panic(
        frames in proptest::collection::vec(any_frame(), 0..3),
        junk in proptest::collection::vec(any::<u8>(), 0..200),
        cut: prop::sample::Index, pieces in pieces(), wanted: bool,
    ) {
        let mut bytes = encode(&frames, usize::MAX);
        bytes.truncate(cut.index(bytes.len() + 1));
        bytes.extend(junk);
        let mut admit = |header: &Header| if wanted { heap(header) } else { Admit::Drop };
        let (decoded, ..) = decode(&bytes, &pieces, &mut admit);
        prop_assert!(decoded.len() <= frames.len() + 4);
    }
}
