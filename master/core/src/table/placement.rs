//! Which disks make a group: distinct racks (I6), equal load, many different partners, primaries spread evenly.

use std::cmp::Reverse;

use coord_types::DiskId;

use crate::state::mix;

/// What two members of a group must not share.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Domain {
    Disk,
    Host,
    Rack,
}

/// A disk that can take part.
#[derive(Clone, Debug)]
pub struct Place {
    pub disk: DiskId,
    /// Numbers that stand for the disk's rack and host.
    pub rack: u32,
    pub host: u32,
    /// Groups it is in, and those it is the primary of.
    pub groups: u32,
    pub primaries: u32,
}

impl Place {
    const fn domain(&self, domain: Domain) -> u32 {
        match domain {
            Domain::Disk => self.disk.0,
            Domain::Host => self.host,
            Domain::Rack => self.rack,
        }
    }
}

/// The widest domain of which there are enough; `None` if there are not even enough disks.
#[must_use]
pub fn domain(places: &[Place], replicas: usize) -> Option<Domain> {
    [Domain::Rack, Domain::Host, Domain::Disk].into_iter().find(|domain| {
        let mut domains: Vec<_> = places.iter().map(|place| place.domain(*domain)).collect();
        domains.sort_unstable();
        domains.dedup();
        domains.len() >= replicas
    })
}

/// The members of the next group, the primary first, and counts them in `places`. The least loaded disks are taken, and
/// among equals a different one for every `seed`, so that a lost disk is rebuilt from many others.
/// `None` if there are not enough distinct domains.
#[must_use]
pub fn choose(places: &mut [Place], replicas: usize, domain: Domain, seed: u64) -> Option<Vec<DiskId>> {
    let mut chosen: Vec<usize> = Vec::with_capacity(replicas);
    while chosen.len() < replicas {
        let next = (0..places.len())
            .filter(|at| {
                chosen.iter().all(|other| places[*other].domain(domain) != places[*at].domain(domain))
            })
            .min_by_key(|at| (places[*at].groups, mix(seed ^ mix(places[*at].disk.0.into()))))?;
        chosen.push(next);
    }
    // The primary: whoever leads the smallest part of its groups.
    let primary = (0..chosen.len()).min_by_key(|at| {
        let place = &places[chosen[*at]];
        (place.primaries, Reverse(place.groups), mix(seed ^ mix(place.disk.0.into())))
    })?;
    chosen.swap(0, primary);
    for at in &chosen {
        places[*at].groups += 1;
    }
    places[chosen[0]].primaries += 1;
    Some(chosen.into_iter().map(|at| places[at].disk).collect())
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;

    /// One disk a host, `hosts` hosts a rack.
    fn cluster(racks: u32, hosts: u32, disks: u32) -> Vec<Place> {
        let mut places = Vec::new();
        for rack in 0..racks {
            for host in 0..hosts {
                for _ in 0..disks {
                    let disk = DiskId(places.len() as u32 + 1);
                    places.push(Place { disk, rack, host: rack * hosts + host, groups: 0, primaries: 0 });
                }
            }
        }
        places
    }

    #[test]
    fn the_widest_domain_there_is_enough_of() {
        assert_eq!(domain(&cluster(3, 1, 1), 3), Some(Domain::Rack));
        assert_eq!(domain(&cluster(2, 2, 1), 3), Some(Domain::Host));
        assert_eq!(domain(&cluster(1, 1, 3), 3), Some(Domain::Disk));
        assert_eq!(domain(&cluster(1, 1, 2), 3), None);
        assert_eq!(domain(&cluster(1, 1, 1), 1), Some(Domain::Rack));
    }

    proptest! {
        #[test]
        fn members_are_apart_and_load_is_even(
            racks in 3_u32..6, hosts in 1_u32..3, disks in 1_u32..3, replicas in 1_usize..=3,
        ) {
            let mut places = cluster(racks, hosts, disks);
            let count = 64 * places.len() as u64 / replicas as u64;
            for seed in 0..count {
                let members = choose(&mut places, replicas, Domain::Rack, seed).unwrap();
                let racks: BTreeSet<_> = members
                    .iter()
                    .map(|disk| places.iter().find(|place| place.disk == *disk).unwrap().rack)
                    .collect();
                prop_assert_eq!(racks.len(), replicas);
            }
            for place in &places {
                prop_assert!((60..=68).contains(&place.groups), "{:?}", place);
                let share = count as f64 / places.len() as f64;
                prop_assert!(f64::from(place.primaries) <= share + 2.0, "{:?}", place);
                prop_assert!(f64::from(place.primaries) >= share - 2.0, "{:?}", place);
            }
        }
    }

    #[test]
    fn partners_differ() {
        let mut places = cluster(6, 1, 1);
        let groups: BTreeSet<_> = (0..60)
            .map(|seed| {
                let mut members = choose(&mut places, 3, Domain::Rack, seed).unwrap();
                members.sort_unstable();
                members
            })
            .collect();
        assert!(groups.len() >= 10, "{groups:?}");
    }
}
