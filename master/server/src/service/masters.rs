//! Adding, removing and moving masters. Only the leader does it; what is refused for the sake of Raft the raft kit says.

use std::time::{Duration, Instant};

use coord_raft::{Leader, Newcomer, Removal};
use kuafu::{Address, CallOptions, Client, Status};
use master_api::proto::{self, AdminClient};

use crate::app::{App, being_made};

/// The new master's answer to who it is.
const ASK_TIMEOUT: Duration = Duration::from_secs(2);

/// Makes the master at an address a voter.
pub(super) async fn add(
    app: &App,
    request: &proto::AddMasterRequest,
    deadline: Instant,
) -> Result<proto::AddMasterReply, Status> {
    let text = &request.address;
    let address: Address =
        text.parse().map_err(|error| refused(format!("{text:?} is no address of a master: {error}")))?;
    must_lead(app)?;
    let members = app.raft.status().members;
    let here = members.iter().find(|(_, member)| member.address == address.to_string());
    if let Some((id, _)) = here.filter(|(id, member)| member.voter && [0, **id].contains(&request.id)) {
        return Ok(proto::AddMasterReply { id: *id, already: true });
    }
    let newcomer = who(app, &address).await?;
    let id = newcomer.member_id;
    let ours = app.cluster_id()?;
    if request.id != 0 && request.id != id {
        return Err(refused(format!("the master at {address} is master {id}, not {}", request.id)));
    }
    if !newcomer.cluster_id.is_empty() && newcomer.cluster_id != ours {
        let theirs = newcomer.cluster_id;
        return Err(refused(format!(
            "the master at {address} belongs to another cluster ({theirs}, this one is {ours}): start it on an empty directory"
        )));
    }
    let last_log_index = newcomer.last_log_index;
    let newcomer = Newcomer { kind: "master", id, address: address.to_string(), last_log_index };
    let already = app.raft.admit(newcomer, deadline).await?;
    Ok(proto::AddMasterReply { id, already })
}

/// Takes a master out of the cluster. If it leads, another one does from then on, and is asked for it.
pub(super) async fn remove(app: &App, id: u64, deadline: Instant) -> Result<(), Status> {
    must_lead(app)?;
    match app.raft.expel("master", id, deadline).await? {
        Removal::Done => Ok(()),
        Removal::AskLeader(leader) => Err(Leader::not_leader(Some(&leader))),
    }
}

/// The only master listens elsewhere from its next start on.
pub(super) async fn move_to(app: &App, text: &str, deadline: Instant) -> Result<(), Status> {
    let address: Address =
        text.parse().map_err(|error| refused(format!("{text:?} is no address of a master: {error}")))?;
    must_lead(app)?;
    app.raft.set_address(address.to_string(), deadline).await?;
    tracing::info!(%address, "this master listens there from its next start on");
    Ok(())
}

fn must_lead(app: &App) -> Result<(), Status> {
    app.raft.must_lead()?;
    app.must_have_begun()
}

async fn who(app: &App, address: &Address) -> Result<proto::StatusReply, Status> {
    let client = AdminClient::new(Client::new(address.clone(), app.config.access.transport()));
    let reply = client.status(&proto::StatusRequest {}, &CallOptions::within(ASK_TIMEOUT)).await;
    reply.map(|reply| reply.message).map_err(|error| {
        refused(format!("no master answers at {address} ({error}): start it there with --join first"))
    })
}

fn refused(text: String) -> Status {
    Status::invalid_argument(text)
}

impl App {
    fn cluster_id(&self) -> Result<String, Status> {
        let cluster = master_core::table::cluster(&self.raft.view());
        let cluster = cluster.map_err(|error| crate::app::store_status(&error))?;
        cluster.map(|cluster| cluster.cluster_id).ok_or_else(being_made)
    }
}
