//! `fuxi logs`: what instances said, a file for each attempt that said anything.

use std::collections::BTreeMap;
use std::fs::OpenOptions;
use std::io::{self, Read as _, Seek as _, SeekFrom};
use std::path::Path;
use std::str::FromStr;
use std::thread::sleep;

use anyhow::Context as _;
use clap::Args;
use serde_json::json;

use crate::spool::{Entry, Part, Spool};
use crate::{files, find, show, wait};

/// Read and printed at a time.
const CHUNK_BYTES: usize = 1 << 16;

/// See [`crate::Command::Logs`].
#[derive(Debug, Args)]
pub(crate) struct Logs {
    #[arg(value_name = "JOB")]
    job: String,
    /// Of one task, or of one of its instances, which count from 0
    #[arg(value_name = "TASK[.INSTANCE]")]
    of: Option<Selection>,
    /// Go on until the job has ended; an attempt's words are there when it has ended
    #[arg(short, long)]
    follow: bool,
}

/// Whose words are wanted.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Selection {
    task: String,
    instance: Option<u32>,
}

/// An attempt, by its file's name: `TASK.INSTANCE.ATTEMPT`. A task has no dot in its name.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Attempt {
    task: String,
    instance: u32,
    attempt: u32,
}

impl FromStr for Selection {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (task, instance) = match text.split_once('.') {
            None => (text, None),
            Some((task, instance)) => {
                let number =
                    instance.parse().map_err(|_| format!("'{instance}' is no number of an instance"))?;
                (task, Some(number))
            }
        };
        if task.is_empty() {
            return Err("a task's name is missing".to_owned());
        }
        Ok(Self { task: task.to_owned(), instance })
    }
}

impl Selection {
    fn has(&self, attempt: &Attempt) -> bool {
        self.task == attempt.task && self.instance.is_none_or(|instance| instance == attempt.instance)
    }
}

impl Attempt {
    fn parse(name: &str) -> Option<Self> {
        let mut parts = name.split('.');
        let (task, instance, attempt) = (parts.next()?, parts.next()?, parts.next()?);
        let is_all = parts.next().is_none() && !task.is_empty();
        is_all.then_some(())?;
        Some(Self { task: task.to_owned(), instance: instance.parse().ok()?, attempt: attempt.parse().ok()? })
    }
}

impl Logs {
    pub(crate) fn run(self, spool: &Spool, json: bool) -> anyhow::Result<()> {
        let mut entry = find::job(spool, &self.job)?;
        anyhow::ensure!(
            entry.part != Part::Refused,
            "{} was refused, so nothing ran: `fuxi why {}` says what is wrong with it",
            entry.id,
            entry.id
        );
        let mut printed = Printed { json, positions: BTreeMap::new(), last: None };
        loop {
            // Ended before the look: then the look sees everything.
            let is_last = entry.part.has_ended() || !self.follow;
            let seen = printed.print_new(&entry, self.of.as_ref());
            // While it is read the directory may be moved to where ended jobs are.
            let moved = matches!(&seen, Err(error) if is_gone(error)) && !entry.part.has_ended();
            if !moved {
                seen?;
            }
            if is_last && !moved {
                break;
            }
            if !moved {
                sleep(wait::EVERY);
            }
            let now = spool.locate(&entry.queue, &entry.id)?;
            entry = now.with_context(|| format!("job {} is not there any more", self.job))?;
        }
        if printed.positions.is_empty() && !json {
            let of = self.of.map(|of| format!(" of {}", of.task)).unwrap_or_default();
            eprintln!("fuxi: nothing was said by instances{of} of {} that have ended", entry.id);
        }
        Ok(())
    }
}

fn is_gone(error: &anyhow::Error) -> bool {
    error.downcast_ref::<io::Error>().is_some_and(|error| error.kind() == io::ErrorKind::NotFound)
}

/// What was printed, so that following prints each byte once.
struct Printed {
    json: bool,
    positions: BTreeMap<Attempt, u64>,
    /// Whose words came last: others get a line that says whose they are.
    last: Option<Attempt>,
}

impl Printed {
    fn print_new(&mut self, entry: &Entry, of: Option<&Selection>) -> anyhow::Result<()> {
        if entry.part == Part::New {
            return Ok(());
        }
        let dir = entry.path.join("log");
        let mut attempts: Vec<Attempt> = Vec::new();
        let listing = || format!("read the directory {}", dir.display());
        match std::fs::read_dir(&dir) {
            // Made when the job begins. Without the job's directory it is another matter: that was moved.
            Err(error) if error.kind() == io::ErrorKind::NotFound && entry.path.is_dir() => return Ok(()),
            Err(error) => return Err(error).with_context(listing),
            Ok(names) => {
                for name in names {
                    let name = name.with_context(listing)?.file_name();
                    let attempt = name.to_str().and_then(Attempt::parse);
                    attempts.extend(attempt.filter(|attempt| of.is_none_or(|of| of.has(attempt))));
                }
            }
        }
        attempts.sort();
        for attempt in attempts {
            let name = format!("{}.{}.{}", attempt.task, attempt.instance, attempt.attempt);
            let path = dir.join(&name);
            self.print_one(&path, &name, attempt).with_context(|| format!("read {}", path.display()))?;
        }
        Ok(())
    }

    /// What was added to a file. As it is, as `cat` would: it may be meant for a program, or have colours.
    fn print_one(&mut self, path: &Path, name: &str, attempt: Attempt) -> anyhow::Result<()> {
        let mut file = files::open(path, OpenOptions::new().read(true))?;
        let mut position = self.positions.get(&attempt).copied().unwrap_or(0);
        file.seek(SeekFrom::Start(position))?;
        let mut chunk = vec![0; CHUNK_BYTES];
        loop {
            let count = file.read(&mut chunk)?;
            if count == 0 {
                break;
            }
            if self.json {
                let text = String::from_utf8_lossy(&chunk[..count]);
                show::print_json(&json!({
                    "task": attempt.task, "instance": attempt.instance, "attempt": attempt.attempt, "text": text,
                }))?;
            } else {
                if self.last.as_ref() != Some(&attempt) {
                    show::print(format!("==> {name} <==\n").as_bytes())?;
                    self.last = Some(attempt.clone());
                }
                show::print(&chunk[..count])?;
            }
            position += count as u64;
        }
        self.positions.insert(attempt, position);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_files_are_those_of_attempts_or_of_something_else() {
        let attempt = Attempt { task: "map-1".to_owned(), instance: 3, attempt: 10_001 };
        assert_eq!(Attempt::parse("map-1.3.10001"), Some(attempt.clone()));
        for name in ["", "map", "map.1", "map.1.2.3", "map.x.1", ".1.2", "map.1.-1"] {
            assert_eq!(Attempt::parse(name), None, "{name}");
        }
        let has = |text: &str| text.parse::<Selection>().unwrap().has(&attempt);
        assert!(has("map-1") && has("map-1.3") && !has("map-1.4") && !has("map"));
        assert!("map.x".parse::<Selection>().is_err() && ".1".parse::<Selection>().is_err());
    }
}
