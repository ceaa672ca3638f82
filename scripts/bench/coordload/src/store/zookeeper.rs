//! ZooKeeper, by a Rust client of its wire protocol. It moves to another member by itself, and tries nothing again.

use zookeeper_client::{Acls, AddWatchMode, Client, CreateMode, Error, EventType, Stat};

use super::{Freshness, OnEvent, SESSION_TTL, Store};

pub(crate) struct ZooKeeper(Client);

impl Store for ZooKeeper {
    async fn connect(endpoints: &[String]) -> anyhow::Result<Self> {
        let connector = Client::connector().with_session_timeout(SESSION_TTL);
        Ok(Self(connector.connect(&endpoints.join(",")).await?))
    }

    async fn create(&self, key: &str, value: &[u8]) -> anyhow::Result<()> {
        let options = CreateMode::Persistent.with_acls(Acls::anyone_all());
        match self.0.create(key, value, &options).await {
            Ok(_) => Ok(()),
            Err(Error::NodeExists) => self.put(key, value).await,
            Err(error) => Err(error.into()),
        }
    }

    async fn put(&self, key: &str, value: &[u8]) -> anyhow::Result<()> {
        self.0.set_data(key, value, None).await?;
        Ok(())
    }

    async fn get(&self, key: &str, freshness: Freshness) -> anyhow::Result<Option<Vec<u8>>> {
        if freshness == Freshness::Linearizable {
            // The session keeps their order, so both go out at once.
            let (sync, get) = tokio::join!(self.0.sync(key), self.0.get_data(key));
            sync?;
            return found(get);
        }
        found(self.0.get_data(key).await)
    }

    async fn watch(&self, key: &str, watchers: usize, on_event: OnEvent) -> anyhow::Result<()> {
        // The client asks the server once and tells all its watchers.
        for number in 0..watchers {
            let mut watcher = self.0.watch(key, AddWatchMode::Persistent).await?;
            let on_event = on_event.clone();
            tokio::spawn(async move {
                loop {
                    let event = watcher.changed().await;
                    match event.event_type {
                        EventType::NodeDataChanged => on_event(number, None),
                        EventType::Session if event.session_state.is_terminated() => return,
                        _ => {}
                    }
                }
            });
        }
        Ok(())
    }
}

fn found(reply: Result<(Vec<u8>, Stat), Error>) -> anyhow::Result<Option<Vec<u8>>> {
    match reply {
        Ok((value, _)) => Ok(Some(value)),
        Err(Error::NoNode) => Ok(None),
        Err(error) => Err(error.into()),
    }
}
