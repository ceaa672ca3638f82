//! What the master wants to run here, checked on arrival.

use std::collections::BTreeMap;
use std::fmt;
use std::path::{Component, Path, PathBuf};

use sched_api::proto;
use serde::{Deserialize, Serialize};

/// The number of a grant, unique in the cluster and never used again.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Grant(pub u64);

impl fmt::Display for Grant {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// What runs in a grant.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Program {
    Worker,
    JobMaster,
}

/// One grant, and what is to run in it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Order {
    pub grant: Grant,
    pub job: String,
    /// cpu in 1/1000 cores, memory and disk in MiB, others as the administrator defined them.
    pub limits: BTreeMap<String, u64>,
    pub uid: u32,
    pub gid: u32,
    pub program: Program,
    /// The job's directory, relative to the mount.
    pub directory: PathBuf,
    /// Where the job's master serves; empty if it is not known.
    pub job_master: String,
    pub unit: u32,
}

/// Why an order is not carried out.
#[derive(Debug, thiserror::Error)]
pub enum OrderError {
    #[error(
        "grant {grant} of job {job}: this agent does not know the program with the number {program}: is it older than the master?"
    )]
    Program { grant: u64, job: String, program: i32 },
    #[error("grant {grant} of job {job}: its directory {directory:?} is not one below the mount")]
    Directory { grant: u64, job: String, directory: String },
    #[error("grant {grant}: the job's name {job:?} cannot be given to a program")]
    Job { grant: u64, job: String },
}

impl TryFrom<proto::Order> for Order {
    type Error = OrderError;

    fn try_from(order: proto::Order) -> Result<Self, OrderError> {
        let proto::Order { grant, job, limits, uid, gid, program, directory, job_master, unit } = order;
        let program = match proto::Program::try_from(program) {
            Ok(proto::Program::Worker) => Program::Worker,
            Ok(proto::Program::JobMaster) => Program::JobMaster,
            Ok(proto::Program::Unspecified) | Err(_) => {
                return Err(OrderError::Program { grant, job, program });
            }
        };
        let plain = |part: Component<'_>| matches!(part, Component::Normal(_));
        if !Path::new(&directory).components().all(plain) || directory.contains('\0') {
            return Err(OrderError::Directory { grant, job, directory });
        }
        if job.is_empty() || job.contains('\0') || job_master.contains('\0') {
            return Err(OrderError::Job { grant, job });
        }
        let limits = limits.map(|limits| limits.amounts.into_iter().collect()).unwrap_or_default();
        let directory = directory.into();
        Ok(Self { grant: Grant(grant), job, limits, uid, gid, program, directory, job_master, unit })
    }
}

impl Order {
    /// The amount of one resource, if it is limited.
    #[must_use]
    pub fn limit(&self, name: &str) -> Option<u64> {
        self.limits.get(name).copied().filter(|amount| *amount > 0)
    }

    /// Bytes of memory, if they are limited.
    #[must_use]
    pub fn memory_bytes(&self) -> Option<u64> {
        self.limit("memory").map(|mib| mib.saturating_mul(1 << 20))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn order(directory: &str, program: i32) -> Result<Order, OrderError> {
        let (job, directory) = ("j".to_owned(), directory.to_owned());
        proto::Order { grant: 1, job, directory, program, ..proto::Order::default() }.try_into()
    }

    #[test]
    fn what_points_out_of_the_mount_is_refused() {
        assert!(order("spool/q/run/j", 1).is_ok());
        for bad in ["../etc", "spool/../../etc", "/etc", "a\0b"] {
            assert!(matches!(order(bad, 1), Err(OrderError::Directory { .. })), "{bad:?}");
        }
        assert!(matches!(order("a", 0), Err(OrderError::Program { .. })));
        assert!(matches!(order("a", 9), Err(OrderError::Program { .. })));
    }
}
