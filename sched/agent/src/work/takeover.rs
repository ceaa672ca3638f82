//! What an earlier agent left: programs that run are taken over, those that ended meanwhile are told.

use super::Work;
use crate::agent::AgentError;
use crate::container::{self, Status};
use crate::order::Grant;
use crate::process;
use crate::record::Record;
use crate::sweep::Target;
use crate::table::{End, Entry, Phase, Process};

impl Work {
    /// To be called once, before anything is started.
    pub(super) fn take_over(&mut self) -> Result<(), AgentError> {
        for record in self.store.read_all()? {
            let grant = record.order.grant;
            let order = record.order.clone();
            let phase = match &record.end {
                Some(end) => Phase::Ended { end: end.clone(), acknowledged: record.acknowledged },
                None => Phase::Running(record.process),
            };
            self.table.restore(Entry {
                order: order.clone(),
                started_unix_ms: record.started_unix_ms,
                phase,
            });
            if record.end.is_some() {
                continue;
            }
            match self.find(&record) {
                Ok(process) => {
                    tracing::info!(%grant, pid = process.pid, "taken over");
                    self.table.started(grant, process);
                    self.write(grant);
                    self.keep(&order, process, self.group(grant), false);
                }
                Err(end) => {
                    self.group(grant).remove();
                    self.finish(grant, end);
                }
            }
        }
        Ok(())
    }

    /// The grant's program, if it runs; else how it ended, and then nothing of it is left.
    fn find(&self, record: &Record) -> Result<Process, End> {
        let grant = record.order.grant;
        if record.boot != self.boot {
            return Err(ended(255, "the machine was restarted"));
        }
        match record.process {
            Some(process) if process::is_alive(process) => Ok(process),
            Some(process) => {
                let target = self.target(grant, Some(process));
                let _ = target.sweep();
                let folder = self.store.grant(grant);
                let kills =
                    container::oom_kills(&target.group.oom_file().unwrap_or_else(|| folder.join("oom")));
                Err(container::end(Status::Unseen, &folder, record.order.memory_bytes(), kills))
            }
            // The last agent died between deciding to start it and writing down that it did.
            None => {
                let target = self.target(grant, None);
                let leads = |pid: &i32| process::look(*pid).filter(|seen| seen.session == seen.pid);
                if let Some(seen) = target.search().iter().find_map(leads) {
                    return Ok(Process { pid: seen.pid, start_ticks: seen.start_ticks });
                }
                let _ = target.sweep();
                Err(ended(126, "it could not be started: the agent died while it did"))
            }
        }
    }

    fn target(&self, grant: Grant, leader: Option<Process>) -> Target {
        Target { grant, agent: self.mark.clone(), leader, group: self.group(grant) }
    }
}

fn ended(code: i32, how: &str) -> End {
    End { code, how: how.to_owned(), out_of_memory: false }
}
