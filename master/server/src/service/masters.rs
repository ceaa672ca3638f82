//! Adding, removing and moving masters: what is refused and why, and in which order things happen. Only the leader does it.

use std::time::{Duration, Instant};

use coord_raft::{Leadership, MemberStatus, MembershipError};
use kuafu::{Address, CallOptions, Client, ClientConfig, Status};
use master_api::proto::{self, AdminClient};

use crate::app::{App, being_made, not_leader};

/// More would only make each commit slower: of seven, three may be lost.
const MASTERS_MAX: usize = 7;
/// A master that was not heard for this long is not counted on. A few heartbeats, and more than a slow disk takes.
const AWAY: Duration = Duration::from_secs(2);
/// The new master's answer to who it is.
const ASK_TIMEOUT: Duration = Duration::from_secs(2);
/// For another leader, before the one that leads is removed.
const HAND_OVER_TIMEOUT: Duration = Duration::from_secs(1);

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
    let newcomer = who(&address).await?;
    let id = newcomer.member_id;
    let known = members.get(&id);
    let ours = app.cluster_id()?;
    if request.id != 0 && request.id != id {
        return Err(refused(format!("the master at {address} is master {id}, not {}", request.id)));
    }
    if let Some((other, _)) = here.filter(|(other, _)| **other != id) {
        return Err(refused(format!(
            "{address} is the address of master {other} and master {id} answers there: remove master {other} first"
        )));
    }
    if let Some(member) = known.filter(|member| member.address != address.to_string()) {
        return Err(refused(format!(
            "master {id} is a member already, at {}: give the new one a number that no master has had",
            member.address
        )));
    }
    if !newcomer.cluster_id.is_empty() && newcomer.cluster_id != ours {
        let theirs = newcomer.cluster_id;
        return Err(refused(format!(
            "the master at {address} belongs to another cluster ({theirs}, this one is {ours}): start it on an empty directory"
        )));
    }
    if known.is_none() && newcomer.last_log_index > 0 {
        return Err(refused(format!(
            "the master at {address} has data of an earlier membership: start it with --join on an empty directory"
        )));
    }
    let voters = members.values().filter(|member| member.voter);
    let (count, heard) = (voters.clone().count() + 1, voters.filter(|member| is_heard(member)).count() + 1);
    if count > MASTERS_MAX {
        return Err(refused(format!(
            "there are {MASTERS_MAX} masters already, and more only make it slower"
        )));
    }
    if heard <= count / 2 {
        return Err(refused(format!(
            "of then {count} masters only {heard} would answer, which is no majority: bring one back or remove one first"
        )));
    }
    app.raft.add_member(id, address.to_string(), deadline).await.map_err(|error| status(&error))?;
    tracing::info!(id, %address, "master added");
    Ok(proto::AddMasterReply { id, already: false })
}

/// Takes a master out of the cluster. If it leads, another one does from then on, and is asked for it.
pub(super) async fn remove(app: &App, id: u64, deadline: Instant) -> Result<(), Status> {
    must_lead(app)?;
    let members = app.raft.status().members;
    let Some(member) = members.get(&id) else {
        let known: Vec<_> = members.keys().map(ToString::to_string).collect();
        return Err(refused(format!("there is no master {id}: there are {}", known.join(", "))));
    };
    if member.voter {
        let left = members.iter().filter(|(other, member)| **other != id && member.voter);
        let (count, heard) = (left.clone().count(), left.filter(|(_, member)| is_heard(member)).count());
        if count == 0 {
            return Err(refused(format!("master {id} is the only one: add another first")));
        }
        if heard <= count / 2 {
            return Err(refused(format!(
                "of the {count} masters that are left without master {id} only {heard} answer, which is no majority: bring \
                 one back or add one first"
            )));
        }
        if id == app.config.id
            && let Some(leader) = app.hand_over(deadline.min(Instant::now() + HAND_OVER_TIMEOUT)).await
        {
            return Err(not_leader(Some(&leader)));
        }
    }
    app.raft.remove_member(id, deadline).await.map_err(|error| status(&error))?;
    tracing::info!(id, "master removed");
    Ok(())
}

/// The only master listens elsewhere from its next start on.
pub(super) async fn move_to(app: &App, text: &str, deadline: Instant) -> Result<(), Status> {
    let address: Address =
        text.parse().map_err(|error| refused(format!("{text:?} is no address of a master: {error}")))?;
    must_lead(app)?;
    app.raft.set_address(address.to_string(), deadline).await.map_err(|error| status(&error))?;
    tracing::info!(%address, "this master listens there from its next start on");
    Ok(())
}

fn must_lead(app: &App) -> Result<(), Status> {
    match app.raft.leadership() {
        Leadership::Leader { .. } => app.must_have_begun(),
        Leadership::Follower { leader } => Err(not_leader(leader.as_ref())),
        Leadership::Stopped => Err(Status::unavailable("this master has stopped")),
    }
}

async fn who(address: &Address) -> Result<proto::StatusReply, Status> {
    let client = AdminClient::new(Client::new(address.clone(), ClientConfig::default()));
    let reply = client.status(&proto::StatusRequest {}, &CallOptions::within(ASK_TIMEOUT)).await;
    reply.map(|reply| reply.message).map_err(|error| {
        refused(format!("no master answers at {address} ({error}): start it there with --join first"))
    })
}

/// A member this leader leads with: itself, or heard of lately.
fn is_heard(member: &MemberStatus) -> bool {
    member.silence.is_some_and(|silence| silence < AWAY)
}

fn refused(text: String) -> Status {
    Status::invalid_argument(text)
}

fn status(error: &MembershipError) -> Status {
    match error {
        MembershipError::NotLeader { leader } => not_leader(leader.as_ref()),
        MembershipError::InProgress => Status::busy(error.to_string(), Duration::from_millis(100)),
        MembershipError::Timeout => Status::deadline_exceeded(error.to_string()),
        MembershipError::Stopped => Status::unavailable(error.to_string()),
        MembershipError::AlreadyInitialized | MembershipError::Refused { .. } => refused(error.to_string()),
    }
}

impl App {
    fn cluster_id(&self) -> Result<String, Status> {
        let cluster = master_core::table::cluster(&self.raft.view());
        let cluster = cluster.map_err(|error| crate::app::store_status(&error))?;
        cluster.map(|cluster| cluster.cluster_id).ok_or_else(being_made)
    }
}
