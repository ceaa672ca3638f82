//! What an agent is told at its start.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use kuafu::Channel;

use crate::cgroup::CgroupUse;

/// How cpu is limited, where cgroups can do it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum CpuLimit {
    /// In proportion to what was granted, when all is in use; what others leave may be used.
    #[default]
    Shares,
    /// Never more than was granted.
    Quota,
}

/// Keys that programs are given. The agent's own stay with it: what a job runs can read what its worker can.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeyFolder {
    /// With `NAME.key`, `NAME.cap` and `authority*.pub`.
    pub folder: PathBuf,
    pub worker: String,
    pub job_master: String,
}

/// See the module.
#[derive(Clone, Debug)]
pub struct Config {
    /// This machine's name, unique in the cluster.
    pub node: String,
    /// Where it stands: /region/rack/host.
    pub location: String,
    /// For everything the agent keeps.
    pub data: PathBuf,
    /// Where Pangu is mounted.
    pub mount: PathBuf,
    /// What there is to grant: cpu in 1/1000 cores, memory and disk in MiB, others as named.
    pub capacity: BTreeMap<String, u64>,
    /// The program of workers, default `fuxi-worker` beside this process's own.
    pub worker: PathBuf,
    /// The program of job masters, default `fuxi-jobmaster` beside this process's own.
    pub job_master: PathBuf,
    /// Fuxi's master, as this agent calls it.
    pub master: Channel,
    /// The same for the programs: FUXI_MASTER, FUXI_CLUSTER and the like.
    pub environment: BTreeMap<String, String>,
    /// Default: programs show no keys.
    pub keys: Option<KeyFolder>,
    /// What is told to stop may take so long. Default 5 s.
    pub grace: Duration,
    /// Processes and threads of one grant. Default 4096.
    pub pids_max: u64,
    /// Default [`CpuLimit::Shares`].
    pub cpu: CpuLimit,
    /// Default [`CgroupUse::Own`].
    pub cgroups: CgroupUse,
    /// What one grant's program may say before it is cut. Default 8 MiB.
    pub log_bytes_max: u64,
}

impl Config {
    /// With the defaults, and what the machine has as its capacity.
    #[must_use]
    pub fn new(node: String, location: String, data: PathBuf, mount: PathBuf, master: Channel) -> Self {
        let beside = |name: &str| {
            let own = std::env::current_exe().ok();
            own.and_then(|own| Some(own.parent()?.join(name))).unwrap_or_else(|| PathBuf::from(name))
        };
        Self {
            capacity: crate::capacity::of_machine(&data),
            node,
            location,
            data,
            mount,
            worker: beside("fuxi-worker"),
            job_master: beside("fuxi-jobmaster"),
            master,
            environment: BTreeMap::new(),
            keys: None,
            grace: Duration::from_secs(5),
            pids_max: 4096,
            cpu: CpuLimit::default(),
            cgroups: CgroupUse::default(),
            log_bytes_max: 8 << 20,
        }
    }
}
