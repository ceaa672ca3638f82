//! Checks on the text of the tree. Pure: `check` sees a list of files and answers a list of offences.
//!
//! The words that are forbidden in sources are put together here from halves, so that this file passes its own check.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;
use std::process::Command;

use anyhow::{Context as _, bail};

/// A Rust file longer than this is several things in one.
const MAX_LINES: usize = 1000;

/// The tracked files of a checkout.
#[derive(Debug)]
pub(crate) struct Tree {
    pub(crate) files: Vec<File>,
}

/// One tracked file; `text` is empty for what is not UTF-8.
#[derive(Debug)]
pub(crate) struct File {
    pub(crate) path: String,
    pub(crate) text: String,
    pub(crate) executable: bool,
}

impl Tree {
    /// What git tracks or would track (untracked and not ignored), as it is in the work tree.
    pub(crate) fn load(root: &Path) -> anyhow::Result<Self> {
        let output = Command::new("git")
            .args(["-c", "safe.directory=*", "ls-files", "-z", "--cached", "--others", "--exclude-standard"])
            .current_dir(root)
            .output()
            .context("run git ls-files")?;
        if !output.status.success() {
            bail!("git ls-files: {}", String::from_utf8_lossy(&output.stderr).trim());
        }
        let mut files = Vec::new();
        for path in
            String::from_utf8(output.stdout).context("a file name is not UTF-8")?.split_terminator('\0')
        {
            let full = root.join(path);
            // Deleted in the work tree but still in the index: nothing to read.
            let Ok(metadata) = fs::symlink_metadata(&full) else { continue };
            if !metadata.is_file() {
                continue;
            }
            let bytes = fs::read(&full).with_context(|| format!("read {path}"))?;
            files.push(File {
                path: path.to_owned(),
                text: String::from_utf8(bytes).unwrap_or_default(),
                executable: std::os::unix::fs::PermissionsExt::mode(&metadata.permissions()) & 0o111 != 0,
            });
        }
        Ok(Self { files })
    }
}

/// Every offence, one line each, `path:line: what` where a line is known.
pub(crate) fn check(tree: &Tree) -> Vec<String> {
    let mut offences = Vec::new();
    let paths: BTreeSet<&str> = tree.files.iter().map(|f| f.path.as_str()).collect();
    for file in &tree.files {
        machine_paths(file, &mut offences);
        if file.path.ends_with(".rs") {
            rust(file, &mut offences);
        }
        if file.path.ends_with("Cargo.toml") && file.path != "Cargo.toml" {
            manifest(file, &mut offences);
        }
        if file.path.ends_with(".md") {
            links(file, &paths, &mut offences);
        }
        if file.path == "ARCHITECTURE.md" {
            code_map(file, &paths, &mut offences);
        }
        if file.path.starts_with("scripts/") && file.text.starts_with("#!") && !file.executable {
            offences.push(format!("{}: starts with #! but is not executable", file.path));
        }
    }
    commands(tree, &mut offences);
    offences
}

fn forbidden_words() -> [(String, &'static str); 4] {
    [
        (["to", "do!("].concat(), "finish it, or leave it out"),
        (["unimpl", "emented!("].concat(), "finish it, or leave it out"),
        (["FIX", "ME"].concat(), "fix it, or open an issue"),
        (["#[ig", "nore"].concat(), "a test that does not run proves nothing"),
    ]
}

fn rust(file: &File, offences: &mut Vec<String>) {
    if !file.text.starts_with("//!") {
        offences.push(format!("{}:1: does not open with //! (what is it for, what must hold)", file.path));
    }
    let lines = file.text.lines().count();
    if lines > MAX_LINES {
        offences.push(format!("{}: {lines} lines, at most {MAX_LINES}", file.path));
    }
    for (word, advice) in forbidden_words() {
        for (number, _) in file.text.lines().enumerate().filter(|(_, line)| line.contains(&word)) {
            offences.push(format!("{}:{}: {word}: {advice}", file.path, number + 1));
        }
    }
}

/// Paths of the machine somebody happened to work on.
fn machine_paths(file: &File, offences: &mut Vec<String>) {
    if file.path == "Cargo.lock" {
        return;
    }
    for prefix in [["/wo", "rk/"].concat(), ["/ro", "ot/"].concat(), ["/ho", "me/"].concat()] {
        for (number, line) in file.text.lines().enumerate() {
            // A part of a longer path, as in `target/…`, is nobody's machine.
            let at_start = line.match_indices(&prefix).any(|(at, _)| {
                !line[..at].ends_with(|c: char| {
                    c.is_alphanumeric() || matches!(c, '_' | '-' | '.' | '}' | '$' | '*')
                })
            });
            if at_start {
                offences.push(format!(
                    "{}:{}: a path of somebody's machine ({prefix})",
                    file.path,
                    number + 1
                ));
            }
        }
    }
}

/// Versions and features live in the root manifest only: what a package is built with must not depend on which
/// packages are built beside it.
/// A crate that is a workspace of its own (fuzzing, the load generator) has nothing to take from the root.
fn manifest(file: &File, offences: &mut Vec<String>) {
    if file.text.lines().any(|line| line.trim() == "[workspace]") {
        return;
    }
    let mut section = "";
    let mut lints = false;
    for (number, line) in file.text.lines().enumerate() {
        let line = line.trim();
        if line.starts_with('[') {
            section = line;
            continue;
        }
        if section == "[lints]" && line.replace(' ', "") == "workspace=true" {
            lints = true;
        }
        let dependency = section.ends_with("dependencies]") && line.contains('=') && !line.starts_with('#');
        if dependency && !line.replace(' ', "").contains("workspace=true") {
            offences.push(format!("{}:{}: write `NAME.workspace = true`: {line}", file.path, number + 1));
        }
    }
    if !lints {
        offences.push(format!("{}: has no [lints] workspace = true", file.path));
    }
}

/// Relative links of a document lead to files of the tree.
fn links(file: &File, paths: &BTreeSet<&str>, offences: &mut Vec<String>) {
    for (number, line) in file.text.lines().enumerate() {
        for target in line.match_indices("](").filter_map(|(at, _)| line[at + 2..].split(')').next()) {
            let target = target.split('#').next().unwrap_or_default();
            if target.is_empty() || target.contains("://") || target.starts_with("mailto:") {
                continue;
            }
            if !exists(paths, &resolve(&file.path, target)) {
                offences.push(format!("{}:{}: leads to nothing: {target}", file.path, number + 1));
            }
        }
    }
}

fn resolve(from: &str, target: &str) -> String {
    let mut parts: Vec<&str> = from.split('/').collect();
    parts.pop();
    for part in target.trim_end_matches('/').split('/') {
        match part {
            "" | "." => {}
            ".." => {
                parts.pop();
            }
            name => parts.push(name),
        }
    }
    parts.join("/")
}

/// A file of the tree, or a folder with files in it.
fn exists(paths: &BTreeSet<&str>, path: &str) -> bool {
    let folder = format!("{}/", path.trim_end_matches('/'));
    path.is_empty() || paths.contains(path) || paths.iter().any(|p| p.starts_with(&folder))
}

/// What stands between backquotes in the code map and looks like a path of the tree, is one.
fn code_map(file: &File, paths: &BTreeSet<&str>, offences: &mut Vec<String>) {
    let tops: BTreeSet<&str> = paths.iter().filter_map(|p| p.split_once('/')).map(|(top, _)| top).collect();
    for (number, line) in file.text.lines().enumerate() {
        for word in line.split('`').skip(1).step_by(2) {
            let word = word.split("::").next().unwrap_or_default();
            let is_path = word.split_once('/').is_some_and(|(top, _)| tops.contains(top))
                && !word.contains([' ', '*', '{', '<']);
            if is_path && !exists(paths, word) {
                offences.push(format!("{}:{}: no such file: {word}", file.path, number + 1));
            }
        }
    }
}

/// The commands in README.md exist: scripts as files, programs as binaries of a crate.
fn commands(tree: &Tree, offences: &mut Vec<String>) {
    let Some(readme) = tree.files.iter().find(|f| f.path == "README.md") else {
        offences.push("README.md: missing".to_owned());
        return;
    };
    let programs = programs(tree);
    for (number, line) in readme.text.lines().enumerate() {
        let words =
            line.split(|c: char| c.is_whitespace() || matches!(c, '`' | '(' | ')' | ',' | ';' | '\'' | '"'));
        for word in words {
            let word = word.trim_end_matches(['.', ':']);
            let word = word.strip_prefix("./").unwrap_or(word);
            let missing = if word.starts_with("scripts/") && word.len() > "scripts/".len() {
                !tree.files.iter().any(|f| f.path == word)
                    && !tree.files.iter().any(|f| f.path.starts_with(&format!("{word}/")))
            } else {
                word.starts_with("pangu-") && !word.contains('/') && !programs.contains(word)
            };
            if missing {
                offences.push(format!("README.md:{}: there is no {word}", number + 1));
            }
        }
    }
}

/// Names of the `[[bin]]` targets of all manifests.
fn programs(tree: &Tree) -> BTreeSet<String> {
    let mut names = BTreeSet::new();
    for file in tree.files.iter().filter(|f| f.path.ends_with("Cargo.toml")) {
        let mut in_bin = false;
        for line in file.text.lines().map(str::trim) {
            if line.starts_with('[') {
                in_bin = line == "[[bin]]";
            } else if let Some(name) = line.replace(' ', "").strip_prefix("name=").filter(|_| in_bin) {
                names.insert(name.trim_matches('"').to_owned());
            }
        }
    }
    // A file in src/bin is a program too.
    for file in &tree.files {
        if let Some(name) = file.path.rsplit_once("/src/bin/").and_then(|(_, f)| f.strip_suffix(".rs")) {
            names.insert(name.to_owned());
        }
    }
    names
}

#[cfg(test)]
mod tests;
