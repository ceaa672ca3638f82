//! What became of an attempt.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use sched_api::proto;

use crate::attempt::Attempt;

/// Bytes of a report's text: a job may have a hundred thousand of them.
pub const MESSAGE_MAX: usize = 2048;

/// How an attempt ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    Ok,
    /// The program ended with this code, which is not 0.
    Exit(i32),
    /// The program was ended by this signal, which is not the worker's.
    Signal(i32),
    Timeout,
    /// An output of this instance is not there any more.
    LostInput {
        task: u32,
        instance: u32,
    },
    NoSuchProgram,
    OutOfMemory,
    /// Not the task's fault: it may run elsewhere, or here later.
    Machine,
    Cancelled,
}

/// What the job's master is told of an attempt.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Report {
    pub outcome: Outcome,
    /// What it said last, or what is wrong, in words; at most [`MESSAGE_MAX`] bytes.
    pub message: String,
    /// Microseconds since 1970.
    pub started_us: u64,
    pub ended_us: u64,
    /// Names in its output directory.
    pub outputs: u32,
    pub bytes_in: u64,
    pub bytes_out: u64,
}

impl Report {
    /// Of an attempt that began at `started` and has ended now.
    #[must_use]
    pub fn new(outcome: Outcome, message: impl Into<String>, started: SystemTime) -> Self {
        let mut message = message.into();
        clip(&mut message);
        Self {
            outcome,
            message,
            started_us: unix_us(started),
            ended_us: unix_us(SystemTime::now()),
            outputs: 0,
            bytes_in: 0,
            bytes_out: 0,
        }
    }

    /// Of an attempt that was not begun.
    #[must_use]
    pub fn never_ran(outcome: Outcome, message: impl Into<String>) -> Self {
        let mut message = message.into();
        clip(&mut message);
        Self { outcome, message, started_us: 0, ended_us: 0, outputs: 0, bytes_in: 0, bytes_out: 0 }
    }

    /// Says this instead.
    pub fn say(&mut self, mut message: String) {
        clip(&mut message);
        self.message = message;
    }

    /// As it is sent.
    #[must_use]
    pub fn to_proto(&self, attempt: Attempt) -> proto::Finished {
        use proto::Outcome as Wire;
        let (outcome, code, lost_task) = match self.outcome {
            Outcome::Ok => (Wire::Ok, 0, 0),
            Outcome::Exit(code) => (Wire::Exit, code, 0),
            Outcome::Signal(signal) => (Wire::Signal, signal, 0),
            Outcome::Timeout => (Wire::Timeout, 0, 0),
            Outcome::LostInput { task, instance } => {
                (Wire::LostInput, i32::try_from(instance).unwrap_or(i32::MAX), task)
            }
            Outcome::NoSuchProgram => (Wire::NoSuchProgram, 0, 0),
            Outcome::OutOfMemory => (Wire::OutOfMemory, 0, 0),
            Outcome::Machine => (Wire::Machine, 0, 0),
            Outcome::Cancelled => (Wire::Cancelled, 0, 0),
        };
        proto::Finished {
            attempt: Some(attempt.into()),
            outcome: outcome.into(),
            code,
            lost_task,
            message: self.message.clone(),
            started_unix_us: self.started_us,
            ended_unix_us: self.ended_us,
            outputs: self.outputs,
            bytes_in: self.bytes_in,
            bytes_out: self.bytes_out,
        }
    }
}

/// Microseconds since 1970; 0 for times before.
#[must_use]
pub fn unix_us(time: SystemTime) -> u64 {
    let since = time.duration_since(UNIX_EPOCH).unwrap_or(Duration::ZERO);
    u64::try_from(since.as_micros()).unwrap_or(u64::MAX)
}

/// Keeps the end of a text that is too long: the last words say what went wrong.
fn clip(message: &mut String) {
    if message.len() <= MESSAGE_MAX {
        return;
    }
    let mut from = message.len() - MESSAGE_MAX;
    while !message.is_char_boundary(from) {
        from += 1;
    }
    message.drain(..from);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_long_text_keeps_its_end_and_whole_characters() {
        let text = format!("{}end", "ä".repeat(MESSAGE_MAX));
        let report = Report::never_ran(Outcome::Machine, text);
        assert!(report.message.len() <= MESSAGE_MAX);
        assert!(report.message.starts_with('ä') && report.message.ends_with("äend"), "{}", report.message);
    }
}
