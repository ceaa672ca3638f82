//! `fuxi ls`: jobs that wait or run, and with --all those that have ended.

use std::time::{SystemTime, UNIX_EPOCH};

use clap::Args;
use sched_spec::QueueName;
use serde_json::{Value, json};

use crate::progress::Counts;
use crate::spool::{Entry, Part, Spool};
use crate::table::{Table, age};
use crate::{files, show};

/// See [`crate::Command::Ls`].
#[derive(Debug, Args)]
pub(crate) struct Ls {
    /// Of one queue only
    #[arg(long, value_name = "QUEUE")]
    queue: Option<QueueName>,
    /// Also jobs that have ended, and files that were refused
    #[arg(long)]
    all: bool,
}

impl Ls {
    pub(crate) fn run(self, spool: &Spool, json: bool) -> anyhow::Result<()> {
        let queues = match self.queue {
            Some(queue) => {
                spool.queue(&queue)?;
                vec![queue]
            }
            None => spool.queues()?,
        };
        let upto = if self.all { Part::Refused } else { Part::Run };
        let mut jobs: Vec<Seen> = Vec::new();
        for entry in spool.entries(&queues, upto, |_| true)? {
            let seen = Seen::of(entry)?;
            let has_moved = seen.entry.part <= Part::Run && !seen.entry.path.exists();
            let seen = if has_moved { Seen::again(spool, &seen.entry)? } else { Some(seen) };
            // What has ended meanwhile is left out where that is not asked for.
            jobs.extend(seen.filter(|seen| seen.entry.part <= upto));
        }
        // As they were submitted, the oldest first.
        jobs.sort_by_key(|job| job.entry.submitted());
        if json {
            return jobs.iter().try_for_each(|job| show::print_json(&job.json()));
        }
        if jobs.is_empty() {
            let all = if self.all { "" } else { "; `fuxi ls --all` also lists those that have ended" };
            return show::print(format!("no jobs{all}\n").as_bytes());
        }
        let mut table = Table::new(["JOB", "QUEUE", "STATE", "DONE", "AGE", "WHY"]);
        for job in &jobs {
            table.row(job.row());
        }
        show::print(table.text().as_bytes())
    }
}

/// A job, and what its files say.
#[derive(Debug)]
pub(crate) struct Seen {
    entry: Entry,
    state: String,
    why: String,
    counts: Option<Counts>,
}

impl Seen {
    pub(crate) fn of(entry: Entry) -> anyhow::Result<Self> {
        let (state, why) = (entry.state()?, entry.why()?);
        let is_dir = matches!(entry.part, Part::Run | Part::Done | Part::Failed);
        let progress = if is_dir { files::text(&entry.path.join("progress"))? } else { None };
        let counts = progress.and_then(|text| Counts::parse(&text));
        Ok(Self { entry, state, why, counts })
    }

    /// A job that was moved while its files were read: what was not found there is found where it is now.
    fn again(spool: &Spool, entry: &Entry) -> anyhow::Result<Option<Self>> {
        spool.locate(&entry.queue, &entry.id)?.map(Self::of).transpose()
    }

    fn row(&self) -> [String; 6] {
        let done = self.counts.map(|counts| format!("{}/{}", counts.done, counts.instances));
        let now = SystemTime::now();
        let age = self.entry.submitted().map(|at| age(now.duration_since(at).unwrap_or_default().as_secs()));
        // Of a refused file the first line says where it is wrong.
        let why = self.why.lines().next().unwrap_or_default();
        [
            self.entry.id.clone(),
            self.entry.queue.to_string(),
            self.state.clone(),
            done.unwrap_or_default(),
            age.unwrap_or_default(),
            why.to_owned(),
        ]
    }

    pub(crate) fn json(&self) -> Value {
        let since = self.entry.submitted().and_then(|at| at.duration_since(UNIX_EPOCH).ok());
        json!({
            "job": self.entry.id,
            "queue": self.entry.queue.as_str(),
            "state": self.state,
            "why": self.why,
            "instances": self.counts.map(|counts| counts.instances),
            "instances_done": self.counts.map(|counts| counts.done),
            "instances_running": self.counts.map(|counts| counts.running),
            "instances_failed": self.counts.map(|counts| counts.failed),
            "submitted_unix_ms": since.and_then(|since| u64::try_from(since.as_millis()).ok()),
            "uid": self.entry.owner(),
            "directory": self.entry.path,
        })
    }
}
