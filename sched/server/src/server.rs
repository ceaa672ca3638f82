//! A master's life: listen, wait until it is to lead, read the spool, lead until another one may.

use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use kuafu::{Address, BindError, CancellationToken, Endpoint};
use master_api::{MasterClient, Masters};
use nuwa_api::{ClientConfig, NuwaClient};
use nuwa_naming::{NuwaResolver, Registration};
use sched_api::{MASTER_SERVICE, chain, proto};
use tokio::sync::mpsc;
use tokio::task::JoinHandle;

use crate::app::App;
use crate::config::Config;
use crate::keeper::{Keeper, NOTICES_MAX, blocking};
use crate::leader::Leadership;
use crate::leading::Leading;
use crate::notices;
use crate::service::Service;
use crate::spool::Spool;

/// How often the state is told the time.
const TICK: Duration = Duration::from_millis(200);
/// After the spool could not be read.
const PAUSE: Duration = Duration::from_secs(1);

/// Why a master did not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    #[error(transparent)]
    Bind(#[from] BindError),
}

/// A running master. [`shutdown`](Self::shutdown) stops it.
#[derive(Debug)]
pub struct FuxiMaster {
    address: Address,
    stop: CancellationToken,
    serving: JoinHandle<()>,
    leading: JoinHandle<()>,
}

impl FuxiMaster {
    /// Starts a master on the current runtime. It answers when this returns; whether it leads is another matter.
    ///
    /// # Errors
    /// See [`StartError`]; nothing is left running.
    pub async fn start(config: Config) -> Result<Self, StartError> {
        let app = Arc::new(App::default());
        let service = Arc::new(Service(Arc::clone(&app)));
        // Agents and job masters hold a right on the method; whoever may read, may look.
        let guard = config.access.guard().shows(&proto::FUXI_METHODS, "Overview").build();
        let server =
            kuafu::Server::builder().authorizer(guard).service(proto::FuxiServer::new(service)).build();
        let bound = server.bind(&config.listen).await?;
        let address = bound.local_address().clone();
        let stop = CancellationToken::new();
        let serving = tokio::spawn(bound.serve(stop.clone()));
        let leading = tokio::spawn(lead(config, address.clone(), app, stop.clone()));
        Ok(Self { address, stop, serving, leading })
    }

    /// Where it listens: port 0 has become the real one.
    #[must_use]
    pub fn address(&self) -> &Address {
        &self.address
    }

    /// Lets another one lead, then stops. Nothing that runs is stopped.
    pub async fn shutdown(self) {
        self.stop.cancel();
        for task in [self.leading, self.serving] {
            if let Err(error) = task.await {
                tracing::error!(%error, "a task of the master");
            }
        }
    }
}

async fn lead(config: Config, address: Address, app: Arc<App>, stop: CancellationToken) {
    let members = config.cluster.nuwa.clone();
    let nuwa = (!members.is_empty())
        .then(|| NuwaClient::new(ClientConfig::with(members, config.access.transport())));
    loop {
        let description = format!("fuxi-master at {address}");
        let won = async {
            match &nuwa {
                Some(nuwa) => Leadership::win(nuwa, &description).await,
                None => Leadership::alone(unix_ms()),
            }
        };
        let leadership = tokio::select! {
            won = won => won,
            () = stop.cancelled() => return,
        };
        tracing::info!(fence = leadership.fence, "this master leads");
        tokio::select! {
            () = one_term(&config, &address, &app, &leadership) => {}
            () = leadership.lost() => tracing::warn!("another master may lead: this one stops to"),
            () = stop.cancelled() => {}
        }
        app.set_leading(None);
        leadership.give_up().await;
        if stop.is_cancelled() {
            return;
        }
    }
}

/// Leads until this is dropped, or has given all the numbers it has.
async fn one_term(config: &Config, address: &Address, app: &App, leadership: &Leadership) {
    let root = config.mount.join("spool");
    let spool = loop {
        let root = root.clone();
        match blocking(move || Spool::open(&root)).await {
            Ok(spool) => break spool,
            Err(error) => tracing::error!(error = chain(&error), "the spool can not be used; trying again"),
        }
        tokio::time::sleep(PAUSE).await;
    };
    let master = match master_client(config) {
        Ok(master) => master,
        Err(error) => {
            tracing::error!(%error, "the Pangu masters do not let this one in; trying again");
            tokio::time::sleep(PAUSE).await;
            return;
        }
    };
    let leading = Arc::new(Leading::new(leadership.fence));
    let (sender, queue) = mpsc::channel(NOTICES_MAX);
    let watches = Arc::new(notices::follow(master, sender));
    let mut keeper = Keeper::new(spool, Arc::clone(&leading), watches);
    keeper.begin().await;
    // What runs is heard of only now: agents that came before would have been told to stop jobs that were not read yet.
    app.set_leading(Some(Arc::clone(&leading)));
    let endpoint = Endpoint::new(address.clone());
    let registration = Registration::of(&config.cluster, &config.access, MASTER_SERVICE, &endpoint);
    let keeping = keeper.run(queue);
    tokio::pin!(keeping);
    let mut ticks = tokio::time::interval(TICK);
    loop {
        tokio::select! {
            () = &mut keeping => break,
            _tick = ticks.tick() => {
                let is_used_up = leading.with(|state, now| {
                    state.tick(now);
                    state.scheduling.is_used_up()
                });
                if is_used_up {
                    tracing::info!("this term has given all its numbers; the next one begins");
                    break;
                }
            }
        }
    }
    nuwa_naming::withdraw(registration).await;
}

/// A session of this master's own with the Pangu masters, for events.
fn master_client(config: &Config) -> Result<MasterClient, master_api::ClientError> {
    let resolver = NuwaResolver::of(&config.cluster, &config.access);
    let registered = resolver.map(|resolver| resolver.follow(master_api::masters::SERVICE));
    let masters = Masters { listed: config.cluster.masters.clone(), registered };
    let description = format!("fuxi-master {}", std::process::id());
    let transport = config.access.transport();
    MasterClient::new(master_api::ClientConfig {
        transport,
        ..master_api::ClientConfig::new(masters, description)
    })
}

fn unix_ms() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}
