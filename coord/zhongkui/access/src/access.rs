//! What a process needs to be let in and to let others in.

use std::sync::{Arc, OnceLock};

use kuafu::ClientConfig;
use parking_lot::Mutex;
use zhongkui::cache::VerifiedCache;
use zhongkui::{Capability, Revocations};

use crate::audit::Audit;
use crate::guard::GuardBuilder;
use crate::keyring::{Keyring, REFRESH_EVERY};
use crate::revoked::{self, Revoked};

/// Keys, what was taken back, and the audit log of one process. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Access {
    keyring: Arc<Keyring>,
    revoked: Arc<Revoked>,
    audit: Audit,
    verified: Arc<Mutex<VerifiedCache>>,
    tls: bool,
}

impl Access {
    #[must_use]
    pub fn new(keyring: Keyring, audit: Audit) -> Self {
        Self {
            keyring: Arc::new(keyring),
            revoked: Arc::default(),
            audit,
            verified: Arc::default(),
            tls: false,
        }
    }

    /// Of this process alone: servers and clients in it that were not told otherwise trust each other, and nobody else does. What a
    /// configuration begins with.
    #[must_use]
    pub fn process() -> Self {
        static PROCESS: OnceLock<Access> = OnceLock::new();
        PROCESS.get_or_init(|| Self::new(Keyring::ephemeral(), Audit::none())).clone()
    }

    /// The same over TLS, or without, as the cluster's description says. Both ends have to be told alike. Unix sockets never have it.
    #[must_use]
    pub fn over_tls(self, tls: bool) -> Self {
        Self { tls, ..self }
    }

    /// Whether connections over TCP are TLS.
    #[must_use]
    pub fn tls(&self) -> bool {
        self.tls
    }

    #[must_use]
    pub fn keyring(&self) -> &Arc<Keyring> {
        &self.keyring
    }

    #[must_use]
    pub fn revoked(&self) -> &Arc<Revoked> {
        &self.revoked
    }

    #[must_use]
    pub fn audit(&self) -> &Audit {
        &self.audit
    }

    /// How a client connects that shows these keys.
    #[must_use]
    pub fn transport(&self) -> ClientConfig {
        ClientConfig { credentials: self.credentials(), tls: self.tls, ..ClientConfig::default() }
    }

    /// The keys, as a client shows them.
    #[must_use]
    pub fn credentials(&self) -> Option<Arc<dyn kuafu::Credentials>> {
        if crate::CHECKS { Some(self.keyring.clone()) } else { None }
    }

    /// A capability that somebody sent. What was proved once is remembered.
    ///
    /// # Errors
    /// Why it is none, or of no authority that is trusted.
    pub fn prove(&self, bytes: &[u8]) -> Result<Arc<Capability>, String> {
        let authorities = self.keyring.authorities();
        self.verified.lock().get_or_verify(bytes, &authorities).map_err(|error| error.to_string())
    }

    /// A guard for a server.
    #[must_use]
    pub fn guard(&self) -> GuardBuilder {
        GuardBuilder::new(self.clone())
    }

    /// Takes over what Nuwa's folder says now: full paths below [`revoked::FOLDER`] and contents. To be called with all of it after every change.
    pub fn follow<'a>(&self, records: impl IntoIterator<Item = (&'a str, &'a [u8])>) {
        let revoked::Folder { revocations, vouched, unreadable } = revoked::read(records);
        for path in unreadable {
            tracing::warn!(path, "this says nothing that could be followed: remove or correct it");
        }
        let trusted = revoked::trusted(&self.keyring.listed(), &vouched, &revocations);
        self.keyring.vouched(trusted);
        let before = self.revoked.get();
        if before != revocations {
            let Revocations { users, keys, capabilities } = &revocations;
            tracing::info!(
                users = users.len(),
                keys = keys.len(),
                capabilities = capabilities.len(),
                "what was taken back has changed"
            );
        }
        self.revoked.set(revocations);
    }

    /// Looks for new keys for as long as it is polled.
    pub async fn keep_fresh(self) -> std::convert::Infallible {
        let mut failed = false;
        loop {
            tokio::time::sleep(REFRESH_EVERY).await;
            match self.keyring.refresh() {
                Ok(true) => tracing::info!(keys = ?self.keyring, "new keys are in use"),
                Ok(false) => {}
                // Once: files are looked at twice a second.
                Err(error) if !failed => {
                    tracing::warn!(
                        error = &error as &dyn std::error::Error,
                        "keys cannot be read again; those read before stay in use"
                    );
                    failed = true;
                    continue;
                }
                Err(_) => continue,
            }
            failed = false;
        }
    }
}
