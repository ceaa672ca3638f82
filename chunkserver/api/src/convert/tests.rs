//! The conversions: what passes unchanged, and what is refused.

use coord_types::{ChunkKey, DataId, Epoch, Fence, GroupId, SessionId, Stamp, Version};

use super::*;

fn write(offset_bytes: u32, data: &[u8]) -> Write {
    Write {
        key: ChunkKey::new(GroupId(3), DataId(4), 5),
        epoch: Epoch(6),
        offset_bytes,
        block_crcs: vec![],
        stamp: Some(Stamp { session: SessionId(7), seq: 8 }),
        chunk_size_bytes: 1 << 20,
        fence: Fence(9),
    }
    .checksummed(data)
}

#[test]
fn a_write_survives_the_wire() {
    let data = vec![1; 5000];
    let sent = write(4090, &data);
    let request = pb::WriteRequest::from(&sent);
    assert_eq!(Write::from_request(&request, data.len()), Ok(sent));
}

#[test]
fn refuses_writes_that_do_not_fit() {
    let data = vec![1; 5000];
    let good = pb::WriteRequest::from(&write(0, &data));
    let refused = |change: &dyn Fn(&mut pb::WriteRequest), payload_bytes| {
        let mut request = good.clone();
        change(&mut request);
        Write::from_request(&request, payload_bytes).unwrap_err()
    };
    assert_eq!(refused(&|r| r.chunk = None, 5000), Invalid::Missing("chunk"));
    assert_eq!(refused(&|r| r.chunk.as_mut().unwrap().index = u32::MAX, 5000), Invalid::FenceIndex);
    assert_eq!(refused(&|_| {}, 0), Invalid::Len(0));
    assert_eq!(refused(&|_| {}, (1 << 20) + 1), Invalid::Len((1 << 20) + 1));
    assert_eq!(refused(&|_| {}, 9000), Invalid::Checksums { found: 2, expected: 3 });
    assert_eq!(refused(&|r| r.block_crcs.truncate(7), 5000), Invalid::ChecksumBytes(7));
    assert_eq!(refused(&|r| r.chunk_size_bytes = 12345, 5000), Invalid::ChunkSize(12345));
    assert!(matches!(refused(&|r| r.offset_bytes = (1 << 20) - 4999, 5000), Invalid::Range { .. }));
    assert!(matches!(refused(&|r| r.offset_bytes = u32::MAX, 5000), Invalid::Range { .. }));
}

#[test]
fn a_raise_survives_the_wire_and_raises() {
    let record = ChunkKey::new(GroupId(3), DataId(4), 5).fence_record();
    let raise = RaiseFence { record, epoch: Epoch(6), fence: Fence(7) };
    let request = pb::RaiseFenceRequest::from(raise);
    assert_eq!(RaiseFence::try_from(&request), Ok(raise));
    assert_eq!(RaiseFence::try_from(&pb::RaiseFenceRequest { fence: 0, ..request }), Err(Invalid::NoFence));
}

#[test]
fn refuses_punches_and_reads_that_do_not_fit() {
    let punch = Punch {
        key: ChunkKey::new(GroupId(3), DataId(4), 5),
        epoch: Epoch(6),
        offset_bytes: 0,
        len_bytes: 1 << 20,
        stamp: None,
        chunk_size_bytes: 1 << 20,
        fence: Fence(9),
    };
    let request = pb::PunchRequest::from(punch);
    assert_eq!(Punch::try_from(&request), Ok(punch));
    assert!(Punch::try_from(&pb::PunchRequest { offset_bytes: 1, ..request }).is_err());
    assert!(Punch::try_from(&pb::PunchRequest { len_bytes: 0, ..request }).is_err());

    let at_fences = Some(punch.key.fence_record().into());
    assert_eq!(Punch::try_from(&pb::PunchRequest { chunk: at_fences, ..request }), Err(Invalid::FenceIndex));

    let read = Read { key: punch.key, epoch: Epoch(6), offset_bytes: 10, len_bytes: 10 };
    let request = pb::ReadRequest::from(read);
    assert_eq!(Read::try_from(&request), Ok(read));
    assert!(Read::try_from(&pb::ReadRequest { len_bytes: 0, ..request }).is_err());
    assert!(Read::try_from(&pb::ReadRequest { len_bytes: 2 << 20, ..request }).is_err());
    assert!(Read::try_from(&pb::ReadRequest { offset_bytes: 64 << 20, ..request }).is_err());
}

#[test]
fn an_answer_must_cover_what_was_asked() {
    let asked = Read {
        key: ChunkKey::new(GroupId(3), DataId(4), 5),
        epoch: Epoch(6),
        offset_bytes: 5000,
        len_bytes: 4000,
    };
    let data = Bytes::from(vec![9; 8192]);
    let reply = pb::ReadReply {
        version: Some(Version { epoch: Epoch(6), counter: 1 }.into()),
        payload_offset_bytes: 4096,
        block_crcs: crcs_to_bytes(&checksum::piece_crcs(4096, &data)),
        hole: false,
    };
    let got = ReadData::from_reply(&reply, data.clone(), &asked).unwrap();
    assert_eq!(got.verify(), None);
    assert!(ReadData::from_reply(&reply, data.slice(..4096), &asked).is_err());
    assert!(ReadData::from_reply(&reply, data.slice(..8191), &asked).is_err());
    let moved = pb::ReadReply { payload_offset_bytes: 8192, ..reply.clone() };
    assert!(ReadData::from_reply(&moved, data.clone(), &asked).is_err());
    let short = pb::ReadReply { block_crcs: Bytes::from(vec![0; 4]), ..reply.clone() };
    assert_eq!(ReadData::from_reply(&short, data, &asked), Err(Invalid::Checksums { found: 1, expected: 2 }));
    let hole = pb::ReadReply { hole: true, ..reply };
    assert!(ReadData::from_reply(&hole, Bytes::new(), &asked).unwrap().hole);
}

#[test]
fn stale_detail_survives() {
    assert_eq!(parse_stale_detail(&stale_detail(Epoch(3), 9)), Some((Epoch(3), 9)));
    assert_eq!(parse_stale_detail(&7u64.to_le_bytes()), Some((Epoch(7), 0)));
    for bad in [&b"short"[..], &[0; 9], &[0; 17]] {
        assert_eq!(parse_stale_detail(bad), None);
    }
}
