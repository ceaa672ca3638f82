//! `fuxi kill`, `pause`, `resume`: a word in the job's `ctl`, which the master obeys and empties.

use std::fs::{self, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::{MetadataExt as _, fchown};
use std::path::Path;

use anyhow::Context as _;
use clap::Args;
use serde_json::json;

use crate::spool::{Entry, Part, Spool};
use crate::{files, find, show};

/// A file that is taken while it is looked at is a job the next time, and one that ends has ended.
const LOOKS: u32 = 3;

/// See [`crate::Command::Kill`] and what follows it.
#[derive(Debug, Args)]
pub(crate) struct Job {
    #[arg(value_name = "JOB")]
    job: String,
}

/// What a job can be told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Control {
    Kill,
    Pause,
    Resume,
}

impl Control {
    fn word(self) -> &'static str {
        match self {
            Self::Kill => "kill",
            Self::Pause => "pause",
            Self::Resume => "resume",
        }
    }
}

impl Job {
    pub(crate) fn run(self, spool: &Spool, control: Control, json: bool) -> anyhow::Result<()> {
        for _ in 0..LOOKS {
            let entry = find::job(spool, &self.job)?;
            let done = match (entry.part, control) {
                (Part::New, Control::Kill) => fs::remove_file(&entry.path).map(|()| "was taken back"),
                (Part::New, _) => anyhow::bail!(
                    "{} was not taken by a master yet, so there is nothing to {}: try again in a moment",
                    entry.id,
                    control.word()
                ),
                (Part::Run, _) => tell(&entry.path, control).map(|()| "was told"),
                (Part::Done | Part::Failed | Part::Refused, _) => anyhow::bail!(
                    "{} has ended, it is {}: there is nothing to {}",
                    entry.id,
                    entry.state()?,
                    control.word()
                ),
            };
            match done {
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(error) => {
                    let doing = || format!("{} {} by {}", control.word(), entry.id, entry.path.display());
                    return Err(error).with_context(doing);
                }
                Ok(done) => return said(&entry, control, done, json),
            }
        }
        anyhow::bail!("{} moves while it is looked at: try again", self.job)
    }
}

fn said(entry: &Entry, control: Control, done: &str, json: bool) -> anyhow::Result<()> {
    if json {
        return show::print_json(&json!({"job": entry.id, "asked": control.word()}));
    }
    let more = match entry.part {
        Part::Run => format!(" to {}; `fuxi status {}` shows what comes of it", control.word(), entry.id),
        _ => String::new(),
    };
    show::print(format!("{} {done}{more}\n", entry.id).as_bytes())
}

/// Writes the word. The directory must be there: it is not made for a job that has just ended.
fn tell(dir: &Path, control: Control) -> io::Result<()> {
    let path = dir.join("ctl");
    let is_new = fs::symlink_metadata(&path).is_err();
    let mut file = files::open(&path, OpenOptions::new().write(true).create(true))?;
    if is_new && nix::unistd::geteuid().is_root() {
        // The job's owner is to be able to write into it, too.
        let owner = fs::metadata(dir)?;
        fchown(&file, Some(owner.uid()), Some(owner.gid()))?;
    }
    // Not by opening: what it opens is known to be no link only now.
    file.set_len(0)?;
    file.write_all(format!("{}\n", control.word()).as_bytes())
}
