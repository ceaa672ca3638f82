//! The systems that are measured.

mod pangu;
mod script;

use std::path::Path;

pub(crate) use pangu::Pangu;
pub(crate) use script::Script;

use crate::fault::Fault;

/// What our own system is called in the report.
pub(crate) const PANGU: &str = "pangu";

/// A system that is up and mounted. Dropping it takes it down.
pub(crate) trait System {
    fn name(&self) -> &str;

    fn mount(&self) -> &Path;

    /// Whether this can be done to it.
    fn can(&self, fault: Fault) -> bool;

    /// Hurts a server; each round another one, where there are several alike.
    fn hurt(&mut self, fault: Fault, round: usize) -> anyhow::Result<()>;

    /// Undoes what was done last.
    fn heal(&mut self) -> anyhow::Result<()>;

    /// Returns when every copy of everything is there again.
    fn wait_whole(&mut self) -> anyhow::Result<()>;

    /// Ends it in good order.
    fn down(&mut self) -> anyhow::Result<()>;
}
