//! Two mounts used by a shell, with nothing but coreutils, util-linux and attr.

use std::fs::File;
use std::process::Command;

use nix::fcntl::{FcntlArg, fcntl};

use crate::fixture::{Mount, PATIENCE, World};

/// The shell says every command it runs; one that fails ends it.
fn shell(one: &Mount, two: &Mount, script: &str) -> String {
    let output = Command::new("timeout")
        .args([PATIENCE.as_secs().to_string().as_str(), "bash", "-euo", "pipefail", "-c", script])
        .env("A", &one.path)
        .env("B", &two.path)
        .output()
        .unwrap();
    let (out, error) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{script}\n{out}\n{error}");
    out.into_owned()
}

#[test]
fn a_shell_coordinates_with_files_alone() {
    let Some(world) = World::start() else { return };
    let (one, two) = (world.mount("one"), world.mount("two"));

    // What one mount's close returned from the other one sees, and one redirection is one change.
    let said = shell(
        &one,
        &two,
        r#"
        mkdir $A/d; echo hello > $A/d/x; cat $B/d/x
        echo more >> $B/d/x; cat $A/d/x
        getfattr --only-values -n user.nuwa.version $A/d/x; echo
        touch $A/d/t; : > $A/d/empty; ls $B/d
        mv $A/d/x $A/d/y; cat $B/d/y; truncate -s 2 $B/d/y; cat $A/d/y; echo
        ! rmdir $A/d 2>/dev/null; rm $A/d/*; rmdir $B/d; ls $A
    "#,
    );
    assert_eq!(said, "hello\nhello\nmore\n2\nempty\nt\nx\nhello\nmore\nhe\n");

    // Of two that append at the same time neither loses a line.
    let said = shell(
        &one,
        &two,
        r#"
        for m in $A $B; do (for i in $(seq 50); do echo $m >> $m/log; done) & done; wait
        wc -l < $A/log; sort $B/log | uniq -c | awk '{print $1}'; rm $A/log
    "#,
    );
    assert_eq!(said, "100\n50\n50\n");
    let said = shell(
        &one,
        &two,
        "exec 3>>$A/new 4>>$B/new; echo one >&3; echo two >&4; exec 3>&- 4>&-; sort $A/new; rm $B/new",
    );
    assert_eq!(said, "one\ntwo\n", "both opened it before it was there");

    // Compare and set, and O_EXCL: one wins.
    let said = shell(
        &one,
        &two,
        r#"
        echo 0 > $A/n
        setfattr -n user.nuwa.cas -v '1 one' $A/n; ! setfattr -n user.nuwa.cas -v '1 two' $B/n 2>/dev/null
        cat $B/n; echo
        set -o noclobber; for m in $A $B $A $B; do (echo mine > $m/lock) 2>/dev/null && echo won; done || true
    "#,
    );
    assert_eq!(said, "one\nwon\n");

    // Taking turns: nobody sees the counter in between, and fences ascend.
    let said = shell(
        &one,
        &two,
        r#"
        echo 0 > $A/count; touch $A/turn
        work() { n=$(cat $1/count); sleep 0.01; echo $((n+1)) > $1/count; getfattr --only-values -n user.nuwa.fence $1/turn; echo; }
        export -f work
        for m in $A $B $A $B; do (for i in $(seq 5); do flock $m/turn bash -c "work $m" >> $A/../fences; done) & done; wait
        cat $B/count; sort -n -c $A/../fences && wc -l < $A/../fences
        flock $A/turn sleep 1 & sleep 0.5; ! flock -n $B/turn true; ! flock -w 0.1 $B/turn true; wait
    "#,
    );
    assert_eq!(said, "20\n20\n");

    // Changes: followed by tail, read from a revision on, waited for by cat.
    let said = shell(
        &one,
        &two,
        r#"
        mkdir $A/w
        tail -f $B/w/.events > $A/../tail 2>/dev/null & tail=$!
        cat $B/w/.events > $A/../cat & cat=$!
        for i in $(seq 100); do [ -d /proc/$tail/fd ] && ls -l /proc/$tail/fd /proc/$cat/fd | grep -c events | grep -q 2 && break; sleep 0.05; done
        sleep 0.5
        for i in $(seq 50); do echo $i > $A/w/f$((i % 3)); done
        for i in $(seq 200); do [ $(wc -l < $A/../tail) = 50 ] && [ $(wc -l < $A/../cat) = 50 ] && break; sleep 0.05; done
        kill $tail $cat; wait $tail $cat || true
        cmp $A/../tail $A/../cat; wc -l < $A/../tail
        first=$(head -1 $A/../tail | sed 's/.*"revision":\([0-9]*\).*/\1/')
        head -50 $A/w/.events@$first | cmp - $A/../tail && echo same
    "#,
    );
    assert_eq!(said, "50\nsame\n");
}

#[test]
fn each_close_of_a_descriptor_puts_what_was_written() {
    let Some(world) = World::start() else { return };
    let one = world.mount("one");
    let said = shell(
        &one,
        &one,
        r#"
        version() { getfattr --absolute-names --only-values -n user.nuwa.version $1; echo; }
        (/bin/echo a; cat $A/two > $A/../seen; /bin/echo b) > $A/two; cat $A/../seen $A/two; version $A/two
        (/bin/echo a; /bin/echo b) | cat > $A/one; cat $A/one; version $A/one
        (echo a; echo b) > $A/shell; version $A/shell
    "#,
    );
    assert_eq!(said, "a\na\nb\n2\na\nb\n1\n1\n", "what the first wrote is there when the second one looks");
}

/// The kernel does not ask the mount for them. Should it ever do so, `docs/mount.md` is to be changed.
#[test]
fn locks_of_directories_and_records_are_local() {
    let Some(world) = World::start() else { return };
    let (one, two) = (world.mount("one"), world.mount("two"));
    std::fs::create_dir(one.path.join("d")).unwrap();
    std::fs::write(one.path.join("d/f"), "x").unwrap();
    let mut all_held = Vec::new();
    for mount in [&one, &two] {
        let directory = File::open(mount.path.join("d")).unwrap();
        directory.try_lock().unwrap();
        let file = File::options().write(true).open(mount.path.join("d/f")).unwrap();
        let whole = libc::flock { l_type: libc::F_WRLCK as _, l_whence: 0, l_start: 0, l_len: 0, l_pid: 0 };
        fcntl(&file, FcntlArg::F_SETLK(&whole)).unwrap();
        let again = File::options().write(true).open(mount.path.join("d/f")).unwrap();
        fcntl(&again, FcntlArg::F_OFD_SETLK(&whole)).unwrap_err();
        all_held.extend([directory, file, again]);
    }
    assert_eq!(world.holder("/d/f"), None);
    // Within one mount they are locks.
    assert!(File::open(one.path.join("d")).unwrap().try_lock().is_err());
    drop(all_held);
}
