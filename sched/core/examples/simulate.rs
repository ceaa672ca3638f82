//! A cluster of thousands of agents with a long backlog, in one thread and without a network: how long does the
//! scheduler take for each event? `cargo run --release -p sched-core --example simulate [AGENTS [REQUESTS [EVENTS]]]`.
//!
//! The backlog is kept up: a job that ends is followed by another. Agents obey orders to stop with the next event.
//! Every sum is checked from scratch now and then, outside of the measured time. Results are in `benches/RESULTS.md`.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::time::{Duration, Instant};

use sched_core::*;

const RACK_NODES: u64 = 40;
const UNITS_OF_JOB: u64 = 4;
const DIVISIONS: u64 = 5;
const TEAMS: u64 = 4;
const GROUPS: u64 = 5;
const CHECKS: usize = 10;

/// Numbers that look random and are the same in every run (xorshift64*).
struct Dice(u64);

impl Dice {
    fn below(&mut self, bound: u64) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        (self.0.wrapping_mul(0x2545_F491_4F6C_DD1D) >> 33) % bound
    }
}

#[derive(Default)]
struct Times(BTreeMap<&'static str, Vec<Duration>>);

struct World {
    scheduler: Scheduler,
    dice: Dice,
    now: u64,
    agents: u64,
    next_job: u64,
    jobs: Vec<JobId>,
    /// What a job wants of each unit now, with the last version.
    wants: BTreeMap<(JobId, UnitId), (u64, u32, Resources)>,
    live: Vec<GrantId>,
    place: BTreeMap<GrantId, (usize, JobId, UnitId)>,
    stopping: VecDeque<GrantId>,
    lost: VecDeque<NodeId>,
    times: Times,
    granted: u64,
    preempted: u64,
}

impl World {
    fn tell(&mut self, kind: &'static str, event: Event) {
        self.measured(kind, event);
        while self.scheduler.has_work() {
            self.measured("(rest of an event)", Event::Tick);
        }
    }

    fn measured(&mut self, kind: &'static str, event: Event) {
        let start = Instant::now();
        let result = self.scheduler.handle(Millis(self.now), event);
        let effects: Vec<Effect> = self.scheduler.drain_effects().collect();
        self.times.0.entry(kind).or_default().push(start.elapsed());
        result.expect("the simulation tells only of what there is");
        for effect in effects {
            match effect {
                Effect::Grant { grant, job, unit, .. } => {
                    self.granted += 1;
                    self.place.insert(grant, (self.live.len(), job, unit));
                    self.live.push(grant);
                }
                Effect::Revoke { grant, reason, .. } => {
                    self.preempted += u64::from(matches!(reason, Reason::Preempted { .. }));
                    self.forget(grant);
                    if reason != Reason::NodeLost {
                        self.stopping.push_back(grant);
                    }
                }
                _ => {}
            }
        }
    }

    fn forget(&mut self, grant: GrantId) {
        let Some((at, ..)) = self.place.remove(&grant) else { return };
        self.live.swap_remove(at);
        if let Some(moved) = self.live.get(at)
            && let Some(entry) = self.place.get_mut(moved)
        {
            entry.0 = at;
        }
    }

    fn node_up(&mut self, id: u64) {
        let cores = if id.is_multiple_of(4) { 64 } else { 32 };
        let report = NodeReport {
            node: NodeId(id),
            name: Arc::from(format!("n{id}")),
            machine: MachineId(id),
            rack: RackId(id / RACK_NODES),
            capacity: Resources::new(cores * 1_000, cores * 4 * 1_024, 2_000_000),
            running: Vec::new(),
        };
        self.tell("agent registers", Event::NodeUp(report));
    }

    fn queues(&mut self) {
        let total = self.agents * 40_000;
        let mut define = |id: u64, parent: Option<u64>, min: u64, max: u64| {
            let spec = QueueSpec {
                name: Arc::from(format!("q{id}")),
                parent: parent.map(QueueId),
                min: Resources::ZERO.with(Dimension::CPU, min),
                max: Resources::UNLIMITED.with(Dimension::CPU, max),
                weight: 1 + (id % 3) as u32,
            };
            self.tell("queue defined", Event::QueueDefined { queue: QueueId(id), spec });
        };
        for division in 0..DIVISIONS {
            define(1_000 + division, None, 0, total / 2);
            for team in 0..TEAMS {
                let team_id = 2_000 + division * TEAMS + team;
                define(team_id, Some(1_000 + division), 0, total / 6);
                for group in 0..GROUPS {
                    let id = (division * TEAMS + team) * GROUPS + group;
                    define(id, Some(team_id), total / 300, total / 20);
                }
            }
        }
    }

    fn job(&mut self) {
        let job = JobId(self.next_job);
        self.next_job += 1;
        let queue = QueueId(self.dice.below(DIVISIONS * TEAMS * GROUPS));
        let priority = Priority([0, 0, 0, 1, 1, 2][self.dice.below(6) as usize]);
        let name = Arc::from(format!("j{}", job.0));
        self.jobs.push(job);
        self.tell("job starts", Event::JobStarted { job, name, queue, priority });
        for unit in 0..UNITS_OF_JOB {
            let cores = [1, 1, 1, 2, 2, 4, 8, 16][self.dice.below(8) as usize];
            let memory = [1, 2, 4, 8][self.dice.below(4) as usize] * 1_024;
            let resources = Resources::new(cores * 500, cores * memory / 2, 1_000);
            let total = 1 + self.dice.below(20) as u32;
            let mut machines = BTreeMap::new();
            if self.dice.below(3) == 0 {
                for _ in 0..3 {
                    machines.insert(MachineId(self.dice.below(self.agents)), 1 + total / 3);
                }
            }
            self.wants.insert((job, UnitId(unit as u32)), (1, total, resources));
            let want = Want {
                unit: UnitId(unit as u32),
                version: 1,
                resources,
                priority_offset: 0,
                total,
                prefer: Preferences { machines, racks: BTreeMap::new() },
            };
            self.tell("request", Event::Request { job, wants: vec![want], release: Vec::new() });
        }
    }

    /// A worker is done: its job wants one less, and its agent says that it ended.
    fn worker_done(&mut self) {
        if self.live.is_empty() {
            return;
        }
        let grant = self.live[self.dice.below(self.live.len() as u64) as usize];
        let (_, job, unit) = self.place[&grant];
        if let Some((version, total, resources)) = self.wants.get_mut(&(job, unit)) {
            (*version, *total) = (*version + 1, total.saturating_sub(1));
            let want = Want {
                unit,
                version: *version,
                resources: *resources,
                priority_offset: 0,
                total: *total,
                prefer: Preferences::default(),
            };
            self.tell("job wants less", Event::Request { job, wants: vec![want], release: Vec::new() });
        }
        self.forget(grant);
        self.tell("grant ends", Event::Ended { grant, outcome: Outcome::Done });
    }

    fn job_ends(&mut self) {
        let at = self.dice.below(self.jobs.len() as u64) as usize;
        let job = self.jobs.swap_remove(at);
        for unit in 0..UNITS_OF_JOB {
            self.wants.remove(&(job, UnitId(unit as u32)));
        }
        self.tell("job ends", Event::JobEnded(job));
    }

    fn step(&mut self, number: u64) {
        if number.is_multiple_of(5) {
            self.now += 1;
            if self.scheduler.next_deadline().is_some_and(|at| at.0 <= self.now) {
                self.tell("tick", Event::Tick);
            }
        }
        if let Some(grant) = self.stopping.pop_front() {
            return self.tell("grant ends", Event::Ended { grant, outcome: Outcome::Done });
        }
        match self.dice.below(1_000) {
            0 => {
                let node = NodeId(self.dice.below(self.agents));
                if !self.lost.contains(&node) {
                    self.lost.push_back(node);
                    self.tell("agent is lost", Event::NodeLost(node));
                }
            }
            1 => {
                if let Some(node) = self.lost.pop_front() {
                    self.node_up(node.0);
                }
            }
            2..=31 => {
                self.job_ends();
                self.job();
            }
            _ => self.worker_done(),
        }
    }

    fn check(&self) {
        self.scheduler.check().expect("every invariant holds");
    }
}

impl Times {
    fn take(&mut self, title: &str, granted: u64) {
        println!("\n{title}");
        println!(
            "{:<20} {:>9} {:>9} {:>9} {:>9} {:>9}",
            "event", "count", "p50 us", "p99 us", "p99.9 us", "max us"
        );
        let mut all: Vec<Duration> = Vec::new();
        for (kind, times) in std::mem::take(&mut self.0) {
            all.extend(&times);
            line(kind, times);
        }
        let spent: f64 = all.iter().map(Duration::as_secs_f64).sum();
        let events = all.len();
        line("all", all);
        println!(
            "{events} events in {spent:.2} s: {:.0} events/s; {granted} grants: {:.0} grants/s",
            events as f64 / spent,
            granted as f64 / spent
        );
    }
}

fn line(kind: &str, mut times: Vec<Duration>) {
    times.sort_unstable();
    let at = |share: f64| times[((times.len() - 1) as f64 * share) as usize].as_secs_f64() * 1e6;
    println!(
        "{kind:<20} {:>9} {:>9.1} {:>9.1} {:>9.1} {:>9.1}",
        times.len(),
        at(0.5),
        at(0.99),
        at(0.999),
        at(1.0)
    );
}

fn main() {
    let mut numbers =
        std::env::args().skip(1).map(|text| text.parse::<u64>().expect("arguments are numbers"));
    let agents = numbers.next().unwrap_or(5_000).max(1);
    let requests = numbers.next().unwrap_or(100_000);
    let events = numbers.next().unwrap_or(300_000);
    let mut world = World {
        scheduler: Scheduler::new(Config::default()).expect("the default configuration works"),
        dice: Dice(0x9E37_79B9_7F4A_7C15),
        now: 1,
        agents,
        next_job: 0,
        jobs: Vec::new(),
        wants: BTreeMap::new(),
        live: Vec::new(),
        place: BTreeMap::new(),
        stopping: VecDeque::new(),
        lost: VecDeque::new(),
        times: Times::default(),
        granted: 0,
        preempted: 0,
    };
    world.queues();
    for id in 0..agents {
        world.node_up(id);
    }
    world.times.take(&format!("{agents} agents register"), 0);
    while world.next_job * UNITS_OF_JOB < requests {
        world.now += 1;
        world.job();
    }
    world.check();
    let granted = std::mem::take(&mut world.granted);
    world.times.take(&format!("{requests} requests come"), granted);
    let (grants, waiting) = world.scheduler.totals();
    println!("{grants} grants, {waiting} units waiting");
    for number in 0..events {
        world.step(number);
        if number % (events / CHECKS as u64).max(1) == 0 {
            world.check();
        }
    }
    world.check();
    let granted = world.granted;
    world.times.take("workers and jobs end, others come, agents are lost and come back", granted);
    let (grants, waiting) = world.scheduler.totals();
    println!("{grants} grants, {waiting} units waiting; {} grants were preempted", world.preempted);
}
