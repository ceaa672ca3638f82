//! `fuxi status` and `fuxi why`: what a job's files say of it.

use clap::Args;
use serde_json::json;

use crate::ls::Seen;
use crate::spool::{Part, Spool};
use crate::{files, find, show};

/// See [`crate::Command::Status`] and [`crate::Command::Why`].
#[derive(Debug, Args)]
pub(crate) struct Job {
    /// The job, or a refused file's name
    #[arg(value_name = "JOB")]
    job: String,
}

impl Job {
    pub(crate) fn status(self, spool: &Spool, json: bool) -> anyhow::Result<()> {
        let entry = find::job(spool, &self.job)?;
        if json {
            return show::print_json(&Seen::of(entry)?.json());
        }
        let mut page = format!("{}  {}  in queue {}\n", entry.id, entry.state()?, entry.queue);
        let why = entry.why()?;
        if !why.is_empty() {
            page.push_str(&format!("{why}\n"));
        }
        let is_dir = matches!(entry.part, Part::Run | Part::Done | Part::Failed);
        let progress = if is_dir { files::text(&entry.path.join("progress"))? } else { None };
        if let Some(progress) = progress.filter(|progress| !progress.is_empty()) {
            page.push_str(&format!("\n{progress}\n"));
        }
        page.push_str(&format!("\n{}\n", entry.path.display()));
        show::print(show::harmless(&page).as_bytes())
    }

    pub(crate) fn why(self, spool: &Spool, json: bool) -> anyhow::Result<()> {
        let entry = find::job(spool, &self.job)?;
        let (state, why) = (entry.state()?, entry.why()?);
        if json {
            return show::print_json(&json!({"job": entry.id, "state": state, "why": why}));
        }
        let why =
            if why.is_empty() { format!("it is {state}, and nothing else was said of it yet") } else { why };
        show::print(format!("{}\n", show::harmless(&why)).as_bytes())
    }
}
