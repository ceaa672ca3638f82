//! Does to the members what the plan says, and undoes it.

use std::net::IpAddr;
use std::time::{Duration, Instant};

use anyhow::Context as _;
use deploy_local_cluster::{Cluster, Error, Role, Site, Way};
use nuwa_api::{Address, NuwaClient};
use tokio::runtime::Runtime;

use super::plan::{Fault, Victim};
use crate::crew::{Crew, Span};
use crate::nemesis::Event;

/// A member that hangs says nothing for longer than this.
const ASK: Duration = Duration::from_millis(500);
/// Electing a leader, and bringing everybody up to date, is over long before.
const WHOLE: Duration = Duration::from_secs(60);

/// The cluster in its hands.
#[derive(Debug)]
pub(crate) struct Nemesis {
    pub(crate) cluster: Cluster,
    pub(crate) sites: Vec<Site>,
    pub(crate) members: u32,
    pub(crate) client: NuwaClient,
    /// Of that client.
    pub(crate) runtime: Runtime,
}

/// A fault that is to be undone.
#[derive(Debug)]
pub(crate) struct Hurt {
    pub(crate) event: Event<Fault>,
    role: Role,
    /// Whom the member was set apart from.
    other: Option<IpAddr>,
    /// It counts towards the minority that may be hurt.
    is_member: bool,
    /// A member did not stop in time.
    pub(crate) late: Option<String>,
}

impl Nemesis {
    pub(crate) fn addresses(&self) -> anyhow::Result<Vec<Address>> {
        let address = |n| Ok(self.cluster.address_of(Role::Nuwa(n))?.parse()?);
        (1..=self.members).map(address).collect()
    }

    fn leader(&self) -> Option<u32> {
        let statuses = self.runtime.block_on(self.client.statuses(ASK));
        let leading =
            statuses.into_iter().filter_map(|(_, status)| status.ok().filter(|status| status.leads));
        let newest = leading.max_by_key(|status| status.term)?;
        u32::try_from(newest.member_id).ok()
    }

    /// Every member answers and has all that there is; what is missing otherwise.
    pub(crate) fn wait_whole(&self, goes_on: &dyn Fn() -> bool) -> Result<(), String> {
        let began = Instant::now();
        loop {
            let statuses = self.runtime.block_on(self.client.statuses(ASK));
            let answers: Vec<_> = statuses.iter().filter_map(|(_, status)| status.as_ref().ok()).collect();
            let newest =
                answers.iter().filter(|status| status.leads).map(|status| status.last_log_index).max();
            let whole = answers.len() == self.members as usize
                // Work goes on meanwhile.
                && answers.iter().all(|status| newest.is_some_and(|newest| status.applied_index + 1000 >= newest));
            if whole {
                return Ok(());
            }
            if began.elapsed() > WHOLE || !goes_on() {
                return Err(format!("not whole after {:?}: {statuses:?}", began.elapsed()));
            }
            std::thread::sleep(Duration::from_millis(100));
        }
    }

    /// A member that is not hurt yet.
    fn member(&self, victim: Victim, hurt: &[Hurt]) -> u32 {
        let wanted = match victim {
            Victim::Member(n) => n,
            Victim::Leader | Victim::Clients(_) | Victim::All => self.leader().unwrap_or(1),
        };
        let is_free = |n: &u32| hurt.iter().all(|hurt| !hurt.is_member || hurt.role != Role::Nuwa(*n));
        let others = (1..self.members).map(|step| (wanted - 1 + step) % self.members + 1);
        std::iter::once(wanted).chain(others).find(is_free).unwrap_or(wanted)
    }

    /// Does it, to nobody who is hurt already. [`Self::heal`] undoes it.
    pub(crate) fn hurt(
        &mut self,
        crew: &Crew,
        (fault, victim): (Fault, Victim),
        hurt: &[Hurt],
    ) -> anyhow::Result<Hurt> {
        let member = if fault == Fault::ClientApart {
            // That its clients do not reach it hurts no member.
            self.leader().unwrap_or(1)
        } else {
            self.member(victim, hurt)
        };
        let role = Role::Nuwa(member);
        let (mut late, mut other, mut whom) = (None, None, role.to_string());
        let called_ns = crew.now_ns();
        match fault {
            Fault::Kill => self.cluster.kill(role)?,
            Fault::Stop => match self.cluster.stop(role) {
                // It was killed then.
                Err(error @ Error::Late { .. }) => late = Some(error.to_string()),
                stopped => stopped?,
            },
            Fault::Hang => self.cluster.pause(role, true)?,
            Fault::Cut => self.cluster.cut(role, true)?,
            Fault::Deaf => self.cluster.lose(role, Way::To, true)?,
            Fault::Mute => self.cluster.lose(role, Way::From, true)?,
            Fault::Apart => {
                let next = Role::Nuwa(member % self.members + 1);
                other = Some(self.cluster.ip_of(next)?);
                whom = format!("{role} and {next}");
            }
            Fault::ClientApart => {
                let Victim::Clients(site) = victim else { anyhow::bail!("{fault} is of clients") };
                other = Some(self.sites.get(site).context("clients are at that place")?.address());
                whom = format!("{role} and the clients at {site}");
            }
            Fault::Everything => {
                self.cluster.kill_all()?;
                whom.clear();
            }
        }
        if let Some(other) = other {
            self.cluster.set_apart(role, other, true)?;
        }
        let event = Event { fault, whom, span: Span::new(called_ns, u64::MAX) };
        Ok(Hurt { event, role, other, is_member: fault != Fault::ClientApart, late })
    }

    pub(crate) fn heal(&mut self, crew: &Crew, hurt: &mut Hurt) -> anyhow::Result<()> {
        let role = hurt.role;
        match hurt.event.fault {
            Fault::Kill | Fault::Stop => self.cluster.restart(role)?,
            Fault::Hang => self.cluster.pause(role, false)?,
            Fault::Cut => self.cluster.cut(role, false)?,
            Fault::Deaf => self.cluster.lose(role, Way::To, false)?,
            Fault::Mute => self.cluster.lose(role, Way::From, false)?,
            Fault::Apart | Fault::ClientApart => {
                let other = hurt.other.context("two were set apart")?;
                self.cluster.set_apart(role, other, false)?;
            }
            Fault::Everything => self.cluster.restart_all()?,
        }
        hurt.event.span.returned_ns = crew.now_ns();
        Ok(())
    }
}
