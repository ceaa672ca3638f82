//! Does to the cluster what the plan says, and undoes it.

use std::time::{Duration, Instant};

use anyhow::Context as _;
use deploy_local_cluster::{Cluster, Error, Role, Way};
use serde_json::Value;

use crate::crew::{Crew, Span};
use crate::disks::Disk;
use crate::plan::{Fault, Victim};

/// Filling who was away, and finding a leader, is over long before.
const WHOLE: Duration = Duration::from_secs(150);
/// When its mount is dead, an operation ends within this.
const LET_GO: Duration = Duration::from_secs(60);

/// A fault that was done.
#[derive(Clone, Debug)]
pub(crate) struct Event<F = Fault> {
    pub(crate) fault: F,
    pub(crate) whom: String,
    /// Until it was undone.
    pub(crate) span: Span,
}

/// The cluster in its hands.
#[derive(Debug)]
pub(crate) struct Nemesis {
    // Before the disks, on which it lives.
    pub(crate) cluster: Cluster,
    pub(crate) disks: Vec<Disk>,
    pub(crate) replicas: usize,
}

impl Nemesis {
    fn status(&self) -> Option<Value> {
        let output = self.cluster.pangu(&["--timeout", "5", "status", "--json"]).ok()?;
        serde_json::from_slice(&output.stdout).ok()
    }

    fn leader(&self) -> Option<u32> {
        let id = self.status()?["leader"].as_u64().filter(|id| *id > 0)?;
        u32::try_from(id).ok()
    }

    /// Every group has all its members, and they serve.
    fn is_whole(&self) -> bool {
        let Some(status) = self.status() else { return false };
        let groups = status["groups"].as_array().map(Vec::as_slice).unwrap_or_default();
        let whole = |group: &Value| {
            let members = group["members"].as_array().map(Vec::as_slice).unwrap_or_default();
            members.len() == self.replicas && members.iter().all(|member| member["state"] == "serving")
        };
        !groups.is_empty() && groups.iter().all(whole)
    }

    /// Returns when all is whole, and false if that is not so in time or `goes_on` says no.
    pub(crate) fn wait_whole(&self, goes_on: &dyn Fn() -> bool) -> bool {
        let began = Instant::now();
        while !self.is_whole() {
            if began.elapsed() > WHOLE || !goes_on() {
                return false;
            }
            std::thread::sleep(Duration::from_millis(200));
        }
        true
    }

    pub(crate) fn words(&self) -> String {
        let output = self.cluster.pangu(&["--timeout", "5", "status"]);
        output.map(|output| String::from_utf8_lossy(&output.stdout).into_owned()).unwrap_or_default()
    }

    fn role(&self, victim: Victim) -> Role {
        match victim {
            Victim::Chunkserver(n) => Role::Chunkserver(n),
            Victim::Master(n) => Role::Master(n),
            Victim::Leader | Victim::All => Role::Master(self.leader().unwrap_or(1)),
        }
    }

    fn disk(&mut self, role: Role) -> anyhow::Result<&mut Disk> {
        let at = match role {
            Role::Chunkserver(n) => usize::try_from(n)? - 1,
            Role::Master(_) | Role::Nuwa(_) | Role::Client(_) => {
                anyhow::bail!("{role} has no disk of its own")
            }
        };
        self.disks.get_mut(at).context("a chunkserver has a disk")
    }

    /// Does it; the answer undoes it with [`Self::heal`], and says if a server did not stop in time.
    pub(crate) fn hurt(
        &mut self,
        crew: &Crew,
        fault: Fault,
        victim: Victim,
    ) -> anyhow::Result<(Role, Event, Option<String>)> {
        let role = self.role(victim);
        let mut late = None;
        let called_ns = crew.now_ns();
        match fault {
            Fault::Kill | Fault::KillMaster => self.cluster.kill(role)?,
            Fault::Stop | Fault::StopMaster => match self.cluster.stop(role) {
                // It was killed then.
                Err(error @ Error::Late { .. }) => late = Some(error.to_string()),
                stopped => stopped?,
            },
            Fault::Hang | Fault::HangMaster => self.cluster.pause(role, true)?,
            Fault::Cut | Fault::CutMaster => self.cluster.cut(role, true)?,
            Fault::Deaf | Fault::DeafMaster => self.cluster.lose(role, Way::To, true)?,
            Fault::Mute | Fault::MuteMaster => self.cluster.lose(role, Way::From, true)?,
            Fault::Full => self.disk(role)?.fill()?,
            Fault::Slow => {
                let pid = self.cluster.pid(role).context("it runs")?;
                self.disk(role)?.slow(pid)?;
            }
            Fault::Everything => self.cluster.kill_all()?,
        }
        let whom = if fault == Fault::Everything { String::new() } else { role.to_string() };
        Ok((role, Event { fault, whom, span: Span { called_ns, returned_ns: u64::MAX } }, late))
    }

    pub(crate) fn heal(&mut self, crew: &Crew, role: Role, event: &mut Event) -> anyhow::Result<()> {
        match event.fault {
            Fault::Kill | Fault::Stop | Fault::KillMaster | Fault::StopMaster => {
                self.cluster.restart(role)?
            }
            Fault::Hang | Fault::HangMaster => self.cluster.pause(role, false)?,
            Fault::Cut | Fault::CutMaster => self.cluster.cut(role, false)?,
            Fault::Deaf | Fault::DeafMaster => self.cluster.lose(role, Way::To, false)?,
            Fault::Mute | Fault::MuteMaster => self.cluster.lose(role, Way::From, false)?,
            Fault::Full => self.disk(role)?.free()?,
            Fault::Slow => self.disk(role)?.fast(),
            Fault::Everything => {
                // Nobody may go where the mounts were while they are not: it would be the directory below.
                let _nobody = crew.hold(LET_GO).context("operations on dead mounts did not end")?;
                self.cluster.restart_all()?;
            }
        }
        event.span.returned_ns = crew.now_ns();
        Ok(())
    }
}
