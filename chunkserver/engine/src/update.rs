//! An update: what one operation changes in the metadata, as the journal holds it. Updates are logical (this chunk,
//! these blocks to there), so that a record is small and applying one again is safe: see [`Update::Write`].

use bytes::{Buf, BufMut, TryGetError};
use coord_types::{ChunkKey, Epoch, SessionId, Stamp, Version, WriterWindow};

use crate::alloc::Run;

const KIND_WRITE: u8 = 1;
const KIND_INSTALL: u8 = 2;
const KIND_REMOVE: u8 = 3;
const KIND_SETTING: u8 = 4;

/// Blocks of a chunk and where they were written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Extent {
    /// First block within the chunk.
    pub(crate) first_block: u32,
    pub(crate) start: u64,
    /// One per block.
    pub(crate) crcs: Vec<u32>,
}

impl Extent {
    pub(crate) fn run(&self) -> Run {
        Run { start: self.start, len: u32::try_from(self.crcs.len()).expect("bounded by the chunk's blocks") }
    }
}

/// A range of blocks of a chunk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct BlockRange {
    pub(crate) first_block: u32,
    pub(crate) count: u32,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Update {
    /// A write or a punch. Applies only to a chunk at `expect`.
    Write {
        key: ChunkKey,
        expect: Version,
        version: Version,
        chunk_size_bytes: u32,
        stamp: Option<Stamp>,
        /// Becomes a hole, before `extents` are put in.
        hole: Option<BlockRange>,
        extents: Vec<Extent>,
        /// The data was written at the same time as this record: after a crash it counts only if the checksums say
        /// that the data is there.
        early: bool,
    },
    /// The whole chunk anew.
    Install {
        key: ChunkKey,
        version: Version,
        chunk_size_bytes: u32,
        windows: Vec<WriterWindow>,
        extents: Vec<Extent>,
    },
    Remove {
        key: ChunkKey,
    },
    Setting {
        name: String,
        value: Vec<u8>,
    },
}

impl Update {
    /// About how long the record will be.
    pub(crate) fn len_bytes(&self) -> usize {
        match self {
            Self::Write { extents, .. } => 100 + extents_len_bytes(extents),
            Self::Install { windows, extents, .. } => 100 + windows.len() * 24 + extents_len_bytes(extents),
            Self::Remove { .. } => 20,
            Self::Setting { name, value } => 20 + name.len() + value.len(),
        }
    }

    pub(crate) fn encode(&self, out: &mut Vec<u8>) {
        match self {
            Self::Write { key, expect, version, chunk_size_bytes, stamp, hole, extents, early } => {
                out.put_u8(KIND_WRITE);
                out.put_slice(&key.encode());
                put_version(out, *expect);
                put_version(out, *version);
                out.put_u32_le(*chunk_size_bytes);
                out.put_u8(u8::from(stamp.is_some()) | u8::from(hole.is_some()) << 1 | u8::from(*early) << 2);
                if let Some(stamp) = stamp {
                    out.put_u64_le(stamp.session.0);
                    out.put_u64_le(stamp.seq);
                }
                if let Some(hole) = hole {
                    out.put_u32_le(hole.first_block);
                    out.put_u32_le(hole.count);
                }
                put_extents(out, extents);
            }
            Self::Install { key, version, chunk_size_bytes, windows, extents } => {
                out.put_u8(KIND_INSTALL);
                out.put_slice(&key.encode());
                put_version(out, *version);
                out.put_u32_le(*chunk_size_bytes);
                out.put_u8(u8::try_from(windows.len()).expect("a chunk has few windows"));
                for window in windows {
                    out.put_u64_le(window.session.0);
                    out.put_u64_le(window.newest);
                    out.put_u64_le(window.seen);
                }
                put_extents(out, extents);
            }
            Self::Remove { key } => {
                out.put_u8(KIND_REMOVE);
                out.put_slice(&key.encode());
            }
            Self::Setting { name, value } => {
                out.put_u8(KIND_SETTING);
                out.put_u32_le(u32::try_from(name.len()).expect("bounded by the engine"));
                out.put_slice(name.as_bytes());
                out.put_u32_le(u32::try_from(value.len()).expect("bounded by the engine"));
                out.put_slice(value);
            }
        }
    }

    pub(crate) fn decode(from: &mut &[u8]) -> Result<Self, &'static str> {
        Self::try_decode(from).map_err(|error| match error {
            Bad::Short => "an update is cut short",
            Bad::Other(reason) => reason,
        })
    }

    fn try_decode(from: &mut &[u8]) -> Result<Self, Bad> {
        match from.try_get_u8()? {
            KIND_WRITE => {
                let key = get_key(from)?;
                let expect = get_version(from)?;
                let version = get_version(from)?;
                let chunk_size_bytes = from.try_get_u32_le()?;
                let flags = from.try_get_u8()?;
                if flags & !7 != 0 {
                    return Err(Bad::Other("an update has unknown flags"));
                }
                let stamp = (flags & 1 != 0)
                    .then(|| {
                        Ok::<_, Bad>(Stamp {
                            session: SessionId(from.try_get_u64_le()?),
                            seq: from.try_get_u64_le()?,
                        })
                    })
                    .transpose()?;
                let hole = (flags & 2 != 0)
                    .then(|| {
                        Ok::<_, Bad>(BlockRange {
                            first_block: from.try_get_u32_le()?,
                            count: from.try_get_u32_le()?,
                        })
                    })
                    .transpose()?;
                if hole.is_some_and(|hole| {
                    hole.first_block.checked_add(hole.count).is_none_or(|end| end > BLOCKS_MAX)
                }) {
                    return Err(Bad::Other("a hole lies outside its chunk"));
                }
                let extents = get_extents(from)?;
                Ok(Self::Write {
                    key,
                    expect,
                    version,
                    chunk_size_bytes,
                    stamp,
                    hole,
                    extents,
                    early: flags & 4 != 0,
                })
            }
            KIND_INSTALL => {
                let key = get_key(from)?;
                let version = get_version(from)?;
                let chunk_size_bytes = from.try_get_u32_le()?;
                let count = usize::from(from.try_get_u8()?);
                let mut windows = Vec::with_capacity(count);
                for _ in 0..count {
                    windows.push(WriterWindow {
                        session: SessionId(from.try_get_u64_le()?),
                        newest: from.try_get_u64_le()?,
                        seen: from.try_get_u64_le()?,
                    });
                }
                Ok(Self::Install { key, version, chunk_size_bytes, windows, extents: get_extents(from)? })
            }
            KIND_REMOVE => Ok(Self::Remove { key: get_key(from)? }),
            KIND_SETTING => {
                let name = get_bytes(from)?;
                let name = String::from_utf8(name).map_err(|_| Bad::Other("a setting's name is not text"))?;
                Ok(Self::Setting { name, value: get_bytes(from)? })
            }
            _ => Err(Bad::Other("an update is of unknown kind")),
        }
    }
}

/// Blocks of the largest chunk.
const BLOCKS_MAX: u32 = (64 << 20) / coord_types::BLOCK_SIZE as u32;

enum Bad {
    Short,
    Other(&'static str),
}

impl From<TryGetError> for Bad {
    fn from(_: TryGetError) -> Self {
        Self::Short
    }
}

fn extents_len_bytes(extents: &[Extent]) -> usize {
    extents.iter().map(|extent| 16 + extent.crcs.len() * 4).sum()
}

fn put_version(out: &mut Vec<u8>, version: Version) {
    out.put_u64_le(version.epoch.0);
    out.put_u64_le(version.counter);
}

fn get_version(from: &mut &[u8]) -> Result<Version, Bad> {
    Ok(Version { epoch: Epoch(from.try_get_u64_le()?), counter: from.try_get_u64_le()? })
}

fn put_extents(out: &mut Vec<u8>, extents: &[Extent]) {
    out.put_u32_le(u32::try_from(extents.len()).expect("bounded by the chunk's blocks"));
    for extent in extents {
        out.put_u32_le(extent.first_block);
        out.put_u32_le(extent.run().len);
        out.put_u64_le(extent.start);
        extent.crcs.iter().for_each(|crc| out.put_u32_le(*crc));
    }
}

fn get_extents(from: &mut &[u8]) -> Result<Vec<Extent>, Bad> {
    let count = from.try_get_u32_le()?;
    let mut extents = Vec::new();
    for _ in 0..count {
        let first_block = from.try_get_u32_le()?;
        let len = from.try_get_u32_le()?;
        let start = from.try_get_u64_le()?;
        if first_block.checked_add(len).is_none_or(|end| end > BLOCKS_MAX) || start >= 1 << 48 {
            return Err(Bad::Other("an extent lies outside its chunk or the disk"));
        }
        let crcs = get_slice(from, len as usize * 4)?;
        let crcs =
            crcs.chunks_exact(4).map(|crc| u32::from_le_bytes(crc.try_into().expect("four bytes"))).collect();
        extents.push(Extent { first_block, start, crcs });
    }
    Ok(extents)
}

fn get_key(from: &mut &[u8]) -> Result<ChunkKey, Bad> {
    ChunkKey::decode(get_slice(from, ChunkKey::LEN)?).ok_or(Bad::Short)
}

fn get_bytes(from: &mut &[u8]) -> Result<Vec<u8>, Bad> {
    let len = from.try_get_u32_le()? as usize;
    Ok(get_slice(from, len)?.to_vec())
}

fn get_slice<'a>(from: &mut &'a [u8], len: usize) -> Result<&'a [u8], Bad> {
    let (slice, rest) = from.split_at_checked(len).ok_or(Bad::Short)?;
    *from = rest;
    Ok(slice)
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use coord_types::{DataId, GroupId};
    use proptest::prelude::*;

    fn version() -> impl Strategy<Value = Version> {
        (any::<u64>(), any::<u64>()).prop_map(|(epoch, counter)| Version { epoch: Epoch(epoch), counter })
    }

    fn extents() -> impl Strategy<Value = Vec<Extent>> {
        let extent = (0..BLOCKS_MAX - 40, 0_u64..1 << 48, proptest::collection::vec(any::<u32>(), 0..40));
        let extent = extent.prop_map(|(first_block, start, crcs)| Extent { first_block, start, crcs });
        proptest::collection::vec(extent, 0..4)
    }

    pub(crate) fn updates() -> impl Strategy<Value = Update> {
        let key = (any::<u32>(), any::<u64>(), any::<u32>());
        let key = key.prop_map(|(group, data, index)| ChunkKey::new(GroupId(group), DataId(data), index));
        let stamp = proptest::option::of(
            (any::<u64>(), any::<u64>())
                .prop_map(|(session, seq)| Stamp { session: SessionId(session), seq }),
        );
        let hole = proptest::option::of(
            (0..1000_u32, 0..1000_u32).prop_map(|(first_block, count)| BlockRange { first_block, count }),
        );
        let window = (any::<u64>(), any::<u64>(), any::<u64>())
            .prop_map(|(session, newest, seen)| WriterWindow { session: SessionId(session), newest, seen });
        prop_oneof![
            (key.clone(), version(), version(), any::<u32>(), stamp, hole, extents(), any::<bool>())
                .prop_map(|(key, expect, version, chunk_size_bytes, stamp, hole, extents, early)| {
                    Update::Write { key, expect, version, chunk_size_bytes, stamp, hole, extents, early }
                }),
            (key.clone(), version(), any::<u32>(), proptest::collection::vec(window, 0..5), extents())
                .prop_map(|(key, version, chunk_size_bytes, windows, extents)| Update::Install {
                    key,
                    version,
                    chunk_size_bytes,
                    windows,
                    extents
                }),
            key.prop_map(|key| Update::Remove { key }),
            (".{0,9}", proptest::collection::vec(any::<u8>(), 0..50))
                .prop_map(|(name, value)| Update::Setting { name, value }),
        ]
    }

    proptest! {
        #[test]
        fn come_back_as_written(update in updates()) {
            let mut out = Vec::new();
            update.encode(&mut out);
            prop_assert!(out.len() <= update.len_bytes());
            let mut from = out.as_slice();
            prop_assert_eq!(Update::decode(&mut from).unwrap(), update);
            prop_assert!(from.is_empty());
            for len in 0..out.len() {
                prop_assert!(Update::decode(&mut &out[..len]).is_err());
            }
        }

        #[test]
        fn decoder_survives_noise(noise in proptest::collection::vec(any::<u8>(), 0..200), kind in 0_u8..6) {
            let _ = Update::decode(&mut noise.as_slice());
            let mut with_kind = vec![kind];
            with_kind.extend(noise);
            let _ = Update::decode(&mut with_kind.as_slice());
        }
    }

    #[test]
    fn what_lies_outside_the_chunk_or_the_disk_is_refused() {
        let decode = |hole, extents| {
            let update = Update::Write {
                key: ChunkKey::new(GroupId(1), DataId(2), 3),
                expect: Version::NONE,
                version: Version { epoch: Epoch(1), counter: 1 },
                chunk_size_bytes: 64 << 20,
                stamp: None,
                hole,
                extents,
                early: false,
            };
            let mut out = Vec::new();
            update.encode(&mut out);
            Update::decode(&mut out.as_slice()).map(|decoded| assert_eq!(decoded, update))
        };
        let extent = |first_block, start| vec![Extent { first_block, start, crcs: vec![1] }];
        let hole = |first_block| Some(BlockRange { first_block, count: 1 });
        assert_eq!(decode(hole(BLOCKS_MAX - 1), extent(BLOCKS_MAX - 1, (1 << 48) - 1)), Ok(()));
        for outside in [BLOCKS_MAX, u32::MAX] {
            assert!(decode(hole(outside), Vec::new()).is_err());
            assert!(decode(None, extent(outside, 0)).is_err());
        }
        assert!(decode(None, extent(0, 1 << 48)).is_err());
    }

    #[test]
    fn unknown_flags_and_names_that_are_no_text_are_refused() {
        let key = ChunkKey::new(GroupId(1), DataId(2), 3);
        let (expect, version) = (Version::NONE, Version { epoch: Epoch(1), counter: 1 });
        let (stamp, hole, extents) = (None, None, Vec::new());
        let write =
            Update::Write { key, expect, version, chunk_size_bytes: 1, stamp, hole, extents, early: true };
        let mut out = Vec::new();
        write.encode(&mut out);
        let flags_at = 1 + ChunkKey::LEN + 2 * 16 + 4;
        assert_eq!(out[flags_at], 4);
        out[flags_at] |= 8;
        assert!(Update::decode(&mut out.as_slice()).is_err());
        let mut out = Vec::new();
        Update::Setting { name: "a".to_owned(), value: vec![1] }.encode(&mut out);
        out[5] = 0xff;
        assert!(Update::decode(&mut out.as_slice()).is_err());
    }
}
