//! A few threads that read blocks for streams, so that several reads are in flight while records are being handled.
//!
//! A pool has as many threads as reads may be in flight; further requests wait in a bounded channel. A full channel
//! holds a stream up only until a thread takes a request: no thread ever waits for a stream.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{Builder, JoinHandle};

/// Reads in flight at once. Four keep a mount busy whose calls take 1 ms for 1 MiB; more only fight for two cores.
const READERS: usize = 4;
/// Requests that wait: enough for every input of a wide merge to have asked once without a switch of threads.
const QUEUED: usize = 64;

struct Request {
    file: Arc<File>,
    offset: u64,
    buffer: Vec<u8>,
    reply: SyncSender<io::Result<Vec<u8>>>,
}

/// The threads. They end when the pool is dropped.
pub(crate) struct Pool {
    requests: Option<SyncSender<Request>>,
    threads: Vec<JoinHandle<()>>,
}

impl Pool {
    pub(crate) fn new() -> io::Result<Self> {
        let (requests, queue) = sync_channel::<Request>(QUEUED);
        let queue = Arc::new(Mutex::new(queue));
        let mut pool = Self { requests: Some(requests), threads: Vec::with_capacity(READERS) };
        for _ in 0..READERS {
            let queue = Arc::clone(&queue);
            pool.threads.push(Builder::new().name("shuffle-read".into()).spawn(move || serve(&queue))?);
        }
        Ok(pool)
    }

    /// Reads `buffer.len()` bytes at `offset`; fewer before the end of the file is `UnexpectedEof`.
    pub(crate) fn read(
        &self,
        file: &Arc<File>,
        offset: u64,
        buffer: Vec<u8>,
    ) -> Receiver<io::Result<Vec<u8>>> {
        let (reply, answer) = sync_channel(1);
        if let Some(requests) = &self.requests {
            // If all threads have gone the sender of the reply is dropped with the request, which the stream sees.
            drop(requests.send(Request { file: Arc::clone(file), offset, buffer, reply }));
        }
        answer
    }
}

impl Drop for Pool {
    fn drop(&mut self) {
        self.requests = None;
        for thread in self.threads.drain(..) {
            drop(thread.join());
        }
    }
}

fn serve(queue: &Mutex<Receiver<Request>>) {
    loop {
        let request = queue.lock().unwrap_or_else(PoisonError::into_inner).recv();
        let Ok(Request { file, offset, mut buffer, reply }) = request else { return };
        let result = file.read_exact_at(&mut buffer, offset).map(|()| buffer);
        // A stream that was dropped wants no answer.
        drop(reply.send(result));
    }
}
