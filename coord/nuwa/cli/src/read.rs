//! `nuwa get`, `nuwa ls`.

use anyhow::Context as _;
use clap::Args;
use nuwa_api::client::Freshness;
use nuwa_api::proto::{Entry, List};
use nuwa_api::{Path, json};

use crate::show;
use crate::{Context, name};

fn freshness(stale: bool) -> Freshness {
    if stale { Freshness::Stale } else { Freshness::Linearizable }
}

/// See [`crate::Command::Get`].
#[derive(Debug, Args)]
pub(crate) struct Get {
    /// The file; of a directory only --json has something to say
    #[arg(value_name = "PATH")]
    path: String,
    /// Whatever the asked member has: cheaper, and works while there is no leader
    #[arg(long)]
    stale: bool,
}

impl Get {
    pub(crate) async fn run(self, context: &Context) -> anyhow::Result<()> {
        let entry = context.client.get(&self.path, freshness(self.stale), context.deadline()).await?;
        let entry = entry.with_context(|| format!("{} does not exist", self.path))?;
        if context.json {
            return show::print_json(&json::entry_with_value(&entry));
        }
        show::print(&entry.value)
    }
}

/// See [`crate::Command::Ls`].
#[derive(Debug, Args)]
pub(crate) struct Ls {
    /// The directory, with or without its final /
    #[arg(value_name = "DIRECTORY", default_value = "/")]
    path: String,
    /// Versions and revisions, too
    #[arg(short, long)]
    long: bool,
    /// Everything below
    #[arg(short = 'R', long)]
    recursive: bool,
    /// Whatever the asked member has
    #[arg(long)]
    stale: bool,
}

impl Ls {
    pub(crate) async fn run(self, context: &Context) -> anyhow::Result<()> {
        // A directory may be named without its slash: there is nothing else it could be.
        let top = name::directory(&self.path);
        let mut directories = vec![top.clone()];
        while let Some(directory) = directories.pop() {
            let mut after = String::new();
            let mut below = Vec::new();
            loop {
                let list = List { path: directory.clone(), after, ..List::default() };
                let listed = context.client.list(list, freshness(self.stale), context.deadline()).await?;
                for entry in &listed.entries {
                    self.show(context, &top, entry)?;
                    if self.recursive && entry.path.ends_with('/') {
                        below.push(entry.path.clone());
                    }
                }
                match listed.entries.last() {
                    Some(last) if listed.more => after = own_name(last)?,
                    Some(_) | None => break,
                }
            }
            directories.extend(below.into_iter().rev());
        }
        Ok(())
    }

    fn show(&self, context: &Context, top: &str, entry: &Entry) -> anyhow::Result<()> {
        if context.json {
            return show::print_json(&json::entry(entry));
        }
        let name = entry.path.strip_prefix(top).unwrap_or(&entry.path);
        if self.long {
            let owner = if entry.owner == 0 { "-".to_owned() } else { entry.owner.to_string() };
            let line = format!("{:>8} {:>10} {:>6}  {name}\n", entry.version, entry.modified, owner);
            return show::print(line.as_bytes());
        }
        show::print(format!("{name}\n").as_bytes())
    }
}

fn own_name(entry: &Entry) -> anyhow::Result<String> {
    let path = Path::new(entry.path.clone())?;
    let (_, name) = path.split().context("the root is in no directory")?;
    Ok(name.to_owned())
}
