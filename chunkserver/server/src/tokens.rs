//! Which tokens this server was shown (`coord/zhongkui/docs/token.md`), and whether one of them covers a call.
//!
//! A token counts on every connection that proved the key it names, until it runs out. Nothing is kept over a restart: clients show them again.

use std::collections::HashMap;
use std::sync::atomic::{AtomicI64, Ordering};

use chunkserver_api::error::NEEDS_TOKEN_DETAIL;
use coord_types::DataId;
use kuafu::{Code, Request, Status};
use parking_lot::Mutex;
use zhongkui::token::{RootCache, Scope};
use zhongkui::{Claims, DataRequest, KeyId, Rights, Target, Timestamp, UnverifiedToken};
use zhongkui_access::{Access, Holder};

/// Of one holder: for all data, one each for its sessions.
const WHOLE_MAX: usize = 64;
/// Of one holder: for single files.
const FILES_MAX: usize = 16_384;
/// Holders whose tokens are kept.
const HOLDERS_MAX: usize = 4096;
/// Tokens of one call.
const SHOWN_MAX: usize = 64;
/// Clocks that differ by more are worth a line in the log.
const CLOCK_DIFFERENCE_MAX_S: i64 = 60;
/// Who may replicate needs no token to read: servers, and who looks for damage.
const PEERS: &str = "feitian.chunk.v1.Replica/Install";
/// Who may sign.
const SIGNERS: &str = "feitian.master.v1.Namespace";

#[derive(Debug, Default)]
struct OfHolder {
    whole: Vec<Claims>,
    files: HashMap<DataId, Vec<Claims>>,
}

/// The tokens of all clients.
#[derive(Debug, Default)]
pub(crate) struct Tokens {
    holders: Mutex<HashMap<KeyId, OfHolder>>,
    roots: Mutex<RootCache>,
    /// What the master's clock is ahead of this one, in seconds.
    clock_ahead_s: AtomicI64,
}

impl Tokens {
    /// The master said what time it is. Tokens go by its clock, so that a wrong one here harms nobody; it is said in the log.
    pub(crate) fn heard_time(&self, time_s: u64) {
        // Masters of earlier releases say nothing.
        let Ok(theirs) = i64::try_from(time_s) else { return };
        if theirs == 0 {
            return;
        }
        let ahead = theirs - i64::from(zhongkui_access::holder::now().0);
        let before = self.clock_ahead_s.swap(ahead, Ordering::Relaxed);
        let wrong = |ahead: i64| ahead.abs() > CLOCK_DIFFERENCE_MAX_S;
        if wrong(ahead) && !wrong(before) {
            tracing::warn!(
                seconds = -ahead,
                "this machine's clock is ahead of the master's by so much (negative: behind); tokens go by the master's. Set the clock, or let NTP do it"
            );
        } else if wrong(before) && !wrong(ahead) {
            tracing::info!("this machine's clock agrees with the master's again");
        }
    }

    fn now(&self) -> Timestamp {
        let ours = i64::from(zhongkui_access::holder::now().0);
        let masters = ours + self.clock_ahead_s.load(Ordering::Relaxed);
        Timestamp(u32::try_from(masters.max(0)).unwrap_or(u32::MAX))
    }

    /// A client shows tokens.
    pub(crate) fn show(
        &self,
        access: &Access,
        request: &Request<chunkserver_api::pb::ShowTokensRequest>,
    ) -> Result<(), Status> {
        if !zhongkui_access::CHECKS {
            return Ok(());
        }
        let holder = Holder::of(request)?;
        let message = &request.message;
        if message.tokens.len() > SHOWN_MAX {
            return Err(Status::invalid_argument(format!(
                "{} tokens, at most {SHOWN_MAX}",
                message.tokens.len()
            )));
        }
        let refuse = |why: &dyn std::fmt::Display| needs_token(holder.refused("tokens that were shown", why));
        let signer = access.prove(&message.signer).map_err(|why| refuse(&why))?;
        let serves = zhongkui::Request { needs: Rights::SERVE, target: Target::Method(SIGNERS) };
        let now = zhongkui_access::holder::now();
        zhongkui::decide(&signer, &serves, now, &access.revoked().get())
            .map_err(|why| refuse(&format!("their signer is no master: {why}")))?;
        for token in &message.tokens {
            let claims = UnverifiedToken::decode(token)
                .map_err(|error| error.to_string())
                .and_then(|token| {
                    token.verify(signer.holder(), &mut self.roots.lock()).map_err(|error| error.to_string())
                })
                .map_err(|why| refuse(&why))?;
            if claims.holder != holder.key() {
                let why =
                    format!("this token is for key {}, {} was proved here", claims.holder, holder.key());
                return Err(needs_token(holder.refused("another's token", &why)));
            }
            self.keep(claims);
        }
        Ok(())
    }

    fn keep(&self, claims: Claims) {
        let now = self.now();
        let mut holders = self.holders.lock();
        if holders.len() >= HOLDERS_MAX && !holders.contains_key(&claims.holder) {
            holders.retain(|_, of| {
                of.whole.retain(|claims| !claims.validity.is_over(now));
                of.files.retain(|_, claims| claims.iter().any(|claims| !claims.validity.is_over(now)));
                !of.whole.is_empty() || !of.files.is_empty()
            });
            if holders.len() >= HOLDERS_MAX {
                // Clients show them again.
                holders.clear();
            }
        }
        let of = holders.entry(claims.holder).or_default();
        let kept = match claims.scope {
            Scope::Everything => &mut of.whole,
            Scope::Data(data) => {
                if of.files.len() >= FILES_MAX && !of.files.contains_key(&data) {
                    of.files.retain(|_, claims| claims.iter().any(|claims| !claims.validity.is_over(now)));
                    if of.files.len() >= FILES_MAX {
                        of.files.clear();
                    }
                }
                of.files.entry(data).or_default()
            }
        };
        // One a session and right: the last that was shown.
        kept.retain(|old| {
            !old.validity.is_over(now) && (old.session, old.rights) != (claims.session, claims.rights)
        });
        if kept.len() >= WHOLE_MAX {
            kept.remove(0);
        }
        kept.push(claims);
    }

    /// Whether the caller may read or write these data.
    ///
    /// # Errors
    /// PERMISSION_DENIED: no token that was shown allows it.
    pub(crate) fn check<T>(
        &self,
        request: &Request<T>,
        data: DataId,
        needs: Rights,
        epoch_min: u64,
    ) -> Result<(), Status> {
        if !zhongkui_access::CHECKS {
            return Ok(());
        }
        let holder = Holder::of(request)?;
        let key = holder.key();
        // Stamps are not compared: a write that is tried again after its client's session was lost bears the old one.
        let wanted = DataRequest { holder: key, session: None, data, needs, epoch_min };
        let now = self.now();
        let refusal = {
            let holders = self.holders.lock();
            let of = holders.get(&key);
            let shown = of
                .into_iter()
                .flat_map(|of| of.whole.iter().chain(of.files.get(&data).into_iter().flatten()));
            let mut refusal = None;
            for claims in shown {
                match zhongkui::token::admit(claims, &wanted, now) {
                    Ok(()) => return Ok(()),
                    Err(why) => refusal = Some(why),
                }
            }
            refusal
        };
        if needs == Rights::READ && holder.may(Rights::ADMINISTER, &Target::Method(PEERS)) {
            return Ok(());
        }
        let why = match refusal {
            Some(refusal) => refusal.to_string(),
            None => format!("no token for data {data} was shown: ask the master for one"),
        };
        Err(needs_token(holder.refused(&format!("{needs} on data {data}"), &why)))
    }
}

/// Another token would help: keys may just have been exchanged, or a token has run out.
fn needs_token(refused: Status) -> Status {
    Status { code: Code::PermissionDenied, ..refused }.with_detail(NEEDS_TOKEN_DETAIL.to_vec().into())
}
