//! `fuxi submit`: a file in `new/`, whole from the first moment it is seen there.
//!
//! It is written to `tmp/` and renamed, so no master ever reads half of it; a crash before the rename leaves a file in `tmp/`
//! that nobody takes. The job's id needs no answer of the master: it follows from the file's name and inode number.

use std::fs;
use std::io::{self, Write as _};
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::Context as _;
use clap::Args;
use nix::errno::Errno;
use nix::fcntl::{AT_FDCWD, RenameFlags, renameat2};
use sched_spec::{JobName, QueueName};
use serde_json::json;

use crate::spool::Spool;
use crate::{check, show, wait};

/// Names that are tried if others have been dropped and were not taken yet.
const TRIES: u32 = 1_000;

/// See [`crate::Command::Submit`].
#[derive(Debug, Args)]
pub(crate) struct Submit {
    /// The job file; - is standard input
    #[arg(value_name = "FILE")]
    file: PathBuf,
    /// The queue
    #[arg(long, value_name = "QUEUE", default_value = "default")]
    queue: QueueName,
    /// Wait until the job has ended
    #[arg(long)]
    wait: bool,
}

impl Submit {
    pub(crate) fn run(
        self,
        spool: impl FnOnce() -> anyhow::Result<Spool>,
        json: bool,
    ) -> anyhow::Result<ExitCode> {
        let text = check::read(&self.file)?;
        let name = self.file.display().to_string();
        let spec = match sched_spec::parse_bytes(&text) {
            Ok(spec) => spec,
            Err(errors) if json => {
                show::print_json(&check::refused(&name, &errors))?;
                return Ok(ExitCode::FAILURE);
            }
            Err(errors) => {
                eprint!("{}", errors.report(&name));
                return Ok(ExitCode::FAILURE);
            }
        };
        let spool = spool()?;
        let stem = match self.file.file_stem().and_then(|stem| stem.to_str()) {
            Some(stem) if self.file != Path::new("-") => stem.trim_start_matches('.'),
            _ => &*spec.name,
        };
        let stem = if stem.is_empty() { &*spec.name } else { stem };
        let id = drop_file(&spool.queue(&self.queue)?, stem, &text)?;
        if json {
            show::print_json(&json!({"job": id, "queue": self.queue.as_str()}))?;
        } else {
            show::print(format!("{id}\n").as_bytes())?;
        }
        if !self.wait {
            return Ok(ExitCode::SUCCESS);
        }
        wait::until_ended(&spool, &self.queue, &id, json)
    }
}

/// Drops a job file into a queue's directory; says which job it becomes.
fn drop_file(queue: &Path, stem: &str, text: &[u8]) -> anyhow::Result<String> {
    let temporary = queue.join("tmp").join(format!("{}.{stem}.toml", std::process::id()));
    let dropped = write_then_move(&temporary, &queue.join("new"), stem, text);
    if dropped.is_err() {
        // Whatever it was, it is told; the file may never have been there.
        let _gone = fs::remove_file(&temporary);
    }
    dropped
}

fn write_then_move(temporary: &Path, new: &Path, stem: &str, text: &[u8]) -> anyhow::Result<String> {
    let writing = || format!("write {}", temporary.display());
    let mut file = create(temporary).with_context(writing)?;
    file.write_all(text).and_then(|()| file.sync_all()).with_context(writing)?;
    let inode = file.metadata().with_context(writing)?.ino();
    drop(file);
    for count in 1..=TRIES {
        // Somebody's file of this name may be there, not taken yet: it is not to be replaced.
        let name = if count == 1 { format!("{stem}.toml") } else { format!("{stem}-{count}.toml") };
        match renameat2(AT_FDCWD, temporary, AT_FDCWD, &new.join(&name), RenameFlags::RENAME_NOREPLACE) {
            Ok(()) => return Ok(JobName::of(&name, inode).to_string()),
            Err(Errno::EEXIST) => {}
            Err(error) => {
                return Err(io::Error::from(error))
                    .with_context(|| format!("move the job to {}", new.join(name).display()));
            }
        }
    }
    anyhow::bail!(
        "{} has {TRIES} files called {stem} that no master has taken: is one running? `fuxi nodes` asks it",
        new.display()
    )
}

/// A file of this process's own: one that an earlier process of the same number left is removed.
fn create(path: &Path) -> io::Result<fs::File> {
    let create = || fs::OpenOptions::new().write(true).create_new(true).open(path);
    match create() {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
            fs::remove_file(path)?;
            create()
        }
        created => created,
    }
}
