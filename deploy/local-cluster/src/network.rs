//! Networks of their own for the servers of a cluster, so that their cables can be pulled.
//!
//! The thread that starts the cluster moves to a network namespace that has nothing but a bridge; clients and command lines
//! started from it live there. Every server gets a namespace with one end of a cable (`veth`) to the bridge. A cut takes
//! that link down on the bridge's side: what is under way is lost without a word, as when a switch dies, and nobody is
//! told that a connection ended.

use std::fs::File;
use std::io;
use std::net::{IpAddr, Ipv4Addr};
use std::path::PathBuf;
use std::process::Command;

use nix::sched::{CloneFlags, setns, unshare};

use crate::error::Error;
use crate::process::start_time;

/// Names of namespaces begin so, then comes the process that made them.
const PREFIX: &str = "feitian-";
const BRIDGE: &str = "switch";
/// Cluster addresses are 10.88.0.1 and up; this one is the bridge's.
const BRIDGE_ADDRESS: Ipv4Addr = Ipv4Addr::new(10, 88, 255, 254);
const MASK_BITS: u8 = 16;

/// A network with a cable for each server. Dropping it removes their namespaces; the bridge goes with the thread.
#[derive(Debug)]
pub(crate) struct Network {
    /// The names of the servers' namespaces, in the order of their addresses.
    names: Vec<String>,
}

impl Network {
    /// Moves this thread to a namespace of its own, for good, and makes the bridge there.
    pub(crate) fn start() -> Result<Self, Error> {
        sweep();
        unshare(CloneFlags::CLONE_NEWNET).map_err(|errno| Error::Process {
            action: "make (as root only) a network namespace for",
            name: "the cluster".to_owned(),
            source: errno.into(),
        })?;
        ip(&["link", "set", "lo", "up"])?;
        ip(&["link", "add", BRIDGE, "type", "bridge"])?;
        ip(&["address", "add", &format!("{BRIDGE_ADDRESS}/{MASK_BITS}"), "dev", BRIDGE])?;
        ip(&["link", "set", BRIDGE, "up"])?;
        Ok(Self { names: Vec::new() })
    }

    /// A namespace for one more server, connected; its address.
    pub(crate) fn connect(&mut self) -> Result<IpAddr, Error> {
        let number =
            u8::try_from(self.names.len() + 1).map_err(|_| Error::NoMember("256th address".into()))?;
        let (name, address) =
            (format!("{PREFIX}{}-{number}", std::process::id()), Ipv4Addr::new(10, 88, 0, number));
        ip(&["netns", "add", &name])?;
        self.names.push(name.clone());
        let cable = cable(number);
        ip(&["link", "add", &cable, "type", "veth", "peer", "name", "eth0", "netns", &name])?;
        ip(&["link", "set", &cable, "master", BRIDGE, "up"])?;
        ip(&["-n", &name, "address", "add", &format!("{address}/{MASK_BITS}"), "dev", "eth0"])?;
        ip(&["-n", &name, "link", "set", "eth0", "up"])?;
        ip(&["-n", &name, "link", "set", "lo", "up"])?;
        Ok(address.into())
    }

    /// The words before a command that make it run on the server with this address.
    pub(crate) fn inside(&self, address: IpAddr) -> Option<[String; 2]> {
        let name = self.names.get(usize::from(number(address)?) - 1)?;
        Some(["nsenter".to_owned(), format!("--net={}", namespace_file(name).display())])
    }

    /// Pulls the cable of a server, or puts it back.
    pub(crate) fn cut(&self, address: IpAddr, cut: bool) -> Result<(), Error> {
        let number = number(address).ok_or_else(|| Error::NoMember(address.to_string()))?;
        ip(&["link", "set", &cable(number), if cut { "down" } else { "up" }])
    }
}

/// A way along a cable.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Way {
    /// What others send to the server.
    To,
    /// What the server sends.
    From,
}

impl Network {
    /// Loses all that goes one way, or no more. A queue without room does that, at the end that sends.
    pub(crate) fn lose(&self, address: IpAddr, way: Way, lose: bool) -> Result<(), Error> {
        let nobody = || Error::NoMember(address.to_string());
        let number = number(address).ok_or_else(nobody)?;
        let name = self.names.get(usize::from(number) - 1).ok_or_else(nobody)?;
        let cable = cable(number);
        let at: &[&str] = match way {
            Way::To => &["qdisc", if lose { "add" } else { "del" }, "dev", &cable, "root"],
            Way::From => &["-n", name, "qdisc", if lose { "add" } else { "del" }, "dev", "eth0", "root"],
        };
        let queue: &[&str] = if lose { &["bfifo", "limit", "1"] } else { &[] };
        run("tc", &[at, queue].concat())
    }

    /// Loses all between two of the bridge's cables, or no more. For one pair at a time: the bridge passes nothing between
    /// any two that are set apart.
    pub(crate) fn set_apart(&self, pair: [IpAddr; 2], apart: bool) -> Result<(), Error> {
        pair.into_iter().try_for_each(|address| {
            let number = number(address).ok_or_else(|| Error::NoMember(address.to_string()))?;
            let isolated = if apart { "on" } else { "off" };
            ip(&["link", "set", &cable(number), "type", "bridge_slave", "isolated", isolated])
        })
    }

    pub(crate) fn site(&self, address: IpAddr) -> Result<Site, Error> {
        let nobody = || Error::NoMember(address.to_string());
        let name = self.names.get(usize::from(number(address).ok_or_else(nobody)?) - 1).ok_or_else(nobody)?;
        Ok(Site { namespace: namespace_file(name), address })
    }
}

/// A place in the network with a cable of its own, where threads of this process may live.
#[derive(Clone, Debug)]
pub struct Site {
    namespace: PathBuf,
    address: IpAddr,
}

impl Site {
    #[must_use]
    pub fn address(&self) -> IpAddr {
        self.address
    }

    /// Moves the calling thread there, for good: sockets that it opens from here on, and threads that it starts, are there.
    pub fn enter(&self) -> Result<(), Error> {
        let path = || self.namespace.clone();
        let file = File::open(&self.namespace).map_err(|source| Error::File {
            action: "open",
            path: path(),
            source,
        })?;
        setns(&file, CloneFlags::CLONE_NEWNET).map_err(|errno| Error::File {
            action: "enter",
            path: path(),
            source: errno.into(),
        })
    }
}

impl Drop for Network {
    fn drop(&mut self) {
        for name in &self.names {
            drop(ip(&["netns", "delete", name]));
        }
    }
}

/// The last byte of a server's address.
fn number(address: IpAddr) -> Option<u8> {
    match address {
        IpAddr::V4(address) if address != BRIDGE_ADDRESS => {
            Some(address.octets()[3]).filter(|number| *number > 0)
        }
        IpAddr::V4(_) | IpAddr::V6(_) => None,
    }
}

fn cable(number: u8) -> String {
    format!("cable{number}")
}

fn namespace_file(name: &str) -> PathBuf {
    PathBuf::from("/run/netns").join(name)
}

/// Removes the namespaces that a process left which is no more.
fn sweep() {
    let Ok(names) = std::fs::read_dir("/run/netns") else { return };
    for name in names.flatten().filter_map(|entry| entry.file_name().into_string().ok()) {
        let owner = name.strip_prefix(PREFIX).and_then(|rest| rest.split('-').next()?.parse().ok());
        if owner.is_some_and(|pid: u32| start_time(pid).is_none()) {
            drop(ip(&["netns", "delete", &name]));
        }
    }
}

fn ip(arguments: &[&str]) -> Result<(), Error> {
    run("ip", arguments)
}

/// A program of iproute2.
fn run(program: &str, arguments: &[&str]) -> Result<(), Error> {
    let error = |source| Error::Process {
        action: "run (it comes with Debian's iproute2)",
        name: format!("{program} {}", arguments.join(" ")),
        source,
    };
    let output = Command::new(program).args(arguments).output().map_err(error)?;
    if output.status.success() {
        return Ok(());
    }
    Err(error(io::Error::other(String::from_utf8_lossy(&output.stderr).trim().to_owned())))
}

#[cfg(test)]
mod tests {
    use std::io::{Read as _, Write as _};
    use std::net::TcpStream;
    use std::process::{Child, Stdio};
    use std::time::Duration;

    use super::*;

    /// Answers each line it gets, in a server's namespace.
    fn echo(network: &Network, address: IpAddr) -> Child {
        let program = format!(
            "import socket\ns = socket.create_server(('{address}', 7)); print('up', flush=True)\nc, _ = s.accept()\n\
             while True:\n d = c.recv(9)\n if not d: break\n c.sendall(d)\n"
        );
        let [enter, net] = network.inside(address).unwrap();
        let mut child = Command::new(enter)
            .args([&net, "python3", "-c", &program])
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut up = [0; 3];
        child.stdout.as_mut().unwrap().read_exact(&mut up).unwrap();
        child
    }

    #[test]
    fn one_way_of_a_cable_is_lost_and_comes_back() {
        if !nix::unistd::geteuid().is_root() {
            eprintln!("only root can make networks: not tested");
            return;
        }
        let mut network = Network::start().unwrap();
        let server = network.connect().unwrap();
        let mut child = echo(&network, server);
        let mut stream = TcpStream::connect((server, 7)).unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(1))).unwrap();
        for way in [Way::To, Way::From] {
            network.lose(server, way, true).unwrap();
            stream.write_all(b"x").unwrap();
            let mut answer = [0; 1];
            assert_eq!(
                stream.read_exact(&mut answer).map_err(|error| error.kind()),
                Err(io::ErrorKind::WouldBlock)
            );
            network.lose(server, way, false).unwrap();
            assert!((0..30).any(|_| stream.read_exact(&mut answer).is_ok()), "{way:?} did not come back");
        }
        child.kill().unwrap();
        child.wait().unwrap();
    }

    #[test]
    fn two_set_apart_do_not_hear_each_other_but_everybody_else() {
        if !nix::unistd::geteuid().is_root() {
            eprintln!("only root can make networks: not tested");
            return;
        }
        let mut network = Network::start().unwrap();
        let (server, other) = (network.connect().unwrap(), network.connect().unwrap());
        let mut child = echo(&network, server);
        let site = network.site(other).unwrap();
        let reaches = move |within_ms| {
            let site = site.clone();
            let from_there = move || {
                site.enter().unwrap();
                TcpStream::connect_timeout(&(server, 7).into(), Duration::from_millis(within_ms)).is_ok()
            };
            std::thread::spawn(from_there).join().unwrap()
        };
        network.set_apart([server, other], true).unwrap();
        assert!(!reaches(300));
        let _served_while_it_is_open = TcpStream::connect((server, 7)).unwrap();
        network.set_apart([server, other], false).unwrap();
        assert!(reaches(10_000));
        child.kill().unwrap();
        child.wait().unwrap();
    }

    #[test]
    fn a_cut_cable_loses_everything_and_says_nothing() {
        if !nix::unistd::geteuid().is_root() {
            eprintln!("only root can make networks: not tested");
            return;
        }
        let mut network = Network::start().unwrap();
        let (one, two) = (network.connect().unwrap(), network.connect().unwrap());
        assert_ne!(one, two);
        let mut child = echo(&network, two);
        let mut stream = TcpStream::connect((two, 7)).unwrap();
        stream.set_read_timeout(Some(Duration::from_millis(500))).unwrap();
        let mut ask = || {
            stream.write_all(b"x").unwrap();
            let mut answer = [0; 1];
            stream.read_exact(&mut answer).map_err(|error| error.kind())
        };
        assert_eq!(ask(), Ok(()));
        network.cut(two, true).unwrap();
        assert_eq!(ask(), Err(io::ErrorKind::WouldBlock), "no answer and no end");
        network.cut(two, false).unwrap();
        // What was lost is sent again by TCP.
        let mut healed = ask();
        for _ in 0..60 {
            if healed.is_ok() {
                break;
            }
            healed = ask();
        }
        assert_eq!(healed, Ok(()));
        child.kill().unwrap();
        child.wait().unwrap();
        let names = network.names.clone();
        drop(network);
        assert!(names.iter().all(|name| !namespace_file(name).exists()));
    }
}
