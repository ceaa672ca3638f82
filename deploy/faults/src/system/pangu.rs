//! Pangu: three masters, chunkservers in racks of their own, three replicas, each server with a network of its own.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::Context as _;
use deploy_local_cluster::{Cluster, Options, Role};
use serde_json::Value;

use super::{PANGU, System};
use crate::fault::Fault;

/// Resync of what was written meanwhile is over long before.
const WHOLE: Duration = Duration::from_secs(120);

/// The cluster.
#[derive(Debug)]
pub(crate) struct Pangu {
    /// `None` once it is down.
    cluster: Option<Cluster>,
    mount: PathBuf,
    chunkservers: u32,
    hurt: Option<(Fault, Role)>,
}

impl Pangu {
    pub(crate) fn up(chunkservers: u32) -> anyhow::Result<Self> {
        let mut options = Options::new(3, chunkservers);
        options.network = true;
        options.capacity = "6G".to_owned();
        let mut cluster = options.start()?;
        // What servers say of each other while they are killed is no sign of anything here.
        cluster.announce(" WARN ");
        cluster.announce(" ERROR ");
        let mount = cluster.mount()?;
        Ok(Self { cluster: Some(cluster), mount, chunkservers, hurt: None })
    }

    fn cluster(&mut self) -> anyhow::Result<&mut Cluster> {
        self.cluster.as_mut().context("the cluster is down")
    }

    fn leader(&mut self) -> anyhow::Result<Role> {
        let output = self.cluster()?.pangu(&["status", "--json"])?;
        let status: Value = serde_json::from_slice(&output.stdout).context("read pangu status --json")?;
        let id = status["leader"].as_u64().and_then(|id| u32::try_from(id).ok()).filter(|id| *id > 0);
        Ok(Role::Master(id.context("no master leads")?))
    }
}

impl System for Pangu {
    fn name(&self) -> &str {
        PANGU
    }

    fn mount(&self) -> &Path {
        &self.mount
    }

    fn can(&self, _: Fault) -> bool {
        true
    }

    fn hurt(&mut self, fault: Fault, round: usize) -> anyhow::Result<()> {
        let chunkserver = Role::Chunkserver(round as u32 % self.chunkservers + 1);
        let role = match fault {
            Fault::Kill | Fault::Cut | Fault::Hang | Fault::Stop => chunkserver,
            Fault::KillMaster | Fault::StopMaster => self.leader()?,
        };
        self.hurt = Some((fault, role));
        let cluster = self.cluster()?;
        match fault {
            Fault::Kill | Fault::KillMaster => cluster.kill(role)?,
            Fault::Stop | Fault::StopMaster => cluster.stop(role)?,
            Fault::Cut => cluster.cut(role, true)?,
            Fault::Hang => cluster.pause(role, true)?,
        }
        Ok(())
    }

    fn heal(&mut self) -> anyhow::Result<()> {
        let Some((fault, role)) = self.hurt.take() else { return Ok(()) };
        let cluster = self.cluster()?;
        match fault {
            Fault::Kill | Fault::KillMaster | Fault::Stop | Fault::StopMaster => cluster.restart(role)?,
            Fault::Cut => cluster.cut(role, false)?,
            Fault::Hang => cluster.pause(role, false)?,
        }
        Ok(())
    }

    fn wait_whole(&mut self) -> anyhow::Result<()> {
        let began = Instant::now();
        let health = self.mount.join(".pangu/health");
        loop {
            let text =
                std::fs::read_to_string(&health).with_context(|| format!("read {}", health.display()))?;
            if text == "ok\n" {
                return Ok(());
            }
            anyhow::ensure!(began.elapsed() < WHOLE, "not whole after {WHOLE:?}:\n{text}");
            std::thread::sleep(Duration::from_millis(100));
        }
    }

    fn down(&mut self) -> anyhow::Result<()> {
        match self.cluster.take() {
            Some(cluster) => Ok(cluster.finish()?),
            None => Ok(()),
        }
    }
}
