//! `nuwa rm`.
//!
//! Whether a name is a file's or a directory's is decided by the transaction that deletes it: nobody can make it the other one
//! between a look and the deletion.

use anyhow::Context as _;
use clap::Args;
use nuwa_api::proto::{Delete, List, Operation, RefusalCode};
use nuwa_api::{ClientError, Session, client::Freshness, ops};
use serde_json::json;

use crate::name::{self, Name};
use crate::show;
use crate::{CHANGE_TTL, Context};

/// See [`crate::Command::Rm`].
#[derive(Debug, Args)]
pub(crate) struct Rm {
    /// A file; or a directory, with or without its final /
    #[arg(value_name = "PATH")]
    path: String,
    /// A directory with everything below it
    ///
    /// All of it in one step, if that is at most 4096 entries and 8 MiB of values. More is removed in many steps, the deepest first: others see
    /// those in between, and if one is refused the rest stays.
    #[arg(short, long)]
    recursive: bool,
    /// It may be gone already
    #[arg(short, long)]
    force: bool,
}

/// Entries of a page: with the longest paths there are they fit into one message, which has at most 4 MiB.
const PAGE: u32 = 500;

/// What was removed.
struct Removed {
    path: String,
    entries: u64,
}

impl Rm {
    pub(crate) async fn run(self, context: &Context) -> anyhow::Result<()> {
        let name = Name::new(&self.path)?;
        let session = context.session(CHANGE_TTL).await?;
        let removed = self.remove(context, &session, &name).await;
        context.end(session).await;
        let removed = removed?;
        if context.json {
            return show::print_json(&json!({"path": removed.path, "removed": removed.entries}));
        }
        Ok(())
    }

    async fn remove(&self, context: &Context, session: &Session, name: &Name) -> anyhow::Result<Removed> {
        let delete = |path: &str| -> Vec<Operation> {
            let (path, may_be_absent) = (path.to_owned(), self.force);
            vec![Delete { path, subtree: self.recursive, may_be_absent }.into()]
        };
        // A directory without its / is meant by -r only; a file is never meant by a name with one.
        let is_meant = self.recursive && !name.is_directory();
        let of_other = name.other().filter(|_| is_meant).map(delete).unwrap_or_default();
        let (compares, given) = (name.other_exists(), name.given());
        let done = match session.txn(compares, of_other, delete(given), context.deadline()).await {
            Err(error) if error.refusal() == Some(RefusalCode::TooMuch) => {
                // A file alone is never too much.
                let top = name::directory(given);
                let entries = in_pieces(context, session, top.clone()).await?;
                return Ok(Removed { path: top, entries });
            }
            done => done?,
        };
        let path = match name.other() {
            Some(other) if done.succeeded => {
                anyhow::ensure!(!name.is_directory(), "{other} is a file: name it without the final /");
                anyhow::ensure!(
                    self.recursive,
                    "{other} is a directory: use -r to remove it with everything below it"
                );
                other.to_owned()
            }
            _ => given.to_owned(),
        };
        let entries = done.results.iter().map(|result| u64::from(result.touched)).sum();
        Ok(Removed { path, entries })
    }
}

/// Removes a directory that is more than one command may touch, and gives how many entries that were.
///
/// What is too much is divided: a batch into halves, a directory into a page of what is in it, and itself again when that is gone. So
/// there is never more to remember than a page for each directory on the way down.
async fn in_pieces(context: &Context, session: &Session, top: String) -> anyhow::Result<u64> {
    let mut removed = 0;
    let below = page(context, &top).await?;
    // The last one is done first.
    let mut left = vec![vec![top], below];
    while let Some(mut batch) = left.pop() {
        match delete_all(context, session, &batch).await {
            Ok(entries) => removed += entries,
            Err(error) if error.refusal() == Some(RefusalCode::TooMuch) => match &*batch {
                [directory] => {
                    let below = page(context, directory).await?;
                    left.extend([batch, below]);
                }
                _ => {
                    let second = batch.split_off(batch.len() / 2);
                    left.extend([second, batch]);
                }
            },
            Err(error) => {
                return Err(error)
                    .with_context(|| format!("{removed} entries are removed, the rest is there"));
            }
        }
    }
    Ok(removed)
}

/// In one step. What is gone meanwhile is none of our business.
async fn delete_all(context: &Context, session: &Session, paths: &[String]) -> Result<u64, ClientError> {
    let delete = |path: &String| Delete { subtree: true, may_be_absent: true, ..ops::delete(path.clone()) };
    let operations = paths.iter().map(|path| delete(path).into()).collect();
    let done = session.txn(Vec::new(), operations, Vec::new(), context.deadline()).await?;
    Ok(done.results.iter().map(|result| u64::from(result.touched)).sum())
}

/// The first of what is in a directory.
async fn page(context: &Context, directory: &str) -> anyhow::Result<Vec<String>> {
    let list = List { path: directory.to_owned(), entries_max: PAGE, ..List::default() };
    match context.client.list(list, Freshness::Linearizable, context.deadline()).await {
        Ok(listed) => Ok(listed.entries.into_iter().map(|entry| entry.path).collect()),
        Err(ClientError::Refused { code: RefusalCode::NotFound, .. }) => Ok(Vec::new()),
        Err(error) => Err(error.into()),
    }
}
