//! `nuwa put`, `mkdir`, `mv`.

use std::io::Read as _;

use anyhow::Context as _;
use clap::Args;
use nuwa_api::proto::{self, Existence, Operation, OperationResult};
use nuwa_api::{json, ops};

use crate::Context;
use crate::name::{self, Name};
use crate::show;

/// One operation, if a file still has the version it should have.
async fn change(
    context: &Context,
    operation: Operation,
    version: Option<(&str, u64)>,
) -> anyhow::Result<OperationResult> {
    let compares = version.map(|(path, version)| ops::version_is(path, version));
    let done = context.txn(compares.into_iter().collect(), vec![operation], Vec::new()).await?;
    if let Some((path, version)) = version {
        anyhow::ensure!(
            done.succeeded,
            "{path} does not have version {version} any more: nothing was changed"
        );
    }
    done.results.into_iter().next().context("an answer without a result")
}

fn show_result(context: &Context, result: &OperationResult) -> anyhow::Result<()> {
    match &result.entry {
        Some(entry) if context.json => show::print_json(&json::entry(entry)),
        _ => Ok(()),
    }
}

/// See [`crate::Command::Put`].
#[derive(Debug, Args)]
pub(crate) struct Put {
    /// The file, which is made if it is missing
    #[arg(value_name = "PATH")]
    path: String,
    /// The value [default: standard input]
    #[arg(value_name = "VALUE")]
    value: Option<String>,
    /// It must not exist
    #[arg(long, conflicts_with = "existing")]
    new: bool,
    /// It must exist
    #[arg(long)]
    existing: bool,
    /// Only if this is its version now; 0: it does not exist
    #[arg(long, value_name = "N")]
    version: Option<u64>,
    /// The name gets the directory's next number
    #[arg(long, conflicts_with_all = ["new", "existing", "version"])]
    sequential: bool,
    /// Make missing directories
    #[arg(short, long)]
    parents: bool,
}

impl Put {
    pub(crate) async fn run(self, context: &Context) -> anyhow::Result<()> {
        let value = match self.value {
            Some(value) => value.into_bytes(),
            None => {
                let mut value = Vec::new();
                // One byte more than there may be: the server says what is wrong.
                let limit = nuwa_api::model::VALUE_MAX_BYTES as u64 + 1;
                std::io::stdin().lock().take(limit).read_to_end(&mut value).context("read the value")?;
                value
            }
        };
        let existence = match (self.new, self.existing) {
            (true, _) => Existence::MustNotExist,
            (_, true) => Existence::MustExist,
            _ => Existence::Any,
        };
        let put = proto::Put {
            existence: existence.into(),
            sequential: self.sequential,
            with_parents: self.parents,
            ..ops::put(self.path.clone(), value)
        };
        let result = change(context, put.into(), self.version.map(|version| (&*self.path, version))).await?;
        if self.sequential && !context.json {
            let path = result.entry.as_ref().map_or("", |entry| &entry.path);
            return show::print(format!("{path}\n").as_bytes());
        }
        show_result(context, &result)
    }
}

/// See [`crate::Command::Mkdir`].
#[derive(Debug, Args)]
pub(crate) struct Mkdir {
    /// The directory, with or without its final /
    #[arg(value_name = "DIRECTORY")]
    path: String,
    /// Missing ones above it, too; it may be there already
    #[arg(short, long)]
    parents: bool,
}

impl Mkdir {
    pub(crate) async fn run(self, context: &Context) -> anyhow::Result<()> {
        let path = name::directory(&self.path);
        let make = proto::MakeDirectory { path, with_parents: self.parents, may_exist: self.parents };
        show_result(context, &change(context, make.into(), None).await?)
    }
}

/// See [`crate::Command::Mv`].
#[derive(Debug, Args)]
pub(crate) struct Mv {
    /// A file; or a directory, with or without its final /
    #[arg(value_name = "FROM")]
    from: String,
    /// Its whole new name: nothing is moved into a directory of that name
    #[arg(value_name = "TO")]
    to: String,
    /// Do not replace a file
    #[arg(short, long)]
    no_replace: bool,
}

impl Mv {
    /// What FROM is the transaction looks up: it cannot become something else in between.
    pub(crate) async fn run(self, context: &Context) -> anyhow::Result<()> {
        let from = Name::new(&self.from)?;
        let rename = |from: &str, to: &str| -> Vec<Operation> {
            vec![proto::Rename { no_replace: self.no_replace, ..ops::rename(from, to) }.into()]
        };
        let to_directory = name::directory(&self.to);
        let done = match from.other() {
            Some(directory) if !from.is_directory() => {
                let then = rename(directory, &to_directory);
                context.txn(from.other_exists(), then, rename(from.given(), &self.to)).await?
            }
            _ => {
                let to = if from.is_directory() { &to_directory } else { &self.to };
                context.txn(Vec::new(), rename(from.given(), to), Vec::new()).await?
            }
        };
        show_result(context, done.results.first().context("an answer without a result")?)
    }
}
