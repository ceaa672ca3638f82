//! Which crates may not reach which others, asked of cargo itself: a core that can be tested by plain calls has no
//! runtime, no store and no kernel interface among its dependencies, and a client builds without RocksDB.

use std::path::Path;
use std::process::Command;

use anyhow::{Context as _, bail};

/// (crate, what may not be among its dependencies, why).
const RULES: &[(&str, &[&str], &str)] = &[
    ("coord-types", &["tokio", "rocksdb", "fuser", "prost"], "every crate depends on it"),
    ("coord-kv", &["tokio", "rocksdb", "fuser"], "the cores are tested on it in memory"),
    ("nuwa-core", &["tokio", "rocksdb", "fuser", "openraft", "rand"], "it must be deterministic"),
    ("nuwa-api", &["rocksdb", "librocksdb-sys", "openraft"], "clients build without a server's stores"),
    (
        "zhongkui",
        &["tokio", "rocksdb", "fuser", "prost", "kuafu"],
        "every module decides by it, whatever it speaks",
    ),
    ("master-core", &["tokio", "rocksdb", "fuser", "openraft", "rand"], "it must be deterministic"),
    ("chunkserver-core", &["tokio", "rocksdb", "fuser", "io-uring", "rand"], "it must be deterministic"),
    (
        "fs-client",
        &["rocksdb", "librocksdb-sys", "fuser", "openraft"],
        "clients build without a server's stores",
    ),
    ("fs-control", &["rocksdb", "librocksdb-sys", "openraft"], "clients build without a server's stores"),
    ("fs-mount", &["rocksdb", "librocksdb-sys", "openraft"], "clients build without a server's stores"),
    ("kuafu", &["rocksdb", "openraft", "fuser"], "every process speaks it"),
];

/// One line for each forbidden dependency, with the shortest way to see where it comes from.
pub(crate) fn check(root: &Path) -> anyhow::Result<Vec<String>> {
    let mut offences = Vec::new();
    for (package, forbidden, reason) in RULES {
        let found = dependencies(root, package)?;
        offences.extend(forbidden.iter().filter(|name| found.iter().any(|f| f == *name)).map(|name| {
            format!(
                "{package} depends on {name} ({reason}); see: cargo tree -p {package} -e normal -i {name}"
            )
        }));
    }
    Ok(offences)
}

fn dependencies(root: &Path, package: &str) -> anyhow::Result<Vec<String>> {
    let output = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()))
        .args(["tree", "--prefix", "none", "--edges", "normal", "--format", "{p}", "--package", package])
        .current_dir(root)
        .output()
        .context("run cargo tree")?;
    if !output.status.success() {
        bail!("cargo tree -p {package}: {}", String::from_utf8_lossy(&output.stderr).trim());
    }
    Ok(names(&String::from_utf8_lossy(&output.stdout)))
}

/// The package names in the output of `cargo tree --prefix none`.
fn names(tree: &str) -> Vec<String> {
    tree.lines().filter_map(|line| line.split_whitespace().next()).map(str::to_owned).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_the_first_words() {
        assert_eq!(
            names("master-core v0.1.0 (/x)\ntokio v1.54.0\n\nbytes v1.10.1 (*)\n"),
            ["master-core", "tokio", "bytes"]
        );
    }
}
