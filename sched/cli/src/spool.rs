//! The spool as whoever uses it sees it: which jobs there are, and where (`sched/docs/design.md`, "The spool").
//!
//! A job only ever moves forward, new, run, done or failed, and directories are read in that order: one that moves
//! meanwhile may be seen twice, and is taken where it was seen last, but it is never missed.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use anyhow::Context as _;
use sched_spec::{JobName, QueueName};

/// Where a job is, in the order in which it gets there.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Part {
    /// Dropped, and not taken yet.
    New,
    Run,
    Done,
    Failed,
    /// A file in `failed/` that is no job.
    Refused,
}

impl Part {
    pub(crate) fn has_ended(self) -> bool {
        self >= Self::Done
    }

    fn dir(self) -> &'static str {
        match self {
            Self::New => "new",
            Self::Run => "run",
            Self::Done => "done",
            Self::Failed | Self::Refused => "failed",
        }
    }
}

/// A job, or a file that is to be one or was refused.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Entry {
    pub(crate) queue: QueueName,
    /// The job's id; of a file, the one that it gets or would have got.
    pub(crate) id: String,
    pub(crate) part: Part,
    /// The job's directory, or the file.
    pub(crate) path: PathBuf,
}

impl Entry {
    /// One word: as the file `status` says it, or what follows from where the job is.
    pub(crate) fn state(&self) -> anyhow::Result<String> {
        let said = match self.part {
            Part::New | Part::Refused => None,
            Part::Run | Part::Done | Part::Failed => crate::files::text(&self.path.join("status"))?,
        };
        // Where a job is can not lie. What it says may be older: written by a master that has not heard of its end.
        let word = match (self.part, said.as_deref().map(str::trim)) {
            (Part::New, _) => "new",
            (Part::Refused, _) => "refused",
            (Part::Done, _) => "done",
            (Part::Failed, Some("killed")) => "killed",
            (Part::Failed, _) => "failed",
            (Part::Run, None | Some("")) => "waiting",
            (Part::Run, Some(said)) => said.split_whitespace().next().unwrap_or("waiting"),
        };
        Ok(word.to_owned())
    }

    /// What people read first, whatever it is called here; "" if nothing was said yet.
    pub(crate) fn why(&self) -> anyhow::Result<String> {
        let path = match self.part {
            Part::New => {
                return Ok("no master has taken it yet: one that leads does so within seconds".to_owned());
            }
            Part::Refused => error_beside(&self.path),
            Part::Run | Part::Done | Part::Failed => self.path.join("why"),
        };
        Ok(crate::files::text(&path)?.unwrap_or_default())
    }

    /// When its file was written; `None` if it has gone meanwhile.
    pub(crate) fn submitted(&self) -> Option<SystemTime> {
        let path = if self.path.is_dir() { self.path.join("spec") } else { self.path.clone() };
        fs::symlink_metadata(path).and_then(|meta| meta.modified()).ok()
    }

    pub(crate) fn owner(&self) -> Option<u32> {
        fs::symlink_metadata(&self.path).map(|meta| meta.uid()).ok()
    }
}

/// Where it is said what is wrong with a refused file.
pub(crate) fn error_beside(path: &Path) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(".error");
    PathBuf::from(name)
}

/// See the module.
#[derive(Clone, Debug)]
pub(crate) struct Spool {
    root: PathBuf,
}

impl Spool {
    /// # Errors
    /// There is none in this mount.
    pub(crate) fn in_mount(mount: &Path) -> anyhow::Result<Self> {
        let root = mount.join("spool");
        match fs::metadata(&root) {
            Ok(meta) if meta.is_dir() => Ok(Self { root }),
            Ok(_) => anyhow::bail!("{} is no directory, so it is no spool", root.display()),
            Err(error) if error.kind() == io::ErrorKind::NotFound => anyhow::bail!(
                "there is no {}: is Pangu mounted there, and does a fuxi-master run? --mount DIR names another mount",
                root.display()
            ),
            Err(error) => Err(error).with_context(|| format!("look at {}", root.display())),
        }
    }

    /// # Errors
    /// The spool can not be read.
    pub(crate) fn queues(&self) -> anyhow::Result<Vec<QueueName>> {
        let names = names(&self.root)?;
        let queues = names.into_iter().filter_map(|name| name.parse::<QueueName>().ok());
        Ok(queues.filter(|queue| self.root.join(queue.as_str()).is_dir()).collect())
    }

    /// A queue that is there.
    ///
    /// # Errors
    /// There is none of that name: the message lists those there are.
    pub(crate) fn queue(&self, queue: &QueueName) -> anyhow::Result<PathBuf> {
        let dir = self.root.join(queue.as_str());
        if dir.join("new").is_dir() {
            return Ok(dir);
        }
        let queues: Vec<String> = self.queues()?.iter().map(ToString::to_string).collect();
        anyhow::bail!(
            "there is no queue '{queue}': there are {}. A directory {} makes one, and the master the rest of it",
            if queues.is_empty() { "none".to_owned() } else { queues.join(", ") },
            dir.display()
        )
    }

    /// All that is in these queues, up to a part, and has a wanted name: the id, or that of the file. Nothing is looked at in
    /// a directory of a job that has none: ended jobs may be many.
    ///
    /// # Errors
    /// A directory can not be read.
    pub(crate) fn entries(
        &self,
        queues: &[QueueName],
        upto: Part,
        wanted: impl Fn(&str) -> bool,
    ) -> anyhow::Result<Vec<Entry>> {
        let mut found = BTreeMap::new();
        for part in [Part::New, Part::Run, Part::Done, Part::Failed].into_iter().filter(|part| *part <= upto)
        {
            for queue in queues {
                let dir = self.root.join(queue.as_str()).join(part.dir());
                let names = names(&dir)?;
                for name in &names {
                    let path = dir.join(name);
                    let is_refused = part == Part::Failed && names.contains(&format!("{name}.error"));
                    let id = if part == Part::New || is_refused {
                        file_id(&path, name)?.filter(|id| wanted(id) || wanted(name))
                    } else {
                        (wanted(name) && is_job(&path, part, name)).then(|| name.clone())
                    };
                    let part = if is_refused { Part::Refused } else { part };
                    if let Some(id) = id {
                        let entry = Entry { queue: queue.clone(), id: id.clone(), part, path };
                        found.insert((queue.clone(), id), entry);
                    }
                }
            }
        }
        Ok(found.into_values().collect())
    }

    /// Where a job is now, by its id; `None` if it is nowhere.
    ///
    /// # Errors
    /// The spool can not be read.
    pub(crate) fn locate(&self, queue: &QueueName, id: &str) -> anyhow::Result<Option<Entry>> {
        let all = self.entries(std::slice::from_ref(queue), Part::Refused, |name| name == id)?;
        Ok(all.into_iter().find(|entry| entry.id == id))
    }
}

/// In `run` a directory without its spec is an acceptance that was broken off.
fn is_job(path: &Path, part: Part, name: &str) -> bool {
    let has_spec = || part != Part::Run || path.join("spec").is_file();
    name.parse::<JobName>().is_ok() && path.is_dir() && has_spec()
}

/// The id that a file gets when it is taken, or would have got; `None` if it has gone.
fn file_id(path: &Path, name: &str) -> anyhow::Result<Option<String>> {
    let meta = match fs::symlink_metadata(path) {
        Ok(meta) => meta,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error).with_context(|| format!("look at {}", path.display())),
    };
    let id = JobName::of(name, meta.ino()).to_string();
    // A file that was refused when there was one of its name already has been given its id for a name.
    let number = id.rsplit('-').next().unwrap_or_default();
    let is_id = name.strip_suffix(number).is_some_and(|stem| stem.ends_with('-'));
    Ok(Some(if is_id { name.to_owned() } else { id }))
}

/// The names in a directory, without those that begin with a dot and those that are no text. A queue that is being made has
/// not all of its directories yet.
fn names(dir: &Path) -> anyhow::Result<BTreeSet<String>> {
    let reading = || format!("read the directory {}", dir.display());
    let entries = match fs::read_dir(dir) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(BTreeSet::new()),
        Err(error) => return Err(error).with_context(reading),
    };
    let mut names = BTreeSet::new();
    for entry in entries {
        if let Ok(name) = entry.with_context(reading)?.file_name().into_string()
            && !name.starts_with('.')
        {
            names.insert(name);
        }
    }
    Ok(names)
}
