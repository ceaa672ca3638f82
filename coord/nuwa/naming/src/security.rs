//! Keeping what a process knows of keys up to date: its own, and what was taken back.
//!
//! Level-triggered, as `zhongkui_access::revoked` asks for: every event of the folder has all of it read anew, so that a missed one costs nothing.

use std::convert::Infallible;
use std::path::Path as FilePath;
use std::path::PathBuf;
use std::time::Duration;

use coord_cluster::ClusterConfig;
use nuwa_api::client::Freshness;
use nuwa_api::proto::{Entry, List, RefusalCode};
use nuwa_api::{ClientConfig, ClientError, NuwaClient, Path, Place, Watched};
use zhongkui_access::keyring::{KeyFiles, Keyring};
use zhongkui_access::revoked::FOLDER;
use zhongkui_access::{Access, Audit, DirectoryError, KeyDirectory, directory};

/// Between tries, while Nuwa refuses or says nothing that can be used. It is not away then: for that its client waits by itself.
const PAUSE_MIN: Duration = Duration::from_millis(50);
const PAUSE_MAX: Duration = Duration::from_millis(500);
/// What is kept of the folder: a million records would be 100 MB in every process of the cluster.
const RECORDS_MAX: usize = 100_000;
/// Of a file, as much as can mean something: an authority's record has 250 bytes.
const CONTENT_MAX: usize = 4096;

/// Follows new keys in files, and Nuwa's list of what was taken back, for as long as it is polled.
pub async fn keep(cluster: ClusterConfig, access: Access) {
    let fresh = access.clone().keep_fresh();
    let never: Infallible = if cluster.nuwa.is_empty() {
        fresh.await
    } else {
        let client = NuwaClient::new(ClientConfig::with(cluster.nuwa, access.transport()));
        tokio::select! {
            never = fresh => never,
            never = follow(&client, &access) => never,
        }
    };
    match never {}
}

/// The keys of a program that somebody runs: those of a folder, by their name there, or a key and a capability by their files, with the
/// authorities of the folder.
#[derive(Clone, Debug, Default)]
pub struct ClientKeys {
    /// The folder; `None`: of the environment, or beside the cluster's description.
    pub folder: Option<PathBuf>,
    /// The secret key and the capability for it; `None`: the administrator's.
    pub pair: Option<(PathBuf, PathBuf)>,
}

impl ClientKeys {
    /// # Errors
    /// There are none, or they cannot be used.
    pub fn open(&self, description: &FilePath) -> Result<Access, DirectoryError> {
        let found = KeyDirectory::find(self.folder.as_deref(), description);
        let Some((key, capability)) = self.pair.clone() else {
            return found.access(directory::ADMIN, Audit::none());
        };
        let files = KeyFiles { key, capability, authorities: found.folder().to_owned() };
        Ok(Access::new(Keyring::open(files)?, Audit::none()))
    }
}

/// `client` is asked for nothing else.
async fn follow(client: &NuwaClient, access: &Access) -> Infallible {
    let mut pause = PAUSE_MIN;
    loop {
        let Err(failed) = follow_until_it_fails(client, access, &mut pause).await else { continue };
        // Once: whoever may not read the folder is told so for ever.
        if pause == PAUSE_MIN {
            let error = &failed as &dyn std::error::Error;
            tracing::warn!(error, "what was taken back is not known; trying again");
        }
        tokio::time::sleep(pause).await;
        pause = (2 * pause).min(PAUSE_MAX);
    }
}

/// Why the folder is not followed.
#[derive(Debug, thiserror::Error)]
enum Failed {
    #[error(transparent)]
    Nuwa(#[from] ClientError),
    #[error(
        "there are more than {RECORDS_MAX} files below {FOLDER}: remove those that nobody needs any more"
    )]
    TooMany,
}

/// Returns when history was lost.
async fn follow_until_it_fails(
    client: &NuwaClient,
    access: &Access,
    pause: &mut Duration,
) -> Result<(), Failed> {
    loop {
        let (records, revision) = read(client).await?;
        access.follow(records.iter().map(|(path, content)| (path.as_str(), &content[..])));
        let mut watcher = client.watch(FOLDER, Place::after(revision));
        let watched = watcher.next().await?;
        *pause = PAUSE_MIN;
        if let Watched::HistoryLost { .. } = watched {
            return Ok(());
        }
    }
}

/// Files below the folder, and the revision to watch from.
async fn read(client: &NuwaClient) -> Result<(Vec<(String, Vec<u8>)>, u64), Failed> {
    // Answers have at least what this client has seen, the event that this is because of among it. So any member may be asked,
    // and after a change not all processes of the cluster ask the leader. One that is behind shows old files first, and the watch the newer.
    let (mut records, mut directories) = (Vec::new(), vec![FOLDER.to_owned()]);
    let mut first_revision = None;
    while let Some(directory) = directories.pop() {
        let mut after = String::new();
        loop {
            let page = List { path: directory.clone(), after, with_values: true, ..List::default() };
            let listed = client.list(page, Freshness::Stale, None).await;
            // Of the first answer, as nobody else has this client.
            first_revision.get_or_insert_with(|| client.newest());
            let listed = match listed {
                Ok(listed) => listed,
                // Nothing was ever taken back; or it was deleted just now, which is an event.
                Err(error) if error.refusal() == Some(RefusalCode::NotFound) => break,
                Err(error) => return Err(error.into()),
            };
            let last = listed.entries.last().and_then(|entry| Path::new(entry.path.clone()).ok());
            let last = last.as_ref().and_then(|path| path.split()).map(|(_, name)| name.to_owned());
            for Entry { path, value, .. } in listed.entries {
                if path.ends_with('/') {
                    directories.push(path);
                } else {
                    records.push((path, value[..value.len().min(CONTENT_MAX)].to_vec()));
                }
            }
            if records.len() + directories.len() > RECORDS_MAX {
                return Err(Failed::TooMany);
            }
            match last {
                Some(name) if listed.more => after = name,
                Some(_) | None => break,
            }
        }
    }
    Ok((records, first_revision.unwrap_or_default()))
}
