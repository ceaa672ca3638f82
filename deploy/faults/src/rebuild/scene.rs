//! The cluster, and what is done to it.

use std::fs::File;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use anyhow::Context as _;
use deploy_local_cluster::{Cluster, Options, Role};
use serde_json::Value;

use crate::Flags;
use crate::foreground::Foreground;
use crate::report::Phase;
use crate::store::Store;

/// Of what is stored.
const REPLICAS: u64 = 3;
/// Room beside the data, for what programs write and for chunks that are moved.
const ROOM: f64 = 1.5;
/// A rebuild that brings nothing for so long stands still.
const STANDSTILL: Duration = Duration::from_secs(120);
/// Between looks.
const LOOK: Duration = Duration::from_millis(500);
/// A server's death is known long before.
const KNOWN: Duration = Duration::from_secs(30);
/// A disk that discards freed blocks is busy with that for a while.
const SETTLE: Duration = Duration::from_secs(2);
const GIB: f64 = (1u64 << 30) as f64;

pub(crate) struct Scene {
    cluster: Cluster,
    mount: PathBuf,
    store: Store,
    foreground: Foreground,
    capacity: u64,
}

impl Scene {
    /// A cluster whose chunkservers each hold so much, with the programs at work.
    pub(crate) fn up(flags: &Flags) -> anyhow::Result<Self> {
        let mut options = Options::new(3, flags.chunkservers);
        let capacity = (flags.gib * GIB * ROOM) as u64 + (2 << 30);
        options.capacity = capacity.to_string();
        options.survival.clone_from(&flags.survival);
        options.folder.clone_from(&flags.folder);
        let mut cluster = options.start()?;
        cluster.announce(" WARN ");
        let mount = cluster.mount()?;
        let bytes = (flags.gib * GIB) as u64 * u64::from(flags.chunkservers) / REPLICAS;
        eprintln!("fill the cluster with {bytes} bytes in {REPLICAS} copies");
        let began = Instant::now();
        let store = Store::fill(mount.join("store"), bytes)?;
        eprintln!("filled in {:.1} s", began.elapsed().as_secs_f64());
        let foreground = Foreground::start(&mount.join("programs"), &store, flags.programs)?;
        Ok(Self { cluster, mount, store, foreground, capacity })
    }

    /// Nothing but the programs.
    pub(crate) fn quiet(&mut self, time: Duration) -> anyhow::Result<Phase> {
        // What filling left to be done in the background is no part of it, nor is the first touch of every file.
        std::thread::sleep(Duration::from_secs(5));
        self.timed("nothing", |_| {
            std::thread::sleep(time);
            Ok(0)
        })
    }

    /// A chunkserver dies, its directory is deleted, and it is started again with an empty one.
    pub(crate) fn rebuild(&mut self) -> anyhow::Result<Phase> {
        let lost = Role::Chunkserver(1);
        self.cluster.kill(lost)?;
        self.wait("its death is known", KNOWN, |scene| Ok(!scene.is_whole()?))?;
        self.cluster.wipe(lost)?;
        self.let_settle()?;
        self.timed("rebuild", |scene| {
            scene.cluster.restart(lost)?;
            scene.wait_whole()?;
            scene.held(1)
        })
    }

    /// The cluster grows by one, and a chunkserver is emptied and goes.
    pub(crate) fn drain(&mut self) -> anyhow::Result<Phase> {
        self.cluster.grow()?;
        let (id, held) = (self.newest(2)?["id"].to_string(), self.held(2)?);
        eprintln!("drain chunkserver {id}, which holds {held} bytes of {} it may", self.capacity);
        let phase = self.timed("drain", |scene| {
            let timeout = STANDSTILL.as_secs().to_string();
            let output = scene.cluster.pangu(&["drain", &id, "--timeout", &timeout])?;
            let said = String::from_utf8_lossy(&output.stdout);
            anyhow::ensure!(
                output.status.success() && said.contains("safe to pull"),
                "pangu drain {id}: {said}{}",
                String::from_utf8_lossy(&output.stderr)
            );
            Ok(held)
        })?;
        let pulled = Role::Chunkserver(2);
        self.cluster.kill(pulled)?;
        self.cluster.wipe(pulled)?;
        Ok(phase)
    }

    /// Checks everything; answers what is wrong, and how many bytes are right.
    pub(crate) fn down(self) -> anyhow::Result<(Vec<String>, u64)> {
        let (mut wrong, mut right) = self.foreground.finish();
        let damaged = self.store.check();
        if damaged.is_empty() {
            right += self.store.bytes();
        }
        wrong.extend(damaged);
        self.cluster.finish()?;
        Ok((wrong, right))
    }

    /// Waits until this machine's disk is done with what was deleted: a real cluster's lost disk is another one.
    fn let_settle(&self) -> anyhow::Result<()> {
        let folder = File::open(self.cluster.folder())?;
        nix::unistd::syncfs(&folder).context("sync the file system below")?;
        std::thread::sleep(SETTLE);
        Ok(())
    }

    /// Times the work, which answers how many bytes it made or moved, and the programs meanwhile.
    fn timed(
        &mut self,
        name: &'static str,
        work: impl FnOnce(&mut Self) -> anyhow::Result<u64>,
    ) -> anyhow::Result<Phase> {
        let _before = self.foreground.take_times();
        let began = Instant::now();
        let moved_bytes = work(self)?;
        let took = began.elapsed();
        self.foreground.check()?;
        let phase = Phase { name, took, moved_bytes, times: self.foreground.take_times() };
        eprintln!("{name}: {:.1} s", took.as_secs_f64());
        Ok(phase)
    }

    /// Looks at files of the mount: a `pangu status` each time would be felt by the programs more than the rebuild.
    fn wait_whole(&mut self) -> anyhow::Result<()> {
        let say = |name: &str| {
            let path = self.mount.join(".pangu").join(name);
            std::fs::read_to_string(&path).with_context(|| format!("read {}", path.display()))
        };
        let (mut recovery, mut since) = (String::new(), Instant::now());
        loop {
            let health = say("health")?;
            if health.lines().next() == Some("ok") {
                return Ok(());
            }
            let now = say("recovery")?;
            if now != recovery {
                (recovery, since) = (now, Instant::now());
            }
            if since.elapsed() > STANDSTILL {
                anyhow::bail!("the rebuild brought nothing for {STANDSTILL:?}\n{health}{recovery}");
            }
            std::thread::sleep(LOOK);
        }
    }

    fn wait(
        &mut self,
        what: &str,
        patience: Duration,
        mut done: impl FnMut(&Self) -> anyhow::Result<bool>,
    ) -> anyhow::Result<()> {
        let began = Instant::now();
        while !done(self)? {
            anyhow::ensure!(began.elapsed() < patience, "not after {patience:?}: {what}");
            std::thread::sleep(LOOK);
        }
        Ok(())
    }

    fn status(&self) -> anyhow::Result<Value> {
        let output = self.cluster.pangu(&["status", "--json"])?;
        serde_json::from_slice(&output.stdout)
            .with_context(|| format!("read pangu status --json: {}", String::from_utf8_lossy(&output.stderr)))
    }

    /// Whether every group has all its members, and all serve.
    fn is_whole(&self) -> anyhow::Result<bool> {
        let status = self.status()?;
        let groups = status["groups"].as_array().context("a status has groups")?;
        let members: Vec<_> =
            groups.iter().filter_map(|group| group["members"].as_array()).flatten().collect();
        let serving = members.iter().filter(|member| member["state"] == "serving").count();
        Ok(serving == members.len() && serving == groups.len() * REPLICAS as usize)
    }

    /// The chunkserver of this rack that came last.
    fn newest(&self, rack: u32) -> anyhow::Result<Value> {
        let rack = format!("/rack{rack}/");
        let status = self.status()?;
        let servers = status["chunkservers"].as_array().context("a status has chunkservers")?;
        let here =
            servers.iter().filter(|server| server["location"].as_str().is_some_and(|l| l.contains(&rack)));
        let newest = here.max_by_key(|server| server["id"].as_u64()).context("the rack has a chunkserver")?;
        Ok(newest.clone())
    }

    /// What it holds.
    fn held(&self, rack: u32) -> anyhow::Result<u64> {
        let server = self.newest(rack)?;
        let disks = server["disks"].as_array().context("a chunkserver has disks")?;
        Ok(disks.iter().filter_map(|disk| disk["used_bytes"].as_u64()).max().unwrap_or(0))
    }
}
