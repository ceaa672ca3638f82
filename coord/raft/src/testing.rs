//! Clusters in one process, for tests of the kit and of services on it: [`cluster`]; a small service: [`ledger`].

pub mod cluster;
pub mod ledger;

pub use cluster::TestCluster;
pub use ledger::Ledger;
