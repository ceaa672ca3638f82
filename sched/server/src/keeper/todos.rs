//! Doing what the state wants done: what people read, and the end of jobs.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use futures::StreamExt as _;
use sched_api::chain;
use serde_json::json;

use super::{Keeper, OPERATIONS_MAX, blocking};
use crate::leading::Leading;
use crate::spool::{End, JobName, QueueName, Spool, SpoolError, Texts, append_events};
use crate::state::Todo;

/// After a job's directory could not be moved.
const PAUSE: Duration = Duration::from_secs(1);

/// All that is to be done for one job, in this order.
#[derive(Debug, Default)]
struct Work {
    events: String,
    texts: Texts,
    end: Option<(End, String)>,
}

impl Keeper {
    pub(super) async fn do_all(&mut self) {
        let work = self.leading.with(|state, _now| {
            let mut work: BTreeMap<JobName, (QueueName, Work)> = BTreeMap::new();
            for todo in std::mem::take(&mut state.todo) {
                let (Todo::Finish { job: name, .. } | Todo::Note { job: name, .. } | Todo::Tell(name)) =
                    &todo;
                let Some(job) = state.jobs.get(name) else { continue };
                let (_, of) =
                    work.entry(name.clone()).or_insert_with(|| (job.accepted.queue.clone(), Work::default()));
                match todo {
                    Todo::Note { event, .. } => of.events.push_str(&line(&event)),
                    Todo::Finish { end, why, .. } => {
                        of.events.push_str(&line(&format!("{}: {why}", end.word())));
                        of.end = Some((end, why));
                    }
                    // While its own master is at work, that one tells.
                    Todo::Tell(_) if job.master.address.is_some() => {}
                    Todo::Tell(_) => {
                        of.texts.status = Some(job.status().to_owned());
                        of.texts.why = Some(state.why(name));
                    }
                }
            }
            work
        });
        let mut doing = futures::stream::iter(work.into_iter().map(|(job, (queue, work))| {
            let spool = self.spool.clone();
            async move {
                let (of, name) = (queue.clone(), job.clone());
                let end = work.end.clone();
                let done = blocking(move || carry_out(&spool, &of, &name, &work)).await;
                (queue, job, end, done)
            }
        }))
        .buffer_unordered(OPERATIONS_MAX);
        let mut ended = Vec::new();
        while let Some((queue, job, end, done)) = doing.next().await {
            match (done, end) {
                (Ok(()), Some(_)) => ended.push((queue, job)),
                (Ok(()), None) => {}
                // It has been removed: whoever did that knows.
                (Err(error), end) if error.is_gone() => ended.extend(end.map(|_| (queue, job))),
                (Err(error), end) => {
                    tracing::error!(error = chain(&error), job = job.as_str(), "write into the spool");
                    // What is told to people comes again by itself; an end does not.
                    if let Some((end, why)) = end {
                        again(&self.leading, Todo::Finish { queue, job, end, why });
                    }
                }
            }
        }
        drop(doing);
        for (queue, job) in ended {
            self.forget_job(&queue, &job);
            self.leading.with(|state, now| state.moved(&job, now));
        }
    }
}

/// In a moment.
fn again(leading: &Arc<Leading>, todo: Todo) {
    let leading = Arc::clone(leading);
    tokio::spawn(async move {
        tokio::time::sleep(PAUSE).await;
        leading.with(|state, _now| state.todo.push_back(todo));
    });
}

/// The move comes last: what is told of a job's end is there when its directory appears where ended jobs are.
fn carry_out(spool: &Spool, queue: &QueueName, job: &JobName, work: &Work) -> Result<(), SpoolError> {
    let dir = spool.job_dir(queue, job);
    if !work.events.is_empty() {
        append_events(&dir, &work.events)?;
    }
    let mut texts = work.texts.clone();
    if let Some((end, why)) = &work.end {
        texts.status = Some(end.word().to_owned());
        texts.why = Some(why.clone());
    }
    texts.write(&dir)?;
    if let Some((end, _)) = &work.end {
        spool.finish(queue, job, *end)?;
    }
    Ok(())
}

fn line(event: &str) -> String {
    let time = humantime::format_rfc3339_millis(SystemTime::now());
    format!("{}\n", json!({"time": time.to_string(), "event": event}))
}
