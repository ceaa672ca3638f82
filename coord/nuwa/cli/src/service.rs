//! `nuwa service`: who serves what.

use clap::{Args, Subcommand};
use nuwa_api::client::Freshness;
use nuwa_api::proto::{Entry, List, RefusalCode};
use nuwa_api::{ClientError, Path};
use nuwa_naming::{SERVICES, directory, record};
use serde_json::json;

use crate::Context;
use crate::show;

/// See [`crate::Command::Service`].
#[derive(Debug, Subcommand)]
pub(crate) enum Service {
    /// List services, or the endpoints of one
    Ls(Ls),
}

#[derive(Debug, Args)]
pub(crate) struct Ls {
    /// A service: its endpoints are listed
    #[arg(value_name = "SERVICE")]
    service: Option<String>,
}

impl Service {
    pub(crate) async fn run(self, context: &Context) -> anyhow::Result<()> {
        let Self::Ls(Ls { service }) = self;
        match service {
            None => services(context).await,
            Some(service) => endpoints(context, &service).await,
        }
    }
}

async fn services(context: &Context) -> anyhow::Result<()> {
    for entry in everything_in(context, SERVICES).await?.unwrap_or_default() {
        let Some(service) = name(&entry).filter(|_| entry.path.ends_with('/')) else { continue };
        let service = service.trim_end_matches('/');
        let endpoints = everything_in(context, &entry.path).await?.unwrap_or_default().len();
        if context.json {
            show::print_json(&json!({"service": service, "endpoints": endpoints}))?;
        } else {
            let s = if endpoints == 1 { "" } else { "s" };
            show::print(format!("{service:<24} {endpoints} endpoint{s}\n").as_bytes())?;
        }
    }
    Ok(())
}

async fn endpoints(context: &Context, service: &str) -> anyhow::Result<()> {
    let Some(entries) = everything_in(context, &directory(service)).await? else {
        anyhow::bail!("nobody has ever served {service}: `nuwa service ls` lists all services");
    };
    for entry in entries {
        let endpoint = match record::decode(&entry.value) {
            Ok(endpoint) => endpoint,
            Err(error) => {
                show::warn(context.json, format_args!("{} is skipped: {error}", entry.path));
                continue;
            }
        };
        let health = if endpoint.stopping { "stopping" } else { "serving" };
        let (address, weight, rack) = (endpoint.address.to_string(), endpoint.weight, endpoint.rack);
        if context.json {
            show::print_json(&json!({
                "address": address, "weight": weight, "rack": rack, "health": health, "session": entry.owner
            }))?;
        } else {
            let rack = if rack.is_empty() { "-" } else { &rack };
            show::print(format!("{address:<32} {health:<9} weight {weight:<5} rack {rack}\n").as_bytes())?;
        }
    }
    Ok(())
}

/// `None` if there is no such directory.
async fn everything_in(context: &Context, path: &str) -> anyhow::Result<Option<Vec<Entry>>> {
    let (mut all, mut after) = (Vec::new(), String::new());
    loop {
        let list = List { path: path.to_owned(), after, with_values: true, ..List::default() };
        let listed = match context.client.list(list, Freshness::Linearizable, context.deadline()).await {
            Ok(listed) => listed,
            Err(ClientError::Refused { code: RefusalCode::NotFound, .. }) => return Ok(None),
            Err(error) => return Err(error.into()),
        };
        after = listed.entries.last().and_then(name).unwrap_or_default();
        all.extend(listed.entries);
        if !listed.more {
            return Ok(Some(all));
        }
    }
}

fn name(entry: &Entry) -> Option<String> {
    let path = Path::new(entry.path.clone()).ok()?;
    path.split().map(|(_, name)| name.to_owned())
}
