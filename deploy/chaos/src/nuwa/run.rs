//! A run from the first member to the last check.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use anyhow::Context as _;
use deploy_local_cluster::{Options, Role, Site};
use nuwa_api::client::Freshness;
use nuwa_api::proto::command::What as Command;
use nuwa_api::proto::read_reply::What as Shown;
use nuwa_api::proto::read_request::What as Question;
use nuwa_api::proto::{GetSession, SetHistory};
use nuwa_api::{ClientConfig, NuwaClient, Place, Watched};
use rand::SeedableRng as _;
use rand::rngs::StdRng;
use tokio::sync::watch;

use super::book::Book;
use super::history::History;
use super::nemesis::{Hurt, Nemesis};
use super::plan::{Fault, Plan, Scope, Step};
use super::sites::{self, Arenas, Setting, Started, clients};
use super::verdict::{self, Judged};
use super::watchers::Log;
use super::worker::PATIENCE;
use super::{locks, sequences, tree};
use crate::Flags;
use crate::crew::{Crew, Met};
use crate::keep::kept;
use crate::nemesis::Event;
use crate::report::{Check, Report, Seen};

const SITES: usize = 2;
/// Shorter runs are brisk: every kind of fault comes.
const BRISK: u64 = 120;
/// When faults are over, whoever still waits after this waits for ever.
const WORKERS_END: Duration = Duration::from_secs(120);
/// The slowest watcher, and a margin.
const WATCHERS_END: Duration = Duration::from_secs(120);
/// All of a run is kept, so that who reads it from the first revision on finds it all.
const HISTORY: SetHistory = SetHistory { events_max: 100_000_000, bytes_max: 16 << 30 };
/// Members make snapshots often, and keep little of the log: who was away for seconds is sent one.
const RAFT: &str = "snapshot_after_entries = 1500\nkeep_entries = 300\n";

struct Scene<'a> {
    flags: &'a Flags,
    interrupted: &'a AtomicBool,
    crew: Arc<Crew>,
    nemesis: Nemesis,
    places: Vec<Started>,
    end: watch::Sender<Option<u64>>,
    events: Vec<Event<Fault>>,
    trouble: Vec<String>,
}

/// Answers whether every check passed.
pub(crate) fn run(flags: &Flags, interrupted: &AtomicBool) -> anyhow::Result<bool> {
    let seed = flags.seed.unwrap_or_else(|| u64::from(rand::random::<u32>()));
    eprintln!("chaos: nuwa, {} members, seed {seed}, {} s", flags.members, flags.seconds);
    let name = format!("nuwa-chaos-{seed}");
    let faults = flags.faults(&Fault::ALL)?;
    let folder = tempfile::Builder::new().prefix("feitian-chaos-").tempdir()?;
    let broke_off = |error: anyhow::Error| {
        error.context(format!("the run broke off; logs: {}", kept(folder.path(), &name, None)))
    };
    let mut scene = Scene::up(flags, interrupted, seed, folder.path()).map_err(broke_off)?;
    let scope = Scope { members: flags.members, sites: SITES, brisk: flags.seconds < BRISK };
    let done = scene.hurt(Plan::new(StdRng::seed_from_u64(seed), faults, scope));
    if interrupted.load(Ordering::Acquire) {
        scene.abandon();
        return Ok(false);
    }
    if let Err(error) = done {
        scene.abandon();
        return Err(broke_off(error));
    }
    let mut report = Report::new(seed, flags.seconds, Vec::new());
    let histories = scene.judge(&mut report).map_err(broke_off)?;
    report.tell(&Fault::ALL, flags.json.as_deref(), || kept(folder.path(), &name, Some(&histories)))
}

impl<'a> Scene<'a> {
    /// Members, and clients at work.
    fn up(flags: &'a Flags, interrupted: &'a AtomicBool, seed: u64, folder: &Path) -> anyhow::Result<Self> {
        let mut options = Options::new(0, 0);
        options.nuwa = flags.members;
        options.network = true;
        options.folder = Some(folder.to_owned());
        options.raft = RAFT.to_owned();
        let mut cluster = options.start()?;
        // What members say of each other while they are hurt is no sign of anything; a panic is.
        cluster.announce(" WARN ");
        cluster.announce(" ERROR ");
        let sites = (0..SITES).map(|_| Ok(cluster.add_site()?)).collect::<anyhow::Result<Vec<Site>>>()?;
        // Its threads live where this one does, beside the members.
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build()?;
        let members = (1..=flags.members).map(|n| Ok(cluster.address_of(Role::Nuwa(n))?.parse()?));
        let members = members.collect::<anyhow::Result<Vec<_>>>()?;
        let client = {
            let _runtime = runtime.enter();
            NuwaClient::new(ClientConfig::with(members.clone(), cluster.access()?.transport()))
        };
        runtime.block_on(set_history(&client, HISTORY)).context("have all history kept")?;
        let end = watch::Sender::new(None);
        let crew = Arc::new(Crew::new());
        let arenas = Arc::new(Arenas::new());
        let mut places = Vec::new();
        for (place, site) in sites.iter().enumerate() {
            let (crew, arenas, end) = (Arc::clone(&crew), Arc::clone(&arenas), end.subscribe());
            let (members, access) = (members.clone(), cluster.access()?);
            let setting = Setting { crew, arenas, members, access, place, seed, end };
            places.push(sites::start(site.clone(), setting)?);
        }
        let nemesis = Nemesis { cluster, sites, members: flags.members, client, runtime };
        let (events, trouble) = (Vec::new(), Vec::new());
        Ok(Self { flags, interrupted, crew, nemesis, places, end, events, trouble })
    }

    fn goes_on(&self) -> bool {
        !self.interrupted.load(Ordering::Acquire)
    }

    fn say(&self, what: &str) {
        eprintln!("{:7.1} s  {what}  ({} operations)", self.crew.now_ns() as f64 / 1e9, self.crew.done());
    }

    fn pause(&self, time: Duration) {
        let began = Instant::now();
        while began.elapsed() < time && self.goes_on() {
            std::thread::sleep(Duration::from_millis(20).min(time));
        }
    }

    /// Clients end with this process.
    fn abandon(mut self) {
        self.crew.end();
        if let Err(error) = self.nemesis.cluster.kill_all() {
            eprintln!("chaos: {error}");
        }
    }

    /// Faults, until the time is over.
    fn hurt(&mut self, mut plan: Plan) -> anyhow::Result<()> {
        let began = Instant::now();
        let time = Duration::from_secs(self.flags.seconds);
        while began.elapsed() < time && self.goes_on() {
            let step = plan.next();
            self.pause(step.rest);
            if step.whole
                && let Err(wrong) = self.nemesis.wait_whole(&|| self.goes_on())
            {
                self.trouble.push(wrong);
            }
            self.step(&step)?;
        }
        Ok(())
    }

    fn step(&mut self, step: &Step) -> anyhow::Result<()> {
        let mut under_way: Vec<Hurt> = Vec::new();
        for (index, fault) in step.faults.iter().enumerate() {
            if index > 0 {
                self.pause(step.between);
            }
            let mut hurt = self.nemesis.hurt(&self.crew, *fault, &under_way)?;
            self.trouble.extend(hurt.late.take());
            self.say(&format!("{} {}", fault.0, hurt.event.whom));
            under_way.push(hurt);
        }
        self.pause(step.lasts);
        while let Some(mut hurt) = under_way.pop() {
            self.nemesis.heal(&self.crew, &mut hurt)?;
            let Event { fault, whom, span } = &hurt.event;
            let (after, stall) = (span.took().as_secs_f64(), self.crew.longest(*span).as_secs_f64());
            self.say(&format!("{fault} {whom}: over after {after:.1} s, longest operation {stall:.2} s"));
            self.events.push(hurt.event);
        }
        if let Err(error) = self.nemesis.cluster.check_alive() {
            self.trouble.push(error.to_string());
            self.nemesis.cluster.restart_all()?;
        }
        Ok(())
    }

    /// Ends the load and checks everything; answers the histories.
    fn judge(mut self, report: &mut Report<Fault>) -> anyhow::Result<serde_json::Value> {
        let whole = self.nemesis.wait_whole(&|| self.goes_on());
        self.say("the load ends");
        self.crew.end();
        let mut waiting = Vec::new();
        let books = self.books(&mut waiting);
        let (newest, mut ending) = self.settle(&books)?;
        self.end.send_replace(Some(newest));
        let logs = self.logs(&mut ending);
        self.say("watchers have ended; the history is read");
        let history = self.nemesis.runtime.block_on(History::read(&self.nemesis.client, newest));
        let history = history.map_err(|wrong| anyhow::anyhow!(wrong)).context("read the history")?;
        let differ = self.compare_trees(&history)?;
        let dropped = self.drop_history()?;
        self.say("all is read; histories are checked");
        let met = self.crew.all_met();
        waiting.extend(met.iter().map(|met| {
            let (at, took) = (met.span.called_ns as f64 / 1e9, met.span.took().as_secs_f64());
            format!("at {at:.1} s, after {took:.2} s: {}", met.what)
        }));
        let judged = verdict::judge(books, &history, &logs);
        let Judged { checks, sentence, figures, histories } = judged;
        report.faults = self.events.drain(..).map(|event| seen(&self.crew, &met, event)).collect();
        report.sentences.push(sentence);
        report.figures = figures;
        let mut alive: Vec<String> =
            self.nemesis.cluster.check_alive().err().map(|error| error.to_string()).into_iter().collect();
        alive.append(&mut self.trouble);
        let stopped = self.nemesis.cluster.finish().err().map(|error| format!("{error:?}"));
        let before = [
            ("no call waited in vain, no error reached a client", waiting),
            ("no answer was wrong by itself, no session over before its time", self.crew.take_wrong()),
        ];
        let after = [
            ("sessions end, and watchers catch up", ending),
            ("every member has the tree that the history makes", differ),
            ("who asks for history that was dropped is told so", dropped),
            ("the cluster was whole at the end", whole.err().into_iter().collect()),
            ("no process died by itself or stopped late", alive),
            ("everything stopped in good order, without a panic in a log", stopped.into_iter().collect()),
        ];
        let check = |(name, wrong)| Check { name, wrong };
        report.checks.extend(before.map(check));
        report.checks.extend(checks);
        report.checks.extend(after.map(check));
        Ok(histories)
    }

    /// What the workers wrote down.
    fn books(&mut self, waiting: &mut Vec<String>) -> Vec<Book> {
        let mut books = Vec::new();
        let deadline = Instant::now() + WORKERS_END;
        for (place, started) in self.places.iter().enumerate() {
            match started.books.recv_timeout(deadline.saturating_duration_since(Instant::now())) {
                Ok(all) => books.extend(all),
                Err(error) => {
                    waiting.push(format!("clients at {place}, {WORKERS_END:?} after the last fault: {error}"))
                }
            }
        }
        books
    }

    /// Waits until every session is over, and answers the newest revision.
    fn settle(&self, books: &[Book]) -> anyhow::Result<(u64, Vec<String>)> {
        let Nemesis { client, runtime, .. } = &self.nemesis;
        let mut wrong = Vec::new();
        // Whoever was abandoned at the very end still has its time; twice that is for a leader that is new.
        let deadline = Instant::now() + 2 * locks::TTL.max(sequences::TTL) + Duration::from_secs(5);
        runtime.block_on(async {
            for session in books.iter().flat_map(|book| &book.sessions) {
                while is_open(client, *session).await? {
                    if deadline < Instant::now() {
                        wrong.push(format!("session {session} does not end"));
                        break;
                    }
                    tokio::time::sleep(Duration::from_millis(50)).await;
                }
            }
            anyhow::Ok(())
        })?;
        let summary = Question::Summary(nuwa_api::proto::GetSummary {});
        let read = client.read(summary, Freshness::Linearizable, Some(Instant::now() + PATIENCE));
        Ok((runtime.block_on(read)?.0, wrong))
    }

    /// What the watchers were told.
    fn logs(&mut self, ending: &mut Vec<String>) -> Vec<Log> {
        let mut logs = Vec::new();
        let deadline = Instant::now() + WATCHERS_END;
        for (place, started) in self.places.drain(..).enumerate() {
            while !started.thread.is_finished() && Instant::now() < deadline {
                std::thread::sleep(Duration::from_millis(20));
            }
            if !started.thread.is_finished() {
                ending.push(format!("watchers at {place} do not end"));
                continue;
            }
            match started.thread.join() {
                Ok(Ok(all)) => logs.extend(all),
                Ok(Err(error)) => ending.push(format!("watchers at {place}: {error:#}")),
                Err(_) => ending.push(format!("watchers at {place}: a panic")),
            }
        }
        logs
    }

    /// The tree at the leader, and the tree of each member by itself, beside what the history makes.
    fn compare_trees(&self, history: &History) -> anyhow::Result<Vec<String>> {
        let expected = history.tree();
        let members = self.nemesis.addresses()?;
        let _runtime = self.nemesis.runtime.enter();
        let mut wrong = Vec::new();
        for (member, client) in clients(&members, &self.nemesis.cluster.access()?).into_iter().enumerate() {
            let freshness = if member == 0 { Freshness::Linearizable } else { Freshness::Stale };
            let read = async {
                // So that it knows what it must be shown.
                let newest = self.nemesis.client.newest();
                let deadline = Some(Instant::now() + PATIENCE);
                client.get("/", Freshness::Linearizable, deadline).await?;
                anyhow::ensure!(client.newest() >= newest, "{} is not {newest}", client.newest());
                tree::read(&client, freshness).await
            };
            let found = self.nemesis.runtime.block_on(read)?;
            let differ = tree::differences(&expected, &found, 5);
            wrong.extend(
                differ
                    .into_iter()
                    .map(|what| format!("at {member} (0: the leader): history and tree: {what}")),
            );
        }
        Ok(wrong)
    }
}

impl Scene<'_> {
    /// See [`drop_history`].
    fn drop_history(&mut self) -> anyhow::Result<Vec<String>> {
        let member = Role::Nuwa(1);
        self.nemesis.runtime.block_on(drop_history(&self.nemesis.client))?;
        self.nemesis.cluster.stop(member)?;
        self.nemesis.cluster.restart(member)?;
        let alone = {
            let _runtime = self.nemesis.runtime.enter();
            let members = vec![self.nemesis.cluster.address_of(member)?.parse()?];
            NuwaClient::new(ClientConfig::with(members, self.nemesis.cluster.access()?.transport()))
        };
        self.nemesis.runtime.block_on(ask_for_all(&alone))
    }
}

fn seen(crew: &Crew, met: &[Met], event: Event<Fault>) -> Seen<Fault> {
    let errors = met.iter().filter(|met| met.span.meets(event.span)).count();
    Seen { stall: crew.longest(event.span), errors, event }
}

async fn is_open(client: &NuwaClient, session: u64) -> anyhow::Result<bool> {
    let question = Question::Session(GetSession { session });
    let deadline = Some(Instant::now() + PATIENCE);
    match client.read(question, Freshness::Linearizable, deadline).await?.1 {
        Shown::Session(state) => Ok(state.open),
        other => anyhow::bail!("asked for a session, told {other:?}"),
    }
}

async fn set_history(client: &NuwaClient, limits: SetHistory) -> anyhow::Result<()> {
    let deadline = Some(Instant::now() + PATIENCE);
    let session = client.open_session(sequences::TTL, "limits", deadline).await?;
    session.change(Command::SetHistory(limits), deadline).await?;
    Ok(session.end(deadline).await?)
}

/// Has nearly all history dropped: who then asks a member for the first revision, one that remembers nothing, is told that it is
/// lost, and from where on it is not.
async fn drop_history(client: &NuwaClient) -> anyhow::Result<()> {
    set_history(client, SetHistory { events_max: 10, bytes_max: 0 }).await?;
    let deadline = Some(Instant::now() + PATIENCE);
    let session = client.open_session(sequences::TTL, "drop", deadline).await?;
    // Each change drops a few.
    for _ in 0..10 {
        session.put("/last", "", deadline).await?;
    }
    Ok(session.end(deadline).await?)
}

async fn ask_for_all(client: &NuwaClient) -> anyhow::Result<Vec<String>> {
    let mut watcher = client.watch("/", Place::after(0));
    let told = tokio::time::timeout(PATIENCE, watcher.next()).await??;
    let Watched::HistoryLost { first } = told else {
        return Ok(vec![format!("asked for the first revision, told {told:?}")]);
    };
    watcher.go_on(Place { revision: first, number: 0 });
    let told = tokio::time::timeout(PATIENCE, watcher.next()).await??;
    let is_first = matches!(&told, Watched::Event(event) if (event.revision, event.number) == (first, 0));
    Ok(if is_first && first > 1 { Vec::new() } else { vec![format!("asked for {first}, told {told:?}")] })
}
