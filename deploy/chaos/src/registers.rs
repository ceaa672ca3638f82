//! Registers: files of one block, written around every cache and read so, from all mounts at once.
//!
//! A write with O_SYNC, O_DSYNC or O_DIRECT returns when every serving member has it, and a read with O_DIRECT asks one
//! of them (I1, I4): so each register must be linearizable, whoever asks and whatever happens to the servers.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::{FileExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use deploy_e2e::{Content, first_difference};
use rand::Rng as _;
use rand::rngs::StdRng;
use serde::Serialize;

use crate::crew::{Crew, Mounts};
use crate::linear::{Model, Operation};

const BLOCK: usize = 4096;
/// Few enough that operations meet, enough for several groups.
pub(crate) const REGISTERS: usize = 6;
const FOLDER: &str = "registers";

/// Values are numbers, each written once; 0 is there from the beginning.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub(crate) enum Access {
    Write(u64),
    Read(u64),
}

/// One register.
#[derive(Debug)]
pub(crate) struct Register;

impl Model for Register {
    type State = u64;
    type Action = Access;

    fn start(&self) -> u64 {
        0
    }

    fn step(&self, state: &u64, action: &Access) -> Option<u64> {
        match action {
            Access::Write(value) => Some(*value),
            Access::Read(value) => (value == state).then_some(*state),
        }
    }

    fn only_looks(&self, action: &Access) -> bool {
        matches!(action, Access::Read(_))
    }
}

/// The block that stands for a value.
fn block(register: usize, value: u64) -> Vec<u8> {
    let mut block = Content::new((register as u64) << 48 | value).bytes(BLOCK);
    block[..8].copy_from_slice(&value.to_le_bytes());
    block
}

/// The value a block stands for; in words, if it stands for none.
fn value(register: usize, got: &[u8]) -> Result<u64, String> {
    let Some(number) = got.first_chunk() else { return Err(format!("{} bytes", got.len())) };
    let value = u64::from_le_bytes(*number);
    match first_difference(got, &block(register, value)) {
        None => Ok(value),
        Some(difference) => Err(format!("register {register}: neither whole nor another's: {difference}")),
    }
}

fn path(mount: &Path, register: usize) -> PathBuf {
    mount.join(FOLDER).join(format!("r{register}"))
}

/// Makes them, with value 0.
pub(crate) fn make(mount: &Path) -> io::Result<()> {
    std::fs::create_dir(mount.join(FOLDER))?;
    for register in 0..REGISTERS {
        let file = OpenOptions::new().write(true).create_new(true).open(path(mount, register))?;
        file.write_all_at(&block(register, 0), 0)?;
        file.sync_all()?;
    }
    Ok(())
}

fn read(mount: &Path, register: usize, flags: i32) -> io::Result<Vec<u8>> {
    let writable = flags & libc::O_RDWR != 0;
    let file = OpenOptions::new()
        .read(true)
        .write(writable)
        .custom_flags(libc::O_DIRECT)
        .open(path(mount, register))?;
    let mut got = vec![0; BLOCK];
    let length = file.read_at(&mut got, 0)?;
    got.truncate(length);
    Ok(got)
}

fn write(mount: &Path, register: usize, flags: i32, block: &[u8]) -> io::Result<()> {
    let readable = flags & libc::O_RDWR != 0;
    let open =
        |flags| OpenOptions::new().read(readable).write(true).custom_flags(flags).open(path(mount, register));
    let file: File = open(flags & !libc::O_RDWR)?;
    match file.write_at(block, 0)? {
        BLOCK => Ok(()),
        short => Err(io::Error::other(format!("{short} of {BLOCK} bytes written"))),
    }
}

/// A worker: reads and writes until it is told to stop; answers which register each operation was of.
pub(crate) fn work(
    crew: &Crew,
    mounts: &Mounts,
    worker: usize,
    mut dice: StdRng,
) -> Vec<(usize, Operation<Access>)> {
    let mount = mounts.of(worker);
    let mut history = Vec::new();
    while crew.goes_on() {
        let register = dice.random_range(0..REGISTERS);
        let both = if dice.random_bool(0.3) { libc::O_RDWR } else { 0 };
        let done = if dice.random_bool(0.45) {
            let number = crew.number();
            let through = [libc::O_SYNC, libc::O_DSYNC, libc::O_DIRECT][dice.random_range(0..3)];
            let block = block(register, number);
            let (span, done) =
                crew.attempt("write a register", || write(mount, register, both | through, &block));
            Some(Operation {
                worker,
                action: Access::Write(number),
                called_ns: span.called_ns,
                returned_ns: done.is_ok().then_some(span.returned_ns),
            })
        } else {
            let (span, done) = crew.attempt("read a register", || read(mount, register, both));
            observe(crew, worker, register, span, done)
        };
        history.extend(done.map(|operation| (register, operation)));
        crew.breathe(&mut dice);
    }
    history
}

fn observe(
    crew: &Crew,
    worker: usize,
    register: usize,
    span: crate::crew::Span,
    got: io::Result<Vec<u8>>,
) -> Option<Operation<Access>> {
    match value(register, &got.ok()?) {
        Ok(value) => Some(Operation {
            worker,
            action: Access::Read(value),
            called_ns: span.called_ns,
            returned_ns: Some(span.returned_ns),
        }),
        Err(wrong) => {
            crew.wrong(wrong);
            None
        }
    }
}

/// What every register holds, as this mount has it.
pub(crate) fn read_all(crew: &Crew, mount: &Path, worker: usize) -> Vec<(usize, Operation<Access>)> {
    let read = |register| {
        let (span, got) = crew.attempt("read a register at the end", || read(mount, register, 0));
        Some((register, observe(crew, worker, register, span, got)?))
    };
    (0..REGISTERS).filter_map(read).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_block_stands_for_its_value_and_a_torn_one_for_none() {
        let (old, new) = (block(3, 7), block(3, 8));
        assert_eq!(value(3, &old), Ok(7));
        let torn = [&new[..2048], &old[2048..]].concat();
        assert!(value(3, &torn).is_err());
        assert!(value(2, &old).is_err(), "another register's");
        assert!(value(3, &old[..100]).is_err());
        assert!(value(3, &[0; BLOCK]).is_err(), "zeros were never written");
    }

    #[test]
    fn registers_keep_what_is_written() {
        let folder = tempfile::tempdir().unwrap();
        make(folder.path()).unwrap();
        let got = std::fs::read(path(folder.path(), 2)).unwrap();
        assert_eq!(value(2, &got), Ok(0));
        write(folder.path(), 2, libc::O_SYNC | libc::O_RDWR, &block(2, 5)).unwrap();
        assert_eq!(value(2, &std::fs::read(path(folder.path(), 2)).unwrap()), Ok(5));
    }
}
