//! Closed loop: so many calls in flight, each followed by the next. Every key has one writer, so that what was acknowledged
//! last is what must be found.

use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::ensure;
use clap::Args;
use serde::{Deserialize, Serialize};
use tokio::task::JoinSet;

use crate::Target;
use crate::procs::own_cpu_s;
use crate::record::{Closed, Latencies};
use crate::store::{Freshness, Store};

#[derive(Debug, Args)]
pub(crate) struct ClosedFlags {
    #[arg(long, default_value_t = 64)]
    in_flight: usize,
    #[arg(long, default_value_t = 256)]
    value_bytes: usize,
    #[arg(long, default_value_t = 1000)]
    keys: usize,
    /// Seconds that are not counted
    #[arg(long, default_value_t = 1.0)]
    warmup: f64,
    #[arg(long, default_value_t = 6.0)]
    seconds: f64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Op {
    Put,
    Get,
    GetStale,
}

/// A key, and the numbers of what was written to it.
struct Key {
    name: String,
    tried: u64,
    acknowledged: u64,
}

/// What one of the loops did.
struct Done {
    latencies: Latencies,
    failed: u64,
    keys: Vec<Key>,
}

struct Window {
    begin: Instant,
    end: Instant,
}

pub(crate) async fn run<S: Store>(target: &Target, flags: &ClosedFlags, op: Op) -> anyhow::Result<Closed> {
    ensure!((1..=flags.keys).contains(&flags.in_flight), "each call in flight needs a key of its own");
    let stores = target.connect::<S>(target.connections.min(flags.in_flight)).await?;
    let shares = preload(&stores, flags).await?;

    let begin = Instant::now() + Duration::from_secs_f64(flags.warmup);
    let window = Arc::new(Window { begin, end: begin + Duration::from_secs_f64(flags.seconds) });
    let mut loops = JoinSet::new();
    for (number, keys) in shares.into_iter().enumerate() {
        let (store, window) = (stores[number % stores.len()].clone(), window.clone());
        let value = vec![b'v'; flags.value_bytes];
        loops.spawn(async move { repeat(&*store, op, keys, value, &window, number as u64).await });
    }
    let procs = target.procs();
    tokio::time::sleep_until(window.begin.into()).await;
    let (server_before, own_before) = (procs.cpu_s(), own_cpu_s());
    tokio::time::sleep_until(window.end.into()).await;
    let (server_s, own_s) = (procs.cpu_s() - server_before, own_cpu_s() - own_before);

    let mut latencies = Latencies::new();
    let (mut failed, mut keys) = (0, Vec::new());
    while let Some(done) = loops.join_next().await {
        let done = done?;
        latencies.add(&done.latencies);
        failed += done.failed;
        keys.extend(done.keys);
    }
    let lost = count_lost(&stores, keys).await?;
    let ops = latencies.count() as f64;
    Ok(Closed {
        op,
        in_flight: flags.in_flight,
        connections: stores.len(),
        value_bytes: flags.value_bytes,
        per_s: ops / flags.seconds,
        p50_ms: latencies.quantile_ms(0.5),
        p99_ms: latencies.quantile_ms(0.99),
        failed,
        lost,
        server_cpu_s_per_1000: server_s / ops * 1e3,
        server_cores: server_s / flags.seconds,
        client_cores: own_s / flags.seconds,
        rss_mib: procs.rss_mib(),
    })
}

async fn repeat<S: Store>(
    store: &S,
    op: Op,
    mut keys: Vec<Key>,
    mut value: Vec<u8>,
    window: &Window,
    seed: u64,
) -> Done {
    let (mut latencies, mut failed, mut random) = (Latencies::new(), 0, seed);
    loop {
        let start = Instant::now();
        if start >= window.end {
            return Done { latencies, failed, keys };
        }
        random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        let at = (random >> 33) as usize % keys.len();
        let key = &mut keys[at];
        let ok = match op {
            Op::Put => {
                key.tried += 1;
                set_number(&mut value, key.tried);
                let ok = store.put(&key.name, &value).await.is_ok();
                if ok {
                    key.acknowledged = key.tried;
                }
                ok
            }
            Op::Get => matches!(store.get(&key.name, Freshness::Linearizable).await, Ok(Some(_))),
            Op::GetStale => matches!(store.get(&key.name, Freshness::Stale).await, Ok(Some(_))),
        };
        let end = Instant::now();
        if (window.begin..window.end).contains(&end) {
            if ok {
                latencies.record(end - start);
            } else {
                failed += 1;
            }
        }
    }
}

/// All keys with their first value, dealt out to the loops.
async fn preload<S: Store>(stores: &[Arc<S>], flags: &ClosedFlags) -> anyhow::Result<Vec<Vec<Key>>> {
    let mut shares: Vec<Vec<Key>> = (0..flags.in_flight).map(|_| Vec::new()).collect();
    for number in 0..flags.keys {
        let key = Key { name: format!("/load{number:06}"), tried: 0, acknowledged: 0 };
        shares[number % flags.in_flight].push(key);
    }
    let mut value = vec![b'v'; flags.value_bytes];
    set_number(&mut value, 0);
    let value = Arc::new(value);
    let mut writers = JoinSet::new();
    for (number, keys) in shares.into_iter().enumerate() {
        let (store, value) = (stores[number % stores.len()].clone(), value.clone());
        writers.spawn(async move {
            for key in &keys {
                store.create(&key.name, &value).await?;
            }
            anyhow::Ok((number, keys))
        });
    }
    let mut shares = Vec::new();
    while let Some(share) = writers.join_next().await {
        shares.push(share??);
    }
    shares.sort_by_key(|(number, _)| *number);
    Ok(shares.into_iter().map(|(_, keys)| keys).collect())
}

/// Keys that do not have what was acknowledged last, or something that was tried after it and failed.
async fn count_lost<S: Store>(stores: &[Arc<S>], keys: Vec<Key>) -> anyhow::Result<u64> {
    let mut lost = 0;
    for (number, key) in keys.iter().enumerate() {
        let value = stores[number % stores.len()].get(&key.name, Freshness::Linearizable).await?;
        let found = value.as_deref().and_then(number_of);
        lost += u64::from(!found.is_some_and(|found| (key.acknowledged..=key.tried).contains(&found)));
    }
    Ok(lost)
}

/// A value begins with its number.
pub(crate) fn set_number(value: &mut Vec<u8>, number: u64) {
    value.resize(value.len().max(size_of::<u64>()), 0);
    value[..size_of::<u64>()].copy_from_slice(&number.to_le_bytes());
}

pub(crate) fn number_of(value: &[u8]) -> Option<u64> {
    value.first_chunk().map(|bytes| u64::from_le_bytes(*bytes))
}
