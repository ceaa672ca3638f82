//! Where attempts put what they make, and how it gets to where it belongs.
//!
//! | | temporary | in place |
//! | --- | --- | --- |
//! | a command's outputs | `out/.tmp-TASK.INSTANCE.ATTEMPT/NAME` | `out/NAME` |
//! | a map's partitions, a sample's boundaries | the same | `shuffle/TASK.INSTANCE/NAME` |
//!
//! TASK is the task's name. The journal has the winner before anything is moved, so moving is done for one attempt of an instance
//! only, and may be done again: what is in place is not in the temporary directory any more, and that goes when it is empty.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use sched_job::{AttemptId, Promotion, TaskId};

/// What is known of a task's outputs.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Outputs {
    pub(crate) name: String,
    /// They are read by other tasks of the job only.
    pub(crate) between: bool,
}

/// See the module.
#[derive(Debug)]
pub(crate) struct Places {
    directory: PathBuf,
    tasks: Vec<Outputs>,
}

impl Places {
    pub(crate) fn new(directory: PathBuf, tasks: Vec<Outputs>) -> Self {
        Self { directory, tasks }
    }

    fn of(&self, task: TaskId) -> Option<&Outputs> {
        self.tasks.get(task.0 as usize)
    }

    fn temporary(&self, attempt: AttemptId) -> Option<PathBuf> {
        let AttemptId { task, instance, attempt } = attempt;
        let name = &self.of(task)?.name;
        Some(self.directory.join("out").join(format!(".tmp-{name}.{instance}.{attempt}")))
    }

    /// Moves what the attempt made to its place.
    pub(crate) fn promote(&self, attempt: AttemptId, outputs: u32) -> Promotion {
        let (Some(temporary), Some(task)) = (self.temporary(attempt), self.of(attempt.task)) else {
            return Promotion::Missing;
        };
        let place = if task.between {
            self.directory.join("shuffle").join(format!("{}.{}", task.name, attempt.instance))
        } else {
            self.directory.join("out")
        };
        match move_all(&temporary, &place) {
            Ok(()) => Promotion::Placed,
            // It is removed only when it has been emptied: by the try before this one.
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                if outputs == 0 || !task.between || has_names(&place) {
                    Promotion::Placed
                } else {
                    Promotion::Missing
                }
            }
            Err(error) => {
                tracing::error!(%error, from = %temporary.display(), "move outputs to their place");
                Promotion::Missing
            }
        }
    }

    /// Removes what an attempt made that did not win.
    pub(crate) fn discard(&self, attempt: AttemptId) {
        let Some(temporary) = self.temporary(attempt) else { return };
        match fs::remove_dir_all(&temporary) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                tracing::warn!(%error, path = %temporary.display(), "remove the outputs of an attempt that did not win");
            }
            _ => {}
        }
    }
}

/// Moves everything below `from` to the same place below `to`, then removes `from`.
fn move_all(from: &Path, to: &Path) -> io::Result<()> {
    fs::create_dir_all(to)?;
    for entry in fs::read_dir(from)? {
        let entry = entry?;
        let (source, target) = (entry.path(), to.join(entry.file_name()));
        // Two instances may put different files into one directory.
        if entry.file_type()?.is_dir() {
            move_all(&source, &target)?;
        } else {
            fs::rename(&source, &target)?;
        }
    }
    fs::remove_dir(from)
}

fn has_names(directory: &Path) -> bool {
    fs::read_dir(directory).is_ok_and(|mut names| names.next().is_some())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn places(between: bool) -> (tempfile::TempDir, Places, AttemptId) {
        let dir = tempfile::tempdir().unwrap();
        let tasks = vec![Outputs { name: "map".to_owned(), between }];
        let places = Places::new(dir.path().to_owned(), tasks);
        let attempt = AttemptId { task: TaskId(0), instance: 4, attempt: 10_001 };
        fs::create_dir_all(places.temporary(attempt).unwrap().join("deep")).unwrap();
        fs::write(places.temporary(attempt).unwrap().join("a"), "1").unwrap();
        fs::write(places.temporary(attempt).unwrap().join("deep/b"), "2").unwrap();
        (dir, places, attempt)
    }

    #[test]
    fn outputs_are_moved_once_however_often_it_is_tried() {
        let (dir, places, attempt) = places(false);
        for _ in 0..2 {
            assert_eq!(places.promote(attempt, 2), Promotion::Placed);
            assert_eq!(fs::read_to_string(dir.path().join("out/a")).unwrap(), "1");
            assert_eq!(fs::read_to_string(dir.path().join("out/deep/b")).unwrap(), "2");
            assert!(!places.temporary(attempt).unwrap().exists());
        }
    }

    #[test]
    fn a_move_that_was_broken_off_goes_on() {
        let (dir, places, attempt) = places(false);
        fs::rename(places.temporary(attempt).unwrap().join("a"), dir.path().join("out/a")).unwrap();
        assert_eq!(places.promote(attempt, 2), Promotion::Placed);
        assert_eq!(fs::read_to_string(dir.path().join("out/a")).unwrap(), "1");
        assert_eq!(fs::read_to_string(dir.path().join("out/deep/b")).unwrap(), "2");
    }

    #[test]
    fn partitions_that_are_nowhere_are_missing() {
        let (dir, places, attempt) = places(true);
        assert_eq!(places.promote(attempt, 2), Promotion::Placed);
        assert!(dir.path().join("shuffle/map.4/a").exists());
        fs::remove_dir_all(dir.path().join("shuffle")).unwrap();
        assert_eq!(places.promote(attempt, 2), Promotion::Missing);
    }

    #[test]
    fn what_did_not_win_goes() {
        let (_dir, places, attempt) = places(false);
        places.discard(attempt);
        assert!(!places.temporary(attempt).unwrap().exists());
        places.discard(attempt);
    }
}
