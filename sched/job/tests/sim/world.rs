//! The world of one job: a file system, a journal, a master that grants, workers, and the process around the job.
//!
//! Checked as it goes: no attempt is given to two workers; nothing whose output is in place is given out; no instance of a task without
//! backups runs twice at a time; no promotion finds another winner, or nothing, in place; no record is appended that the journal does not read back.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use sched_job::{
    AttemptId, Effect, Event, Finished, Job, JobOutcome, LossReason, NodeName, Outcome, Plan, Promotion,
    Record, Settings, TaskId, Time, UnitId, WorkerId, journal,
};

use crate::plans::node;

#[derive(Clone, Debug)]
pub(crate) struct Config {
    pub(crate) seed: u64,
    pub(crate) plan: Plan,
    pub(crate) nodes: u64,
    pub(crate) per_node: usize,
    pub(crate) slow_per_mille: u64,
    pub(crate) kill_per_mille: u64,
    pub(crate) fail_per_mille: u64,
    pub(crate) lose_reply_per_mille: u64,
    pub(crate) lose_output_per_mille: u64,
    pub(crate) crash_per_mille: u64,
    /// Crash before the effect of that number.
    pub(crate) crash_at: Option<u64>,
}

impl Config {
    pub(crate) fn calm(plan: Plan) -> Config {
        Config {
            seed: 0,
            plan,
            nodes: 10,
            per_node: 2,
            slow_per_mille: 0,
            kill_per_mille: 0,
            fail_per_mille: 0,
            lose_reply_per_mille: 0,
            lose_output_per_mille: 0,
            crash_per_mille: 0,
            crash_at: None,
        }
    }

    pub(crate) fn rough(plan: Plan) -> Config {
        Config {
            nodes: 4,
            slow_per_mille: 50,
            kill_per_mille: 30,
            fail_per_mille: 40,
            lose_reply_per_mille: 50,
            lose_output_per_mille: 20,
            crash_per_mille: 15,
            ..Config::calm(plan)
        }
    }
}

/// SplitMix64.
struct Luck(u64);

impl Luck {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    fn below(&mut self, n: u64) -> u64 {
        self.next() % n.max(1)
    }

    fn per_mille(&mut self, n: u64) -> bool {
        n > 0 && self.below(1000) < n
    }
}

enum Happens {
    Tick,
    Call(WorkerId),
    RunEnds(WorkerId, u64),
    Dies(WorkerId, u64),
    Promoted(AttemptId, Promotion),
    Grant,
    Restart,
}

struct Worker {
    unit: UnitId,
    node: NodeName,
    /// Gangs, members together.
    queue: VecDeque<Vec<AttemptId>>,
    /// What runs, since when, for how long.
    running: Option<(Vec<AttemptId>, u64, u64)>,
    run: u64,
    unacknowledged: BTreeMap<AttemptId, Finished>,
}

const CRASHES_MAX: u64 = 40;
const CALL_EVERY_MS: u64 = 1_000;

pub(crate) struct World {
    config: Config,
    luck: Luck,
    now: u64,
    queue: BTreeMap<(u64, u64), Happens>,
    sequence: u64,
    job: Option<Job>,
    journal: Vec<u8>,
    next_frame: u32,
    temp: BTreeSet<AttemptId>,
    out: BTreeMap<(TaskId, u32), AttemptId>,
    workers: BTreeMap<WorkerId, Worker>,
    next_worker: u64,
    wants: BTreeMap<UnitId, u64>,
    avoided: Vec<NodeName>,
    given: BTreeMap<AttemptId, WorkerId>,
    effects: u64,
    last_why: String,
    pub(crate) ended: Option<JobOutcome>,
    pub(crate) assigned: u64,
    pub(crate) crashes: u64,
    pub(crate) torn: u64,
    pub(crate) workers_lost: u64,
    backups: u64,
}

impl World {
    pub(crate) fn new(config: Config) -> World {
        World {
            luck: Luck(config.seed.wrapping_mul(77) + 5),
            config,
            now: 1_000_000,
            queue: BTreeMap::new(),
            sequence: 0,
            job: None,
            journal: Vec::new(),
            next_frame: 0,
            temp: BTreeSet::new(),
            out: BTreeMap::new(),
            workers: BTreeMap::new(),
            next_worker: 1,
            wants: BTreeMap::new(),
            avoided: Vec::new(),
            given: BTreeMap::new(),
            effects: 0,
            last_why: String::new(),
            ended: None,
            assigned: 0,
            crashes: 0,
            torn: 0,
            workers_lost: 0,
            backups: 0,
        }
    }

    pub(crate) fn why(&self) -> String {
        self.last_why.clone()
    }

    pub(crate) fn makespan_ms(&self) -> u64 {
        self.now - 1_000_000
    }

    pub(crate) fn backups(&self) -> u64 {
        self.backups
    }

    /// Attempts the plan needs if each instance runs once.
    pub(crate) fn instances(&self) -> u64 {
        self.config.plan.tasks.iter().map(|task| u64::from(task.instances)).sum()
    }

    fn at(&mut self, after_ms: u64, what: Happens) {
        self.sequence += 1;
        self.queue.insert((self.now + after_ms, self.sequence), what);
    }

    pub(crate) fn run(&mut self) {
        self.at(0, Happens::Restart);
        self.at(1_000, Happens::Tick);
        while self.ended.is_none() {
            let ((now, _), what) = self.queue.pop_first().expect("there is always a next tick");
            self.now = now;
            if self.makespan_ms() > 4_000_000 {
                break;
            }
            self.happen(what);
        }
    }

    fn happen(&mut self, what: Happens) {
        match what {
            Happens::Tick => {
                self.at(1_000, Happens::Tick);
                self.tell(vec![Event::Tick]);
            }
            Happens::Restart => self.restart(),
            Happens::Grant => self.grant(),
            Happens::Promoted(attempt, result) => self.tell(vec![Event::Promoted { attempt, result }]),
            Happens::Dies(id, run) => {
                if self.workers.get(&id).is_some_and(|worker| worker.run == run) {
                    self.workers.remove(&id);
                    self.workers_lost += 1;
                    self.at(1_000, Happens::Grant);
                    self.tell(vec![Event::WorkerLost {
                        worker: id,
                        reason: LossReason::Died("signal 9".to_owned()),
                    }]);
                }
            }
            Happens::RunEnds(id, run) => self.run_ends(id, run),
            Happens::Call(id) => {
                if self.workers.contains_key(&id) {
                    self.call(id);
                    self.at(CALL_EVERY_MS, Happens::Call(id));
                }
            }
        }
    }

    /// Events to the job, if it has a master now, and what it wants done.
    fn tell(&mut self, events: Vec<Event>) {
        let Some(job) = &mut self.job else { return };
        for event in events {
            job.handle(Time(self.now), event);
            let progress = job.progress();
            for (task, progress) in self.config.plan.tasks.iter().zip(&progress) {
                let sum = progress.waiting + progress.running + progress.done + progress.failed;
                assert_eq!(sum, task.instances, "the counts of {} fit: {progress:?}", task.name);
            }
        }
        self.last_why = job.why();
        let effects = job.drain();
        for effect in effects {
            let number = self.effects;
            self.effects += 1;
            let crashes = self.config.crash_at == Some(number)
                || self.crashes < CRASHES_MAX && self.luck.per_mille(self.config.crash_per_mille);
            if crashes {
                self.crash(&effect);
                return;
            }
            self.carry_out(effect);
        }
    }

    fn crash(&mut self, before: &Effect) {
        self.crashes += 1;
        self.job = None;
        if let Effect::Append(records) = before {
            let frame = journal::frame(self.next_frame, records);
            let kept = self.luck.below(frame.len() as u64) as usize;
            self.journal.extend(&frame[..kept]);
            self.torn += u64::from(kept > 0);
        }
        self.at(700, Happens::Restart);
    }

    fn restart(&mut self) {
        let fingerprint = self.config.plan.fingerprint();
        let read =
            journal::read(&self.journal, fingerprint).expect("a crash leaves a journal that can be read");
        self.journal.truncate(read.len_bytes);
        if self.journal.is_empty() {
            self.journal.extend(journal::header(fingerprint));
        }
        self.next_frame = read.next_frame;
        let settings = Settings::default();
        let job = Job::recover(self.config.plan.clone(), settings, &read.records, Time(self.now));
        self.job = Some(job.expect("the records fit the plan"));
        let mut events: Vec<Event> = Vec::new();
        for (id, worker) in &self.workers {
            events.push(Event::Granted { worker: *id, unit: worker.unit, node: worker.node.clone() });
        }
        events.push(Event::GrantsComplete);
        self.tell(events);
    }

    fn carry_out(&mut self, effect: Effect) {
        match effect {
            Effect::Append(records) => {
                self.journal.extend(journal::frame(self.next_frame, &records));
                self.next_frame += 1;
            }
            Effect::Acknowledge { worker, attempts } => {
                if let Some(worker) = self.workers.get_mut(&worker) {
                    worker.unacknowledged.retain(|attempt, _| !attempts.contains(attempt));
                }
            }
            Effect::Assign { worker, attempts } => self.assign(worker, attempts),
            Effect::Cancel { worker, attempt } => self.cancel(worker, attempt),
            Effect::Promote { attempt, outputs } => self.promote(attempt, outputs),
            Effect::Discard { attempt } => {
                self.temp.remove(&attempt);
            }
            Effect::Want(want) => {
                self.wants.insert(want.unit, want.total);
                self.at(200, Happens::Grant);
            }
            Effect::Release { worker } => {
                self.workers.remove(&worker);
                self.at(200, Happens::Grant);
            }
            Effect::AvoidNodes { nodes } => self.avoided = nodes,
            Effect::Tell(event) => {
                self.backups += u64::from(event.kind == sched_job::EventKind::Backup);
            }
            Effect::TaskDone { .. } => {}
            Effect::Ended { outcome } => self.ended = Some(outcome),
        }
    }

    fn assign(&mut self, id: WorkerId, attempts: Vec<AttemptId>) {
        for attempt in &attempts {
            self.assigned += u64::from(!self.given.contains_key(attempt));
            let other = self.given.insert(*attempt, id);
            assert!(
                other.is_none_or(|other| other == id),
                "{attempt:?} was given to {other:?} and to {id:?}"
            );
            let place = (attempt.task, attempt.instance);
            assert!(!self.out.contains_key(&place), "{attempt:?} is given out, but its output is in place");
        }
        if self.luck.per_mille(self.config.lose_reply_per_mille) {
            return;
        }
        let Some(worker) = self.workers.get_mut(&id) else { return };
        for attempt in attempts {
            let known = worker.queue.iter().chain(worker.running.iter().map(|(gang, _, _)| gang));
            if known.flatten().any(|held| *held == attempt) || worker.unacknowledged.contains_key(&attempt) {
                continue;
            }
            match worker.queue.back_mut() {
                Some(gang)
                    if gang[0].instance == attempt.instance
                        && gang[0].attempt == attempt.attempt
                        && is_piped(&self.config.plan, gang[0].task, attempt.task) =>
                {
                    gang.push(attempt);
                }
                _ => worker.queue.push_back(vec![attempt]),
            }
        }
        self.begin(id);
    }

    fn begin(&mut self, id: WorkerId) {
        let Some(worker) = self.workers.get_mut(&id).filter(|worker| worker.running.is_none()) else {
            return;
        };
        let Some(gang) = worker.queue.pop_front() else { return };
        worker.run += 1;
        let run = worker.run;
        let first = gang[0];
        let base_ms = match self.config.plan.tasks[first.task.0 as usize].name.as_str() {
            "short" => 5,
            _ => 8_000 + self.luck.below(8_000),
        };
        let slow = if self.luck.per_mille(self.config.slow_per_mille) { 5 } else { 1 };
        let ms = base_ms * slow;
        worker.running = Some((gang, self.now, ms));
        if !self.config.plan.tasks[first.task.0 as usize].backup {
            let runs = self.workers.values().filter_map(|worker| worker.running.as_ref());
            let same =
                runs.filter(|(gang, _, _)| gang[0].task == first.task && gang[0].instance == first.instance);
            assert_eq!(same.count(), 1, "{first:?} runs twice at a time");
        }
        let dies = base_ms > 100 && self.luck.per_mille(self.config.kill_per_mille);
        let after = self.luck.below(ms);
        if dies {
            self.at(after, Happens::Dies(id, run));
        } else {
            self.at(ms, Happens::RunEnds(id, run));
        }
    }

    fn run_ends(&mut self, id: WorkerId, run: u64) {
        let fails = self.luck.per_mille(self.config.fail_per_mille);
        let loses = self.luck.per_mille(self.config.lose_output_per_mille);
        let Some(worker) = self.workers.get_mut(&id).filter(|worker| worker.run == run) else { return };
        let Some((gang, since, ms)) = worker.running.take() else { return };
        // Readers look whether all that they read is there.
        let reads_map = self.config.plan.tasks[gang[0].task.0 as usize].name == "sort";
        if reads_map && loses {
            let lost = (TaskId(0), self.luck.below(60) as u32);
            self.out.remove(&lost);
        }
        let map = self.config.plan.tasks[0].instances;
        let lost = (0..map).find(|i| reads_map && !self.out.contains_key(&(TaskId(0), *i)));
        let outcome = match lost {
            Some(instance) => Some(Outcome::LostInput { task: TaskId(0), instance }),
            None if fails => Some(Outcome::Exit(1)),
            None => None,
        };
        let mut left = Vec::new();
        for (member, attempt) in gang.iter().enumerate() {
            let outcome = match &outcome {
                // The others of a gang notice nothing until they are cancelled.
                Some(_) if member > 0 => {
                    left.push(*attempt);
                    continue;
                }
                Some(outcome) => outcome.clone(),
                None => {
                    let outputs = outputs_of(&self.config.plan, *attempt);
                    if outputs > 0 {
                        self.temp.insert(*attempt);
                    }
                    Outcome::Ok { outputs, bytes: 10 }
                }
            };
            let report = Finished { attempt: *attempt, outcome, ran_ms: ms, message: "words".to_owned() };
            worker.unacknowledged.insert(*attempt, report);
        }
        if !left.is_empty() {
            worker.running = Some((left, since, u64::MAX));
        }
        let calls = worker.queue.is_empty() || self.luck.below(4) == 0;
        self.begin(id);
        if calls {
            self.call(id);
        }
    }

    fn cancel(&mut self, id: WorkerId, attempt: AttemptId) {
        if self.luck.per_mille(self.config.lose_reply_per_mille) {
            return;
        }
        let Some(worker) = self.workers.get_mut(&id) else { return };
        let queued = worker.queue.iter_mut().chain(worker.running.iter_mut().map(|(gang, _, _)| gang));
        let mut found = false;
        for gang in queued {
            found |= gang.contains(&attempt);
            gang.retain(|held| *held != attempt);
        }
        worker.queue.retain(|gang| !gang.is_empty());
        if worker.running.as_ref().is_some_and(|(gang, _, _)| gang.is_empty()) {
            worker.running = None;
            worker.run += 1;
        }
        if found {
            let report = Finished { attempt, outcome: Outcome::Cancelled, ran_ms: 0, message: String::new() };
            worker.unacknowledged.insert(attempt, report);
        }
        self.begin(id);
    }

    fn promote(&mut self, attempt: AttemptId, outputs: u32) {
        assert_eq!(outputs, outputs_of(&self.config.plan, attempt));
        let place = (attempt.task, attempt.instance);
        let there = self.out.get(&place).copied();
        assert!(
            there.is_none_or(|there| there == attempt),
            "{attempt:?} is promoted, but {there:?} is in place"
        );
        let moved = self.temp.remove(&attempt);
        assert!(moved || there.is_some(), "{attempt:?} is promoted, but its outputs are nowhere");
        self.out.insert(place, attempt);
        self.at(5, Happens::Promoted(attempt, Promotion::Placed));
    }

    fn call(&mut self, id: WorkerId) {
        let Some(worker) = self.workers.get(&id) else { return };
        let Some(job) = &self.job else { return };
        let finished: Vec<Finished> = worker.unacknowledged.values().cloned().collect();
        let held: Vec<AttemptId> = (worker.running.iter().map(|(gang, _, _)| gang))
            .chain(&worker.queue)
            .flatten()
            .copied()
            .collect();
        let mut events = Vec::new();
        if job.knows(id) {
            events.extend(finished.into_iter().map(|report| Event::Finished { worker: id, report }));
            if let Some((gang, since, ms)) = &worker.running {
                let done_ppm = ((self.now - since) * 1_000_000 / ms.max(&1)) as u32;
                events.push(Event::Progress { worker: id, attempt: gang[0], done_ppm });
            }
            events.push(Event::Holds { worker: id, attempts: held });
        } else {
            let (unit, node) = (worker.unit, worker.node.clone());
            events.push(Event::Adopted { worker: id, unit, node, running: held, finished });
        }
        let room = 64_u32.saturating_sub(worker.queue.len() as u32);
        events.push(Event::Pull { worker: id, room });
        self.tell(events);
    }

    fn grant(&mut self) {
        for (unit, total) in self.wants.clone() {
            let mut held = self.workers.values().filter(|worker| worker.unit == unit).count() as u64;
            for at in 0..self.config.nodes {
                let name = node(at);
                while held < total
                    && !self.avoided.contains(&name)
                    && self.workers.values().filter(|worker| worker.node == name).count()
                        < self.config.per_node
                {
                    let id = WorkerId(self.next_worker);
                    self.next_worker += 1;
                    held += 1;
                    let worker = Worker {
                        unit,
                        node: name.clone(),
                        queue: VecDeque::new(),
                        running: None,
                        run: 0,
                        unacknowledged: BTreeMap::new(),
                    };
                    self.workers.insert(id, worker);
                    self.at(300, Happens::Call(id));
                    self.tell(vec![Event::Granted { worker: id, unit, node: name.clone() }]);
                }
            }
        }
    }

    fn records(&self) -> Vec<Record> {
        journal::read(&self.journal, self.config.plan.fingerprint()).expect("the journal is whole").records
    }

    pub(crate) fn reopened(&self) -> usize {
        self.records().iter().filter(|record| matches!(record, Record::Reopened { .. })).count()
    }

    /// Every instance was won once more than it was lost, and all that it made is in place.
    pub(crate) fn check_end(&self) {
        let mut wins: BTreeMap<(TaskId, u32), i64> = BTreeMap::new();
        for record in self.records() {
            match record {
                Record::Won { task, ranges, .. } => {
                    for instance in ranges.into_iter().flat_map(|(start, end)| start..end) {
                        *wins.entry((task, instance)).or_default() += 1;
                    }
                }
                Record::Reopened { task, instance } => *wins.entry((task, instance)).or_default() -= 1,
                _ => {}
            }
        }
        for task in &self.config.plan.tasks {
            for instance in 0..task.instances {
                let leader = if task.name == "merge" { TaskId(1) } else { task.id };
                assert_eq!(wins.get(&(leader, instance)), Some(&1), "{} {instance}", task.name);
                let attempt = AttemptId { task: task.id, instance, attempt: 0 };
                // What a reader lost last, and nobody read again, is not missed.
                let is_there = self.out.contains_key(&(task.id, instance));
                assert!(is_there || task.name == "map" || outputs_of(&self.config.plan, attempt) == 0);
            }
        }
    }
}

fn is_piped(plan: &Plan, a: TaskId, b: TaskId) -> bool {
    let name = |task: TaskId| plan.tasks[task.0 as usize].name.as_str();
    name(a) == "sort" && name(b) == "merge"
}

fn outputs_of(plan: &Plan, attempt: AttemptId) -> u32 {
    match plan.tasks[attempt.task.0 as usize].name.as_str() {
        "short" => 0,
        "map" => 2,
        // Of a gang, one member may have none.
        "sort" => 0,
        _ => 1,
    }
}
