//! `zhongkui narrow`

use std::path::PathBuf;

use anyhow::Context as _;
use clap::Args;
use zhongkui::{Authorities, keyring};

use crate::TermsFlags;

#[derive(Debug, Args)]
pub(crate) struct Narrow {
    /// The capability that is handed on
    capability: PathBuf,
    #[command(flatten)]
    terms: TermsFlags,
    /// Its holder's secret key
    #[arg(long, value_name = "FILE")]
    key: PathBuf,
    /// Public key of whoever gets it
    #[arg(long, value_name = "FILE")]
    to: PathBuf,
    /// The authority's public key, to see first that the capability is a true one
    #[arg(long, value_name = "FILE")]
    authority: PathBuf,
    /// Where to write it
    #[arg(long, value_name = "FILE")]
    out: PathBuf,
}

pub(crate) fn run(flags: &Narrow) -> anyhow::Result<()> {
    let authorities: Authorities = [keyring::read_public_key(&flags.authority)?].into_iter().collect();
    let capability = keyring::read_capability(&flags.capability)?
        .verify(&authorities)
        .with_context(|| flags.capability.display().to_string())?;
    let key = keyring::read_secret_key(&flags.key)?;
    let holder = keyring::read_public_key(&flags.to)?;
    let narrowed = capability.narrow(&key, flags.terms.terms(holder)?)?;
    keyring::write_capability(&flags.out, &narrowed)?;
    print!("{}: {narrowed}", flags.out.display());
    Ok(())
}
