//! Finds the job's master: by the address it was last known at, and by asking Fuxi's master for a new one.

use std::time::{Duration, Instant};

use kuafu::{Address, CallOptions, Channel, Client, ClientConfig};
use sched_api::proto::{FindJobRequest, FuxiClient, WorkClient};

/// For one answer of Fuxi's master.
const TIMEOUT: Duration = Duration::from_secs(5);

/// See the module.
#[derive(Debug)]
pub struct Finder {
    job: String,
    master: Option<FuxiClient>,
    transport: ClientConfig,
    address: Option<Address>,
    client: Option<WorkClient>,
    unknown_since: Option<Instant>,
}

impl Finder {
    #[must_use]
    pub fn new(
        job: String,
        master: Option<Channel>,
        address: Option<Address>,
        transport: ClientConfig,
    ) -> Self {
        Self {
            job,
            master: master.map(FuxiClient::new),
            transport,
            address,
            client: None,
            unknown_since: None,
        }
    }

    /// A client of the job's master where it was last known; `None` if nobody has said.
    pub fn client(&mut self) -> Option<WorkClient> {
        if self.client.is_none() {
            let address = self.address.clone()?;
            self.client = Some(WorkClient::new(Client::new(address, self.transport.clone())));
        }
        self.client.clone()
    }

    /// For how long Fuxi's master has been saying that there is no such job.
    #[must_use]
    pub fn unknown_for(&self, now: Instant) -> Option<Duration> {
        self.unknown_since.map(|since| now.saturating_duration_since(since))
    }

    /// The job's master has answered.
    pub fn answered(&mut self) {
        self.unknown_since = None;
    }

    /// Asks where it is now. The old address stays in use until there is another one.
    pub async fn look(&mut self) {
        let Some(master) = &self.master else { return };
        let request = FindJobRequest { job: self.job.clone() };
        let reply = match master.find_job(&request, &CallOptions::within(TIMEOUT)).await {
            Ok(response) => response.message,
            Err(status) => {
                tracing::debug!(%status, "nobody says where the job's master is");
                return;
            }
        };
        if reply.unknown {
            self.unknown_since.get_or_insert_with(Instant::now);
            return;
        }
        self.unknown_since = None;
        if reply.address.is_empty() {
            return;
        }
        match reply.address.parse::<Address>() {
            Ok(address) if self.address.as_ref() == Some(&address) => {}
            Ok(address) => {
                tracing::info!(%address, "the job's master is here now");
                self.address = Some(address);
                self.client = None;
            }
            Err(error) => tracing::warn!(%error, "the job's master is at no address that can be used"),
        }
    }
}
