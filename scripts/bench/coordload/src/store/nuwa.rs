//! Nuwa, by its own client. It asks the leader, whichever member it was given, and repeats a change under its number
//! until it is answered; the change is made once.

use nuwa_api::client::Freshness as Kind;
use nuwa_api::{Address, ClientConfig, NuwaClient, Place, Session, Watched};
use anyhow::Context as _;
use tokio::sync::OnceCell;
use zhongkui_access::{Audit, KeyDirectory, directory};

use super::{Freshness, OnEvent, SESSION_TTL, Store};

pub(crate) struct Nuwa {
    client: NuwaClient,
    /// Opened by the first change: reading and watching need none.
    session: OnceCell<Session>,
}

impl Nuwa {
    async fn session(&self) -> anyhow::Result<&Session> {
        let open = || self.client.open_session(SESSION_TTL, "coordload", None);
        Ok(self.session.get_or_try_init(open).await?)
    }
}

impl Store for Nuwa {
    async fn connect(endpoints: &[String]) -> anyhow::Result<Self> {
        let members = endpoints.iter().map(|endpoint| format!("tcp://{endpoint}").parse::<Address>());
        let keys = std::env::var_os("FEITIAN_KEYS").context("FEITIAN_KEYS names the folder with Nuwa's keys")?;
        let access = KeyDirectory::at(keys).access(directory::ADMIN, Audit::none())?;
        let members = members.collect::<Result<_, _>>()?;
        let client = NuwaClient::new(ClientConfig::with(members, access.transport()));
        Ok(Self { client, session: OnceCell::new() })
    }

    async fn create(&self, key: &str, value: &[u8]) -> anyhow::Result<()> {
        self.put(key, value).await
    }

    async fn put(&self, key: &str, value: &[u8]) -> anyhow::Result<()> {
        self.session().await?.put(key, value.to_vec(), None).await?;
        Ok(())
    }

    async fn get(&self, key: &str, freshness: Freshness) -> anyhow::Result<Option<Vec<u8>>> {
        let kind = match freshness {
            Freshness::Linearizable => Kind::Linearizable,
            Freshness::Stale => Kind::Stale,
        };
        Ok(self.client.get(key, kind, None).await?.map(|entry| entry.value.to_vec()))
    }

    async fn watch(&self, key: &str, watchers: usize, on_event: OnEvent) -> anyhow::Result<()> {
        for number in 0..watchers {
            let mut watcher = self.client.watch(key, Place::NOW);
            watcher.begin().await?;
            let on_event = on_event.clone();
            tokio::spawn(async move {
                while let Ok(Watched::Event(event)) = watcher.next().await {
                    on_event(number, event.entry.as_ref().map(|entry| &*entry.value));
                }
            });
        }
        Ok(())
    }
}
