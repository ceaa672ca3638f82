//! The masters as a chunkserver calls them: the one that answered last, and after a failure the next or the one it named.

use std::time::Duration;

use kuafu::{Address, Client, ClientConfig, Response, Status};
use master_api::proto;

/// After all masters were tried.
const BACKOFF_MIN: Duration = Duration::from_millis(50);
const BACKOFF_MAX: Duration = Duration::from_millis(500);
/// Addresses learned from hints are kept beside the configured ones, up to this many in all.
const MASTERS_MAX: usize = 32;

/// The masters, the one that answered last first.
pub(crate) struct Masters {
    clients: Vec<(Address, proto::ClusterClient)>,
    at: usize,
    config: ClientConfig,
    configured: master_api::Masters,
}

impl Masters {
    pub(crate) fn new(configured: &master_api::Masters, config: ClientConfig) -> Self {
        let mut configured = configured.clone();
        if let Some(registered) = &mut configured.registered {
            registered.mark_changed();
        }
        let mut masters = Self { clients: Vec::new(), at: 0, config, configured };
        for address in masters.configured.listed.clone() {
            masters.position(address);
        }
        masters
    }

    pub(crate) fn len(&self) -> usize {
        self.clients.len()
    }

    /// The leader said who all masters are. Those that are neither of them nor configured are forgotten, but for the one that is
    /// asked now.
    pub(crate) fn learn(&mut self, masters: &[Address]) {
        if masters.is_empty() {
            return;
        }
        let Some(current) = self.clients.get(self.at).map(|(current, _)| current.clone()) else {
            for address in masters.iter().take(MASTERS_MAX) {
                self.position(address.clone());
            }
            return;
        };
        let configured = &self.configured.listed;
        self.clients
            .retain(|(known, _)| masters.contains(known) || configured.contains(known) || *known == current);
        for address in masters.iter().take(MASTERS_MAX) {
            self.position(address.clone());
        }
        self.at = self.position(current);
    }

    /// Where this master is in the list; added if it is not.
    fn position(&mut self, address: Address) -> usize {
        if let Some(at) = self.clients.iter().position(|(known, _)| *known == address) {
            return at;
        }
        let client = proto::ClusterClient::new(Client::new(address.clone(), self.config.clone()));
        self.clients.push((address, client));
        self.clients.len() - 1
    }

    /// One attempt; after a failure, the next goes elsewhere.
    pub(crate) async fn attempt<T, A: Future<Output = Result<Response<T>, Status>>>(
        &mut self,
        call: impl FnOnce(proto::ClusterClient) -> A,
    ) -> Result<T, Status> {
        for address in self.configured.news().into_iter().flatten() {
            if self.clients.len() < MASTERS_MAX {
                self.position(address);
            }
        }
        let Some((_, client)) = self.clients.get(self.at) else {
            return Err(Status::not_reached("no master is registered yet"));
        };
        let result = call(client.clone()).await;
        result.map(|response| response.message).inspect_err(|status| {
            let hint = status.leader().and_then(|leader| leader.parse().ok());
            let full = self.clients.len() >= MASTERS_MAX;
            self.at = match hint {
                Some(leader) if !full || self.clients.iter().any(|(known, _)| *known == leader) => {
                    self.position(leader)
                }
                Some(_) | None => (self.at + 1) % self.clients.len(),
            };
        })
    }
}

/// None while there are masters not yet tried, then growing.
pub(crate) fn backoff(failures: u32, masters: usize) -> Duration {
    let rounds = failures / u32::try_from(masters).unwrap_or(u32::MAX).max(1);
    if rounds == 0 {
        return Duration::from_millis(1);
    }
    BACKOFF_MAX.min(BACKOFF_MIN.saturating_mul(1 << rounds.min(8)))
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn refuse(masters: &mut Masters, status: Status) -> usize {
        let refused: Result<(), _> = masters.attempt(|_| async { Err(status) }).await;
        refused.unwrap_err();
        masters.at
    }

    #[tokio::test]
    async fn a_failure_leads_to_the_next_master_or_to_the_one_that_was_named() {
        let address = |n: usize| format!("tcp://10.0.0.{n}:1");
        let known: Vec<Address> = (0..3).map(|n| address(n).parse().unwrap()).collect();
        let mut masters = Masters::new(&known.into(), ClientConfig::default());
        for at in [1, 2, 0] {
            assert_eq!(refuse(&mut masters, Status::unavailable("away")).await, at);
        }
        assert_eq!(refuse(&mut masters, Status::not_leader(Some(&address(2)))).await, 2);
        assert_eq!(refuse(&mut masters, Status::not_leader(None)).await, 0);
        for n in 3..MASTERS_MAX {
            assert_eq!(refuse(&mut masters, Status::not_leader(Some(&address(n)))).await, n);
        }
        let beyond = Status::not_leader(Some(&address(MASTERS_MAX)));
        assert_eq!(refuse(&mut masters, beyond).await, 0, "the list is full: the next one");
        assert_eq!(refuse(&mut masters, Status::not_leader(Some(&address(7)))).await, 7);
        let answered = masters.attempt(|_| async { Ok(Response::new(5)) }).await;
        assert_eq!((answered.unwrap(), masters.at, masters.len()), (5, 7, MASTERS_MAX));
    }

    #[tokio::test]
    async fn the_list_follows_the_masters_as_they_are_replaced() {
        let address = |n: usize| format!("tcp://10.0.0.{n}:1").parse::<Address>().unwrap();
        let mut masters = Masters::new(&vec![address(1), address(2)].into(), ClientConfig::default());
        let known =
            |masters: &Masters| masters.clients.iter().map(|(known, _)| known.clone()).collect::<Vec<_>>();
        masters.learn(&[address(2), address(3)]);
        assert_eq!((known(&masters), masters.at), (vec![address(1), address(2), address(3)], 0));
        masters.at = 2;
        masters.learn(&[address(4), address(5)]);
        assert_eq!(known(&masters), [1, 2, 3, 4, 5].map(address), "3 is asked now");
        masters.at = 4;
        masters.learn(&[address(5), address(6)]);
        assert_eq!((known(&masters), masters.at), ([1, 2, 5, 6].map(address).to_vec(), 2));
        masters.learn(&[]);
        assert_eq!(masters.len(), 4);
    }

    #[tokio::test]
    async fn masters_that_register_are_tried_too() {
        let address = |n: usize| format!("tcp://10.0.0.{n}:1").parse::<Address>().unwrap();
        let registry = tokio::sync::watch::Sender::new(None);
        let configured = master_api::Masters { listed: Vec::new(), registered: Some(registry.subscribe()) };
        let mut masters = Masters::new(&configured, ClientConfig::default());
        refuse(&mut masters, Status::unavailable("nobody is asked")).await;
        assert_eq!(masters.len(), 0);
        registry.send_replace(Some([1, 2].map(|n| kuafu::Endpoint::new(address(n))).into()));
        refuse(&mut masters, Status::unavailable("away")).await;
        assert_eq!((masters.len(), masters.at), (2, 1));
        registry.send_replace(Some([3].map(|n| kuafu::Endpoint::new(address(n))).into()));
        assert_eq!(refuse(&mut masters, Status::unavailable("away")).await, 2);
        assert_eq!(Masters::new(&configured, ClientConfig::default()).len(), 0, "it looks when it asks");
    }

    #[test]
    fn all_masters_are_tried_before_a_pause() {
        assert_eq!(backoff(1, 3), Duration::from_millis(1));
        assert_eq!(backoff(2, 3), Duration::from_millis(1));
        assert_eq!(backoff(3, 3), Duration::from_millis(100));
        assert_eq!(backoff(300, 3), BACKOFF_MAX);
        assert_eq!(backoff(u32::MAX, 1), BACKOFF_MAX);
    }
}
