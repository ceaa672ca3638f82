//! Reading: what is buffered from the buffer, the rest from the chunkservers, cut at the end of the file.
//!
//! The buffered parts are taken first, all at one moment; what was not buffered then is durable at the chunkservers or
//! a hole, so the answer is the file at that moment (or newer, where a write overtook the read).
//!
//! A hole may also be data that is no more because another client truncated the file to nothing since we last asked
//! the master. Before a hole is answered as zeros, the master is asked whether the generation still is the file's (I8).

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;

use crate::client::Client;
use crate::handle::FileHandle;
use crate::inode::{Source, State};
use crate::inode_table::Pin;
use crate::stripe::Stripes;
use crate::write::flush::Depth;
use crate::{Errno, OpReply, OpResult};

/// How long a read waits for the master to say whether the file changed, before it goes on with what is known: while
/// masters elect a leader, readers of open files do not stand still.
const REFRESH_PATIENCE: Duration = Duration::from_millis(250);

/// Where bytes are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Place {
    Dirty,
    InFlight,
    /// At the chunkservers, or nowhere.
    Servers,
}

/// A range of the file and where its bytes are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Span {
    start: u64,
    end: u64,
    place: Place,
}

/// A part of the answer.
enum Part {
    Buffered(Bytes),
    /// [start, end), to be asked for.
    Missing(u64, u64),
}

impl State {
    /// Cuts [start, end) by where the newest bytes are.
    fn spans(&self, start: u64, end: u64) -> Vec<Span> {
        let mut spans = Vec::with_capacity(1);
        let mut at = start;
        while at < end {
            let dirty = self.dirty.next_in(at, end);
            // Dirty bytes are newer than what is in flight below them.
            let limit = dirty.map_or(end, |segment| segment.start()).min(end);
            let (upto, place) = match dirty {
                Some(segment) if segment.start() <= at => (segment.end_exclusive().min(end), Place::Dirty),
                _ => match self.flights.next_in(at, limit) {
                    Some((begin, bytes)) if begin <= at => {
                        ((begin + bytes.len() as u64).min(limit), Place::InFlight)
                    }
                    Some((begin, _)) => (begin, Place::Servers),
                    None => (limit, Place::Servers),
                },
            };
            spans.push(Span { start: at, end: upto, place });
            at = upto;
        }
        spans
    }

    /// The buffered bytes of a span; `None` if they are not here.
    fn buffered(&self, span: Span) -> Option<Bytes> {
        match span.place {
            Place::Dirty => {
                let segment = self.dirty.next_in(span.start, span.end)?;
                Some(Bytes::copy_from_slice(segment.slice(span.start, span.end)))
            }
            Place::InFlight => {
                let (begin, bytes) = self.flights.next_in(span.start, span.end)?;
                let offset = |at: u64| usize::try_from(at - begin).ok();
                Some(bytes.slice(offset(span.start)?..offset(span.end)?))
            }
            Place::Servers => None,
        }
    }

    /// What of a read there is, at this moment.
    fn spans_of_read(&self, offset: u64, len: u32) -> Vec<Span> {
        self.spans(offset, offset.saturating_add(u64::from(len)).min(self.size()))
    }

    fn stripes(&self) -> Option<Stripes> {
        Some(Stripes { layout: self.attr.layout.clone()?, data: self.attr.data })
    }
}

impl Client {
    /// Asks the master again if the attributes are too old to be believed.
    pub(crate) async fn refresh(&self, pin: &Pin) -> Result<(), Errno> {
        if pin.lock().is_fresh(self.config.ttl) {
            return Ok(());
        }
        match tokio::time::timeout(REFRESH_PATIENCE, self.ask(pin.ino)).await {
            Ok(answer) => {
                let attr = answer.map_err(gone)?;
                pin.lock().refresh(attr, Source::Question);
            }
            Err(_) => tracing::debug!(ino = %pin.ino, "no master answers; reading on with what is known"),
        }
        Ok(())
    }

    pub(crate) async fn read(self: &Arc<Self>, handle: &FileHandle, offset: u64, len: u32) -> OpResult {
        let pin = &handle.inode;
        self.refresh(pin).await?;
        if handle.direct {
            self.land(pin, offset, len).await;
        }
        loop {
            let (parts, stripes) = {
                let state = pin.lock();
                if state.gone {
                    return Err(Errno::EIO);
                }
                let parts: Vec<Part> = state
                    .spans_of_read(offset, len)
                    .into_iter()
                    .map(|span| {
                        let here = if handle.direct { None } else { state.buffered(span) };
                        here.map_or(Part::Missing(span.start, span.end), Part::Buffered)
                    })
                    .collect();
                (parts, state.stripes().ok_or(Errno::EINVAL)?)
            };
            let mut bytes = Vec::with_capacity(parts.len());
            let mut holes = false;
            for part in parts {
                match part {
                    Part::Buffered(part) => bytes.push(part),
                    Part::Missing(start, end) => {
                        let piece = stripes.read(&*self.chunks, start, end - start).await?;
                        holes |= piece.holes;
                        bytes.extend(piece.bytes);
                    }
                }
            }
            if holes && !self.still(pin, &stripes).await? {
                continue;
            }
            return Ok(OpReply::Data(bytes));
        }
    }

    /// Before a read with O_DIRECT, as on a local file system: what is buffered there goes to the chunkservers, and they
    /// alone are asked. A write in flight is not shown before it has landed: another mount would be shown the older bytes
    /// after this one the newer.
    async fn land(self: &Arc<Self>, pin: &Pin, offset: u64, len: u32) {
        let buffered = pin.lock().spans_of_read(offset, len).iter().any(|span| span.place != Place::Servers);
        if buffered {
            self.flush(pin, Depth::Data).await;
        }
    }

    /// Whether this still is the generation of the file's data.
    async fn still(&self, pin: &Pin, stripes: &Stripes) -> Result<bool, Errno> {
        {
            let state = pin.lock();
            // While we write the file we made, its generation is ours; an orphan has no other client.
            if state.orphan || (state.made_here && state.writers > 0) {
                return Ok(state.attr.data == stripes.data);
            }
        }
        let attr = self.ask(pin.ino).await.map_err(gone)?;
        let mut state = pin.lock();
        state.refresh(attr, Source::Question);
        Ok(state.attr.data == stripes.data)
    }

    /// A read that the buffer alone can answer.
    pub(crate) fn read_now(&self, handle: &FileHandle, offset: u64, len: u32) -> Option<OpResult> {
        let state = handle.inode.lock();
        if handle.direct
            || state.gone
            || !state.is_fresh(self.config.ttl)
            || (state.dirty.is_empty() && state.flights.is_empty())
        {
            return None;
        }
        let spans = state.spans_of_read(offset, len);
        let bytes = spans.into_iter().map(|span| state.buffered(span)).collect::<Option<_>>()?;
        Some(Ok(OpReply::Data(bytes)))
    }

    /// SEEK_DATA and SEEK_HOLE. Buffered data is data.
    pub(crate) async fn seek(&self, handle: &FileHandle, offset: u64, whence: i32) -> OpResult {
        let data = match whence {
            libc::SEEK_DATA => true,
            libc::SEEK_HOLE => false,
            _ => return Err(Errno::EINVAL),
        };
        let pin = &handle.inode;
        self.refresh(pin).await?;
        let (size, spans, stripes) = {
            let state = pin.lock();
            let size = state.size();
            if offset >= size {
                return Err(Errno::ENXIO);
            }
            (size, state.spans(offset, size), state.stripes().ok_or(Errno::EINVAL)?)
        };
        for Span { start, end, place } in spans {
            if place == Place::Servers {
                if let Some(found) = stripes.find(&*self.chunks, (start, end), data).await? {
                    return Ok(OpReply::Offset(found));
                }
            } else if data {
                return Ok(OpReply::Offset(start));
            }
        }
        if data { Err(Errno::ENXIO) } else { Ok(OpReply::Offset(size)) }
    }
}

/// The file of an open handle is no more: another client removed it.
fn gone(errno: Errno) -> Errno {
    if errno == Errno::ENOENT { Errno::ESTALE } else { errno }
}
