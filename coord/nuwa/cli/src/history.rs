//! `nuwa history`: how far back a watch can begin.

use clap::Args;
use nuwa_api::History as Kept;
use nuwa_api::proto::SetHistory;
use nuwa_api::proto::command::What;
use serde_json::{Value, json};

use crate::show;
use crate::{CHANGE_TTL, Context};

/// See [`crate::Command::History`].
#[derive(Debug, Args)]
pub(crate) struct History {
    /// Keep at most so many events; 0: the default, 1000000
    #[arg(long, value_name = "N")]
    events: Option<u64>,
    /// Keep at most so many bytes of events; 0: the default, 67108864 (64 MiB)
    #[arg(long, value_name = "BYTES")]
    bytes: Option<u64>,
}

impl History {
    pub(crate) async fn run(self, context: &Context) -> anyhow::Result<()> {
        let now = context.client.history(context.deadline()).await?;
        if self.events.is_none() && self.bytes.is_none() {
            return if context.json {
                show::print_json(&as_json(&now))
            } else {
                show::print(text(&now).as_bytes())
            };
        }
        let events_max = self.events.unwrap_or(now.events_max);
        let bytes_max = self.bytes.unwrap_or(now.bytes_max);
        let session = context.session(CHANGE_TTL).await?;
        let set = What::SetHistory(SetHistory { events_max, bytes_max });
        let done = session.change(set, context.deadline()).await;
        context.end(session).await;
        done?;
        if context.json {
            // What is above a smaller limit goes with the changes that follow, not now.
            return show::print_json(&as_json(&Kept { events_max, bytes_max, ..now }));
        }
        Ok(())
    }
}

fn text(kept: &Kept) -> String {
    let limit = |max| if max == 0 { "at most the default".to_owned() } else { format!("at most {max}") };
    format!(
        "from revision {} on: {} events, {}; {} bytes, {}\n",
        kept.first,
        kept.events,
        limit(kept.events_max),
        kept.bytes,
        limit(kept.bytes_max)
    )
}

fn as_json(kept: &Kept) -> Value {
    json!({
        "first": kept.first, "events": kept.events, "bytes": kept.bytes,
        "events_max": kept.events_max, "bytes_max": kept.bytes_max,
    })
}
