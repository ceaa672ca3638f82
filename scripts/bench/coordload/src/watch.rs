//! Watches: one writer at a steady rate, many watchers of the key it writes.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use clap::Args;
use tokio::task::JoinSet;

use crate::Target;
use crate::closed::{number_of, set_number};
use crate::procs::own_cpu_s;
use crate::record::{Latencies, Watch};
use crate::store::{OnEvent, Store};

const KEY: &str = "/watched";
/// Between setting up the watchers and the first put.
const SETTLE: Duration = Duration::from_secs(1);
/// How long late events are waited for at the end.
const GRACE: Duration = Duration::from_secs(10);

#[derive(Debug, Args)]
pub(crate) struct WatchFlags {
    #[arg(long, default_value_t = 1000)]
    watchers: usize,
    /// Puts a second, whether or not they are answered
    #[arg(long, default_value_t = 100.0)]
    rate: f64,
    #[arg(long, default_value_t = 256)]
    value_bytes: usize,
    /// Seconds of puts whose times are not counted; their events are
    #[arg(long, default_value_t = 2.0)]
    warmup: f64,
    #[arg(long, default_value_t = 8.0)]
    seconds: f64,
}

/// One put: how many watchers were told of it, and when.
#[derive(Default)]
struct Put {
    told: AtomicUsize,
    last_nanos: AtomicU64,
}

/// When a put was sent and acknowledged.
struct Written {
    number: usize,
    sent: Instant,
    acknowledged: Instant,
}

pub(crate) async fn run<S: Store>(target: &Target, flags: &WatchFlags) -> anyhow::Result<Watch> {
    let warmup = (flags.rate * flags.warmup) as usize;
    let puts: Arc<[Put]> =
        (0..warmup + (flags.rate * flags.seconds) as usize).map(|_| Put::default()).collect();
    let writer = target.connect::<S>(1).await?.remove(0);
    writer.create(KEY, &value(u64::MAX, flags.value_bytes)).await?;
    let start = Instant::now();
    let watching = target.connect::<S>(target.connections.min(flags.watchers)).await?;
    for (number, store) in watching.iter().enumerate() {
        let watchers =
            flags.watchers / watching.len() + usize::from(number < flags.watchers % watching.len());
        store.watch(KEY, watchers, on_event(watchers, puts.clone(), start)).await?;
    }
    tokio::time::sleep(SETTLE).await;

    let procs = target.procs();
    let (server_before, own_before, first) = (procs.cpu_s(), own_cpu_s(), Instant::now());
    let mut writes = JoinSet::new();
    for number in 0..puts.len() {
        tokio::time::sleep_until((first + Duration::from_secs_f64(number as f64 / flags.rate)).into()).await;
        let (writer, value) = (writer.clone(), value(number as u64, flags.value_bytes));
        writes.spawn(async move {
            let sent = Instant::now();
            writer.put(KEY, &value).await?;
            anyhow::Ok(Written { number, sent, acknowledged: Instant::now() })
        });
    }
    let mut written = Vec::new();
    while let Some(write) = writes.join_next().await {
        written.push(write??);
    }
    let all_told = || puts.iter().all(|put| put.told.load(Ordering::Relaxed) >= flags.watchers);
    let until = Instant::now() + GRACE;
    while Instant::now() < until && !all_told() {
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    let took_s = first.elapsed().as_secs_f64();
    let (server_s, own_s) = (procs.cpu_s() - server_before, own_cpu_s() - own_before);

    let (mut from_sent, mut from_ack, mut put_times) = (Latencies::new(), Latencies::new(), Latencies::new());
    for write in written.iter().filter(|write| write.number >= warmup) {
        put_times.record(write.acknowledged - write.sent);
        let put = &puts[write.number];
        if put.told.load(Ordering::Relaxed) >= flags.watchers {
            let last = start + Duration::from_nanos(put.last_nanos.load(Ordering::Relaxed));
            from_sent.record(last.saturating_duration_since(write.sent));
            // An event may come before the writer's own acknowledgement.
            from_ack.record(last.saturating_duration_since(write.acknowledged));
        }
    }
    let delivered: usize = puts.iter().map(|put| put.told.load(Ordering::Relaxed)).sum();
    Ok(Watch {
        watchers: flags.watchers,
        connections: watching.len(),
        puts: puts.len(),
        lost: puts.iter().map(|put| flags.watchers.abs_diff(put.told.load(Ordering::Relaxed)) as u64).sum(),
        last_p50_ms: from_sent.quantile_ms(0.5),
        last_p99_ms: from_sent.quantile_ms(0.99),
        last_after_ack_p50_ms: from_ack.quantile_ms(0.5),
        last_after_ack_p99_ms: from_ack.quantile_ms(0.99),
        put_p99_ms: put_times.quantile_ms(0.99),
        server_cpu_s_per_million: server_s / delivered.max(1) as f64 * 1e6,
        server_cores: server_s / took_s,
        client_cores: own_s / took_s,
        rss_mib: procs.rss_mib(),
    })
}

/// Notes that a watcher of one connection was told.
fn on_event(watchers: usize, puts: Arc<[Put]>, start: Instant) -> OnEvent {
    let counts: Vec<AtomicUsize> = (0..watchers).map(|_| AtomicUsize::new(0)).collect();
    Arc::new(move |watcher, value| {
        let nth = counts[watcher].fetch_add(1, Ordering::Relaxed);
        let number = match value {
            Some(value) => number_of(value).and_then(|number| usize::try_from(number).ok()),
            None => Some(nth),
        };
        if let Some(put) = number.and_then(|number| puts.get(number)) {
            let now_nanos = u64::try_from(start.elapsed().as_nanos()).unwrap_or(u64::MAX);
            put.last_nanos.fetch_max(now_nanos, Ordering::Relaxed);
            put.told.fetch_add(1, Ordering::Relaxed);
        }
    })
}

fn value(number: u64, value_bytes: usize) -> Vec<u8> {
    let mut value = vec![b'w'; value_bytes];
    set_number(&mut value, number);
    value
}
