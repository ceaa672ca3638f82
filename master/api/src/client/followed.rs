//! Which masters a client follows: it remembers how far their state had come, over its own end if it is given a directory, and follows
//! none that shows an older one. `master/docs/restore.md` says why.
//!
//! One file a cluster, named after its id: `epoch log-index`, in decimal. It is replaced whole (new name, rename), synced if the epoch is
//! new: a mount's event loop should not wait for a disk every few seconds. A file that cannot be read counts as none: the guard is then
//! as good as this process is old.

use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use master_model::{Lineage, NotFollowed};
use parking_lot::Mutex;

use crate::proto;

/// A longer log of the same epoch is written down at most this often: it guards against copies that are older than that.
const KEEP_PERIOD: Duration = Duration::from_secs(10);

/// What is known of the masters.
#[derive(Debug)]
pub(super) struct Followed {
    dir: Option<PathBuf>,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    known: Lineage,
    kept: Lineage,
    kept_at: Option<Instant>,
    /// It was said that nothing can be kept.
    said: bool,
}

impl Followed {
    pub(super) fn new(dir: Option<PathBuf>) -> Self {
        Self { dir, state: Mutex::default() }
    }

    /// What is known now: to be taken before a master is asked.
    pub(super) fn known(&self) -> Lineage {
        self.state.lock().known.clone()
    }

    /// Whether the answer to a call is to be obeyed. `asked` was known when the call was made.
    pub(super) fn follow(&self, asked: &Lineage, shown: Option<proto::Lineage>) -> Result<(), NotFollowed> {
        // Masters of earlier versions show nothing.
        let Some(shown) = shown.map(Lineage::from) else { return Ok(()) };
        let mut state = self.state.lock();
        if state.known.cluster_id.is_empty()
            && let Some(found) = self.dir.as_deref().and_then(|dir| read(dir, &shown.cluster_id))
        {
            found.check(&shown)?;
            (state.known, state.kept) = (found.clone(), found);
        }
        asked.check(&shown)?;
        state.known.learn(&shown);
        self.keep(&mut state);
        Ok(())
    }

    fn keep(&self, state: &mut State) {
        let Some(dir) = &self.dir else { return };
        let urgent = state.kept.cluster_id.is_empty() || state.known.epoch > state.kept.epoch;
        let due = state.kept_at.is_none_or(|at| at.elapsed() >= KEEP_PERIOD);
        if state.kept == state.known || !(urgent || due) {
            return;
        }
        state.kept_at = Some(Instant::now());
        match write(dir, &state.known, urgent) {
            Ok(()) => state.kept = state.known.clone(),
            Err(error) if !state.said => {
                state.said = true;
                tracing::info!(dir = %dir.display(), %error, "cannot remember the cluster epoch here");
            }
            Err(_) => {}
        }
    }
}

/// Ids come from the network.
fn path(dir: &Path, cluster_id: &str) -> Option<PathBuf> {
    let plain = !cluster_id.is_empty() && cluster_id.bytes().all(|byte| byte.is_ascii_alphanumeric());
    plain.then(|| dir.join(cluster_id))
}

fn read(dir: &Path, cluster_id: &str) -> Option<Lineage> {
    let text = std::fs::read_to_string(path(dir, cluster_id)?).ok()?;
    let (epoch, log_index) = text.trim().split_once(' ')?;
    let (epoch, log_index) = (epoch.parse().ok()?, log_index.parse().ok()?);
    Some(Lineage { cluster_id: cluster_id.to_owned(), epoch, log_index })
}

fn write(dir: &Path, lineage: &Lineage, durably: bool) -> std::io::Result<()> {
    let Some(path) = path(dir, &lineage.cluster_id) else { return Ok(()) };
    std::fs::create_dir_all(dir)?;
    // Several mounts of one machine share the file: each has a new name of its own, and the last to rename wins.
    let new = dir.join(format!(".{}.{}", lineage.cluster_id, std::process::id()));
    let mut file = std::fs::File::create(&new)?;
    writeln!(file, "{} {}", lineage.epoch, lineage.log_index)?;
    if durably {
        file.sync_all()?;
    }
    std::fs::rename(&new, &path)?;
    if durably { std::fs::File::open(dir)?.sync_all() } else { Ok(()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(epoch: u64, log_index: u64) -> Option<proto::Lineage> {
        Some(proto::Lineage { cluster_id: "c1".to_owned(), epoch, log_index })
    }

    #[test]
    fn what_was_seen_is_known_to_the_next_process() {
        let dir = tempfile::tempdir().unwrap();
        let made = || Followed::new(Some(dir.path().join("clusters")));
        let first = made();
        let asked = first.known();
        first.follow(&asked, shown(3, 10)).unwrap();
        first.follow(&first.known(), shown(4, 1)).unwrap();
        // The answer to a call from before: it came late, and takes nothing back.
        first.follow(&asked, shown(3, 11)).unwrap();
        assert_eq!(first.known().epoch, 4);

        let next = made();
        let refused = next.follow(&next.known(), shown(3, 99)).unwrap_err();
        assert_eq!(refused, NotFollowed::OlderEpoch { known: 4, shown: 3 });
        assert!(next.follow(&next.known(), shown(4, 0)).is_err());
        next.follow(&next.known(), shown(4, 2)).unwrap();

        let other = proto::Lineage { cluster_id: "c2".to_owned(), epoch: 0, log_index: 1 };
        let elsewhere = made();
        elsewhere.follow(&elsewhere.known(), Some(other)).unwrap();
        assert!(elsewhere.follow(&elsewhere.known(), shown(9, 9)).is_err(), "another cluster");
        assert_eq!(std::fs::read_dir(dir.path().join("clusters")).unwrap().count(), 2);
    }

    #[test]
    fn without_a_directory_it_is_remembered_while_it_lives() {
        let followed = Followed::new(Some(PathBuf::from("/proc/none/such")));
        followed.follow(&followed.known(), shown(3, 10)).unwrap();
        assert!(followed.follow(&followed.known(), shown(3, 9)).is_err());
        let followed = Followed::new(None);
        followed.follow(&followed.known(), None).unwrap();
        let crafted = proto::Lineage { cluster_id: "../../x".to_owned(), ..proto::Lineage::default() };
        followed.follow(&followed.known(), Some(crafted)).unwrap();
        assert_eq!(path(Path::new("/d"), "../../x"), None);
    }
}
