//! Arbitrary bytes for the reader of snapshot files.
#![no_main]

#[path = "../../api/tests/common/drive.rs"]
mod drive;

libfuzzer_sys::fuzz_target!(|data: &[u8]| drive::drive(data));
