//! A tree, and short words for what is done to it.

use bytes::Bytes;
use coord_kv::{Durability, Kv, MemKv};
use nuwa_core::{SessionEffect, apply, check, query};
use nuwa_model::Path;
use nuwa_model::proto::{
    Command, Compare, Delete, EndSession, Entry, Event, Existence, Lock, LockReply, MakeDirectory,
    OpenSession, Operation, Put, RefusalCode, Rename, Reply, Txn, TxnReply, Unlock, command, operation,
    reply,
};
use prost::Message;

/// No reply is larger, whatever it answers: Kuafu's messages have at most 4 MiB.
const REPLY_MAX_BYTES: usize = (2 << 20) + 1024;

pub(crate) struct World {
    pub(crate) kv: MemKv,
    now_nanos: u64,
    /// Of the last command.
    pub(crate) events: Vec<Event>,
    pub(crate) effect: SessionEffect,
}

pub(crate) fn path(path: &str) -> Path {
    Path::new(path).unwrap()
}

pub(crate) fn put(path: &str, value: &'static str) -> Put {
    Put { path: path.to_owned(), value: Bytes::from_static(value.as_bytes()), ..Put::default() }
}

pub(crate) fn new(put: Put) -> Put {
    Put { existence: Existence::MustNotExist.into(), ..put }
}

pub(crate) fn owned(put: Put) -> Put {
    Put { owned: true, ..put }
}

pub(crate) fn directory(path: &str) -> MakeDirectory {
    MakeDirectory { path: path.to_owned(), ..MakeDirectory::default() }
}

pub(crate) fn delete(path: &str) -> Delete {
    Delete { path: path.to_owned(), ..Delete::default() }
}

pub(crate) fn subtree(path: &str) -> Delete {
    Delete { subtree: true, ..delete(path) }
}

pub(crate) fn rename(from: &str, to: &str) -> Rename {
    Rename { from: from.to_owned(), to: to.to_owned(), no_replace: false }
}

pub(crate) fn exclusive(session: u64, path: &str) -> Lock {
    Lock { session, path: path.to_owned(), wait: true, ..Lock::default() }
}

pub(crate) fn shared(session: u64, path: &str) -> Lock {
    Lock { shared: true, ..exclusive(session, path) }
}

pub(crate) fn compare(path: &str, with: nuwa_model::proto::compare::With) -> Compare {
    Compare { path: path.to_owned(), with: Some(with), ..Compare::default() }
}

/// What can be an operation.
pub(crate) trait Does {
    fn operation(self) -> Operation;
}

macro_rules! does {
    ($($type:ident)*) => {
        $(impl Does for nuwa_model::proto::$type {
            fn operation(self) -> Operation {
                Operation { what: Some(operation::What::$type(self)) }
            }
        })*
    };
}

does!(Put MakeDirectory Delete Rename Get);

impl World {
    pub(crate) fn new() -> Self {
        Self { kv: MemKv::new(), now_nanos: 1_000, events: Vec::new(), effect: SessionEffect::None }
    }

    pub(crate) fn run(&mut self, what: command::What) -> Reply {
        let reply = self.run_unchecked(what);
        assert_eq!(check::check(&self.kv).unwrap(), Vec::<String>::new());
        reply
    }

    /// For trees that are too large to look at the whole of them after each command.
    pub(crate) fn run_unchecked(&mut self, what: command::What) -> Reply {
        self.now_nanos += 1;
        let command = Command { what: Some(what) }.encode_to_vec();
        let applied = apply(&self.kv, self.now_nanos, &command).unwrap();
        self.kv.write(applied.batch, Durability::Synced).unwrap();
        (self.events, self.effect) = (applied.events, applied.session);
        assert!(applied.reply.len() <= REPLY_MAX_BYTES, "a reply of {} bytes", applied.reply.len());
        Reply::decode(applied.reply).unwrap()
    }

    /// Files of these names, made without looking at the tree.
    pub(crate) fn fill(&mut self, session: u64, files: impl IntoIterator<Item = Put>) {
        let mut files = files.into_iter().map(Does::operation).peekable();
        while files.peek().is_some() {
            let then: Vec<_> = files.by_ref().take(4096).collect();
            let reply = self.run_unchecked(command::What::Txn(Txn { session, then, ..Txn::default() }));
            assert!(matches!(reply.what, Some(reply::What::Txn(_))), "{:?}", reply.what);
        }
    }

    /// The reply, or why it was refused.
    pub(crate) fn ask(&mut self, what: command::What) -> Result<Option<reply::What>, RefusalCode> {
        let before = self.revision();
        let reply = self.run(what);
        assert_eq!(reply.revision, self.revision());
        assert_eq!(
            reply.revision,
            before + u64::from(!self.events.is_empty()),
            "one each, if it changed anything"
        );
        match reply.what {
            Some(reply::What::Refused(refused)) => {
                assert!(!refused.message.is_empty());
                assert_eq!(self.events, [], "what is refused changes nothing");
                Err(refused.code())
            }
            other => Ok(other),
        }
    }

    pub(crate) fn txn(&mut self, txn: Txn) -> Result<TxnReply, RefusalCode> {
        match self.ask(command::What::Txn(txn))? {
            Some(reply::What::Txn(reply)) => Ok(reply),
            other => panic!("{other:?}"),
        }
    }

    /// One operation of nobody.
    pub(crate) fn op(&mut self, operation: impl Does) -> Result<(), RefusalCode> {
        self.op_of(0, operation)
    }

    pub(crate) fn op_of(&mut self, session: u64, operation: impl Does) -> Result<(), RefusalCode> {
        self.txn(Txn { session, then: vec![operation.operation()], ..Txn::default() }).map(drop)
    }

    pub(crate) fn session(&mut self) -> u64 {
        let request = OpenSession { ttl_ms: 1000, description: "test".to_owned(), owner: "alice".to_owned() };
        match self.ask(command::What::OpenSession(request)) {
            Ok(Some(reply::What::Session(session))) => session,
            other => panic!("{other:?}"),
        }
    }

    /// Whether it owns more.
    pub(crate) fn end(&mut self, session: u64) -> bool {
        match self.ask(command::What::EndSession(EndSession { session })) {
            Ok(Some(reply::What::More(more))) => more,
            other => panic!("{other:?}"),
        }
    }

    pub(crate) fn lock(&mut self, lock: Lock) -> Result<LockReply, RefusalCode> {
        match self.ask(command::What::Lock(lock))? {
            Some(reply::What::Lock(reply)) => Ok(reply),
            other => panic!("{other:?}"),
        }
    }

    pub(crate) fn unlock(&mut self, session: u64, path: &str) -> Result<(), RefusalCode> {
        let path = path.to_owned();
        self.ask(command::What::Unlock(Unlock { session, path, owner: 0 })).map(drop)
    }

    pub(crate) fn get(&self, at: &str) -> Option<Entry> {
        query::get(&self.kv, &path(at)).unwrap()
    }

    pub(crate) fn value(&self, at: &str) -> Option<String> {
        self.get(at).map(|entry| String::from_utf8(entry.value.to_vec()).unwrap())
    }

    pub(crate) fn list(&self, at: &str) -> Vec<String> {
        let entries = query::list(&self.kv, &path(at), None, 100).unwrap();
        entries.into_iter().map(|entry| entry.path).collect()
    }

    pub(crate) fn revision(&self) -> u64 {
        query::meta(&self.kv).unwrap().revision
    }

    /// The sessions that hold the lock, and how many wait.
    pub(crate) fn holders(&self, at: &str) -> (Vec<u64>, usize) {
        let (holders, waiting) = query::lock(&self.kv, &path(at)).unwrap();
        (holders.into_iter().map(|holder| holder.session).collect(), waiting)
    }

    /// Kind and path of what the last command told.
    pub(crate) fn told(&self) -> Vec<(nuwa_model::proto::EventKind, String)> {
        let told = self.events.iter();
        told.map(|event| (event.kind(), event.entry.clone().unwrap().path)).collect()
    }
}
