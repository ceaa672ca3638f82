//! Mounts of one directory, by the program: nothing leads out of it, and what leaves it is gone.

use std::ffi::CString;
use std::fs::{self, File};
use std::io;
use std::os::fd::{AsRawFd as _, FromRawFd as _};
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::{MetadataExt as _, symlink};
use std::path::{Path, PathBuf};
use std::process::{Child, Command};
use std::time::Duration;

use deploy_e2e::{Content, run, shell, spawn_logged};
use deploy_local_cluster::{Deadline, is_mounted, unmount, wait_until};

use crate::people::{MOUNT, OWN, Person, Wanted, on};
use crate::scene::{LEN, OWNER, Scene, write};

/// Names and attributes are believed for a second; as much again for a slow machine, and more.
const GONE: Duration = Duration::from_secs(6);
const UP: Duration = Duration::from_secs(60);

/// A mount with somebody's capability.
pub(crate) struct Mount {
    pub(crate) point: PathBuf,
    process: Child,
}

impl Mount {
    fn command(scene: &Scene, point: &Path, person: &Person) -> Command {
        let mut command = Command::new(scene.cluster.binaries().join("pangu-fuse"));
        command.arg(point).arg("--cluster").arg(scene.cluster.description());
        command.arg("--key").arg(&person.key_file).arg("--cap").arg(&person.capability_file);
        command
    }

    pub(crate) fn new(scene: &Scene, name: &str, person: &Person) -> Self {
        let point = scene.cluster.folder().join(name);
        fs::create_dir(&point).unwrap();
        let log = scene.cluster.folder().join("log").join(name);
        let mut process = spawn_logged(&mut Self::command(scene, &point, person), &log).unwrap();
        let up = wait_until("a mount", Deadline::within(UP), || {
            let ended = process.try_wait().unwrap();
            assert!(ended.is_none(), "{name}: {}", fs::read_to_string(&log).unwrap());
            Ok(is_mounted(&point))
        });
        up.unwrap();
        Self { point, process }
    }

    /// Whether the program refuses to mount, and says why.
    pub(crate) fn is_refused(scene: &Scene, name: &str, person: &Person) -> Result<String, String> {
        let point = scene.cluster.folder().join(name);
        fs::create_dir_all(&point).unwrap();
        let mut command = Self::command(scene, &point, person);
        // It may not be refused: then it stays, until it is told to go.
        let log = scene.cluster.folder().join("log").join(name);
        let mut process = spawn_logged(&mut command, &log).unwrap();
        let waited = wait_until("the end of a mount", Deadline::within(Duration::from_secs(20)), || {
            Ok(process.try_wait().unwrap().is_some() || is_mounted(&point))
        });
        let said = fs::read_to_string(&log).unwrap();
        if waited.is_ok() && process.try_wait().unwrap().is_some_and(|status| !status.success()) {
            return Ok(said);
        }
        drop(Self { point, process });
        Err(said)
    }
}

impl Drop for Mount {
    fn drop(&mut self) {
        let _ = unmount(&self.point, Deadline::within(Duration::from_secs(5)));
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

fn names(path: &Path) -> io::Result<Vec<String>> {
    let entries = fs::read_dir(path)?.collect::<io::Result<Vec<_>>>()?;
    let mut names: Vec<_> = entries.iter().map(|entry| entry.file_name().into_string().unwrap()).collect();
    names.sort();
    Ok(names)
}

fn errno<T>(result: io::Result<T>) -> Option<i32> {
    result.err().and_then(|error| error.raw_os_error())
}

#[test]
fn a_mount_of_one_directory_leads_nowhere_else() {
    let scene = Scene::new();
    let keys = scene.cluster.keys();
    let alice = Person::granted(&keys, &Wanted::new("alice", 1000, on(MOUNT, scene.a)));
    let bob = Person::granted(&keys, &Wanted::new("bob", OWNER, on(OWN, scene.a)));
    let a = scene.root.join("a");
    symlink("/b/in-b", a.join("absolute")).unwrap();
    symlink("../b/in-b", a.join("relative")).unwrap();
    write(&a.join("moved"), 21);
    fs::create_dir(a.join("dir")).unwrap();
    write(&a.join("dir/inside"), 22);
    let mounts = [Mount::new(&scene, "alice", &alice), Mount::new(&scene, "bob", &bob)];
    for (who, mount) in ["a mount of many", "a mount of one user"].into_iter().zip(&mounts) {
        let point = &mount.point;
        let what = |text: &str| format!("{who}: {text}");
        let inside = ["absolute", "dir", "in-a", "moved", "relative", "sub"];
        scene.holds(&what("its root is the directory"), names(point).unwrap() == inside);
        let read = fs::read(point.join("in-a")).unwrap();
        scene.holds(&what("files are read"), read == Content::new(1).bytes(LEN));
        let own = point.join(format!("new-{OWNER}"));
        fs::write(&own, "mine").unwrap();
        scene.holds(&what("files are made"), fs::read(&own).unwrap() == b"mine");
        fs::remove_file(&own).unwrap();
        for path in ["absolute", "relative", "../b/in-b", "b/in-b", "sub/../../b/in-b", ".pangu/where/b/in-b"]
        {
            let read = fs::read(point.join(path));
            scene.holds(&what(&format!("{path} leads to nothing: {read:?}")), read.is_err());
        }
        // Above it is what the machine has there.
        let above = names(&point.join("..")).unwrap();
        scene.holds(&what(".. is the machine's"), above.contains(&"cluster.toml".to_owned()));
        let secret = scene.root.join("b/in-b");
        for path in ["stolen", "sub/stolen"] {
            let linked = errno(fs::hard_link(&secret, point.join(path)));
            scene.holds(&what("no link leads in"), linked == Some(libc::EXDEV));
            let renamed = errno(fs::rename(&secret, point.join(path)));
            scene.holds(&what("no rename leads in"), renamed == Some(libc::EXDEV));
        }
        for file in ["b/in-b", "b", "b/sub/deep"] {
            by_number(&scene, who, mount, file);
        }
        // The control files say how the cluster is, and no name of the rest of the tree.
        let said = shell(point, "timeout 60 cat .pangu/* .pangu/chunkservers/*/status 2>/dev/null || true");
        scene.holds(&what("control files name nothing outside"), !said.contains("in-b"));
    }
    leaves(&scene, &a, &mounts);
    scene.b_is_untouched();
    drop(mounts);
    scene.finish();
}

/// What the kernel calls a file handle, as FUSE makes them: it names an inode by its number, in halves, the upper one first.
#[repr(C)]
#[derive(Clone, Copy)]
struct Handle {
    bytes: libc::c_uint,
    kind: libc::c_int,
    inode: [u32; 2],
    generation: u32,
}

impl Handle {
    fn of(path: &Path) -> io::Result<Self> {
        let name = CString::new(path.as_os_str().as_bytes()).unwrap();
        let (mut handle, mut mount) = (Self { bytes: 12, kind: 0, inode: [0; 2], generation: 0 }, 0);
        let at = std::ptr::from_mut(&mut handle).cast();
        // SAFETY: the name ends in a zero, and the handle is as `struct file_handle` has it, with room for the 12 bytes that it says.
        let done = unsafe { libc::name_to_handle_at(libc::AT_FDCWD, name.as_ptr(), at, &raw mut mount, 0) };
        if done == 0 { Ok(handle) } else { Err(io::Error::last_os_error()) }
    }

    fn open(mut self, folder: &File) -> io::Result<File> {
        let at = std::ptr::from_mut(&mut self).cast();
        // SAFETY: it is as `struct file_handle` has it, with the 12 bytes that it says, and lives over the call.
        let opened = unsafe { libc::open_by_handle_at(folder.as_raw_fd(), at, libc::O_RDONLY) };
        if opened < 0 {
            return Err(io::Error::last_os_error());
        }
        // SAFETY: it was opened just now, for nobody else.
        Ok(unsafe { File::from_raw_fd(opened) })
    }
}

/// Whoever is root on the machine of a mount needs no names.
fn by_number(scene: &Scene, who: &str, mount: &Mount, path: &str) {
    let own = match Handle::of(&mount.point.join("in-a")) {
        Ok(own) => own,
        Err(error) => {
            eprintln!("this kernel has no file handles of FUSE ({error}): not tested");
            return;
        }
    };
    let folder = File::open(&mount.point).unwrap();
    scene.holds(&format!("{who}: one's own file is opened by its number"), own.open(&folder).is_ok());
    let ino = fs::metadata(scene.root.join(path)).unwrap().ino();
    let half = |shift: u32| u32::try_from(ino >> shift & u64::from(u32::MAX)).unwrap();
    let foreign = Handle { inode: [half(32), half(0)], ..own };
    if foreign.open(&folder).is_ok() {
        scene.note(format!("{who}: {path} was opened by its number"));
    }
}

/// The administrator takes things out of the directory, while they are in use.
fn leaves(scene: &Scene, a: &Path, mounts: &[Mount]) {
    let b = scene.root.join("b");
    let open: Vec<File> = mounts.iter().map(|mount| File::open(mount.point.join("dir")).unwrap()).collect();
    for mount in mounts {
        assert_eq!(fs::read(mount.point.join("moved")).unwrap(), Content::new(21).bytes(LEN));
        assert_eq!(fs::read(mount.point.join("dir/inside")).unwrap(), Content::new(22).bytes(LEN));
    }
    fs::rename(a.join("moved"), b.join("moved")).unwrap();
    fs::rename(a.join("dir"), b.join("dir")).unwrap();
    for mount in mounts {
        for name in ["moved", "dir/inside", "dir"] {
            let path = mount.point.join(name);
            let gone =
                wait_until("it is gone", Deadline::within(GONE), || Ok(fs::symlink_metadata(&path).is_err()));
            scene.holds(&format!("{} goes with its directory", path.display()), gone.is_ok());
            scene.holds(&format!("{} is not read any more", path.display()), fs::read(&path).is_err());
        }
    }
    for folder in &open {
        let inside = PathBuf::from(format!("/proc/self/fd/{}/inside", folder.as_raw_fd()));
        let closed =
            wait_until("it is closed", Deadline::within(GONE), || Ok(fs::metadata(&inside).is_err()));
        scene.holds("a directory that is open is closed", closed.is_ok());
        scene.holds("a file in a directory that was open is closed", File::open(&inside).is_err());
    }
    fs::remove_file(b.join("moved")).unwrap();
    fs::remove_dir_all(b.join("dir")).unwrap();
}

/// Everything else that a mount can be told by flags.
#[test]
fn a_mount_takes_no_key_that_does_not_belong_to_its_capability() {
    let scene = Scene::new();
    let keys = scene.cluster.keys();
    let alice = Person::granted(&keys, &Wanted::new("alice", 1000, on(MOUNT, scene.a)));
    let bob = Person::granted(&keys, &Wanted::new("bob", OWNER, on(MOUNT, scene.b)));
    let mixed = Person { key_file: alice.key_file.clone(), ..bob.clone() };
    let refused = Mount::is_refused(&scene, "mixed", &mixed);
    scene.holds(
        &format!("a key and another's capability do not mount: {refused:?}"),
        refused.is_ok_and(|said| said.contains("name the two that belong together")),
    );
    let grants = vec![zhongkui::Grant::new(OWN, zhongkui::Resource::nuwa("/x/").unwrap()).unwrap()];
    let none = Person::granted(&keys, &Wanted::new("none", 1, grants));
    let refused = Mount::is_refused(&scene, "none", &none);
    scene.holds(
        &format!("a capability without files does not mount: {refused:?}"),
        refused.is_ok_and(|said| said.contains("covers no directory")),
    );
    let mut pangu = Command::new(scene.cluster.binaries().join("pangu"));
    pangu.arg("--cluster").arg(scene.cluster.description());
    pangu
        .arg("--key")
        .arg(&alice.key_file)
        .arg("--cap")
        .arg(&alice.capability_file)
        .args(["where", "/b/in-b"]);
    let asked = run(&mut pangu, Duration::from_secs(30));
    scene.holds(&format!("'pangu where' says nothing of b: {asked:?}"), !asked.status.success());
    scene.finish();
}
