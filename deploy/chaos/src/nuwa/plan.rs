//! What is done to the members, and in which order: all of it drawn from the seed.
//!
//! Never more than a majority survives: of three members one at a time, of five two; or everything at once. Clients are
//! no members: one may be set apart from the leader besides.

use std::fmt;

use rand::Rng as _;
use rand::rngs::StdRng;

use crate::deck::{self, Deck};

/// A kind of fault.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, clap::ValueEnum)]
pub(crate) enum Fault {
    /// kill -9 of a member
    Kill,
    /// A member is asked to end (SIGTERM)
    Stop,
    /// A member stands still (SIGSTOP)
    Hang,
    /// A member's cable is pulled
    Cut,
    /// A member hears nothing
    Deaf,
    /// Nobody hears a member
    Mute,
    /// The leader and another member do not reach each other, but everybody else
    Apart,
    /// Some clients and the leader do not reach each other, but everybody else
    ClientApart,
    /// kill -9 of every member at once
    Everything,
}

impl Fault {
    pub(crate) const ALL: [Self; 9] = [
        Self::Kill,
        Self::Stop,
        Self::Hang,
        Self::Cut,
        Self::Deaf,
        Self::Mute,
        Self::Apart,
        Self::ClientApart,
        Self::Everything,
    ];

    /// Two are set apart: the network can do that to one pair at a time.
    const fn is_of_a_pair(self) -> bool {
        matches!(self, Self::Apart | Self::ClientApart)
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Kill => "member killed",
            Self::Stop => "member stopped",
            Self::Hang => "member hangs",
            Self::Cut => "member cut off",
            Self::Deaf => "member hears nothing",
            Self::Mute => "member is not heard",
            Self::Apart => "leader and a member apart",
            Self::ClientApart => "leader and clients apart",
            Self::Everything => "everything killed",
        })
    }
}

/// Whom a fault meets. Members count from 1.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Victim {
    Member(u32),
    /// Whichever member leads.
    Leader,
    /// The leader, and this place of clients, from 0.
    Clients(usize),
    All,
}

pub(crate) type Step = deck::Step<Fault, Victim>;

/// What there is to be hurt, and for how long at a time.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Scope {
    pub(crate) members: u32,
    /// Places of clients.
    pub(crate) sites: usize,
    /// Short steps, so that a short run sees every kind; still longer than an election.
    pub(crate) brisk: bool,
}

/// Steps without end.
#[derive(Debug)]
pub(crate) struct Plan {
    deck: Deck<Fault>,
    scope: Scope,
}

impl Plan {
    pub(crate) fn new(dice: StdRng, faults: Vec<Fault>, scope: Scope) -> Self {
        Self { deck: Deck::new(dice, faults), scope }
    }

    fn victim(&mut self, fault: Fault) -> Victim {
        let Scope { members, sites, .. } = self.scope;
        let dice = self.deck.dice();
        match fault {
            Fault::Everything => Victim::All,
            Fault::Apart => Victim::Leader,
            Fault::ClientApart => Victim::Clients(dice.random_range(0..sites)),
            // Who leads is hurt more often: most depends on it.
            _ if dice.random_bool(0.6) => Victim::Leader,
            _ => Victim::Member(dice.random_range(1..=members)),
        }
    }

    pub(crate) fn next(&mut self) -> Step {
        let first = self.deck.draw();
        let mut faults = vec![(first, self.victim(first))];
        let two = self.scope.members >= 5;
        let goes_with_first = |other: Fault| {
            let clients = [first, other].contains(&Fault::ClientApart);
            other != Fault::Everything && !(first.is_of_a_pair() && other.is_of_a_pair()) && (two || clients)
        };
        if first != Fault::Everything
            && self.deck.dice().random_bool(0.35)
            && let Some(second) = self.deck.draw_if(goes_with_first)
        {
            faults.push((second, self.victim(second)));
        }
        let (rest, between, lasts) = if self.scope.brisk {
            ((200, 800), (0, 500), (1000, 2400))
        } else {
            ((400, 2500), (0, 2500), (1000, 8000))
        };
        let whole = self.deck.dice().random_bool(0.3);
        let mut ms = |(from, upto)| self.deck.ms(from, upto);
        Step { rest: ms(rest), faults, between: ms(between), lasts: ms(lasts), whole }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use rand::SeedableRng as _;

    use super::*;

    fn steps(seed: u64, members: u32, number: usize) -> Vec<Step> {
        let scope = Scope { members, sites: 2, brisk: false };
        let mut plan = Plan::new(StdRng::seed_from_u64(seed), Fault::ALL.to_vec(), scope);
        (0..number).map(|_| plan.next()).collect()
    }

    #[test]
    fn the_seed_decides_all() {
        assert_eq!(steps(1, 3, 200), steps(1, 3, 200));
        assert_ne!(steps(1, 3, 200), steps(2, 3, 200));
    }

    #[test]
    fn never_more_than_a_majority_survives_and_every_kind_comes() {
        for (seed, members) in (0..40).map(|seed| (seed, [3, 5][seed as usize % 2])) {
            let steps = steps(seed, members, 100);
            for Step { faults, .. } in &steps {
                let of_members = faults
                    .iter()
                    .filter(|(fault, _)| !matches!(fault, Fault::ClientApart | Fault::Everything));
                assert!(of_members.count() as u32 <= (members - 1) / 2, "{faults:?}");
                assert!(faults.len() == 1 || faults.iter().all(|(fault, _)| *fault != Fault::Everything));
                assert!(faults.iter().filter(|(fault, _)| fault.is_of_a_pair()).count() <= 1, "{faults:?}");
            }
            let seen: BTreeSet<Fault> =
                steps[..9].iter().flat_map(|step| &step.faults).map(|(fault, _)| *fault).collect();
            assert_eq!(seen.len(), Fault::ALL.len());
        }
    }
}
