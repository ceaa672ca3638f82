//! `zhongkui init`

use anyhow::Context as _;
use zhongkui::{SecretKey, keyring};

use crate::directory::KeyDirectory;

pub(crate) fn run(keys: &KeyDirectory) -> anyhow::Result<()> {
    keys.make()?;
    let authority = SecretKey::generate().context("make a key")?;
    // The secret half first: it is what must not be written over, and the public half follows from it.
    let (secret, public) = (keys.path("authority", "key"), keys.path("authority", "pub"));
    keyring::write_secret_key(&secret, &authority)?;
    keyring::write_public_key(&public, &authority.public())?;
    println!("authority {}", authority.public().id());
    println!("  {}   keep it here: whoever has it is the cluster", secret.display());
    println!("  {}   for every server", public.display());
    Ok(())
}
