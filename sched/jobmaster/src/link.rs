//! The conversation with Fuxi's master: all the job wants and holds, and what it is granted.

use std::sync::mpsc::{SyncSender, TrySendError};
use std::time::Duration;

use kuafu::{CallOptions, Channel, Code};
use sched_api::proto;
use tokio::sync::watch;

use crate::desired::Desired;
use crate::input::Input;

/// How long the master may wait for something to say.
const WAIT: Duration = Duration::from_secs(4);
/// Of one call, the wait included.
const DEADLINE: Duration = Duration::from_secs(8);
/// After a call that failed: a new master listens for 1.5 s, so several tries fall into that.
const PAUSE: Duration = Duration::from_millis(300);
/// A job whose master process is told so often that it is none has been given to another process, or has gone.
const REFUSALS_MAX: u32 = 5;

/// How the conversation ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Over {
    /// The master noted the job's end.
    Noted,
    /// This process is not (any more) the job's master.
    Replaced,
}

/// See the module.
pub(crate) struct Link {
    pub(crate) master: Channel,
    pub(crate) job: String,
    pub(crate) grant: u64,
    pub(crate) address: String,
    pub(crate) desired: watch::Receiver<Desired>,
    pub(crate) inputs: SyncSender<Input>,
}

impl Link {
    /// Talks until the end.
    pub(crate) async fn run(mut self) -> Over {
        let client = proto::FuxiClient::new(self.master.clone());
        let (mut seen_version, mut refusals) = (0, 0);
        loop {
            let mut request = self.desired.borrow_and_update().request(&self.job, self.grant, &self.address);
            request.seen_version = seen_version;
            request.wait_ms = u32::try_from(WAIT.as_millis()).unwrap_or(u32::MAX);
            let options = CallOptions::within(DEADLINE);
            let reply = tokio::select! {
                reply = client.job(&request, &options) => reply,
                // What the job wants now is said at once.
                changed = self.desired.changed() => {
                    if changed.is_err() {
                        // The leading thread has ended without an end of the job: this process stops.
                        return Over::Replaced;
                    }
                    continue;
                }
            };
            match reply {
                Ok(reply) => {
                    refusals = 0;
                    let reply = reply.message;
                    if reply.end_noted {
                        return Over::Noted;
                    }
                    seen_version = reply.version;
                    self.tell(reply).await;
                }
                Err(status) if matches!(status.code, Code::NotFound | Code::Stale) => {
                    refusals += 1;
                    if refusals >= REFUSALS_MAX {
                        tracing::warn!(%status, "this process leads the job no more");
                        return Over::Replaced;
                    }
                    tokio::time::sleep(PAUSE).await;
                }
                Err(status) => {
                    tracing::info!(%status, "Fuxi's master does not answer; asking on");
                    seen_version = 0;
                    tokio::time::sleep(PAUSE).await;
                }
            }
        }
    }

    /// Hands an answer on. A full queue empties soon; the thread that empties it never waits for this one.
    async fn tell(&self, reply: proto::JobReply) {
        let mut input = Input::Master(Box::new(reply));
        loop {
            match self.inputs.try_send(input) {
                Ok(()) | Err(TrySendError::Disconnected(_)) => return,
                Err(TrySendError::Full(back)) => input = back,
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }
}
