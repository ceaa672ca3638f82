//! `nuwa put`, `mkdir`, `rm`, `mv`, `quota`.

use std::io::Read as _;
use std::time::Duration;

use anyhow::Context as _;
use clap::Args;
use nuwa_api::client::Freshness;
use nuwa_api::proto::command::What;
use nuwa_api::proto::read_reply::What as Answer;
use nuwa_api::proto::read_request::What as Question;
use nuwa_api::proto::{self, Existence, Operation, OperationResult};
use nuwa_api::{json, ops};

use crate::Context;
use crate::show;

/// More than one change takes.
const TTL: Duration = Duration::from_secs(60);

/// One operation, if a file still has the version it should have.
async fn change(
    context: &Context,
    operation: Operation,
    version: Option<(&str, u64)>,
) -> anyhow::Result<OperationResult> {
    let session = context.session(TTL).await?;
    let compares = version.map(|(path, version)| ops::version_is(path, version));
    let done =
        session.txn(compares.into_iter().collect(), vec![operation], Vec::new(), context.deadline()).await;
    context.end(session).await;
    let done = done?;
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
    #[arg(value_name = "DIRECTORY")]
    path: String,
    /// Missing ones above it, too; it may be there already
    #[arg(short, long)]
    parents: bool,
}

impl Mkdir {
    pub(crate) async fn run(self, context: &Context) -> anyhow::Result<()> {
        let path = if self.path.ends_with('/') { self.path } else { self.path + "/" };
        let make = proto::MakeDirectory { path, with_parents: self.parents, may_exist: self.parents };
        show_result(context, &change(context, make.into(), None).await?)
    }
}

/// See [`crate::Command::Rm`].
#[derive(Debug, Args)]
pub(crate) struct Rm {
    #[arg(value_name = "PATH")]
    path: String,
    /// A directory with everything below it
    #[arg(short, long)]
    recursive: bool,
    /// It may be gone already
    #[arg(short, long)]
    force: bool,
}

impl Rm {
    pub(crate) async fn run(self, context: &Context) -> anyhow::Result<()> {
        let delete = proto::Delete { path: self.path, subtree: self.recursive, may_be_absent: self.force };
        change(context, delete.into(), None).await.map(drop)
    }
}

/// See [`crate::Command::Mv`].
#[derive(Debug, Args)]
pub(crate) struct Mv {
    #[arg(value_name = "FROM")]
    from: String,
    #[arg(value_name = "TO")]
    to: String,
    /// Do not replace a file
    #[arg(short, long)]
    no_replace: bool,
}

impl Mv {
    pub(crate) async fn run(self, context: &Context) -> anyhow::Result<()> {
        let rename = proto::Rename { no_replace: self.no_replace, ..ops::rename(self.from, self.to) };
        show_result(context, &change(context, rename.into(), None).await?)
    }
}

/// See [`crate::Command::Quota`].
#[derive(Debug, Args)]
pub(crate) struct Quota {
    #[arg(value_name = "DIRECTORY")]
    path: String,
    /// At most so many entries below it; 0: no limit
    #[arg(long, value_name = "N")]
    entries: Option<u64>,
    /// At most so many bytes of names and values; 0: no limit
    #[arg(long, value_name = "BYTES")]
    bytes: Option<u64>,
}

impl Quota {
    pub(crate) async fn run(self, context: &Context) -> anyhow::Result<()> {
        let question = Question::Quota(proto::GetQuota { path: self.path.clone() });
        let read = context.client.read(question, Freshness::Linearizable, context.deadline()).await?;
        let Answer::Quota(now) = read.1 else { anyhow::bail!("an answer without a quota") };
        if self.entries.is_none() && self.bytes.is_none() {
            let limit = |max| if max == 0 { "unlimited".to_owned() } else { format!("at most {max}") };
            if context.json {
                return show::print_json(&serde_json::json!({
                    "path": self.path, "entries_max": now.entries_max, "bytes_max": now.bytes_max,
                    "entries": now.entries, "bytes": now.bytes,
                }));
            }
            if now == proto::QuotaState::default() {
                return show::print(format!("{} has no quota\n", self.path).as_bytes());
            }
            let line = format!(
                "{}: {} entries, {}; {} bytes, {}\n",
                self.path,
                now.entries,
                limit(now.entries_max),
                now.bytes,
                limit(now.bytes_max)
            );
            return show::print(line.as_bytes());
        }
        let entries_max = self.entries.unwrap_or(now.entries_max);
        let bytes_max = self.bytes.unwrap_or(now.bytes_max);
        let session = context.session(TTL).await?;
        let set = What::SetQuota(proto::SetQuota { path: self.path, entries_max, bytes_max });
        let done = session.change(set, context.deadline()).await;
        context.end(session).await;
        Ok(done.map(drop)?)
    }
}
