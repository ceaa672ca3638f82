//! Arbitrary bytes as the text of a file with a capability, decoded, encoded again and verified.
#![no_main]

#[path = "../../tests/common/drive.rs"]
mod drive;

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    let _ = drive::text(data);
});
