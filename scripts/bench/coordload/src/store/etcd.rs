//! etcd, by its Rust client (gRPC). It balances calls over its endpoints, and tries nothing again.

use std::time::Duration;

use anyhow::{Context as _, bail};
use etcd_client::{Client, ConnectOptions, GetOptions};

use super::{Freshness, OnEvent, Store};

pub(crate) struct Etcd(Client);

impl Store for Etcd {
    async fn connect(endpoints: &[String]) -> anyhow::Result<Self> {
        let options = ConnectOptions::new().with_connect_timeout(Duration::from_secs(2));
        Ok(Self(Client::connect(endpoints, Some(options)).await?))
    }

    async fn create(&self, key: &str, value: &[u8]) -> anyhow::Result<()> {
        self.put(key, value).await
    }

    async fn put(&self, key: &str, value: &[u8]) -> anyhow::Result<()> {
        self.0.kv_client().put(key, value, None).await?;
        Ok(())
    }

    async fn get(&self, key: &str, freshness: Freshness) -> anyhow::Result<Option<Vec<u8>>> {
        let options = (freshness == Freshness::Stale).then(|| GetOptions::new().with_serializable());
        let reply = self.0.kv_client().get(key, options).await?;
        Ok(reply.kvs().first().map(|kv| kv.value().to_vec()))
    }

    async fn watch(&self, key: &str, watchers: usize, on_event: OnEvent) -> anyhow::Result<()> {
        // All watchers of a connection share one stream, as etcd's own client does.
        let mut stream = self.0.watch_client().watch(key, None).await?;
        for _ in 1..watchers {
            stream.watch(key, None).await?;
        }
        let mut ids = Vec::new();
        while ids.len() < watchers {
            let reply = stream.message().await?.context("the watch stream ended")?;
            if reply.canceled() {
                bail!("a watch was refused: {}", reply.cancel_reason());
            }
            if reply.created() {
                ids.push(reply.watch_id());
            }
        }
        tokio::spawn(async move {
            while let Ok(Some(reply)) = stream.message().await {
                let Some(watcher) = ids.iter().position(|id| *id == reply.watch_id()) else { continue };
                for event in reply.events() {
                    on_event(watcher, event.kv().map(|kv| kv.value()));
                }
            }
        });
        Ok(())
    }
}
