//! Dirty pieces against a plain array of bytes: nothing is lost, nothing is sent twice at once.

use proptest::prelude::*;

use super::*;

struct World {
    dirty: Dirty,
    memory: Arc<Memory>,
    model: BTreeMap<u64, u8>,
    seq: u64,
}

impl World {
    fn new() -> Self {
        Self { dirty: Dirty::default(), memory: Memory::new(64 << 20), model: BTreeMap::new(), seq: 0 }
    }

    fn write(&mut self, offset: u64, data: &[u8]) {
        let mut reservation = self.memory.try_reserve(self.dirty.cost(offset, data.len())).unwrap();
        self.seq += 1;
        self.dirty.write((offset, self.seq), data, &self.memory, &mut reservation);
        for (at, byte) in (offset..).zip(data) {
            self.model.insert(at, *byte);
        }
    }

    /// Everything written is there, nothing else, and checksums are those of the bytes.
    fn check_and_empty(mut self) {
        assert_eq!(self.dirty.bytes(), self.model.len() as u64);
        self.dirty.hurry(0, u64::MAX);
        let mut previous_end = None;
        while let Some(sealed) = self.dirty.take_ready(|_, _| true) {
            assert_eq!(piece_of(sealed.start), piece_of(sealed.end_exclusive() - 1));
            if let Some(previous) = previous_end {
                assert!(sealed.start > previous || sealed.start == piece_of(sealed.start));
            }
            previous_end = Some(sealed.end_exclusive());
            let chunk_offset = u32::try_from(sealed.start % (8 << 20)).unwrap();
            assert_eq!(sealed.block_crcs, chunkserver_api::checksum::piece_crcs(chunk_offset, &sealed.data));
            for (at, byte) in (sealed.start..).zip(&sealed.data) {
                assert_eq!(self.model.remove(&at), Some(*byte), "at {at}");
            }
        }
        assert!(self.model.is_empty());
        assert_eq!(self.memory.free_bytes(), 64 << 20);
    }
}

#[test]
fn a_stream_is_one_write_a_piece_and_one_copy() {
    let mut world = World::new();
    world.write(0, &vec![1; WRITE_SIZE_MAX]);
    assert!(world.dirty.has_ready());
    assert_eq!(world.memory.free_bytes(), 63 << 20);
    let sealed = world.dirty.take_ready(|_, _| true).unwrap();
    assert_eq!((sealed.start, sealed.data.len(), sealed.block_crcs.len()), (0, WRITE_SIZE_MAX, 256));
    assert_eq!(sealed.data.as_ptr().align_offset(BLOCK_SIZE), 0);
}

#[test]
fn small_files_take_small_buffers_and_small_writes_grow_twice() {
    let mut world = World::new();
    world.write(0, b"hello");
    assert_eq!(world.memory.free_bytes(), (64 << 20) - BLOCK_SIZE as u64);
    assert!(!world.dirty.has_ready());
    for at in (4096..PIECE).step_by(4096) {
        assert!(!world.dirty.has_ready());
        world.write(at - 4096, &[7; 4096]);
    }
    world.write(PIECE - 4096, &[8; 4096]);
    assert!(world.dirty.has_ready(), "full");
    assert_eq!(world.memory.free_bytes(), 63 << 20);
    world.check_and_empty();
}

#[test]
fn a_busy_range_holds_only_its_own_segments_back() {
    let mut world = World::new();
    world.write(0, &[1; 10]);
    world.write(100, &[2; 10]);
    world.dirty.hurry(0, 200);
    let sealed = world.dirty.take_ready(|start, _| start >= 50).unwrap();
    assert_eq!(sealed.start, 100);
    assert!(world.dirty.take_ready(|start, _| start >= 50).is_none());
    assert_eq!(world.dirty.oldest(), Some(1));
}

#[derive(Clone, Debug)]
enum Step {
    Write { offset: u64, len: usize, fill: u8 },
    Truncate(u64),
    Look { offset: u64, len: u64 },
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let offset = prop_oneof![0..20_000u64, PIECE - 9_000..PIECE + 9_000, (0..6u64).prop_map(|n| n * 4096)];
    let len = prop_oneof![1..200usize, 4_000..9_000usize, Just(4096usize), 60_000..80_000usize];
    let step = prop_oneof![
        6 => (offset.clone(), len, any::<u8>()).prop_map(|(offset, len, fill)| Step::Write { offset, len, fill }),
        1 => offset.clone().prop_map(Step::Truncate),
        2 => (offset, 1..10_000u64).prop_map(|(offset, len)| Step::Look { offset, len }),
    ];
    proptest::collection::vec(step, 1..30)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]
    #[test]
    fn holds_what_was_written_and_nothing_else(steps in steps()) {
        let mut world = World::new();
        for step in steps {
            match step {
                Step::Write { offset, len, fill } => {
                    let data: Vec<u8> = (0..len).map(|i| fill.wrapping_add(i as u8)).collect();
                    world.write(offset, &data);
                }
                Step::Truncate(size) => {
                    world.dirty.truncate(size);
                    world.model.split_off(&size);
                }
                Step::Look { offset, len } => {
                    let expected = world.model.range(offset..offset + len).next();
                    let found = world.dirty.next_in(offset, offset + len);
                    prop_assert_eq!(expected.map(|(at, _)| *at), found.map(|s| s.start().max(offset)));
                    if let (Some((at, byte)), Some(segment)) = (expected, found) {
                        prop_assert_eq!(*byte, segment.slice(*at, *at + 1)[0]);
                    }
                }
            }
        }
        world.check_and_empty();
    }
}
