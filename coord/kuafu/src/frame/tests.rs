//! The byte map, fixed by bytes; each error of the decoder; round trips.

use proptest::prelude::*;

use super::*;

fn sample() -> Header {
    Header {
        kind: Kind::Request,
        payload_check: PayloadCheck::ByMessage,
        id: 0x0102_0304_0506_0708,
        method: 0x1111_2222,
        deadline_us: 1_000_000,
        message_len: 5,
        payload_len: 4096,
        message_crc: 0xdead_beef,
        payload_crc: 0,
        proof: 3,
    }
}

/// Header bytes with `change` made and the checksum right.
fn forged(change: impl FnOnce(&mut [u8; HEADER_LEN])) -> [u8; HEADER_LEN] {
    let mut bytes = sample().encode();
    change(&mut bytes);
    let crc = crc32c::crc32c(&bytes[..CRC_AT]);
    bytes[CRC_AT..].copy_from_slice(&crc.to_le_bytes());
    bytes
}

#[test]
fn byte_map() {
    let bytes = sample().encode();
    #[rustfmt::skip]
    let expected = [
        0x4B, 0x55, 0x41, 0x46,  1, 2,  1, 0,
        8, 7, 6, 5, 4, 3, 2, 1,
        0x22, 0x22, 0x11, 0x11,  0x40, 0x42, 0x0f, 0x00,
        5, 0, 0, 0,  0x00, 0x10, 0, 0,
        0xef, 0xbe, 0xad, 0xde,  0, 0, 0, 0,
        3, 0, 0, 0,
    ];
    assert_eq!(bytes[..CRC_AT], expected);
    assert_eq!(bytes[CRC_AT..], crc32c::crc32c(&expected).to_le_bytes());
}

#[test]
fn every_error() {
    let cases = [
        (forged(|b| b[0] = b'X'), FrameError::Magic(*b"XUAF")),
        (forged(|b| b[4] = 2), FrameError::Version(2)),
        (forged(|b| b[5] = 0), FrameError::UnknownKind(0)),
        (forged(|b| b[5] = 10), FrameError::UnknownKind(10)),
        (forged(|b| b[6] = 3), FrameError::UnknownFlags(3)),
        (forged(|b| b[7] = 0x80), FrameError::UnknownFlags(0x8001)),
        (forged(|b| b[41] = 1), FrameError::Reserved(1)),
        (forged(|b| b[40] = 9), FrameError::Proof { kind: Kind::Request, number: 9 }),
        (forged(|b| b[5] = Kind::Response as u8), FrameError::Proof { kind: Kind::Response, number: 3 }),
        (
            forged(|b| (b[5], b[40]) = (Kind::Present as u8, 0)),
            FrameError::Proof { kind: Kind::Present, number: 0 },
        ),
        (
            forged(|b| {
                b[5] = Kind::Present as u8;
                b[24..28].copy_from_slice(&4097u32.to_le_bytes());
            }),
            FrameError::MessageTooLong(4097),
        ),
        (
            forged(|b| b[24..28].copy_from_slice(&0x0040_0001u32.to_le_bytes())),
            FrameError::MessageTooLong(0x0040_0001),
        ),
        (
            forged(|b| b[28..32].copy_from_slice(&0x0040_0001u32.to_le_bytes())),
            FrameError::PayloadTooLong(0x0040_0001),
        ),
        (
            forged(|b| (b[5], b[40]) = (Kind::Error as u8, 0)),
            FrameError::UnexpectedBody { kind: Kind::Error, message_len: 5, payload_len: 4096 },
        ),
        (
            forged(|b| (b[5], b[29], b[40]) = (Kind::Ping as u8, 0, 0)),
            FrameError::UnexpectedBody { kind: Kind::Ping, message_len: 5, payload_len: 0 },
        ),
    ];
    for (bytes, error) in cases {
        assert_eq!(Header::decode(&bytes), Err(error));
    }
}

#[test]
fn every_flipped_bit_is_noticed() {
    let bytes = sample().encode();
    for bit in 0..HEADER_LEN * 8 {
        let mut damaged = bytes;
        damaged[bit / 8] ^= 1 << (bit % 8);
        assert!(Header::decode(&damaged).is_err(), "bit {bit}");
    }
}

#[test]
fn largest_lengths_pass() {
    let header = Header { message_len: 4 << 20, payload_len: 4 << 20, ..sample() };
    assert_eq!(Header::decode(&header.encode()), Ok(header));
}

#[test]
fn status_round_trips() {
    let status = Status::busy("later", Duration::from_millis(7)).with_detail(Bytes::from_static(b"d"));
    let (code, wire) = WireStatus::from_status(status.clone());
    assert_eq!(wire.into_status(code), status);
}

#[test]
fn deadlines() {
    let now = Instant::now();
    assert_eq!(deadline_to_wire(now, now + Duration::from_secs(1)), 0);
    assert_eq!(deadline_to_wire(now + Duration::from_secs(100_000), now), u32::MAX);
    assert_eq!(deadline_from_wire(1_500_000, now), now + Duration::from_millis(1500));
}

prop_compose! {
    fn any_header()(
        kind in prop_oneof![Just(Kind::Request), Just(Kind::Response)],
        covered: bool, id: u64, method: u32, deadline_us: u32,
        message_len in 0..=(MESSAGE_LEN_MAX as u32), payload_len in 0..=(PAYLOAD_LEN_MAX as u32),
        message_crc: u32, payload_crc: u32, proof in 0..=PROOFS_MAX,
    ) -> Header {
        let proof = if kind == Kind::Request { proof } else { 0 };
        let payload_check = if covered { PayloadCheck::ByMessage } else { PayloadCheck::Crc };
        Header {
            kind, payload_check, id, method, deadline_us, message_len, payload_len, message_crc, payload_crc, proof,
        }
    }
}

proptest! {
    #[test]
    fn headers_round_trip(header in any_header()) {
        prop_assert_eq!(Header::decode(&header.encode()), Ok(header));
    }

    #[test]
    fn arbitrary_bytes_never_panic(bytes: [u8; 32], rest: [u8; 16]) {
        let mut all = [0; HEADER_LEN];
        all[..32].copy_from_slice(&bytes);
        all[32..].copy_from_slice(&rest);
        let _ = Header::decode(&all);
        // With a right magic and checksum more of the decoder is reached.
        all[..4].copy_from_slice(&MAGIC);
        all[4] = VERSION;
        let crc = crc32c::crc32c(&all[..CRC_AT]);
        all[CRC_AT..].copy_from_slice(&crc.to_le_bytes());
        if let Ok(header) = Header::decode(&all) {
            prop_assert_eq!(header.encode(), all);
        }
    }
}
