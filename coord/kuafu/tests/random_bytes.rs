//! The fuzz target's driver on random and on mutated streams, in a few seconds, so that every run of the tests does a
//! little of it. `coord/kuafu/fuzz` does it at length.

#[path = "common/drive.rs"]
mod drive;

use std::io::IoSlice;

use kuafu::Bytes;
use kuafu::conn::outbound::SLICES_MAX;
use kuafu::conn::{Body, Outbound};
use kuafu::frame::{Header, Hello, Kind};
use rand::rngs::StdRng;
use rand::{Rng, RngCore, SeedableRng};

/// A stream both sides could send: the driver's choices first.
fn valid_stream(random: &mut StdRng) -> Vec<u8> {
    let mut out = Outbound::default();
    let hello = Hello { version_min: 1, version_max: 1, ..Hello::default() };
    out.push_message(Header::bare(Kind::Hello, 0), &hello, Bytes::new());
    let kinds = [
        Kind::Request,
        Kind::Response,
        Kind::Error,
        Kind::Cancel,
        Kind::Ping,
        Kind::Pong,
        Kind::GoAway,
        Kind::Present,
    ];
    for _ in 0..random.random_range(0..6) {
        let kind = kinds[random.random_range(0..kinds.len())];
        let mut body = Body::EMPTY;
        if matches!(kind, Kind::Request | Kind::Response) {
            body.message = vec![1; random.random_range(0..100)].into();
            body.payload = vec![2; random.random_range(0..5000)].into();
        }
        let proof =
            if matches!(kind, Kind::Request | Kind::Present) { random.random_range(1..=8) } else { 0 };
        out.push(Header { proof, ..Header::bare(kind, random.next_u64()) }, body);
    }
    let mut stream = vec![0; 4];
    random.fill_bytes(&mut stream);
    let mut slices = [IoSlice::new(&[]); SLICES_MAX];
    let count = out.slices(&mut slices);
    slices[..count].iter().for_each(|slice| stream.extend_from_slice(slice));
    stream
}

#[test]
fn mutated_streams() {
    let mut random = StdRng::seed_from_u64(1);
    for _ in 0..20_000 {
        let mut stream = valid_stream(&mut random);
        for _ in 0..random.random_range(0..3) {
            let at = random.random_range(0..stream.len());
            match random.random_range(0..4) {
                0 => stream[at] = random.random(),
                1 => stream.truncate(at.max(4)),
                2 => stream.insert(at, random.random()),
                _ => {
                    stream.remove(at);
                }
            }
            if stream.is_empty() {
                break;
            }
        }
        drive::drive(&stream);
    }
}

#[test]
fn random_streams() {
    let mut random = StdRng::seed_from_u64(2);
    for _ in 0..20_000 {
        let mut stream = vec![0; random.random_range(0..300)];
        random.fill_bytes(&mut stream);
        drive::drive(&stream);
    }
}
