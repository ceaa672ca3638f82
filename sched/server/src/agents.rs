//! What the master knows of an agent.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Instant;

use sched_api::proto;
use tokio::sync::Notify;

/// See the module.
#[derive(Debug)]
pub(crate) struct Agent {
    pub(crate) incarnation: u64,
    pub(crate) location: String,
    pub(crate) capacity: BTreeMap<String, u64>,
    pub(crate) warning: String,
    pub(crate) heard: Instant,
    /// The scheduler was told that it is silent, or lost.
    pub(crate) presence: Presence,
    /// Raised by every change of its orders.
    pub(crate) version: u64,
    pub(crate) changed: Arc<Notify>,
    /// What is to run there, by grant.
    pub(crate) orders: BTreeMap<u64, proto::Order>,
    /// Of those, what it said runs.
    pub(crate) running: BTreeSet<u64>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Presence {
    Here,
    /// Nothing new is granted on it.
    Silent,
    /// Its grants were taken back.
    Lost,
}

impl Presence {
    pub(crate) fn word(self) -> &'static str {
        match self {
            Self::Here => "ok",
            Self::Silent => "silent",
            Self::Lost => "lost",
        }
    }
}

impl Agent {
    pub(crate) fn new(request: &proto::AgentRequest, now: Instant) -> Self {
        Self {
            incarnation: request.incarnation,
            location: request.location.clone(),
            capacity: amounts(request.capacity.as_ref()),
            warning: request.warning.clone(),
            heard: now,
            presence: Presence::Here,
            version: 1,
            changed: Arc::default(),
            orders: BTreeMap::new(),
            running: BTreeSet::new(),
        }
    }

    /// It is to be told something.
    pub(crate) fn touch(&mut self) {
        self.version += 1;
        self.changed.notify_waiters();
    }
}

pub(crate) fn amounts(resources: Option<&proto::Resources>) -> BTreeMap<String, u64> {
    resources.map(|resources| resources.amounts.clone().into_iter().collect()).unwrap_or_default()
}
