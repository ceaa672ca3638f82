//! A snapshot into an empty cluster.

use std::io::Read;
use std::time::{Duration, Instant};

use nuwa_model::proto::{
    Restore, RestoreAbandon, RestoreBegin, RestoreBlock, RestoreFinish, SnapshotRecords,
};

use super::error::SnapshotError;
use super::{Contents, Reader};
use crate::client::{ClientError, NuwaClient};
use crate::proto::command::What as CommandKind;
use crate::proto::reply::What as Answer;
use crate::proto::restore::Step;
use crate::proto::{ChangeRequest, Command, Reply};
use crate::session::change;

/// Why a restore did not come to its end.
#[derive(Debug, thiserror::Error)]
pub enum RestoreError {
    /// The cluster is as it was.
    #[error(transparent)]
    NotBegun(ClientError),
    /// The tree stays as it is now, and refuses everything, until it is restored again or the restore is abandoned.
    #[error("the restore broke off behind {records} entries")]
    BrokenOff {
        records: u64,
        #[source]
        source: BrokenOff,
    },
}

/// What broke a restore off.
#[derive(Debug, thiserror::Error)]
pub enum BrokenOff {
    #[error(transparent)]
    Client(#[from] ClientError),
    #[error(transparent)]
    Snapshot(#[from] SnapshotError),
}

/// What a restore came to.
#[derive(Clone, Debug, PartialEq)]
pub struct Restored {
    /// Of the tree now.
    pub revision: u64,
    pub contents: Contents,
}

/// One step, asked for until there is an answer.
async fn step(
    client: &NuwaClient,
    restore: u64,
    step: Step,
    timeout: Duration,
) -> Result<Reply, ClientError> {
    let what = Some(CommandKind::Restore(Restore { restore, step: Some(step) }));
    let request = ChangeRequest { stamp: None, command: Some(Command { what }) };
    let reply = change(client, &request, Some(Instant::now() + timeout)).await?;
    match reply.what {
        Some(Answer::Restore(_)) => Ok(reply),
        _ => Err(ClientError::Reply("no restore for a restore")),
    }
}

/// Makes a snapshot the tree of a cluster that has none. The snapshot is to be [verified](super::verify) before: here it is checked once more, but what
/// was restored by then is there. `revision_bump`: how far the revision goes beyond the snapshot's; 0: 10^9. `timeout`: of each of the
/// cluster's answers.
///
/// # Errors
/// See [`RestoreError`].
pub async fn restore<R: Read>(
    client: &NuwaClient,
    mut reader: Reader<R>,
    revision_bump: u64,
    timeout: Duration,
    mut progress: impl FnMut(&Contents),
) -> Result<Restored, RestoreError> {
    // 0 is none.
    let number = rand::random_range(1..=u64::MAX);
    let begin = RestoreBegin { header: Some(reader.header().clone()), revision_bump };
    step(client, number, Step::Begin(begin), timeout).await.map_err(RestoreError::NotBegun)?;
    let restored: Result<u64, BrokenOff> = async {
        let mut block = 0;
        while let Some(records) = reader.next_block()? {
            let records = Some(SnapshotRecords { records });
            step(client, number, Step::Block(RestoreBlock { number: block, records }), timeout).await?;
            block += 1;
            progress(reader.contents());
        }
        let finish = RestoreFinish { records: reader.contents().records };
        Ok(step(client, number, Step::Finish(finish), timeout).await?.revision)
    }
    .await;
    let contents = reader.contents().clone();
    match restored {
        Ok(revision) => Ok(Restored { revision, contents }),
        Err(source) => Err(RestoreError::BrokenOff { records: contents.records, source }),
    }
}

/// Gives up whichever restore is under way: the tree is empty again.
///
/// # Errors
/// See [`ClientError`].
pub async fn abandon(client: &NuwaClient, timeout: Duration) -> Result<(), ClientError> {
    step(client, 0, Step::Abandon(RestoreAbandon {}), timeout).await.map(drop)
}
