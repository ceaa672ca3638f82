//! A cluster of one member, another client of it, and mounts.

use std::ffi::OsStr;
use std::fs::File;
use std::io::{BufRead as _, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc;
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use nuwa_api::proto::command;
use nuwa_api::{Address, ClientConfig, NuwaClient, Session};
use nuwa_server::{Config, NuwaServer};
use tempfile::TempDir;
use tokio::runtime::Runtime;
use zhongkui::keyring::{write_capability, write_secret_key};
use zhongkui::terms::Root;
use zhongkui::{
    Capability, CapabilityId, Grant, Rights, SecretKey, Terms, Timestamp, User, UserEpoch, Validity,
};
use zhongkui_access::{Audit, KeyDirectory, directory};

/// Longer than anything here may take on a busy machine; reached only by a test that fails.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);
/// Of the mounts' sessions.
pub(crate) const LEASE: Duration = Duration::from_secs(2);
/// A mount that was taken down ends within this, or is killed: a test that failed may have files open.
const END: Duration = Duration::from_secs(10);

pub(crate) fn soon() -> Option<Instant> {
    Some(Instant::now() + PATIENCE)
}

/// Asks until the answer is yes.
pub(crate) fn until(what: &str, mut condition: impl FnMut() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !condition() {
        assert!(Instant::now() < deadline, "waited {PATIENCE:?} for: {what}");
        std::thread::sleep(Duration::from_millis(10));
    }
}

/// The cluster, and somebody who changes it without a mount. Its member runs on a thread of its own: the tests' threads wait in
/// system calls on the mounts.
pub(crate) struct World {
    /// Of the other client.
    pub(crate) session: Session,
    server: Option<NuwaServer>,
    config: Config,
    description: PathBuf,
    dir: TempDir,
    runtime: Runtime,
}

impl World {
    /// `None`: this machine does not let us mount.
    pub(crate) fn start() -> Option<Self> {
        if !Path::new("/dev/fuse").exists() || !nix::unistd::geteuid().is_root() {
            eprintln!("needs /dev/fuse and root: not tested");
            return None;
        }
        let dir = tempfile::tempdir().unwrap();
        let address: Address = format!("unix://{}/nuwa.sock", dir.path().display()).parse().unwrap();
        let description = dir.path().join("cluster.toml");
        std::fs::write(&description, format!("name = \"test\"\nnuwa = [\"{address}\"]\n")).unwrap();
        let keys = KeyDirectory::at(dir.path().join("keys"));
        keys.init().unwrap();
        let mut config = Config::new(1, [(1, address.clone())].into(), dir.path().join("data"));
        config.access = keys.access(directory::NUWA, Audit::none()).unwrap();
        let admin = keys.access(directory::ADMIN, Audit::none()).unwrap();
        let runtime =
            tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
        let (server, session) = runtime.block_on(async {
            let server = NuwaServer::start(config.clone()).await.unwrap();
            let client = NuwaClient::new(ClientConfig::with(vec![address], admin.transport()));
            (server, client.open_session(Duration::from_secs(300), "the other one", soon()).await.unwrap())
        });
        Some(Self { session, server: Some(server), config, description, dir, runtime })
    }

    /// Waits for an answer of the other client.
    pub(crate) fn ask<F: Future>(&self, question: F) -> F::Output {
        self.runtime.block_on(question)
    }

    pub(crate) fn client(&self) -> &NuwaClient {
        self.session.client()
    }

    pub(crate) fn put(&self, path: &str, value: &str) {
        self.ask(self.session.put(path, value.to_owned(), soon())).unwrap();
    }

    pub(crate) fn change(&self, what: command::What) {
        self.ask(self.session.change(what, soon())).unwrap();
    }

    /// What is in the tree; `None`: no such file.
    pub(crate) fn value(&self, path: &str) -> Option<Vec<u8>> {
        let entry = self.ask(self.client().get(path, nuwa_api::client::Freshness::Linearizable, soon()));
        entry.unwrap().map(|entry| entry.value.into())
    }

    /// The session that holds a file's lock.
    pub(crate) fn holder(&self, path: &str) -> Option<u64> {
        let state = self.ask(self.client().lock_state(path, soon())).unwrap();
        state.holders.first().map(|holder| holder.session)
    }

    /// The member forgets what it had in memory only.
    pub(crate) fn restart(&mut self) {
        self.stop();
        self.start_again();
    }

    /// Nobody answers until it is started again.
    pub(crate) fn stop(&mut self) {
        let server = self.server.take().unwrap();
        self.runtime.block_on(server.shutdown());
    }

    pub(crate) fn start_again(&mut self) {
        self.server = Some(self.runtime.block_on(NuwaServer::start(self.config.clone())).unwrap());
    }

    pub(crate) fn mount(&self, name: &str) -> Mount {
        self.mount_with(name, &[])
    }

    /// The same with more flags.
    pub(crate) fn mount_with(&self, name: &str, flags: &[&OsStr]) -> Mount {
        Mount::new(&self.dir.path().join(name), &self.description, flags)
    }

    /// Files with the key and the capability of a user who has rights on a resource.
    pub(crate) fn user(&self, name: &str, rights: Rights, on: &str) -> (PathBuf, PathBuf) {
        let keys = KeyDirectory::at(self.dir.path().join("keys"));
        let (authority, key) = (keys.authority().unwrap(), SecretKey::generate().unwrap());
        let user = User::new(name.parse().unwrap(), UserEpoch(0), 1000, vec![1000]).unwrap();
        let root = Root { id: CapabilityId(1), issuer: authority.public().id(), user };
        let always = Validity::new(Timestamp(0), Timestamp::FOREVER).unwrap();
        let grants = vec![Grant::new(rights, on.parse().unwrap()).unwrap()];
        let terms = Terms::new(key.public(), always, grants).unwrap();
        let files =
            (self.dir.path().join(format!("{name}.key")), self.dir.path().join(format!("{name}.cap")));
        write_secret_key(&files.0, &key).unwrap();
        write_capability(&files.1, &Capability::grant(&authority, root, terms).unwrap()).unwrap();
        files
    }
}

impl Drop for World {
    fn drop(&mut self) {
        if let Some(server) = self.server.take() {
            self.runtime.block_on(server.shutdown());
        }
    }
}

pub(crate) struct Mount {
    pub(crate) path: PathBuf,
    process: Child,
}

impl Mount {
    fn new(path: &Path, cluster: &Path, flags: &[&OsStr]) -> Self {
        std::fs::create_dir(path).unwrap();
        let process = Command::new(env!("CARGO_BIN_EXE_nuwa-fuse"))
            .arg(path)
            .arg("--cluster")
            .arg(cluster)
            .args(["--lease", &LEASE.as_secs().to_string()])
            .args(flags)
            .env_remove("FEITIAN_KEYS")
            .stderr(Stdio::inherit())
            .spawn()
            .unwrap();
        let mount = Self { path: path.to_owned(), process };
        until("the mount", || Command::new("mountpoint").arg("-q").arg(path).status().unwrap().success());
        mount
    }

    pub(crate) fn kill(&mut self) {
        self.process.kill().unwrap();
        self.process.wait().unwrap();
    }

    /// Stops it, or lets it go on: `SIGSTOP`, `SIGCONT`.
    pub(crate) fn signal(&self, signal: Signal) {
        kill(Pid::from_raw(self.process.id().cast_signed()), signal).unwrap();
    }
}

impl Drop for Mount {
    fn drop(&mut self) {
        Command::new("umount").arg("-l").arg(&self.path).stderr(Stdio::null()).status().unwrap();
        // It ends by itself once it is unmounted and its files are closed, or was killed already.
        let end = Instant::now() + END;
        while matches!(self.process.try_wait(), Ok(None)) {
            if Instant::now() >= end {
                self.process.kill().unwrap();
            }
            std::thread::sleep(Duration::from_millis(10));
        }
    }
}

/// What `.events` tells, read on a thread of its own: a read may wait for ever.
pub(crate) struct Told(mpsc::Receiver<serde_json::Value>);

impl Told {
    /// From the moment this returns on, or from the revision in the path.
    pub(crate) fn by(path: &Path) -> Self {
        let file = File::open(path).unwrap();
        // What nobody takes waits in the file: a test reads all it asks for.
        let (sender, told) = mpsc::sync_channel(1024);
        std::thread::spawn(move || {
            for line in BufReader::new(file).lines() {
                let line = serde_json::from_str(&line.unwrap()).unwrap();
                if sender.send(line).is_err() {
                    return;
                }
            }
        });
        Self(told)
    }

    /// The next line; `None` at the end of the file.
    pub(crate) fn next(&self) -> Option<serde_json::Value> {
        match self.0.recv_timeout(PATIENCE) {
            Ok(line) => Some(line),
            Err(mpsc::RecvTimeoutError::Disconnected) => None,
            Err(mpsc::RecvTimeoutError::Timeout) => panic!("nothing was told within {PATIENCE:?}"),
        }
    }
}
