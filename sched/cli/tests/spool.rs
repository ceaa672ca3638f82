//! Each command on a directory that is laid out as a spool: no mount, no master; what a master would do is done by hand.
#![allow(clippy::unwrap_used, reason = "helpers of tests are tests")]

mod common;

use std::fs;
use std::os::unix::fs::{MetadataExt as _, symlink};

use common::{GOOD, Place};
use serde_json::Value;

#[test]
fn a_job_file_is_checked_where_it_is() {
    let place = Place::new();
    let good = place.file("good.toml", GOOD);
    let bad = place.file("bad.toml", "name = \"x\"\n[[task]]\nname = \"t\"\ncomand = \"true\"\n");
    let said = place.run(&["check", &good]);
    assert_eq!((said.code, said.out.as_str()), (0, &*format!("{good}: job x, 1 task, 3 instances\n")));
    let said = place.run(&["check", &bad, &good, "/no/such/file"]);
    assert_eq!(said.code, 1);
    assert!(said.err.contains(&format!("{bad}:4:1: ")) && said.err.contains("/no/such/file"), "{}", said.err);
    assert!(said.out.contains("good.toml: job x"), "the others are checked all the same: {}", said.out);
    let said = place.run(&["check", &bad, "--json"]);
    let document: Value = serde_json::from_str(said.out.lines().next().unwrap()).unwrap();
    assert_eq!((said.code, &document["errors"][0]["line"]), (1, &Value::from(2)), "{}", said.out);
    let by_inputs = "name = \"y\"\n[mapreduce]\ninputs = [\"a/*\"]\nreducers = 2\n";
    let said = place.run(&["check", &place.file("mr.toml", by_inputs)]);
    assert!(said.out.contains("2 tasks, 2 instances and as many of map as its inputs give"), "{}", said.out);
}

#[test]
fn the_schema_is_json() {
    let said = Place::new().run(&["schema"]);
    let schema: Value = serde_json::from_str(&said.out).unwrap();
    assert_eq!((said.code, &schema["required"][0]), (0, &Value::from("name")));
}

#[test]
fn what_is_submitted_is_whole_and_has_the_id_that_is_told() {
    let place = Place::new();
    let file = place.file("words.toml", GOOD);
    let ids: Vec<String> = (0..2).map(|_| place.run(&["submit", &file]).done().trim().to_owned()).collect();
    // The first one is still there when the second one comes: it keeps its place and its name.
    for (name, id) in [("words.toml", &ids[0]), ("words-2.toml", &ids[1])] {
        let dropped = place.queue("default").join("new").join(name);
        assert_eq!(fs::read_to_string(&dropped).unwrap(), GOOD);
        assert_eq!(*id, sched_spec::JobName::of(name, fs::metadata(&dropped).unwrap().ino()).to_string());
    }
    assert_eq!(fs::read_dir(place.queue("default").join("tmp")).unwrap().count(), 0);
    let listed = place.run(&["ls"]).done();
    assert!(listed.contains(&ids[0]) && listed.contains(" new "), "{listed}");
    let from_stdin = place.run_with(&["submit", "-", "--json"], GOOD);
    let document: Value = serde_json::from_str(&from_stdin.done()).unwrap();
    assert!(document["job"].as_str().unwrap().starts_with("x-"), "{document}");
}

#[test]
fn what_is_no_job_is_not_submitted() {
    let place = Place::new();
    let said = place.run(&["submit", &place.file("bad.toml", "name = 1\n")]);
    assert!(said.code == 1 && said.err.contains("bad.toml:1:"), "{}", said.err);
    let said = place.run(&["submit", "--queue", "nosuch", &place.file("x.toml", GOOD)]);
    assert!(
        said.code == 1 && said.err.contains("there is no queue 'nosuch': there are batch, default"),
        "{}",
        said.err
    );
    let said = place.run(&["submit", "--queue", "../x", &place.file("x.toml", GOOD)]);
    assert_eq!(said.code, 2, "{}", said.err);
    for part in ["new", "tmp"] {
        assert_eq!(fs::read_dir(place.queue("default").join(part)).unwrap().count(), 0);
    }
    let nowhere = tempfile::tempdir().unwrap();
    let said = place.run(&["--mount", nowhere.path().to_str().unwrap(), "ls"]);
    assert!(
        said.code == 1 && said.err.contains("there is no ") && said.err.contains("--mount"),
        "{}",
        said.err
    );
}

#[test]
fn waiting_ends_as_the_job_does() {
    for (end, status, code) in [("done", "done", 0), ("failed", "killed", 1)] {
        let place = Place::new();
        let file = place.file("w.toml", GOOD);
        let said = std::thread::scope(|scope| {
            let waits = scope.spawn(|| place.run(&["submit", "--wait", &file]));
            let id = place.take_first("default");
            place.write("default", &format!("run/{id}"), &[("status", status), ("why", "all is said")]);
            fs::rename(
                place.queue("default").join("run").join(&id),
                place.queue("default").join(end).join(&id),
            )
            .unwrap();
            waits.join().unwrap()
        });
        assert_eq!(said.code, code, "{}", said.err);
        assert!(said.err.contains("all is said") && said.err.contains(status), "{}", said.err);
    }
}

#[test]
fn waiting_for_a_job_that_is_refused_or_removed_ends_too() {
    let place = Place::new();
    let file = place.file("w.toml", GOOD);
    let (new, failed) = (place.queue("default").join("new"), place.queue("default").join("failed"));
    let said = std::thread::scope(|scope| {
        let waits = scope.spawn(|| place.run(&["submit", "--wait", &file]));
        let name = place.first_dropped("default");
        fs::write(failed.join(format!("{name}.error")), "w.toml:1:1: not today").unwrap();
        fs::rename(new.join(&name), failed.join(&name)).unwrap();
        waits.join().unwrap()
    });
    assert!(said.code == 1 && said.err.contains("not today"), "{}", said.err);
    let said = std::thread::scope(|scope| {
        let waits = scope.spawn(|| place.run(&["submit", "--wait", &file]));
        let id = place.take_first("default");
        fs::remove_dir_all(place.queue("default").join("run").join(id)).unwrap();
        waits.join().unwrap()
    });
    assert!(said.code == 1 && said.err.contains("somebody removed it"), "{}", said.err);
}

#[test]
fn jobs_are_listed_where_they_are() {
    let place = Place::new();
    let progress = "task  done  running  waiting  failed  median  progress\nt  1  1  2  0    [#]  25 %\n";
    place.job(
        "default",
        "run",
        "a-1",
        &[("status", "running"), ("why", "waits\u{1b}[31m for cpu"), ("progress", progress)],
    );
    place.job("batch", "run", "b-2", &[]);
    place.job("batch", "done", "c-3", &[("status", "done")]);
    place.job("batch", "failed", "d-4", &[("status", "killed")]);
    place.refuse("default", "e.toml", "e.toml:1:2: wrong");
    // An acceptance that was broken off is no job.
    fs::create_dir(place.queue("batch").join("run/half-5")).unwrap();
    let listed = place.run(&["ls"]).done();
    assert_eq!(listed.lines().count(), 3, "{listed}");
    assert!(
        listed.contains("1/4") && listed.contains("waits [31m for cpu") && listed.contains("waiting"),
        "{listed}"
    );
    assert_eq!(place.run(&["ls", "--all"]).done().lines().count(), 6);
    let json = place.run(&["ls", "--all", "--json", "--queue", "batch"]).done();
    let mut jobs: Vec<(String, String)> = json
        .lines()
        .map(|line| serde_json::from_str::<Value>(line).unwrap())
        .map(|job| (job["job"].as_str().unwrap().to_owned(), job["state"].as_str().unwrap().to_owned()))
        .collect();
    jobs.sort();
    let expected = [("b-2", "waiting"), ("c-3", "done"), ("d-4", "killed")];
    assert_eq!(jobs, expected.map(|(job, state)| (job.to_owned(), state.to_owned())));
    assert!(place.run(&["ls", "--queue", "nosuch"]).err.contains("no queue"));
}

#[test]
fn a_job_is_shown_by_the_beginning_of_its_id() {
    let place = Place::new();
    place.job(
        "default",
        "run",
        "words-1",
        &[("status", "running"), ("why", "waits for 3 cpu"), ("progress", "half")],
    );
    place.job("default", "done", "words-12", &[("status", "done")]);
    let page = place.run(&["status", "words-1"]).done();
    assert!(page.contains("words-1  running  in queue default\nwaits for 3 cpu\n\nhalf\n\n"), "{page}");
    assert_eq!(place.run(&["why", "words-1"]).done(), "waits for 3 cpu\n");
    assert!(place.run(&["why", "words-12"]).done().contains("done, and nothing else"));
    let said = place.run(&["status", "wor"]);
    assert!(
        said.code == 1 && said.err.contains("2 jobs begin with 'wor'") && said.err.contains("words-12 in"),
        "{}",
        said.err
    );
    let said = place.run(&["status", "x", "--json"]);
    let error: Value = serde_json::from_str(&said.err).unwrap();
    assert!(said.code == 1 && error["error"].as_str().unwrap().contains("no job begins with 'x'"), "{error}");
    let document: Value = serde_json::from_str(&place.run(&["status", "words-12", "--json"]).done()).unwrap();
    assert_eq!((&document["state"], &document["queue"]), (&"done".into(), &"default".into()));
}

#[test]
fn a_refused_file_is_known_by_its_name_and_by_the_id_it_would_have_had() {
    let place = Place::new();
    let id = place.refuse("default", "e.toml", "e.toml:1:2: wrong\n 1 | x");
    for name in ["e.toml", &id] {
        assert_eq!(place.run(&["why", name]).done(), "e.toml:1:2: wrong\n 1 | x\n");
    }
    assert!(place.run(&["kill", "e.toml"]).err.contains("refused"));
    assert!(place.run(&["logs", "e.toml"]).err.contains("fuxi why"));
    place.run(&["rm", "e.toml"]).done();
    assert_eq!(fs::read_dir(place.queue("default").join("failed")).unwrap().count(), 0);
}

#[test]
fn words_in_ctl_are_those_that_the_master_takes() {
    let place = Place::new();
    let dir = place.job("default", "run", "a-1", &[]);
    for word in ["pause", "resume", "kill"] {
        assert!(place.run(&[word, "a-1"]).done().contains(word));
        assert_eq!(fs::read_to_string(dir.join("ctl")).unwrap(), format!("{word}\n"));
    }
    // A word is not added to one that was not obeyed yet.
    fs::write(dir.join("ctl"), "something longer than that\n").unwrap();
    place.run(&["kill", "a"]).done();
    assert_eq!(fs::read_to_string(dir.join("ctl")).unwrap(), "kill\n");
    place.job("default", "done", "b-2", &[]);
    let said = place.run(&["pause", "b-2"]);
    assert!(said.code == 1 && said.err.contains("has ended, it is done"), "{}", said.err);
    assert!(!place.queue("default").join("done/b-2/ctl").exists());
}

#[test]
fn a_link_that_a_jobs_owner_left_is_neither_written_through_nor_read() {
    let place = Place::new();
    let secret = place.file("secret", "precious");
    let dir = place.job("default", "run", "a-1", &[]);
    fs::create_dir(dir.join("log")).unwrap();
    for name in ["ctl", "why", "log/t.0.1"] {
        symlink(&secret, dir.join(name)).unwrap();
    }
    for command in ["kill", "why", "logs"] {
        let said = place.run(&[command, "a-1"]);
        assert!(said.code == 1 && !said.out.contains("precious"), "{command}: {}", said.out);
    }
    assert_eq!(fs::read_to_string(&secret).unwrap(), "precious");
}

#[test]
fn a_file_that_no_master_took_is_taken_back() {
    let place = Place::new();
    let id = place.run(&["submit", &place.file("w.toml", GOOD)]).done();
    assert!(place.run(&["pause", id.trim()]).err.contains("not taken"));
    assert!(place.run(&["rm", id.trim()]).err.contains("fuxi kill"));
    assert!(place.run(&["logs", id.trim()]).err.contains("nothing was said"));
    assert!(place.run(&["kill", id.trim()]).done().contains("taken back"));
    assert_eq!(fs::read_dir(place.queue("default").join("new")).unwrap().count(), 0);
}

#[test]
fn words_of_instances_are_told_apart() {
    let place = Place::new();
    let dir = place.job("default", "done", "a-1", &[]);
    fs::create_dir(dir.join("log")).unwrap();
    for (name, text) in [
        ("map.10.1", "ten\n"),
        ("map.2.1", "two\n"),
        ("map.2.2", "again\n"),
        ("sum.0.1", "sum\n"),
        ("rubbish", "no"),
    ] {
        fs::write(dir.join("log").join(name), text).unwrap();
    }
    assert_eq!(
        place.run(&["logs", "a"]).done(),
        "==> map.2.1 <==\ntwo\n==> map.2.2 <==\nagain\n==> map.10.1 <==\nten\n==> sum.0.1 <==\nsum\n"
    );
    assert_eq!(place.run(&["logs", "a", "map.10"]).done(), "==> map.10.1 <==\nten\n");
    let json = place.run(&["logs", "--json", "a", "sum"]).done();
    assert_eq!(serde_json::from_str::<Value>(&json).unwrap()["text"], "sum\n");
    let said = place.run(&["logs", "a", "nosuch"]);
    assert!(said.code == 0 && said.err.contains("nothing was said by instances of nosuch"), "{}", said.err);
    assert_eq!(place.run(&["logs", "a", "map.x"]).code, 2);
}

#[test]
fn following_prints_each_word_once_and_ends_with_the_job() {
    let place = Place::new();
    let dir = place.job("default", "run", "a-1", &[]);
    fs::create_dir(dir.join("log")).unwrap();
    fs::write(dir.join("log/t.0.1"), "first\n").unwrap();
    let mut follows = place.spawn(&["logs", "-f", "a-1"]);
    assert_eq!(follows.line(), "==> t.0.1 <==");
    assert_eq!(follows.line(), "first");
    // It has read what was there: what comes now is new.
    fs::write(dir.join("log/t.1.1"), "second\n").unwrap();
    assert_eq!(follows.line(), "==> t.1.1 <==");
    assert_eq!(follows.line(), "second");
    fs::write(dir.join("log/t.2.1"), "last\n").unwrap();
    fs::rename(&dir, place.queue("default").join("done/a-1")).unwrap();
    assert_eq!(follows.rest(), "==> t.2.1 <==\nlast\n");
}

#[test]
fn only_what_has_ended_is_removed_and_nothing_if_a_name_is_wrong() {
    let place = Place::new();
    let running = place.job("default", "run", "r-1", &[]);
    let done = place.job("default", "done", "d-2", &[]);
    let failed = place.job("default", "failed", "f-3", &[]);
    let said = place.run(&["rm", "d-2", "r-1"]);
    assert!(said.code == 1 && said.err.contains("`fuxi kill r-1` ends it"), "{}", said.err);
    assert!(place.run(&["rm", "d-2", "nosuch"]).code == 1);
    assert!(running.is_dir() && done.is_dir());
    place.run(&["rm", "d-2", "d-2", "f-3"]).done();
    assert!(running.is_dir() && !done.exists() && !failed.exists());
}
