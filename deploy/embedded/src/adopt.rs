//! An embedded store becomes the first node of a cluster: its servers, Nuwa's member too if it has one, are started as processes of
//! their own from then on, on the very directories they have.
//!
//! | step | a crash after it leaves |
//! | --- | --- |
//! | 1 `store.toml` says that the adoption began | a store that is not embedded any more; `pangu adopt` again goes on |
//! | 2 the master is told how many copies there are to be | the same |
//! | 3 the master is told where it listens from its next start on | the same |
//! | 4 Nuwa's member is told the same | the same |
//! | 5 `cluster.toml` names these addresses | the same |
//! | 6 `store.toml` says that it is done | the first node of a cluster |
//!
//! Each step may be done again. After the last none is: others may be masters by then.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use kuafu::Address;
use master_api::{ClientConfig, ClientError, ClusterConfig, MasterClient};
use zhongkui_access::{Access, Audit, DirectoryError, directory};

use crate::config::EmbeddedConfig;
use crate::member::{Member, MemberError};
use crate::platform::{EmbeddedError, start_master};
use crate::store::{Adopted, Store, StoreError};

/// One step of the master or of Nuwa's member, its election included.
const STEP_TIMEOUT: Duration = Duration::from_secs(30);
/// How far Nuwa's port is above the master's, unless it is said: 7201 and 7101, as everywhere in the documents.
const NUWA_PORT_STEP: u16 = 100;

/// What the cluster is to be.
#[derive(Clone, Debug)]
pub struct Adoption {
    pub data_dir: PathBuf,
    /// For people.
    pub name: String,
    /// Where the master listens from now on: other machines must reach it.
    pub master: Address,
    /// Where Nuwa's member listens from now on, if the store has one. Default: where the master does, a hundred ports above.
    pub nuwa: Option<Address>,
    pub replicas: u32,
    pub min_replicas: u32,
}

/// The directories of a cluster's first node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FirstNode {
    pub cluster_file: PathBuf,
    pub master: PathBuf,
    /// Nuwa's member, if it has one.
    pub nuwa: Option<PathBuf>,
    pub chunkservers: Vec<PathBuf>,
    /// It was one already: nothing was changed.
    pub already: bool,
}

/// Why a store was not adopted.
#[derive(Debug, thiserror::Error)]
pub enum AdoptError {
    #[error("the store's keys")]
    Keys(#[from] DirectoryError),
    #[error(
        "{0} is no address for a server of a cluster: other machines must reach it, so give it as tcp://HOST:PORT, with the \
         name or number of this machine"
    )]
    Address(Address),
    #[error(
        "there is no port for Nuwa's member a hundred above that of {0}: say where it is to listen with --nuwa-listen"
    )]
    NoNuwaPort(Address),
    #[error(
        "--nuwa-listen says where Nuwa's member is to listen, and the store in {path} has none: leave it out",
        path = .0.display()
    )]
    NoNuwa(PathBuf),
    #[error("there is no embedded store in {path}: `pangu-fuse MOUNT` makes one", path = .0.display())]
    NoStore(PathBuf),
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error(transparent)]
    Embedded(#[from] EmbeddedError),
    #[error(transparent)]
    Nuwa(#[from] MemberError),
    #[error("read the description of the cluster it is the first node of")]
    Description(#[from] master_api::cluster::ConfigError),
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
    if store.adopted == Some(Adopted::Done) {
        let listed = !ClusterConfig::load(&store.cluster_file())?.nuwa.is_empty();
        return Ok(first_node(&store, store.has_nuwa && listed, true));
    }
    let nuwa = nuwa_address(&store, adoption)?;
    let member = match &nuwa {
        Some(address) => Some(Member::open(&store.nuwa_dir(), address).await?),
        None => None,
    };
    let moved = move_servers(&store, adoption, nuwa.as_ref().zip(member.as_ref())).await;
    if let Some(member) = member {
        member.close().await;
    }
    moved?;
    store.write_cluster(&adoption.name, &adoption.master, nuwa.as_ref())?;
    store.describe(Some(Adopted::Done))?;
    Ok(first_node(&store, nuwa.is_some(), false))
}

fn first_node(store: &Store, with_nuwa: bool, already: bool) -> FirstNode {
    FirstNode {
        cluster_file: store.cluster_file(),
        master: store.master_dir(),
        nuwa: with_nuwa.then(|| store.nuwa_dir()),
        chunkservers: (1..=store.shape.chunkservers).map(|n| store.chunkserver_dir(n)).collect(),
        already,
    }
}

/// Where Nuwa's member is to listen; `None` if there is none.
fn nuwa_address(store: &Store, adoption: &Adoption) -> Result<Option<Address>, AdoptError> {
    match &adoption.nuwa {
        Some(_) if !store.has_nuwa => Err(AdoptError::NoNuwa(adoption.data_dir.clone())),
        Some(address) => check(address).map(|()| Some(address.clone())),
        None if store.has_nuwa => {
            let above = above(&adoption.master);
            above.map(Some).ok_or_else(|| AdoptError::NoNuwaPort(adoption.master.clone()))
        }
        None => Ok(None),
    }
}

fn above(master: &Address) -> Option<Address> {
    let Address::Tcp(place) = master else { return None };
    let (host, port) = place.rsplit_once(':')?;
    let port = port.parse::<u16>().ok()?.checked_add(NUWA_PORT_STEP)?;
    Some(Address::Tcp(format!("{host}:{port}")))
}

/// Steps 1 to 4.
async fn move_servers(
    store: &Store,
    adoption: &Adoption,
    nuwa: Option<(&Address, &Member)>,
) -> Result<(), AdoptError> {
    store.describe(Some(Adopted::Begun))?;
    // A store of an earlier release has none.
    let keys = store.keys();
    keys.init()?;
    let master = start_master(store, &keys.access(directory::MASTER, Audit::none())?).await?;
    let told = tell(store, &keys.access(directory::ADMIN, Audit::none())?, adoption).await;
    master.shutdown().await;
    told?;
    if let Some((address, member)) = nuwa {
        member.move_to(address, Instant::now() + STEP_TIMEOUT).await?;
    }
    Ok(())
}

/// An address that says where this machine is.
fn check(address: &Address) -> Result<(), AdoptError> {
    let wrong = match address {
        Address::Unix(_) => true,
        Address::Tcp(place) => {
            let (host, port) = place.rsplit_once(':').unwrap_or((place, "0"));
            port == "0" || ["", "0.0.0.0", "[::]"].contains(&host)
        }
    };
    if wrong { Err(AdoptError::Address(address.clone())) } else { Ok(()) }
}

async fn tell(store: &Store, access: &Access, adoption: &Adoption) -> Result<(), AdoptError> {
    let failed = |step| move |source| AdoptError::Master { step, source };
    let mut config = ClientConfig::new(vec![store.master_address()], "pangu adopt");
    config.transport = access.transport();
    let client = MasterClient::new(config).map_err(failed("start"))?;
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
    fn nuwa_listens_a_hundred_ports_above() {
        for (master, nuwa) in [
            ("tcp://10.0.0.1:7101", Some("tcp://10.0.0.1:7201")),
            ("tcp://[fe80::1]:7101", Some("tcp://[fe80::1]:7201")),
            ("tcp://10.0.0.1:65500", None),
        ] {
            let above = above(&master.parse().unwrap()).map(|address| address.to_string());
            assert_eq!(above.as_deref(), nuwa, "{master}");
        }
    }

    #[test]
    fn what_a_shell_would_cut_is_quoted() {
        assert_eq!(quoted(Path::new("/var/lib/feitian/master")), "/var/lib/feitian/master");
        assert_eq!(quoted(Path::new("/a b/it's")), r"'/a b/it'\''s'");
    }
}
