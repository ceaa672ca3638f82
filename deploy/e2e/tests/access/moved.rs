//! What leaves a directory is closed for those who may see that directory only: by rename, by losing its name there, and although they have a token.

use std::fs;

use coord_types::InodeId;
use kuafu::{Bytes, Status};
use master_api::Errno;
use master_api::model::{Mutation, Query, Unlink};
use master_api::proto;

use crate::chunks::{Ask, show, wanted};
use crate::directory::{changes, name, queries};
use crate::people::{MOUNT, OWN, Person, Wanted, on};
use crate::scene::{Known, MASTER, OWNER, Scene, write};
use crate::wire::{Given, Namespace};

/// Nothing of a file and its directory is shown or changed.
fn is_closed(scene: &Scene, person: &Person, own: &Namespace, directory: InodeId, file: &Known, why: &str) {
    for (what, query) in queries(directory, file.ino, "x") {
        scene.refused(MASTER, &person.by(), &format!("{why}: {what}"), own.query(query));
    }
    for (what, mutation) in changes(directory, file, "x") {
        scene.refused(MASTER, &person.by(), &format!("{why}: {what}"), own.mutate(mutation));
    }
    for write in [false, true] {
        let call = own.token(wanted(file, write));
        scene.refused(MASTER, &person.by(), &format!("{why}: a token"), call);
    }
}

#[test]
fn what_is_moved_out_of_a_directory_is_closed_at_once() {
    let scene = Scene::new();
    let keys = scene.cluster.keys();
    let people = [
        ("a mount", Person::granted(&keys, &Wanted::new("alice", 1000, on(MOUNT, scene.a)))),
        ("a user", Person::granted(&keys, &Wanted::new("bob", OWNER, on(OWN, scene.a)))),
    ];
    let (a, b) = (scene.root.join("a"), scene.root.join("b"));
    for path in ["a/moved", "a/both", "b/lent"] {
        write(&scene.root.join(path), 31);
    }
    fs::create_dir_all(a.join("dir/below")).unwrap();
    write(&a.join("dir/below/inside"), 32);
    // Two names: in a and in b.
    fs::hard_link(a.join("both"), b.join("both")).unwrap();
    fs::hard_link(b.join("lent"), a.join("lent")).unwrap();
    let [moved, inside, both, lent] =
        ["a/moved", "a/dir/below/inside", "a/both", "b/lent"].map(|path| scene.known(path));
    let below = InodeId(std::os::unix::fs::MetadataExt::ino(&fs::metadata(a.join("dir/below")).unwrap()));
    let spaces: Vec<_> = people.iter().map(|(_, person)| scene.namespace(person)).collect();
    for ((who, _), own) in people.iter().zip(&spaces) {
        for (what, file) in [
            ("a file", &moved),
            ("a file below", &inside),
            ("one of two names", &both),
            ("a lent one", &lent),
        ] {
            let given = scene.run(own.token(wanted(file, true)));
            let given = given.is_ok_and(|given| given.errno == 0);
            scene.holds(&format!("{who} has a token for {what} that is in a"), given);
        }
    }

    fs::rename(a.join("moved"), b.join("moved")).unwrap();
    fs::rename(a.join("dir"), b.join("dir")).unwrap();
    // The one that a's name was made first of, and the one that b's name was.
    fs::remove_file(a.join("both")).unwrap();
    fs::remove_file(a.join("lent")).unwrap();

    for ((who, person), own) in people.iter().zip(&spaces) {
        let closed = |what: &str, directory, file| {
            is_closed(&scene, person, own, directory, file, &format!("{who}, {what}"));
        };
        closed("a file that was moved away", scene.b, &moved);
        closed("a file below a directory that was moved away", below, &inside);
        closed("a file that lost its name in a", scene.b, &both);
        closed("a file that was lent to a", scene.b, &lent);
    }
    scene.finish();
}

#[test]
fn a_token_for_what_was_moved_away_is_not_renewed() {
    let scene = Scene::new();
    let keys = scene.cluster.keys();
    let people = [
        ("a mount", Person::granted(&keys, &Wanted::new("alice", 1000, on(MOUNT, scene.a)))),
        ("a user", Person::granted(&keys, &Wanted::new("bob", OWNER, on(OWN, scene.a)))),
    ];
    write(&scene.root.join("a/moved"), 41);
    let (moved, in_a) = (scene.known("a/moved"), scene.known("a/in-a"));
    let had: Vec<(Namespace, Given)> = people
        .iter()
        .map(|(_, person)| {
            let own = scene.namespace(person);
            let given = scene.run(own.token(wanted(&moved, true))).unwrap();
            assert_eq!(given.errno, 0);
            (own, given)
        })
        .collect();
    // While it is there it is renewed.
    for ((who, _), (own, given)) in people.iter().zip(&had) {
        let renewed = proto::TokenWanted { renewed: given.token.clone(), ..wanted(&moved, true) };
        let again = scene.run(own.token(renewed)).unwrap();
        scene.holds(&format!("{who} renews a token"), again.errno == 0);
    }
    fs::rename(scene.root.join("a/moved"), scene.root.join("b/moved")).unwrap();
    for ((who, person), (own, given)) in people.iter().zip(&had) {
        for write in [false, true] {
            let renewed = proto::TokenWanted { renewed: given.token.clone(), ..wanted(&moved, write) };
            let what = format!("{who} renews a token for a file that was moved away");
            scene.refused(MASTER, &person.by(), &what, own.token(renewed.clone()));
            // Under the number of a file that is still there.
            for (what, ino) in [("a file that is in a", in_a.ino), ("a itself", scene.a)] {
                let renewed = proto::TokenWanted { ino: ino.0, ..renewed.clone() };
                let answer = scene.run(own.token(renewed));
                if !is_refused(&answer) {
                    let what = format!("{who} renews it (write: {write}) in the name of {what}");
                    scene.note(format!("{what}: {answer:?}"));
                    opens(&scene, who, person, &answer.unwrap(), &moved);
                }
            }
        }
    }
    // Of what another session of the same user was given.
    let (_, bob) = &people[1];
    let other = scene.namespace(bob);
    let renewed =
        proto::TokenWanted { ino: in_a.ino.0, renewed: had[1].1.token.clone(), ..wanted(&moved, false) };
    let answer = scene.run(other.token(renewed));
    scene.holds(&format!("no other session renews it: {answer:?}"), is_refused(&answer));
    scene.finish();
}

fn is_refused(answer: &Result<Given, Status>) -> bool {
    match answer {
        Ok(given) => given.errno != 0 && given.token.is_empty(),
        Err(status) => status.code == kuafu::Code::PermissionDenied,
    }
}

/// Whether a token that should not be there opens what it says: for the record.
fn opens(scene: &Scene, who: &str, person: &Person, given: &Given, file: &Known) {
    for role in scene.chunkservers() {
        let wire = scene.wire(&person.access, role);
        drop(scene.run(show(&wire, std::slice::from_ref(&given.token), &given.signer)));
        let read = scene.run(Ask::Read.of(&wire, file.chunk, file.epoch));
        eprintln!("   {who} reads with it at {role}: {read:?}");
    }
}

/// A file that was unlinked is its holders' only; it opens no way back.
#[test]
fn a_file_that_was_unlinked_is_nobodys_but_its_holders() {
    let scene = Scene::new();
    let keys = scene.cluster.keys();
    let alice = Person::granted(&keys, &Wanted::new("alice", 1000, on(MOUNT, scene.a)));
    let bob = Person::granted(&keys, &Wanted::new("bob", OWNER, on(OWN, scene.a)));
    for path in ["a/hers", "b/held"] {
        write(&scene.root.join(path), 51);
    }
    let (hers, held) = (scene.known("a/hers"), scene.known("b/held"));
    let (her, his) = (scene.namespace(&alice), scene.namespace(&bob));
    let unlink = |file: &Known, at: &str| {
        Mutation::Unlink(Unlink { parent: scene.a, name: name(at), hold: Some(file.ino) })
    };
    assert_eq!(scene.run(her.mutate(unlink(&hers, "hers"))).unwrap().errno, 0);
    let attr = scene.run(her.query(Query::GetAttr(hers.ino))).unwrap();
    scene.holds("who holds an unlinked file sees it", attr.errno == 0);
    // Of the administrator's session, by his mount.
    let open = fs::File::open(scene.root.join("b/held")).unwrap();
    fs::remove_file(scene.root.join("b/held")).unwrap();
    for (what, file) in [("alice's", &hers), ("the administrator's", &held)] {
        for (asked, query) in queries(file.ino, file.ino, "x") {
            let answer = scene.run(his.query(query));
            let shown = answer.as_ref().is_ok_and(|answer| answer.errno == 0);
            scene.holds(&format!("{what} unlinked file shows nothing to bob: {asked}: {answer:?}"), !shown);
        }
        let answer =
            scene.run(his.token(proto::TokenWanted { renewed: Bytes::new(), ..wanted(file, false) }));
        scene.holds(&format!("{what} unlinked file has no token for bob: {answer:?}"), is_refused(&answer));
    }
    // To hold what is another's: by the name of a file of one's own.
    write(&scene.root.join("a/bobs"), 52);
    let answer = scene.run(his.mutate(unlink(&held, "bobs")));
    scene.holds(&format!("bob unlinks his own: {answer:?}"), answer.is_ok());
    let answer = scene.run(his.query(Query::GetAttr(held.ino)));
    let refused = answer.as_ref().map_or(true, |answer| answer.errno == Errno::ENOENT.wire());
    scene.holds(&format!("nothing is held by another's number: {answer:?}"), refused);
    drop(open);
    scene.finish();
}
