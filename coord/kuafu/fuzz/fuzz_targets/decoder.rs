//! Arbitrary bytes for the frame decoder and the protocol behind it.
#![no_main]

#[path = "../../tests/common/drive.rs"]
mod drive;

libfuzzer_sys::fuzz_target!(|data: &[u8]| drive::drive(data));
