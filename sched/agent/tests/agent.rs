//! A real agent that starts real processes, against a master that plays by the protocol, is away, and loses replies.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod common;

use std::collections::BTreeMap;
use std::fs;
use std::time::{Duration, Instant};

use common::{PATIENCE, Serving, Setup, processes};

/// Writes down that it began, and stays until it is told to stop.
const STAYS: &str = "echo $FUXI_GRANT >> $FUXI_MOUNT/began; trap 'exit 0' TERM; while :; do sleep 0.05; done";
/// The same, and takes no notice when it is told to stop.
const STUBBORN: &str = "echo $FUXI_GRANT >> $FUXI_MOUNT/began; trap '' TERM; setsid sleep 3600 & sleep 3600 & while :; do sleep 0.05; done";

impl Setup {
    fn began(&self) -> BTreeMap<u64, u32> {
        let mut began = BTreeMap::new();
        for line in fs::read_to_string(self.path("mount/began")).unwrap_or_default().lines() {
            *began.entry(line.parse().unwrap()).or_default() += 1;
        }
        began
    }

    async fn has_begun(&self, grant: u64) {
        let deadline = Instant::now() + PATIENCE;
        while !self.began().contains_key(&grant) {
            assert!(Instant::now() < deadline, "{grant} never began: {}", self.log());
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    }

    fn alive(&self, grant: u64) -> usize {
        processes(&format!("FUXI_GRANT={grant}"), &self.path("data")).len()
    }
}

#[tokio::test]
async fn it_offers_starts_stops_and_tells() {
    let setup = Setup::new(STAYS, &["--cpu", "1.5", "--memory", "2G"]).await;
    let first =
        setup.master.until("it registers", |state| (state.requests > 0).then(|| state.last.clone())).await;
    assert_eq!((first.node.as_str(), first.location.as_str(), first.incarnation), ("node-1", "/r/k/h", 1));
    let capacity = first.capacity.unwrap().amounts;
    assert_eq!((capacity["cpu"], capacity["memory"], capacity["gpu"]), (1500, 2048, 2));
    setup.master.order(5, 100);
    let pid = setup.master.runs(5).await;
    setup.has_begun(5).await;
    assert!(processes("FUXI_GRANT=5", &setup.path("data")).contains(&pid));
    setup.master.withdraw(5);
    let end = setup.master.ended(5).await;
    assert_eq!((end.code, end.how.as_str(), end.job.as_str()), (0, "exit code 0", "job-5"));
    setup.master.until("the end is acknowledged", |state| state.last.ended.is_empty().then_some(())).await;
    assert_eq!(setup.began(), BTreeMap::from([(5, 1)]));
}

#[tokio::test]
async fn what_does_not_stop_is_killed_with_all_it_started() {
    for cgroups in ["own", "off"] {
        let setup = Setup::new(STUBBORN, &["--cgroups", cgroups]).await;
        setup.master.order(6, 100);
        setup.has_begun(6).await;
        while setup.alive(6) < 3 {
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
        setup.master.withdraw(6);
        assert_eq!(setup.master.ended(6).await.code, 128 + 9);
        assert_eq!(setup.alive(6), 0, "cgroups {cgroups}");
    }
}

#[tokio::test]
async fn an_end_of_its_own_is_told_with_its_last_words_and_leaves_nothing() {
    let script = "setsid sleep 3600 & sleep 3600 & sleep 0.1; echo first; echo last words; exit 3";
    for cgroups in ["own", "off"] {
        let setup = Setup::new(script, &["--cgroups", cgroups]).await;
        setup.master.order(7, 100);
        let end = setup.master.ended(7).await;
        assert_eq!((end.code, end.how.as_str()), (3, "exit code 3: last words"));
        assert_eq!(setup.alive(7), 0, "cgroups {cgroups}");
    }
}

#[tokio::test]
async fn a_program_that_is_missing_is_an_end_in_words() {
    let setup = Setup::new("exit 0", &[]).await;
    fs::remove_file(setup.path("bin/fuxi-worker")).unwrap();
    setup.master.order(8, 100);
    let end = setup.master.ended(8).await;
    assert_eq!(end.code, 126);
    assert!(end.how.contains("fuxi-worker") && end.how.contains("No such file"), "{}", end.how);
}

#[tokio::test]
async fn a_new_agent_takes_over_what_the_killed_one_left() {
    let script = format!(
        "case $FUXI_GRANT in 2) echo 2 >> $FUXI_MOUNT/began; while [ ! -e $FUXI_MOUNT/go ]; do sleep 0.02; done; echo 0 well done > $FUXI_EXIT_RECORD; exit 0;; 3) echo 3 >> $FUXI_MOUNT/began; while [ ! -e $FUXI_MOUNT/go ]; do sleep 0.02; done; exit 4;; esac; {STAYS}"
    );
    let mut setup = Setup::new(&script, &[]).await;
    for grant in 1..=3 {
        setup.master.order(grant, 100);
        setup.has_begun(grant).await;
    }
    let pid = setup.master.runs(1).await;
    setup.kill_agent();
    fs::write(setup.path("mount/go"), "").unwrap();
    while setup.alive(2) + setup.alive(3) > 0 {
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
    setup.start_agent();
    setup.master.until("the second agent asks", |state| (state.last.incarnation == 2).then_some(())).await;
    assert_eq!(setup.master.runs(1).await, pid, "the same process");
    let well = setup.master.ended(2).await;
    assert_eq!((well.code, well.how.as_str()), (0, "exit code 0: well done"));
    assert_eq!(setup.master.ended(3).await.code, 255, "nobody saw how");
    setup.master.withdraw(1);
    setup.master.ended(1).await;
    assert_eq!(setup.alive(1), 0);
    assert_eq!(setup.began(), BTreeMap::from([(1, 1), (2, 1), (3, 1)]), "each was started once");
}

#[tokio::test]
async fn lost_replies_and_dying_agents_start_nothing_twice() {
    let script = "echo $FUXI_GRANT >> $FUXI_MOUNT/began; sleep 0.02";
    let mut setup = Setup::new(script, &[]).await;
    setup.master.change(|state| state.lose_every = 3);
    for grant in 1..=24 {
        setup.master.order(grant, 100);
        if grant % 8 == 0 {
            setup.kill_agent();
            setup.start_agent();
        }
    }
    for grant in 1..=24 {
        setup.master.ended(grant).await;
    }
    let began = setup.began();
    assert!(began.values().all(|times| *times == 1), "{began:?}");
}

#[tokio::test]
async fn a_master_that_is_away_or_recovers_stops_nothing() {
    let mut setup = Setup::new(STAYS, &[]).await;
    setup.master.order(1, 100);
    setup.has_begun(1).await;
    let pid = setup.master.runs(1).await;
    setup.serving.take().unwrap().kill().await;
    setup.master.change(|state| {
        state.orders.clear();
        state.recovering = true;
        state.requests = 0;
        state.last.running.clear();
    });
    setup.serving = Some(Serving::start(&setup.master, setup.dir.path()).await);
    // Twice: the second request is made by an agent that has taken the first reply in.
    setup.master.until("it asks again", |state| (state.requests >= 1).then_some(())).await;
    setup.master.change(|_| ());
    setup.master.until("it asks once more", |state| (state.requests >= 3).then_some(())).await;
    assert_eq!(setup.master.runs(1).await, pid);
    assert!(setup.alive(1) > 0);
    // Its own word: a program that was told to stop may run for a moment still.
    assert!(!setup.log().contains("stopping grant=1"), "{}", setup.log());
    setup.master.change(|state| state.recovering = false);
    assert_eq!(setup.master.ended(1).await.code, 0);
}

#[tokio::test]
async fn an_end_is_told_until_it_is_acknowledged() {
    let mut setup = Setup::new("exit 0", &[]).await;
    setup.master.change(|state| state.deaf = true);
    setup.master.order(9, 100);
    setup.master.ended(9).await;
    setup.kill_agent();
    setup.start_agent();
    setup
        .master
        .until("it is told by the next agent", |state| {
            (state.last.incarnation == 2 && state.last.ended.len() == 1).then_some(())
        })
        .await;
    setup.master.change(|state| state.deaf = false);
    // Also to a master that did not hear of it being acknowledged, and orders the grant again.
    setup.master.until("it is acknowledged", |state| state.last.ended.is_empty().then_some(())).await;
    let told = setup.master.state.lock().unwrap().told[&9];
    setup.master.order(9, 100);
    setup.master.until("it is told again", |state| (state.told[&9] > told).then_some(())).await;
    assert!(setup.path("data/grants/9/state").exists());
}

#[tokio::test]
async fn what_eats_memory_is_killed_and_told_so() {
    // The shell itself grows: half a MiB more with each round.
    let script = "x=$(head -c 500000 /dev/zero | tr '\\0' x); while :; do y=\"$y$x\"; done";
    let setup = Setup::new(script, &["--cgroups", "off"]).await;
    assert!(
        setup
            .master
            .until("it asks", |state| (state.requests > 0).then(|| state.last.warning.clone()))
            .await
            .contains("memory is watched")
    );
    setup.master.order(4, 40);
    let end = setup.master.ended(4).await;
    assert!(end.out_of_memory, "{end:?}");
    assert_eq!((end.code, end.how.as_str()), (137, "out of memory (40 MiB)"));
}

#[tokio::test]
async fn an_instance_that_eats_memory_goes_and_its_worker_stays() {
    // As a worker does it: the instance is in a group of its own.
    let eater = "x=$(head -c 500000 /dev/zero | tr '\\0' x); while :; do y=\"$y$x\"; done";
    let script = format!(
        "cat > eat <<'END'\n{eater}\nEND\nsetsid sh eat & wait $!; echo $? > $FUXI_MOUNT/code; cp $FUXI_OOM_FILE $FUXI_MOUNT/oom; exit 0"
    );
    let setup = Setup::new(&script, &["--cgroups", "off"]).await;
    setup.master.order(4, 40);
    let end = setup.master.ended(4).await;
    assert_eq!((end.code, end.out_of_memory), (0, false), "{end:?}");
    assert_eq!(fs::read_to_string(setup.path("mount/code")).unwrap(), "137\n");
    assert!(fs::read_to_string(setup.path("mount/oom")).unwrap().starts_with("oom_kill "));
}

#[tokio::test]
async fn a_fork_bomb_is_bounded_and_swept_away() {
    // Each copy starts two more and stays; the bound is what ends it. Only where the kernel counts processes of groups: without that,
    // root's are not bounded at all.
    if !fs::read_to_string("/proc/self/cgroup").unwrap().lines().any(|line| line.ends_with(":pids:/")) {
        eprintln!("no pids controller at the root here: not tried");
        return;
    }
    let script = "echo $FUXI_GRANT >> $FUXI_MOUNT/began; cat > bomb <<'END'\nsh bomb & sh bomb & sleep 3600\nEND\nsh bomb & exec sleep 3600";
    let setup = Setup::new(script, &["--pids", "40"]).await;
    let warning =
        setup.master.until("it asks", |state| (state.requests > 0).then(|| state.last.warning.clone())).await;
    assert!(!warning.contains("processes are limited by user"), "{warning}");
    setup.master.order(3, 200);
    setup.has_begun(3).await;
    let deadline = Instant::now() + PATIENCE;
    let mut most = 0;
    let mut looks = 0;
    while most < 25 || looks < 100 {
        let now = setup.alive(3);
        most = most.max(now);
        looks += 1;
        assert!(Instant::now() < deadline, "only {most} processes came");
        assert!(now <= 40, "{now} processes");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    setup.master.withdraw(3);
    setup.master.ended(3).await;
    assert_eq!(setup.alive(3), 0, "of {most}");
}
