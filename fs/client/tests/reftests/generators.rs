//! Random operations. They name things by small numbers; what a number means depends on the state it meets.

use proptest::prelude::*;

/// Which of the model's directories: the root, or one of two in it.
pub(crate) type Dir = usize;
/// Which of a few names.
pub(crate) type Name = usize;

#[derive(Clone, Copy, Debug)]
pub(crate) struct Spot {
    pub(crate) dir: Dir,
    pub(crate) name: Name,
}

#[derive(Clone, Debug)]
pub(crate) enum Step {
    Create {
        spot: Spot,
        exclusive: bool,
        truncate: bool,
        access: i32,
    },
    Open {
        spot: Spot,
        truncate: bool,
        access: i32,
        through: i32,
    },
    /// `sending`: what was written before is put into flight first, and not waited for.
    Write {
        handle: usize,
        offset: u64,
        len: usize,
        fill: u8,
        sending: bool,
    },
    Read {
        handle: usize,
        offset: u64,
        len: u32,
    },
    Truncate {
        handle: usize,
        size: u64,
    },
    TruncatePath {
        spot: Spot,
        size: u64,
    },
    Fallocate {
        handle: usize,
        offset: u64,
        len: u64,
        mode: i32,
    },
    Seek {
        handle: usize,
        offset: u64,
    },
    Fsync {
        handle: usize,
        data_only: bool,
    },
    /// Asks for fsync and gives up after so many polls.
    Interrupted {
        handle: usize,
        polls: usize,
    },
    Close {
        handle: usize,
    },
    Rename {
        from: Spot,
        to: Spot,
        flags: u32,
    },
    Link {
        from: Spot,
        to: Spot,
    },
    Unlink {
        spot: Spot,
    },
    Mkdir {
        dir: Dir,
    },
    Rmdir {
        dir: Dir,
    },
    Chmod {
        spot: Spot,
        mode: u32,
    },
    Utimes {
        spot: Spot,
        seconds: u32,
    },
    ReadDir {
        dir: Dir,
    },
    Rest {
        times: usize,
    },
    Crash,
    Remount,
}

fn spot() -> impl Strategy<Value = Spot> + Clone {
    (prop_oneof![3 => Just(0usize), 1 => 1..3usize], 0..4usize).prop_map(|(dir, name)| Spot { dir, name })
}

fn offset() -> impl Strategy<Value = u64> + Clone {
    prop_oneof![
        10 => 0..20_000u64,
        5 => (0..8u64).prop_map(|block| block * 4096),
        3 => (1 << 20) - 10_000..(1 << 20) + 10_000u64,
        1 => (8 << 20) - 6_000..(8 << 20) + 6_000u64,
    ]
}

fn access() -> impl Strategy<Value = i32> + Clone {
    prop_oneof![1 => Just(libc::O_RDONLY), 2 => Just(libc::O_WRONLY), 5 => Just(libc::O_RDWR)]
}

fn step() -> impl Strategy<Value = Step> {
    let handle = 0..6usize;
    let len = prop_oneof![4 => 1..9_000usize, 1 => Just(4096usize), 1 => 30_000..140_000usize];
    prop_oneof![
        8 => (spot(), any::<bool>(), any::<bool>(), access())
            .prop_map(|(spot, exclusive, truncate, access)| Step::Create { spot, exclusive, truncate, access }),
        8 => (spot(), prop::bool::weighted(0.2), access(), prop_oneof![
                4 => Just(0), 1 => Just(libc::O_DIRECT), 1 => Just(libc::O_SYNC), 1 => Just(libc::O_DSYNC)])
            .prop_map(|(spot, truncate, access, through)| Step::Open { spot, truncate, access, through }),
        30 => (handle.clone(), offset(), len, any::<u8>(), prop::bool::weighted(0.3)).prop_map(
            |(handle, offset, len, fill, sending)| Step::Write { handle, offset, len, fill, sending }),
        8 => (handle.clone(), offset(), 1..40_000u32)
            .prop_map(|(handle, offset, len)| Step::Read { handle, offset, len }),
        6 => (handle.clone(), offset()).prop_map(|(handle, size)| Step::Truncate { handle, size }),
        3 => (spot(), prop_oneof![Just(0), offset()])
            .prop_map(|(spot, size)| Step::TruncatePath { spot, size }),
        4 => (handle.clone(), offset(), 1..20_000u64, prop_oneof![
                Just(0),
                Just(libc::FALLOC_FL_KEEP_SIZE),
                Just(libc::FALLOC_FL_PUNCH_HOLE | libc::FALLOC_FL_KEEP_SIZE),
                Just(libc::FALLOC_FL_ZERO_RANGE),
                Just(libc::FALLOC_FL_ZERO_RANGE | libc::FALLOC_FL_KEEP_SIZE)])
            .prop_map(|(handle, offset, len, mode)| Step::Fallocate { handle, offset, len, mode }),
        2 => (handle.clone(), offset()).prop_map(|(handle, offset)| Step::Seek { handle, offset }),
        4 => (handle.clone(), any::<bool>()).prop_map(|(handle, data_only)| Step::Fsync { handle, data_only }),
        2 => (handle.clone(), 1..4usize).prop_map(|(handle, polls)| Step::Interrupted { handle, polls }),
        6 => handle.prop_map(|handle| Step::Close { handle }),
        4 => (spot(), spot(), 0..3u32).prop_map(|(from, to, flags)| Step::Rename { from, to, flags }),
        2 => (spot(), spot()).prop_map(|(from, to)| Step::Link { from, to }),
        4 => spot().prop_map(|spot| Step::Unlink { spot }),
        3 => (1..3usize).prop_map(|dir| Step::Mkdir { dir }),
        1 => (1..3usize).prop_map(|dir| Step::Rmdir { dir }),
        3 => (spot(), 0..0o7777u32).prop_map(|(spot, mode)| Step::Chmod { spot, mode }),
        3 => (spot(), any::<u32>()).prop_map(|(spot, seconds)| Step::Utimes { spot, seconds }),
        3 => (0..3usize).prop_map(|dir| Step::ReadDir { dir }),
        8 => (1..60usize).prop_map(|times| Step::Rest { times }),
        2 => Just(Step::Crash),
        1 => Just(Step::Remount),
    ]
}

pub(crate) fn steps(max: usize) -> impl Strategy<Value = Vec<Step>> {
    proptest::collection::vec(step(), 1..max)
}
