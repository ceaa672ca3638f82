//! Actions in words, for the way to a broken invariant.

use std::fmt::Write as _;

use coord_types::{Epoch, Version};

use super::member::Input;
use super::setup::key;
use super::world::{Action, State, World};

impl World {
    /// The action in words.
    pub(crate) fn describe(&self, before: &State, action: Action) -> String {
        let draft = self.open(before);
        let mut text = String::new();
        let _ = match action {
            Action::Member(_, Input::Deliver(message)) => {
                write!(text, "{:?}", self.names.messages.get(message))
            }
            Action::Member(at, Input::Fail { call, given_up }) => {
                let call = self.names.calls.get(call);
                let how = if given_up { "gives up" } else { "finds broken" };
                write!(text, "{} {how} the call {:?} of {}", at + 1, call.about, call.to + 1)
            }
            Action::Member(at, Input::Job { at: job, refused }) => {
                let how = if refused { "refuses" } else { "does" };
                let job = &self.member(draft.members[at]).jobs[usize::from(job)];
                write!(text, "the disk of {} {how} {job:?}", at + 1)
            }
            Action::Member(at, Input::Task { at: task }) => {
                write!(
                    text,
                    "{} goes on with {:?}",
                    at + 1,
                    self.member(draft.members[at]).tasks[usize::from(task)]
                )
            }
            Action::Member(at, Input::Table { version, .. }) => {
                let table = draft.common.master.tables.iter().find(|table| table.version == version);
                let group = table.map(|table| (&table.group.epoch, &table.group.members));
                write!(text, "{} hears of table {version}: {group:?}", at + 1)
            }
            Action::Member(at, Input::Write(write)) => {
                write!(text, "a client sends write {write} to {}", at + 1)
            }
            Action::Member(at, Input::Crash { survivors }) => {
                let jobs = &self.member(draft.members[at]).jobs;
                write!(text, "{} crashes; of {jobs:?} there survive {survivors:#b}", at + 1)
            }
            Action::Member(at, input) => write!(text, "{}: {input:?}", at + 1),
            Action::Double(message) => write!(text, "doubled: {:?}", self.names.messages.get(message)),
            Action::Change(at) => write!(text, "the master: {:?}", self.setup.changes[at]),
            Action::BeginRead(at, key) => write!(text, "a read of chunk {key} begins at {}", at + 1),
            Action::Confirm { by, .. } => write!(text, "{} confirms the epoch for a read", by + 1),
            Action::EndRead(read) => write!(text, "read {read} ends"),
        };
        short(&text, self.setup.keys())
    }
}

/// Chunks and versions as people write them.
fn short(text: &str, keys: u32) -> String {
    let mut text = text.to_owned();
    for index in 0..keys {
        text = text.replace(&format!("{:?}", key(index)), &format!("chunk {index}"));
    }
    for epoch in 0..9 {
        for counter in 0..9 {
            let version = Version { epoch: Epoch(epoch), counter };
            text = text.replace(&format!("{version:?}"), &version.to_string());
        }
    }
    text
}
