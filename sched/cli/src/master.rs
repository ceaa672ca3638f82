//! Asking the master that leads: what no file says.

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::Context as _;
use clap::Args;
use coord_cluster::{ClusterConfig, ENVIRONMENT};
use kuafu::{Address, CallOptions, Channel, Name, Target};
use nuwa_naming::NuwaResolver;
use nuwa_naming::security::ClientKeys;
use sched_api::MASTER_SERVICE;
use sched_api::proto::{FuxiClient, OverviewReply, OverviewRequest};

use crate::mount;

/// What `mount` shows as the type of a Pangu mount, whose source is its cluster's description.
const FS_TYPE: &str = "fuse.pangu";

/// How the master is found. For `fuxi nodes`, `top` and `quota` only.
#[derive(Debug, Args)]
pub(crate) struct MasterFlags {
    /// Fuxi's master: tcp://HOST:PORT, unix:///PATH or nuwa://CLUSTER/SERVICE [default: nuwa://CLUSTER/fuxi-master, or
    /// the socket of an embedded platform]
    #[arg(long, value_name = "ADDRESS", global = true)]
    master: Option<Target>,
    /// Cluster description [default: $FEITIAN_CLUSTER, that of the mount, ~/.config/feitian/cluster.toml,
    /// /etc/feitian/cluster.toml, this user's embedded platform]
    #[arg(long, value_name = "FILE", global = true)]
    cluster: Option<PathBuf>,
    /// Folder with keys: authority.pub, and the administrator's, admin.key and admin.cap [default: $FEITIAN_KEYS, or `keys`
    /// beside the cluster description]
    #[arg(long, value_name = "DIR", global = true)]
    keys: Option<PathBuf>,
    /// Secret key to use instead of the administrator's
    #[arg(long, value_name = "FILE", global = true, requires = "cap")]
    key: Option<PathBuf>,
    /// Capability for that key
    #[arg(long, value_name = "FILE", global = true, requires = "key")]
    cap: Option<PathBuf>,
    /// Give up after so many seconds without an answer
    #[arg(long, value_name = "SECONDS", global = true, default_value_t = 10)]
    timeout: u64,
}

impl MasterFlags {
    /// Nodes, queues and jobs as they are now.
    ///
    /// # Errors
    /// The cluster is not known, there are no keys for it, or no master answers in time.
    pub(crate) fn overview(self, mount: Option<&Path>) -> anyhow::Result<OverviewReply> {
        let is_named = self.cluster.is_some() || std::env::var_os(ENVIRONMENT).is_some();
        // Files and answers are to be of the same cluster, so the mount says which one it is unless somebody else does.
        let of_mount = if is_named { None } else { mount::description(mount) };
        let known = ClusterConfig::known(self.cluster.as_deref().or(of_mount.as_deref()), FS_TYPE)?;
        let (description, cluster) = known.context(
            "no cluster is known whose master could be asked: mount it with pangu-fuse, or name its description with --cluster FILE",
        )?;
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .context("start the event loop")?;
        runtime.block_on(self.ask(&description, &cluster))
    }

    async fn ask(self, description: &Path, cluster: &ClusterConfig) -> anyhow::Result<OverviewReply> {
        let keys = ClientKeys { folder: self.keys, pair: self.key.zip(self.cap) };
        let access = keys.open(description)?.over_tls(cluster.tls);
        let target = match self.master {
            Some(target) => target,
            None => match embedded(cluster) {
                Some(address) => Target::Address(address),
                None => Target::Name(Name::new(&cluster.name, MASTER_SERVICE)?),
            },
        };
        let channel: Channel = match &target {
            Target::Address(address) => kuafu::Client::new(address.clone(), access.transport()).into(),
            Target::Name(_) => {
                let resolver = NuwaResolver::of(cluster, &access).with_context(|| {
                    format!(
                        "{} lists no members of Nuwa that know the master: give --master ADDRESS",
                        description.display()
                    )
                })?;
                Channel::to(&target, access.transport(), &resolver)?
            }
        };
        let options = CallOptions::within(Duration::from_secs(self.timeout.max(1)));
        let reply = FuxiClient::new(channel).overview(OverviewRequest {}, &options).await;
        let reply =
            reply.with_context(|| format!("ask {target}, the master of Fuxi: does a fuxi-master run?"))?;
        Ok(reply.message)
    }
}

/// The master of an embedded platform, which has no registry: its socket is beside that of Pangu's master (`deploy/embedded`).
fn embedded(cluster: &ClusterConfig) -> Option<Address> {
    match (&cluster.nuwa[..], &cluster.masters[..]) {
        ([], [Address::Unix(master)]) => Some(Address::Unix(master.with_file_name("fuxi.sock"))),
        _ => None,
    }
}
