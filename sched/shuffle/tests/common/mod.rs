//! What the tests of this crate share: a folder, small limits, and one call for a whole job.

#![allow(dead_code, unreachable_pub, reason = "each test binary uses its own part of this")]

use std::path::{Path, PathBuf};
use std::sync::atomic::AtomicBool;

use sched_shuffle::{
    Control, Durability, Format, InputFile, InstanceId, Key, Limits, MapOutput, MapTask, PartitionId,
    Partitioner, Program, RecordSpec, ReduceTask, Result, map, reduce, splits,
};

pub const LINES: RecordSpec = RecordSpec { format: Format::Lines, key: Key::Whole };

/// Limits so small that everything spills and crosses blocks.
pub fn tiny(memory_bytes: usize, block_bytes: usize) -> Limits {
    Limits { memory_bytes, block_bytes, sort_threads: 2 }
}

pub fn with_control<T>(run: impl FnOnce(&Control<'_>) -> T) -> T {
    let cancel = AtomicBool::new(false);
    run(&Control::new(&cancel, &|_, _| {}))
}

pub fn shell(dir: &Path, script: &str) -> Program {
    Program {
        executable: "/bin/sh".into(),
        args: vec!["-c".into(), script.into(), "sh".into()],
        env: vec![("LC_ALL".into(), "C".into())],
        current_dir: None,
        stderr: dir.join("stderr"),
    }
}

/// A whole job over files.
#[derive(Clone)]
pub struct Job {
    pub spec: RecordSpec,
    pub partitioner: Partitioner,
    pub limits: Limits,
    pub split_bytes: u64,
    pub mapper: Option<Program>,
    pub combiner: Option<Program>,
    pub reducer: Option<Program>,
}

impl Job {
    pub fn new(limits: Limits) -> Self {
        Self {
            spec: LINES,
            partitioner: Partitioner::Hash(1),
            limits,
            split_bytes: 100,
            mapper: None,
            combiner: None,
            reducer: None,
        }
    }

    /// Writes `contents` to files and maps them, one instance a split.
    pub fn map_all(&self, dir: &Path, contents: &[Vec<u8>]) -> Result<Vec<MapOutput>> {
        let inputs: Vec<_> =
            contents.iter().enumerate().map(|(i, bytes)| input(dir, &format!("in-{i}"), bytes)).collect();
        let mut outputs = Vec::new();
        for (i, split) in splits(&inputs, self.split_bytes, self.spec.format)?.into_iter().enumerate() {
            let task = self.map_task(dir.join(format!("map-{i}")), vec![split]);
            with_control(|control| map(&task, control))?;
            outputs.push(MapOutput { instance: InstanceId(i as u32), path: task.output });
        }
        Ok(outputs)
    }

    pub fn map_task(&self, output: PathBuf, splits: Vec<sched_shuffle::Split>) -> MapTask {
        MapTask {
            splits,
            input_format: self.spec.format,
            spec: self.spec,
            mapper: self.mapper.clone(),
            combiner: self.combiner.clone(),
            partitioner: self.partitioner.clone(),
            output,
            limits: self.limits,
        }
    }

    pub fn reduce_task(&self, dir: &Path, inputs: &[MapOutput], partition: u32) -> ReduceTask {
        ReduceTask {
            partition: PartitionId(partition),
            inputs: inputs.to_vec(),
            spec: self.spec,
            reducer: self.reducer.clone(),
            output: dir.join(format!("out-{partition}")),
            scratch_prefix: dir.join(format!("scratch-{partition}")),
            limits: self.limits,
            durability: Durability::Unsynced,
        }
    }

    /// The outputs of all partitions.
    pub fn run(&self, dir: &Path, contents: &[Vec<u8>]) -> Result<Vec<Vec<u8>>> {
        let inputs = self.map_all(dir, contents)?;
        (0..self.partitioner.count())
            .map(|p| {
                let task = self.reduce_task(dir, &inputs, p);
                with_control(|control| reduce(&task, control))?;
                Ok(std::fs::read(&task.output).expect("an instance that succeeded has an output"))
            })
            .collect()
    }
}

pub fn input(dir: &Path, name: &str, bytes: &[u8]) -> InputFile {
    let path = dir.join(name);
    std::fs::write(&path, bytes).expect("the test folder can be written");
    InputFile { path, len_bytes: bytes.len() as u64 }
}

/// The lines of files, each with its newline.
pub fn lines(contents: &[Vec<u8>]) -> Vec<Vec<u8>> {
    let mut all = Vec::new();
    for bytes in contents {
        for line in bytes.split_inclusive(|byte| *byte == b'\n') {
            let mut line = line.to_vec();
            if line.last() != Some(&b'\n') {
                line.push(b'\n');
            }
            all.push(line);
        }
    }
    all
}
