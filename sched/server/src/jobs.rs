//! What the master knows of a job.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use sched_api::proto;
use tokio::sync::Notify;

use crate::spool::{Accepted, End};

/// The unit of a job's own master. A job's units count from 1.
pub(crate) const JOB_MASTER_UNIT: u32 = 0;
/// A job whose master dies so often without getting anything done is failed.
pub(crate) const JOB_MASTER_FAILURES_MAX: u32 = 5;

/// A grant, and what it is for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Held {
    pub(crate) unit: u32,
    pub(crate) node: String,
}

/// See the module.
#[derive(Debug)]
pub(crate) struct Job {
    pub(crate) accepted: Accepted,
    /// Raised whenever its master is to be told something.
    pub(crate) version: u64,
    pub(crate) changed: Arc<Notify>,
    pub(crate) master: JobMaster,
    /// All its grants but its master's.
    pub(crate) held: BTreeMap<u64, Held>,
    /// What its master wants, by unit, as it said last.
    pub(crate) wants: BTreeMap<u32, proto::Want>,
    pub(crate) avoid: BTreeSet<String>,
    /// Grants that ended by themselves, until its master knows.
    pub(crate) ended: BTreeMap<u64, proto::Ended>,
    /// What `ctl` said last.
    pub(crate) ctl: String,
    pub(crate) kill: bool,
    pub(crate) pause: bool,
    /// It has ended; its directory is being moved.
    pub(crate) end: Option<End>,
    pub(crate) instances: u64,
    pub(crate) instances_done: u64,
    /// As its master said last.
    pub(crate) why: String,
}

/// The process that leads a job.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct JobMaster {
    /// What it runs in.
    pub(crate) grant: Option<u64>,
    /// Where it serves workers, once it has said so.
    pub(crate) address: Option<String>,
    /// How often it died since an instance was finished.
    pub(crate) failures: u32,
    /// What the last one died of.
    pub(crate) how: String,
}

impl Job {
    pub(crate) fn new(accepted: Accepted) -> Self {
        Self {
            accepted,
            version: 1,
            changed: Arc::default(),
            master: JobMaster::default(),
            held: BTreeMap::new(),
            wants: BTreeMap::new(),
            avoid: BTreeSet::new(),
            ended: BTreeMap::new(),
            ctl: String::new(),
            kill: false,
            pause: false,
            end: None,
            instances: 0,
            instances_done: 0,
            why: String::new(),
        }
    }

    /// Its master is to be told something.
    pub(crate) fn touch(&mut self) {
        self.version += 1;
        self.changed.notify_waiters();
    }

    /// `spool/QUEUE/run/ID`, under the mount's root.
    pub(crate) fn directory(&self) -> String {
        format!("spool/{}/run/{}", self.accepted.queue, self.accepted.name)
    }

    /// One word for people.
    pub(crate) fn status(&self) -> &'static str {
        match (self.end, self.pause, &self.master.address) {
            (Some(end), _, _) => end.word(),
            (None, true, _) => "paused",
            (None, false, Some(_)) => "running",
            (None, false, None) => "waiting",
        }
    }
}
