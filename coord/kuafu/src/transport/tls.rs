//! TLS between the protocol and a TCP socket: the session is rustls', which has no IO, under one lock that both halves take
//! while they en- or decrypt. Reading takes it after the socket gave bytes and writing over a write that does not wait, so
//! whoever waits for it waits for some 100 µs at most.
//!
//! Bounds: [`RECEIVED_MAX`] of what came and is not decrypted, one record that is and was not taken, [`SENDING_MAX`] of what is
//! encrypted and was not written.
//!
//! An end of the stream without a goodbye (`close_notify`) is an end like any other, as it is without TLS: a frame has a
//! length, a call has an answer, and no meaning lies in how a connection ends.

use std::io::{self, IoSlice, Write};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use parking_lot::Mutex;
use rustls::Connection;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};

/// Read from the socket at once: four records of the longest kind.
const RECEIVED_MAX: usize = 4 * (16 << 10) + 512;
/// Encrypted ahead of the socket: enough for long writes, and it stays in the cache.
const SENDING_MAX: usize = 256 << 10;

type Session = Arc<Mutex<Connection>>;

/// A socket whose handshake is over.
pub(crate) fn split(stream: TcpStream, mut session: Connection) -> (Reader, Writer) {
    session.set_buffer_limit(Some(SENDING_MAX));
    let session = Arc::new(Mutex::new(session));
    let (read, write) = stream.into_split();
    let received = vec![0; RECEIVED_MAX].into_boxed_slice();
    let reader = Reader { half: read, session: Arc::clone(&session), received, start: 0, end: 0 };
    (reader, Writer { half: write, session })
}

/// Owned by the connection's task.
#[derive(Debug)]
pub(crate) struct Reader {
    half: OwnedReadHalf,
    session: Session,
    /// `received[start..end]` came and was not handed to the session yet.
    received: Box<[u8]>,
    start: usize,
    end: usize,
}

impl Reader {
    /// As [`AsyncRead::poll_read`].
    pub(crate) fn poll_read(&mut self, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        loop {
            if self.decrypt(buf)? {
                return Poll::Ready(Ok(()));
            }
            let mut room = ReadBuf::new(&mut self.received);
            ready!(Pin::new(&mut self.half).poll_read(cx, &mut room))?;
            (self.start, self.end) = (0, room.filled().len());
            if self.end == 0 {
                return Poll::Ready(Ok(()));
            }
        }
    }

    /// Fills `buf` with what is there. False: there is nothing, and more has to come.
    fn decrypt(&mut self, buf: &mut ReadBuf<'_>) -> io::Result<bool> {
        let before = buf.filled().len();
        let mut session = self.session.lock();
        loop {
            let Some(chunk) = next_chunk(&mut session, buf)? else {
                // The peer said goodbye.
                return Ok(true);
            };
            if buf.remaining() == 0 {
                return Ok(true);
            }
            if chunk == 0 {
                if self.start == self.end {
                    return Ok(buf.filled().len() > before);
                }
                let mut unread = &self.received[self.start..self.end];
                let taken = session.read_tls(&mut unread)?;
                if taken == 0 {
                    return Ok(true);
                }
                self.start += taken;
                if let Err(error) = session.process_new_packets() {
                    tracing::debug!(%error, "a peer breaks TLS");
                    // So that the peer can say why, if the socket takes it. The connection ends in any case.
                    let _ = session.write_tls(&mut Now(self.half.as_ref()));
                    return Err(io::Error::new(io::ErrorKind::InvalidData, error));
                }
            }
        }
    }
}

/// Copies from the session what it has decrypted: so many bytes; 0: none is there; `None`: none will come.
fn next_chunk(session: &mut Connection, buf: &mut ReadBuf<'_>) -> io::Result<Option<usize>> {
    let mut reader = session.reader();
    let chunk = match io::BufRead::fill_buf(&mut reader) {
        Ok([]) => return Ok(None),
        Ok(chunk) => chunk,
        Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(Some(0)),
        Err(error) => return Err(error),
    };
    let n = chunk.len().min(buf.remaining());
    buf.put_slice(&chunk[..n]);
    io::BufRead::consume(&mut reader, n);
    Ok(Some(n))
}

/// Any thread may write, under the connection's lock.
#[derive(Debug)]
pub(crate) struct Writer {
    half: OwnedWriteHalf,
    session: Session,
}

impl Writer {
    /// Takes bytes if those before are written. What is taken is encrypted, but written only as far as the socket goes now.
    pub(crate) fn try_write(&self, slices: &[IoSlice<'_>]) -> io::Result<usize> {
        let mut socket = Now(self.half.as_ref());
        write(&mut self.session.lock(), &mut socket, slices)
    }

    /// The same; if it takes nothing, the task is woken when it does.
    pub(crate) fn poll_write(
        &mut self,
        cx: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let mut socket = Later { half: &mut self.half, cx };
        or_pending(write(&mut self.session.lock(), &mut socket, slices))
    }

    /// Writes what was taken.
    pub(crate) fn try_flush(&self) -> io::Result<()> {
        flush(&mut self.session.lock(), &mut Now(self.half.as_ref()))
    }

    /// The same; if something is left, the task is woken when more can be written.
    pub(crate) fn poll_flush(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        or_pending(flush(&mut self.session.lock(), &mut Later { half: &mut self.half, cx }))
    }

    /// Whether all that was taken is written.
    pub(crate) fn is_flushed(&self) -> bool {
        !self.session.lock().wants_write()
    }
}

fn write(session: &mut Connection, socket: &mut dyn Write, slices: &[IoSlice<'_>]) -> io::Result<usize> {
    flush(session, socket)?;
    let taken = session.writer().write_vectored(slices)?;
    match flush(session, socket) {
        // They are taken: the next write or flush goes on.
        Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(taken),
        result => result.map(|()| taken),
    }
}

fn flush(session: &mut Connection, socket: &mut dyn Write) -> io::Result<()> {
    while session.wants_write() {
        if session.write_tls(socket)? == 0 {
            return Err(io::ErrorKind::WriteZero.into());
        }
    }
    Ok(())
}

fn or_pending<T>(result: io::Result<T>) -> Poll<io::Result<T>> {
    match result {
        Err(error) if error.kind() == io::ErrorKind::WouldBlock => Poll::Pending,
        result => Poll::Ready(result),
    }
}

/// A socket that is tried, and says WouldBlock.
struct Now<'a>(&'a TcpStream);

impl Write for Now<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.try_write(bytes)
    }

    fn write_vectored(&mut self, slices: &[IoSlice<'_>]) -> io::Result<usize> {
        self.0.try_write_vectored(slices)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// The same, which wakes the task when it would not block any more.
struct Later<'a, 'b> {
    half: &'a mut OwnedWriteHalf,
    cx: &'a mut Context<'b>,
}

impl Later<'_, '_> {
    fn now<T>(result: Poll<io::Result<T>>) -> io::Result<T> {
        match result {
            Poll::Ready(result) => result,
            Poll::Pending => Err(io::ErrorKind::WouldBlock.into()),
        }
    }
}

impl Write for Later<'_, '_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        Self::now(Pin::new(&mut *self.half).poll_write(self.cx, bytes))
    }

    fn write_vectored(&mut self, slices: &[IoSlice<'_>]) -> io::Result<usize> {
        Self::now(Pin::new(&mut *self.half).poll_write_vectored(self.cx, slices))
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
