//! Pangu in one deterministic process: masters, chunkservers and clients, driven by one seed, with everything that can go wrong.
//!
//! Read in this order: `world` (all there is, one queue of events, the phases of a run), `net`, `clock` and `dice` (what they run
//! on), `server` and `disk`, `raft` and `master`, `client` and `oracle` (what is done, and what may be seen), `nemesis` (what goes
//! wrong), `invariants` (one property a file), [`bug`] (what the simulator must notice). `deploy/sim/README.md` says what is the
//! product's own code here and what is modelled.

pub mod bug;
mod client;
mod clock;
mod dice;
mod disk;
mod invariants;
mod master;
mod message;
mod nemesis;
mod net;
mod oracle;
mod raft;
mod server;
mod world;

use std::collections::BTreeMap;
use std::panic::{AssertUnwindSafe, catch_unwind};

pub use bug::Bug;

/// What a run is.
#[derive(Clone, Copy, Debug)]
pub struct Options {
    pub seed: u64,
    pub bug: Option<Bug>,
    /// Keep lines about what happens, for a person.
    pub trace: bool,
    /// Virtual seconds with faults.
    pub seconds: u64,
    /// Virtual seconds after which all must be at rest again.
    pub bound_seconds: u64,
}

impl Options {
    #[must_use]
    pub const fn new(seed: u64) -> Self {
        Self { seed, bug: None, trace: false, seconds: 8, bound_seconds: 60 }
    }
}

/// What must not be, and was.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Violation {
    pub invariant: &'static str,
    pub what: String,
}

/// What came of a run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Outcome {
    pub seed: u64,
    /// Of the whole history: two runs with the same hash went the same way.
    pub hash: u64,
    /// How often what happened.
    pub counters: BTreeMap<&'static str, u64>,
    pub violation: Option<Violation>,
    /// The last lines, if they were asked for.
    pub trace: Vec<String>,
}

/// Runs one seed. The same options give the same outcome, always. A panic of the product's code is a violation.
#[must_use]
pub fn run(options: Options) -> Outcome {
    let mut world = world::World::new(options);
    if let Err(panic) = catch_unwind(AssertUnwindSafe(|| world.run())) {
        let said = panic.downcast_ref::<String>().cloned();
        let said = said.or_else(|| panic.downcast_ref::<&str>().map(|said| (*said).to_owned()));
        world.violate("no panics", || said.unwrap_or_default());
    }
    world.outcome()
}
