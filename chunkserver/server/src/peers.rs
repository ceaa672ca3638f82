//! Connections to the servers of other members, found by disk through the table.

use std::collections::HashMap;

use chunkserver_api::ChunkClient;
use chunkserver_api::pb::ReplicaClient;
use coord_types::DiskId;
use kuafu::{Address, Client, ClientConfig};
use master_api::model::Table;
use parking_lot::Mutex;

/// Clients by disk; disks of one server share a connection.
#[derive(Debug, Default)]
pub(crate) struct Peers {
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    by_disk: HashMap<DiskId, Peer>,
    by_address: HashMap<String, Peer>,
}

/// One connection, for both services.
#[derive(Clone, Debug)]
struct Peer {
    replica: ReplicaClient,
    chunk: ChunkClient,
}

impl Peers {
    /// Follows the table: new addresses are connected to when first needed, old ones are dropped.
    pub(crate) fn update(&self, table: &Table, config: &ClientConfig) {
        let mut state = self.state.lock();
        let mut next = State::default();
        for server in table.servers() {
            let known = state.by_address.remove(&server.address);
            let client = match known {
                Some(client) => client,
                None => match server.address.parse::<Address>() {
                    Ok(address) => {
                        let client = Client::new(address, config.clone());
                        Peer { replica: ReplicaClient::new(client.clone()), chunk: ChunkClient::new(client) }
                    }
                    Err(error) => {
                        tracing::warn!(server = %server.id, %error, "the table has a server without an address");
                        continue;
                    }
                },
            };
            for (disk, _) in &server.disks {
                next.by_disk.insert(*disk, client.clone());
            }
            next.by_address.insert(server.address.clone(), client);
        }
        *state = next;
    }

    pub(crate) fn of(&self, disk: DiskId) -> Option<ReplicaClient> {
        self.state.lock().by_disk.get(&disk).map(|peer| peer.replica.clone())
    }

    /// The same, to read chunks as a client does.
    pub(crate) fn reader(&self, disk: DiskId) -> Option<ChunkClient> {
        self.state.lock().by_disk.get(&disk).map(|peer| peer.chunk.clone())
    }
}
