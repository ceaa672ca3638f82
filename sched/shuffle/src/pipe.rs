//! Our ends of pipes to and from a program. They never block for longer than a tick, so that cancelling works whatever
//! the program does.

use std::io;
use std::ops::ControlFlow;
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;

use nix::errno::Errno;
use nix::fcntl::{FcntlArg, OFlag, fcntl};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

use crate::control::Control;
use crate::error::{Error, Result};

/// How long to wait for a pipe before looking whether the caller has cancelled.
const TICK_MS: u16 = 50;
/// Asked of the kernel for each pipe: fewer switches between us and the program. The default of 64 KiB works as well.
const PIPE_BYTES: i32 = 1 << 20;
/// What is gathered before it is written to a pipe.
const GATHER_BYTES: usize = 128 << 10;

/// Makes a pipe: (the end that is read, the end that is written). Neither is inherited unless somebody arranges it.
pub(crate) fn new() -> io::Result<(OwnedFd, OwnedFd)> {
    let (read, write) = nix::unistd::pipe2(OFlag::O_CLOEXEC)?;
    // An unprivileged user may have used up their allowance; then the pipe stays as it is.
    fcntl(&write, FcntlArg::F_SETPIPE_SZ(PIPE_BYTES)).ok();
    Ok((read, write))
}

/// Makes our end return at once. The program's end is another open file, and stays as programs expect it.
fn non_blocking(fd: &OwnedFd) -> io::Result<()> {
    fcntl(fd, FcntlArg::F_SETFL(OFlag::O_NONBLOCK))?;
    Ok(())
}

fn wait(fd: &OwnedFd, events: PollFlags, control: &Control<'_>) -> Result<std::result::Result<(), Errno>> {
    control.check()?;
    match poll(&mut [PollFd::new(fd.as_fd(), events)], PollTimeout::from(TICK_MS)) {
        Ok(_) | Err(Errno::EINTR) => Ok(Ok(())),
        Err(e) => Ok(Err(e)),
    }
}

/// Writes to a program.
pub(crate) struct PipeWriter<'a> {
    fd: OwnedFd,
    program: &'a Path,
    control: &'a Control<'a>,
    gathered: Vec<u8>,
}

impl<'a> PipeWriter<'a> {
    pub(crate) fn new(fd: OwnedFd, program: &'a Path, control: &'a Control<'a>) -> io::Result<Self> {
        non_blocking(&fd)?;
        Ok(Self { fd, program, control, gathered: Vec::with_capacity(GATHER_BYTES) })
    }

    /// Breaks when the program reads no more, which is its right.
    #[inline]
    pub(crate) fn put(&mut self, bytes: &[u8]) -> Result<ControlFlow<()>> {
        if self.gathered.len() + bytes.len() <= GATHER_BYTES {
            self.gathered.extend_from_slice(bytes);
            return Ok(ControlFlow::Continue(()));
        }
        if self.flush()?.is_break() {
            return Ok(ControlFlow::Break(()));
        }
        if bytes.len() >= GATHER_BYTES {
            return self.write(bytes);
        }
        self.gathered.extend_from_slice(bytes);
        Ok(ControlFlow::Continue(()))
    }

    /// Writes what was gathered.
    pub(crate) fn flush(&mut self) -> Result<ControlFlow<()>> {
        let mut gathered = std::mem::take(&mut self.gathered);
        let flow = self.write(&gathered);
        gathered.clear();
        self.gathered = gathered;
        flow
    }

    fn write(&mut self, mut bytes: &[u8]) -> Result<ControlFlow<()>> {
        while !bytes.is_empty() {
            match nix::unistd::write(&self.fd, bytes) {
                Ok(n) => bytes = &bytes[n..],
                Err(Errno::EPIPE) => return Ok(ControlFlow::Break(())),
                Err(Errno::EINTR) => {}
                Err(Errno::EAGAIN) => {
                    wait(&self.fd, PollFlags::POLLOUT, self.control)?.map_err(|e| self.error(e))?
                }
                Err(e) => return Err(self.error(e)),
            }
        }
        Ok(ControlFlow::Continue(()))
    }

    fn error(&self, e: Errno) -> Error {
        Error::Pipe { program: self.program.to_path_buf(), source: e.into() }
    }
}

/// Reads from a program.
pub(crate) struct PipeReader<'a> {
    fd: OwnedFd,
    program: &'a Path,
    control: &'a Control<'a>,
    buffer: Vec<u8>,
}

impl<'a> PipeReader<'a> {
    pub(crate) fn new(
        fd: OwnedFd,
        program: &'a Path,
        control: &'a Control<'a>,
        block_bytes: usize,
    ) -> io::Result<Self> {
        non_blocking(&fd)?;
        Ok(Self { fd, program, control, buffer: vec![0; block_bytes] })
    }

    /// The next bytes, at most a block; none at the end.
    pub(crate) fn read(&mut self) -> Result<&[u8]> {
        loop {
            self.control.check()?;
            match nix::unistd::read(&self.fd, &mut self.buffer) {
                Ok(n) => return Ok(&self.buffer[..n]),
                Err(Errno::EINTR) => {}
                Err(Errno::EAGAIN) => {
                    wait(&self.fd, PollFlags::POLLIN, self.control)?.map_err(|e| self.error(e))?
                }
                Err(e) => return Err(self.error(e)),
            }
        }
    }

    fn error(&self, e: Errno) -> Error {
        Error::Pipe { program: self.program.to_path_buf(), source: e.into() }
    }
}
