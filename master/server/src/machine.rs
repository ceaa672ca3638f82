//! The pure core as a replicated state machine.

use std::sync::Arc;

use bytes::Bytes;
use coord_kv::FamilySpec;
use coord_raft::{ApplyContext, StateMachine, Transaction};
use master_core::{Context, SessionEffect};

use crate::hub::Hub;

/// Applies commands of the log with `master_core`, and tells of what they changed in directories.
#[derive(Debug)]
pub(crate) struct Machine {
    pub(crate) hub: Arc<Hub>,
}

impl StateMachine for Machine {
    fn families(&self) -> &'static [FamilySpec] {
        master_core::families()
    }

    fn apply(&self, tx: &mut Transaction<'_>, context: ApplyContext, command: &[u8]) -> Bytes {
        let index = context.index;
        let context = Context { time_nanos: context.time_nanos };
        let applied = match master_core::apply(&*tx, context, command) {
            Ok(applied) => applied,
            Err(error) => {
                // Skipping the command would make this replica differ from the others for good. What is on disk is a
                // prefix of the log; a restart, or the offline checks, go on from there.
                tracing::error!(%error, index, "cannot read the state: stopping");
                std::process::abort();
            }
        };
        tx.apply(applied.batch);
        match applied.session {
            SessionEffect::None => {}
            SessionEffect::Opened(session) => tx.register_session(session),
            SessionEffect::Ended(session) => tx.forget_session(session),
        }
        self.hub.applied(index, &applied.changes);
        applied.reply
    }

    fn written(&self) {
        self.hub.publish();
    }

    fn restored(&self) {
        self.hub.forget();
    }
}
