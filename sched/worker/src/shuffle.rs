//! Runs attempts of MapReduce's tasks, by `sched-shuffle`.
//!
//! | kind | reads | makes, in its output directory |
//! | --- | --- | --- |
//! | sample | all inputs | `part`: boundaries |
//! | map | its pieces of the inputs; `shuffle/SAMPLE.0/part` | `part`: its records, sorted into partitions |
//! | reduce | `shuffle/MAP.I/part` of every instance I | `OUTPUT/part-NNNNN` |
//!
//! Their job's master moves what a sample or a map made to `shuffle/TASK.INSTANCE/`.

mod settings;

use std::io;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use sched_shuffle as engine;

use crate::attempt::Piece;
use crate::current::Stop;
use crate::desk::Assignment;
use crate::executor::{Environment, Executor};
use crate::files::Files;
use crate::report::{Outcome, Report};
use crate::task::{Kind, Task};

/// What a sample or a map makes.
const PART: &str = "part";
/// Keys for each partition: the largest is then about a third above the mean.
const SAMPLES_PER_PARTITION: usize = 100;

/// See the module.
#[derive(Debug)]
pub struct Shuffle {
    environment: Environment,
    files: Files,
}

/// What went in and came out, in bytes.
#[derive(Clone, Copy, Debug, Default)]
struct Moved {
    bytes_in: u64,
    bytes_out: u64,
}

/// Why there is no result.
enum Failure {
    Engine(engine::Error),
    /// The description lacks what its kind needs, or has what no instance can do.
    Described(String),
    Machine(String),
}

impl From<engine::Error> for Failure {
    fn from(error: engine::Error) -> Self {
        Self::Engine(error)
    }
}

impl Shuffle {
    #[must_use]
    pub fn new(environment: Environment, files: Files) -> Self {
        Self { environment, files }
    }

    fn work(&self, assignment: &Assignment, outputs: &Path) -> Result<Moved, Failure> {
        self.environment.current.limit(assignment.task.timeout);
        let current = &self.environment.current;
        let report = |done: u64, all: u64| current.progress(done, all);
        let control = engine::Control::new(current.flag(), &report);
        match assignment.task.kind {
            Kind::Sample => self.sample(assignment, outputs, &control),
            Kind::Map => self.map(assignment, outputs, &control),
            Kind::Reduce => self.reduce(assignment, outputs, &control),
            Kind::Command => Err(Failure::Described("a command is none of MapReduce's tasks".to_owned())),
        }
    }

    fn sample(
        &self,
        assignment: &Assignment,
        outputs: &Path,
        control: &engine::Control<'_>,
    ) -> Result<Moved, Failure> {
        let task = &assignment.task;
        let sample = task.sample.as_ref().ok_or_else(|| lacks("sample"))?;
        let inputs: Vec<_> = self.whole_files(&assignment.input);
        let bytes_in = inputs.iter().map(|input| input.len_bytes).sum();
        let spec = settings::record_spec(sample.records, &sample.key).map_err(Failure::Described)?;
        let boundaries = engine::sample(
            &engine::SampleTask {
                inputs,
                input_format: spec.format,
                spec,
                mapper: None,
                partitions: sample.partitions,
                samples: SAMPLES_PER_PARTITION.saturating_mul(sample.partitions as usize),
                limits: settings::limits(task.memory_mib),
            },
            control,
        )?;
        boundaries.write(&outputs.join(PART))?;
        Ok(Moved { bytes_in, bytes_out: 0 })
    }

    fn map(
        &self,
        assignment: &Assignment,
        outputs: &Path,
        control: &engine::Control<'_>,
    ) -> Result<Moved, Failure> {
        let task = &assignment.task;
        let map = task.map.as_ref().ok_or_else(|| lacks("map"))?;
        let spec = settings::record_spec(map.records, &map.key).map_err(Failure::Described)?;
        let partitioner = match &map.ranges_of {
            Some(sample) => engine::Partitioner::Range(engine::Boundaries::read(&self.between(sample, 0))?),
            None => engine::Partitioner::Hash(map.partitions),
        };
        let mount = &self.environment.config.mount;
        let split = |piece: &Piece| engine::Split {
            path: piece.path_in(mount),
            start: piece.offset,
            end_exclusive: piece.offset.saturating_add(piece.len),
        };
        let summary = engine::map(
            &engine::MapTask {
                splits: assignment.input.iter().map(split).collect(),
                input_format: spec.format,
                spec,
                mapper: self.program(assignment, map.mapper.as_deref())?,
                combiner: self.program(assignment, map.combiner.as_deref())?,
                partitioner,
                output: outputs.join(PART),
                limits: settings::limits(task.memory_mib),
            },
            control,
        )?;
        Ok(Moved { bytes_in: summary.input_bytes, bytes_out: summary.output_bytes })
    }

    fn reduce(
        &self,
        assignment: &Assignment,
        outputs: &Path,
        control: &engine::Control<'_>,
    ) -> Result<Moved, Failure> {
        let task = &assignment.task;
        let reduce = task.reduce.as_ref().ok_or_else(|| lacks("reduce"))?;
        let source = task.sources.iter().find(|source| source.name == reduce.of);
        let source = source.ok_or_else(|| lacks("sources"))?;
        let input = |instance| engine::MapOutput {
            instance: engine::InstanceId(instance),
            path: self.between(&source.name, instance),
        };
        let folder = outputs.join(&reduce.output);
        std::fs::create_dir_all(&folder).map_err(|error| machine("make", &folder, &error))?;
        let number = assignment.attempt.instance;
        let summary = engine::reduce(
            &engine::ReduceTask {
                partition: engine::PartitionId(number),
                inputs: (0..source.instances).map(input).collect(),
                spec: settings::record_spec(reduce.records, &reduce.key).map_err(Failure::Described)?,
                reducer: self.program(assignment, reduce.reducer.as_deref())?,
                output: folder.join(format!("part-{number:05}")),
                scratch_prefix: self.environment.config.scratch.join("merge"),
                limits: settings::limits(task.memory_mib),
                durability: engine::reduce::Durability::Synced,
            },
            control,
        )?;
        Ok(Moved { bytes_in: summary.input_bytes, bytes_out: summary.output_bytes })
    }

    /// What an instance of another task made, which its job's master has put in place.
    fn between(&self, task: &str, instance: u32) -> PathBuf {
        self.environment.config.job_directory().join("shuffle").join(format!("{task}.{instance}")).join(PART)
    }

    /// Sampling looks at whole files: pieces of one are put together.
    fn whole_files(&self, pieces: &[Piece]) -> Vec<engine::InputFile> {
        let mut files: Vec<engine::InputFile> = Vec::new();
        for piece in pieces {
            let path = piece.path_in(&self.environment.config.mount);
            let end = piece.offset.saturating_add(piece.len);
            match files.last_mut().filter(|last| last.path == path) {
                Some(last) => last.len_bytes = last.len_bytes.max(end),
                None => files.push(engine::InputFile { path, len_bytes: end }),
            }
        }
        files
    }

    fn program(
        &self,
        assignment: &Assignment,
        command: Option<&[String]>,
    ) -> Result<Option<engine::Program>, Failure> {
        let Some([name, arguments @ ..]) = command else { return Ok(None) };
        let Task { environment, name: task, .. } = &*assignment.task;
        let config = &self.environment.config;
        let attempt = assignment.attempt;
        let mut all: Vec<(std::ffi::OsString, std::ffi::OsString)> = vec![
            ("FUXI_TASK".into(), task.into()),
            ("FUXI_INSTANCE".into(), attempt.instance.to_string().into()),
            ("FUXI_ATTEMPT".into(), attempt.number.to_string().into()),
            ("FUXI_JOB_DIR".into(), config.job_directory().into()),
        ];
        all.extend(environment.iter().map(|(name, value)| (name.into(), value.into())));
        let executable = if name.contains('/') { config.mount.join(name) } else { name.into() };
        Ok(Some(engine::Program {
            executable,
            args: arguments.iter().map(Into::into).collect(),
            env: all,
            current_dir: Some(self.files.work()),
            stderr: self.files.words(),
        }))
    }

    fn report(&self, ended: Result<Moved, Failure>, task: &Task, started: SystemTime) -> Report {
        let failure = match ended {
            Ok(Moved { bytes_in, bytes_out }) => {
                return Report { bytes_in, bytes_out, ..Report::new(Outcome::Ok, "", started) };
            }
            Err(failure) => failure,
        };
        let (outcome, words) = match failure {
            Failure::Described(words) | Failure::Machine(words) => (Outcome::Machine, words),
            Failure::Engine(error) => (self.outcome(&error, task), sched_api::chain(&error)),
        };
        Report::new(outcome, words, started)
    }

    fn outcome(&self, error: &engine::Error, task: &Task) -> Outcome {
        use engine::Error;
        if let Some(stop) = self.environment.current.stopped() {
            return if stop == Stop::Timeout { Outcome::Timeout } else { Outcome::Cancelled };
        }
        if let Some(instance) = error.instance_to_rerun() {
            let of = task.reduce.as_ref().map(|reduce| &reduce.of);
            let source = task.sources.iter().find(|source| Some(&source.name) == of);
            return source.map_or(Outcome::Machine, |source| Outcome::LostInput {
                task: source.task,
                instance: instance.0,
            });
        }
        match error {
            Error::NoSuchProgram { .. } => Outcome::NoSuchProgram,
            Error::Exit { code, .. } => Outcome::Exit(*code),
            Error::Signal { signal, .. } => Outcome::Signal(*signal),
            Error::Cancelled => Outcome::Cancelled,
            // What another machine would not do better counts as the task's own fault.
            error if !error.retryable() => Outcome::Exit(1),
            _ => Outcome::Machine,
        }
    }
}

impl Executor for Shuffle {
    fn run(&mut self, assignment: &Assignment) -> Report {
        let started = SystemTime::now();
        let name = self.files.name(assignment);
        let outputs = self.files.outputs(&name);
        let ended = match crate::place::make_outputs(&outputs) {
            Ok(()) => self.work(assignment, &outputs),
            Err(error) => Err(machine("make", &outputs, &error)),
        };
        let mut report = self.report(ended, &assignment.task, started);
        self.files.keep_words(&name, &mut report);
        self.files.settle(&outputs, &mut report);
        report
    }
}

fn lacks(what: &str) -> Failure {
    Failure::Described(format!("the task's description has no {what:?}"))
}

fn machine(verb: &str, path: &Path, error: &io::Error) -> Failure {
    Failure::Machine(format!("{verb} {}: {error}", path.display()))
}
