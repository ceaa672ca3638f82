//! The spool on a local directory: what is taken, refused and ended, and what a crash in between leaves.

use std::os::unix::fs::symlink;

use super::accept::Judged;
use super::*;

const JOB: &str = "name = \"x\"\n[[task]]\nname = \"t\"\ncommand = \"true\"\n";

fn spool() -> (tempfile::TempDir, Spool, QueueName) {
    let dir = tempfile::tempdir().unwrap();
    let spool = Spool::open(&dir.path().join("spool")).unwrap();
    (dir, spool, "default".parse().unwrap())
}

fn drop_file(spool: &Spool, queue: &QueueName, name: &str, text: &str) -> Dropped {
    fs::write(spool.part(queue, "new").join(name), text).unwrap();
    spool.dropped(queue).unwrap().into_iter().find(|dropped| dropped.name == name).unwrap()
}

fn accept(spool: &Spool, dropped: &Dropped) -> Result<Accepted, SpoolError> {
    match spool.judge(dropped)? {
        Judged::Job(spec, owner) => spool.accept(dropped, *spec, owner),
        Judged::Bad(why) => panic!("{why}"),
    }
}

#[test]
fn a_dropped_file_becomes_a_job_and_ends() {
    let (_dir, spool, queue) = spool();
    let dropped = drop_file(&spool, &queue, "x.toml", JOB);
    let job = accept(&spool, &dropped).unwrap();
    assert_eq!(spool.dropped(&queue).unwrap(), []);
    assert_eq!(spool.running(&queue).unwrap(), std::slice::from_ref(&job.name));
    assert_eq!(spool.reread(&queue, &job.name).unwrap().owner, job.owner);
    let there = spool.finish(&queue, &job.name, End::Done).unwrap();
    assert_eq!(fs::read_to_string(there.join("spec")).unwrap(), JOB);
    assert_eq!(spool.running(&queue).unwrap(), []);
    spool.finish(&queue, &job.name, End::Done).unwrap();
}

#[test]
fn acceptance_goes_on_where_a_crash_broke_it_off() {
    let (_dir, spool, queue) = spool();
    let dropped = drop_file(&spool, &queue, "x.toml", JOB);
    // After the directory was made, before the rename.
    let name = JobName::of("x.toml", dropped.inode);
    fs::create_dir(spool.job_dir(&queue, &name)).unwrap();
    assert_eq!(spool.running(&queue).unwrap(), []);
    assert_eq!(accept(&spool, &dropped).unwrap().name, name);
    // A second master that saw the file, too, comes too late and spoils nothing.
    let again = accept(&spool, &dropped);
    assert!(again.unwrap_err().is_gone());
    let Judged::Job(spec, owner) = (match spool.reread(&queue, &name) {
        Ok(job) => Judged::Job(Box::new(job.spec), job.owner),
        Err(error) => panic!("{error}"),
    }) else {
        unreachable!()
    };
    assert!(spool.accept(&dropped, *spec, owner).unwrap_err().is_gone());
    assert_eq!(spool.running(&queue).unwrap(), [name]);
}

#[test]
fn a_file_that_is_taken_back_leaves_nothing() {
    let (_dir, spool, queue) = spool();
    let dropped = drop_file(&spool, &queue, "x.toml", JOB);
    let Judged::Job(spec, owner) = spool.judge(&dropped).unwrap() else { panic!("it is a job") };
    fs::remove_file(spool.part(&queue, "new").join("x.toml")).unwrap();
    assert!(spool.accept(&dropped, *spec, owner).unwrap_err().is_gone());
    assert_eq!(list(&spool.part(&queue, "run")).unwrap(), Vec::<String>::new());
}

#[test]
fn what_is_no_job_is_kept_beside_its_reason() {
    let (_dir, spool, queue) = spool();
    for _ in 0..2 {
        let dropped = drop_file(&spool, &queue, "x.toml", "name = \n");
        let Judged::Bad(why) = spool.judge(&dropped).unwrap() else { panic!("it is no job") };
        assert!(why.contains("x.toml:1:"), "{why}");
        spool.reject(&dropped, &why).unwrap();
    }
    // The second one did not take the first one's place.
    let mut names = list(&spool.part(&queue, "failed")).unwrap();
    names.sort();
    assert_eq!(names.len(), 4, "{names:?}");
    assert!(names.contains(&"x.toml".to_owned()) && names.contains(&"x.toml.error".to_owned()), "{names:?}");
}

#[test]
fn nothing_but_small_text_files_is_read() {
    let (dir, spool, queue) = spool();
    let secret = dir.path().join("secret");
    fs::write(&secret, JOB).unwrap();
    symlink(&secret, spool.part(&queue, "new").join("link.toml")).unwrap();
    fs::create_dir(spool.part(&queue, "new").join("dir.toml")).unwrap();
    fs::write(spool.part(&queue, "new").join("binary.toml"), b"name = \"\xff\"").unwrap();
    fs::write(spool.part(&queue, "new").join("large.toml"), "#".repeat(sched_spec::FILE_MAX_BYTES + 1))
        .unwrap();
    fs::write(spool.part(&queue, "new").join(".half-written"), JOB).unwrap();
    let dropped = spool.dropped(&queue).unwrap();
    assert_eq!(dropped.len(), 4, "{dropped:?}");
    for dropped in dropped {
        let Judged::Bad(why) = spool.judge(&dropped).unwrap() else { panic!("{} is a job", dropped.name) };
        assert!(why.starts_with(&dropped.name), "{why}");
        spool.reject(&dropped, &why).unwrap();
    }
    assert_eq!(spool.dropped(&queue).unwrap(), []);
    assert_eq!(fs::read_to_string(&secret).unwrap(), JOB);
}

#[test]
fn a_link_that_takes_the_files_place_is_not_followed() {
    let (dir, spool, queue) = spool();
    let dropped = drop_file(&spool, &queue, "x.toml", JOB);
    let path = spool.part(&queue, "new").join("x.toml");
    fs::write(dir.path().join("secret"), JOB).unwrap();
    fs::remove_file(&path).unwrap();
    symlink(dir.path().join("secret"), &path).unwrap();
    assert!(spool.judge(&dropped).is_err());
}
