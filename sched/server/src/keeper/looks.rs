//! Looking into the spool's directories.

use std::collections::BTreeSet;
use std::fs;
use std::time::SystemTime;

use futures::StreamExt as _;
use sched_api::chain;

use super::{Keeper, LOOK_AGAIN, Notice, OPERATIONS_MAX, Place, blocking};
use crate::quota::{self, Quota};
use crate::spool::{Accepted, Dropped, JobName, Judged, QueueName, Spool, SpoolError};

/// What is to be looked at, each place once.
#[derive(Debug, Default)]
pub(super) struct Seen {
    everywhere: bool,
    places: BTreeSet<Place>,
    /// Files that are certainly complete, by their inode numbers.
    complete: BTreeSet<u64>,
}

impl Seen {
    pub(super) fn places(&self) -> impl Iterator<Item = &Place> {
        self.places.iter()
    }

    pub(super) fn add(&mut self, notice: Notice) {
        match notice {
            Notice::Everywhere => self.everywhere = true,
            Notice::At { place, complete } => {
                self.complete.extend(complete);
                self.places.insert(place);
            }
        }
    }
}

/// What became of a dropped file.
enum Taken {
    Job(Box<Accepted>),
    Refused,
    /// It may still be written to.
    Later,
    Gone,
}

impl Keeper {
    /// Places that have to be looked at again are added to `again`.
    pub(super) async fn look(&mut self, mut seen: Seen, again: &mut BTreeSet<Place>) {
        if seen.everywhere || seen.places.contains(&Place::Root) {
            self.look_for_queues(&mut seen).await;
        }
        let places = std::mem::take(&mut seen.places);
        for place in places {
            match place {
                Place::Root => {}
                Place::New(queue) => {
                    if self.take_new(&queue, &seen.complete).await {
                        again.insert(Place::New(queue));
                    }
                }
                Place::Run(queue) => self.look_for_removed(&queue).await,
                Place::Job(queue, job) => self.read_ctl(&queue, &job).await,
            }
        }
    }

    async fn look_for_queues(&mut self, seen: &mut Seen) {
        let spool = self.spool.clone();
        let found = blocking(move || {
            let queues = spool.queues()?;
            for queue in &queues {
                spool.prepare(queue)?;
            }
            Ok::<_, SpoolError>(queues)
        });
        match found.await {
            Ok(queues) => {
                for queue in queues {
                    let is_new = self.queues.insert(queue.clone());
                    self.read_quota(&queue, is_new).await;
                    if is_new {
                        self.begin_queue(&queue).await;
                    }
                    seen.places.insert(Place::New(queue.clone()));
                    seen.places.insert(Place::Run(queue));
                }
                let jobs = if seen.everywhere { self.jobs.clone() } else { BTreeSet::new() };
                seen.places.extend(jobs.into_iter().map(|(queue, job)| Place::Job(queue, job)));
            }
            Err(error) => tracing::error!(error = chain(&error), "look for queues"),
        }
    }

    /// What a queue is guaranteed, and what it may use. A file that can not be read leaves what was known.
    async fn read_quota(&mut self, queue: &QueueName, is_new: bool) {
        let path = self.spool.root().join(queue.as_str()).join("quota.toml");
        let read = blocking(move || {
            match fs::metadata(&path) {
                Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Quota::default()),
                Err(error) => return Err(error.to_string()),
                Ok(meta) if meta.len() > quota::FILE_MAX_BYTES => {
                    return Err(format!("it is larger than {} bytes", quota::FILE_MAX_BYTES));
                }
                Ok(_) => {}
            }
            fs::read_to_string(&path).map_err(|error| error.to_string()).and_then(|text| Quota::parse(&text))
        });
        let quota = match read.await {
            Ok(quota) => quota,
            Err(error) => {
                tracing::error!(queue = queue.as_str(), error, "quota.toml is not followed");
                if !is_new {
                    return;
                }
                Quota::default()
            }
        };
        self.leading.with(|state, now| state.scheduling.queue(queue, &quota, now));
    }

    /// A queue that was not known: its jobs that run, and from now on whatever happens in it.
    async fn begin_queue(&mut self, queue: &QueueName) {
        for (place, part) in [(Place::New(queue.clone()), "new"), (Place::Run(queue.clone()), "run")] {
            self.watches.watch(place, &self.spool.part(queue, part));
        }
        let (spool, of) = (self.spool.clone(), queue.clone());
        let names = match blocking(move || spool.running(&of)).await {
            Ok(names) => names,
            Err(error) => {
                tracing::error!(error = chain(&error), "look for jobs");
                return;
            }
        };
        let mut reading = futures::stream::iter(names.into_iter().map(|name| {
            let (spool, queue) = (self.spool.clone(), queue.clone());
            blocking(move || spool.reread(&queue, &name))
        }))
        .buffer_unordered(OPERATIONS_MAX);
        let mut jobs = Vec::new();
        while let Some(read) = reading.next().await {
            match read {
                Ok(job) => jobs.push(job),
                Err(error) => tracing::error!(error = chain(&error), "a job that ran is left alone"),
            }
        }
        drop(reading);
        for job in jobs {
            self.begin_job(job);
        }
    }

    fn begin_job(&mut self, job: Accepted) {
        let key = (job.queue.clone(), job.name.clone());
        let directory = self.spool.job_dir(&job.queue, &job.name);
        self.watches.watch(Place::Job(key.0.clone(), key.1.clone()), &directory);
        self.jobs.insert(key);
        self.leading.with(|state, now| state.job_is_there(job, now));
    }

    pub(super) fn forget_job(&mut self, queue: &QueueName, job: &JobName) {
        let key = (queue.clone(), job.clone());
        if self.jobs.remove(&key) {
            self.watches.unwatch(&Place::Job(key.0, key.1));
        }
    }

    /// Takes what was dropped; says whether something has to be looked at again.
    async fn take_new(&mut self, queue: &QueueName, complete: &BTreeSet<u64>) -> bool {
        let (spool, of) = (self.spool.clone(), queue.clone());
        let dropped = match blocking(move || spool.dropped(&of)).await {
            Ok(dropped) => dropped,
            Err(error) => {
                tracing::error!(error = chain(&error), "look for dropped jobs");
                return true;
            }
        };
        let mut taking = futures::stream::iter(dropped.into_iter().map(|dropped| {
            let spool = self.spool.clone();
            let is_complete = complete.contains(&dropped.inode);
            blocking(move || take(&spool, &dropped, is_complete))
        }))
        .buffer_unordered(OPERATIONS_MAX);
        let (mut again, mut jobs) = (false, Vec::new());
        while let Some(taken) = taking.next().await {
            match taken {
                Ok(Taken::Job(job)) => jobs.push(*job),
                Ok(Taken::Refused | Taken::Gone) => {}
                Ok(Taken::Later) => again = true,
                Err(error) => {
                    tracing::error!(error = chain(&error), "take a dropped job");
                    again = true;
                }
            }
        }
        drop(taking);
        for job in jobs {
            self.begin_job(job);
        }
        again
    }

    async fn look_for_removed(&mut self, queue: &QueueName) {
        let (spool, of) = (self.spool.clone(), queue.clone());
        let there = match blocking(move || spool.running(&of)).await {
            Ok(there) => there.into_iter().collect::<BTreeSet<_>>(),
            Err(error) => {
                tracing::error!(error = chain(&error), "look for removed jobs");
                return;
            }
        };
        let known: Vec<JobName> =
            self.jobs.iter().filter(|(of, _)| of == queue).map(|(_, job)| job.clone()).collect();
        for job in known {
            if !there.contains(&job) {
                // Ended jobs are moved by this master, which knows.
                self.leading.with(|state, now| {
                    if state.jobs.get(&job).is_some_and(|job| job.end.is_none()) {
                        state.job_has_gone(&job, now);
                    }
                });
                self.forget_job(queue, &job);
            }
        }
    }

    /// What its owner wants of a job is what `ctl` says, now as after any crash: it is only read, and looked at again by every master that
    /// begins to lead.
    async fn read_ctl(&mut self, queue: &QueueName, job: &JobName) {
        let path = self.spool.job_dir(queue, job).join("ctl");
        match blocking(move || fs::read_to_string(&path)).await {
            Ok(text) => self.leading.with(|state, now| state.ctl_says(job, text.trim(), now)),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
            Err(error) => tracing::warn!(%error, job = job.as_str(), "read ctl"),
        }
    }
}

/// One dropped file.
fn take(spool: &Spool, dropped: &Dropped, is_complete: bool) -> Result<Taken, SpoolError> {
    let age = SystemTime::now().duration_since(dropped.modified).unwrap_or_default();
    // Whoever copies a file there writes it piece by piece. It is complete when its writer has closed it; if nobody
    // saw that, when nothing was written for a while.
    if !is_complete && age < LOOK_AGAIN {
        return Ok(Taken::Later);
    }
    let taken = match spool.judge(dropped) {
        Ok(Judged::Job(spec, owner)) => {
            spool.accept(dropped, *spec, owner).map(|job| Taken::Job(Box::new(job)))
        }
        Ok(Judged::Bad(why)) => spool.reject(dropped, &why).map(|()| Taken::Refused),
        Err(error) => Err(error),
    };
    match taken {
        Err(error) if error.is_gone() => Ok(Taken::Gone),
        taken => taken,
    }
}
