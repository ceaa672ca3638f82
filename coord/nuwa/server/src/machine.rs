//! The pure core as a replicated state machine.

use std::sync::Arc;

use bytes::Bytes;
use coord_kv::FamilySpec;
use coord_raft::{ApplyContext, StateMachine, Transaction};
use coord_types::SessionId;
use nuwa_core::SessionEffect;

use crate::hub::Hub;
use crate::leases::Leases;

/// Applies commands of the log with `nuwa_core`, and tells of what they did.
#[derive(Debug)]
pub(crate) struct Machine {
    pub(crate) hub: Arc<Hub>,
    pub(crate) leases: Arc<Leases>,
}

impl StateMachine for Machine {
    fn families(&self) -> &'static [FamilySpec] {
        nuwa_core::families()
    }

    fn apply(&self, tx: &mut Transaction<'_>, context: ApplyContext, command: &[u8]) -> Bytes {
        let applied = match nuwa_core::apply(&*tx, context.time_nanos, command) {
            Ok(applied) => applied,
            Err(error) => {
                // Skipping the command would make this member differ from the others for good. What is on disk is a
                // prefix of the log; a restart goes on from there.
                tracing::error!(%error, index = ?context, "cannot read the state: stopping");
                std::process::abort();
            }
        };
        tx.apply(applied.batch);
        match applied.session {
            SessionEffect::None => {}
            SessionEffect::Opened { session, ttl_ms } => {
                tx.register_session(SessionId(session));
                self.leases.opened(session, ttl_ms);
            }
            SessionEffect::Ending(session) => {
                tx.forget_session(SessionId(session));
                self.leases.over(session);
            }
            SessionEffect::Ended(session) => {
                tx.forget_session(SessionId(session));
                self.leases.ended(session);
            }
        }
        if let Some(revision) = applied.restored {
            self.hub.replaced(revision);
        }
        self.hub.applied(applied.events);
        applied.reply
    }

    fn written(&self) {
        self.hub.publish();
    }

    fn restored(&self) {
        self.hub.forget();
    }
}
