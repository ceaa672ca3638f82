//! What a master of Fuxi is told at its start.

use std::path::PathBuf;

use coord_cluster::ClusterConfig;
use kuafu::Address;
use zhongkui_access::Access;

/// See the module.
#[derive(Clone, Debug)]
pub struct Config {
    /// Its Pangu masters are asked for events, and its Nuwa, if it has one, says who leads.
    pub cluster: ClusterConfig,
    /// Where Pangu is mounted; the spool is `spool/` there.
    pub mount: PathBuf,
    pub listen: Address,
    pub access: Access,
}
