//! `nuwa watch`.

use clap::Args;
use nuwa_api::{Place, Watched, json};

use crate::Context;
use crate::show;

/// See [`crate::Command::Watch`].
#[derive(Debug, Args)]
pub(crate) struct Watch {
    /// A file, or a directory with everything below it
    #[arg(value_name = "PATH")]
    path: String,
    /// From this revision on [default: what happens from now on]
    #[arg(long, value_name = "REVISION")]
    from: Option<u64>,
    /// End after so many changes
    #[arg(long, value_name = "N")]
    count: Option<u64>,
}

impl Watch {
    pub(crate) async fn run(self, context: &Context) -> anyhow::Result<()> {
        let from = self.from.map_or(Place::NOW, |revision| Place { revision: revision.max(1), number: 0 });
        let mut watcher = context.client.watch(self.path, from);
        let mut left = self.count.unwrap_or(u64::MAX);
        while left > 0 {
            let event = match watcher.next().await? {
                Watched::Event(event) => event,
                Watched::HistoryLost { first } => anyhow::bail!(
                    "history is kept from revision {first} on: read what is there now, and watch with --from {first} or later"
                ),
            };
            left -= 1;
            if context.json {
                show::print_json(&json::event(&event))?;
            } else {
                show::print(format!("{}\n", show::event_text(&event)).as_bytes())?;
            }
        }
        Ok(())
    }
}
