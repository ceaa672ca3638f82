//! A simulated disk with its history: what every chunk was after each operation.

#![allow(dead_code, unreachable_pub, clippy::unwrap_used)] // Each test binary uses a part of it.

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::Bytes;
use chunkserver_engine::io::sim::{Medium, Power, SimDisk, SimKv};
use chunkserver_engine::{
    BufferPool, ChunkContents, Engine, EngineError, Geometry, OpenError, Parts, Piece, PunchOp, WriteOp,
    verify_parts,
};
use coord_kv::MemKv;
use coord_types::{BLOCK_SIZE, ChunkKey, DataId, Epoch, GroupId, SessionId, Stamp, Version};

pub const GROUP: GroupId = GroupId(7);
/// Small enough to be copied and compared often, large enough for writes that are not early (over 64 KiB).
pub const CHUNK: u32 = 256 << 10;

/// One operation of a test.
#[derive(Clone, Debug)]
pub enum TestOp {
    Write {
        chunk: u8,
        offset: u32,
        len: u32,
        seed: u8,
    },
    Punch {
        chunk: u8,
        offset: u32,
        len: u32,
    },
    /// Blocks written anew as they are; refused where there is a hole, or if something else is in flight.
    Heal {
        chunk: u8,
        first: u32,
        count: u32,
    },
    Install {
        chunk: u8,
        pieces: Vec<(u32, u32)>,
        seed: u8,
    },
    Remove {
        chunk: u8,
    },
    DeleteData {
        data: u8,
    },
    Setting {
        value: u8,
    },
}

/// A chunk at one moment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Snapshot {
    pub version: Version,
    pub bytes: Vec<u8>,
    /// Blocks that are not holes.
    pub mapped: Vec<bool>,
}

impl Snapshot {
    pub fn absent() -> Self {
        let blocks = CHUNK as usize / BLOCK_SIZE;
        Self { version: Version::NONE, bytes: vec![0; CHUNK as usize], mapped: vec![false; blocks] }
    }

    fn fill(&mut self, offset: usize, data: &[u8]) {
        self.bytes[offset..offset + data.len()].copy_from_slice(data);
        self.mapped[offset / BLOCK_SIZE..(offset + data.len()).div_ceil(BLOCK_SIZE)].fill(true);
    }

    fn punch(&mut self, offset: usize, len: usize) {
        self.bytes[offset..offset + len].fill(0);
        let (first, end) = (offset.div_ceil(BLOCK_SIZE), (offset + len) / BLOCK_SIZE);
        if first < end {
            self.mapped[first..end].fill(false);
        }
    }
}

/// What a chunk was after each operation given to it, and how far the engine confirmed.
#[derive(Clone, Debug)]
pub struct History {
    pub states: Vec<Snapshot>,
    /// The newest state that was confirmed.
    pub acknowledged: usize,
}

impl Default for History {
    fn default() -> Self {
        Self { states: vec![Snapshot::absent()], acknowledged: 0 }
    }
}

/// All chunks' histories.
#[derive(Clone, Debug, Default)]
pub struct Model {
    pub chunks: BTreeMap<ChunkKey, History>,
    pub settings: Vec<u8>,
    pub setting_acknowledged: usize,
    counter: u64,
}

/// A call for the engine, and where its confirmation is noted.
pub enum Call {
    Write(WriteOp),
    Punch(PunchOp),
    Heal { key: ChunkKey, version: Version, offset_bytes: u32, data: Bytes },
    Install(ChunkKey, ChunkContents),
    Remove(ChunkKey),
    DeleteData(DataId),
    Setting(u8),
}

/// What a call brings a chunk to.
pub type Effects = Vec<(ChunkKey, usize)>;

pub fn key(chunk: u8) -> ChunkKey {
    ChunkKey::new(GROUP, DataId(u64::from(chunk / 2)), u32::from(chunk % 2))
}

pub fn content(seed: u8, len: usize) -> Vec<u8> {
    let mut state = u32::from(seed).wrapping_mul(0x9E37_79B9) | 1;
    (0..len)
        .map(|_| {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            (state >> 24) as u8
        })
        .collect()
}

pub fn piece_crcs(offset: usize, data: &[u8]) -> Vec<u32> {
    let mut crcs = Vec::new();
    let mut at = 0;
    while at < data.len() {
        let len = (BLOCK_SIZE - (offset + at) % BLOCK_SIZE).min(data.len() - at);
        crcs.push(crc32c::crc32c(&data[at..at + len]));
        at += len;
    }
    crcs
}

impl Model {
    fn next_version(&mut self) -> Version {
        self.counter += 1;
        Version { epoch: Epoch(3), counter: self.counter }
    }

    fn stamp(&self) -> Option<Stamp> {
        Some(Stamp { session: SessionId(1), seq: self.counter })
    }

    fn push(&mut self, key: ChunkKey, change: impl FnOnce(&mut Snapshot)) -> (Version, Effects) {
        let history = self.chunks.entry(key).or_default();
        let mut state = history.states.last().expect("a history begins with a state").clone();
        let before = state.version;
        change(&mut state);
        history.states.push(state);
        (before, vec![(key, history.states.len() - 1)])
    }

    /// Notes the operation and says how to ask the engine for it.
    pub fn plan(&mut self, op: &TestOp) -> (Call, Effects) {
        match op {
            TestOp::Write { chunk, offset, len, seed } => {
                let key = key(*chunk);
                let data = content(*seed, *len as usize);
                let version = self.next_version();
                let (expect, effects) = self.push(key, |state| {
                    state.version = version;
                    state.fill(*offset as usize, &data);
                });
                let block_crcs = piece_crcs(*offset as usize, &data);
                let op = WriteOp {
                    key,
                    expect,
                    version,
                    offset_bytes: *offset,
                    data: Bytes::from(data),
                    block_crcs,
                    stamp: self.stamp(),
                    chunk_size_bytes: CHUNK,
                };
                (Call::Write(op), effects)
            }
            TestOp::Punch { chunk, offset, len } => {
                let key = key(*chunk);
                let version = self.next_version();
                let (expect, effects) = self.push(key, |state| {
                    state.version = version;
                    state.punch(*offset as usize, *len as usize);
                });
                let op = PunchOp {
                    key,
                    expect,
                    version,
                    offset_bytes: *offset,
                    len_bytes: *len,
                    stamp: self.stamp(),
                    chunk_size_bytes: CHUNK,
                };
                (Call::Punch(op), effects)
            }
            TestOp::Heal { chunk, first, count } => {
                let key = key(*chunk);
                let state = self.chunks.entry(key).or_default().states.last().expect("a history has a state");
                let at = *first as usize * BLOCK_SIZE;
                let data = Bytes::copy_from_slice(&state.bytes[at..at + *count as usize * BLOCK_SIZE]);
                let offset_bytes = first * BLOCK_SIZE as u32;
                (Call::Heal { key, version: state.version, offset_bytes, data }, Vec::new())
            }
            TestOp::Install { chunk, pieces, seed } => {
                let key = key(*chunk);
                let version = self.next_version();
                let pieces: Vec<Piece> = pieces
                    .iter()
                    .map(|(first, count)| {
                        let data = content(*seed ^ *first as u8, *count as usize * BLOCK_SIZE);
                        let crcs = piece_crcs(0, &data);
                        Piece::new(key, first * BLOCK_SIZE as u32, data.into(), crcs)
                            .expect("it is whole blocks")
                    })
                    .collect();
                let (_, effects) = self.push(key, |state| {
                    *state = Snapshot { version, ..Snapshot::absent() };
                    for piece in &pieces {
                        state.fill(piece.offset_bytes() as usize, piece.data());
                    }
                });
                let contents =
                    ChunkContents { version, windows: Vec::new(), chunk_size_bytes: CHUNK, pieces };
                (Call::Install(key, contents), effects)
            }
            TestOp::Remove { chunk } => {
                let (_, effects) = self.push(key(*chunk), |state| *state = Snapshot::absent());
                (Call::Remove(key(*chunk)), effects)
            }
            TestOp::DeleteData { data } => {
                let mut effects = Vec::new();
                for chunk in [data * 2, data * 2 + 1] {
                    effects.extend(self.push(key(chunk), |state| *state = Snapshot::absent()).1);
                }
                (Call::DeleteData(DataId(u64::from(*data))), effects)
            }
            TestOp::Setting { value } => {
                self.settings.push(*value);
                (Call::Setting(*value), Vec::new())
            }
        }
    }

    pub fn acknowledge(&mut self, effects: &Effects) {
        for (key, state) in effects {
            let history = self.chunks.get_mut(key).expect("planned");
            history.acknowledged = history.acknowledged.max(*state);
        }
    }

    /// The operation was refused whole: the chunk stays what it was. Only for operations run one at a time.
    pub fn take_back(&mut self, effects: &Effects) {
        for (key, state) in effects {
            let history = self.chunks.get_mut(key).expect("planned");
            assert_eq!(history.states.len() - 1, *state);
            history.states.pop();
        }
    }
}

pub async fn call(engine: &Engine, call: Call) -> Result<(), EngineError> {
    match call {
        Call::Write(op) => engine.write(op).await.map(drop),
        Call::Punch(op) => engine.punch(op).await.map(drop),
        Call::Heal { key, version, offset_bytes, data } => {
            match engine.heal(key, version, offset_bytes, data).await {
                Err(
                    EngineError::VersionMismatch { .. }
                    | EngineError::PayloadChecksum { .. }
                    | EngineError::Invalid { .. },
                ) => Ok(()),
                other => other,
            }
        }
        Call::Install(key, contents) => engine.install(key, contents).await,
        Call::Remove(key) => engine.remove(key).await,
        Call::DeleteData(data) => engine.delete_data(&[(GROUP, data)]).await,
        Call::Setting(value) => engine.put_setting("answer", &[value]).await,
    }
}

/// Medium, store and sizes: what survives a power cut.
#[derive(Clone, Debug)]
pub struct World {
    pub medium: Medium,
    pub kv: Arc<MemKv>,
    pub geometry: Geometry,
    pub pool: Arc<BufferPool>,
}

impl World {
    /// 16 MiB of data in four segments and a journal of a few frames, so that it wraps all the time.
    pub fn new() -> Self {
        Self::sized(Geometry {
            uuid: [5; 16],
            capacity_blocks: 4096,
            segment_blocks: 1024,
            journal_bytes: 64 << 10,
        })
    }

    pub fn sized(geometry: Geometry) -> Self {
        let kv = Arc::new(MemKv::new());
        Parts::format_kv(&*kv).unwrap();
        Self { medium: Medium::new(geometry.journal_bytes), kv, geometry, pool: BufferPool::new(2 << 20) }
    }

    /// Parts for one life of the machine.
    pub fn parts(&self, power: &Arc<Power>, seed: u64) -> (Parts, Arc<SimDisk>) {
        let disk = SimDisk::start(&self.medium, power, seed);
        let parts = Parts {
            io: disk.clone(),
            kv: Arc::new(SimKv::new(&self.kv, power)),
            geometry: self.geometry,
            pool: self.pool.clone(),
            // A few records only: look-ups that miss are part of the test.
            cache_bytes: 20_000,
            inline_flush: true,
        };
        (parts, disk)
    }

    pub async fn boot(&self) -> Result<(Engine, Arc<SimDisk>), OpenError> {
        let (parts, disk) = self.parts(&Power::new(None), 1);
        Ok((Engine::on(parts).await?, disk))
    }

    /// The offline check, which must find nothing.
    pub async fn assert_clean(&self) {
        let (parts, _disk) = self.parts(&Power::new(None), 1);
        let report = verify_parts(&parts, &mut |_| {}).await;
        assert!(report.is_clean(), "{report}");
    }
}

/// What the engine says a chunk is, read in two ways.
pub async fn observe(engine: &Engine, key: ChunkKey) -> Snapshot {
    let mut snapshot = Snapshot::absent();
    let whole = engine.read(key, 0, CHUNK).await.unwrap();
    snapshot.version = whole.version;
    if whole.hole {
        assert!(whole.data.is_empty());
    } else {
        snapshot.bytes = whole.data.to_vec();
        for (block, crc) in whole.data.chunks(BLOCK_SIZE).zip(&whole.block_crcs) {
            assert_eq!(crc32c::crc32c(block), *crc);
        }
    }
    for (offset, len) in engine.map(key).unwrap() {
        let (offset, len) = (offset as usize, len as usize);
        snapshot.mapped[offset / BLOCK_SIZE..(offset + len) / BLOCK_SIZE].fill(true);
    }
    let meta = engine.stat(key).unwrap();
    assert_eq!(meta.as_ref().map_or(Version::NONE, |meta| meta.version), snapshot.version);
    let allocated = snapshot.mapped.iter().filter(|mapped| **mapped).count() * BLOCK_SIZE;
    assert_eq!(meta.map_or(0, |meta| meta.allocated_bytes), allocated as u64);
    snapshot
}

/// No block is lost: what is used is what chunks hold (and what is being written in advance, at most one step).
pub fn assert_no_leak(engine: &Engine, observed: &BTreeMap<ChunkKey, Snapshot>) {
    let held: usize =
        observed.values().map(|state| state.mapped.iter().filter(|mapped| **mapped).count()).sum();
    let used = engine.usage().used_bytes / BLOCK_SIZE as u64;
    assert!(used >= held as u64 && used <= held as u64 + 64, "{used} blocks in use, chunks hold {held}");
}
