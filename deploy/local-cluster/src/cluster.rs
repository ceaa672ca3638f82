//! A cluster: masters, chunkservers in racks of their own, members of Nuwa, mounts; starting, hurting, and ending it.

mod nuwa;

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fmt;
use std::fs;
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::sync::mpsc::sync_channel;
use std::thread;
use std::time::Duration;

use tempfile::TempDir;
use zhongkui_access::{Access, Audit, KeyDirectory, directory};

use crate::error::Error;
use crate::launcher::Launcher;
use crate::logs::{self, Offence};
use crate::mount::{self, is_mounted, sweep_stale, unmount};
use crate::network::{Network, Way};
use crate::ports::free_port;
use crate::process::Program;
use crate::throttle::Throttle;
use crate::wait::{Deadline, wait_until};

/// A server must take connections this long after its start: recovery of a store included, on a busy machine.
const START: Duration = Duration::from_secs(60);
/// A fresh cluster must have served a first durable write this long after the mount: an election, registration and
/// the first groups included.
const FIRST_WRITE: Duration = Duration::from_secs(90);
/// With networks of their own, all servers listen on this port.
const OWN_PORT: u16 = 7100;
/// A polite end must be over by then.
const STOP: Duration = Duration::from_secs(20);

/// A member of a cluster, numbered from 1.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Role {
    /// `pangu-master`
    Master(u32),
    /// `pangu-chunkserver`
    Chunkserver(u32),
    /// `nuwa-server`
    Nuwa(u32),
    /// `pangu-fuse`
    Client(u32),
}

impl fmt::Display for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Master(n) => write!(f, "master{n}"),
            Self::Chunkserver(n) => write!(f, "chunkserver{n}"),
            Self::Nuwa(n) => write!(f, "nuwa{n}"),
            Self::Client(n) => write!(f, "client{n}"),
        }
    }
}

/// What a cluster is made of; [`Cluster::start`] takes the defaults.
#[derive(Debug, Clone)]
pub struct Options {
    /// Masters, in one Raft group.
    pub masters: u32,
    /// Chunkservers, each in a rack of its own.
    pub chunkservers: u32,
    /// Members of Nuwa.
    pub nuwa: u32,
    /// Copies of each chunk.
    pub replicas: u32,
    /// Copies that must be durable before a write is answered.
    pub min_replicas: u32,
    /// What each chunkserver may use, as its `--capacity` wants it.
    pub capacity: String,
    /// The folder for everything; none: a temporary one, removed at the end.
    pub folder: Option<PathBuf>,
    /// A folder in which each server makes its data directory by itself; none: they are made in the one for everything.
    pub disks: Option<PathBuf>,
    /// Connections between its processes are TLS.
    pub tls: bool,
    /// Lines of the description's section `[survival]`.
    pub survival: String,
    /// Lines of its section `[raft]`.
    pub raft: String,
    /// Words before the command line of a server: whatever is to be different for it (a clock, a limit).
    pub words_before: Vec<(Role, Vec<OsString>)>,
    /// Further arguments of `pangu-fuse`.
    pub client_arguments: Vec<OsString>,
    /// Each server has a network namespace of its own, and [`Cluster::cut`] works. As root only; the thread that starts the
    /// cluster moves to a namespace too, and stays there.
    pub network: bool,
}

impl Options {
    /// As many replicas as chunkservers, at most three, of which all but one must be there.
    #[must_use]
    pub fn new(masters: u32, chunkservers: u32) -> Self {
        let replicas = chunkservers.clamp(1, 3);
        Self {
            masters,
            chunkservers,
            nuwa: 0,
            replicas,
            min_replicas: replicas.saturating_sub(1).max(1),
            capacity: "12G".to_owned(),
            folder: None,
            disks: None,
            tls: false,
            survival: String::new(),
            raft: String::new(),
            words_before: Vec::new(),
            client_arguments: Vec::new(),
            network: false,
        }
    }

    /// Starts every server and returns when all of them take connections.
    pub fn start(self) -> Result<Cluster, Error> {
        Cluster::build(self)
    }
}

/// Running processes. Dropping it ends them all, unmounts, and fails the test on log lines nobody announced.
#[derive(Debug)]
pub struct Cluster {
    options: Options,
    folder: PathBuf,
    binaries: PathBuf,
    launcher: Launcher,
    programs: BTreeMap<Role, Program>,
    addresses: BTreeMap<Role, SocketAddr>,
    network: Option<Network>,
    announced: Vec<String>,
    finished: bool,
    // Last, so that it goes after everything that lives in it.
    temporary: Option<TempDir>,
}

impl Cluster {
    /// `masters` masters and `chunkservers` chunkservers with the defaults of [`Options::new`].
    pub fn start(masters: u32, chunkservers: u32) -> Result<Self, Error> {
        Options::new(masters, chunkservers).start()
    }

    fn build(options: Options) -> Result<Self, Error> {
        sweep_stale();
        let binaries = binaries()?;
        let temporary = match &options.folder {
            Some(_) => None,
            None => Some(temporary_folder()?),
        };
        let folder = match (&options.folder, &temporary) {
            (Some(folder), _) => folder.clone(),
            (None, Some(temporary)) => temporary.path().to_owned(),
            (None, None) => unreachable!("one of the two was just made"),
        };
        make_folder(&folder.join("log"))?;
        // Before anything is launched: what is started from here on lives there.
        let network = options.network.then(Network::start).transpose()?;
        let mut cluster = Self {
            folder,
            binaries,
            launcher: Launcher::start()?,
            programs: BTreeMap::new(),
            addresses: BTreeMap::new(),
            network,
            announced: Vec::new(),
            finished: false,
            temporary,
            options,
        };
        cluster.describe()?;
        for n in 1..=cluster.options.masters {
            cluster.add_master(n, false)?;
        }
        for n in 1..=cluster.options.chunkservers {
            cluster.add_chunkserver(n)?;
        }
        for n in 1..=cluster.options.nuwa {
            cluster.add_nuwa(n)?;
        }
        let roles: Vec<Role> = cluster.programs.keys().copied().collect();
        for role in &roles {
            cluster.program(*role)?.start()?;
        }
        for role in &roles {
            cluster.wait_ready(*role)?;
        }
        Ok(cluster)
    }

    /// Writes the cluster description and gives every master and member of Nuwa its port.
    fn describe(&mut self) -> Result<(), Error> {
        let mut text = "name = \"local\"\n".to_owned();
        if self.options.tls {
            text.push_str("tls = true\n");
        }
        let masters = (1..=self.options.masters).map(Role::Master).collect();
        let nuwa = (1..=self.options.nuwa).map(Role::Nuwa).collect();
        for (list, roles) in [("masters", masters), ("nuwa", nuwa)] {
            let roles: Vec<Role> = roles;
            let mut addresses = Vec::new();
            for role in roles {
                addresses.push(format!("\"tcp://{}\"", self.choose_address(role)?));
            }
            if !addresses.is_empty() {
                text.push_str(&format!("{list} = [{}]\n", addresses.join(", ")));
            }
        }
        for (section, lines) in [("survival", &self.options.survival), ("raft", &self.options.raft)] {
            if !lines.is_empty() {
                text.push_str(&format!("\n[{section}]\n{lines}"));
            }
        }
        let path = self.description();
        fs::write(&path, text).map_err(|source| Error::File { action: "write", path, source })?;
        Ok(self.keys().init()?)
    }

    /// The cluster's keys, beside its description.
    #[must_use]
    pub fn keys(&self) -> KeyDirectory {
        KeyDirectory::at(self.folder.join("keys"))
    }

    /// All rights on it, for clients in this process.
    pub fn access(&self) -> Result<Access, Error> {
        Ok(self.keys().access(directory::ADMIN, Audit::none())?.over_tls(self.options.tls))
    }

    /// The cluster description, for `--cluster`.
    #[must_use]
    pub fn description(&self) -> PathBuf {
        self.folder.join("cluster.toml")
    }

    /// The folder with everything of this cluster.
    #[must_use]
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// Where the programs of the platform are.
    #[must_use]
    pub fn binaries(&self) -> &Path {
        &self.binaries
    }

    fn add_master(&mut self, n: u32, join: bool) -> Result<(), Error> {
        let role = Role::Master(n);
        let data = self.data(role)?;
        let arguments = vec![
            "--id".into(),
            n.to_string().into(),
            "--listen".into(),
            format!("tcp://{}", self.address(role)?).into(),
            "--data".into(),
            data.into(),
            "--cluster".into(),
            self.description().into(),
            "--replicas".into(),
            self.options.replicas.to_string().into(),
            "--min-replicas".into(),
            self.options.min_replicas.to_string().into(),
        ];
        let join = join.then(|| "--join".into());
        self.add(role, "pangu-master", arguments.into_iter().chain(join).collect())
    }

    fn add_chunkserver(&mut self, n: u32) -> Result<(), Error> {
        let role = Role::Chunkserver(n);
        let address = self.choose_address(role)?;
        let data = self.data(role)?;
        let arguments = vec![
            "--listen".into(),
            format!("tcp://{address}").into(),
            "--data".into(),
            data.into(),
            "--location".into(),
            format!("/local/rack{n}/host{n}").into(),
            "--cluster".into(),
            self.description().into(),
            "--capacity".into(),
            self.options.capacity.clone().into(),
        ];
        self.add(role, "pangu-chunkserver", arguments)
    }

    /// Starts one more master on an empty directory, and returns when it takes connections. It joins nothing by itself:
    /// `pangu master add` with its [`Self::address_of`] does.
    pub fn grow_masters(&mut self) -> Result<Role, Error> {
        self.options.masters += 1;
        let role = Role::Master(self.options.masters);
        self.choose_address(role)?;
        self.add_master(self.options.masters, true)?;
        self.program(role)?.start()?;
        self.wait_ready(role)?;
        Ok(role)
    }

    /// Deletes everything a member that does not run has kept.
    pub fn wipe(&mut self, role: Role) -> Result<(), Error> {
        assert!(self.pid(role).is_none(), "{role} runs");
        let path = self.data_of(role);
        fs::remove_dir_all(&path).map_err(|source| Error::File { action: "delete", path, source })?;
        self.data(role).map(drop)
    }

    /// Starts one more chunkserver, in a rack of its own, and returns when it takes connections.
    pub fn grow(&mut self) -> Result<Role, Error> {
        self.options.chunkservers += 1;
        let n = self.options.chunkservers;
        self.add_chunkserver(n)?;
        let role = Role::Chunkserver(n);
        self.program(role)?.start()?;
        self.wait_ready(role)?;
        Ok(role)
    }

    fn add(&mut self, role: Role, binary: &'static str, arguments: Vec<OsString>) -> Result<(), Error> {
        let path = self.binaries.join(binary);
        if !path.is_file() {
            return Err(Error::NoProgram { program: binary, folder: self.binaries.clone() });
        }
        let log = self.folder.join("log").join(role.to_string());
        let before = self.options.words_before.iter().find(|(of, _)| *of == role);
        let (path, arguments) = match before.and_then(|(_, words)| words.split_first()) {
            None => (path, arguments),
            Some((first, rest)) => {
                let words = rest.iter().cloned().chain([path.into_os_string()]).chain(arguments);
                (PathBuf::from(first), words.collect())
            }
        };
        let address = self.addresses.get(&role);
        let inside = self.network.as_ref().zip(address).and_then(|(net, address)| net.inside(address.ip()));
        let (path, arguments) = match inside {
            None => (path, arguments),
            Some([enter, net]) => {
                let words = [net.into(), path.into_os_string()].into_iter().chain(arguments);
                (PathBuf::from(enter), words.collect())
            }
        };
        self.programs
            .insert(role, Program::new(role.to_string(), path, arguments, log, self.launcher.clone()));
        Ok(())
    }

    /// Where a server is to listen.
    fn choose_address(&mut self, role: Role) -> Result<SocketAddr, Error> {
        let address = match &mut self.network {
            Some(network) => SocketAddr::new(network.connect()?, OWN_PORT),
            None => SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), free_port()?),
        };
        self.addresses.insert(role, address);
        Ok(address)
    }

    /// Where a member is to keep its data: a directory of its own.
    fn data(&self, role: Role) -> Result<PathBuf, Error> {
        let path = self.data_of(role);
        if self.options.disks.is_none() {
            make_folder(&path)?;
        }
        Ok(path)
    }

    /// The data directory of a server.
    #[must_use]
    pub fn data_of(&self, role: Role) -> PathBuf {
        self.options.disks.as_ref().unwrap_or(&self.folder).join(role.to_string())
    }

    fn address(&self, role: Role) -> Result<SocketAddr, Error> {
        self.addresses.get(&role).copied().ok_or_else(|| Error::NoMember(role.to_string()))
    }

    fn program(&mut self, role: Role) -> Result<&mut Program, Error> {
        self.programs.get_mut(&role).ok_or_else(|| Error::NoMember(role.to_string()))
    }

    /// Where a server listens.
    pub fn address_of(&self, role: Role) -> Result<String, Error> {
        Ok(format!("tcp://{}", self.address(role)?))
    }

    /// Every server, masters first.
    #[must_use]
    pub fn servers(&self) -> Vec<Role> {
        self.programs.keys().copied().filter(|role| !matches!(role, Role::Client(_))).collect()
    }

    /// The process id of a member that runs.
    #[must_use]
    pub fn pid(&self, role: Role) -> Option<u32> {
        self.programs.get(&role)?.pid()
    }

    /// A new mount, on a directory below the cluster's folder. Returns when a first write with fsync is through.
    pub fn mount(&mut self) -> Result<PathBuf, Error> {
        self.mount_with(&[])
    }

    /// As [`Self::mount`], with further arguments of `pangu-fuse`.
    pub fn mount_with(&mut self, arguments: &[&str]) -> Result<PathBuf, Error> {
        let n = u32::try_from(self.mounts().len()).expect("few mounts") + 1;
        let point = self.folder.join(format!("mnt{n}"));
        self.add_mount(&point, arguments)?;
        Ok(point)
    }

    /// As [`Self::mount`], on a directory of the caller's choice.
    pub fn mount_at(&mut self, point: &Path) -> Result<(), Error> {
        self.add_mount(point, &[])
    }

    fn add_mount(&mut self, point: &Path, further: &[&str]) -> Result<(), Error> {
        let n = u32::try_from(self.mounts().len()).expect("few mounts") + 1;
        make_folder(point)?;
        let mut arguments: Vec<OsString> = vec![point.into(), "--cluster".into(), self.description().into()];
        arguments.extend(self.options.client_arguments.iter().cloned());
        arguments.extend(further.iter().map(OsString::from));
        let role = Role::Client(n);
        self.add(role, "pangu-fuse", arguments)?;
        fs::write(self.folder.join(format!("{role}.mount")), point.as_os_str().as_encoded_bytes())
            .map_err(|source| Error::File { action: "write", path: self.folder.clone(), source })?;
        self.program(role)?.start()?;
        self.wait_ready(role)?;
        self.wait_first_write(point)
    }

    /// The mount points, by client.
    #[must_use]
    pub fn mounts(&self) -> Vec<(Role, PathBuf)> {
        let clients = self.programs.keys().copied().filter(|role| matches!(role, Role::Client(_)));
        clients.filter_map(|role| Some((role, self.mount_point(role)?))).collect()
    }

    fn mount_point(&self, role: Role) -> Option<PathBuf> {
        let text = fs::read(self.folder.join(format!("{role}.mount"))).ok()?;
        Some(PathBuf::from(<OsString as std::os::unix::ffi::OsStringExt>::from_vec(text)))
    }

    /// Ends a member as a crash would (SIGKILL).
    pub fn kill(&mut self, role: Role) -> Result<(), Error> {
        self.program(role)?.kill()
    }

    /// Ends every process of the cluster, mounts included, as a crash of each would.
    pub fn kill_all(&mut self) -> Result<(), Error> {
        self.cut_power(|| ())
    }

    /// Ends every process of the cluster, mounts included, as a loss of power of the whole site would. `disks` is
    /// called when all are told and nobody is waited for yet: some may be held by a disk that stands still.
    pub fn cut_power(&mut self, disks: impl FnOnce()) -> Result<(), Error> {
        for program in self.programs.values() {
            program.tell_to_die();
        }
        disks();
        for program in self.programs.values_mut() {
            program.kill()?;
        }
        Ok(())
    }

    /// Ends a member in good order: a client by unmounting, a server by SIGTERM.
    pub fn stop(&mut self, role: Role) -> Result<(), Error> {
        if let Some(point) = self.mount_point(role) {
            unmount(&point, Deadline::within(STOP))?;
            return self.program(role)?.wait_end(STOP);
        }
        self.program(role)?.stop(STOP)
    }

    /// Starts a member again that was killed or stopped, and waits until it answers. A client's dead mount is cleared.
    pub fn restart(&mut self, role: Role) -> Result<(), Error> {
        self.start_again(role)?;
        self.wait_ready(role)
    }

    /// Starts all that do not run, servers first, and waits until they answer.
    pub fn restart_all(&mut self) -> Result<(), Error> {
        let down: Vec<Role> = self
            .programs
            .iter()
            .filter(|(_, program)| program.pid().is_none())
            .map(|(role, _)| *role)
            .collect();
        for role in &down {
            self.start_again(*role)?;
        }
        for role in &down {
            self.wait_ready(*role)?;
        }
        Ok(())
    }

    fn start_again(&mut self, role: Role) -> Result<(), Error> {
        if let Some(point) = self.mount_point(role)
            && is_mounted(&point)
        {
            unmount(&point, Deadline::within(Duration::ZERO))?;
        }
        self.program(role)?.start()
    }

    /// Stops a member without ending it (SIGSTOP), or lets it go on.
    pub fn pause(&mut self, role: Role, paused: bool) -> Result<(), Error> {
        self.program(role)?.pause(paused);
        Ok(())
    }

    /// Cuts a server off from everybody, or connects it again. What is under way is lost, and nobody is told. Only with
    /// [`Options::network`].
    pub fn cut(&mut self, role: Role, cut: bool) -> Result<(), Error> {
        let address = self.address(role)?;
        let network = self.network.as_ref().ok_or_else(|| Error::NoMember("network".to_owned()))?;
        network.cut(address.ip(), cut)
    }

    /// Loses all that goes one way between a server and everybody, or no more; as [`Self::cut`] otherwise.
    pub fn lose(&mut self, role: Role, way: Way, lose: bool) -> Result<(), Error> {
        let address = self.address(role)?;
        let network = self.network.as_ref().ok_or_else(|| Error::NoMember("network".to_owned()))?;
        network.lose(address.ip(), way, lose)
    }

    /// Lets a member write to its disk only so often, until what comes back is dropped. Only where [`Throttle::is_possible`].
    pub fn slow(&self, role: Role, writes_per_s: u64) -> Result<Throttle, Error> {
        let pid = self.pid(role).ok_or_else(|| Error::NoMember(role.to_string()))?;
        Throttle::start(&self.folder.join(role.to_string()), pid, writes_per_s)
    }

    /// Fails if a member ended that nobody asked to.
    pub fn check_alive(&mut self) -> Result<(), Error> {
        self.programs.values_mut().try_for_each(Program::check_alive)
    }

    fn wait_ready(&mut self, role: Role) -> Result<(), Error> {
        let point = self.mount_point(role);
        let address = self.addresses.get(&role).copied();
        let program = self.program(role)?;
        let ready = wait_until(&format!("{role} is ready"), Deadline::within(START), || {
            program.check_alive()?;
            Ok(match (&point, address) {
                (Some(point), _) => is_mounted(point),
                (None, Some(address)) => TcpStream::connect_timeout(&address, START).is_ok(),
                (None, None) => true,
            })
        });
        self.with_tails(ready)
    }

    /// A small file is written with fsync and removed. In a thread of its own: a mount whose servers do not answer
    /// holds its caller until they do.
    fn wait_first_write(&mut self, point: &Path) -> Result<(), Error> {
        let (done, first) = sync_channel(1);
        let path = point.join(".first-write");
        thread::spawn(move || {
            let written = fs::File::create(&path)
                .and_then(|mut file| {
                    std::io::Write::write_all(&mut file, b"first")?;
                    file.sync_all()
                })
                .and_then(|()| fs::remove_file(&path));
            // Nobody may listen any more: then the wait was over already.
            drop(done.send(written));
        });
        match first.recv_timeout(FIRST_WRITE) {
            Ok(Ok(())) => Ok(()),
            Ok(Err(source)) => {
                eprintln!("{}", self.tails(30));
                Err(Error::File { action: "write the first file below", path: point.to_owned(), source })
            }
            Err(_) => Err(Error::Late {
                what: "the first write with fsync is through".to_owned(),
                within: FIRST_WRITE,
                tails: self.tails(20),
            }),
        }
    }

    /// Runs `pangu` on this cluster.
    pub fn pangu(&self, arguments: &[&str]) -> Result<Output, Error> {
        Command::new(self.binaries.join("pangu"))
            .arg("--cluster")
            .arg(self.description())
            .args(arguments)
            .stdin(Stdio::null())
            .output()
            .map_err(|source| Error::Process { action: "run", name: "pangu".to_owned(), source })
    }

    /// Lines of WARN or ERROR with this text in them are expected from here on.
    pub fn announce(&mut self, text: impl Into<String>) {
        self.announced.push(text.into());
    }

    /// The lines of WARN or above that were not announced.
    #[must_use]
    pub fn offences(&self) -> Vec<Offence> {
        self.programs
            .values()
            .flat_map(|program| logs::offences(program.name(), &logs::read(program.log()), &self.announced))
            .collect()
    }

    /// The ends of all logs.
    #[must_use]
    pub fn tails(&self, lines: usize) -> String {
        self.programs
            .values()
            .map(|program| format!("--- {}\n{}\n", program.name(), logs::tail(program.log(), lines)))
            .collect()
    }

    fn with_tails(&self, result: Result<(), Error>) -> Result<(), Error> {
        result.map_err(|error| match error {
            Error::Late { what, within, tails } if tails.is_empty() => {
                Error::Late { what, within, tails: self.tails(20) }
            }
            other => other,
        })
    }

    /// Unmounts and stops everything in good order, then fails on unannounced lines in the logs.
    ///
    /// What servers say of each other while all of them go is no sign of anything: from the moment the first is
    /// asked to stop, only a panic counts.
    pub fn finish(mut self) -> Result<(), Error> {
        self.finished = true;
        // Clients first: they may have something to hand over.
        let (clients, servers): (Vec<Role>, Vec<Role>) =
            self.programs.keys().copied().partition(|role| matches!(role, Role::Client(_)));
        for role in clients {
            self.stop(role)?;
        }
        let mut offences = self.offences();
        for role in &servers {
            self.program(*role)?.ask_to_stop();
        }
        for role in servers {
            self.program(role)?.wait_end(STOP)?;
        }
        let panics = self.offences().into_iter().filter(Offence::is_panic);
        let panics: Vec<Offence> = panics.filter(|offence| !offences.contains(offence)).collect();
        offences.extend(panics);
        if offences.is_empty() { Ok(()) } else { Err(Error::Logged(offences)) }
    }

    /// Leaves the processes running and forgets them; answers who they are.
    #[must_use]
    pub fn detach(mut self) -> Vec<(Role, u32)> {
        self.finished = true;
        if let Some(temporary) = self.temporary.take() {
            let _ = temporary.keep();
        }
        self.programs.iter_mut().filter_map(|(role, program)| Some((*role, program.forget()?))).collect()
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        let panicking = thread::panicking();
        if panicking {
            eprintln!("{}", self.tails(40));
        }
        let offences = if self.finished || panicking { Vec::new() } else { self.offences() };
        // Kill before unmounting: an unmount may have to wait for a client that waits for its servers.
        for program in self.programs.values_mut() {
            drop(program.kill());
        }
        for (_, point) in self.mounts() {
            drop(mount::unmount(&point, Deadline::within(Duration::ZERO)));
        }
        if panicking
            && std::env::var_os("FEITIAN_KEEP").is_some()
            && let Some(temporary) = self.temporary.take()
        {
            eprintln!("kept: {}", temporary.keep().display());
        }
        assert!(offences.is_empty(), "{}", Error::Logged(offences));
    }
}

fn make_folder(path: &Path) -> Result<(), Error> {
    fs::create_dir_all(path).map_err(|source| Error::File { action: "make", path: path.to_owned(), source })
}

fn temporary_folder() -> Result<TempDir, Error> {
    // Short: Unix sockets below it have about a hundred characters.
    let prefix = format!("{}{}-", mount::PREFIX, std::process::id());
    tempfile::Builder::new().prefix(&prefix).tempdir().map_err(|source| Error::File {
        action: "make a temporary folder in",
        path: std::env::temp_dir(),
        source,
    })
}

/// `$FEITIAN_BIN_DIR`, else beside this program, else `release` of the target directory this program was built in.
pub fn binaries() -> Result<PathBuf, Error> {
    const SOME: &str = "pangu-master";
    if let Some(folder) = std::env::var_os("FEITIAN_BIN_DIR").filter(|value| !value.is_empty()) {
        return Ok(PathBuf::from(folder));
    }
    let mut candidates = Vec::new();
    if let Ok(own) = std::env::current_exe() {
        candidates.extend(own.parent().map(Path::to_owned));
        candidates.extend(own.ancestors().map(|folder| folder.join("release")));
    }
    if let Some(target) = std::env::var_os("CARGO_TARGET_DIR") {
        candidates.push(PathBuf::from(target).join("release"));
    }
    let found = candidates.iter().find(|folder| folder.join(SOME).is_file()).cloned();
    found.ok_or_else(|| Error::NoProgram {
        program: SOME,
        folder: candidates.pop().unwrap_or_else(|| PathBuf::from("target/release")),
    })
}
