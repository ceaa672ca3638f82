//! `zhongkui revoke`

use clap::{Args, Subcommand};
use zhongkui::{CapabilityId, UserName};
use zhongkui_access::KeyDirectory;

use crate::cluster::{ClusterFlags, Told};

#[derive(Debug, Args)]
pub(crate) struct Revoke {
    #[command(subcommand)]
    what: What,
}

#[derive(Debug, Subcommand)]
enum What {
    /// All capabilities that a user was granted until now, and all that was handed on from them
    User {
        name: UserName,
        #[command(flatten)]
        cluster: ClusterFlags,
    },
    /// A key: what it signed, and what names it as holder
    Key {
        /// Sixteen hexadecimal digits, as `zhongkui show` says them
        id: String,
        /// For people who look later
        #[arg(long, default_value = "")]
        reason: String,
        #[command(flatten)]
        cluster: ClusterFlags,
    },
    /// One capability, and all that was handed on from it
    Capability {
        /// Sixteen hexadecimal digits, as `zhongkui show` says them
        id: String,
        /// For people who look later
        #[arg(long, default_value = "")]
        reason: String,
        #[command(flatten)]
        cluster: ClusterFlags,
    },
}

pub(crate) fn run(revoke: &Revoke, keys: &KeyDirectory) -> anyhow::Result<()> {
    match &revoke.what {
        What::User { name, cluster } => user(name, keys, cluster),
        What::Key { id, reason, cluster } => by_id("keys", id, reason, keys, cluster),
        What::Capability { id, reason, cluster } => by_id("capabilities", id, reason, keys, cluster),
    }
}

fn user(name: &UserName, keys: &KeyDirectory, cluster: &ClusterFlags) -> anyhow::Result<()> {
    let mut record = keys.user_record(name)?;
    let told = cluster.open(keys)?;
    // Whichever is ahead: after a crash between the two, or a copy of the folder that is older.
    record.epoch = record.epoch.max(told.epoch(name.as_str())?) + 1;
    // First what later grants are made with: one that was made between the two is good, not void.
    keys.change_user(name, &record)?;
    let path = told.write("users", name.as_str(), &format!("{}\n", record.epoch))?;
    told.close();
    println!("{name} is at epoch {} now ({path}): what was granted before is void", record.epoch);
    println!("  zhongkui grant {name} … grants anew");
    Ok(())
}

fn by_id(
    kind: &str,
    id: &str,
    reason: &str,
    keys: &KeyDirectory,
    cluster: &ClusterFlags,
) -> anyhow::Result<()> {
    let plain =
        id.len() == 16 && id.parse::<CapabilityId>().is_ok() && !id.bytes().any(|b| b.is_ascii_uppercase());
    anyhow::ensure!(
        plain,
        "'{id}' is no id: sixteen hexadecimal digits in lower case, as zhongkui show says them"
    );
    let told: Told = cluster.open(keys)?;
    let path = told.write(kind, id, &format!("{reason}\n"))?;
    told.close();
    println!("revoked ({path})");
    Ok(())
}
