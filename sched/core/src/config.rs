//! What an administrator may tune. Every time is in milliseconds.

use std::collections::BTreeSet;

use thiserror::Error;

use crate::ids::{Millis, NodeId};
use crate::resources::Dimensions;

/// A look at something that changed counts as one decision, and so does a grant.
const DECISIONS_MIN: usize = 2;

/// The scheduler's settings; [`Config::default`] is for a cluster of up to some thousand machines.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Config {
    /// The names of resources; more may be interned later.
    pub dimensions: Dimensions,
    /// The term of this master: above that of every master before it.
    pub epoch: u64,
    /// What to wait for before anything is granted; `None` in a cluster that starts for the first time.
    pub recovery: Option<Recovery>,
    /// How long a unit waits for the machines it prefers. 3 s is about one short instance.
    pub relax_machine_ms: u64,
    /// How long it then waits for the racks of those machines.
    pub relax_rack_ms: u64,
    /// A unit that waited so long gets a node kept free for it.
    pub reserve_after_ms: u64,
    /// How long that node is kept free.
    pub reserve_hold_ms: u64,
    /// How long room that was preempted is kept for the preemptor.
    pub preempt_hold_ms: u64,
    /// The pause between two looks for victims for the same kind of request.
    pub preempt_retry_ms: u64,
    /// A job that lost a grant by preemption preempts nobody for so long: this is what cuts cascades.
    pub preempt_calm_ms: u64,
    /// Reservations at one time, of both kinds.
    pub reservations_max: usize,
    /// Nodes that one look for victims or for a node to reserve goes through; the next look goes on behind them.
    pub scan_nodes_max: usize,
    /// Grants and looks that one event may cause; the rest follows with the next ones ([`crate::Scheduler::has_work`]).
    pub decisions_max: usize,
    /// An order to stop that was not obeyed is repeated so often.
    pub revoke_repeat_ms: u64,
    /// When nodes are left alone.
    pub blacklist: Blacklist,
    /// A job whose workers fail waits so long, and twice as long each further time.
    pub backoff_first_ms: u64,
    /// The longest such wait.
    pub backoff_max_ms: u64,
    /// Bounds on what others can make the scheduler remember.
    pub limits: Limits,
}

/// When a node is not used any more for a while.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Blacklist {
    /// So many different jobs that avoid a node within the window blacklist it for all.
    pub jobs_min: usize,
    /// So many failures of the node itself within the window do the same.
    pub failures_min: usize,
    /// Both are counted in this window.
    pub window_ms: u64,
    /// How long a node stays on the cluster's list.
    pub hold_ms: u64,
    /// How long a node stays on the list of one job that does not name it again.
    pub job_hold_ms: u64,
    /// At most so many percent of the nodes are on the list, so a bad job cannot empty the cluster.
    pub share_max_percent: usize,
}

/// What a new master waits for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Recovery {
    /// The agents that were there, as Nuwa knows.
    pub expected: BTreeSet<NodeId>,
    /// It waits for them no longer than this.
    pub until: Millis,
}

/// The most there may be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Limits {
    /// Nodes, gone ones included.
    pub nodes_max: usize,
    /// Queues.
    pub queues_max: usize,
    /// Running jobs.
    pub jobs_max: usize,
    /// Units of one job.
    pub units_max: usize,
    /// Machines and racks that one unit may prefer.
    pub preferences_max: usize,
    /// Nodes that one job may avoid.
    pub avoided_max: usize,
    /// Levels of the quota tree.
    pub depth_max: usize,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            dimensions: Dimensions::default(),
            epoch: 1,
            recovery: None,
            relax_machine_ms: 3_000,
            relax_rack_ms: 3_000,
            reserve_after_ms: 30_000,
            reserve_hold_ms: 600_000,
            preempt_hold_ms: 60_000,
            preempt_retry_ms: 1_000,
            preempt_calm_ms: 30_000,
            reservations_max: 256,
            scan_nodes_max: 64,
            decisions_max: 32,
            revoke_repeat_ms: 10_000,
            blacklist: Blacklist {
                jobs_min: 3,
                failures_min: 3,
                window_ms: 600_000,
                hold_ms: 1_800_000,
                job_hold_ms: 1_800_000,
                share_max_percent: 10,
            },
            backoff_first_ms: 1_000,
            backoff_max_ms: 60_000,
            limits: Limits {
                nodes_max: 100_000,
                queues_max: 4_096,
                jobs_max: 200_000,
                units_max: 1_024,
                preferences_max: 10_000,
                avoided_max: 1_000,
                depth_max: 8,
            },
        }
    }
}

/// A setting that cannot work.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum ConfigError {
    /// It would stop everything.
    #[error("{setting} is 0: at least 1 is needed for anything to be granted")]
    Zero {
        /// Its name.
        setting: &'static str,
    },
    /// One event could not even look and grant.
    #[error(
        "decisions_max is {given}: it must be at least {DECISIONS_MIN}, one for a look and one for what it finds"
    )]
    Decisions {
        /// What was given.
        given: usize,
    },
    /// Not a percentage.
    #[error("blacklist.share_max_percent is {percent}: it must be at most 100")]
    Percent {
        /// What was given.
        percent: usize,
    },
}

impl Config {
    /// # Errors
    /// If a setting would stop everything.
    pub fn validate(&self) -> Result<(), ConfigError> {
        if self.decisions_max < DECISIONS_MIN {
            return Err(ConfigError::Decisions { given: self.decisions_max });
        }
        let needed = [
            ("scan_nodes_max", self.scan_nodes_max),
            ("blacklist.jobs_min", self.blacklist.jobs_min),
            ("blacklist.failures_min", self.blacklist.failures_min),
            ("limits.depth_max", self.limits.depth_max),
        ];
        if let Some((setting, _)) = needed.into_iter().find(|(_, value)| *value == 0) {
            return Err(ConfigError::Zero { setting });
        }
        if self.preempt_retry_ms == 0 {
            return Err(ConfigError::Zero { setting: "preempt_retry_ms" });
        }
        if self.blacklist.share_max_percent > 100 {
            return Err(ConfigError::Percent { percent: self.blacklist.share_max_percent });
        }
        Ok(())
    }
}
