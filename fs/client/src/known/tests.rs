//! The table by itself, with a clock of its own.

use coord_types::{DataId, InodeId};
use master_api::model::attr::mode;
use master_api::model::{Create, Mkdir, Rename, RenameFlags, Time, Unlink};

use super::*;

const LASTING: Duration = Duration::from_millis(100);
const DIR: InodeId = InodeId(5);

/// A directory's attributes.
pub(crate) fn attr(ino: u64, change: u64) -> Attr {
    let time = Time::default();
    Attr {
        ino: InodeId(ino),
        mode: mode::DIRECTORY | 0o755,
        nlink: 2,
        uid: 0,
        gid: 0,
        rdev: 0,
        size_bytes: 0,
        allocated_bytes: 0,
        atime: time,
        mtime: time,
        ctime: time,
        data: DataId(0),
        layout: None,
        garbage_end_bytes: 0,
        change,
        has_xattrs: false,
        fence: coord_types::Fence::NONE,
    }
}

fn name(text: &str) -> Name {
    Name::try_from(text.as_bytes()).unwrap()
}

fn create(text: &str) -> Mutation {
    Mutation::Create(Create { parent: DIR, name: name(text), mode: 0, uid: 0, gid: 0, exclusive: true })
}

fn unlink(text: &str) -> Mutation {
    Mutation::Unlink(Unlink { parent: DIR, name: name(text), hold: None })
}

fn mkdir(parent: InodeId, text: &str) -> Mutation {
    Mutation::Mkdir(Mkdir { parent, name: name(text), mode: 0, uid: 0, gid: 0 })
}

fn parent(change: u64) -> Mutated {
    Mutated { parent: Some(attr(DIR.0, change)), ..Mutated::default() }
}

/// The table and a clock.
struct Table {
    known: Known,
    now: Instant,
}

impl Table {
    /// Knows an empty directory at change 10.
    fn new() -> Self {
        let known = Known::new(LASTING);
        let now = Instant::now();
        let op = mkdir(InodeId::ROOT, "d");
        let made = Mutated { attr: Some(attr(DIR.0, 10)), parent: Some(attr(1, 3)), ..Mutated::default() };
        known.before(&op);
        known.after(&op, &made, now);
        Self { known, now }
    }

    fn answered(&self, mutation: &Mutation, mutated: &Mutated) {
        self.known.after(mutation, mutated, self.now);
    }

    fn done(&self, mutation: &Mutation, change: u64) {
        self.known.before(mutation);
        self.answered(mutation, &parent(change));
    }

    fn absence(&self, text: &str) -> Absence {
        self.known.absence(DIR, &name(text), self.now)
    }

    fn attr(&self, ino: InodeId) -> Option<Attr> {
        self.known.attr(ino, self.now).map(|(attr, _)| attr)
    }
}

#[test]
fn a_directory_made_here_has_the_names_made_here() {
    let table = Table::new();
    assert_eq!(table.absence("a"), Absence::Certain);
    assert_eq!(table.known.absence(InodeId::ROOT, &name("a"), table.now), Absence::Unknown);
    table.known.before(&create("a"));
    assert_eq!(table.absence("a"), Absence::Unknown, "on its way");
    table.answered(&create("a"), &parent(11));
    assert_eq!(table.absence("a"), Absence::Unknown);
    assert_eq!(table.absence("b"), Absence::Certain);
    table.done(&unlink("a"), 12);
    assert_eq!(table.absence("a"), Absence::Certain);
}

#[test]
fn our_own_changes_keep_it_fresh_and_time_wears_it_out() {
    let mut table = Table::new();
    for change in 11..20 {
        table.now += LASTING / 2;
        table.done(&create("a"), change);
        assert_eq!(table.absence("b"), Absence::Certain);
    }
    table.now += LASTING;
    assert_eq!(table.absence("b"), Absence::IfStillAt(19));
    assert_eq!(table.attr(DIR), None);
    table.known.told(&attr(DIR.0, 19), table.now);
    assert_eq!(table.absence("b"), Absence::Certain);
    assert!(table.attr(DIR).is_some());
}

#[test]
fn a_change_by_another_ends_belief() {
    let mut table = Table::new();
    table.now += LASTING / 2;
    table.done(&create("a"), 12);
    table.now += LASTING / 2;
    assert_eq!(table.absence("b"), Absence::IfStillAt(10), "that 12 is ours does not make 11 ours");
    table.known.told(&attr(DIR.0, 12), table.now);
    assert_eq!(table.absence("b"), Absence::IfStillAt(10));
    table.known.forget_names(DIR);
    assert_eq!(table.absence("b"), Absence::Unknown);
}

#[test]
fn answers_may_overtake_one_another() {
    let mut table = Table::new();
    for text in ["a", "b", "c"] {
        table.known.before(&create(text));
    }
    table.now += LASTING;
    table.answered(&create("c"), &parent(13));
    table.answered(&create("b"), &parent(12));
    assert_eq!(table.absence("x"), Absence::IfStillAt(10));
    table.answered(&create("a"), &parent(11));
    assert_eq!(table.absence("x"), Absence::Certain);
    for text in ["a", "b", "c"] {
        assert_eq!(table.absence(text), Absence::Unknown);
    }
}

#[test]
fn a_late_answer_to_an_unlink_takes_nothing_out() {
    let table = Table::new();
    table.done(&create("a"), 11);
    table.known.before(&unlink("a"));
    table.known.before(&create("a"));
    table.answered(&create("a"), &parent(13));
    table.answered(&unlink("a"), &parent(12));
    assert_eq!(table.absence("a"), Absence::Unknown);
}

#[test]
fn a_rename_moves_a_name_and_tells_nothing_of_what_moved() {
    let table = Table::new();
    let sub = mkdir(DIR, "sub");
    table.known.before(&sub);
    table.answered(&sub, &Mutated { attr: Some(attr(6, 1)), ..parent(11) });
    assert!(table.attr(InodeId(6)).is_some());
    let rename = Mutation::Rename(Rename {
        parent: DIR,
        name: name("sub"),
        new_parent: DIR,
        new_name: name("b"),
        flags: RenameFlags::Replace,
        hold: None,
    });
    table.done(&rename, 12);
    assert_eq!(table.absence("sub"), Absence::Certain);
    assert_eq!(table.absence("b"), Absence::Unknown);
    assert_eq!(table.attr(InodeId(6)), None);
    assert_eq!(table.attr(DIR).unwrap().change, 12);
}

#[test]
fn an_exchange_leaves_both_names() {
    let table = Table::new();
    table.done(&create("a"), 11);
    table.done(&create("b"), 12);
    let exchange = Mutation::Rename(Rename {
        parent: DIR,
        name: name("a"),
        new_parent: DIR,
        new_name: name("b"),
        flags: RenameFlags::Exchange,
        hold: None,
    });
    table.done(&exchange, 13);
    assert_eq!([table.absence("a"), table.absence("b")], [Absence::Unknown; 2]);
    assert_eq!(table.absence("c"), Absence::Certain);
}

#[test]
fn older_attributes_do_not_replace_newer() {
    let table = Table::new();
    table.done(&create("a"), 11);
    table.known.told(&attr(DIR.0, 10), table.now);
    assert_eq!(table.attr(DIR).unwrap().change, 11);
}

#[test]
fn a_directory_removed_is_not_known() {
    let table = Table::new();
    let rmdir = Mutation::Rmdir(master_api::model::Rmdir { parent: InodeId::ROOT, name: name("d") });
    let gone = Attr { nlink: 0, ..attr(DIR.0, 11) };
    let mutated = Mutated { attr: Some(gone), parent: Some(attr(1, 4)), ..Mutated::default() };
    table.answered(&rmdir, &mutated);
    assert_eq!(table.attr(DIR), None);
    assert_eq!(table.absence("a"), Absence::Unknown);
}

#[test]
fn too_many_missing_answers_end_it() {
    let table = Table::new();
    for change in 0..=AHEAD_MAX as u64 {
        assert_ne!(table.absence("x"), Absence::Unknown);
        table.done(&create("a"), 12 + change);
    }
    assert_eq!(table.absence("x"), Absence::Unknown);
}

#[test]
fn the_least_used_directory_makes_room() {
    let table = Table::new();
    for ino in 0..DIRECTORIES_MAX as u64 {
        assert_eq!(table.absence("x"), Absence::Certain, "in use all the time");
        table.done(&create(&ino.to_string()), 11 + ino);
        table.answered(
            &mkdir(InodeId::ROOT, "e"),
            &Mutated { attr: Some(attr(1000 + ino, 1)), ..Mutated::default() },
        );
    }
    let inner = table.known.inner.lock();
    assert_eq!(inner.directories.len(), DIRECTORIES_MAX);
    assert!(!inner.directories.contains_key(&InodeId(1000)));
    assert_eq!(inner.names, DIRECTORIES_MAX);
}
