//! Names of queues and jobs, as they stand in paths.

use std::fmt;
use std::str::FromStr;

/// Longest name of a queue.
const QUEUE_MAX: usize = 63;
/// Longest name of a job: what is left of a file's 255 bytes for suffixes like `.error` is plenty.
const JOB_MAX: usize = 100;
/// Longest part of a job's name that its file gave.
const STEM_MAX: usize = 64;

/// Why something is no name.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NameError {
    #[error("'{0}' is no name of a queue: 1 to {QUEUE_MAX} of a-z, A-Z, 0-9, '-' and '_'")]
    Queue(String),
    #[error("'{0}' is no job: 1 to {JOB_MAX} of a-z, A-Z, 0-9, '-', '_' and '.', not beginning with '.'")]
    Job(String),
}

/// A queue: the name of its directory in the spool, and of its quota group.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct QueueName(String);

/// A job: the name of its directory in `run/`, unique in the cluster.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct JobName(String);

impl QueueName {
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl JobName {
    /// The job that a dropped file becomes: the stem of its name, and its inode number in base 36, which Pangu never
    /// gives twice.
    #[must_use]
    pub fn of(file: &str, inode: u64) -> Self {
        let stem = file.strip_suffix(".toml").unwrap_or(file);
        let mut name: String =
            stem.chars().take(STEM_MAX).map(|c| if may_stand(c) { c } else { '_' }).collect();
        if name.is_empty() || name.starts_with('.') {
            name.insert(0, '_');
        }
        name.push('-');
        name.push_str(&base36(inode));
        Self(name)
    }

    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

fn may_stand(c: char) -> bool {
    c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.')
}

fn base36(mut number: u64) -> String {
    let mut digits = Vec::new();
    loop {
        let digit = u32::try_from(number % 36).expect("a remainder of 36");
        digits.push(char::from_digit(digit, 36).expect("a digit of base 36"));
        number /= 36;
        if number == 0 {
            break;
        }
    }
    digits.iter().rev().collect()
}

impl FromStr for QueueName {
    type Err = NameError;

    fn from_str(text: &str) -> Result<Self, NameError> {
        let good = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_');
        if text.is_empty() || text.len() > QUEUE_MAX || !text.chars().all(good) {
            return Err(NameError::Queue(text.to_owned()));
        }
        Ok(Self(text.to_owned()))
    }
}

impl FromStr for JobName {
    type Err = NameError;

    fn from_str(text: &str) -> Result<Self, NameError> {
        if text.is_empty() || text.len() > JOB_MAX || text.starts_with('.') || !text.chars().all(may_stand) {
            return Err(NameError::Job(text.to_owned()));
        }
        Ok(Self(text.to_owned()))
    }
}

impl fmt::Display for QueueName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Display for JobName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_becomes_the_same_job_whoever_looks() {
        assert_eq!(JobName::of("wordcount.toml", 1294).as_str(), "wordcount-zy");
        assert_eq!(JobName::of("a b/ü.toml", 0).as_str(), "a_b__-0");
        assert_eq!(JobName::of(".toml", 36).as_str(), "_-10");
        assert_eq!(JobName::of("..", 1).as_str(), "_..-1");
    }

    #[test]
    fn every_name_that_is_made_is_a_name() {
        let names = ["", ".", "..", "x", "ü", &"y".repeat(300), "a/b", "-"];
        for name in names {
            for inode in [0, 1, u64::MAX] {
                let job = JobName::of(name, inode);
                assert_eq!(job.as_str().parse::<JobName>().as_ref(), Ok(&job));
            }
        }
        assert!("../x".parse::<JobName>().is_err());
        assert!("".parse::<QueueName>().is_err() && "a.b".parse::<QueueName>().is_err());
    }
}
