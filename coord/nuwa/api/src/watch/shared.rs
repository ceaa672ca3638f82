//! Watchers of one client that wait for the same path from the same place are one call: a member tells each of its clients of a
//! change once, however many of its watchers want to know.
//!
//! Nobody owns such a call. It goes on as long as one of those who wait for it does, and the answer is for all of them: it
//! depends on nothing but the path and the place.

use std::collections::HashMap;
use std::fmt;
use std::sync::Arc;

use futures::FutureExt as _;
use futures::future::{BoxFuture, Shared, WeakShared};
use kuafu::{CallError, CallOptions, Replicated};
use parking_lot::Mutex;

use super::Place;
use crate::proto::{NuwaClient as Wire, WatchReply, WatchRequest};

type Reply = Result<Arc<WatchReply>, CallError>;
type Key = (String, Place);

/// One connection of a client, for watches.
pub(crate) struct Connection {
    members: Replicated,
    calls: Arc<Mutex<Calls>>,
}

#[derive(Default)]
struct Calls {
    /// Each takes itself out when it is answered. One that everybody has dropped stays until there are twice as many.
    under_way: HashMap<Key, WeakShared<BoxFuture<'static, Reply>>>,
    clean_at: usize,
}

impl fmt::Debug for Connection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Connection").field("members", &self.members).finish_non_exhaustive()
    }
}

impl Connection {
    pub(crate) fn new(members: Replicated) -> Self {
        Self { members, calls: Arc::default() }
    }

    /// A call of its own.
    pub(super) async fn ask(&self, request: &WatchRequest) -> Result<WatchReply, CallError> {
        ask(&self.members, request).await
    }

    /// The answer to the same call that somebody else waits for, if there is one.
    pub(super) async fn ask_shared(&self, request: WatchRequest) -> Reply {
        let call = self.joined(request);
        call.await
    }

    fn joined(&self, request: WatchRequest) -> Shared<BoxFuture<'static, Reply>> {
        let place = Place { revision: request.from_revision, number: request.from_number };
        let key = (request.path.clone(), place);
        let mut calls = self.calls.lock();
        if let Some(call) = calls.under_way.get(&key).and_then(WeakShared::upgrade) {
            return call;
        }
        let (members, all, own_key) = (self.members.clone(), Arc::clone(&self.calls), key.clone());
        let call = async move {
            let reply = ask(&members, &request).await;
            all.lock().under_way.remove(&own_key);
            reply.map(Arc::new)
        };
        let call = call.boxed().shared();
        calls.add(key, &call);
        call
    }
}

impl Calls {
    fn add(&mut self, key: Key, call: &Shared<BoxFuture<'static, Reply>>) {
        if self.under_way.len() >= self.clean_at {
            self.under_way.retain(|_, call| call.upgrade().is_some());
            self.clean_at = 2 * self.under_way.len() + 16;
        }
        if let Some(call) = call.downgrade() {
            self.under_way.insert(key, call);
        }
    }
}

async fn ask(members: &Replicated, request: &WatchRequest) -> Result<WatchReply, CallError> {
    let call = members.call(None, |member, options: CallOptions| async move {
        Wire::new(member).watch(request, &options).await
    });
    call.await
}
