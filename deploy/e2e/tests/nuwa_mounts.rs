//! Nuwa through two mounts on two machines (network namespaces), with nothing but coreutils, util-linux and attr.
#![allow(clippy::unwrap_used, reason = "helpers of tests are tests")]

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command};
use std::time::{Duration, Instant};

use deploy_e2e::{run, run_ok};
use deploy_local_cluster::{Cluster, Deadline, Options, Role, Site, is_mounted, unmount, wait_until};

const PATIENCE: Duration = Duration::from_secs(90);
/// Of the mounts' sessions.
const LEASE: Duration = Duration::from_secs(3);
/// After a lease is over: Nuwa's leader looks every 100 ms, and the rest is for the end of the session to be committed, for the lock to
/// be handed on, and for a shell to see it. More than this would be another lease, or an election that nothing here causes.
const LATE: Duration = Duration::from_secs(1);

/// A machine with a mount.
struct Machine {
    site: Site,
    mount: PathBuf,
    process: Child,
}

impl Machine {
    fn new(cluster: &mut Cluster, name: &str) -> Self {
        let site = cluster.add_site().unwrap();
        let mount = cluster.folder().join(name);
        fs::create_dir(&mount).unwrap();
        let log = fs::File::create(cluster.folder().join("log").join(name)).unwrap();
        let mut command = Command::new(cluster.binaries().join("nuwa-fuse"));
        command.arg(&mount).arg("--cluster").arg(cluster.description());
        command.args(["--lease", &LEASE.as_secs().to_string()]).stderr(log);
        let process = there(&site, move || command.spawn().unwrap());
        let machine = Self { site, mount, process };
        let mounted = || Ok(is_mounted(&machine.mount));
        wait_until("the mount", Deadline::within(PATIENCE), mounted).unwrap();
        machine
    }

    /// A script, with `$M` the mount.
    fn script(&self, script: &str, further: &[&str]) -> Command {
        let mut command = Command::new("bash");
        command.args(["-euo", "pipefail", "-c", script, "script"]).args(further).env("M", &self.mount);
        command
    }

    fn shell(&self, script: &str, further: &[&str]) -> String {
        let mut command = self.script(script, further);
        there(&self.site, move || run_ok(&mut command, PATIENCE))
    }

    fn fails(&self, script: &str) -> bool {
        let mut command = self.script(script, &[]);
        !there(&self.site, move || run(&mut command, PATIENCE)).status.success()
    }

    fn start(&self, script: &str) -> Child {
        let mut command = self.script(script, &[]);
        there(&self.site, move || command.spawn().unwrap())
    }

    /// Its only link to the others: "up" or "down".
    fn set_link(&self, state: &'static str) {
        there(&self.site, move || {
            run_ok(Command::new("ip").args(["link", "set", "eth0", state]), PATIENCE);
        });
    }
}

/// Runs something on a thread that lives at a site; what it starts lives there too.
fn there<T: Send + 'static>(site: &Site, work: impl FnOnce() -> T + Send + 'static) -> T {
    let site = site.clone();
    let worker = std::thread::spawn(move || {
        site.enter().unwrap();
        work()
    });
    worker.join().unwrap()
}

fn lines(path: &Path) -> usize {
    fs::read_to_string(path).unwrap_or_default().lines().count()
}

fn wait(what: &str, condition: impl FnMut() -> bool) {
    let mut condition = condition;
    wait_until(what, Deadline::within(PATIENCE), || Ok(condition())).unwrap();
}

/// Starts a second leader, once the first one leads.
fn stands_by(two: &Machine, script: &str) -> Child {
    wait("one leads", || two.shell("cat $M/d/leader.is 2>/dev/null || true", &[]) == "one\n");
    assert!(two.fails("flock -n $M/d/leader true"));
    two.start(script)
}

/// How long it took.
fn until_two_leads(two: &Machine) -> Duration {
    let began = Instant::now();
    wait("two leads", || two.shell("cat $M/d/leader.is", &[]) == "two\n");
    began.elapsed()
}

fn end(child: &mut Child) {
    child.kill().unwrap();
    child.wait().unwrap();
}

#[test]
fn long_machines_coordinate_with_files_alone() {
    if !nix::unistd::geteuid().is_root() {
        eprintln!("only root can make networks: not tested");
        return;
    }
    let mut options = Options::new(0, 0);
    (options.nuwa, options.network) = (3, true);
    let mut cluster = options.start().unwrap();
    cluster.announce(" WARN ");
    let (mut one, two) = (Machine::new(&mut cluster, "one"), Machine::new(&mut cluster, "two"));
    let own = |machine: &Machine| machine.shell("readlink /proc/self/ns/net", &[]);
    assert_ne!(own(&one), own(&two));
    let out = cluster.folder().join("out");
    fs::create_dir(&out).unwrap();
    let out_text = out.to_str().unwrap().to_owned();

    // Turns under flock: the counter misses nobody, and fences ascend over both machines.
    one.shell("mkdir $M/d; echo 0 > $M/d/count; touch $M/d/turn", &[]);
    let turns = r#"
        turn() { n=$(cat $M/d/count); sleep 0.01; echo $((n + 1)) > $M/d/count; getfattr --absolute-names --only-values -n user.nuwa.fence $M/d/turn; echo; }
        export -f turn
        for i in $(seq 15); do flock $M/d/turn bash -c "turn >> $1/fences"; done"#;
    let workers: Vec<_> = [&one, &two, &one, &two]
        .map(|machine| {
            let mut command = machine.script(turns, &[&out_text]);
            there(&machine.site, move || command.spawn().unwrap())
        })
        .into();
    // A member dies meanwhile.
    cluster.kill(Role::Nuwa(1)).unwrap();
    for mut worker in workers {
        assert!(worker.wait().unwrap().success());
    }
    cluster.restart(Role::Nuwa(1)).unwrap();
    assert_eq!(two.shell("cat $M/d/count", &[]), "60\n");
    assert_eq!(one.shell("sort -n -c $1/fences; sort -n -u $1/fences | wc -l", &[&out_text]), "60\n");

    // Changes are followed with tail and cat, and read from a revision on: none is lost, whichever member dies.
    let follow = format!("exec tail -f $M/d/.events > {out_text}/tail 2>/dev/null");
    let (mut tail, mut cat) =
        (two.start(&follow), two.start(&format!("exec cat $M/d/.events > {out_text}/cat")));
    // Both are there once they have told of a first change.
    let said = |name: &str| lines(&out.join(name));
    wait("they follow", || {
        one.shell("echo x > $M/d/first", &[]);
        said("tail") > 0 && said("cat") > 0
    });
    for n in 0..3 {
        cluster.kill(Role::Nuwa(n + 1)).unwrap();
        one.shell(&format!("for i in $(seq 40); do echo $i > $M/d/f{n}; done"), &[]);
        cluster.restart(Role::Nuwa(n + 1)).unwrap();
    }
    one.shell("echo x > $M/d/last", &[]);
    for name in ["tail", "cat"] {
        wait("the last change", || fs::read_to_string(out.join(name)).unwrap().contains("/d/last"));
        let text = fs::read_to_string(out.join(name)).unwrap();
        let events: Vec<serde_json::Value> =
            text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
        let revisions: Vec<u64> = events.iter().map(|event| event["revision"].as_u64().unwrap()).collect();
        assert!(revisions.is_sorted_by(|a, b| a < b), "{name}: {revisions:?}");
        for n in 0..3 {
            let path = format!("/d/f{n}");
            let values: Vec<&str> = events
                .iter()
                .filter(|event| event["path"] == path.as_str())
                .map(|event| event["value"].as_str().unwrap())
                .collect();
            let wanted: Vec<String> = (1..=40).map(|i| format!("{i}\n")).collect();
            assert_eq!(values, wanted, "{name}");
        }
    }
    end(&mut tail);
    end(&mut cat);
    let again = r#"first=$(head -1 $1/cat | sed 's/.*"revision":\([0-9]*\).*/\1/'); head -$(wc -l < $1/cat) $M/d/.events@$first | cmp - $1/cat && echo same"#;
    assert_eq!(one.shell(again, &[&out_text]), "same\n");

    // Compare and set: of two that have seen the same version one wins.
    one.shell("echo 0 > $M/d/n; setfattr -n user.nuwa.cas -v '1 one' $M/d/n", &[]);
    assert!(two.fails("setfattr -n user.nuwa.cas -v '1 two' $M/d/n"));
    assert_eq!(
        two.shell(
            "cat $M/d/n; echo; getfattr --absolute-names --only-values -n user.nuwa.version $M/d/n; echo",
            &[]
        ),
        "one\n2\n"
    );

    // An election: who leads says so; the other one stands by, and leads within the lease of a machine that was cut off, or died.
    two.shell("touch $M/d/leader", &[]);
    let lead = |name: &str, then: &str| {
        format!("exec 9<>$M/d/leader; flock 9; echo {name} > $M/d/leader.is; {then}")
    };
    // It goes on as the leader as long as its lock is not refused.
    let mut leader = one.start(&lead("one", "while echo x >&9; do sleep 0.1; done 2>/dev/null"));
    let mut standby = stands_by(&two, &lead("two", "exec sleep 600"));
    one.set_link("down");
    let took = until_two_leads(&two);
    println!("two leads {took:?} after the machine of one was cut off, with a lease of {LEASE:?}");
    assert!(took < LEASE + LATE, "{took:?}");
    let written = two.shell("cat $M/d/leader", &[]);
    one.set_link("up");
    assert!(leader.wait().unwrap().success());
    assert_eq!(two.shell("cat $M/d/leader", &[]), written, "one wrote after its time");
    assert!(one.fails("flock -n $M/d/leader true"), "two has it");
    assert_eq!(one.shell("cat $M/d/leader.is; echo back > $M/d/one; cat $M/d/one", &[]), "two\nback\n");
    end(&mut standby);

    let mut leader = one.start(&lead("one", "exec sleep 600"));
    let mut standby = stands_by(&two, &lead("two", "exec sleep 600"));
    one.process.kill().unwrap();
    one.process.wait().unwrap();
    let took = until_two_leads(&two);
    println!("two leads {took:?} after the machine of one died, with a lease of {LEASE:?}");
    assert!(took < LEASE + LATE, "{took:?}");

    end(&mut leader);
    end(&mut standby);
    for machine in [&one, &two] {
        unmount(&machine.mount, Deadline::within(PATIENCE)).unwrap();
    }
    let mut process = two.process;
    assert!(process.wait().unwrap().success());
    cluster.finish().unwrap();
}
