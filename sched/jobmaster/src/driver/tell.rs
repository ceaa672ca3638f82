//! What people read: `status`, `why`, `progress`, `events`. Written beside the job's work, at most once a second.

use std::fmt::Write as _;
use std::fs;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant, UNIX_EPOCH};

use sched_job::{HumanEvent, Job, TaskProgress};
use serde_json::json;
use tokio::runtime::Handle;
use tokio::task::JoinHandle;

/// Between two writings.
const EVERY: Duration = Duration::from_secs(1);
/// Events that wait to be written; more are counted and left out. They are many only if everything fails.
const EVENTS_MAX: usize = 1_000;

/// See the module.
pub(crate) struct Teller {
    directory: PathBuf,
    runtime: Handle,
    written_at: Option<Instant>,
    writing: Option<JoinHandle<()>>,
    texts: [(&'static str, String); 3],
    written: [String; 3],
    events: Vec<String>,
    left_out: u64,
    waits: String,
    instances: u64,
    done: u64,
}

impl Teller {
    pub(crate) fn new(directory: PathBuf, runtime: Handle) -> Self {
        Self {
            directory,
            runtime,
            written_at: None,
            writing: None,
            texts: ["status", "why", "progress"].map(|name| (name, String::new())),
            written: Default::default(),
            events: Vec::new(),
            left_out: 0,
            waits: String::new(),
            instances: 0,
            done: 0,
        }
    }

    /// Why the master does not grant more ("" if it does).
    pub(crate) fn waits(&mut self, why: &str) {
        why.clone_into(&mut self.waits);
    }

    pub(crate) fn event(&mut self, event: &HumanEvent) {
        if self.events.len() >= EVENTS_MAX {
            self.left_out += 1;
            return;
        }
        let time = humantime::format_rfc3339_millis(UNIX_EPOCH + Duration::from_millis(event.at.0));
        let line = json!({"time": time.to_string(), "kind": event.kind.as_str(), "event": event.text});
        self.events.push(line.to_string());
    }

    pub(crate) fn counts(&self) -> (u64, u64) {
        (self.instances, self.done)
    }

    pub(crate) fn why(&self) -> &str {
        &self.texts[1].1
    }

    /// Takes what the job says of itself, and has it written if it is time.
    pub(crate) fn progress(&mut self, job: &Job, paused: bool) {
        let due = self.written_at.is_none_or(|at| at.elapsed() >= EVERY);
        let busy = self.writing.as_ref().is_some_and(|writing| !writing.is_finished());
        if !due || busy {
            return;
        }
        self.take(job, if paused { "paused" } else { "running" });
        self.written_at = Some(Instant::now());
        if let Some(write) = self.changes() {
            let directory = self.directory.clone();
            self.writing = Some(self.runtime.spawn_blocking(move || write.carry_out(&directory)));
        }
    }

    /// The last words, written before the directory is moved.
    pub(crate) fn finish(&mut self, job: &Job) {
        if let Some(writing) = self.writing.take() {
            // It ends by itself; a panic in it was told already.
            let _ended = self.runtime.block_on(writing);
        }
        // How the job ended is for the master to say, which moves it.
        self.take(job, "ending");
        if let Some(write) = self.changes() {
            write.carry_out(&self.directory);
        }
    }

    fn take(&mut self, job: &Job, status: &str) {
        let tasks = job.progress();
        self.instances = tasks.iter().map(|task| u64::from(instances(task))).sum();
        self.done = tasks.iter().map(|task| u64::from(task.done)).sum();
        let why = job.why();
        let why = if self.waits.is_empty() { why } else { format!("{why}; {}", self.waits) };
        for ((_, text), now) in self.texts.iter_mut().zip([status.to_owned(), why, table(&tasks)]) {
            *text = now;
        }
    }

    fn changes(&mut self) -> Option<Write> {
        let mut files = Vec::new();
        for ((name, text), written) in self.texts.iter().zip(&mut self.written) {
            if text != written {
                files.push((*name, format!("{}\n", text.trim_end())));
                written.clone_from(text);
            }
        }
        let mut events = std::mem::take(&mut self.events);
        if self.left_out > 0 {
            events.push(json!({"event": format!("{} more events were left out", self.left_out)}).to_string());
            self.left_out = 0;
        }
        (!files.is_empty() || !events.is_empty()).then_some(Write { files, events })
    }
}

/// What is to be written.
struct Write {
    files: Vec<(&'static str, String)>,
    events: Vec<String>,
}

impl Write {
    fn carry_out(&self, directory: &Path) {
        let written = self.files.iter().try_for_each(|(name, text)| {
            let temporary = directory.join(format!(".{name}"));
            fs::write(&temporary, text)?;
            fs::rename(&temporary, directory.join(name))
        });
        let appended = written.and_then(|()| {
            if self.events.is_empty() {
                return Ok(());
            }
            let mut file = fs::OpenOptions::new().create(true).append(true).open(directory.join("events"))?;
            file.write_all((self.events.join("\n") + "\n").as_bytes())
        });
        if let Err(error) = appended {
            tracing::warn!(%error, directory = %directory.display(), "tell how far the job is");
        }
    }
}

/// One line a task.
fn table(tasks: &[TaskProgress]) -> String {
    let mut text = format!(
        "{:<20} {:>9} {:>9} {:>9} {:>9} {:>9}  {}\n",
        "task", "done", "running", "waiting", "failed", "median", "progress"
    );
    for task in tasks {
        let median = task.median_ms.map(|ms| format!("{:.1} s", ms as f64 / 1e3)).unwrap_or_default();
        let total = instances(task).max(1);
        let percent = u64::from(task.done) * 100 / u64::from(total);
        writeln!(
            text,
            "{:<20} {:>9} {:>9} {:>9} {:>9} {:>9}  {} {percent:>3} %",
            task.name,
            task.done,
            task.running,
            task.waiting,
            task.failed,
            median,
            bar(percent)
        )
        .expect("a String grows");
    }
    text
}

fn instances(task: &TaskProgress) -> u32 {
    task.waiting + task.running + task.done + task.failed
}

fn bar(percent: u64) -> String {
    let full = usize::try_from(percent / 5).unwrap_or(0).min(20);
    format!("[{}{}]", "#".repeat(full), ".".repeat(20 - full))
}
