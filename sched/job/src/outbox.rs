//! What a job has to tell, in the order in which it may be carried out: records first, then answers to workers, then the rest.
//!
//! Since all records of a drain precede all its other effects, no effect can run ahead of a record it depends on, whatever the order in
//! which the state machine made them. Winners of one drain become ranges here.

use std::collections::BTreeMap;

use crate::effect::{Effect, EventKind, HumanEvent};
use crate::ids::{AttemptId, TaskId, Time, WorkerId};
use crate::record::{Outputs, Record};

/// Records of one append. Each is below 2 KiB but for ranges, of which one drain has no more than it was told winners.
const RECORDS_PER_APPEND: usize = 4_096;
/// Winners that become one record, so that no record is large.
const RANGES_PER_RECORD: usize = 16_384;

#[derive(Debug, Default)]
pub(crate) struct Outbox {
    records: Vec<Record>,
    wins: BTreeMap<(TaskId, u32, Outputs), Wins>,
    placed: BTreeMap<TaskId, Vec<u32>>,
    answers: BTreeMap<WorkerId, Vec<AttemptId>>,
    effects: Vec<Effect>,
}

#[derive(Debug, Default)]
struct Wins {
    instances: Vec<u32>,
    bytes: u64,
    ran_ms: u64,
}

impl Outbox {
    pub(crate) fn record(&mut self, record: Record) {
        // An instance may be won, lost and be won again: the order of such records matters.
        self.flush();
        self.records.push(record);
    }

    pub(crate) fn won(
        &mut self,
        task: TaskId,
        attempt: u32,
        outputs: Outputs,
        instance: u32,
        bytes: u64,
        ran_ms: u64,
    ) {
        let wins = self.wins.entry((task, attempt, outputs)).or_default();
        wins.instances.push(instance);
        wins.bytes = wins.bytes.saturating_add(bytes);
        wins.ran_ms = wins.ran_ms.saturating_add(ran_ms);
    }

    pub(crate) fn placed(&mut self, task: TaskId, instance: u32) {
        self.placed.entry(task).or_default().push(instance);
    }

    pub(crate) fn acknowledge(&mut self, worker: WorkerId, attempt: AttemptId) {
        self.answers.entry(worker).or_default().push(attempt);
    }

    pub(crate) fn effect(&mut self, effect: Effect) {
        self.effects.push(effect);
    }

    pub(crate) fn tell(&mut self, at: Time, kind: EventKind, text: String) {
        self.effects.push(Effect::Tell(HumanEvent { at, kind, text }));
    }

    pub(crate) fn drain(&mut self) -> Vec<Effect> {
        self.flush();
        let mut out = Vec::new();
        let mut records = std::mem::take(&mut self.records);
        while !records.is_empty() {
            let rest = records.split_off(records.len().min(RECORDS_PER_APPEND));
            out.push(Effect::Append(std::mem::replace(&mut records, rest)));
        }
        for (worker, attempts) in std::mem::take(&mut self.answers) {
            out.push(Effect::Acknowledge { worker, attempts });
        }
        out.append(&mut self.effects);
        out
    }

    fn flush(&mut self) {
        for ((task, attempt, outputs), wins) in std::mem::take(&mut self.wins) {
            let mean_ms = wins.ran_ms / (wins.instances.len() as u64).max(1);
            let mut bytes = wins.bytes;
            for ranges in ranges(wins.instances) {
                self.records.push(Record::Won { task, attempt, outputs, ranges, bytes, mean_ms });
                bytes = 0;
            }
        }
        for (task, instances) in std::mem::take(&mut self.placed) {
            self.records.extend(ranges(instances).into_iter().map(|ranges| Record::Placed { task, ranges }));
        }
    }
}

/// Half-open ranges that hold exactly these, a bounded number in each list.
fn ranges(mut instances: Vec<u32>) -> Vec<Vec<(u32, u32)>> {
    instances.sort_unstable();
    let mut ranges: Vec<(u32, u32)> = Vec::new();
    for instance in instances {
        match ranges.last_mut() {
            Some((_, end)) if *end == instance => *end += 1,
            _ => ranges.push((instance, instance + 1)),
        }
    }
    ranges.chunks(RANGES_PER_RECORD).map(<[_]>::to_vec).collect()
}
