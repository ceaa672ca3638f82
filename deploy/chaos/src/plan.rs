//! What is done to the cluster, and in which order: all of it drawn from the seed.
//!
//! Never more than the design survives: of masters one at a time, of chunkservers one at a time, and the next one only
//! when all groups are whole again; or everything at once, where only what was confirmed must be there after.

use std::fmt;

use rand::Rng as _;
use rand::rngs::StdRng;

use crate::deck::{self, Deck};

/// A kind of fault.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, clap::ValueEnum)]
pub(crate) enum Fault {
    /// kill -9 of a chunkserver
    Kill,
    /// A chunkserver is asked to end (SIGTERM)
    Stop,
    /// A chunkserver stands still (SIGSTOP)
    Hang,
    /// A chunkserver's cable is pulled
    Cut,
    /// A chunkserver hears nothing
    Deaf,
    /// Nobody hears a chunkserver
    Mute,
    /// A chunkserver's disk is full
    Full,
    /// A chunkserver's disk is slow
    Slow,
    /// kill -9 of a master
    KillMaster,
    /// A master is asked to end (SIGTERM)
    StopMaster,
    /// A master stands still (SIGSTOP)
    HangMaster,
    /// A master's cable is pulled
    CutMaster,
    /// A master hears nothing
    DeafMaster,
    /// Nobody hears a master
    MuteMaster,
    /// kill -9 of every process at once, mounts included
    Everything,
}

impl Fault {
    pub(crate) const ALL: [Self; 15] = [
        Self::Kill,
        Self::Stop,
        Self::Hang,
        Self::Cut,
        Self::Deaf,
        Self::Mute,
        Self::Full,
        Self::Slow,
        Self::KillMaster,
        Self::StopMaster,
        Self::HangMaster,
        Self::CutMaster,
        Self::DeafMaster,
        Self::MuteMaster,
        Self::Everything,
    ];

    pub(crate) const fn is_of_a_master(self) -> bool {
        matches!(
            self,
            Self::KillMaster
                | Self::StopMaster
                | Self::HangMaster
                | Self::CutMaster
                | Self::DeafMaster
                | Self::MuteMaster
        )
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Kill => "chunkserver killed",
            Self::Stop => "chunkserver stopped",
            Self::Hang => "chunkserver hangs",
            Self::Cut => "chunkserver cut off",
            Self::Deaf => "chunkserver hears nothing",
            Self::Mute => "chunkserver is not heard",
            Self::Full => "disk full",
            Self::Slow => "disk slow",
            Self::KillMaster => "master killed",
            Self::StopMaster => "master stopped",
            Self::HangMaster => "master hangs",
            Self::CutMaster => "master cut off",
            Self::DeafMaster => "master hears nothing",
            Self::MuteMaster => "master is not heard",
            Self::Everything => "everything killed",
        })
    }
}

/// Whom a fault meets: numbers from 1.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Victim {
    Chunkserver(u32),
    Master(u32),
    /// Whichever master leads.
    Leader,
    All,
}

pub(crate) type Step = deck::Step<Fault, Victim>;

/// Steps without end.
#[derive(Debug)]
pub(crate) struct Plan {
    deck: Deck<Fault>,
    chunkservers: u32,
    masters: u32,
}

impl Plan {
    pub(crate) fn new(dice: StdRng, faults: Vec<Fault>, chunkservers: u32, masters: u32) -> Self {
        Self { deck: Deck::new(dice, faults), chunkservers, masters }
    }

    fn victim(&mut self, fault: Fault) -> Victim {
        match fault {
            Fault::Everything => Victim::All,
            _ if !fault.is_of_a_master() => {
                Victim::Chunkserver(self.deck.dice().random_range(1..=self.chunkservers))
            }
            // Who leads is hurt more often: most depends on it.
            _ if self.deck.dice().random_bool(0.6) => Victim::Leader,
            _ => Victim::Master(self.deck.dice().random_range(1..=self.masters)),
        }
    }

    pub(crate) fn next(&mut self) -> Step {
        let first = self.deck.draw();
        let mut faults = vec![(first, self.victim(first))];
        if first != Fault::Everything
            && self.deck.dice().random_bool(0.35)
            && let Some(second) = self.deck.draw_if(|other| {
                other != Fault::Everything && other.is_of_a_master() != first.is_of_a_master()
            })
        {
            faults.push((second, self.victim(second)));
        }
        Step {
            rest: self.deck.ms(500, 3000),
            faults,
            between: self.deck.ms(0, 2500),
            lasts: self.deck.ms(1500, 7000),
            whole: self.deck.dice().random_bool(0.3),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use rand::SeedableRng as _;

    use super::*;

    fn steps(seed: u64, number: usize) -> Vec<Step> {
        let mut plan = Plan::new(StdRng::seed_from_u64(seed), Fault::ALL.to_vec(), 5, 3);
        (0..number).map(|_| plan.next()).collect()
    }

    #[test]
    fn the_seed_decides_all() {
        assert_eq!(steps(1, 200), steps(1, 200));
        assert_ne!(steps(1, 200), steps(2, 200));
    }

    #[test]
    fn never_more_than_the_design_survives_and_every_kind_comes() {
        for seed in 0..20 {
            let steps = steps(seed, 100);
            for Step { faults, .. } in &steps {
                let masters = faults.iter().filter(|(fault, _)| fault.is_of_a_master()).count();
                assert!(masters <= 1 && faults.len() - masters <= 1, "{faults:?}");
                assert!(faults.len() == 1 || faults.iter().all(|(fault, _)| *fault != Fault::Everything));
            }
            let seen: BTreeSet<Fault> =
                steps[..15].iter().flat_map(|s| &s.faults).map(|(fault, _)| *fault).collect();
            assert_eq!(seen.len(), Fault::ALL.len());
        }
    }
}
