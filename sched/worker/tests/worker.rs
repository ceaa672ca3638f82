//! Real workers that run real programs, against a job master that plays by the protocol, dies, and loses replies.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod common;

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use common::{Job, Process, Serving, processes};
use sched_api::proto::{self, FindJobReply, Finished, Outcome};
use serde_json::json;

/// A task of one command, as its job's master describes it.
fn command(name: &str, command: &[&str], more: &[(&str, serde_json::Value)]) -> String {
    let mut spec = serde_json::json!({
        "name": name, "kind": { "command": command }, "instances": null, "inputs": [], "split": "file",
        "outputs": [], "resources": {}, "attempts": 3, "failures_allowed": 0, "timeout_ms": null, "env": {},
        "after": [], "backup": false, "parallel_max": null
    });
    for (key, value) in more {
        spec[key] = value.clone();
    }
    spec.to_string()
}

fn script(name: &str, script: &str, more: &[(&str, serde_json::Value)]) -> String {
    command(name, &["sh", "-c", script], more)
}

struct Setup {
    dir: tempfile::TempDir,
    job: std::sync::Arc<Job>,
    _master: Serving,
    worker: Process,
}

async fn setup(settings: &[(&str, String)]) -> Setup {
    let dir = tempfile::tempdir().unwrap();
    let job = Job::new();
    let master = Serving::job_master(&job, dir.path().join("jm.sock")).await;
    let mut settings = settings.to_vec();
    settings.push(("FUXI_JOB_MASTER", master.address.to_string()));
    let worker = Process::start(dir.path(), 7, &settings);
    Setup { dir, job, _master: master, worker }
}

impl Setup {
    fn job_file(&self, name: &str) -> std::path::PathBuf {
        self.dir.path().join("mount/spool/q/run/job").join(name)
    }

    async fn one(&self, task: u32, spec: &str) -> Finished {
        self.job.task(task, spec);
        self.job.instances(task, 0..1);
        self.job.result((task, 0, 0)).await
    }
}

#[tokio::test]
async fn outcomes_words_and_outputs_are_told() {
    let mut setup = setup(&[]).await;
    let fine = setup.one(1, &script("fine", "true", &[])).await;
    assert_eq!(fine.outcome(), Outcome::Ok);
    assert!(fine.started_unix_us > 0 && fine.ended_unix_us >= fine.started_unix_us);
    assert!(!setup.job_file("log/fine.0.0").exists(), "an instance that says nothing makes no file");

    let bad = setup.one(2, &script("bad", "echo out; echo err >&2; exit 3", &[])).await;
    assert_eq!((bad.outcome(), bad.code, bad.message.as_str()), (Outcome::Exit, 3, "out\nerr"));
    assert_eq!(fs::read_to_string(setup.job_file("log/bad.0.0")).unwrap(), "out\nerr\n");

    let killed = setup.one(3, &script("killed", "kill -SEGV $$", &[])).await;
    assert_eq!((killed.outcome(), killed.code), (Outcome::Signal, 11));

    let missing = setup.one(4, &command("missing", &["no-such-program", "x"], &[])).await;
    assert_eq!(missing.outcome(), Outcome::NoSuchProgram);
    assert!(missing.message.contains("no-such-program"), "{}", missing.message);

    let interpreter = setup.job_file("interpreter");
    fs::write(&interpreter, "#!/no/such/interpreter\n").unwrap();
    fs::set_permissions(&interpreter, std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
    let bare = setup.one(5, &command("i", &["spool/q/run/job/interpreter"], &[])).await;
    assert_eq!(bare.outcome(), Outcome::NoSuchProgram, "{}", bare.message);

    let made = setup.one(6, &script("made", "echo x > $FUXI_OUT/a; echo y > b; cd $FUXI_JOB_DIR && test -d log; echo $FUXI_TASK $FUXI_INSTANCE $FUXI_ATTEMPT $FUXI_JOB $WORD", &[("outputs", json!(["*"])), ("env", json!({ "WORD": "w" }))])).await;
    assert_eq!((made.outcome(), made.outputs), (Outcome::Ok, 2), "{}", made.message);
    assert_eq!(fs::read_to_string(setup.job_file("out/.tmp-made.0.0/b")).unwrap(), "y\n");
    assert_eq!(fs::read_to_string(setup.job_file("log/made.0.0")).unwrap(), "made 0 0 job w\n");

    let failed = setup.one(7, &script("failed", "echo x > half; false", &[("outputs", json!(["*"]))])).await;
    assert_eq!(failed.outcome(), Outcome::Exit);
    assert!(!setup.job_file("out/.tmp-failed.0.0").exists(), "what a failed attempt made is removed");

    setup.job.dismiss();
    assert!(setup.worker.ends().await.success());
}

#[tokio::test]
async fn nothing_outlives_its_attempt() {
    let setup = setup(&[]).await;
    let marker = format!("3600.{}", std::process::id());
    // One in the group, one in a session of its own.
    let leaves = format!("sleep {marker} & setsid sleep {marker} & sleep 0.05");
    let left = setup.one(1, &script("left", &leaves, &[])).await;
    assert_eq!(left.outcome(), Outcome::Ok);
    assert_eq!(processes(&marker), Vec::<u32>::new(), "of an attempt that ended");

    let hangs = format!("sleep {marker} & setsid sleep {marker} & sleep {marker}");
    let late = setup.one(2, &script("late", &hangs, &[("timeout_ms", json!(300))])).await;
    assert_eq!(late.outcome(), Outcome::Timeout);
    assert_eq!(processes(&marker), Vec::<u32>::new(), "of an attempt whose time was up");

    setup.job.task(3, &script("cancelled", &hangs, &[]));
    setup.job.instances(3, 0..2);
    while processes(&marker).len() < 3 {
        tokio::task::yield_now().await;
    }
    setup.job.cancel((3, 0, 0));
    setup.job.cancel((3, 1, 0));
    assert_eq!(setup.job.result((3, 0, 0)).await.outcome(), Outcome::Cancelled);
    assert_eq!(setup.job.result((3, 1, 0)).await.outcome(), Outcome::Cancelled, "it had not begun");
    assert_eq!(processes(&marker), Vec::<u32>::new(), "of an attempt that was cancelled");
}

#[tokio::test]
async fn want_of_memory_is_told_from_other_kills() {
    let dir = tempfile::tempdir().unwrap();
    let oom = dir.path().join("oom");
    fs::write(&oom, "oom_kill 1\n").unwrap();
    let setup = setup(&[("FUXI_OOM_FILE", oom.display().to_string())]).await;
    let other = setup.one(1, &script("other", "kill -9 $$", &[])).await;
    assert_eq!((other.outcome(), other.code), (Outcome::Signal, 9));
    let counted = format!("echo oom_kill 2 > {}; kill -9 $$", oom.display());
    let eater = setup.one(2, &script("eater", &counted, &[])).await;
    assert_eq!(eater.outcome(), Outcome::OutOfMemory);
}

#[tokio::test]
async fn a_log_is_bounded_and_keeps_the_end() {
    let setup = setup(&[]).await;
    let talker = "head -c 40000000 /dev/zero | tr '\\0' x; sleep 0.3; head -c 4000000 /dev/zero | tr '\\0' y; echo end";
    let said = setup.one(1, &script("talker", talker, &[])).await;
    assert_eq!(said.outcome(), Outcome::Ok);
    let log = fs::read(setup.job_file("log/talker.0.0")).unwrap();
    assert!(log.len() <= 17 << 20, "{} bytes", log.len());
    assert!(log.ends_with(b"yend\n"));
}

/// Each instance writes down that it ran.
fn counting(dir: &Path) -> String {
    script("count", &format!("echo $FUXI_INSTANCE >> {}", dir.join("ran").display()), &[])
}

fn ran(dir: &Path) -> BTreeMap<u32, u32> {
    let mut ran = BTreeMap::new();
    for line in fs::read_to_string(dir.join("ran")).unwrap_or_default().lines() {
        *ran.entry(line.parse().unwrap()).or_default() += 1;
    }
    ran
}

#[tokio::test]
async fn a_job_master_that_comes_back_elsewhere_misses_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let job = Job::new();
    let master = Serving::master(&job, dir.path().join("master.sock")).await;
    job.task(0, &counting(dir.path()));
    job.instances(0, 0..600);
    // Nobody serves the job yet.
    let settings = [("FUXI_MASTER", master.address.to_string())];
    let mut worker = Process::start(dir.path(), 1, &settings);
    for life in 0..4 {
        let socket = dir.path().join(format!("jm-{life}.sock"));
        let serving = Serving::job_master(&job, socket).await;
        *job.found.lock() = FindJobReply { address: serving.address.to_string(), unknown: false };
        job.results(if life == 3 { 600 } else { 100 * (life + 1) }).await;
        if life == 3 {
            job.dismiss();
            assert!(worker.ends().await.success());
        }
        serving.kill();
    }
    let book = job.book.lock();
    assert!(book.results.values().all(|result| result.outcome() == Outcome::Ok));
    assert_eq!(book.contradictions, 0, "a result was told twice and differently");
    let ran = ran(dir.path());
    assert_eq!(ran.len(), 600);
    assert!(ran.values().all(|times| *times == 1), "an instance ran twice");
}

#[tokio::test]
async fn lost_replies_lose_and_double_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let job = Job::new();
    job.book.lock().lose_every = 3;
    job.task(0, &counting(dir.path()));
    job.instances(0, 0..300);
    let serving = Serving::job_master(&job, dir.path().join("jm.sock")).await;
    let settings = [("FUXI_JOB_MASTER", serving.address.to_string())];
    let _workers = [1, 2].map(|grant| Process::start(dir.path(), grant, &settings));
    job.results(300).await;
    let book = job.book.lock();
    assert!(book.lost > 3, "the test lost only {} replies", book.lost);
    assert_eq!(book.contradictions, 0);
    let ran = ran(dir.path());
    assert_eq!((ran.len(), ran.values().sum::<u32>()), (300, 300));
}

#[tokio::test]
async fn a_worker_whose_job_is_unknown_for_long_gives_up() {
    let dir = tempfile::tempdir().unwrap();
    let job = Job::new();
    *job.found.lock() = FindJobReply { address: String::new(), unknown: true };
    let master = Serving::master(&job, dir.path().join("master.sock")).await;
    let mut config = sched_worker::Config::new("gone", 1, dir.path(), dir.path().join("scratch"));
    config.master = Some(kuafu::Client::new(master.address.clone(), kuafu::ClientConfig::default()).into());
    config.give_up_after = std::time::Duration::from_millis(50);
    let mut worker = sched_worker::Worker::start(config).unwrap();
    assert_eq!(worker.over().await, sched_worker::Over::JobUnknown);
    worker.shutdown().await;
}

#[tokio::test]
async fn a_signal_ends_the_worker_and_what_it_runs() {
    let dir = tempfile::tempdir().unwrap();
    let record = dir.path().join("exit");
    let mut setup = setup(&[("FUXI_EXIT_RECORD", record.display().to_string())]).await;
    let marker = format!("3601.{}", std::process::id());
    setup.job.task(1, &script("long", &format!("sleep {marker}"), &[]));
    setup.job.instances(1, 0..1);
    while processes(&marker).is_empty() {
        tokio::task::yield_now().await;
    }
    let pid = setup.worker.child.id().to_string();
    assert!(std::process::Command::new("kill").args(["-TERM", &pid]).status().unwrap().success());
    assert!(setup.worker.ends().await.success());
    assert_eq!(processes(&marker), Vec::<u32>::new());
    assert_eq!(fs::read_to_string(&record).unwrap(), "0 told to stop by a signal\n");
}

/// A task of MapReduce, as its job's master describes it.
fn described(
    name: &str,
    kind: &str,
    what: serde_json::Value,
    more: &[(&str, serde_json::Value)],
) -> kuafu::Bytes {
    let mut spec = json!({ "name": name, "kind": kind, "outputs": ["part"], "memory_mib": 64 });
    spec[kind] = what;
    for (key, value) in more {
        spec[key] = value.clone();
    }
    spec.to_string().into_bytes().into()
}

impl Setup {
    fn give(&self, name: (u32, u32, u32), input: Vec<proto::Piece>) {
        self.job.book.lock().waiting.insert(name, input);
        self.job.news.notify_waiters();
    }

    fn describe(&self, task: u32, spec: kuafu::Bytes, sources: Vec<proto::Source>) {
        let description = proto::TaskDescription { task, spec, sources };
        self.job.book.lock().tasks.insert(task, description);
    }

    /// What a job's master does with what other tasks read.
    fn put_in_place(&self, name: &str, instance: u32) {
        fs::create_dir_all(self.job_file("shuffle")).unwrap();
        let from = self.job_file(&format!("out/.tmp-{name}.{instance}.0"));
        fs::rename(from, self.job_file(&format!("shuffle/{name}.{instance}"))).unwrap();
    }
}

#[tokio::test]
async fn words_are_counted_by_map_and_reduce() {
    let setup = setup(&[]).await;
    fs::write(setup.dir.path().join("mount/text"), "b a\nc b\na b\n").unwrap();
    let mapper = ["sh", "-c", "tr ' ' '\\n'; echo mapping >&2"];
    let map = json!({ "mapper": mapper, "combiner": null, "records": "lines", "key": "record",
        "partitions": 2, "ranges_of": "sample" });
    let sample = json!({ "records": "lines", "key": "record", "partitions": 2 });
    let reduce = json!({ "reducer": ["uniq", "-c"], "of": "map", "records": "lines", "key": "record", "output": "counts" });
    let source = |task, name: &str, instances| proto::Source { task, name: name.to_owned(), instances };
    setup.describe(0, described("sample", "sample", sample, &[]), Vec::new());
    setup.describe(1, described("map", "map", map, &[]), vec![source(0, "sample", 1)]);
    setup.describe(2, described("reduce", "reduce", reduce, &[]), vec![source(1, "map", 2)]);
    let piece = |offset, len| proto::Piece { path: "text".to_owned(), offset, len };

    setup.give((0, 0, 0), vec![piece(0, 6), piece(6, 6)]);
    let sampled = setup.job.result((0, 0, 0)).await;
    assert_eq!((sampled.outcome(), sampled.outputs), (Outcome::Ok, 1), "{}", sampled.message);
    setup.put_in_place("sample", 0);
    // The second piece begins within a line, which belongs to the first.
    for (instance, input) in [piece(0, 6), piece(6, 6)].into_iter().enumerate() {
        let instance = u32::try_from(instance).unwrap();
        setup.give((1, instance, 0), vec![input]);
        let mapped = setup.job.result((1, instance, 0)).await;
        assert_eq!((mapped.outcome(), mapped.bytes_in), (Outcome::Ok, 6), "{}", mapped.message);
        setup.put_in_place("map", instance);
    }
    assert_eq!(fs::read_to_string(setup.job_file("log/map.0.0")).unwrap(), "mapping\n");
    let mut all = Vec::new();
    for instance in 0..2 {
        setup.give((2, instance, 0), Vec::new());
        let reduced = setup.job.result((2, instance, 0)).await;
        assert_eq!((reduced.outcome(), reduced.outputs), (Outcome::Ok, 1), "{}", reduced.message);
        let part = format!("out/.tmp-reduce.{instance}.0/counts/part-{instance:05}");
        let text = fs::read_to_string(setup.job_file(&part)).unwrap();
        all.extend(text.lines().map(|line| line.split_whitespace().collect::<Vec<_>>().join(" ")));
    }
    assert_eq!(all, ["2 a", "3 b", "1 c"], "ranges are in the order of keys");

    fs::remove_file(setup.job_file("shuffle/map.1/part")).unwrap();
    setup.give((2, 0, 1), Vec::new());
    let lost = setup.job.result((2, 0, 1)).await;
    assert_eq!((lost.outcome(), lost.lost_task, lost.code), (Outcome::LostInput, 1, 1), "{}", lost.message);
}

#[tokio::test]
async fn a_mapper_that_hangs_fails_or_is_missing_is_told_as_such() {
    let setup = setup(&[]).await;
    fs::write(setup.dir.path().join("mount/text"), "a\n").unwrap();
    let marker = format!("3602.{}", std::process::id());
    let cases: [(&[&str], Outcome); 3] = [
        (&["sleep", &marker], Outcome::Timeout),
        (&["sh", "-c", "cat > /dev/null; echo why >&2; exit 5"], Outcome::Exit),
        (&["no-such-mapper"], Outcome::NoSuchProgram),
    ];
    for (task, (mapper, outcome)) in cases.into_iter().enumerate() {
        let task = u32::try_from(task).unwrap();
        let map = json!({ "mapper": mapper, "combiner": null, "records": "lines", "key": "record",
            "partitions": 1, "ranges_of": null });
        setup.describe(task, described("map", "map", map, &[("timeout_ms", json!(700))]), Vec::new());
        setup.give((task, 0, 0), vec![proto::Piece { path: "text".to_owned(), offset: 0, len: 2 }]);
        let ended = setup.job.result((task, 0, 0)).await;
        assert_eq!(ended.outcome(), outcome, "{}", ended.message);
        assert!(!setup.job_file("out/.tmp-map.0.0").exists(), "nothing is left of a failed attempt");
    }
    assert_eq!(processes(&marker), Vec::<u32>::new());
}
