//! Blocks of a disk that were found damaged and repaired, of the last day. Told in heartbeats: a disk on which that happens again
//! and again is emptied by the masters (`master/docs/groups.md`). Kept on the disk over restarts; forgotten when somebody
//! who looked at the disk says that it need not be emptied any more (`pangu undrain`).

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use chunkserver_engine::EngineError;
use parking_lot::Mutex;

use crate::disks::Disk;
use crate::node::Node;
use crate::scrub::now_ms;

/// See [`Window::encode`].
const SETTING: &str = "errors";
/// Errors are counted by the hour, and count for so many of them.
const HOURS: u64 = 24;
const HOUR_MS: u64 = 3_600_000;
/// How often the counts are kept, if there is something new. What is lost in between is not counted.
const KEEP_PERIOD: Duration = Duration::from_secs(10);
/// How often the table is looked at.
const LOOK_PERIOD: Duration = Duration::from_millis(500);

/// Counts by the hour since 1970, of the last [`HOURS`].
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Window(BTreeMap<u64, u64>);

impl Window {
    fn note(&mut self, blocks: u64, now_ms: u64) {
        let hour = now_ms / HOUR_MS;
        // A clock that was set back: what seems to come from the future is of now.
        let later: u64 = self.0.split_off(&(hour + 1)).into_values().sum();
        *self.0.entry(hour).or_default() += later + blocks;
        self.0 = self.0.split_off(&(hour + 1).saturating_sub(HOURS));
    }

    fn recent(&self, now_ms: u64) -> u64 {
        self.0.range((now_ms / HOUR_MS + 1).saturating_sub(HOURS)..).map(|(_, count)| count).sum()
    }

    /// For each hour its number and the count, 8 bytes each, little-endian.
    fn encode(&self) -> Vec<u8> {
        self.0.iter().flat_map(|(hour, count)| [hour.to_le_bytes(), count.to_le_bytes()]).flatten().collect()
    }

    fn decode(bytes: &[u8]) -> Option<Self> {
        let (numbers, rest) = bytes.as_chunks::<8>();
        let numbers: Vec<_> = numbers.iter().map(|number| u64::from_le_bytes(*number)).collect();
        let (pairs, odd) = numbers.as_chunks::<2>();
        let fits = rest.is_empty() && odd.is_empty() && pairs.len() as u64 <= HOURS;
        fits.then(|| Self(pairs.iter().map(|[hour, count]| (*hour, *count)).collect()))
    }
}

/// A disk's errors, for others to note and to look at.
#[derive(Debug, Default)]
pub(crate) struct Errors(Mutex<Window>);

impl Errors {
    pub(crate) fn note(&self, blocks: u64) {
        if blocks > 0 {
            self.0.lock().note(blocks, now_ms());
        }
    }

    pub(crate) fn recent(&self) -> u64 {
        self.0.lock().recent(now_ms())
    }
}

/// Runs until the node stops or the disk fails.
pub(crate) async fn run(node: Arc<Node>, disk: Arc<Disk>) {
    let stop = node.stop.clone();
    let keeping = async {
        if let Err(error) = keep(&node, &disk).await {
            if disk.failed() {
                node.disk_failed(&disk, &error);
            } else {
                tracing::warn!(path = %disk.path.display(), %error, "keep the count of damaged blocks");
            }
        }
    };
    tokio::select! {
        () = keeping => {}
        () = stop.cancelled() => {}
    }
}

async fn keep(node: &Node, disk: &Disk) -> Result<(), EngineError> {
    let mut kept =
        disk.engine.get_setting(SETTING)?.and_then(|bytes| Window::decode(&bytes)).unwrap_or_default();
    for (hour, count) in &kept.0 {
        *disk.errors.0.lock().0.entry(*hour).or_default() += count;
    }
    let mut was_draining = false;
    let mut since_kept = Duration::ZERO;
    loop {
        tokio::time::sleep(LOOK_PERIOD).await;
        since_kept += LOOK_PERIOD;
        let draining = is_draining(node, disk);
        if std::mem::replace(&mut was_draining, draining) && !draining {
            *disk.errors.0.lock() = Window::default();
        }
        let now = disk.errors.0.lock().clone();
        if since_kept >= KEEP_PERIOD && now != kept {
            disk.engine.put_setting(SETTING, &now.encode()).await?;
            (kept, since_kept) = (now, Duration::ZERO);
        }
    }
}

fn is_draining(node: &Node, disk: &Disk) -> bool {
    let table = node.table();
    let disks = disk.id().and_then(|id| table.server_of(id)).map(|server| &server.disks);
    disks.is_some_and(|disks| disks.iter().any(|(id, state)| Some(*id) == disk.id() && state.draining))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_day_counts() {
        let mut window = Window::default();
        let hour = |hour: u64| 1_000_000 * HOUR_MS + hour * HOUR_MS + 7;
        window.note(3, hour(0));
        window.note(2, hour(0));
        window.note(10, hour(5));
        assert_eq!([0, 5, 23, 24, 28, 29].map(|at| window.recent(hour(at))), [15, 15, 15, 10, 10, 0]);
        window.note(1, hour(24));
        assert_eq!(window.0.len(), 2, "what is old is forgotten");
        // The clock is set back.
        window.note(1, hour(3));
        assert_eq!((window.recent(hour(3)), window.recent(hour(26)), window.recent(hour(27))), (12, 12, 0));
    }

    #[test]
    fn the_counts_survive() {
        let mut window = Window::default();
        assert_eq!(Window::decode(&window.encode()), Some(Window::default()));
        for hour in 0..100 {
            window.note(hour + 1, hour * HOUR_MS);
        }
        assert_eq!(window.0.len() as u64, HOURS);
        assert_eq!(Window::decode(&window.encode()), Some(window));
        assert_eq!(Window::decode(&[0; 24]), None, "half a pair");
        assert_eq!(Window::decode(&[0; 20]), None);
        assert_eq!(Window::decode(&[0; 16 * 25]), None, "too many");
    }
}
