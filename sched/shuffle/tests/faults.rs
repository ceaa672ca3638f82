//! What is damaged, missing, or badly behaved is told apart and named.

mod common;

use std::sync::atomic::{AtomicBool, Ordering};

use common::{Job, input, lines, shell, tiny, with_control};
use sched_shuffle::{
    Control, Error, InstanceId, JoinTask, MapFault, PartitionId, Program, Split, join, join::JoinInput, map,
    reduce, splits,
};

fn text(count: usize) -> Vec<u8> {
    (0..count).flat_map(|i| format!("{}\n", (i * 7919) % 1000).into_bytes()).collect()
}

/// Every byte of a map output is covered: whatever is flipped, a reducer of some partition says which instance.
#[test]
fn no_byte_of_a_map_output_can_be_damaged_unseen() {
    let dir = tempfile::tempdir().unwrap();
    let job = Job { split_bytes: 400, ..Job::new(tiny(300, 64)) };
    let inputs = job.map_all(dir.path(), &[text(200)]).unwrap();
    assert!(inputs.len() >= 2);
    let good = std::fs::read(&inputs[1].path).unwrap();
    for at in 0..good.len() {
        let mut bad = good.clone();
        bad[at] ^= 1 << (at % 8);
        std::fs::write(&inputs[1].path, &bad).unwrap();
        let task = job.reduce_task(dir.path(), &inputs, 0);
        let error =
            with_control(|control| reduce(&task, control)).expect_err(&format!("byte {at} was flipped"));
        assert_eq!(error.instance_to_rerun(), Some(InstanceId(1)), "byte {at}: {error}");
        assert!(!task.output.exists(), "what is wrong must not be left");
    }
    for len in [0, 10, 16, good.len() / 2, good.len() - 1] {
        std::fs::write(&inputs[1].path, &good[..len]).unwrap();
        let error =
            with_control(|control| reduce(&job.reduce_task(dir.path(), &inputs, 0), control)).unwrap_err();
        assert_eq!(error.instance_to_rerun(), Some(InstanceId(1)), "cut at {len}: {error}");
    }
    std::fs::remove_file(&inputs[1].path).unwrap();
    let error =
        with_control(|control| reduce(&job.reduce_task(dir.path(), &inputs, 0), control)).unwrap_err();
    assert!(
        matches!(error, Error::MapOutput { instance: InstanceId(1), fault: MapFault::Missing, .. }),
        "{error}"
    );
    std::fs::write(&inputs[1].path, &good).unwrap();
    with_control(|control| reduce(&job.reduce_task(dir.path(), &inputs, 0), control)).unwrap();
    let error =
        with_control(|control| reduce(&job.reduce_task(dir.path(), &inputs, 1), control)).unwrap_err();
    assert!(
        matches!(error, Error::MapOutput { fault: MapFault::NoSuchPartition { found: 1, wanted: 1 }, .. }),
        "{error}"
    );
}

fn map_with(script: &str, bytes: &[u8]) -> Result<Vec<u8>, Error> {
    let dir = tempfile::tempdir().expect("a temporary folder");
    let job = Job {
        split_bytes: 1 << 40,
        mapper: Some(shell(dir.path(), script)),
        ..Job::new(tiny(1 << 20, 4096))
    };
    job.run(dir.path(), &[bytes.to_vec()]).map(|mut parts| parts.remove(0))
}

#[test]
fn a_program_need_not_read_its_input() {
    assert_eq!(map_with("echo done", &text(500_000)).unwrap(), b"done\n");
    assert_eq!(map_with("head -n 1", &text(500_000)).unwrap(), b"0\n");
}

#[test]
fn a_program_may_write_more_than_it_reads() {
    let got = map_with("while read x; do seq 1 200000; done", b"a\nb\nc\n").unwrap();
    assert_eq!(lines(&[got]).len(), 600_000);
}

#[test]
fn a_program_that_fails_is_quoted() {
    match map_with("cat; head -c 5000 /dev/zero | tr '\\0' x >&2; echo the end >&2; exit 3", b"a\n")
        .unwrap_err()
    {
        Error::Exit { code: 3, stderr_tail, .. } => {
            assert!(stderr_tail.ends_with("xxxthe end\n"), "{stderr_tail}");
            assert_eq!(stderr_tail.len(), 2048);
        }
        other => panic!("{other}"),
    }
    assert!(matches!(map_with("kill -TERM $$", b"a\n").unwrap_err(), Error::Signal { signal: 15, .. }));
    let dir = tempfile::tempdir().unwrap();
    let mapper = Program { executable: "/no/such".into(), ..shell(dir.path(), "") };
    let job = Job { mapper: Some(mapper), ..Job::new(tiny(1 << 20, 4096)) };
    assert!(matches!(job.run(dir.path(), &[b"a\n".to_vec()]).unwrap_err(), Error::NoSuchProgram { .. }));
}

/// A program that never ends, with its own child that holds the pipes: both are gone when `map` returns.
#[test]
fn a_program_that_never_ends_is_cancelled() {
    let dir = tempfile::tempdir().unwrap();
    let fifo = dir.path().join("alive");
    nix::unistd::mkfifo(&fifo, nix::sys::stat::Mode::S_IRWXU).unwrap();
    let script = format!("exec 9>'{}'; sleep 1000000 & sleep 1000000", fifo.display());
    let job = Job {
        split_bytes: 1 << 40,
        mapper: Some(shell(dir.path(), &script)),
        ..Job::new(tiny(1 << 20, 4096))
    };
    let file = input(dir.path(), "in", &text(500_000));
    let task = job.map_task(dir.path().join("map"), splits(&[file], 1 << 40, job.spec.format).unwrap());
    let cancel = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let mapping = scope.spawn(|| map(&task, &Control::new(&cancel, &|_, _| {})));
        // Opening waits until the program runs; reading gets to the end when all its processes have ended.
        let mut alive = std::fs::File::open(&fifo).unwrap();
        cancel.store(true, Ordering::Relaxed);
        assert!(matches!(mapping.join().unwrap().unwrap_err(), Error::Cancelled));
        std::io::Read::read_to_end(&mut alive, &mut Vec::new()).unwrap();
    });
    assert!(!task.output.exists());
}

#[test]
fn sorting_is_cancelled_and_tells_its_progress() {
    let dir = tempfile::tempdir().unwrap();
    let job = Job { split_bytes: 1 << 40, ..Job::new(tiny(1 << 20, 4096)) };
    let file = input(dir.path(), "in", &text(50_000));
    let total = file.len_bytes;
    let splits = splits(&[file], 1 << 40, job.spec.format).unwrap();
    let cancel = AtomicBool::new(false);
    let report = |done, all| {
        assert_eq!(all, total);
        cancel.store(done > total / 2, Ordering::Relaxed);
    };
    let task = job.map_task(dir.path().join("map"), splits);
    assert!(matches!(map(&task, &Control::new(&cancel, &report)).unwrap_err(), Error::Cancelled));
    assert!(!task.output.exists());
}

#[test]
fn outputs_are_not_overwritten_and_inputs_not_cut() {
    let dir = tempfile::tempdir().unwrap();
    let job = Job::new(tiny(1 << 20, 4096));
    let file = input(dir.path(), "in", b"a\n");
    let task =
        job.map_task(file.path.clone(), vec![Split { path: file.path.clone(), start: 0, end_exclusive: 2 }]);
    assert!(matches!(with_control(|control| map(&task, control)).unwrap_err(), Error::OutputExists { .. }));
    assert_eq!(std::fs::read(&file.path).unwrap(), b"a\n");
    let task =
        job.map_task(dir.path().join("map"), vec![Split { path: file.path, start: 0, end_exclusive: 3 }]);
    assert!(matches!(
        with_control(|control| map(&task, control)).unwrap_err(),
        Error::InputShort { end_exclusive: 3, .. }
    ));
}

#[test]
fn a_record_longer_than_memory_is_told() {
    let dir = tempfile::tempdir().unwrap();
    let job = Job { split_bytes: 1 << 40, ..Job::new(tiny(1000, 64)) };
    let error = job.run(dir.path(), &[vec![b'x'; 5000]]).unwrap_err();
    assert!(matches!(error, Error::RecordTooLong { limit_bytes: 1000 }), "{error}");
}

#[test]
fn a_merger_joins_sorted_inputs() {
    let dir = tempfile::tempdir().unwrap();
    let job = Job { split_bytes: 16, ..Job::new(tiny(1000, 64)) };
    let mut inputs = Vec::new();
    for (name, text) in [("left", "c 3\na 1\nb 2\n"), ("right", "b y\nd w\nc z\n")] {
        let dir = dir.path().join(name);
        std::fs::create_dir(&dir).unwrap();
        inputs.push(JoinInput {
            outputs: job.map_all(&dir, &[text.as_bytes().to_vec()]).unwrap(),
            spec: job.spec,
        });
    }
    let mut task = JoinTask {
        partition: PartitionId(0),
        inputs,
        merger: shell(dir.path(), r#"join "$1" "$2""#),
        output: dir.path().join("out"),
        scratch_prefix: dir.path().join("scratch"),
        limits: job.limits,
        durability: sched_shuffle::Durability::Synced,
    };
    with_control(|control| join(&task, control)).unwrap();
    assert_eq!(std::fs::read(&task.output).unwrap(), b"b 2 y\nc 3 z\n");
    // The last one first, by descriptor: no order of reading may wait for ever.
    task.merger = shell(dir.path(), r#"cat "$2" "$1""#);
    task.output = dir.path().join("out2");
    with_control(|control| join(&task, control)).unwrap();
    assert_eq!(std::fs::read(&task.output).unwrap(), b"b y\nc z\nd w\na 1\nb 2\nc 3\n");
}
