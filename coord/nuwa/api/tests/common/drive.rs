//! Feeds arbitrary bytes to the reader of snapshots. Shared by the fuzz target and the test that runs in CI.

use nuwa_api::snapshot::{Reader, Writer, verify};

/// The first byte says whether checksums are put right, without which chance never gets past them; the rest is the file.
///
/// # Panics
/// If the reader accepts what no writer can have written.
pub(crate) fn drive(data: &[u8]) {
    let Some((choice, file)) = data.split_first() else { return };
    let mut file = file.to_vec();
    if choice & 1 == 0 {
        repair(&mut file);
    }
    let Ok(contents) = verify(&file[..]) else { return };
    assert_eq!(contents.file_bytes, file.len() as u64, "it has come to the end");
    // A writer takes what a reader gave, and a reader finds the same in that.
    let mut reader = Reader::new(&file[..]).expect("it was verified");
    let mut writer = Writer::new(Vec::new(), reader.header().clone()).expect("memory takes it");
    while let Some(records) = reader.next_block().expect("it was verified") {
        writer.add(records).expect("the reader checked them");
    }
    let (copy, of_copy) = writer.finish().expect("memory takes it");
    assert_eq!(verify(&copy[..]).expect("it was just written"), of_copy);
    assert_eq!(
        (of_copy.records, of_copy.files, &of_copy.header),
        (contents.records, contents.files, &contents.header)
    );
}

/// Writes magic, version and checksums over; lengths that reach beyond the end are cut.
fn repair(file: &mut [u8]) {
    let Some((start, mut rest)) = file.split_first_chunk_mut::<16>() else { return };
    start[..12].copy_from_slice(b"NUWASNAP\x01\0\0\0");
    let crc = crc32c::crc32c(&start[..12]);
    start[12..].copy_from_slice(&crc.to_le_bytes());
    while let Some((head, body)) = rest.split_first_chunk_mut::<8>() {
        let said = usize::from(u16::from_le_bytes([head[0], head[1]]));
        let (message, behind) = body.split_at_mut(said.min(body.len()));
        let len = u32::try_from(message.len()).expect("it was a u16").to_le_bytes();
        head[..4].copy_from_slice(&len);
        let crc = crc32c::crc32c_append(crc32c::crc32c(&len), message);
        head[4..].copy_from_slice(&crc.to_le_bytes());
        rest = behind;
    }
}
