//! `nuwa status`, `nuwa member`.

use std::fmt::Write as _;
use std::time::{Duration, Instant};

use clap::Subcommand;
use nuwa_api::proto::{Member as Known, StatusReply};
use serde_json::json;

use crate::Context;
use crate::show;

/// One member's answer.
const ASK_TIMEOUT: Duration = Duration::from_secs(2);
/// A new member has so long to catch up, unless `--timeout` says more.
const CATCH_UP: Duration = Duration::from_secs(60);

/// See [`crate::Command::Member`].
#[derive(Debug, Subcommand)]
pub(crate) enum Member {
    /// Make a member that was started with --join one of the cluster, and wait until it has caught up
    Add {
        /// Where it listens, tcp://HOST:PORT
        #[arg(value_name = "ADDRESS")]
        address: String,
    },
    /// Take a member out of the cluster: a lost one, or one that is to go
    Remove {
        /// Its number, as `nuwa status` shows it
        #[arg(value_name = "ID")]
        id: u64,
    },
}

impl Member {
    pub(crate) async fn run(self, context: &Context) -> anyhow::Result<()> {
        let deadline = Some(Instant::now() + context.timeout.max(CATCH_UP));
        match self {
            Self::Add { address } => {
                let added = context.client.add_member(&address, deadline).await?;
                if context.json {
                    return show::print_json(
                        &json!({"id": added.id, "address": address, "already": added.already}),
                    );
                }
                let already = if added.already { " already" } else { "" };
                show::print(format!("member {} is one of the cluster{already}\n", added.id).as_bytes())
            }
            Self::Remove { id } => {
                context.client.remove_member(id, deadline).await?;
                if context.json {
                    return show::print_json(&json!({"id": id, "removed": true}));
                }
                show::print(format!("member {id} is removed: its process can be stopped\n").as_bytes())
            }
        }
    }
}

/// See [`crate::Command::Status`].
pub(crate) async fn status(context: &Context) -> anyhow::Result<()> {
    let statuses = context.client.statuses(ASK_TIMEOUT).await;
    let answers: Vec<&StatusReply> = statuses.iter().filter_map(|(_, status)| status.as_ref().ok()).collect();
    let leader = answers.iter().find(|status| status.leads).copied();
    // The leader knows most; without one, whoever has come farthest.
    let best = leader.or_else(|| answers.iter().max_by_key(|status| status.applied_index).copied());
    let Some(best) = best else {
        let reasons: Vec<String> = statuses
            .iter()
            .filter_map(|(address, status)| Some(format!("{address}: {}", status.as_ref().err()?)))
            .collect();
        anyhow::bail!("no member answers: {}", reasons.join("; "));
    };
    if context.json {
        let members: Vec<_> = best.members.iter().map(|member| member_json(member, &statuses)).collect();
        return show::print_json(&json!({
            "leader": best.leader, "term": best.term, "revision": best.revision,
            "last_log_index": best.last_log_index, "restoring": best.restoring, "members": members,
        }));
    }
    let mut page =
        String::from("member  address                          role      heard    applied  watchers\n");
    for member in &best.members {
        let answer = answer_of(member, &statuses);
        let role = match (member.voter, best.leader == member.address) {
            (true, true) => "leader",
            (true, false) => "follower",
            (false, _) => "joining",
        };
        let heard = match (member.silent_ms, answer) {
            (Some(silent), _) if silent < 2000 => "now".to_owned(),
            (Some(silent), _) => format!("{} s ago", silent / 1000),
            (None, Some(_)) => "now".to_owned(),
            (None, None) => "?".to_owned(),
        };
        let (applied, watchers) = answer.map_or_else(
            || ("?".to_owned(), "?".to_owned()),
            |answer| (answer.applied_index.to_string(), answer.watchers.to_string()),
        );
        writeln!(
            page,
            "{:<7} {:<32} {role:<9} {heard:<8} {applied:<8} {watchers}",
            member.id, member.address
        )?;
    }
    let known = best.members.iter().map(|member| member.address.as_str()).collect::<Vec<_>>();
    for (address, status) in &statuses {
        if !known.contains(&address.to_string().as_str()) {
            let says = status.as_ref().map_or_else(ToString::to_string, |_| "is no member".to_owned());
            writeln!(page, "-       {address}: {says}")?;
        }
    }
    writeln!(page)?;
    match leader {
        Some(leader) => writeln!(page, "revision {}, term {}", leader.revision, leader.term)?,
        None => writeln!(page, "no leader: nothing can be changed until a majority of the members is there")?,
    }
    if best.restoring {
        writeln!(page, "the tree is being restored from a snapshot, and refuses everything else")?;
    }
    for failed in answers.iter().filter(|answer| !answer.failure.is_empty()) {
        writeln!(page, "member {} has stopped by itself: {}", failed.member_id, failed.failure)?;
    }
    show::print(page.as_bytes())
}

type Asked = (nuwa_api::Address, Result<StatusReply, nuwa_api::Status>);

fn answer_of<'a>(member: &Known, statuses: &'a [Asked]) -> Option<&'a StatusReply> {
    let asked = statuses.iter().find(|(address, _)| address.to_string() == member.address);
    asked.and_then(|(_, status)| status.as_ref().ok())
}

fn member_json(member: &Known, statuses: &[Asked]) -> serde_json::Value {
    let answer = answer_of(member, statuses);
    json!({
        "id": member.id, "address": member.address, "voter": member.voter, "silent_ms": member.silent_ms,
        "answers": answer.is_some(), "applied_index": answer.map(|answer| answer.applied_index),
        "watchers": answer.map(|answer| answer.watchers),
    })
}
