//! `zhongkui grant`

use std::path::PathBuf;

use anyhow::Context as _;
use clap::Args;
use zhongkui::terms::Root;
use zhongkui::{Capability, CapabilityId, UserName, crypto, keyring};

use crate::TermsFlags;
use zhongkui_access::KeyDirectory;

#[derive(Debug, Args)]
pub(crate) struct GrantFlags {
    /// Whose
    user: UserName,
    #[command(flatten)]
    terms: TermsFlags,
    /// Where to write it [default: USER.cap in the key directory]
    #[arg(long, value_name = "FILE")]
    out: Option<PathBuf>,
}

pub(crate) fn run(flags: &GrantFlags, keys: &KeyDirectory) -> anyhow::Result<()> {
    let authority = keys.authority()?;
    let user = keys.user(&flags.user)?;
    let holder = keyring::read_public_key(&keys.path(&flags.user, "pub"))?;
    let id = CapabilityId(u64::from_le_bytes(crypto::random().context("draw a number")?));
    let root = Root { id, issuer: authority.public().id(), user };
    let capability = Capability::grant(&authority, root, flags.terms.terms(holder)?)?;
    let out = flags.out.clone().unwrap_or_else(|| keys.path(&flags.user, "cap"));
    keyring::write_capability(&out, &capability)?;
    print!("{}: {capability}", out.display());
    Ok(())
}
