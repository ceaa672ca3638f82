//! What was taken back, as this member's own state says: followed on every member, whether it leads or hears a leader or not.
//!
//! Level-triggered: whenever something below the folder may have changed all of it is read anew.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use coord_kv::KvError;
use nuwa_core::query;
use nuwa_model::Path;
use zhongkui_access::revoked::FOLDER;

use crate::app::{App, store_status};
use crate::portions::PORTION_MAX;

/// Between tries to read the store.
const RETRY: Duration = Duration::from_millis(100);
/// Of a file, as much as can mean something: an authority's record has 250 bytes.
const CONTENT_MAX: usize = 4096;

/// Runs until the member stops.
pub(crate) async fn keep(app: Arc<App>) {
    loop {
        app.hub.folder_changed().await;
        while let Err(error) = follow(&app).await {
            store_status(&error);
            tokio::time::sleep(RETRY).await;
        }
    }
}

/// Takes over what the store says now.
pub(crate) async fn follow(app: &App) -> Result<(), KvError> {
    let folder = Path::directory(FOLDER).expect("it begins and ends with /");
    let view = app.view();
    let mut records: Vec<(String, Bytes)> = Vec::new();
    let mut after: Option<Path> = None;
    loop {
        let page = query::below(&view, &folder, after.as_ref(), PORTION_MAX)?;
        let is_last = page.len() < PORTION_MAX;
        after = page.last().and_then(|last| Path::new(&*last.path).ok());
        let files = page.into_iter().filter(|entry| !entry.path.ends_with('/'));
        // A copy: what was read shares its memory with the whole value.
        let short = |value: Bytes| Bytes::copy_from_slice(&value[..value.len().min(CONTENT_MAX)]);
        records.extend(files.map(|entry| (entry.path, short(entry.value))));
        if is_last || after.is_none() {
            break;
        }
        // What changes meanwhile is told again.
        tokio::task::yield_now().await;
    }
    app.config.access.follow(records.iter().map(|(path, content)| (path.as_str(), &content[..])));
    Ok(())
}

#[cfg(test)]
mod tests {
    use nuwa_api::proto::{Delete, Put};
    use zhongkui::{UserEpoch, UserName};
    use zhongkui_access::{Access, Audit, Keyring};

    use super::*;
    use crate::testing::{PATIENCE, Single};

    /// More than one portion, and whatever else is there.
    #[tokio::test]
    async fn all_of_the_folder_is_followed_and_nothing_else() {
        let access = Access::new(Keyring::ephemeral(), Audit::none());
        let single = Single::start_as(access.clone()).await;
        let put = |path: String, value: &str| {
            let put = nuwa_api::ops::put(path, value.to_owned());
            Put { with_parents: true, ..put }
        };
        let users = 3 * PORTION_MAX;
        let mut then: Vec<_> = (0..users).map(|n| put(format!("{FOLDER}users/u{n}"), "2").into()).collect();
        then.push(put("/users/beside".to_owned(), "9").into());
        then.push(put(format!("{FOLDER}users/long"), &"7".repeat(1 << 20)).into());
        single.txn(then).await;
        let until = async |what: &str, condition: &dyn Fn() -> bool| {
            let changed = async {
                while !condition() {
                    tokio::time::sleep(Duration::from_millis(1)).await;
                }
            };
            tokio::time::timeout(PATIENCE, changed).await.expect(what);
        };
        until("all users", &|| access.revoked().get().users.len() == users + 1).await;
        let epoch = |name: &str| access.revoked().get().epoch(&UserName::new(name).unwrap());
        assert_eq!(
            (epoch("u0"), epoch("u47"), epoch("long")),
            (UserEpoch(2), UserEpoch(2), UserEpoch(u32::MAX))
        );
        let all = Delete { subtree: true, ..nuwa_api::ops::delete(FOLDER) };
        single.txn(vec![all.into()]).await;
        until("nothing", &|| access.revoked().get().users.is_empty()).await;
        single.server.shutdown().await;
    }
}
