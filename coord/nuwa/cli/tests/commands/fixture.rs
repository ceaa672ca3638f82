//! A cluster, and the program run against it.

use std::io::{BufRead as _, BufReader, Write as _};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdout, Command, Stdio};
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use nuwa_api::{Address, ClientConfig, NuwaClient};
use nuwa_server::{Config, NuwaServer};
use serde_json::Value;
use tempfile::TempDir;
use zhongkui::keyring::{write_capability, write_secret_key};
use zhongkui::terms::Root;
use zhongkui::{
    Capability, CapabilityId, Grant, Rights, SecretKey, Terms, Timestamp, User, UserEpoch, Validity,
};
use zhongkui_access::{Access, Audit, KeyDirectory, directory};

/// Longer than anything here may take on a busy machine; reached only by a test that fails.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);

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

/// A cluster of one member at first, on a thread of its own.
pub(crate) struct Cluster {
    pub(crate) dir: TempDir,
    description: PathBuf,
}

/// What a command came to.
#[derive(Debug)]
pub(crate) struct Ended {
    pub(crate) code: i32,
    pub(crate) out: Vec<u8>,
    pub(crate) error: String,
}

impl Cluster {
    pub(crate) fn start() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let address = format!("unix://{}/nuwa.sock", dir.path().display());
        keys(&dir).init().unwrap();
        let mut config = Config::new(1, [(1, address.parse().unwrap())].into(), dir.path().join("data"));
        config.access = access(&dir, directory::NUWA);
        serve(config);
        let description = dir.path().join("cluster.toml");
        std::fs::write(&description, format!("name = \"test\"\nnuwa = [\"{address}\"]\n")).unwrap();
        Self { dir, description }
    }

    /// Starts a process that is none of the members yet, and gives its address.
    pub(crate) fn start_newcomer(&self, id: u64) -> String {
        let listen = format!("unix://{}/{id}.sock", self.dir.path().display());
        let known = [(1, self.address())].into();
        let data = self.dir.path().join(format!("data-{id}"));
        let (listens, access) = (listen.parse().unwrap(), access(&self.dir, directory::NUWA));
        serve(Config { join: true, listen: listens, access, ..Config::new(id, known, data) });
        listen
    }

    fn address(&self) -> Address {
        format!("unix://{}/nuwa.sock", self.dir.path().display()).parse().unwrap()
    }

    pub(crate) fn file(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// Asks Nuwa without the program.
    pub(crate) fn ask<T>(&self, question: impl AsyncFnOnce(NuwaClient) -> T) -> T {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let transport = access(&self.dir, directory::ADMIN).transport();
        let config = ClientConfig::with(vec![self.address()], transport);
        runtime.block_on(async { question(NuwaClient::new(config)).await })
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

    /// The session that holds a lock, and how many wait for it.
    pub(crate) fn lock_state(&self, path: &str) -> (Option<u64>, u64) {
        let state = self.ask(async |client| client.lock_state(path, soon()).await.unwrap());
        (state.holders.first().map(|holder| holder.session), state.waiters)
    }

    pub(crate) fn run(&self, arguments: &[&str]) -> Ended {
        self.run_with(arguments, b"")
    }

    pub(crate) fn run_with(&self, arguments: &[&str], input: &[u8]) -> Ended {
        run(&self.with_flags(arguments), input)
    }

    pub(crate) fn with_flags<'a>(&'a self, arguments: &[&'a str]) -> Vec<&'a str> {
        [&["--cluster", text(&self.description), "--timeout", "60"], arguments].concat()
    }

    pub(crate) fn out(&self, arguments: &[&str]) -> String {
        let ended = self.run(arguments);
        assert_eq!((ended.code, &*ended.error), (0, ""), "{arguments:?}");
        String::from_utf8(ended.out).unwrap()
    }

    /// The one line of JSON that it says.
    pub(crate) fn json(&self, arguments: &[&str]) -> Value {
        serde_json::from_str(&self.out(&[arguments, &["--json"]].concat())).unwrap()
    }

    /// What it says when it refuses, without the program's name.
    pub(crate) fn refused(&self, arguments: &[&str], input: &[u8]) -> String {
        let ended = self.run_with(arguments, input);
        assert_eq!((ended.code, ended.out), (1, Vec::new()), "{arguments:?}: {}", ended.error);
        let error = ended.error.strip_prefix("nuwa: ").unwrap_or_else(|| panic!("{}", ended.error));
        error.strip_suffix('\n').unwrap().to_owned()
    }

    /// Starts it, and goes on.
    pub(crate) fn begin(&self, arguments: &[&str]) -> Running {
        let mut child = program(&self.with_flags(arguments)).spawn().unwrap();
        let lines = BufReader::new(child.stdout.take().unwrap());
        Running { child, lines }
    }
}

/// One that runs. Dropped, it is killed: a test that fails leaves none behind.
pub(crate) struct Running {
    child: Child,
    lines: BufReader<ChildStdout>,
}

impl Running {
    /// The next line of what it says, or what there is at its end.
    pub(crate) fn line(&mut self) -> String {
        let mut line = String::new();
        self.lines.read_line(&mut line).unwrap();
        line
    }

    pub(crate) fn send(&self, signal: Signal) {
        kill(Pid::from_raw(self.child.id().cast_signed()), signal).unwrap();
    }

    pub(crate) fn is_running(&mut self) -> bool {
        self.child.try_wait().unwrap().is_none()
    }

    /// How it ends; `None`: by a signal.
    pub(crate) fn ended(&mut self) -> Option<i32> {
        until("the program's end", || !self.is_running());
        self.child.wait().unwrap().code()
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // It may have ended.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Beside the description, where programs look for them.
pub(crate) fn keys(dir: &TempDir) -> KeyDirectory {
    KeyDirectory::at(dir.path().join("keys"))
}

fn access(dir: &TempDir, name: &str) -> Access {
    keys(dir).access(name, Audit::none()).unwrap()
}

fn serve(config: Config) {
    std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let server = NuwaServer::start(config).await.unwrap();
            server.failed().await;
        });
    });
}

fn program(arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_nuwa"));
    command
        .args(arguments)
        .env_remove("FEITIAN_CLUSTER")
        .env_remove("FEITIAN_KEYS")
        .stdout(Stdio::piped())
        .stdin(Stdio::null());
    command
}

pub(crate) fn run(arguments: &[&str], input: &[u8]) -> Ended {
    let mut child = program(arguments).stdin(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    // One that does not read it has closed it.
    let _ = child.stdin.take().unwrap().write_all(input);
    let output = child.wait_with_output().unwrap();
    let error = String::from_utf8(output.stderr).unwrap();
    Ended { code: output.status.code().unwrap(), out: output.stdout, error }
}

pub(crate) fn text(path: &Path) -> &str {
    path.to_str().unwrap()
}
