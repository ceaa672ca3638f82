//! An embedded store becomes the first node of a cluster: its servers are started as processes of their own from then on, on the very
//! directories they have.
//!
//! | step | a crash after it leaves |
//! | --- | --- |
//! | 1 `store.toml` says that the adoption began | a store that is not embedded any more; `pangu adopt` again goes on |
//! | 2 the master is told how many copies there are to be | the same |
//! | 3 the master is told where it listens from its next start on | the same |
//! | 4 `cluster.toml` names that address | the same |
//! | 5 `store.toml` says that it is done | the first node of a cluster |
//!
//! Each step may be done again. After the last none is: others may be masters by then.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use kuafu::Address;
use master_api::{ClientConfig, ClientError, MasterClient};

use crate::config::EmbeddedConfig;
use crate::platform::{EmbeddedError, start_master};
use crate::store::{Adopted, Store, StoreError};

/// One step of the master, its election included.
const STEP_TIMEOUT: Duration = Duration::from_secs(30);

/// What the cluster is to be.
#[derive(Clone, Debug)]
pub struct Adoption {
    pub data_dir: PathBuf,
    /// For people.
    pub name: String,
    /// Where the master listens from now on: other machines must reach it.
    pub master: Address,
    pub replicas: u32,
    pub min_replicas: u32,
}

/// The directories of a cluster's first node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FirstNode {
    pub cluster_file: PathBuf,
    pub master: PathBuf,
    pub chunkservers: Vec<PathBuf>,
    /// It was one already: nothing was changed.
    pub already: bool,
}

/// Why a store was not adopted.
#[derive(Debug, thiserror::Error)]
pub enum AdoptError {
    #[error(
        "{0} is no address for a master of a cluster: other machines must reach it, so give it as tcp://HOST:PORT, with the \
         name or number of this machine"
    )]
    Address(Address),
    #[error("there is no embedded store in {path}: `pangu-fuse MOUNT` makes one", path = .0.display())]
    NoStore(PathBuf),
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error(transparent)]
    Embedded(#[from] EmbeddedError),
    #[error("the master did not {step}")]
    Master {
        step: &'static str,
        #[source]
        source: ClientError,
    },
}

/// Makes an embedded store that nobody uses the first node of a cluster. To be called inside a tokio runtime.
///
/// # Errors
/// See [`AdoptError`]; the same call again goes on where it stopped.
pub async fn adopt(adoption: &Adoption) -> Result<FirstNode, AdoptError> {
    check(&adoption.master)?;
    if !adoption.data_dir.join("store.toml").exists() {
        return Err(AdoptError::NoStore(adoption.data_dir.clone()));
    }
    let store = Store::open_to_adopt(&EmbeddedConfig::new(&adoption.data_dir))?;
    let node = |already| FirstNode {
        cluster_file: store.cluster_file(),
        master: store.master_dir(),
        chunkservers: (1..=store.shape.chunkservers).map(|n| store.chunkserver_dir(n)).collect(),
        already,
    };
    if store.adopted == Some(Adopted::Done) {
        return Ok(node(true));
    }
    store.describe(Some(Adopted::Begun))?;
    let master = start_master(&store).await?;
    let told = tell(&store, adoption).await;
    master.shutdown().await;
    told?;
    store.write_cluster(&adoption.name, &adoption.master, None)?;
    store.describe(Some(Adopted::Done))?;
    Ok(node(false))
}

/// An address that says where this machine is.
fn check(master: &Address) -> Result<(), AdoptError> {
    let wrong = match master {
        Address::Unix(_) => true,
        Address::Tcp(place) => {
            let (host, port) = place.rsplit_once(':').unwrap_or((place, "0"));
            port == "0" || ["", "0.0.0.0", "[::]"].contains(&host)
        }
    };
    if wrong { Err(AdoptError::Address(master.clone())) } else { Ok(()) }
}

async fn tell(store: &Store, adoption: &Adoption) -> Result<(), AdoptError> {
    let failed = |step| move |source| AdoptError::Master { step, source };
    let client = MasterClient::new(ClientConfig::new(vec![store.master_address()], "pangu adopt"))
        .map_err(failed("start"))?;
    let deadline = || Some(Instant::now() + STEP_TIMEOUT);
    let Adoption { replicas, min_replicas, .. } = *adoption;
    client
        .set_replicas(replicas, min_replicas, deadline())
        .await
        .map_err(failed("take the number of replicas"))?;
    let to = adoption.master.to_string();
    client.move_master(&to, deadline()).await.map_err(failed("take its new address"))?;
    client.close(Instant::now() + STEP_TIMEOUT).await;
    Ok(())
}

/// What to type for a server of the first node.
#[must_use]
pub fn quoted(path: &Path) -> String {
    let text = path.display().to_string();
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"/._-".contains(&byte);
    if text.bytes().all(plain) { text } else { format!("'{}'", text.replace('\'', "'\\''")) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_must_be_reachable() {
        for (text, right) in [
            ("tcp://10.0.0.1:7101", true),
            ("tcp://storage-1:7101", true),
            ("tcp://[fe80::1]:7101", true),
            ("tcp://0.0.0.0:7101", false),
            ("tcp://[::]:7101", false),
            ("tcp://10.0.0.1:0", false),
            ("unix:///run/x", false),
        ] {
            assert_eq!(check(&text.parse().unwrap()).is_ok(), right, "{text}");
        }
    }

    #[test]
    fn what_a_shell_would_cut_is_quoted() {
        assert_eq!(quoted(Path::new("/var/lib/feitian/master")), "/var/lib/feitian/master");
        assert_eq!(quoted(Path::new("/a b/it's")), r"'/a b/it'\''s'");
    }
}
