//! Reads every block of a disk once in a period and verifies it, so that damage is found while other copies are whole.
//! What is damaged goes to [`crate::repair`].
//!
//! Chunks are read in key order, at the pace that brings the pass to its end a little early; a pass that begins late or fell
//! behind goes faster, up to a bound. Where it stands is kept on the disk, so that a restart does not begin anew.

use std::convert::Infallible;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use chunkserver_core::Stage;
use chunkserver_engine::EngineError;
use coord_types::{ChunkKey, GroupId, WRITE_SIZE_MAX};
use parking_lot::Mutex;
use tokio::time::Instant;

use crate::disks::Disk;
use crate::fill::pieces;
use crate::group::Group;
use crate::node::Node;

/// Where the pass stands; see [`Pass::encode`].
const SETTING: &str = "scrub";
/// Chunks looked up at a time.
const PAGE: usize = 64;
/// A small disk need not take all of the period.
const RATE_MIN_BYTES_PER_S: u64 = 1 << 20;
/// However late it is: the disk has other things to do.
const RATE_MAX_BYTES_PER_S: u64 = 64 << 20;
/// How often the position is kept. What is lost in between is read twice.
const KEEP_PERIOD: Duration = Duration::from_secs(30);
/// After metadata that cannot be read.
const RETRY: Duration = Duration::from_secs(60);
/// How soon a change of the period, or a first chunk, is noticed.
const LOOK_PERIOD: Duration = Duration::from_millis(500);

/// How long a pass may take, in milliseconds; 0 until a master said it.
#[derive(Debug, Default)]
pub(crate) struct ScrubPeriod(AtomicU64);

impl ScrubPeriod {
    pub(crate) fn set(&self, ms: u64) {
        self.0.store(ms, Ordering::Relaxed);
    }

    fn get(&self) -> Option<Duration> {
        Some(self.0.load(Ordering::Relaxed)).filter(|ms| *ms > 0).map(Duration::from_millis)
    }
}

/// How far the scrub of a disk is. Times are milliseconds since 1970, 0: never.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Pass {
    pub(crate) began_ms: u64,
    /// When the pass before this one ended.
    pub(crate) last_ended_ms: u64,
    /// Read in this pass.
    pub(crate) done_bytes: u64,
    /// The last chunk read; `None` at the beginning.
    after: Option<ChunkKey>,
}

/// A disk's scrub, for others to look at.
#[derive(Debug, Default)]
pub(crate) struct Progress(Mutex<Pass>);

impl Progress {
    pub(crate) fn get(&self) -> Pass {
        *self.0.lock()
    }
}

impl Pass {
    /// Three numbers of 8 bytes, little-endian, then the key if there is one.
    fn encode(&self) -> Vec<u8> {
        let numbers = [self.began_ms, self.last_ended_ms, self.done_bytes];
        let mut out: Vec<u8> = numbers.iter().flat_map(|number| number.to_le_bytes()).collect();
        if let Some(key) = self.after {
            out.extend_from_slice(&key.encode());
        }
        out
    }

    fn decode(bytes: &[u8]) -> Option<Self> {
        let (numbers, key) = bytes.split_first_chunk::<24>()?;
        let number = |at: usize| u64::from_le_bytes(numbers[at..at + 8].try_into().expect("eight bytes"));
        let after = if key.is_empty() { None } else { Some(ChunkKey::decode(key)?) };
        Some(Self { began_ms: number(0), last_ended_ms: number(8), done_bytes: number(16), after })
    }

    /// When the next pass begins, after one. A clock that was set back must not stop the scrub for as long.
    fn next_ms(&self, period: Duration, now_ms: u64) -> u64 {
        self.began_ms.min(now_ms).saturating_add(millis(period))
    }

    /// Whether all chunks of a group were read in this pass.
    fn is_past(&self, group: GroupId) -> bool {
        self.after.is_some_and(|after| after.group > group)
    }

    /// Bytes a second that bring this pass to its end when nine tenths of the period are over.
    fn rate_bytes_per_s(&self, used_bytes: u64, period: Duration, now_ms: u64) -> u64 {
        let end_ms = self.began_ms.saturating_add(millis(period) / 10 * 9);
        let left_ms = end_ms.saturating_sub(now_ms).max(1);
        let left_bytes = used_bytes.saturating_sub(self.done_bytes);
        let rate = u128::from(left_bytes) * 1000 / u128::from(left_ms);
        u64::try_from(rate).unwrap_or(u64::MAX).clamp(RATE_MIN_BYTES_PER_S, RATE_MAX_BYTES_PER_S)
    }
}

/// Runs until the node stops or the disk fails.
pub(crate) async fn run(node: Arc<Node>, disk: Arc<Disk>) {
    let stop = node.stop.clone();
    let scrubbing = async {
        loop {
            let Err(error) = scrub(&node, &disk).await;
            if disk.failed() {
                node.disk_failed(&disk, &error);
                return;
            }
            tracing::error!(path = %disk.path.display(), %error, "the scrub cannot go on; trying again");
            tokio::time::sleep(RETRY).await;
        }
    };
    tokio::select! {
        () = scrubbing => {}
        () = stop.cancelled() => {}
    }
}

async fn scrub(node: &Arc<Node>, disk: &Arc<Disk>) -> Result<Infallible, EngineError> {
    let kept = disk.engine.get_setting(SETTING)?;
    let mut pass = kept.and_then(|bytes| Pass::decode(&bytes)).unwrap_or_default();
    loop {
        *disk.scrub.0.lock() = pass;
        let period = period(node).await;
        let now_ms = now_ms();
        let next_ms = pass.next_ms(period, now_ms);
        if pass.done_bytes == 0 && pass.after.is_none() {
            if pass.last_ended_ms > 0 && now_ms < next_ms {
                tokio::time::sleep(LOOK_PERIOD.min(Duration::from_millis(next_ms - now_ms))).await;
                continue;
            }
            pass.began_ms = now_ms;
        }
        pass = one_pass(node, disk, pass).await?;
        let took = Duration::from_millis(pass.last_ended_ms.saturating_sub(pass.began_ms));
        if took > period {
            tracing::warn!(path = %disk.path.display(), ?took, ?period, "the scrub took longer than its period");
        }
        keep(disk, &pass).await?;
        tokio::time::sleep(LOOK_PERIOD.min(period)).await;
    }
}

/// The period, once a master said it and there is something to read.
async fn period(node: &Node) -> Duration {
    loop {
        if let Some(period) = node.scrub.get() {
            return period;
        }
        tokio::time::sleep(LOOK_PERIOD).await;
    }
}

/// From where `pass` stands to the end.
async fn one_pass(node: &Arc<Node>, disk: &Arc<Disk>, mut pass: Pass) -> Result<Pass, EngineError> {
    let mut kept = Instant::now();
    let mut groups: Vec<_> =
        node.replicas().into_iter().filter(|group| Arc::ptr_eq(&group.disk, disk)).collect();
    groups.sort_by_key(|group| group.id);
    for group in groups {
        if pass.is_past(group.id) || group.stage() == Stage::Out {
            continue;
        }
        loop {
            let after = pass.after.filter(|after| after.group == group.id);
            let page = disk.engine.list(group.id, after, PAGE)?;
            for (key, _) in &page {
                chunk(node, disk, &group, *key, &mut pass).await?;
                pass.after = Some(*key);
                *disk.scrub.0.lock() = pass;
                if kept.elapsed() >= KEEP_PERIOD {
                    keep(disk, &pass).await?;
                    kept = Instant::now();
                }
            }
            if page.len() < PAGE {
                break;
            }
        }
    }
    node.metrics.scrubs.add(1);
    tracing::debug!(path = %disk.path.display(), bytes = pass.done_bytes, "scrubbed");
    Ok(Pass { began_ms: pass.began_ms, last_ended_ms: now_ms().max(1), done_bytes: 0, after: None })
}

/// Reads a chunk, at the pace.
async fn chunk(
    node: &Arc<Node>,
    disk: &Arc<Disk>,
    group: &Arc<Group>,
    key: ChunkKey,
    pass: &mut Pass,
) -> Result<(), EngineError> {
    let ranges = match disk.engine.map(key) {
        Ok(ranges) => ranges,
        Err(error @ EngineError::Damaged(_)) => {
            // Told there; other members have the chunk.
            let _told = group.outcome::<()>(node, Err(error));
            return Ok(());
        }
        Err(error) => return Err(error),
    };
    for (offset, len) in pieces(&ranges, WRITE_SIZE_MAX as u32) {
        let began = Instant::now();
        match disk.engine.read(key, offset, len).await {
            // This wakes the repair, which says what it finds.
            Err(error @ EngineError::Damaged(_)) => {
                let _told = group.outcome::<()>(node, Err(error));
            }
            Err(error) => return Err(error),
            Ok(_) => {}
        }
        pass.done_bytes += u64::from(len);
        node.metrics.scrubbed_bytes.add(u64::from(len));
        let rate = pass.rate_bytes_per_s(disk.engine.usage().used_bytes, period(node).await, now_ms());
        let takes = Duration::from_nanos(u64::from(len) * 1_000_000_000 / rate);
        tokio::time::sleep_until(began + takes).await;
    }
    Ok(())
}

async fn keep(disk: &Disk, pass: &Pass) -> Result<(), EngineError> {
    disk.engine.put_setting(SETTING, &pass.encode()).await
}

pub(crate) fn now_ms() -> u64 {
    millis(SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default())
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use coord_types::DataId;

    use super::*;

    const GIB: u64 = 1 << 30;
    const DAY_MS: u64 = 86_400_000;

    #[test]
    fn the_pace_brings_the_pass_to_its_end_in_time() {
        let period = Duration::from_secs(14 * 86_400);
        let mut pass = Pass { began_ms: 1000, ..Pass::default() };
        let begin = pass.rate_bytes_per_s(4096 * GIB, period, 1000);
        let expected = 4096 * GIB / (14 * 86_400 * 9 / 10);
        assert!(begin.abs_diff(expected) < expected / 100, "{begin} for {expected}");
        pass.done_bytes = 1024 * GIB;
        let late = pass.rate_bytes_per_s(4096 * GIB, period, 1000 + 10 * DAY_MS);
        assert!(late > 2 * begin, "{late} when it is late");
        assert_eq!(pass.rate_bytes_per_s(4096 * GIB, period, 1000 + 20 * DAY_MS), RATE_MAX_BYTES_PER_S);
        assert_eq!(pass.rate_bytes_per_s(GIB, period, 1000), RATE_MIN_BYTES_PER_S);
    }

    #[test]
    fn a_clock_that_was_set_back_does_not_stop_it() {
        let period = Duration::from_secs(100);
        let pass = Pass { began_ms: 50_000, last_ended_ms: 60_000, ..Pass::default() };
        assert_eq!(pass.next_ms(period, 70_000), 150_000);
        assert_eq!(pass.next_ms(period, 10_000), 110_000);
    }

    #[test]
    fn a_pass_that_goes_on_skips_the_groups_it_has_read() {
        let after = Some(ChunkKey::new(GroupId(3), DataId(4), 5));
        let pass = Pass { after, ..Pass::default() };
        assert_eq!([2, 3, 4].map(|group| pass.is_past(GroupId(group))), [true, false, false]);
        assert!(!Pass::default().is_past(GroupId(1)));
    }

    #[test]
    fn where_it_stands_survives() {
        let key = ChunkKey::new(GroupId(3), DataId(4), 5);
        for after in [None, Some(key)] {
            let pass = Pass { began_ms: 1, last_ended_ms: 2, done_bytes: 3, after };
            assert_eq!(Pass::decode(&pass.encode()), Some(pass));
        }
        assert_eq!(Pass::decode(b"short"), None);
        assert_eq!(Pass::decode(&[0; 30]), None, "half a key");
    }
}
