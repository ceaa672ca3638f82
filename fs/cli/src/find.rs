//! Which cluster is meant: a flag, the mount a path lies in, the usual places, or the embedded store of this user.

use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};

use anyhow::Context as _;
use clap::Args;
use fs_mount::mountpoint;
use master_api::{ClusterConfig, Masters, masters};
use nuwa_naming::NuwaResolver;
use nuwa_naming::security::ClientKeys;
use zhongkui_access::Access;

/// What `mount` shows as the type of a Pangu mount.
const FS_TYPE: &str = "fuse.pangu";

/// The cluster to ask.
#[derive(Debug)]
pub(crate) struct Found {
    pub(crate) description: PathBuf,
    pub(crate) cluster: ClusterConfig,
}

/// A file as the cluster names it, and its cluster.
#[derive(Debug)]
pub(crate) struct FoundFile {
    pub(crate) found: Found,
    /// From the file system's root.
    pub(crate) path: Vec<u8>,
}

/// Which keys are shown. All flags that say so.
#[derive(Clone, Debug, Default, Args)]
pub struct KeyFlags {
    /// Folder with the cluster's keys: admin.key, admin.cap, authority.pub [default: $FEITIAN_KEYS, or `keys` beside the cluster
    /// description]
    #[arg(long, value_name = "DIR", global = true)]
    pub keys: Option<PathBuf>,
    /// A secret key, instead of admin.key
    #[arg(long, value_name = "FILE", global = true, requires = "cap")]
    pub key: Option<PathBuf>,
    /// The capability that it holds, instead of admin.cap
    #[arg(long, value_name = "FILE", global = true, requires = "key")]
    pub cap: Option<PathBuf>,
}

impl KeyFlags {
    /// The keys for the cluster with this description.
    pub(crate) fn access(&self, description: &Path) -> anyhow::Result<Access> {
        let pair = self.key.clone().zip(self.cap.clone());
        Ok(ClientKeys { folder: self.keys.clone(), pair }.open(description)?)
    }
}

/// Where the masters of a cluster are found. Inside a tokio runtime, which then follows the registry.
pub(crate) fn masters(cluster: &ClusterConfig, access: &Access) -> Masters {
    let resolver = NuwaResolver::of(cluster, access);
    let registered = resolver.map(|resolver| resolver.follow(masters::SERVICE));
    Masters { listed: cluster.masters.clone(), registered }
}

/// The cluster named by a flag or a mount, or the one of the usual places.
pub(crate) fn cluster(flag: Option<&Path>, mount: Option<&Path>) -> anyhow::Result<Found> {
    if let Some(mount) = mount {
        return at(mount)?.map(|(found, _)| found).with_context(|| {
            format!("{} is in no Pangu mount: `findmnt -t fuse.pangu` lists them", mount.display())
        });
    }
    if let Some((description, cluster)) = ClusterConfig::known(flag, FS_TYPE)? {
        return Ok(Found { description, cluster });
    }
    anyhow::bail!(
        "no cluster is known: mount one with pangu-fuse, or name its description with --cluster FILE or its mount with \
         --mount DIR"
    )
}

/// A path in a mount, or from the root of the cluster that a flag names. With a flag a path in a mount of that very
/// cluster is taken for what it looks like.
pub(crate) fn file(flag: Option<&Path>, mount: Option<&Path>, path: &Path) -> anyhow::Result<FoundFile> {
    if mount.is_none() {
        match (flag, at(path)) {
            (None, Err(error)) => return Err(error),
            (None, Ok(Some((found, inner)))) => return Ok(FoundFile { found, path: inner }),
            (Some(flag), Ok(Some((found, inner)))) if same_file(flag, &found.description) => {
                return Ok(FoundFile { found, path: inner });
            }
            _ => {}
        }
    }
    let found = cluster(flag, mount)?;
    let inner = match mount {
        Some(mount) => path.strip_prefix(mount).unwrap_or(path),
        None => path,
    };
    let inner = inner.strip_prefix("/").unwrap_or(inner);
    Ok(FoundFile { found, path: inner.as_os_str().as_bytes().to_vec() })
}

fn same_file(a: &Path, b: &Path) -> bool {
    matches!((a.canonicalize(), b.canonicalize()), (Ok(a), Ok(b)) if a == b)
}

/// The cluster of the mount that `path` lies in, and the path inside it.
fn at(path: &Path) -> anyhow::Result<Option<(Found, Vec<u8>)>> {
    // Links on the way may lead into a mount; the last one is itself what is asked about.
    let path = match (path.parent(), path.file_name()) {
        (Some(parent), Some(name)) => {
            let parent = if parent.as_os_str().is_empty() { Path::new(".") } else { parent };
            parent.canonicalize().with_context(|| format!("look at {}", parent.display()))?.join(name)
        }
        _ => path.canonicalize().with_context(|| format!("look at {}", path.display()))?,
    };
    let Some(mount) = mountpoint::mount_of(&path)? else { return Ok(None) };
    if mount.fs_type != FS_TYPE {
        return Ok(None);
    }
    let description = PathBuf::from(&mount.source);
    let cluster = ClusterConfig::load(&description).with_context(|| {
        format!(
            "{} was mounted with a cluster description that cannot be read now",
            mount.mountpoint.display()
        )
    })?;
    let inner = path.strip_prefix(&mount.mountpoint).unwrap_or(&path).as_os_str().as_bytes().to_vec();
    Ok(Some((Found { description, cluster }, inner)))
}
