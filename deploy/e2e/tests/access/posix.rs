//! A user without *act-as* is who his capability says: Linux's permissions count for him by frames as they do by a mount, and he makes nothing in
//! another's name.

use std::fs::{self, Permissions};
use std::os::unix::fs::{PermissionsExt as _, chown};
use std::path::Path;

use coord_types::{DataId, Fence, InodeId};
use kuafu::Bytes;
use master_api::Errno;
use master_api::model::{
    Changes, CommitWrite, Create, Mkdir, Mknod, Mutation, Query, RaiseFence, ReadDir, Rename, RenameFlags,
    Rmdir, SetAttr, SetXattr, Symlink, SymlinkTarget, Time, TimeSet, Unlink, XattrFlags, XattrName,
};
use master_api::proto;

use crate::chunks::{Ask, wanted};
use crate::directory::name;
use crate::people::{MOUNT, OWN, Person, Wanted, on};
use crate::scene::{Known, OWNER, Scene, write};
use crate::wire::Namespace;

/// Whose the files are that the user must not touch.
const OTHER: u32 = 4321;

fn belongs_to_another(path: &Path, mode: u32) {
    chown(path, Some(OTHER), Some(OTHER)).unwrap();
    fs::set_permissions(path, Permissions::from_mode(mode)).unwrap();
}

/// What an answer's errno is to be, and what it is.
fn is(scene: &Scene, what: &str, errno: Errno, answer: Result<u32, kuafu::Status>) {
    if answer != Ok(errno.wire()) {
        scene.note(format!("{what}: {answer:?}, and not {errno}"));
    }
}

fn mutated(scene: &Scene, own: &Namespace, mutation: Mutation) -> Result<u32, kuafu::Status> {
    scene.run(own.mutate(mutation)).map(|reply| reply.errno)
}

fn asked(scene: &Scene, own: &Namespace, query: Query) -> Result<u32, kuafu::Status> {
    scene.run(own.query(query)).map(|reply| reply.errno)
}

#[test]
fn a_user_who_acts_for_nobody_has_his_own_permissions_only() {
    let scene = Scene::new();
    let keys = scene.cluster.keys();
    let bob = Person::granted(&keys, &Wanted::new("bob", OWNER, on(OWN, scene.a)));
    let a = scene.root.join("a");
    write(&a.join("theirs"), 61);
    fs::create_dir(a.join("closed")).unwrap();
    write(&a.join("closed/inside"), 62);
    fs::create_dir(a.join("sticky")).unwrap();
    write(&a.join("sticky/theirs"), 63);
    let theirs = scene.known("a/theirs");
    let inside = scene.known("a/closed/inside");
    let number =
        |path: &str| InodeId(std::os::unix::fs::MetadataExt::ino(&fs::metadata(a.join(path)).unwrap()));
    let (closed, sticky) = (number("closed"), number("sticky"));
    belongs_to_another(&a.join("theirs"), 0o600);
    belongs_to_another(&a.join("closed/inside"), 0o600);
    belongs_to_another(&a.join("closed"), 0o700);
    belongs_to_another(&a.join("sticky/theirs"), 0o666);
    belongs_to_another(&a.join("sticky"), 0o1777);

    let own = scene.namespace(&bob);
    scene.holds(
        "attributes are for all who reach it",
        asked(&scene, &own, Query::GetAttr(theirs.ino)) == Ok(0),
    );
    no_byte(&scene, &own, &bob, &theirs);
    no_byte(&scene, &own, &bob, &inside);
    no_change(&scene, &own, &theirs);
    let after = scene.known("a/theirs").attr;
    let times = |attr: &master_api::model::Attr| (attr.size_bytes, attr.mtime);
    scene.holds("another's file has the size and the time it had", times(&after) == times(&theirs.attr));
    let page = ReadDir { ino: closed, after_cookie: 0, limit: 10, with_attributes: true };
    is(&scene, "a closed directory's names", Errno::EACCES, asked(&scene, &own, Query::ReadDir(page)));
    let look = Query::Lookup { parent: closed, name: name("inside") };
    is(&scene, "a name in a closed directory", Errno::EACCES, asked(&scene, &own, look));
    let (uid, gid) = (OTHER, OTHER);
    for (what, parent, of, errno) in [
        ("a closed directory", closed, "inside", Errno::EACCES),
        ("a sticky directory", sticky, "theirs", Errno::EPERM),
    ] {
        let unlink = Mutation::Unlink(Unlink { parent, name: name(of), hold: None });
        is(&scene, &format!("unlink in {what}"), errno, mutated(&scene, &own, unlink));
        let rename = Mutation::Rename(Rename {
            parent,
            name: name(of),
            new_parent: scene.a,
            new_name: name("taken"),
            flags: RenameFlags::Replace,
            hold: None,
        });
        is(&scene, &format!("rename out of {what}"), errno, mutated(&scene, &own, rename));
    }
    let create = Create { parent: closed, name: name("new"), mode: 0o666, uid, gid, exclusive: true };
    is(
        &scene,
        "create in a closed directory",
        Errno::EACCES,
        mutated(&scene, &own, Mutation::Create(create)),
    );
    let rmdir = Mutation::Rmdir(Rmdir { parent: closed, name: name("inside") });
    is(&scene, "rmdir in a closed directory", Errno::EACCES, mutated(&scene, &own, rmdir));
    what_he_makes_is_his(&scene, &own);
    scene.finish();
}

/// No token, and none of the data without one.
fn no_byte(scene: &Scene, own: &Namespace, bob: &Person, file: &Known) {
    for write in [false, true] {
        let given = scene.run(own.token(wanted(file, write)));
        let what = format!("a token for another's file (write: {write})");
        is(scene, &what, Errno::EACCES, given.map(|given| given.errno));
    }
    for role in scene.chunkservers() {
        let wire = scene.wire(&bob.access, role);
        for ask in Ask::ALL {
            let call = ask.of(&wire, file.chunk, file.epoch);
            scene.refused(role, &bob.by(), &format!("{ask:?} of another's file"), call);
        }
    }
    let attribute = XattrName::new("user.x").unwrap();
    let query = Query::GetXattr { ino: file.ino, name: attribute };
    is(scene, "an attribute of another's file", Errno::EACCES, asked(scene, own, query));
}

fn no_change(scene: &Scene, own: &Namespace, file: &Known) {
    let ino = file.ino;
    let set = |changes| Mutation::SetAttr(SetAttr { ino, changes });
    let attribute = || XattrName::new("user.x").unwrap();
    let commit = |data, attributes| {
        Mutation::CommitWrite(CommitWrite {
            ino,
            data,
            size_at_least_bytes: 1 << 30,
            allocated_delta_bytes: 0,
            garbage_cleared: false,
            attributes,
        })
    };
    let open = Changes { mode: Some(0o666), ..Changes::default() };
    let cases = [
        ("open its mode", Errno::EPERM, set(open)),
        ("take it over", Errno::EPERM, set(Changes { uid: Some(OWNER), ..Changes::default() })),
        ("take its group", Errno::EPERM, set(Changes { gid: Some(OWNER), ..Changes::default() })),
        ("truncate it", Errno::EACCES, set(Changes { size_bytes: Some(0), ..Changes::default() })),
        ("set its times", Errno::EPERM, set(Changes { mtime: Some(long_ago()), ..Changes::default() })),
        (
            "truncate it as if it were open",
            Errno::EACCES,
            set(Changes { size_bytes: Some(0), fence: Some(Fence::NONE), ..Changes::default() }),
        ),
        (
            "set its times as if it were open",
            Errno::EACCES,
            set(Changes { mtime: Some(long_ago()), fence: Some(Fence::NONE), ..Changes::default() }),
        ),
        ("commit a write to it", Errno::EACCES, commit(file.attr.data, None)),
        ("fence it", Errno::EACCES, Mutation::RaiseFence(RaiseFence { ino, fence: Fence(9) })),
        (
            "set an attribute",
            Errno::EACCES,
            Mutation::SetXattr(SetXattr {
                ino,
                name: attribute(),
                value: Bytes::from_static(b"x"),
                flags: XattrFlags::Any,
            }),
        ),
    ];
    for (what, errno, mutation) in cases {
        is(scene, &format!("another's file: {what}"), errno, mutated(scene, own, mutation));
    }
    // Attributes that are said to have been held back during a write.
    for data in [file.attr.data, DataId(0)] {
        let answer = mutated(scene, own, commit(data, Some(open)));
        let refused =
            answer.as_ref().is_ok_and(|errno| [Errno::EPERM.wire(), Errno::EACCES.wire()].contains(errno));
        scene.holds(&format!("another's file: its mode by a commit: {answer:?}"), refused);
    }
}

fn long_ago() -> TimeSet {
    TimeSet::At(Time::new(1, 0).unwrap())
}

/// Whatever the request says.
fn what_he_makes_is_his(scene: &Scene, own: &Namespace) {
    let parent = scene.a;
    for (uid, gid) in [(0, 0), (OTHER, OTHER), (OWNER, 0), (u32::MAX - 1, 7)] {
        let new = |kind: &str| name(&format!("{kind}-{uid}-{gid}"));
        let mode = 0o644;
        let made = [
            Mutation::Create(Create { parent, name: new("file"), mode, uid, gid, exclusive: true }),
            Mutation::Mkdir(Mkdir { parent, name: new("dir"), mode: 0o755, uid, gid }),
            Mutation::Mknod(Mknod { parent, name: new("fifo"), mode: 0o010_644, uid, gid, rdev: 0 }),
            Mutation::Symlink(Symlink {
                parent,
                name: new("link"),
                target: SymlinkTarget::new("x").unwrap(),
                uid,
                gid,
            }),
        ];
        for mutation in made {
            let what = format!("{mutation:?}");
            let reply = scene.run(own.mutate(mutation)).unwrap_or_default();
            let attr = reply.attr.unwrap_or_default();
            let his = (reply.errno, attr.uid, attr.gid) == (0, OWNER, OWNER);
            scene.holds(&format!("{what} is his: errno {}, {}:{}", reply.errno, attr.uid, attr.gid), his);
            let give = |changes| Mutation::SetAttr(SetAttr { ino: InodeId(attr.ino), changes });
            if attr.ino != 0 {
                let away = give(Changes { uid: Some(0), ..Changes::default() });
                is(scene, "give away what is one's own", Errno::EPERM, mutated(scene, own, away));
                let away = give(Changes { gid: Some(0), ..Changes::default() });
                is(scene, "give it to another group", Errno::EPERM, mutated(scene, own, away));
            }
        }
    }
    let device = Mknod { parent, name: name("device"), mode: 0o020_666, uid: 0, gid: 0, rdev: 0x0103 };
    is(scene, "make a device", Errno::EPERM, mutated(scene, own, Mutation::Mknod(device)));
}

/// Who acts for many says for whom, but not for uid 0 without *superuser*; and uid 0 of a capability without it is nobody.
#[test]
fn uid_0_is_nobody_without_the_right() {
    let scene = Scene::new();
    let keys = scene.cluster.keys();
    let alice = Person::granted(&keys, &Wanted::new("alice", 1000, on(MOUNT, scene.a)));
    let zero = Person::granted(&keys, &Wanted::new("zero", 0, on(OWN, scene.a)));
    write(&scene.root.join("a/theirs"), 71);
    let theirs = scene.known("a/theirs");
    belongs_to_another(&scene.root.join("a/theirs"), 0o600);
    let (hers, its) = (scene.namespace(&alice), scene.namespace(&zero));
    let create = |name: &str, uid| {
        Mutation::Create(Create {
            parent: scene.a,
            name: crate::directory::name(name),
            mode: 0o644,
            uid,
            gid: uid,
            exclusive: true,
        })
    };
    let owner = |reply: proto::MutateReply| (reply.errno, reply.attr.map(|attr| attr.uid));
    let made = owner(scene.run(hers.mutate(create("for-77", 77))).unwrap());
    scene.holds(&format!("who acts for others makes files for them: {made:?}"), made == (0, Some(77)));
    for (who, own, file) in [("a mount", &hers, "zero-1"), ("uid 0 itself", &its, "zero-2")] {
        let made = owner(scene.run(own.mutate(create(file, 0))).unwrap());
        let nobodys = made.0 == 0 && made.1.is_some_and(|uid| uid != 0);
        scene.holds(&format!("{who} makes nothing for uid 0: {made:?}"), nobodys);
    }
    let set = SetAttr { ino: theirs.ino, changes: Changes { uid: Some(0), ..Changes::default() } };
    drop(scene.run(hers.mutate(Mutation::SetAttr(set))));
    let attr = scene.known("a/theirs").attr;
    scene.holds(&format!("nothing is given to uid 0: {}", attr.uid), attr.uid != 0);
    belongs_to_another(&scene.root.join("a/theirs"), 0o600);
    for write in [false, true] {
        let given = scene.run(its.token(wanted(&theirs, write))).map(|given| given.errno);
        is(&scene, "uid 0 reads what is another's", Errno::EACCES, given);
    }
    let changes = Changes { mode: Some(0o666), ..Changes::default() };
    let mutation = Mutation::SetAttr(SetAttr { ino: theirs.ino, changes });
    is(&scene, "uid 0 opens what is another's", Errno::EPERM, mutated(&scene, &its, mutation));
    scene.finish();
}
