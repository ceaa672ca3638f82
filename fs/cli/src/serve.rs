//! A mount's life: the servers (if embedded), the client, the mount, and all of it down again in the opposite order.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use coord_types::InodeId;
use deploy_embedded::{Embedded, Fuxi};
use fs_client::{ClientConfig, ConnectError, FileSystem};
use fs_control::ControlFiles;
use fs_mount::{Access, MountOptions, Mounted, UnmountReport, mountpoint};
use master_api::{ClusterConfig, MasterClient};
use nuwa_fuse::{NuwaMount, NuwaMountConfig};
use tokio::signal::unix::{Signal, SignalKind, signal};
use zhongkui::{Resource, Rights};

use crate::daemon::Ready;
use crate::find;
use crate::fuse::{Flags, Source};

/// After this the user is told what the mount waits for.
const PATIENCE: Duration = Duration::from_secs(2);
/// Programs with files open on the mount may close them within this, when it is told to stop.
const CLOSE_GRACE: Duration = Duration::from_secs(10);
/// Changes of mapped files may take this long to be written back before their users are cut off.
const WRITE_BACK_GRACE: Duration = Duration::from_secs(5);
/// Written data may take this long to reach the chunkservers at the end.
const FLUSH_GRACE: Duration = Duration::from_secs(60);
/// Locks of a mount of Nuwa that died are free after this.
const NUWA_LEASE: Duration = Duration::from_secs(10);
/// Fuxi's jobs may take this long to end, and Fuxi.
const FUXI_GRACE: Duration = Duration::from_secs(15);
/// The embedded servers may take this long to stop.
const SERVERS_GRACE: Duration = Duration::from_secs(20);

/// Mounts, serves until the mount ends, cleans up.
pub(crate) fn serve(flags: &Flags, source: Source, ready: Ready) -> anyhow::Result<()> {
    flags.logs.start()?;
    log_panics();
    let found = mountpoint::make_ready(&flags.mountpoint)?;
    if found.cleared > 0 {
        eprintln!(
            "pangu-fuse: cleared {} dead mount(s) of an earlier pangu-fuse from {}",
            found.cleared,
            flags.mountpoint.display()
        );
    }
    if found.hides_files {
        eprintln!("pangu-fuse: {} is not empty: the mount hides what is in it", flags.mountpoint.display());
    }
    let mut config = ClientConfig {
        description: format!("pangu-fuse {} on {}", std::process::id(), flags.mountpoint.display()),
        memory_bytes: flags.memory,
        ttl: Duration::from_millis(flags.ttl_ms),
        ..ClientConfig::default()
    };
    // Before anything is made on disk that a corrected command would then find.
    config.validate().context("--memory")?;
    let (embedded, description, cluster) = match source {
        Source::Embedded(config) => {
            eprintln!("pangu-fuse: starting the servers, data in {}", config.data_dir.display());
            let embedded = Embedded::start(&config)?;
            let description = embedded.cluster_file().to_owned();
            let cluster = ClusterConfig::load(&description)?;
            (Some(embedded), description, cluster)
        }
        Source::Cluster { description, cluster } => (None, description, cluster),
    };
    let description = std::path::absolute(&description).unwrap_or(description);
    config.access = flags.keys.access(&description)?.over_tls(cluster.tls);
    let shown = Shown::of(&config.access)?;
    config.root = shown.root;
    let read_only = flags.read_only || shown.read_only;
    let runtime =
        tokio::runtime::Builder::new_current_thread().enable_all().build().context("start the event loop")?;
    let result =
        runtime.block_on(run(flags, config, read_only, &cluster, &description, embedded.as_ref(), ready));
    let stopped = embedded.is_none_or(|embedded| embedded.stop(SERVERS_GRACE));
    if !stopped {
        tracing::warn!("the embedded servers did not stop in time; what they confirmed is on disk");
    }
    result
}

/// In the background nobody sees standard error, so panics go where the log goes.
fn log_panics() {
    std::panic::set_hook(Box::new(|panic| {
        let backtrace = std::backtrace::Backtrace::force_capture();
        tracing::error!("{panic}\n{backtrace}");
    }));
}

async fn run(
    flags: &Flags,
    config: ClientConfig,
    read_only: bool,
    cluster: &ClusterConfig,
    description: &Path,
    embedded: Option<&Embedded>,
    ready: Ready,
) -> anyhow::Result<()> {
    let mut signals = Signals::new().context("listen for signals")?;
    let access = config.access.clone();
    let masters = find::masters(cluster, &access);
    let sought = masters.to_string();
    let mut settings = master_api::ClientConfig::new(masters, config.description.clone());
    settings.transport = access.transport();
    let keeping = tokio::spawn(nuwa_naming::security::keep(cluster.clone(), access.clone()));
    // It ends with this.
    let _keeping = AbortOnDrop(keeping.abort_handle());
    // An embedded store is copied and restored as a whole.
    settings.memory = if embedded.is_some() { None } else { memory_dir() };
    let master = MasterClient::new(settings).map_err(ConnectError::Master)?;
    let connect = FileSystem::over(master.clone(), config);
    tokio::pin!(connect);
    let mut patience = std::pin::pin!(tokio::time::sleep(PATIENCE));
    let mut told = false;
    let fs = loop {
        tokio::select! {
            connected = &mut connect => break connected?,
            name = signals.next() => anyhow::bail!("{name} before the mount was up"),
            () = &mut patience, if !told => {
                told = true;
                eprintln!("pangu-fuse: waiting for a master at {sought} (Ctrl-C to give up)");
            }
        }
    };
    let nuwa = tokio::select! {
        nuwa = mount_nuwa(flags, cluster, description, &access) => nuwa?,
        name = signals.next() => anyhow::bail!("{name} before the mounts were up"),
    };
    let mounted = fs_mount::mount(
        Arc::new(ControlFiles::new(fs.clone(), Arc::new(master), named(description, &access, read_only))),
        &options(flags, description, read_only),
        &tokio::runtime::Handle::current(),
    )?;
    let what = match embedded {
        Some(embedded) => format!(
            "embedded, {} of everything in {}",
            match embedded.replicas() {
                1 => "one copy".to_owned(),
                n => format!("{n} copies"),
            },
            embedded.data_dir().display()
        ),
        None => format!("cluster {}", description.display()),
    };
    if let Some(nuwa) = &nuwa {
        eprintln!("pangu-fuse: mounted {} (Nuwa)", nuwa.mountpoint().display());
    }
    let fuxi = match embedded.filter(|_| flags.fuxi) {
        Some(embedded) => Some(start_fuxi(embedded, mounted.mountpoint()).await?),
        None => None,
    };
    ready.tell(&format!("mounted {} ({what})", mounted.mountpoint().display()));
    let outcome = tokio::select! {
        ended = mounted.ended() => ended.map_err(anyhow::Error::from).context("the connection to the kernel broke"),
        name = signals.next() => {
            tracing::info!(signal = name, "unmounting");
            // Its jobs have files open there.
            if let Some(fuxi) = &fuxi {
                stop_fuxi(fuxi).await;
            }
            take_down(&mounted, &mut signals).await
        }
        reason = servers_failed(embedded) => Err(anyhow::anyhow!("the embedded servers stopped: {reason}")),
    };
    if let Some(fuxi) = &fuxi {
        stop_fuxi(fuxi).await;
    }
    if let Some(nuwa) = nuwa
        && let Err(error) = nuwa.stop().await
    {
        tracing::warn!(%error, "unmount Nuwa");
    }
    let flushed = tokio::select! {
        flushed = tokio::time::timeout(FLUSH_GRACE, fs.shutdown()) => flushed,
        name = signals.next() => {
            tracing::warn!(signal = name, "told again to stop: written data that was not synced may be lost");
            return outcome;
        }
    };
    match flushed {
        Ok(Ok(())) => outcome,
        Ok(Err(errno)) => {
            outcome.and(Err(anyhow::anyhow!("written data that nobody waited for was lost: {errno}")))
        }
        Err(_) => outcome.and(Err(anyhow::anyhow!(
            "written data could not be sent within {FLUSH_GRACE:?}: what was not synced is lost"
        ))),
    }
}

type RunningFuxi = std::sync::Mutex<Option<Fuxi>>;

/// Fuxi works through the mount, which this thread serves: another one waits for it.
async fn start_fuxi(embedded: &Embedded, mountpoint: &Path) -> anyhow::Result<RunningFuxi> {
    let (parts, mountpoint) = (embedded.fuxi(), mountpoint.to_owned());
    let fuxi = tokio::task::spawn_blocking(move || Fuxi::start(&parts, &mountpoint)).await??;
    if !fuxi.warning().is_empty() {
        eprintln!("pangu-fuse: Fuxi: {}", fuxi.warning());
    }
    Ok(std::sync::Mutex::new(Some(fuxi)))
}

async fn stop_fuxi(fuxi: &RunningFuxi) {
    let running = fuxi.lock().ok().and_then(|mut fuxi| fuxi.take());
    if let Some(running) = running {
        let stopping = tokio::task::spawn_blocking(move || running.stop());
        if tokio::time::timeout(FUXI_GRACE, stopping).await.is_err() {
            tracing::warn!("Fuxi did not stop in time; its jobs go on from their journals");
        }
    }
}

/// What a capability lets a mount show.
#[derive(Debug, PartialEq, Eq)]
struct Shown {
    root: InodeId,
    read_only: bool,
}

impl Shown {
    fn of(access: &zhongkui_access::Access) -> anyhow::Result<Self> {
        let capability = access.keyring().capability();
        let mut shown = Self { root: InodeId::ROOT, read_only: false };
        for terms in capability.terms() {
            let files = terms.grants().iter().filter_map(|grant| match grant.resource() {
                Resource::Everything => Some((InodeId::ROOT, grant.rights())),
                Resource::Directory(directory) => Some((*directory, grant.rights())),
                Resource::File(_)
                | Resource::Nuwa(_)
                | Resource::Queue(_)
                | Resource::Action(_)
                | Resource::Service(_) => None,
            });
            let files: Vec<_> = files.filter(|(_, rights)| rights.contains(Rights::READ)).collect();
            anyhow::ensure!(
                !files.is_empty(),
                "this capability covers no directory, so there is nothing to mount:\n{capability}"
            );
            // The narrowest counts: what is handed on later is within what was handed on before.
            let whole = files.iter().any(|(directory, _)| *directory == InodeId::ROOT);
            if !whole {
                let [(directory, _)] = files[..] else {
                    anyhow::bail!(
                        "this capability covers several directories, and a mount shows one: narrow it to the one that is wanted \
                         (zhongkui narrow)\n{capability}"
                    );
                };
                shown.root = directory;
            }
            shown.read_only |= !files.iter().any(|(_, rights)| rights.contains(Rights::WRITE));
        }
        Ok(shown)
    }
}

/// Ends a task that nobody waits for.
struct AbortOnDrop(tokio::task::AbortHandle);

impl Drop for AbortOnDrop {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// Nuwa's mount, if one is wanted.
async fn mount_nuwa(
    flags: &Flags,
    cluster: &ClusterConfig,
    description: &Path,
    keys: &zhongkui_access::Access,
) -> anyhow::Result<Option<NuwaMount>> {
    let Some(mountpoint) = flags.nuwa.clone() else { return Ok(None) };
    let config = NuwaMountConfig {
        mountpoint,
        description: description.to_owned(),
        cluster: cluster.clone(),
        lease: NUWA_LEASE,
        access: access(flags),
        keys: keys.clone(),
        program: "pangu-fuse",
    };
    NuwaMount::start(config).await.map(Some).context("mount Nuwa")
}

/// Where is remembered how far the masters of a cluster had come: `$XDG_STATE_HOME/feitian/clusters`, else `/var/lib/feitian/clusters` for
/// root and `~/.local/state/feitian/clusters` for others.
fn memory_dir() -> Option<PathBuf> {
    let named = |name| std::env::var_os(name).map(PathBuf::from).filter(|path| path.is_absolute());
    let root = || nix::unistd::geteuid().is_root().then(|| PathBuf::from("/var/lib"));
    let home = || named("HOME").map(|home| home.join(".local/state"));
    named("XDG_STATE_HOME").or_else(root).or_else(home).map(|base| base.join("feitian/clusters"))
}

/// What the control files call the cluster.
fn named(description: &Path, access: &zhongkui_access::Access, read_only: bool) -> fs_control::Mount {
    let name = ClusterConfig::load(description).map_or_else(|_| "unnamed".to_owned(), |cluster| cluster.name);
    let (uid, gid) = (nix::unistd::geteuid().as_raw(), nix::unistd::getegid().as_raw());
    let description = description.display().to_string();
    fs_control::Mount { name, description, uid, gid, access: access.clone(), read_only }
}

fn access(flags: &Flags) -> Access {
    let everybody = flags.allow_other || (nix::unistd::geteuid().is_root() && !flags.only_owner);
    if everybody { Access::Everybody } else { Access::Owner }
}

fn options(flags: &Flags, description: &Path, read_only: bool) -> MountOptions {
    MountOptions {
        // `pangu` finds the cluster of a mounted path by this.
        fs_name: description.display().to_string(),
        access: access(flags),
        read_only,
        set_id: flags.allow_suid,
        devices: flags.allow_devices,
        ..MountOptions::new(&flags.mountpoint)
    }
}

/// Out of the tree at once; open files get their grace, a second signal cuts it short.
async fn take_down(mounted: &Mounted, signals: &mut Signals) -> anyhow::Result<()> {
    // While it can still be reached by its path.
    let users = crate::users::of_soon(mounted.mountpoint()).await;
    if !users.is_empty() && !mounted.write_back(WRITE_BACK_GRACE).await {
        tracing::warn!("changes of mapped files could not be written back in time");
    }
    if !mounted.detach().await? {
        let users = if users.is_empty() { crate::users::SOMEBODY } else { &users };
        eprintln!(
            "pangu-fuse: {} is in use by {users}: waiting {CLOSE_GRACE:?} for it (again to stop at once)",
            mounted.mountpoint().display()
        );
    }
    let report = tokio::select! {
        report = mounted.finish(CLOSE_GRACE) => report,
        _ = signals.next() => {
            mounted.abort();
            UnmountReport::Aborted
        }
    };
    if report == UnmountReport::Aborted {
        tracing::warn!("files were still open: their users get errors from now on");
    }
    Ok(())
}

async fn servers_failed(embedded: Option<&Embedded>) -> String {
    match embedded {
        Some(embedded) => embedded.failed().await,
        None => std::future::pending().await,
    }
}

/// The signals that end a mount.
struct Signals {
    terminate: Signal,
    interrupt: Signal,
    hangup: Signal,
}

impl Signals {
    fn new() -> std::io::Result<Self> {
        Ok(Self {
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
            hangup: signal(SignalKind::hangup())?,
        })
    }

    async fn next(&mut self) -> &'static str {
        tokio::select! {
            _ = self.terminate.recv() => "SIGTERM",
            _ = self.interrupt.recv() => "SIGINT",
            _ = self.hangup.recv() => "SIGHUP",
        }
    }
}
