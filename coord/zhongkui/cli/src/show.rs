//! `zhongkui show`

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::SystemTime;

use anyhow::Context as _;
use clap::Args;
use zhongkui::keyring::KeyringError;
use zhongkui::text::{BadText, Kind};
use zhongkui::{Timestamp, keyring};

use zhongkui_access::KeyDirectory;

#[derive(Debug, Args)]
pub(crate) struct Show {
    /// A capability, or a key
    file: PathBuf,
    /// The authority's public key [default: authority.pub in the key directory]
    #[arg(long, value_name = "FILE")]
    authority: Option<PathBuf>,
}

/// Fails if it is a capability that would be refused by anybody now.
pub(crate) fn run(flags: &Show, keys: &KeyDirectory) -> anyhow::Result<ExitCode> {
    let file = flags.file.as_path();
    let sent = match keyring::read_capability(file) {
        Ok(sent) => sent,
        Err(KeyringError::Content { source: BadText::Other { found, .. }, .. }) => {
            let key = match found {
                Kind::SecretKey => keyring::read_secret_key(file)?.public(),
                Kind::PublicKey | Kind::Capability => keyring::read_public_key(file)?,
            };
            println!("{found} {}", key.id());
            return Ok(ExitCode::SUCCESS);
        }
        Err(error) => return Err(error.into()),
    };
    let authorities = match &flags.authority {
        Some(path) => Some([keyring::read_public_key(path)?].into_iter().collect()),
        None => keys.authorities().ok(),
    };
    let authorities =
        authorities.context("whether it is true only the authority's public key tells: --authority FILE")?;
    let capability = sent.verify(&authorities).with_context(|| file.display().to_string())?;
    print!("{capability}");
    let now = Timestamp::from(SystemTime::now());
    let valid = capability.validity();
    let (code, said) = match valid {
        None => (ExitCode::FAILURE, "never valid: its blocks have no time in common"),
        Some(valid) if now < valid.not_before() => (ExitCode::FAILURE, "not valid yet"),
        Some(valid) if now >= valid.not_after() && valid.not_after() != Timestamp::FOREVER => {
            (ExitCode::FAILURE, "expired")
        }
        Some(_) => (ExitCode::SUCCESS, "valid now, unless it was revoked"),
    };
    println!("  true, and {said}");
    Ok(code)
}
