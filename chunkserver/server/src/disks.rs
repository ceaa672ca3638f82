//! The engines, one for each data directory, and the server's identity, which is kept on every one of them.
//!
//! A disk that fails is taken out: its groups stop, the heartbeat says so, the process goes on with the others.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use chunkserver_core::Fault;
use chunkserver_engine::{BufferPool, Engine, EngineConfig, EngineError, FormatOptions, OpenError, aside};
use coord_types::{DiskId, Epoch, GroupId};
use futures::future::join_all;
use kuafu::Status;
use master_api::model::Lineage;
use nix::sys::statvfs::statvfs;

use crate::config::Config;
use crate::error::StartError;
use crate::errors::Errors;
use crate::scrub::Progress;

/// The server's uuid, 16 bytes.
const SETTING_SERVER: &str = "server";
/// The cluster's id, text.
const SETTING_CLUSTER: &str = "cluster";
/// Cluster epoch and log index, 8 bytes each, little endian.
const SETTING_LINEAGE: &str = "lineage";
/// A disk that hangs is not waited for any longer, as the other disks know it too.
const KEEP_TIMEOUT: Duration = Duration::from_secs(2);

/// A disk and its engine.
#[derive(Debug)]
pub(crate) struct Disk {
    pub(crate) path: PathBuf,
    pub(crate) engine: Engine,
    pub(crate) scrub: Progress,
    pub(crate) errors: Errors,
    /// Set by the first registration of this process.
    id: OnceLock<DiskId>,
    waits_for_room: AtomicBool,
}

impl Disk {
    pub(crate) fn id(&self) -> Option<DiskId> {
        self.id.get().copied()
    }

    /// Whether the number is new.
    pub(crate) fn set_id(&self, id: DiskId) -> bool {
        self.id.set(id).is_ok()
    }

    /// It failed for lack of room; answers whether that is news.
    pub(crate) fn waits_for_room(&self) -> bool {
        !self.waits_for_room.swap(true, Ordering::Relaxed)
    }

    pub(crate) fn failed(&self) -> bool {
        self.engine.failure().is_some()
    }

    /// The newest epoch this disk promised to follow in a group.
    pub(crate) fn promised(&self, group: GroupId) -> Result<Epoch, EngineError> {
        let bytes = self.engine.get_setting(&epoch_setting(group))?;
        Ok(bytes.and_then(|bytes| bytes.try_into().ok()).map_or(Epoch(0), |b| Epoch(u64::from_le_bytes(b))))
    }

    /// Durable on return.
    pub(crate) async fn promise(&self, group: GroupId, epoch: Epoch) -> Result<(), EngineError> {
        self.engine.put_setting(&epoch_setting(group), &epoch.0.to_le_bytes()).await
    }
}

fn epoch_setting(group: GroupId) -> String {
    format!("epoch/{group}")
}

/// What the core may know of an engine's error.
pub(crate) const fn fault(error: &EngineError) -> Fault {
    match error {
        EngineError::VersionMismatch { .. } => Fault::Conflict,
        EngineError::Full { .. } => Fault::Full,
        EngineError::PayloadChecksum { .. } => Fault::Checksum,
        EngineError::Invalid { .. } | EngineError::ChunkSize { .. } | EngineError::SettingTooLong { .. } => {
            Fault::Invalid
        }
        EngineError::Damaged(_) => Fault::Damaged,
        EngineError::Failed(_) => Fault::Disk,
    }
}

/// Opens every data directory, formatting those that are empty.
pub(crate) async fn open_all(config: &Config, pool: &Arc<BufferPool>) -> Result<Vec<Arc<Disk>>, StartError> {
    let mut disks = Vec::with_capacity(config.data.len());
    for path in &config.data {
        let engine = open(path, config, pool).await?;
        disks.push(Arc::new(Disk {
            path: path.clone(),
            engine,
            scrub: Progress::default(),
            errors: Errors::default(),
            id: OnceLock::new(),
            waits_for_room: AtomicBool::new(false),
        }));
    }
    Ok(disks)
}

async fn open(path: &Path, config: &Config, pool: &Arc<BufferPool>) -> Result<Engine, StartError> {
    let at = || path.to_path_buf();
    chunkserver_engine::create_dir_durably(path)
        .map_err(|source| StartError::MakeDir { path: at(), source })?;
    // The engine would say "open superblock: permission denied" somewhere; this says what to look at.
    nix::unistd::access(path, nix::unistd::AccessFlags::W_OK | nix::unistd::AccessFlags::X_OK)
        .map_err(|errno| StartError::NotWritable { path: at(), source: errno.into() })?;
    let open = || Engine::open(path, EngineConfig::new(pool.clone()));
    let failed = |source| StartError::Open { path: at(), source };
    if aside::condemned(path).map_err(failed)?.is_none() {
        let damage = match open().await {
            Ok(engine) => return Ok(engine),
            Err(error @ OpenError::NotFormatted { .. }) => {
                aside::has_lost_superblock(path).map_err(failed)?.then_some(error)
            }
            Err(error) if error.is_damage() => Some(error),
            Err(error) => return Err(failed(error)),
        };
        match damage {
            Some(error) if config.renew_damaged => {
                aside::condemn(path, &error.to_string()).map_err(failed)?;
            }
            Some(error) => return Err(failed(error)),
            None => {}
        }
    }
    if let Some(reason) = aside::condemned(path).map_err(failed)? {
        let aside = aside::set_aside(path).map_err(failed)?;
        let (path, aside) = (path.display(), aside.display());
        tracing::error!(%path, reason, %aside, "damaged metadata: what the disk has is set aside, and it begins empty");
    }
    let capacity_bytes = match config.capacity_bytes {
        Some(capacity_bytes) => capacity_bytes,
        None => free_bytes(path).map_err(|source| StartError::FreeSpace { path: at(), source })? / 10 * 9,
    };
    tracing::info!(path = %path.display(), capacity_bytes, "format the disk");
    Engine::format(path, &FormatOptions::new(capacity_bytes))
        .map_err(|source| StartError::Format { path: at(), source })?;
    open().await.map_err(|source| StartError::Open { path: at(), source })
}

pub(crate) fn free_bytes(path: &Path) -> io::Result<u64> {
    let stat = statvfs(path)?;
    Ok(stat.blocks_available() * stat.fragment_size())
}

/// The server's uuid: from the first disk that has one, drawn if none has; then on all of them.
pub(crate) async fn server_uuid(disks: &[Arc<Disk>]) -> Result<[u8; 16], StartError> {
    let mut found = Vec::with_capacity(disks.len());
    for disk in disks {
        let bytes = disk
            .engine
            .get_setting(SETTING_SERVER)
            .map_err(|source| StartError::Identity { path: disk.path.clone(), source })?;
        let uuid = match bytes.map(<[u8; 16]>::try_from) {
            None => None,
            Some(Ok(uuid)) => Some(uuid),
            Some(Err(bytes)) => {
                return Err(StartError::BadIdentity { path: disk.path.clone(), len_bytes: bytes.len() });
            }
        };
        found.push(uuid);
    }
    let uuid = found.iter().flatten().next().copied().unwrap_or_else(rand::random);
    for (disk, found) in disks.iter().zip(found) {
        if found == Some(uuid) {
            continue;
        }
        if found.is_some() {
            tracing::warn!(path = %disk.path.display(), "this disk was in another chunkserver before");
        }
        disk.engine
            .put_setting(SETTING_SERVER, &uuid)
            .await
            .map_err(|source| StartError::Identity { path: disk.path.clone(), source })?;
    }
    Ok(uuid)
}

/// The cluster the disks belong to; empty before the first registration.
pub(crate) fn cluster_id(disks: &[Arc<Disk>]) -> String {
    disks
        .iter()
        .find_map(|disk| disk.engine.get_setting(SETTING_CLUSTER).ok().flatten())
        .map_or_else(String::new, |bytes| String::from_utf8_lossy(&bytes).into_owned())
}

/// The newest state of the masters that any of the disks heard of.
pub(crate) fn lineage(disks: &[Arc<Disk>]) -> Lineage {
    let cluster_id = cluster_id(disks);
    let read = |disk: &Arc<Disk>| {
        let bytes = disk.engine.get_setting(SETTING_LINEAGE).ok().flatten()?;
        let (epoch, log_index) = bytes.split_at_checked(8)?;
        let number = |bytes: &[u8]| bytes.try_into().ok().map(u64::from_le_bytes);
        Some((number(epoch)?, number(log_index)?))
    };
    // A disk that knows of no cluster knows of no state either.
    let newest = disks.iter().filter_map(read).max().filter(|_| !cluster_id.is_empty());
    let (epoch, log_index) = newest.unwrap_or_default();
    Lineage { cluster_id, epoch, log_index }
}

/// Durable on return, on every disk that took it in time; with none of them it fails.
pub(crate) async fn keep_lineage(disks: &[Arc<Disk>], lineage: &Lineage) -> Result<(), Status> {
    let value = [lineage.epoch.to_le_bytes(), lineage.log_index.to_le_bytes()].concat();
    let keep = |disk: &Arc<Disk>| {
        let (disk, value) = (disk.clone(), value.clone());
        async move {
            let put = disk.engine.put_setting(SETTING_LINEAGE, &value);
            match tokio::time::timeout(KEEP_TIMEOUT, put).await {
                Ok(Ok(())) => return true,
                Ok(Err(error)) => {
                    tracing::warn!(path = %disk.path.display(), %error, "keep the cluster epoch on the disk");
                }
                Err(_) => {
                    tracing::warn!(path = %disk.path.display(), "the disk does not take the cluster epoch in time");
                }
            }
            false
        }
    };
    let kept = join_all(disks.iter().filter(|disk| !disk.failed()).map(keep)).await;
    if kept.contains(&true) { Ok(()) } else { Err(Status::unavailable("no disk can keep the cluster epoch")) }
}

/// Remembers the cluster, so that no other one gets these disks by mistake.
pub(crate) async fn keep_cluster_id(disks: &[Arc<Disk>], cluster_id: &str) {
    for disk in disks {
        let known = disk.engine.get_setting(SETTING_CLUSTER).ok().flatten();
        if known.as_deref() != Some(cluster_id.as_bytes())
            && let Err(error) = disk.engine.put_setting(SETTING_CLUSTER, cluster_id.as_bytes()).await
        {
            tracing::warn!(path = %disk.path.display(), %error, "keep the cluster's id on the disk");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_promise_outlives_the_process() {
        let dir = tempfile::tempdir().unwrap();
        Engine::format(dir.path(), &FormatOptions::new(FormatOptions::CAPACITY_MIN_BYTES)).unwrap();
        let open = async || {
            let engine = Engine::open(dir.path(), EngineConfig::new(BufferPool::new(1 << 20))).await.unwrap();
            let (scrub, errors) = (Progress::default(), Errors::default());
            let (id, waits_for_room) = (OnceLock::new(), AtomicBool::new(false));
            Disk { path: dir.path().to_owned(), engine, id, scrub, errors, waits_for_room }
        };
        let disk = open().await;
        disk.promise(GroupId(1), Epoch(0x0102)).await.unwrap();
        disk.engine.close().await;
        let disk = open().await;
        assert_eq!(disk.promised(GroupId(1)).unwrap(), Epoch(0x0102));
        assert_eq!(disk.promised(GroupId(2)).unwrap(), Epoch(0));
    }
}
