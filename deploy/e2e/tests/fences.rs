//! A holder of a lock that was stopped and goes on writes nothing over its successor: real mounts of Pangu and of Nuwa, stopped with
//! SIGSTOP, and chunkservers killed in between.
#![allow(clippy::unwrap_used, reason = "helpers of tests are tests")]

use std::fs::{self, File, OpenOptions};
use std::io::{self, BufRead as _, BufReader, Write as _};
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdout, Command, Stdio};
use std::thread;
use std::time::Duration;

use deploy_e2e::{Content, shell, spawn_logged};
use deploy_local_cluster::{Cluster, Deadline, Role, free_port, is_mounted, unmount, wait_until};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use tempfile::TempDir;
use zhongkui_access::KeyDirectory;

/// Long enough for whatever a server has to notice.
const PATIENCE: Duration = Duration::from_secs(60);
/// Three chunks, in three groups.
const LEN: u64 = 20_000_000;
/// What a mount's log says of a refused write.
const FENCED: &str = "the writer a lower one";
/// One place in each chunk.
const PLACES: [u64; 3] = [0, 9_000_000, LEN - 70_000];

/// Nuwa, of one member, and its mounts.
struct Nuwa {
    programs: PathBuf,
    server: Child,
    mounts: Vec<(PathBuf, Child)>,
    folder: TempDir,
}

impl Nuwa {
    fn start(programs: &Path) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let at = folder.path();
        let address = format!("tcp://127.0.0.1:{}", free_port().unwrap());
        let description = format!("name = \"local\"\nnuwa = [\"{address}\"]\n");
        fs::write(at.join("cluster.toml"), description).unwrap();
        KeyDirectory::at(at.join("keys")).init().unwrap();
        let mut command = Command::new(programs.join("nuwa-server"));
        command
            .args(["--id", "1", "--data"])
            .arg(at.join("data"))
            .arg("--cluster")
            .arg(at.join("cluster.toml"));
        let server = spawn_logged(&mut command, &at.join("server.log")).unwrap();
        Self { programs: programs.to_owned(), server, mounts: Vec::new(), folder }
    }

    fn mount(&mut self) -> PathBuf {
        let at = self.folder.path();
        let name = format!("mount{}", self.mounts.len());
        let path = at.join(&name);
        fs::create_dir(&path).unwrap();
        let mut command = Command::new(self.programs.join("nuwa-fuse"));
        command.arg(&path).arg("--cluster").arg(at.join("cluster.toml")).args(["--lease", "2"]);
        let process = spawn_logged(&mut command, &at.join(name + ".log")).unwrap();
        self.mounts.push((path.clone(), process));
        wait_until("Nuwa's mount", Deadline::within(PATIENCE), || Ok(is_mounted(&path))).unwrap();
        path
    }
}

impl Drop for Nuwa {
    fn drop(&mut self) {
        for (path, process) in &mut self.mounts {
            let _ = unmount(path, Deadline::within(Duration::from_secs(2)));
            let _ = process.kill();
            let _ = process.wait();
        }
        let _ = self.server.kill();
        let _ = self.server.wait();
    }
}

/// A shell that was started before any file was opened. A process that starts another one gives it all its files for a moment, and
/// closing those waits for their mounts: for a stopped one, too.
struct Shell {
    bash: Child,
    said: BufReader<ChildStdout>,
}

impl Shell {
    fn start() -> Self {
        let mut command = Command::new("bash");
        let mut bash = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
        let said = BufReader::new(bash.stdout.take().unwrap());
        Self { bash, said }
    }

    /// What a command prints, which must be one line at most; it must succeed within the patience of this test.
    #[track_caller]
    fn run(&mut self, folder: &Path, command: &str) -> String {
        let (folder, patience) = (folder.display(), PATIENCE.as_secs());
        let line = format!("said=$(cd '{folder}' && timeout {patience} {command} 2>&1); echo \"$? $said\"\n");
        self.bash.stdin.as_mut().unwrap().write_all(line.as_bytes()).unwrap();
        let mut answer = String::new();
        self.said.read_line(&mut answer).unwrap();
        let (status, said) = answer.trim_end_matches('\n').split_once(' ').unwrap();
        assert_eq!(status, "0", "{command}: {said}");
        said.to_owned()
    }

    /// Whether a command succeeds that the shell itself runs, as it is; it must print nothing.
    fn does(&mut self, command: &str) -> bool {
        let line = format!("{command}\necho $?\n");
        self.bash.stdin.as_mut().unwrap().write_all(line.as_bytes()).unwrap();
        let mut status = String::new();
        self.said.read_line(&mut status).unwrap();
        status == "0\n"
    }

    fn attribute(&mut self, path: &Path, name: &str) -> String {
        let (folder, file) = (path.parent().unwrap(), path.file_name().unwrap().to_str().unwrap());
        self.run(folder, &format!("getfattr --only-values -n {name} {file}"))
    }
}

impl Drop for Shell {
    fn drop(&mut self) {
        drop(self.bash.stdin.take());
        let _ = self.bash.wait();
    }
}

/// Processes that are stopped until this is dropped.
struct Stopped(Vec<Pid>);

impl Stopped {
    fn new(pids: impl IntoIterator<Item = u32>) -> Self {
        let stopped = Self(pids.into_iter().map(|pid| Pid::from_raw(i32::try_from(pid).unwrap())).collect());
        stopped.0.iter().for_each(|pid| kill(*pid, Signal::SIGSTOP).unwrap());
        stopped
    }
}

impl Drop for Stopped {
    fn drop(&mut self) {
        for pid in &self.0 {
            let _ = kill(*pid, Signal::SIGCONT);
        }
    }
}

/// A lock, its fence, and a file opened under it.
struct Holder {
    _lock: File,
    fence: u64,
    file: File,
}

impl Holder {
    /// What `fs/docs/fences.md` tells people to type. Waits for the lock.
    fn new(shell: &mut Shell, nuwa: &Path, pangu: &Path, name: &str) -> Self {
        let path = nuwa.join("lock");
        let lock = OpenOptions::new().read(true).write(true).open(&path).unwrap();
        lock.lock().unwrap();
        let fence: u64 = shell.attribute(&path, "user.nuwa.fence").parse().unwrap();
        let data = pangu.join(name);
        shell.run(pangu, &format!("setfattr -n user.pangu.fence -v {fence} {name}"));
        let file = OpenOptions::new().read(true).write(true).open(&data).unwrap();
        let found = shell.attribute(&data, "user.pangu.fence");
        assert_eq!(found, fence.to_string(), "nobody came in between");
        Self { _lock: lock, fence, file }
    }
}

#[track_caller]
fn stale<T>(result: io::Result<T>) {
    let errno = result.err().and_then(|error| error.raw_os_error());
    assert_eq!(errno, Some(libc::ESTALE));
}

struct Scene {
    shell: Shell,
    cluster: Cluster,
    nuwa: Nuwa,
    /// Of each: its mount of Pangu and of Nuwa. The first is to be stopped.
    holders: [(PathBuf, PathBuf); 2],
    reader: PathBuf,
}

impl Scene {
    fn new() -> Self {
        let mut cluster = Cluster::start(3, 3).unwrap();
        // Of what is refused, and of servers that are killed.
        cluster.announce(" WARN ");
        cluster.announce(FENCED);
        let mut nuwa = Nuwa::start(cluster.binaries());
        let holders = std::array::from_fn(|_| (cluster.mount().unwrap(), nuwa.mount()));
        let reader = cluster.mount().unwrap();
        fs::write(holders[0].1.join("lock"), "").unwrap();
        Self { shell: Shell::start(), cluster, nuwa, holders, reader }
    }

    fn stop_first(&self) -> Stopped {
        Stopped::new([self.cluster.pid(Role::Client(1)).unwrap(), self.nuwa.mounts[0].1.id()])
    }

    #[track_caller]
    fn reads(&self, name: &str, wanted: &[u8]) {
        let found = fs::read(self.reader.join(name)).unwrap();
        assert_eq!(found.len(), wanted.len());
        let differs = found.iter().zip(wanted).position(|(found, wanted)| found != wanted);
        assert_eq!(differs, None, "the first byte of {name} that is not the successor's");
    }

    /// The first holder is stopped with data in its buffer, the second takes over; `meanwhile` happens before the first goes on.
    fn round(&mut self, name: &str, meanwhile: impl FnOnce(&mut Cluster)) {
        let [(slow, slow_nuwa), (quick, quick_nuwa)] = self.holders.clone();
        let content = |seed| Content::new(seed).bytes(LEN as usize);
        fs::write(slow.join(name), content(1)).unwrap();
        let old = Holder::new(&mut self.shell, &slow_nuwa, &slow, name);
        let theirs = content(2);
        let put =
            |file: &File| PLACES.iter().try_for_each(|place| file.write_all_at(&theirs[..65_536], *place));
        put(&old.file).unwrap();
        old.file.sync_all().unwrap();
        old.file.write_all_at(&theirs[..65_536], 100_000).unwrap();
        put(&old.file).unwrap();
        let stopped = self.stop_first();

        // It waits until the lease of the first is over.
        let new = Holder::new(&mut self.shell, &quick_nuwa, &quick, name);
        assert!(new.fence > old.fence, "{} after {}", new.fence, old.fence);
        let ours = content(3);
        new.file.write_all_at(&ours, 0).unwrap();
        new.file.sync_all().unwrap();
        self.reads(name, &ours);
        // Asked for while it is stopped: the first thing it meets when it goes on.
        let asked = old.file.try_clone().unwrap();
        let syncing = thread::spawn(move || asked.sync_all());
        meanwhile(&mut self.cluster);
        drop(stopped);

        stale(syncing.join().unwrap());
        stale(old.file.sync_all());
        stale(put(&old.file));
        stale(old.file.set_len(10));
        stale(old.file.sync_data());
        let fence = old.fence;
        let refused = shell(&slow, &format!("! setfattr -n user.pangu.fence -v {fence} {name} 2>&1"));
        assert!(refused.contains("Stale file handle"), "{refused}");
        self.reads(name, &ours);
        // The successor goes on, and so does who opens the file anew.
        new.file.write_all_at(&ours[..4096], 0).unwrap();
        new.file.sync_all().unwrap();
        let again = OpenOptions::new().write(true).open(slow.join(name)).unwrap();
        again.write_all_at(&ours[5..9], 5).unwrap();
        again.sync_all().unwrap();
        drop(old);
        self.reads(name, &ours);
    }

    /// The first holder types the recipe, and is stopped before one of its lines, while the second takes over.
    fn stopped_before(&mut self, pause: usize) {
        let name = format!("before-{pause}");
        let [(slow, slow_nuwa), (quick, quick_nuwa)] = self.holders.clone();
        let (lock, data) = (slow_nuwa.join("lock"), slow.join(&name));
        fs::write(&data, "nobody's").unwrap();
        let (lock, data) = (lock.display(), data.display());
        let recipe = [
            format!("exec 9<>{lock}; flock 9"),
            "N=$(getfattr --only-values -n user.nuwa.fence /dev/fd/9)".to_owned(),
            format!("setfattr -n user.pangu.fence -v \"$N\" {data}"),
            format!("exec 8<>{data}"),
            format!("[ \"$(getfattr --only-values -n user.pangu.fence {data})\" = \"$N\" ]"),
            // `echo` says itself that it could not write, the mount at the latest when this is closed.
            "echo theirs >&8 && exec 8>&-".to_owned(),
        ];
        let mut slow_shell = Shell::start();
        assert!(recipe[..pause].iter().all(|line| slow_shell.does(line)), "nobody was in the way");
        let stopped = self.stop_first();
        let new = Holder::new(&mut self.shell, &quick_nuwa, &quick, &name);
        new.file.write_all_at(b"ours now", 0).unwrap();
        new.file.sync_all().unwrap();
        drop(stopped);
        let goes_through = recipe[pause..].iter().all(|line| slow_shell.does(line));
        assert!(!goes_through || pause >= recipe.len() - 1, "stopped before line {pause}, it went on");
        self.reads(&name, b"ours now");
        drop(slow_shell);
        self.reads(&name, b"ours now");
    }

    fn wait_whole(&self) {
        let health = self.reader.join(".pangu/health");
        let whole = || Ok(fs::read_to_string(&health).is_ok_and(|text| text == "ok\n"));
        wait_until("all groups are whole", Deadline::within(PATIENCE), whole).unwrap();
    }
}

#[test]
fn a_stopped_holder_of_a_lock_writes_nothing_over_its_successor() {
    let mut scene = Scene::new();
    scene.round("all-serve", |_| {});
    // One of them leads the group the first byte is in.
    for n in 1..=3 {
        let name = format!("without-{n}");
        scene.round(&name, |cluster| cluster.kill(Role::Chunkserver(n)).unwrap());
        scene.cluster.restart(Role::Chunkserver(n)).unwrap();
        scene.wait_whole();
        scene.reads(&name, &Content::new(3).bytes(LEN as usize));
    }
    let Scene { cluster, nuwa, .. } = scene;
    drop(nuwa);
    cluster.finish().unwrap();
}

/// One that was stopped between its lock and the question for its fence was told its successor's, and everything after it succeeded.
#[test]
fn a_holder_that_is_stopped_anywhere_in_the_recipe_does_not_pass_for_its_successor() {
    let mut scene = Scene::new();
    for pause in 1..=5 {
        scene.stopped_before(pause);
    }
    let Scene { cluster, nuwa, .. } = scene;
    drop(nuwa);
    cluster.finish().unwrap();
}

/// What is on the disks alone, after everything was killed.
#[test]
fn fences_survive_the_loss_of_all_processes() {
    let mut cluster = Cluster::start(3, 3).unwrap();
    cluster.announce(" WARN ");
    cluster.announce(FENCED);
    let (one, two) = (cluster.mount().unwrap(), cluster.mount().unwrap());
    fs::write(one.join("f"), vec![1; 100_000]).unwrap();
    let old = OpenOptions::new().write(true).open(one.join("f")).unwrap();
    shell(&two, "setfattr -n user.pangu.fence -v 7 f");
    let stopped = Stopped::new(cluster.pid(Role::Client(1)));
    for role in cluster.servers() {
        cluster.kill(role).unwrap();
    }
    for role in cluster.servers() {
        cluster.restart(role).unwrap();
    }
    drop(stopped);
    // It has never heard of the fence; the chunkservers refuse.
    old.write_all_at(&[2; 4096], 0).unwrap();
    stale(old.sync_all());
    assert_eq!(fs::read(two.join("f")).unwrap(), vec![1; 100_000]);
    assert_eq!(shell(&two, "getfattr --only-values -n user.pangu.fence f"), "7");
    shell(
        &two,
        "! setfattr -n user.pangu.fence -v 6 f 2>/dev/null; ! setfattr -n user.pangu.fence -v x f 2>/dev/null",
    );
    shell(&two, "! setfattr -x user.pangu.fence f 2>/dev/null; cp -a f g; [ -z \"$(getfattr -d -m - g)\" ]");
    drop(old);
    cluster.finish().unwrap();
}
