//! Two real mounts of one cluster, used by a shell with nothing but coreutils, util-linux and attr.

#![allow(clippy::unwrap_used, reason = "helpers of tests panic like tests")]

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use nuwa_server::{Config, NuwaServer};

/// Longer than anything here may take on a busy machine; reached only by a test that fails.
const PATIENCE: Duration = Duration::from_secs(60);

struct Mount {
    path: PathBuf,
    process: Child,
}

impl Mount {
    fn new(dir: &Path, name: &str, cluster: &Path) -> Self {
        let path = dir.join(name);
        std::fs::create_dir(&path).unwrap();
        let process = Command::new(env!("CARGO_BIN_EXE_nuwa-fuse"))
            .arg(&path)
            .arg("--cluster")
            .arg(cluster)
            .args(["--lease", "2"])
            .stderr(Stdio::inherit())
            .spawn()
            .unwrap();
        let mount = Self { path, process };
        let deadline = Instant::now() + PATIENCE;
        while !Command::new("mountpoint").arg("-q").arg(&mount.path).status().unwrap().success() {
            assert!(Instant::now() < deadline, "it did not mount");
            std::thread::sleep(Duration::from_millis(20));
        }
        mount
    }

    fn kill(&mut self) {
        self.process.kill().unwrap();
        self.process.wait().unwrap();
    }
}

impl Drop for Mount {
    fn drop(&mut self) {
        Command::new("umount").arg("-l").arg(&self.path).stderr(Stdio::null()).status().unwrap();
        // It ends by itself once it is unmounted, or was killed already.
        let _ = self.process.wait();
    }
}

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

/// A cluster of one member on a thread of its own.
fn start_server(dir: &Path) -> PathBuf {
    let address = format!("unix://{}/nuwa.sock", dir.display());
    let members = [(1, address.parse().unwrap())].into();
    let config = Config::new(1, members, dir.join("data"));
    std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let server = NuwaServer::start(config).await.unwrap();
            server.failed().await;
        });
    });
    let cluster = dir.join("cluster.toml");
    std::fs::write(&cluster, format!("name = \"test\"\nnuwa = [\"{address}\"]\n")).unwrap();
    cluster
}

#[test]
fn a_shell_coordinates_with_files_alone() {
    if !Path::new("/dev/fuse").exists() || !nix::unistd::geteuid().is_root() {
        eprintln!("needs /dev/fuse and root");
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let cluster = start_server(dir.path());
    let mut one = Mount::new(dir.path(), "one", &cluster);
    let two = Mount::new(dir.path(), "two", &cluster);

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

    // The lock of a mount that is killed is free within its lease.
    let path = one.path.join("turn");
    let mut holder = Command::new("flock").arg("-F").arg(&path).args(["sleep", "600"]).spawn().unwrap();
    let locked =
        || shell(&two, &two, "getfattr -n user.nuwa.fence $A/turn >/dev/null 2>&1 && echo yes || echo no");
    let deadline = Instant::now() + PATIENCE;
    while locked() == "no\n" {
        assert!(Instant::now() < deadline, "it was not locked");
        std::thread::sleep(Duration::from_millis(20));
    }
    one.kill();
    assert_eq!(shell(&two, &two, "flock $A/turn echo mine"), "mine\n");
    holder.kill().unwrap();
    holder.wait().unwrap();
}
