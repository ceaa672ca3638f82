//! The programs people run on a file system: git, cargo, sqlite, rsync, tar.
#![allow(clippy::unwrap_used, reason = "helpers of tests are tests")]

use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};

use deploy_e2e::shell;
use deploy_local_cluster::Cluster;

/// A mount, and a folder on the local disk for what is compared with it.
fn up() -> (Cluster, PathBuf, tempfile::TempDir) {
    let mut cluster = Cluster::start(3, 3).unwrap();
    let root = cluster.mount().unwrap();
    (cluster, root, tempfile::tempdir().unwrap())
}

/// `git fast-import` of `commits` commits over a tree of a few hundred files.
fn history(commits: usize) -> String {
    let mut stream = String::new();
    for number in 1..=commits {
        let text = format!("line {number}\n").repeat(1 + number % 97);
        write!(
            stream,
            "commit refs/heads/main\nmark :{number}\ncommitter test <test@localhost> {} +0000\ndata 9\nchange it\n",
            1_000_000_000 + number
        )
        .unwrap();
        if number > 1 {
            writeln!(stream, "from :{}", number - 1).unwrap();
        }
        let path = format!("dir{}/sub{}/file{}", number % 7, number % 5, number % 211);
        write!(stream, "M 100644 inline {path}\ndata {}\n{text}\n", text.len()).unwrap();
    }
    stream
}

#[test]
fn git_clones_a_thousand_commits() {
    let (cluster, root, local) = up();
    fs::write(local.path().join("stream"), history(1200)).unwrap();
    shell(
        local.path(),
        "git init -q -b main there && git -C there fast-import --quiet < stream && git -C there checkout -q main",
    );
    let there = local.path().join("there");
    let clone = format!("git clone -q --no-local '{}' here", there.display());
    shell(&root, &clone);
    assert_eq!(shell(&root, "git -C here rev-list --count HEAD").trim(), "1200");
    shell(&root, "git -C here fsck --full --strict");
    assert_eq!(shell(&root, "git -C here status --porcelain"), "");
    shell(&root, &format!("diff -r --exclude=.git '{}' here", there.display()));
    // And work on it: branches, a rewrite of the packs, a merge.
    shell(
        &root.join("here"),
        "git checkout -q -b side HEAD~500 && echo side > side && git add side && git commit -q -m side &&
         git checkout -q main && git merge -q -m merge side && git repack -adq && git gc -q --prune=now && git fsck --full",
    );
    assert_eq!(shell(&root, "git -C here status --porcelain"), "");
    cluster.finish().unwrap();
}

#[test]
fn cargo_builds_a_crate() {
    let (cluster, root, _local) = up();
    let cargo = option_env!("CARGO").unwrap_or("cargo");
    shell(&root, &format!("'{cargo}' init -q --name small --vcs none small"));
    fs::write(root.join("small/src/main.rs"), "fn main() { println!(\"{}\", small::twice(21)); }\n").unwrap();
    fs::write(
        root.join("small/src/lib.rs"),
        "pub fn twice(x: u32) -> u32 { x * 2 }\n#[test]\nfn it() { assert_eq!(twice(2), 4); }\n",
    )
    .unwrap();
    let build = format!(
        "cd small && unset RUSTFLAGS CARGO_TARGET_DIR && export CARGO_TARGET_DIR=$PWD/target &&
         '{cargo}' build -q --offline && '{cargo}' test -q --offline >/dev/null && ./target/debug/small"
    );
    assert_eq!(shell(&root, &build).trim(), "42");
    // A second build finds everything up to date: times are kept well enough for it.
    let again = "cd small && export CARGO_TARGET_DIR=$PWD/target && CARGO build --offline 2>&1"
        .replace("CARGO build", &format!("'{cargo}' build"));
    assert!(!shell(&root, &again).contains("Compiling"), "built again without a change");
    cluster.finish().unwrap();
}

#[test]
fn sqlite_keeps_its_promises() {
    let (cluster, root, local) = up();
    for mode in ["delete", "wal", "truncate"] {
        let script = format!(
            "pragma journal_mode={mode}; create table t(id integer primary key, v text, n integer);
             create index by_n on t(n);
             with recursive s(i) as (select 1 union all select i+1 from s where i < 20000)
               insert into t select i, 'row ' || i, i * 7919 % 10007 from s;
             begin; delete from t where id % 3 = 0; rollback;
             update t set v = v || '!' where id % 5 = 0; delete from t where id % 7 = 0; vacuum;
             pragma integrity_check; select count(*), sum(n), group_concat(length(v), '') from t;"
        );
        fs::write(local.path().join("script"), script).unwrap();
        let on = |database: &str| {
            shell(&root, &format!("sqlite3 {database} < '{}'", local.path().join("script").display()))
        };
        let here = on(&format!("{mode}.db"));
        let there = on(&format!("'{}'", local.path().join(format!("{mode}.db")).display()));
        assert_eq!(here, there, "the same as on the local disk");
        assert!(here.starts_with(&format!("{mode}\nok\n")), "{}", &here[..40.min(here.len())]);
        // Many small transactions, then a second process reads.
        let inserts = "insert into t(v,n) values('x',1);".repeat(100);
        fs::write(local.path().join("inserts"), inserts).unwrap();
        shell(&root, &format!("sqlite3 {mode}.db < '{}'", local.path().join("inserts").display()));
        assert_eq!(
            shell(
                &root,
                &format!("sqlite3 {mode}.db \"pragma integrity_check; select count(*) from t where v='x'\" ")
            )
            .trim(),
            "ok\n100"
        );
    }
    cluster.finish().unwrap();
}

/// A tree with everything tar and rsync keep: many files, odd names, links, modes, times, an empty directory, a pipe.
fn varied_tree(folder: &Path) {
    shell(
        folder,
        "mkdir -p tree/a/b/c 'tree/with blank' tree/empty && cd tree &&
         for i in $(seq 400); do head -c $((i * 131)) /dev/urandom > a/f$i; done &&
         head -c 20000000 /dev/urandom > a/b/large && truncate -s 3000000 a/b/hole && printf end >> a/b/hole &&
         ln a/f1 a/b/c/hard && ln -s ../f2 a/b/soft && ln -s /nowhere dangling && echo x > 'with blank/ünï' &&
         mkfifo a/pipe && chmod 4751 a/f3 && chmod 000 a/f4 && chmod 1777 empty && touch -d '2001-02-03 04:05:06.789012345' a/f5",
    );
}

#[test]
fn rsync_and_tar_copy_a_tree_faithfully() {
    let (cluster, root, local) = up();
    varied_tree(local.path());
    let from = local.path().join("tree");
    let from = from.display();

    shell(&root, &format!("rsync -aH --checksum '{from}/' synced/"));
    assert_eq!(
        shell(&root, &format!("rsync -aHin --checksum --delete '{from}/' synced/")),
        "",
        "nothing is left to do"
    );
    assert_eq!(
        shell(&root, &format!("rsync -aHin --checksum --delete synced/ '{from}/'")),
        "",
        "nor the other way"
    );

    shell(
        &root,
        &format!("mkdir untarred && tar -C '{from}' --format=posix -cf - . | tar -C untarred -xpf -"),
    );
    shell(&root, &format!("diff -r --no-dereference --exclude=pipe '{from}' untarred"));
    let list = |folder: &str| {
        shell(
            &root,
            &format!("cd {folder} && find . ! -type d -printf '%P %y %m %s %T@ %n %l\\n' | LC_ALL=C sort"),
        )
    };
    assert_eq!(list("untarred"), list(&format!("'{from}'")), "types, modes, sizes, times, links");
    // And back again, to the local disk.
    shell(
        local.path(),
        &format!(
            "mkdir back && tar -C '{}' --format=posix -cf - untarred | tar -C back -xpf - && diff -r --no-dereference --exclude=pipe tree back/untarred",
            root.display()
        ),
    );
    cluster.finish().unwrap();
}
