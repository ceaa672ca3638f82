//! `nuwa quota`.

use clap::Args;
use nuwa_api::client::Freshness;
use nuwa_api::proto::command::What;
use nuwa_api::proto::read_reply::What as Answer;
use nuwa_api::proto::read_request::What as Question;
use nuwa_api::proto::{GetQuota, QuotaState, SetQuota};
use serde_json::{Value, json};

use crate::show;
use crate::{CHANGE_TTL, Context, name};

/// See [`crate::Command::Quota`].
#[derive(Debug, Args)]
pub(crate) struct Quota {
    /// The directory, with or without its final /
    #[arg(value_name = "DIRECTORY")]
    path: String,
    /// At most so many entries below it; 0: no limit
    #[arg(long, value_name = "N")]
    entries: Option<u64>,
    /// At most so many bytes of names and values; 0: no limit
    #[arg(long, value_name = "BYTES")]
    bytes: Option<u64>,
}

impl Quota {
    pub(crate) async fn run(self, context: &Context) -> anyhow::Result<()> {
        let path = name::directory(&self.path);
        let now = read(context, &path).await?;
        if self.entries.is_none() && self.bytes.is_none() {
            return if context.json {
                show::print_json(&as_json(&path, &now))
            } else {
                show::print(text(&path, &now).as_bytes())
            };
        }
        let entries_max = self.entries.unwrap_or(now.entries_max);
        let bytes_max = self.bytes.unwrap_or(now.bytes_max);
        let session = context.session(CHANGE_TTL).await?;
        let set = What::SetQuota(SetQuota { path: path.clone(), entries_max, bytes_max });
        let done = session.change(set, context.deadline()).await;
        context.end(session).await;
        done?;
        if context.json {
            return show::print_json(&as_json(&path, &read(context, &path).await?));
        }
        Ok(())
    }
}

async fn read(context: &Context, path: &str) -> anyhow::Result<QuotaState> {
    let question = Question::Quota(GetQuota { path: path.to_owned() });
    let read = context.client.read(question, Freshness::Linearizable, context.deadline()).await?;
    let Answer::Quota(quota) = read.1 else { anyhow::bail!("an answer without a quota") };
    Ok(quota)
}

fn text(path: &str, quota: &QuotaState) -> String {
    let limit = |max| if max == 0 { "unlimited".to_owned() } else { format!("at most {max}") };
    if *quota == QuotaState::default() {
        return format!("{path} has no quota\n");
    }
    let QuotaState { entries, entries_max, bytes, bytes_max } = *quota;
    format!("{path}: {entries} entries, {}; {bytes} bytes, {}\n", limit(entries_max), limit(bytes_max))
}

fn as_json(path: &str, quota: &QuotaState) -> Value {
    let QuotaState { entries, entries_max, bytes, bytes_max } = *quota;
    json!({
        "path": path, "entries_max": entries_max, "bytes_max": bytes_max, "entries": entries, "bytes": bytes,
    })
}
