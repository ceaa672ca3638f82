//! Which column of the document's tables an input to a member is.

use chunkserver_core::{Page, PeerError};
use coord_types::Version;

use super::disk::Job;
use super::member::{Input, Task};
use super::message::{About, Body, Message};
use super::table::Kind;
use super::world::World;

impl World {
    /// What is wrong with a step by the tables of the document.
    pub(crate) fn look_up(&mut self, before: u32, input: Input, after: u32) -> Option<String> {
        let state = self.facts(before).state.clone()?;
        let events = self.events(state.0, before, input);
        if events.is_empty() || self.setup.bug.is_some() {
            return None;
        }
        let after = self.facts(after).state.clone();
        self.tables.check(&state, &events, after.as_ref())
    }

    /// The columns of the table that an input may be.
    fn events(&self, kind: Kind, number: u32, input: Input) -> Vec<&'static str> {
        let member = self.member(number);
        let call = |call: u32, result: Option<&Result<Option<Page>, PeerError>>| {
            let restarts = ["step ok at all members", "a step fails"];
            match (&self.names.calls.get(call).about, result) {
                (About::Replicate(..), Some(Ok(_))) => vec!["replicate ok"],
                (About::Replicate(..), _) => vec!["replicate fails"],
                // An answer of another process than before is none.
                (About::Prepare { fill: false, .. }, Some(Ok(_))) => restarts.to_vec(),
                (About::Equalise(_) | About::Activate, Some(Ok(_))) => restarts[..1].to_vec(),
                (About::Prepare { fill: false, .. } | About::Equalise(_) | About::Activate, _) => {
                    restarts[1..].to_vec()
                }
                (About::Prepare { .. } | About::Fill(..) | About::Forward(..), _) => Vec::new(),
            }
        };
        match (kind, input) {
            (Kind::Primary, Input::Write(_)) => vec!["client write"],
            (_, Input::Job { at, refused }) => match &member.jobs[usize::from(at)] {
                Job::Apply { key, previous, .. } => {
                    let version = member.disk.chunks.get(key).map_or(Version::NONE, |rec| rec.version);
                    let failed = refused || version != *previous;
                    vec![if failed { "local write failed" } else { "local write done" }]
                }
                Job::Promise(_) if kind == Kind::Primary => vec!["promise durable"],
                Job::Promise(_) | Job::Install { .. } | Job::Unsynced { .. } => Vec::new(),
            },
            (Kind::Primary, Input::Task { at }) => match member.tasks[usize::from(at)] {
                Task::Retry(_) => vec!["retry timer"],
                Task::RetryFill(..) | Task::Fill(..) => Vec::new(),
            },
            (Kind::Primary, Input::Fail { call: number, .. }) => call(number, None),
            // Whether it has news of a member or not.
            (Kind::Primary, Input::Table { view, .. })
                if self.view(view).epoch == self.facts(number).epoch =>
            {
                vec!["member restarted"]
            }
            (Kind::Primary, Input::Deliver(message)) => match self.names.messages.get(message) {
                Message { call: Some(number), body: Body::Answer(result), .. } => call(*number, Some(result)),
                _ => Vec::new(),
            },
            (Kind::Secondary, Input::Deliver(message)) => {
                let (body, promised) = (&self.names.messages.get(message).body, self.facts(number).promised);
                match body {
                    Body::Prepare { at, fill: false, .. } if *at > promised => {
                        vec!["Prepare (epoch, act) newer than promised"]
                    }
                    Body::Prepare { at, fill: false, .. } if *at == promised => {
                        vec!["Prepare of the promised act"]
                    }
                    Body::Install { at, .. } if *at == promised => vec!["Install of the promised act"],
                    Body::Activate { at } if *at == promised => vec!["Activate of the promised act"],
                    Body::Replicate { at, .. } if *at == promised => vec!["Replicate of the promised act"],
                    _ => Vec::new(),
                }
            }
            _ => Vec::new(),
        }
    }
}
