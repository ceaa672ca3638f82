//! `zhongkui`: keys and capabilities on the command line, one command a file.

mod cluster;
mod grant;
mod init;
mod narrow;
mod revoke;
mod rotate;
mod show;
mod user;

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::{Duration, SystemTime};

use anyhow::Context as _;
use clap::{Args, Parser, Subcommand};
use zhongkui::{Grant, PublicKey, Terms, Timestamp, Validity};

use zhongkui_access::guard::grpc_headers;
use zhongkui_access::{Audit, KeyDirectory, directory};

/// Makes key pairs, and capabilities that say what their holders may do.
///
/// Works on files alone, but for `revoke` and `rotate`, which tell the cluster.
#[derive(Debug, Parser)]
#[command(name = "zhongkui", version, after_help = EXAMPLES)]
struct Flags {
    /// Where keys and capabilities are kept [default: ~/.config/feitian/keys, for root /etc/feitian/keys]
    #[arg(long, value_name = "DIR", global = true, env = "FEITIAN_KEYS")]
    keys: Option<PathBuf>,
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Make the authority of a new cluster: the key pair that grants
    Init,
    /// Add users
    #[command(subcommand)]
    User(user::User),
    /// Grant a user a capability
    Grant(grant::GrantFlags),
    /// Hand a capability on, narrower; needs nobody's leave
    Narrow(narrow::Narrow),
    /// Take something back, within a second, in the whole cluster
    Revoke(revoke::Revoke),
    /// New keys in the place of old ones, while everything goes on
    Rotate(rotate::Rotate),
    /// What a call by gRPC has to say, as arguments of grpcurl
    Headers {
        /// package.Service/Method
        method: String,
        /// Whose key and capability are shown
        #[arg(long, default_value = directory::ADMIN)]
        name: String,
    },
    /// Say what a key or a capability is, and whether it is true and valid now
    Show(show::Show),
}

const EXAMPLES: &str = "\
Examples:
  zhongkui init
  zhongkui user add alice --uid 1000 --gid 1000
  zhongkui grant alice 'read,write on directory:1099' 'lock on nuwa:/locks/' --for 90days
  zhongkui narrow alice.cap --key alice.key --to bob.pub 'read on directory:1099' --for 8h --out bob.cap
  zhongkui show bob.cap
  zhongkui revoke user alice
  zhongkui rotate";

/// What all capabilities are made of.
#[derive(Debug, Args)]
struct TermsFlags {
    /// 'RIGHTS on RESOURCE', e.g. 'read,write on directory:1099'
    ///
    /// Rights: read, write, lock, run, administer, act-as, superuser, serve, all. Resources: everything, directory:INODE, file:INODE (ls -di
    /// tells the number), nuwa:PATH, queue:NAME, action:NAME, service:NAME.
    #[arg(value_name = "GRANT", required = true, value_parser = parse_grant)]
    grants: Vec<Grant>,
    /// How long it is valid, from now on: 8h, 90days, ...
    #[arg(long = "for", value_name = "SPAN", value_parser = humantime::parse_duration, default_value = "90days")]
    span: Duration,
}

impl TermsFlags {
    fn terms(&self, holder: PublicKey) -> anyhow::Result<Terms> {
        let now = Timestamp::from(SystemTime::now());
        let validity =
            Validity::new(now, now.saturating_add(self.span)).context("--for: at least one second")?;
        Ok(Terms::new(holder, validity, self.grants.clone())?)
    }
}

fn parse_grant(text: &str) -> Result<Grant, String> {
    let (rights, resource) =
        text.split_once(" on ").ok_or("a grant is 'RIGHTS on RESOURCE', e.g. 'read on nuwa:/config/'")?;
    let rights = rights.parse().map_err(|error: zhongkui::rights::UnknownRight| error.to_string())?;
    let resource =
        resource.trim().parse().map_err(|error: zhongkui::resource::UnknownResource| error.to_string())?;
    Grant::new(rights, resource).map_err(|error| error.to_string())
}

fn main() -> ExitCode {
    match run(&Flags::parse()) {
        Ok(code) => code,
        Err(error) => {
            eprintln!("zhongkui: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(flags: &Flags) -> anyhow::Result<ExitCode> {
    // As for a cluster's description: the system's for root, a user's own for others.
    let home = std::env::var_os("HOME").filter(|home| !home.is_empty() && home != "/root");
    let description = home
        .map_or_else(|| PathBuf::from("/etc"), |home| PathBuf::from(home).join(".config"))
        .join("feitian/cluster.toml");
    let keys = KeyDirectory::find(flags.keys.as_deref(), &description);
    match &flags.command {
        Command::Init => init::run(&keys),
        Command::User(user) => user::run(user, &keys),
        Command::Grant(grant) => grant::run(grant, &keys),
        Command::Narrow(narrow) => narrow::run(narrow),
        Command::Revoke(revoke) => revoke::run(revoke, &keys),
        Command::Rotate(rotate) => rotate::run(rotate, &keys),
        Command::Headers { method, name } => headers(&keys, method, name),
        Command::Show(show) => return show::run(show, &keys),
    }
    .map(|()| ExitCode::SUCCESS)
}

fn headers(keys: &KeyDirectory, method: &str, name: &str) -> anyhow::Result<()> {
    let access = keys.access(name, Audit::none())?;
    for (key, value) in grpc_headers(&access, method) {
        println!("-H '{key}: {value}'");
    }
    Ok(())
}
