//! The leader is killed while clients that know all members write at a steady rate, whether or not they are answered.
//! Every write makes a key of its own; those that were acknowledged are read back.

use std::process::Command;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail, ensure};
use clap::Args;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use tokio::task::{JoinHandle, JoinSet, spawn_blocking};

use crate::Target;
use crate::record::Kill;
use crate::store::{Freshness, Store};

/// A write that is not answered by then has failed.
const WRITE_TIMEOUT: Duration = Duration::from_secs(10);
/// The leader is looked up so long before it is killed.
const LOOK_UP: Duration = Duration::from_secs(1);
/// Reads of one key that fail before reading back fails, and the time between them.
const READ_ATTEMPTS_MAX: usize = 50;
const READ_RETRY: Duration = Duration::from_millis(200);
/// Keys that are read back at the same time.
const READS_IN_FLIGHT: usize = 64;

#[derive(Debug, Args)]
pub(crate) struct KillFlags {
    #[arg(long, default_value_t = 10)]
    kills: usize,
    /// Clients
    #[arg(long, default_value_t = 6)]
    clients: usize,
    /// Writes a second
    #[arg(long, default_value_t = 200.0)]
    rate: f64,
    #[arg(long, default_value_t = 256)]
    value_bytes: usize,
    /// Prints the leader's process as its first word
    #[arg(long)]
    leader_command: String,
    /// Starts the dead member again, and returns when all serve
    #[arg(long)]
    restart_command: String,
    /// Seconds of writes before the kill (more than one)
    #[arg(long, default_value_t = 2.0)]
    before: f64,
    /// Seconds of writes between the kill and the restart: where the gap is looked for
    #[arg(long, default_value_t = 5.0)]
    after: f64,
    /// Seconds of writes from the restart on
    #[arg(long, default_value_t = 3.0)]
    rejoin: f64,
}

struct Write {
    key: String,
    client: usize,
    acknowledged: Option<Instant>,
}

/// Calls `found` after each kill.
pub(crate) async fn run<S: Store>(
    target: &Target,
    flags: &KillFlags,
    found: impl Fn(Kill) -> anyhow::Result<()>,
) -> anyhow::Result<()> {
    let before = Duration::from_secs_f64(flags.before);
    ensure!(before > LOOK_UP, "--before is at most {LOOK_UP:?}: the leader is looked up in that time");
    let mut stores = Vec::new();
    for client in 0..flags.clients {
        let mut endpoints = target.endpoints.clone();
        endpoints.rotate_left(client % target.endpoints.len());
        stores.push(Arc::new(S::connect(&endpoints).await?));
    }
    for number in 0..flags.kills {
        // The commands run beside the writes, which keep their pace.
        let begin = Instant::now();
        let killer = tokio::spawn(kill_leader(begin + before, flags.leader_command.clone()));
        let restart_at = begin + before + Duration::from_secs_f64(flags.after);
        let restart = tokio::spawn(restart(restart_at, flags.restart_command.clone()));
        let writes = write(&stores, flags, begin, number).await?;
        let (killed, ()) = (joined(killer).await?, joined(restart).await?);

        let window = (killed, killed + Duration::from_secs_f64(flags.after));
        let of_client = |client| writes.iter().filter(move |write: &&Write| write.client == client);
        let worst = (0..stores.len()).map(|client| longest_gap(of_client(client), window)).max();
        let acknowledged = writes.iter().filter(|write| write.acknowledged.is_some()).count() as u64;
        found(Kill {
            gap_ms: longest_gap(writes.iter(), window).as_secs_f64() * 1e3,
            worst_client_gap_ms: worst.unwrap_or_default().as_secs_f64() * 1e3,
            acknowledged,
            failed: writes.len() as u64 - acknowledged,
            lost: count_lost(&stores, &writes).await?,
        })?;
    }
    Ok(())
}

/// Open loop until the end of the round; returns when each write was answered or has failed.
async fn write<S: Store>(
    stores: &[Arc<S>],
    flags: &KillFlags,
    begin: Instant,
    round: usize,
) -> anyhow::Result<Vec<Write>> {
    let seconds = flags.before + flags.after + flags.rejoin;
    let run = std::process::id();
    let mut writes = JoinSet::new();
    for number in 0..(seconds * flags.rate) as usize {
        tokio::time::sleep_until((begin + Duration::from_secs_f64(number as f64 / flags.rate)).into()).await;
        let (client, key) = (number % stores.len(), format!("/kill-{run}-{round}-{number:06}"));
        let (store, value) = (stores[client].clone(), vec![b'k'; flags.value_bytes]);
        writes.spawn(async move {
            let reply = tokio::time::timeout(WRITE_TIMEOUT, store.create(&key, &value)).await;
            let acknowledged = matches!(reply, Ok(Ok(()))).then(Instant::now);
            Write { key, client, acknowledged }
        });
    }
    let mut done = Vec::new();
    while let Some(write) = writes.join_next().await {
        done.push(write?);
    }
    Ok(done)
}

async fn kill_leader(at: Instant, leader_command: String) -> anyhow::Result<Instant> {
    tokio::time::sleep_until((at - LOOK_UP).into()).await;
    let printed = spawn_blocking(move || shell(&leader_command)).await??;
    let pid: i32 = printed.split_whitespace().next().context("no leader was named")?.parse()?;
    tokio::time::sleep_until(at.into()).await;
    let now = Instant::now();
    kill(Pid::from_raw(pid), Signal::SIGKILL).with_context(|| format!("kill {pid}"))?;
    Ok(now)
}

async fn restart(at: Instant, restart_command: String) -> anyhow::Result<()> {
    tokio::time::sleep_until(at.into()).await;
    spawn_blocking(move || shell(&restart_command)).await??;
    Ok(())
}

async fn joined<T>(task: JoinHandle<anyhow::Result<T>>) -> anyhow::Result<T> {
    task.await?
}

/// The longest time without an acknowledgement that ends within the window; one that lasts beyond it ends with it.
fn longest_gap<'a>(writes: impl Iterator<Item = &'a Write>, (killed, end): (Instant, Instant)) -> Duration {
    let acknowledged = writes.filter_map(|write| write.acknowledged).filter(|at| *at < end);
    let mut times: Vec<Instant> = acknowledged.chain([end]).collect();
    times.sort();
    let gaps = times.windows(2).filter(|pair| pair[1] >= killed).map(|pair| pair[1] - pair[0]);
    gaps.max().unwrap_or(end - killed)
}

/// Acknowledged writes whose keys are not there.
async fn count_lost<S: Store>(stores: &[Arc<S>], writes: &[Write]) -> anyhow::Result<u64> {
    let keys: Vec<&String> =
        writes.iter().filter(|write| write.acknowledged.is_some()).map(|write| &write.key).collect();
    let mut lost = 0;
    for part in keys.chunks(READS_IN_FLIGHT) {
        let mut reads = JoinSet::new();
        for (number, key) in part.iter().enumerate() {
            let (store, key) = (stores[number % stores.len()].clone(), (*key).clone());
            reads.spawn(async move { is_there(&*store, &key).await });
        }
        while let Some(is_there) = reads.join_next().await {
            lost += u64::from(!is_there??);
        }
    }
    Ok(lost)
}

async fn is_there<S: Store>(store: &S, key: &str) -> anyhow::Result<bool> {
    for _ in 0..READ_ATTEMPTS_MAX {
        if let Ok(found) = store.get(key, Freshness::Linearizable).await {
            return Ok(found.is_some());
        }
        tokio::time::sleep(READ_RETRY).await;
    }
    bail!("cannot read {key} back")
}

fn shell(command: &str) -> anyhow::Result<String> {
    let output = Command::new("bash").args(["-c", command]).output()?;
    if !output.status.success() {
        bail!("{command}: {}", String::from_utf8_lossy(&output.stderr).trim());
    }
    Ok(String::from_utf8(output.stdout)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_gap_ends_after_the_kill() {
        let begin = Instant::now();
        let at = |ms| begin + Duration::from_millis(ms);
        let gap = |acknowledged: &[u64]| {
            let write = |ms: &u64| Write { key: String::new(), client: 0, acknowledged: Some(at(*ms)) };
            let writes: Vec<Write> = acknowledged.iter().map(write).collect();
            longest_gap(writes.iter(), (at(1000), at(6000))).as_millis()
        };
        assert_eq!(gap(&[0, 900, 990, 1500, 1600, 5995]), 4395);
        assert_eq!(gap(&[0, 990, 1500, 1600, 1700]), 4300, "nothing was acknowledged until the end");
        assert_eq!(gap(&[0, 990, 7000]), 5010, "what came after the end does not count");
        assert_eq!(gap(&[]), 5000);
    }
}
