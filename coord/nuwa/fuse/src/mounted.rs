//! A mount's life: wait for Nuwa, mount, serve, end the session.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use coord_cluster::ClusterConfig;
use fs_mount::{Access, MountOptions, Mounted, mountpoint};
use nuwa_api::{ClientConfig, NuwaClient};
use tokio::task::JoinHandle;

use crate::tree::{Owner, Tree};

/// After this the user is told what the mount waits for.
const PATIENCE: Duration = Duration::from_secs(2);
/// Programs with files open on the mount may close them within this, when it is told to stop.
const CLOSE_GRACE: Duration = Duration::from_secs(5);
/// The session is ended within this, or ends with its lease.
const END_GRACE: Duration = Duration::from_secs(2);
/// Of a session's description, in bytes.
const DESCRIPTION_MAX: usize = 256;

/// What is mounted where.
#[derive(Clone, Debug)]
pub struct NuwaMountConfig {
    pub mountpoint: PathBuf,
    /// The file that describes the cluster; `mount` shows it.
    pub description: PathBuf,
    pub cluster: ClusterConfig,
    /// Locks taken through the mount are free so long after it was last heard. From 1 s to 10 min.
    pub lease: Duration,
    pub access: Access,
    /// The program, for messages.
    pub program: &'static str,
    /// Whose requests the mount's are, whoever on this machine makes them.
    pub keys: zhongkui_access::Access,
}

/// Nuwa, mounted. Dropped, it leaves the session to its lease.
pub struct NuwaMount {
    program: &'static str,
    tree: Arc<Tree>,
    mounted: Mounted,
    keeping: JoinHandle<()>,
}

impl Drop for NuwaMount {
    fn drop(&mut self) {
        self.keeping.abort();
    }
}

impl std::fmt::Debug for NuwaMount {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("NuwaMount").field("mountpoint", &self.mountpoint()).finish_non_exhaustive()
    }
}

impl NuwaMount {
    /// Waits for Nuwa and mounts it. The current runtime answers the kernel.
    ///
    /// # Errors
    /// The description names no members, Nuwa refuses, or the mount point cannot be used.
    pub async fn start(config: NuwaMountConfig) -> anyhow::Result<Self> {
        let NuwaMountConfig { mountpoint, description, cluster, lease, access, program, keys } = config;
        anyhow::ensure!(
            !cluster.nuwa.is_empty(),
            "{} lists no members of Nuwa: write nuwa = [\"tcp://HOST:PORT\", ...]",
            description.display()
        );
        let found = mountpoint::make_ready(&mountpoint)?;
        if found.hides_files {
            eprintln!("{program}: {} is not empty: the mount hides what is in it", mountpoint.display());
        }
        let client = NuwaClient::new(ClientConfig::with(cluster.nuwa.clone(), keys.transport()));
        let host = nix::unistd::gethostname().unwrap_or_default();
        let name = format!(
            "{program} {} on {}:{}",
            std::process::id(),
            host.to_string_lossy(),
            mountpoint.display()
        );
        let (uid, gid) = (nix::unistd::geteuid().as_raw(), nix::unistd::getegid().as_raw());
        let tree = Tree::new(client, lease, short(name), Owner { uid, gid }).with_keys(keys.clone());
        let tree = Arc::new(tree);
        wait(program, &tree, &cluster).await?;
        let options = MountOptions {
            fs_name: description.display().to_string(),
            fs_type: "nuwa",
            access,
            lists_attributes: false,
            locks: true,
            polls: true,
            ..MountOptions::new(&mountpoint)
        };
        let mounted = fs_mount::mount(Arc::clone(&tree), &options, &tokio::runtime::Handle::current())?;
        let keeping = tokio::spawn(nuwa_naming::security::keep(cluster, keys));
        Ok(Self { program, tree, mounted, keeping })
    }

    #[must_use]
    pub fn mountpoint(&self) -> &Path {
        self.mounted.mountpoint()
    }

    /// Resolves when somebody unmounted it.
    ///
    /// # Errors
    /// The connection to the kernel broke.
    pub async fn ended(&self) -> anyhow::Result<()> {
        self.mounted.ended().await.context("the connection to the kernel broke")
    }

    /// Unmounts, if it is mounted, and ends the session: its locks are free.
    ///
    /// # Errors
    /// It cannot be unmounted; the session is over all the same.
    pub async fn stop(self) -> anyhow::Result<()> {
        let detached = self.mounted.detach().await;
        if matches!(detached, Ok(false)) {
            let mountpoint = self.mountpoint().display();
            eprintln!("{}: {mountpoint} is in use: waiting {CLOSE_GRACE:?} for it", self.program);
        }
        if detached.is_ok() {
            self.mounted.finish(CLOSE_GRACE).await;
        }
        self.tree.end(END_GRACE).await;
        detached.map(drop).map_err(anyhow::Error::from)
    }

    /// As [`stop`](Self::stop), after [`ended`](Self::ended).
    pub async fn end_session(self) {
        self.tree.end(END_GRACE).await;
    }
}

/// Until Nuwa answers.
async fn wait(program: &str, tree: &Tree, cluster: &ClusterConfig) -> anyhow::Result<()> {
    let mut ready = std::pin::pin!(tree.ready());
    tokio::select! {
        ready = &mut ready => return Ok(ready?),
        () = tokio::time::sleep(PATIENCE) => {}
    }
    let members: Vec<String> = cluster.nuwa.iter().map(ToString::to_string).collect();
    eprintln!("{program}: waiting for Nuwa at {} (Ctrl-C to give up)", members.join(", "));
    Ok(ready.await?)
}

fn short(mut description: String) -> String {
    let mut end = description.len().min(DESCRIPTION_MAX);
    while !description.is_char_boundary(end) {
        end -= 1;
    }
    description.truncate(end);
    description
}
