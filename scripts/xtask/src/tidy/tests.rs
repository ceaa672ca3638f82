//! Each check finds its offence, and nothing in a tree that is right.

use super::*;

fn tree(files: &[(&str, &str)]) -> Tree {
    let mut files: Vec<File> = files
        .iter()
        .map(|(path, text)| File { path: (*path).to_owned(), text: (*text).to_owned(), executable: false })
        .collect();
    if !files.iter().any(|f| f.path == "README.md") {
        files.push(File { path: "README.md".to_owned(), text: String::new(), executable: false });
    }
    Tree { files }
}

fn one(files: &[(&str, &str)]) -> String {
    let found = check(&tree(files));
    assert_eq!(found.len(), 1, "{found:?}");
    found.into_iter().next().unwrap()
}

#[test]
fn a_right_tree_has_no_offence() {
    let found = check(&tree(&[
        ("a/src/lib.rs", "//! Fine.\n"),
        (
            "a/Cargo.toml",
            "[package]\nname = \"a\"\n\n[lints]\nworkspace = true\n\n[dependencies]\nb.workspace = true\n",
        ),
        (
            "README.md",
            "run `scripts/go`, see [the map](ARCHITECTURE.md#here) and [more](https://example.org/x)\n",
        ),
        ("ARCHITECTURE.md", "`a/src/lib.rs` and `a/src/` and `a b/c` and `a/{x,y}`\n"),
        ("scripts/go", "echo\n"),
    ]));
    assert_eq!(found, Vec::<String>::new());
}

#[test]
fn sources_open_with_their_purpose() {
    assert!(one(&[("a.rs", "fn main() {}\n")]).contains("a.rs:1"));
}

#[test]
fn sources_have_a_size() {
    let long = format!("//! x\n{}", "\n".repeat(MAX_LINES));
    assert!(one(&[("a.rs", &long)]).contains("1001 lines"));
}

#[test]
fn unfinished_work_is_found() {
    for (word, _) in forbidden_words() {
        assert!(one(&[("a.rs", &format!("//! x\n// {word}\n"))]).starts_with("a.rs:2"), "{word}");
    }
}

#[test]
fn machine_paths_are_found_and_parts_of_paths_are_not() {
    let bad = ["see /wo", "rk/x"].concat();
    assert!(one(&[("notes.txt", &bad)]).contains("notes.txt:1"));
    let fine = ["target/wo", "rk/x $HOME/ro", "ot/y"].concat();
    assert_eq!(check(&tree(&[("notes.txt", &fine)])), Vec::<String>::new());
}

#[test]
fn versions_stand_in_the_root_manifest() {
    let text = "[lints]\nworkspace = true\n[dev-dependencies]\nrand = \"0.9\"\n";
    assert!(one(&[("a/Cargo.toml", text)]).starts_with("a/Cargo.toml:4"));
    assert!(one(&[("a/Cargo.toml", "[package]\n")]).contains("[lints]"));
    let outside = "[dependencies]\nrand = \"0.9\"\n[workspace]\n";
    assert_eq!(check(&tree(&[("a/Cargo.toml", outside)])), Vec::<String>::new());
}

#[test]
fn links_lead_somewhere() {
    assert!(one(&[("a/x.md", "[y](../b/y.md)\n")]).contains("../b/y.md"));
    assert_eq!(
        check(&tree(&[("a/x.md", "[y](../b/y.md) [b](../b/)\n"), ("b/y.md", "")])),
        Vec::<String>::new()
    );
}

#[test]
fn the_code_map_names_real_files() {
    let found = one(&[("ARCHITECTURE.md", "x\n`a/src/gone.rs`\n"), ("a/src/lib.rs", "//! x\n")]);
    assert!(found.starts_with("ARCHITECTURE.md:2"), "{found}");
}

#[test]
fn the_readme_names_real_commands() {
    assert!(one(&[("README.md", "Run `scripts/gone`.\n")]).contains("scripts/gone"));
    assert!(one(&[("README.md", "pangu-gone status\n")]).contains("pangu-gone"));
    let manifest = "[lints]\nworkspace = true\n[[bin]]\nname = \"pangu-here\"\n";
    assert_eq!(
        check(&tree(&[("README.md", "pangu-here status\n"), ("a/Cargo.toml", manifest)])),
        Vec::<String>::new()
    );
}

#[test]
fn scripts_can_be_run() {
    assert!(one(&[("scripts/go", "#!/bin/sh\n")]).contains("not executable"));
}
