//! Arbitrary bytes as commands for the state machine.
#![no_main]

#[path = "../../core/tests/common/drive.rs"]
mod drive;

libfuzzer_sys::fuzz_target!(|data: &[u8]| drive::drive(data));
