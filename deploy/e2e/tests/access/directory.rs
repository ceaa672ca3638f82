//! A capability for one directory, at the master and by the client library: no number and no name of another directory says anything.

use std::time::Duration;

use coord_types::{DataId, Fence, InodeId};
use deploy_local_cluster::{Deadline, wait_until};
use fs_client::{Caller, ClientConfig, ConnectError, FileSystem, Op, OpReply};
use kuafu::{Bytes, CancellationToken};
use master_api::Errno;
use master_api::model::{
    Changes, CommitWrite, Create, Link, Mkdir, Mknod, Mutation, Name, Query, RaiseFence, ReadDir,
    RemoveXattr, Rename, RenameFlags, Rmdir, SetAttr, SetXattr, Symlink, SymlinkTarget, Unlink, XattrFlags,
    XattrName,
};
use master_api::proto::{self, AdminClient};

use crate::audit::By;
use crate::people::{MOUNT, OWN, Person, Wanted, on};
use crate::scene::{Known, MASTER, OWNER, Scene};
use crate::wire::{Namespace, Wire, options};

pub(crate) fn name(text: &str) -> Name {
    Name::new(text.to_owned()).unwrap()
}

fn attribute() -> XattrName {
    XattrName::new("user.x").unwrap()
}

/// Every question about a directory and a file in it.
pub(crate) fn queries(directory: InodeId, file: InodeId, of_file: &str) -> Vec<(&'static str, Query)> {
    let page = |ino| ReadDir { ino, after_cookie: 0, limit: 100, with_attributes: true };
    vec![
        ("look up a name", Query::Lookup { parent: directory, name: name(of_file) }),
        ("look up a name that is not there", Query::Lookup { parent: directory, name: name("nothing") }),
        ("attributes of the directory", Query::GetAttr(directory)),
        ("attributes of the file", Query::GetAttr(file)),
        ("read a link", Query::ReadLink(file)),
        ("list the directory", Query::ReadDir(page(directory))),
        ("list a file", Query::ReadDir(page(file))),
        ("an extended attribute", Query::GetXattr { ino: file, name: attribute() }),
        ("list extended attributes", Query::ListXattr(file)),
    ]
}

/// Every change of a directory and a file in it.
pub(crate) fn changes(directory: InodeId, file: &Known, of_file: &str) -> Vec<(&'static str, Mutation)> {
    let (parent, ino) = (directory, file.ino);
    let (uid, gid) = (OWNER, OWNER);
    let new = || name("new");
    let set = |changes| Mutation::SetAttr(SetAttr { ino, changes });
    let rename = |flags| {
        Mutation::Rename(Rename {
            parent,
            name: name(of_file),
            new_parent: parent,
            new_name: new(),
            flags,
            hold: None,
        })
    };
    let create =
        |name, exclusive| Mutation::Create(Create { parent, name, mode: 0o666, uid, gid, exclusive });
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
    vec![
        ("create a file", create(new(), true)),
        ("create a file that is there", create(name(of_file), false)),
        ("make a directory", Mutation::Mkdir(Mkdir { parent, name: new(), mode: 0o777, uid, gid })),
        ("make a fifo", Mutation::Mknod(Mknod { parent, name: new(), mode: 0o010_666, uid, gid, rdev: 0 })),
        (
            "make a symbolic link",
            Mutation::Symlink(Symlink {
                parent,
                name: new(),
                target: SymlinkTarget::new("x").unwrap(),
                uid,
                gid,
            }),
        ),
        ("link within", Mutation::Link(Link { ino, parent, name: new() })),
        ("unlink", Mutation::Unlink(Unlink { parent, name: name(of_file), hold: None })),
        ("unlink and hold", Mutation::Unlink(Unlink { parent, name: name(of_file), hold: Some(ino) })),
        ("remove a directory", Mutation::Rmdir(Rmdir { parent, name: name("sub") })),
        ("rename within", rename(RenameFlags::Replace)),
        ("rename within, not over another", rename(RenameFlags::NoReplace)),
        ("change the mode", set(Changes { mode: Some(0o777), ..Changes::default() })),
        ("change the owner", set(Changes { uid: Some(1), gid: Some(1), ..Changes::default() })),
        ("truncate", set(Changes { size_bytes: Some(0), ..Changes::default() })),
        ("extend", set(Changes { size_bytes: Some(1 << 20), ..Changes::default() })),
        ("commit a write", commit(file.attr.data, None)),
        ("commit attributes", commit(DataId(0), Some(Changes { mode: Some(0o777), ..Changes::default() }))),
        (
            "set an extended attribute",
            Mutation::SetXattr(SetXattr {
                ino,
                name: attribute(),
                value: Bytes::from_static(b"x"),
                flags: XattrFlags::Any,
            }),
        ),
        ("remove an extended attribute", Mutation::RemoveXattr(RemoveXattr { ino, name: attribute() })),
        ("raise the fence", Mutation::RaiseFence(RaiseFence { ino, fence: Fence(9) })),
    ]
}

/// Changes that would carry something over the border between two directories, one of which is one's own.
fn crossings(own: (InodeId, InodeId), foreign: (InodeId, InodeId)) -> Vec<(&'static str, Mutation)> {
    let rename = |parent, from: &str, new_parent, to: &str, flags| {
        Mutation::Rename(Rename {
            parent,
            name: name(from),
            new_parent,
            new_name: name(to),
            flags,
            hold: None,
        })
    };
    let ((a, in_a), (b, in_b)) = (own, foreign);
    let root = InodeId::ROOT;
    vec![
        (
            "link a foreign file into one's own",
            Mutation::Link(Link { ino: in_b, parent: a, name: name("stolen") }),
        ),
        (
            "link one's own file into a foreign one",
            Mutation::Link(Link { ino: in_a, parent: b, name: name("put") }),
        ),
        ("fetch a foreign file", rename(b, "in-b", a, "stolen", RenameFlags::Replace)),
        ("fetch a foreign directory", rename(b, "sub", a, "stolen", RenameFlags::Replace)),
        ("fetch the foreign directory itself", rename(root, "b", a, "stolen", RenameFlags::Replace)),
        ("put a file over a foreign one", rename(a, "in-a", b, "in-b", RenameFlags::Replace)),
        ("exchange with a foreign file", rename(a, "in-a", b, "in-b", RenameFlags::Exchange)),
        ("exchange with one's own", rename(b, "in-b", a, "in-a", RenameFlags::Exchange)),
        ("rename one's own directory", rename(root, "a", root, "c", RenameFlags::Replace)),
        ("remove one's own directory", Mutation::Rmdir(Rmdir { parent: root, name: name("a") })),
        ("unlink at the root", Mutation::Unlink(Unlink { parent: root, name: name("b"), hold: None })),
        (
            "create at the root",
            Mutation::Mkdir(Mkdir { parent: root, name: name("x"), mode: 0o777, uid: 1, gid: 1 }),
        ),
    ]
}

/// Where a file is, by any name it can be asked by.
fn places(file: InodeId) -> Vec<(&'static str, proto::where_request::File)> {
    use proto::where_request::File;
    let path = |text: &'static str| File::Path(Bytes::from_static(text.as_bytes()));
    vec![
        ("where a file is, by number", File::Ino(file.0)),
        ("where a file is, by path", path("b/in-b")),
        ("where one's own file is, by a path from the root", path("a/in-a")),
        ("where a file is, by a path with dots", path("a/../b/in-b")),
        ("where nothing is", path("b/nothing")),
    ]
}

/// All that somebody with a capability for a is refused about b.
fn everything_about_b(scene: &Scene, who: &str, person: &Person) {
    let (in_a, in_b) = (scene.known("a/in-a"), scene.known("b/in-b"));
    let own = scene.namespace(person);
    let by = person.by();
    // What he may, he can: so it is not for a mistake here that the rest is refused.
    let page = ReadDir { ino: scene.a, after_cookie: 0, limit: 100, with_attributes: true };
    let listed = scene.run(own.query(Query::ReadDir(page))).unwrap();
    scene.holds(&format!("{who} lists his own directory"), listed.entries.len() >= 2);

    let sessionless = own.under(0);
    for (session, namespace) in [("own session", &own), ("no session", &sessionless)] {
        for (what, query) in queries(scene.b, in_b.ino, "in-b") {
            let what = format!("{who}, {session}: {what}");
            scene.refused(MASTER, &by, &what, namespace.query(query));
        }
        for path in ["", "a", "a/in-a", "b", "b/in-b", "a/../b/in-b"] {
            let query = Query::Resolve(Bytes::from_static(path.as_bytes()));
            scene.refused(
                MASTER,
                &by,
                &format!("{who}, {session}: resolve '{path}'"),
                namespace.query(query),
            );
        }
        for (what, query) in queries(InodeId::ROOT, InodeId::ROOT, "b") {
            scene.refused(
                MASTER,
                &by,
                &format!("{who}, {session}: {what}, the root"),
                namespace.query(query),
            );
        }
        let mutations = changes(scene.b, &in_b, "in-b");
        for (what, mutation) in
            mutations.into_iter().chain(crossings((scene.a, in_a.ino), (scene.b, in_b.ino)))
        {
            let what = format!("{who}, {session}: {what}");
            scene.refused(MASTER, &by, &what, namespace.mutate(mutation));
        }
    }
    let admin = AdminClient::new(scene.wire(&person.access, MASTER).0);
    for (what, file) in places(in_b.ino) {
        let request = proto::WhereRequest { file: Some(file) };
        let options = options();
        scene.refused(MASTER, &by, &format!("{who}: {what}"), admin.r#where(&request, &options));
    }
    tokens_for_b(scene, who, &own, &by, &in_a, &in_b);
}

/// A master gives no token for foreign data, whichever file they are said to be of.
fn tokens_for_b(scene: &Scene, who: &str, own: &Namespace, by: &By, in_a: &Known, in_b: &Known) {
    let wanted = |ino: InodeId, data: DataId, write, renewed: Bytes| proto::TokenWanted {
        ino: ino.0,
        data: data.0,
        write,
        renewed,
    };
    let given = scene.run(own.token(wanted(in_a.ino, in_a.attr.data, true, Bytes::new()))).unwrap();
    scene.holds(&format!("{who} has a token for his own file"), given.errno == 0 && !given.token.is_empty());
    for write in [false, true] {
        for renewed in [Bytes::new(), given.token.clone()] {
            let call = own.token(wanted(in_b.ino, in_b.attr.data, write, renewed.clone()));
            scene.refused(MASTER, by, &format!("{who}: a token for a foreign file (write: {write})"), call);
            let call = own.token(wanted(in_b.ino, in_a.attr.data, write, renewed.clone()));
            scene.refused(
                MASTER,
                by,
                &format!("{who}: a token for one's own data as a foreign file's"),
                call,
            );
            // It is refused as what is no more: the file has other data.
            let answer = scene.run(own.token(wanted(in_a.ino, in_b.attr.data, write, renewed)));
            let refused = answer
                .as_ref()
                .is_ok_and(|given| given.token.is_empty() && given.errno == Errno::ESTALE.wire());
            if !refused {
                scene.note(format!("{who}: a token for foreign data as one's own file's: {answer:?}"));
            }
        }
    }
}

#[test]
fn a_capability_for_one_directory_says_nothing_of_another_at_the_master() {
    let scene = Scene::new();
    let keys = scene.cluster.keys();
    let alice = Person::granted_by_program(
        &scene.cluster,
        "alice",
        1000,
        &format!("read,write,act-as on directory:{}", scene.a),
    );
    let bob = Person::granted(&keys, &Wanted::new("bob", OWNER, on(OWN, scene.a)));
    // Not even uid 0 and all rights make the directory larger.
    let carol = Wanted::new(
        "carol",
        0,
        on(MOUNT | zhongkui::Rights::SUPERUSER | zhongkui::Rights::ADMINISTER, scene.a),
    );
    let carol = Person::granted(&keys, &carol);
    for (who, person) in [("a mount", &alice), ("a user", &bob), ("a superuser of a", &carol)] {
        everything_about_b(&scene, who, person);
    }
    scene.b_is_untouched();
    scene.finish();
}

#[test]
fn nobody_uses_the_session_of_another() {
    let scene = Scene::new();
    let keys = scene.cluster.keys();
    let alice = Person::granted(&keys, &Wanted::new("alice", 1000, on(MOUNT, scene.a)));
    let bob = Person::granted(&keys, &Wanted::new("bob", OWNER, on(OWN, scene.a)));
    let (hers, his) = (scene.namespace(&alice), scene.namespace(&bob));
    let client = scene.master_client(&scene.admin);
    let admins = scene.run(client.ready()).unwrap().0;
    let wire = scene.wire(&bob.access, MASTER);
    let in_a = scene.known("a/in-a");
    let raw = proto::NamespaceClient::new(wire.0);
    for (whose, session) in [("alice", hers.session), ("the administrator", admins)] {
        let theirs = his.under(session);
        let what = |what: &str| format!("{what} under the session of {whose}");
        scene.refused(MASTER, &bob.by(), &what("a query"), theirs.query(Query::GetAttr(scene.a)));
        scene.refused(MASTER, &bob.by(), &what("statfs"), theirs.query(Query::StatFs));
        for (name, mutation) in changes(scene.a, &in_a, "in-a") {
            scene.refused(MASTER, &bob.by(), &what(name), theirs.mutate(mutation));
        }
        let forget = Mutation::Forget(vec![in_a.ino]);
        scene.refused(MASTER, &bob.by(), &what("forget"), theirs.mutate(forget));
        let wanted =
            proto::TokenWanted { ino: in_a.ino.0, data: in_a.attr.data.0, ..proto::TokenWanted::default() };
        scene.refused(MASTER, &bob.by(), &what("a token"), theirs.token(wanted));
        let renew = proto::RenewSessionRequest { session };
        scene.refused(MASTER, &bob.by(), &what("renewing"), raw.renew_session(&renew, &options()));
        let close = proto::CloseSessionRequest { session };
        scene.refused(MASTER, &bob.by(), &what("closing"), raw.close_session(&close, &options()));
    }
    // They are all still there.
    let own = scene.run(hers.query(Query::GetAttr(scene.a)));
    scene.holds("alice's session is hers", own.is_ok_and(|answer| answer.errno == 0));
    scene.holds("the administrator's client works", scene.run(client.get_attr(scene.b)).is_ok());
    scene.finish();
}

/// Numbers of sessions can be guessed. Whether a session is another's was asked of the state only; a change that came while the session was being opened
/// was let through, and done under it: its owner's first change was then answered with another's, and not done.
#[test]
fn nobody_uses_a_session_that_is_being_opened_for_another() {
    const ROUNDS: u64 = 8;
    let scene = Scene::new();
    let keys = scene.cluster.keys();
    let alice = Person::granted(&keys, &Wanted::new("alice", 1000, on(MOUNT, scene.a)));
    let bob = Person::granted(&keys, &Wanted::new("bob", OWNER, on(OWN, scene.a)));
    let (hers, his) = (scene.wire(&alice.access, MASTER), scene.wire(&bob.access, MASTER));
    let mkdir = |name: String| {
        Mutation::Mkdir(Mkdir {
            parent: scene.a,
            name: Name::new(name).unwrap(),
            mode: 0o777,
            uid: 1,
            gid: 1,
        })
    };
    let mut rounds = 0;
    for round in 0..ROUNDS {
        let next = scene.run(Namespace::open(&his)).session + 1;
        let doing =
            if round % 2 == 0 { Intrusion::Mutate(mkdir(format!("bobs-{round}"))) } else { Intrusion::Close };
        let over = CancellationToken::new();
        let intruders: Vec<_> = (0..4)
            .map(|_| scene.runtime().spawn(doing.clone().repeat(his.clone(), next, over.clone())))
            .collect();
        let own = scene.run(Namespace::open(&hers));
        let answer = scene.run(own.mutate(mkdir(format!("hers-{round}"))));
        over.cancel();
        let done: usize = intruders.into_iter().map(|task| scene.run(task).unwrap()).sum();
        if own.session != next {
            continue;
        }
        rounds += 1;
        let what = format!("round {round}, {doing:?}");
        scene.holds(&format!("{what}: nothing is done under alice's session by bob"), done == 0);
        let fine = answer.as_ref().is_ok_and(|reply| reply.errno == 0);
        scene.holds(&format!("{what}: alice's session is hers: {answer:?}"), fine);
        // Other mounts show it within a second.
        let shown = || Ok(scene.root.join(format!("a/hers-{round}")).is_dir());
        let made = wait_until("it is shown", Deadline::within(Duration::from_secs(5)), shown).is_ok();
        scene.holds(&format!("{what}: what alice was told was made is there"), made || !fine);
    }
    assert!(rounds > 0, "the next session had another number each time");
    scene.finish();
}

/// What somebody does again and again under a session that is not his.
#[derive(Clone, Debug)]
enum Intrusion {
    Mutate(Mutation),
    Close,
}

impl Intrusion {
    /// How often it was done.
    async fn repeat(self, wire: Wire, session: u64, over: CancellationToken) -> usize {
        let raw = proto::NamespaceClient::new(wire.0);
        let mut done = 0;
        while !over.is_cancelled() {
            match &self {
                Self::Mutate(mutation) => {
                    let op = Some(mutation.clone().into());
                    let request = proto::MutateRequest { session, sequence: 1, acknowledged_below: 1, op };
                    done += usize::from(raw.mutate(&request, &options()).await.is_ok());
                }
                // What is not there is closed, too: of this the answer says nothing.
                Self::Close => {
                    drop(raw.close_session(&proto::CloseSessionRequest { session }, &options()).await);
                }
            }
        }
        done
    }
}

/// Who shows a newer state makes masters step back as an old copy; and who says he is a chunkserver makes another one live.
#[test]
fn nobody_but_a_chunkserver_speaks_as_one_when_it_asks_for_the_table() {
    let scene = Scene::new();
    let keys = scene.cluster.keys();
    let alice = Person::granted(&keys, &Wanted::new("alice", 1000, on(MOUNT, scene.a)));
    let wire = scene.wire(&alice.access, MASTER);
    let table = proto::ClusterClient::new(wire.0);
    let asked = |request: proto::GetTableRequest| {
        let table = table.clone();
        async move { table.get_table(&request, &options()).await.map(|reply| reply.message) }
    };
    let as_server = proto::GetTableRequest { server: 1, ..proto::GetTableRequest::default() };
    scene.refused(MASTER, &alice.by(), "the table, as a chunkserver", asked(as_server));
    let plain = scene.run(asked(proto::GetTableRequest::default())).unwrap();
    let lineage = plain.lineage.unwrap();
    let known = proto::Lineage { epoch: lineage.epoch + 1, log_index: u64::MAX, ..lineage };
    let newer = proto::GetTableRequest { known: Some(known), ..proto::GetTableRequest::default() };
    let answer = scene.run(asked(newer));
    scene.holds(
        &format!("what a client says it saw changes nothing: {:?}", answer.as_ref().err()),
        answer.is_ok(),
    );
    std::fs::write(scene.root.join("a/after"), "x").unwrap();
    scene.holds("the master goes on", scene.run(asked(proto::GetTableRequest::default())).is_ok());
    scene.finish();
}

#[test]
fn the_client_library_opens_nothing_that_the_capability_does_not_cover() {
    let scene = Scene::new();
    let keys = scene.cluster.keys();
    let alice = Person::granted(&keys, &Wanted::new("alice", 1000, on(MOUNT, scene.a)));
    let bob = Person::granted(&keys, &Wanted::new("bob", OWNER, on(OWN, scene.a)));
    let in_b = scene.known("b/in-b");
    for (who, person) in [("a mount", &alice), ("a user", &bob)] {
        let by = person.by();
        let config = |root| ClientConfig {
            masters: vec![scene.address(MASTER).parse().unwrap()],
            access: person.access.clone(),
            root,
            ..ClientConfig::default()
        };
        for (what, root) in [
            ("the whole tree", InodeId::ROOT),
            ("the other directory", scene.b),
            ("a foreign file", in_b.ino),
        ] {
            scene.check(MASTER, &by, &format!("{who}: a client of {what}"), || {
                match scene.run(FileSystem::connect(config(root))) {
                    Err(ConnectError::RootDenied { .. }) => Ok(()),
                    other => Err(format!("{other:?}")),
                }
            });
        }
        let fs = scene.run(FileSystem::connect(config(scene.a))).unwrap();
        let caller = Caller { uid: OWNER, gid: OWNER, pid: 1 };
        let own = scene.run(fs.handle(&caller, Op::Lookup { parent: InodeId::ROOT, name: b"in-a" }));
        scene
            .holds(&format!("{who} finds his own file by the library"), matches!(own, Ok(OpReply::Entry(_))));
        for (what, op) in ops(scene.b, in_b.ino) {
            scene.check(MASTER, &by, &format!("{who}, library: {what}"), || {
                match scene.run(fs.handle(&caller, op.clone())) {
                    Err(errno) if errno == fs_client::Errno::EACCES => Ok(()),
                    other => Err(format!("{other:?}")),
                }
            });
        }
        // A file may seem to open before anybody is asked; it has no byte.
        for what in ["file", "directory"] {
            let leaked = scene.run(async {
                if what == "directory" {
                    let op = Op::OpenDir { ino: scene.b };
                    let OpReply::Opened { handle, .. } = fs.handle(&caller, op).await? else {
                        return Ok(None);
                    };
                    let op = Op::ReadDir { ino: scene.b, handle, offset: 0, limit: 100, attributes: true };
                    return fs.handle(&caller, op).await.map(Some);
                }
                let op = Op::Open { ino: in_b.ino, flags: 0 };
                let OpReply::Opened { handle, .. } = fs.handle(&caller, op).await? else { return Ok(None) };
                let op = Op::Read { ino: in_b.ino, handle, offset_bytes: 0, len_bytes: 10 };
                fs.handle(&caller, op).await.map(Some)
            });
            let leaked: Result<Option<OpReply>, fs_client::Errno> = leaked;
            if !matches!(leaked, Err(fs_client::Errno::EACCES)) {
                scene.note(format!("{who}, library: read the foreign {what}: {leaked:?}"));
            }
        }
        let ended = scene.run(fs.shutdown());
        scene.holds(&format!("{who}: nothing was to be sent"), ended.is_ok());
    }
    scene.b_is_untouched();
    scene.finish();
}

/// Operations of a mount on a foreign directory and a file in it.
fn ops(b: InodeId, in_b: InodeId) -> Vec<(&'static str, Op<'static>)> {
    let root = InodeId::ROOT;
    vec![
        ("look up", Op::Lookup { parent: b, name: b"in-b" }),
        ("attributes of the directory", Op::GetAttr { ino: b, handle: None }),
        ("attributes of the file", Op::GetAttr { ino: in_b, handle: None }),
        ("read a link", Op::ReadLink { ino: in_b }),
        ("make a directory", Op::Mkdir { parent: b, name: b"new", mode: 0o777 }),
        ("make a fifo", Op::Mknod { parent: b, name: b"new", mode: 0o010_666, rdev: 0 }),
        ("make a link", Op::Symlink { parent: b, name: b"new", target: b"x" }),
        ("create", Op::Create { parent: b, name: b"new", mode: 0o666, flags: libc::O_RDWR }),
        ("create over", Op::Create { parent: b, name: b"in-b", mode: 0o666, flags: libc::O_RDWR }),
        ("unlink", Op::Unlink { parent: b, name: b"in-b" }),
        ("remove a directory", Op::Rmdir { parent: b, name: b"sub" }),
        ("fetch", Op::Rename { parent: b, name: b"in-b", new_parent: root, new_name: b"stolen", flags: 0 }),
        ("put", Op::Rename { parent: root, name: b"in-a", new_parent: b, new_name: b"put", flags: 0 }),
        ("link into one's own", Op::Link { ino: in_b, new_parent: root, new_name: b"stolen" }),
        (
            "truncate",
            Op::SetAttr {
                ino: in_b,
                changes: fs_client::SetAttr { size_bytes: Some(0), ..fs_client::SetAttr::default() },
            },
        ),
        (
            "change the mode",
            Op::SetAttr {
                ino: in_b,
                changes: fs_client::SetAttr { mode: Some(0o777), ..fs_client::SetAttr::default() },
            },
        ),
        ("set an attribute", Op::SetXattr { ino: in_b, name: b"user.x", value: b"x", flags: 0 }),
        ("an attribute", Op::GetXattr { ino: in_b, name: b"user.x" }),
        ("list attributes", Op::ListXattr { ino: in_b }),
    ]
}
