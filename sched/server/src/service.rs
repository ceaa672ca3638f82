//! What agents, job masters, workers and people ask the master.

use std::sync::Arc;
use std::time::{Duration, Instant};

use kuafu::{Code, Request, Response, Status};
use sched_api::proto;
use tokio::sync::Notify;

use crate::app::App;
use crate::leading::Leading;
use crate::overview;
use crate::state::NotHeard;

/// Nobody waits longer for news: the caller says again what it has.
const WAIT_MAX: Duration = Duration::from_secs(5);
/// What of a call's deadline is left for the way back.
const WAY_BACK: Duration = Duration::from_millis(500);

/// Serves `Fuxi`.
pub(crate) struct Service(pub(crate) Arc<App>);

impl Service {
    fn leading(&self) -> Result<Arc<Leading>, Status> {
        self.0.leading().ok_or_else(|| Status::unavailable("this master does not lead; ask another one"))
    }
}

/// Until when a caller may be kept waiting.
fn until<T>(request: &Request<T>, wait_ms: u32) -> Instant {
    let now = Instant::now();
    let wait = Duration::from_millis(wait_ms.into()).min(WAIT_MAX);
    let wanted = now + wait;
    wanted.min(request.deadline.checked_sub(WAY_BACK).unwrap_or(now))
}

/// Asks again after each change, until there is something to say or the time is over.
async fn wait<T>(
    leading: &Leading,
    until: Instant,
    mut ask: impl FnMut(&mut crate::state::State) -> Asked<T>,
) -> T {
    loop {
        let (answer, changed) = match leading.with(|state, _now| ask(state)) {
            Asked::News(answer) => return answer,
            Asked::Nothing(answer, changed) => (answer, changed),
        };
        let notified = changed.notified();
        tokio::pin!(notified);
        notified.as_mut().enable();
        // What changed between the question and now did so unheard.
        if let Asked::News(answer) = leading.with(|state, _now| ask(state)) {
            return answer;
        }
        if tokio::time::timeout_at(until.into(), notified).await.is_err() {
            return answer;
        }
    }
}

enum Asked<T> {
    News(T),
    /// What can be said, and who tells of changes.
    Nothing(T, Arc<Notify>),
}

impl proto::Fuxi for Service {
    async fn agent(
        &self,
        request: Request<proto::AgentRequest>,
    ) -> Result<Response<proto::AgentReply>, Status> {
        let leading = self.leading()?;
        let until = until(&request, request.message.wait_ms);
        let message = &request.message;
        if message.node.is_empty() {
            return Err(Status::invalid_argument("an agent without a name: start it with --node NAME"));
        }
        leading.with(|state, now| state.agent_reports(message, now));
        let reply = wait(&leading, until, |state| {
            let reply = state.orders_for(message);
            let is_news = reply.version != message.seen_version || !reply.acknowledged.is_empty();
            match state.agents.get(&message.node) {
                Some(agent) if !is_news => Asked::Nothing(reply, Arc::clone(&agent.changed)),
                _ => Asked::News(reply),
            }
        });
        Ok(Response::new(reply.await))
    }

    async fn job(&self, request: Request<proto::JobRequest>) -> Result<Response<proto::JobReply>, Status> {
        let leading = self.leading()?;
        let until = until(&request, request.message.wait_ms);
        let message = &request.message;
        let name = leading.with(|state, now| state.job_reports(message, now)).map_err(|not| match not {
            NotHeard::Unknown => Status::not_found(format!("there is no job {}", message.job)),
            NotHeard::Replaced => Status::new(
                Code::Stale,
                format!("grant {} is not that of the process that leads job {}", message.grant, message.job),
            ),
        })?;
        let reply = wait(&leading, until, |state| {
            let reply = state.grants_for(&name);
            // Its end is told when its directory has been moved, however long that takes.
            let is_news = reply.end_noted
                || (reply.version != message.seen_version
                    && state.jobs.get(&name).is_some_and(|job| job.end.is_none()));
            match state.jobs.get(&name) {
                Some(job) if !is_news => Asked::Nothing(reply, Arc::clone(&job.changed)),
                _ => Asked::News(reply),
            }
        });
        Ok(Response::new(reply.await))
    }

    async fn find_job(
        &self,
        request: Request<proto::FindJobRequest>,
    ) -> Result<Response<proto::FindJobReply>, Status> {
        let leading = self.leading()?;
        let found = leading.with(|state, _now| (state.find_job(&request.message.job), state.recovering()));
        Ok(Response::new(match found {
            (Some(address), _) => proto::FindJobReply { address, unknown: false },
            (None, recovering) => proto::FindJobReply { address: String::new(), unknown: !recovering },
        }))
    }

    async fn overview(
        &self,
        _request: Request<proto::OverviewRequest>,
    ) -> Result<Response<proto::OverviewReply>, Status> {
        let leading = self.leading()?;
        Ok(Response::new(leading.with(|state, now| overview::of(state, now))))
    }
}
