//! Every operation beside the rights it needs, and the paths it needs them on.

use nuwa_api::ops::{self, make_directory, put, rename};
use nuwa_api::proto::{Delete, Lock, Put, compare};

use super::*;

fn txn(operation: impl Into<Operation>) -> CommandKind {
    CommandKind::Txn(proto::Txn { then: vec![operation.into()], ..proto::Txn::default() })
}

fn told<'a>(needs: impl IntoIterator<Item = Need<'a>>) -> String {
    let needs = needs.into_iter().map(|need| format!("{} on {}", need.rights, need.path));
    needs.collect::<Vec<_>>().join("; ")
}

/// Every command and operation, with all that changes what it needs.
#[test]
fn what_a_change_needs() {
    let lock = Lock { path: "/a".to_owned(), session: 1, ..Lock::default() };
    let value = Some(bytes::Bytes::new());
    let delete = Delete { subtree: true, ..ops::delete("/a/") };
    let parents = |path: &str| Put { with_parents: true, owned: true, ..put(path, "") };
    let sequential = |path: &str| Put { sequential: true, ..put(path, "") };
    let quota = proto::SetQuota { path: "/a/".to_owned(), ..proto::SetQuota::default() };
    let unlock = proto::Unlock { path: "/a".to_owned(), ..proto::Unlock::default() };
    let compare =
        |path: &str| Compare { path: path.to_owned(), relation: 0, with: Some(compare::With::Exists(true)) };
    let all = CommandKind::Txn(proto::Txn {
        session: 7,
        compares: vec![compare("/c"), compare("/d/")],
        then: vec![put("/t", "").into(), ops::get("/g").into()],
        otherwise: vec![ops::delete("/o").into(), rename("/m/", "/n/").into()],
    });
    for (command, needs) in [
        (txn(put("/a/b", "")), "write on /a/b"),
        (txn(parents("/a/b")), "write on /a/b"),
        (txn(sequential("/a/b")), "write on /a/"),
        (txn(sequential("/b")), "write on /"),
        (txn(sequential("b")), "write on b"),
        (txn(make_directory("/a/")), "write on /a/"),
        (txn(ops::delete("/a")), "write on /a"),
        (txn(delete), "write on /a/"),
        (txn(rename("/a", "/b")), "read, write on /a; write on /b"),
        (txn(ops::get("/a")), "read on /a"),
        (txn(Operation { what: None }), ""),
        (CommandKind::Txn(proto::Txn::default()), ""),
        (
            all,
            "read on /c; read on /d/; write on /t; read on /g; write on /o; read, write on /m/; write on /n/",
        ),
        (CommandKind::OpenSession(proto::OpenSession::default()), ""),
        (CommandKind::EndSession(proto::EndSession { session: 1 }), ""),
        (CommandKind::Lock(lock.clone()), "lock on /a"),
        (CommandKind::Lock(Lock { shared: true, wait: true, ..lock.clone() }), "lock on /a"),
        (CommandKind::Lock(Lock { with_file: true, ..lock.clone() }), "write, lock on /a"),
        (CommandKind::Lock(Lock { value, ..lock }), "write, lock on /a"),
        (CommandKind::Unlock(unlock), "lock on /a"),
        (CommandKind::SetQuota(quota), "administer on /a/"),
        (CommandKind::SetHistory(proto::SetHistory::default()), "administer on /"),
        (CommandKind::Restore(proto::Restore::default()), "write, administer on /"),
    ] {
        assert_eq!(told(change(&command)), needs, "{command:?}");
    }
}

#[test]
fn what_a_question_needs() {
    let path = || "/a/".to_owned();
    for (question, needs) in [
        (Question::Get(proto::Get { path: path() }), "read on /a/"),
        (Question::List(proto::List { path: path(), ..proto::List::default() }), "read on /a/"),
        (Question::Lock(proto::GetLock { path: path() }), "read on /a/"),
        (Question::Quota(proto::GetQuota { path: path() }), "read on /a/"),
        (Question::Session(proto::GetSession { session: 1 }), ""),
        (Question::Summary(proto::GetSummary {}), ""),
    ] {
        assert_eq!(told(read(&question)), needs, "{question:?}");
    }
    let request = proto::WatchRequest { path: path(), ..proto::WatchRequest::default() };
    assert_eq!(told([watch(&request)]), "read on /a/");
    assert_eq!(told([export()]), "read on /");
}

#[test]
fn which_sessions_a_change_names() {
    let stamp = |session| proto::Stamp { session, ..proto::Stamp::default() };
    let of =
        |stamp: Option<proto::Stamp>, what: &CommandKind| sessions(stamp.as_ref(), what).collect::<Vec<_>>();
    let txn = |session| CommandKind::Txn(proto::Txn { session, ..proto::Txn::default() });
    assert_eq!(of(None, &txn(0)), [0; 0]);
    assert_eq!(of(Some(stamp(1)), &txn(0)), [1]);
    assert_eq!(of(Some(stamp(1)), &txn(1)), [1], "asked about once");
    assert_eq!(of(Some(stamp(1)), &txn(2)), [1, 2]);
    for command in [
        CommandKind::EndSession(proto::EndSession { session: 2 }),
        CommandKind::Lock(Lock { session: 2, ..Lock::default() }),
        CommandKind::Unlock(proto::Unlock { session: 2, ..proto::Unlock::default() }),
    ] {
        assert_eq!(of(Some(stamp(1)), &command), [1, 2]);
        assert_eq!(of(None, &command), [2]);
    }
    for command in [
        CommandKind::OpenSession(proto::OpenSession::default()),
        CommandKind::SetQuota(proto::SetQuota::default()),
        CommandKind::SetHistory(proto::SetHistory::default()),
        CommandKind::Restore(proto::Restore::default()),
    ] {
        assert_eq!(of(Some(stamp(1)), &command), [1]);
    }
}
