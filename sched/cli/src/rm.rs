//! `fuxi rm`: forgets jobs that have ended.

use std::fs;
use std::path::Path;

use anyhow::Context as _;
use clap::Args;
use nix::unistd::{AccessFlags, access};
use serde_json::json;

use crate::spool::{Entry, Part, Spool, error_beside};
use crate::{find, show};

/// See [`crate::Command::Rm`].
#[derive(Debug, Args)]
pub(crate) struct Rm {
    #[arg(value_name = "JOB", required = true)]
    jobs: Vec<String>,
}

impl Rm {
    /// All of them are found before the first one is removed: a wrong name removes nothing.
    pub(crate) fn run(self, spool: &Spool, json: bool) -> anyhow::Result<()> {
        let mut entries: Vec<Entry> = Vec::new();
        for job in &self.jobs {
            let entry = find::job(spool, job)?;
            anyhow::ensure!(
                entry.part.has_ended(),
                "{} has not ended, it is {}: `fuxi kill {}` ends it",
                entry.id,
                entry.state()?,
                entry.id
            );
            may_remove_from(&entry.path)?;
            if !entries.contains(&entry) {
                entries.push(entry);
            }
        }
        for entry in entries {
            let removing = || format!("remove {}", entry.path.display());
            if entry.part == Part::Refused {
                // The reason last: a file without it would look like something else.
                fs::remove_file(&entry.path).with_context(removing)?;
                fs::remove_file(error_beside(&entry.path)).with_context(removing)?;
            } else {
                fs::remove_dir_all(&entry.path).with_context(removing)?;
            }
            if json {
                show::print_json(&json!({"job": entry.id, "removed": true}))?;
            } else {
                show::print(format!("{} is removed\n", entry.id).as_bytes())?;
            }
        }
        Ok(())
    }
}

/// Whoever may not remove the directory itself is told before half of what is in it has gone.
fn may_remove_from(path: &Path) -> anyhow::Result<()> {
    let Some(parent) = path.parent() else { return Ok(()) };
    access(parent, AccessFlags::W_OK | AccessFlags::X_OK).map_err(std::io::Error::from).with_context(|| {
        format!("nothing was removed: only who may write to {} removes what is in it", parent.display())
    })
}
