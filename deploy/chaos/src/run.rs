//! A run from the first server to the last check.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use anyhow::Context as _;
use deploy_e2e::{Ended, Load, Owed, Watch, verify};
use deploy_local_cluster::{Options, Role, Throttle};
use parking_lot::Mutex;
use rand::rngs::StdRng;
use rand::{Rng as _, SeedableRng as _};

use crate::Flags;
use crate::crew::{Crew, Met, Mounts, Span};
use crate::disks::{self, Disk};
use crate::keep::kept;
use crate::linear::Operation;
use crate::names::{self, Done};
use crate::nemesis::{Event, Nemesis};
use crate::plan::{Fault, Plan, Step};
use crate::registers::{self, Access};
use crate::report::{Check, Report, Seen};
use crate::verdict::{self, sorted};

const MASTERS: u32 = 3;
/// The kernel of the first believes what it was told of names for that long; that of the second asks each time.
const TTL: [Duration; MOUNTS] = [Duration::from_secs(1), Duration::ZERO];
const MOUNTS: usize = 2;
const REGISTER_WORKERS: usize = 6;
const NAME_WORKERS: usize = 6;
/// When faults are over, whoever still waits after this waits for ever.
const WORKERS_END: Duration = Duration::from_secs(120);
/// The kernel's cache of a file's pages and names is left alone by readers this often.
const READER_PAUSE: Duration = Duration::from_millis(15);

/// A thread that leaves with what it saw.
enum Worker {
    Registers(JoinHandle<Vec<(usize, Operation<Access>)>>),
    Names(JoinHandle<Vec<(usize, Operation<Done>)>>),
    Other(JoinHandle<()>),
}

impl Worker {
    fn is_finished(&self) -> bool {
        match self {
            Self::Registers(thread) => thread.is_finished(),
            Self::Names(thread) => thread.is_finished(),
            Self::Other(thread) => thread.is_finished(),
        }
    }
}

/// Writers to look over the shoulders of: ledger, folder below the mount, and which mount.
type Watched = Arc<Mutex<Vec<(Watch, PathBuf, usize)>>>;

struct Scene<'a> {
    flags: &'a Flags,
    interrupted: &'a AtomicBool,
    seed: u64,
    crew: Arc<Crew>,
    mounts: Mounts,
    nemesis: Nemesis,
    loads: Vec<Load>,
    watched: Watched,
    read_bytes: Arc<AtomicU64>,
    workers: Vec<Worker>,
    events: Vec<Event>,
    trouble: Vec<String>,
}

/// Answers whether every check passed.
pub(crate) fn run(flags: &Flags, interrupted: &AtomicBool) -> anyhow::Result<bool> {
    let seed = flags.seed.unwrap_or_else(|| u64::from(rand::random::<u32>()));
    eprintln!("chaos: seed {seed}, {} s", flags.seconds);
    let name = format!("pangu-chaos-{seed}");
    let mut left_out = Vec::new();
    let mut faults = flags.faults(&Fault::ALL)?;
    if faults.contains(&Fault::Slow) && !Throttle::is_possible() {
        left_out.push(format!("{}: {}", Fault::Slow, disks::NO_THROTTLE));
        faults.retain(|fault| *fault != Fault::Slow);
    }
    anyhow::ensure!(!faults.is_empty(), "no fault is left that this machine can do: {}", left_out.join("; "));
    let folder = tempfile::Builder::new().prefix("feitian-chaos-").tempdir()?;
    let mut scene = Scene::up(flags, interrupted, seed, folder.path())?;
    let plan = Plan::new(StdRng::seed_from_u64(seed), faults, flags.chunkservers, MASTERS);
    let done = scene.work().and_then(|()| scene.hurt(plan));
    if interrupted.load(Ordering::Acquire) {
        scene.abandon();
        return Ok(false);
    }
    if let Err(error) = done {
        scene.abandon();
        return Err(error.context(format!("the run broke off; logs: {}", kept(folder.path(), &name, None))));
    }
    let mut report = Report::new(seed, flags.seconds, left_out);
    let judged = scene.judge(&mut report);
    let histories =
        judged.map_err(|error| error.context(format!("logs: {}", kept(folder.path(), &name, None))))?;
    report.tell(&Fault::ALL, flags.json.as_deref(), || kept(folder.path(), &name, histories.as_ref()))
}

impl<'a> Scene<'a> {
    fn up(flags: &'a Flags, interrupted: &'a AtomicBool, seed: u64, folder: &Path) -> anyhow::Result<Self> {
        let disks = (1..=flags.chunkservers)
            .map(|n| Disk::make(folder, &Role::Chunkserver(n).to_string()))
            .collect::<anyhow::Result<Vec<Disk>>>()?;
        let mut options = Options::new(MASTERS, flags.chunkservers);
        options.network = true;
        options.folder = Some(folder.to_owned());
        options.capacity = "3G".to_owned();
        // With an odd seed whoever is away for a few seconds is replaced, so that filling others is part of the run.
        if seed % 2 == 1 {
            options.survival = "replace_after_s = 4\n".to_owned();
        }
        let replicas = options.replicas as usize;
        let mut cluster = options.start()?;
        // What servers say of each other while they are hurt is no sign of anything; a panic is.
        cluster.announce(" WARN ");
        cluster.announce(" ERROR ");
        let mut points = Vec::new();
        for ttl in TTL {
            let point = cluster.mount_with(&["--ttl-ms", &ttl.as_millis().to_string()])?;
            points.push((point, ttl));
        }
        Ok(Self {
            flags,
            interrupted,
            seed,
            crew: Arc::new(Crew::new()),
            mounts: Mounts::new(points),
            nemesis: Nemesis { cluster, disks, replicas },
            loads: Vec::new(),
            watched: Watched::default(),
            read_bytes: Arc::default(),
            workers: Vec::new(),
            events: Vec::new(),
            trouble: Vec::new(),
        })
    }

    fn goes_on(&self) -> bool {
        !self.interrupted.load(Ordering::Acquire)
    }

    fn dice(&self, worker: usize) -> StdRng {
        StdRng::seed_from_u64(self.seed ^ (worker as u64 + 1) << 40)
    }

    /// Starts all workers.
    fn work(&mut self) -> anyhow::Result<()> {
        let root = self.mounts.of(0).to_owned();
        registers::make(&root).context("make the registers")?;
        let (span, made) = self.crew.attempt("make an arena", || names::make(&root, 0));
        made.context("make the first arena")?;
        let first = names::made(0, span);
        for (at, point) in self.mounts.all().iter().enumerate() {
            let folder = point.join(format!("load{at}"));
            std::fs::create_dir(&folder)?;
            self.loads.push(Load::start(&folder, 1, self.seed ^ (at as u64) << 32)?);
        }
        self.watch();
        for worker in 0..REGISTER_WORKERS {
            let (crew, mounts, dice) = (Arc::clone(&self.crew), self.mounts.clone(), self.dice(worker));
            let thread = thread::spawn(move || registers::work(&crew, &mounts, worker, dice));
            self.workers.push(Worker::Registers(thread));
        }
        for worker in REGISTER_WORKERS..REGISTER_WORKERS + NAME_WORKERS {
            let (crew, mounts, dice) = (Arc::clone(&self.crew), self.mounts.clone(), self.dice(worker));
            let thread = thread::spawn(move || names::work(&crew, &mounts, worker, dice));
            self.workers.push(Worker::Names(thread));
        }
        let crew = Arc::clone(&self.crew);
        self.workers.push(Worker::Names(thread::spawn(move || keep_arenas(&crew, &root, first))));
        for reader in 0..MOUNTS {
            let (crew, mounts) = (Arc::clone(&self.crew), self.mounts.clone());
            let (watched, bytes) = (Arc::clone(&self.watched), Arc::clone(&self.read_bytes));
            let dice = self.dice(100 + reader);
            let thread = thread::spawn(move || read(&crew, &mounts, reader, &watched, &bytes, dice));
            self.workers.push(Worker::Other(thread));
        }
        Ok(())
    }

    /// Tells the readers who writes.
    fn watch(&self) {
        let mut all = Vec::new();
        for (at, load) in self.loads.iter().enumerate() {
            for writer in load.writers() {
                let below =
                    writer.folder().strip_prefix(self.mounts.of(at)).unwrap_or_else(|_| writer.folder());
                all.push((writer.watch(), below.to_owned(), at));
            }
        }
        *self.watched.lock() = all;
    }

    fn replace_ended(&mut self) -> anyhow::Result<()> {
        let mut any = false;
        for load in &mut self.loads {
            any |= load.replace_ended()?;
        }
        if any {
            self.watch();
        }
        Ok(())
    }

    /// Takes everything down with nobody at work: whoever went on would find the directories below the mounts.
    fn abandon(mut self) {
        self.crew.end();
        let killed = self.nemesis.cluster.kill_all();
        let _nobody = self.crew.hold(WORKERS_END);
        drop((killed, self.nemesis));
    }

    /// Faults, until the time is over.
    fn hurt(&mut self, mut plan: Plan) -> anyhow::Result<()> {
        let began = Instant::now();
        let time = Duration::from_secs(self.flags.seconds);
        let mut last = None;
        while began.elapsed() < time && self.goes_on() {
            let step = plan.next();
            self.pause(step.rest);
            // Whoever was hurt before must have all again, or two copies of three are away.
            let chunkserver =
                step.faults.iter().find(|(fault, _)| !fault.is_of_a_master()).map(|(_, victim)| *victim);
            if (step.whole || chunkserver.is_some() && last != chunkserver) && !self.wait_whole() {
                self.trouble.push("the groups did not get whole between faults".to_owned());
                return Ok(());
            }
            last = chunkserver.or(last);
            self.step(&step)?;
        }
        Ok(())
    }

    fn step(&mut self, step: &Step) -> anyhow::Result<()> {
        let mut under_way = Vec::new();
        for load in &self.loads {
            let _before = load.take_longest();
        }
        for (index, (fault, victim)) in step.faults.iter().enumerate() {
            if index > 0 {
                self.pause(step.between);
            }
            let (role, event, late) = self.nemesis.hurt(&self.crew, *fault, *victim)?;
            self.trouble.extend(late);
            self.say(&format!("{fault} {}", event.whom));
            under_way.push((role, event));
        }
        // Programs that lost their mount are gone at once, whatever else is to come.
        let all = step.faults.iter().any(|(fault, _)| *fault == Fault::Everything);
        self.pause(if all { Duration::from_millis(500) } else { step.lasts });
        while let Some((role, mut event)) = under_way.pop() {
            self.nemesis.heal(&self.crew, role, &mut event)?;
            self.note_writers(&event);
            let stall = self.crew.longest(event.span).as_secs_f64();
            let after = seconds(event.span);
            self.say(&format!(
                "{} {}: over after {after:.1} s, longest operation {stall:.2} s",
                event.fault, event.whom
            ));
            self.events.push(event);
        }
        if let Err(error) = self.nemesis.cluster.check_alive() {
            self.trouble.push(error.to_string());
            self.nemesis.cluster.restart_all()?;
        }
        self.replace_ended()
    }

    /// The writers' longest operation, as if it ended now.
    fn note_writers(&self, event: &Event) {
        for load in &self.loads {
            let longest = u64::try_from(load.take_longest().as_nanos()).unwrap_or(u64::MAX);
            let returned_ns = event.span.returned_ns;
            self.crew.note(Span { called_ns: returned_ns.saturating_sub(longest), returned_ns });
        }
    }

    fn pause(&self, time: Duration) {
        let began = Instant::now();
        while began.elapsed() < time && self.goes_on() {
            thread::sleep(Duration::from_millis(20).min(time));
        }
    }

    fn wait_whole(&self) -> bool {
        self.nemesis.wait_whole(&|| self.goes_on())
    }

    fn say(&self, what: &str) {
        eprintln!("{:7.1} s  {what}  ({} operations)", self.crew.now_ns() as f64 / 1e9, self.crew.done());
    }

    /// Ends the load and checks everything; answers the histories if a check failed.
    fn judge(mut self, report: &mut Report<Fault>) -> anyhow::Result<Option<serde_json::Value>> {
        self.say("the load ends");
        self.crew.end();
        let mut ending = Vec::new();
        let began = Instant::now();
        while self.workers.iter().any(|worker| !worker.is_finished()) {
            if began.elapsed() > WORKERS_END {
                let waiting = self.workers.iter().filter(|worker| !worker.is_finished()).count();
                ending.push(format!("{waiting} programs wait {WORKERS_END:?} after the last fault"));
                // Their mounts must go, or nobody ever gets on.
                self.nemesis.cluster.kill_all()?;
                break;
            }
            thread::sleep(Duration::from_millis(20));
        }
        let whole = ending.is_empty() && self.wait_whole();
        let mut alive: Vec<String> =
            self.nemesis.cluster.check_alive().err().map(|error| error.to_string()).into_iter().collect();
        alive.append(&mut self.trouble);
        let groups = if whole { Vec::new() } else { vec![format!("not whole:\n{}", self.nemesis.words())] };
        self.nemesis.cluster.restart_all()?;

        let (mut register_history, mut name_history) = (Vec::new(), Vec::new());
        for worker in std::mem::take(&mut self.workers) {
            let panicked = match worker {
                Worker::Registers(thread) => thread.join().map(|history| register_history.extend(history)),
                Worker::Names(thread) => thread.join().map(|history| name_history.extend(history)),
                Worker::Other(thread) => thread.join(),
            };
            if panicked.is_err() {
                ending.push("a worker panicked".to_owned());
            }
        }
        let ended: Vec<Ended> = std::mem::take(&mut self.loads).into_iter().map(Load::finish).collect();
        let mut wrong = self.look_again(report, &ended)?;
        let observer = REGISTER_WORKERS + NAME_WORKERS;
        register_history.extend(registers::read_all(&self.crew, self.mounts.of(observer), observer));
        let mut name_histories = sorted(name_history);
        let arenas: Vec<usize> = name_histories.keys().copied().collect();
        for (arena, operation) in names::list_all(&self.crew, self.mounts.of(observer), observer, &arenas) {
            name_histories.entry(arena).or_default().push(operation);
        }
        let register_histories = sorted(register_history);
        self.say("all is read again; histories are checked");
        wrong.extend(self.crew.take_wrong());

        let met = self.all_met(&ended);
        let stray = met.iter().filter(|met| !self.events.iter().any(|event| verdict::belongs(met, event)));
        let strays = stray.map(|met| {
            format!(
                "at {:.1} s, after {:.2} s: {}",
                met.span.called_ns as f64 / 1e9,
                met.span.took().as_secs_f64(),
                met.what
            )
        });
        ending.extend(strays);
        report.faults = self.events.iter().map(|event| self.seen(event, &met)).collect();
        let registers: usize = register_histories.values().map(Vec::len).sum();
        let names: usize = name_histories.values().map(Vec::len).sum();
        let unknown = verdict::unknown(&register_histories) + verdict::unknown(&name_histories);
        report.figure("register_operations", registers);
        report.figure("name_operations", names);
        report.figure("unknown", unknown);
        let read_bytes = self.read_bytes.load(Ordering::Relaxed);
        report.figure("read_bytes", read_bytes);
        report.sentences.push(format!(
            "{} MiB read on another mount and right; checked for linearizability: {registers} operations on registers, {names} on names, {unknown} of unknown outcome",
            read_bytes >> 20
        ));
        let mut check = |name, wrong| report.checks.push(Check { name, wrong });
        check("no error reached a program but for faults beyond the promise", ending);
        check("every confirmed byte is right, and nothing else was read", wrong);
        check("registers are linearizable", verdict::registers(&register_histories));
        check("names are linearizable", verdict::names(&name_histories, &self.mounts));
        check("all groups were whole at the end", groups);
        check("no process died by itself or stopped late", alive);
        let (binary, data) = (
            self.nemesis.cluster.binaries().join("pangu-chunkserver"),
            self.nemesis.disks.iter().map(Disk::data).collect::<Vec<_>>(),
        );
        let Nemesis { cluster, disks, .. } = self.nemesis;
        check("everything stopped in good order, without a panic in a log", said(cluster.finish()));
        check("every disk is clean", data.iter().filter_map(|data| damaged(&binary, data)).collect());
        drop(disks);
        let histories = || serde_json::json!({"registers": register_histories, "names": name_histories});
        Ok((report.failed() > 0).then(histories))
    }

    /// Everything that was confirmed, through mounts that remember nothing.
    fn look_again(&mut self, report: &mut Report<Fault>, ended: &[Ended]) -> anyhow::Result<Vec<String>> {
        let mut wrong: Vec<String> = ended.iter().flat_map(|ended| ended.wrong.iter().cloned()).collect();
        for client in 1..=MOUNTS {
            let client = Role::Client(u32::try_from(client)?);
            self.nemesis.cluster.stop(client)?;
            self.nemesis.cluster.restart(client)?;
        }
        let written_bytes: u64 = ended.iter().map(|ended| ended.written_bytes).sum();
        let mut all_right = 0;
        for owed in ended.iter().flat_map(|ended| &ended.owed) {
            let owed: &Owed = owed;
            let (again, right) = verify(owed);
            wrong.extend(again.into_iter().map(|what| format!("after a new mount: {what}")));
            all_right += right;
        }
        report.figure("written_bytes", written_bytes);
        report.figure("right", all_right);
        report.sentences.push(format!(
            "{} MiB written and confirmed, {all_right} files and blocks right at the end",
            written_bytes >> 20
        ));
        Ok(wrong)
    }

    fn all_met(&self, ended: &[Ended]) -> Vec<Met> {
        let mut all = self.crew.all_met();
        for met in ended.iter().flat_map(|ended| &ended.errors) {
            let span = Span { called_ns: self.crew.ns(met.from), returned_ns: self.crew.ns(met.upto) };
            all.push(Met::new(span, "a writer", &met.error));
        }
        all
    }

    fn seen(&self, event: &Event, met: &[Met]) -> Seen<Fault> {
        let errors = met.iter().filter(|met| met.span.meets(event.span)).count();
        Seen { event: event.clone(), stall: self.crew.longest(event.span), errors }
    }
}

fn seconds(span: Span) -> f64 {
    span.took().as_secs_f64()
}

fn said<T, E: std::fmt::Debug>(result: Result<T, E>) -> Vec<String> {
    result.err().map(|error| format!("{error:?}")).into_iter().collect()
}

/// What the offline check has to say of a disk, if anything.
fn damaged(binary: &Path, data: &Path) -> Option<String> {
    let output = std::process::Command::new(binary).arg("verify").arg(data).output();
    match output {
        Ok(output) if output.status.success() => None,
        Ok(output) => Some(format!(
            "{}: {}{}",
            data.display(),
            String::from_utf8_lossy(&output.stdout),
            String::from_utf8_lossy(&output.stderr)
        )),
        Err(error) => Some(format!("run {}: {error}", binary.display())),
    }
}

/// Opens a new arena whenever the last one has seen enough,
/// on the first mount. Answers what it saw of each.
fn keep_arenas(crew: &Crew, mount: &Path, first: Operation<Done>) -> Vec<(usize, Operation<Done>)> {
    let mut arena = 0;
    let mut history = vec![(arena, first)];
    while crew.goes_on() {
        if crew.arena_is_full() {
            // Another number each time: whether one that failed is there nobody knows.
            arena += 1;
            let (span, made) = crew.attempt("make an arena", || names::make(mount, arena));
            if made.is_ok() {
                history.push((arena, names::made(0, span)));
                crew.open_arena(arena);
            }
        }
        thread::sleep(Duration::from_millis(50));
    }
    history
}

/// Reads what writers on other mounts wrote.
fn read(crew: &Crew, mounts: &Mounts, reader: usize, watched: &Watched, bytes: &AtomicU64, mut dice: StdRng) {
    while crew.goes_on() {
        let all = watched.lock().clone();
        let others: Vec<_> = all.into_iter().filter(|(_, _, mount)| *mount != reader).collect();
        if let Some((watch, below, _)) = others.get(dice.random_range(0..others.len().max(1))) {
            let folder = mounts.of(reader).join(below);
            let number = dice.random();
            match crew.attempt("read another's file", || watch.read_one(&folder, number)).1 {
                Ok(Ok(right)) => {
                    bytes.fetch_add(right, Ordering::Relaxed);
                }
                Ok(Err(wrong)) => crew.wrong(format!("at {:.1} s: {wrong}", crew.now_ns() as f64 / 1e9)),
                // It is among the errors that programs met.
                Err(_) => {}
            }
        }
        thread::sleep(READER_PAUSE);
    }
}
