//! Arbitrary bytes as a chunk token, decoded, encoded again and verified.
#![no_main]

#[path = "../../tests/common/drive.rs"]
mod drive;

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    let _ = drive::token(data);
});
