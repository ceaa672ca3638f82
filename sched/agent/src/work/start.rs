//! Starting what was ordered. `docs/state.md` has the order of steps, and what a crash between two of them leaves.

use std::ffi::OsString;
use std::fs::{self, OpenOptions};
use std::io;
use std::os::unix::fs::chown;
use std::path::Path;

use super::{Ended, Work};
use crate::cgroup::{Controller, Group, Wants};
use crate::container::Container;
use crate::keys;
use crate::launch::{Account, Launch, launch};
use crate::order::{Grant, Order, Program};
use crate::sweep::Target;
use crate::table::{End, Process};

/// Where programs look for others.
const PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";
/// As shells say it: found, and not to be executed.
const CANNOT_START: i32 = 126;

/// Adds what was being done to what went wrong.
fn during(what: impl std::fmt::Display) -> impl FnOnce(io::Error) -> io::Error {
    move |error| io::Error::new(error.kind(), format!("{what}: {error}"))
}

impl Work {
    /// Starts an order. If that is not possible, the grant has ended.
    pub(super) fn start(&mut self, order: &Order) {
        let grant = order.grant;
        self.write(grant);
        let started = self.start_program(order);
        match started {
            Ok((process, group)) => {
                tracing::info!(%grant, job = order.job, pid = process.pid, "started");
                self.table.started(grant, process);
                self.write(grant);
                self.keep(order, process, group, true);
            }
            Err(error) => {
                self.group(grant).remove();
                let how = format!("it could not be started: {error}");
                self.finish(grant, End { code: CANNOT_START, how, out_of_memory: false });
            }
        }
    }

    /// Waits for the end of a program that runs.
    pub(super) fn keep(&mut self, order: &Order, process: Process, group: Group, is_child: bool) {
        let grant = order.grant;
        let target = Target { grant, agent: self.mark.clone(), leader: Some(process), group };
        match Container::new(target, process, is_child, self.store.grant(grant)) {
            Ok(mut container) => {
                container.memory_bytes = order.memory_bytes();
                self.containers.insert(grant, container.clone());
                let ended = self.ended.clone();
                tokio::spawn(async move {
                    let status = container.wait().await;
                    // Nobody listens when the agent ends: the next one finds out.
                    let _ = ended.send(Ended { grant, status }).await;
                });
            }
            Err(error) => {
                let how = format!("it ended while it was taken over: {error}");
                self.finish(grant, End { code: 255, how, out_of_memory: false });
            }
        }
    }

    pub(super) fn group(&self, grant: Grant) -> Group {
        Group::of(&self.limits.hierarchies, &format!("grant-{grant}"))
    }

    fn start_program(&self, order: &Order) -> io::Result<(Process, Group)> {
        let account = account(order)?;
        let owner = account.as_ref().map(|account| (account.uid, account.gid));
        let folder = self.store.grant(order.grant);
        let scratch = folder.join("scratch");
        fs::create_dir_all(&scratch).map_err(during("make its directory"))?;
        if let Some((uid, gid)) = owner {
            chown(&scratch, Some(uid), Some(gid)).map_err(during("give it its directory"))?;
        }
        if let Some(keys) = &self.config.keys {
            keys::give(keys, order, &folder.join("keys"), owner).map_err(during("give it its keys"))?;
        }
        let log = folder.join("output.log");
        let output =
            OpenOptions::new().create(true).append(true).open(&log).map_err(during("make its log"))?;
        let wants = Wants {
            cpu_milli: order.limit("cpu"),
            cpu: self.config.cpu,
            memory_bytes: order.memory_bytes(),
            pids_max: self.config.pids_max,
        };
        let name = format!("grant-{}", order.grant);
        let group = Group::make(&self.limits.hierarchies, &name, &wants).map_err(during("limit it"))?;
        let by_user = !self.limits.has(Controller::Pids) && !is_root(account.as_ref());
        let program = self.program(order.program);
        let process = launch(Launch {
            program,
            directory: &scratch,
            environment: self.environment(order, &folder, &group),
            account,
            doors: group.doors()?,
            output,
            processes_max: by_user.then_some(self.config.pids_max),
        })
        .map_err(during(program.display()))?;
        Ok((process, group))
    }

    fn program(&self, program: Program) -> &Path {
        match program {
            Program::Worker => &self.config.worker,
            Program::JobMaster => &self.config.job_master,
        }
    }

    /// All that a program is told.
    fn environment(&self, order: &Order, folder: &Path, group: &Group) -> Vec<(String, OsString)> {
        let oom_file = group.oom_file().unwrap_or_else(|| folder.join("oom"));
        let scratch = folder.join("scratch");
        let mut all: Vec<(String, OsString)> = vec![
            ("PATH".into(), PATH.into()),
            ("LANG".into(), "C.UTF-8".into()),
            ("HOME".into(), scratch.clone().into()),
        ];
        let more = &self.config.environment;
        all.extend(more.iter().map(|(name, value)| (name.clone(), OsString::from(value))));
        let told: [(&str, OsString); 11] = [
            ("JOB", order.job.clone().into()),
            ("GRANT", order.grant.to_string().into()),
            ("UNIT", order.unit.to_string().into()),
            ("NODE", self.config.node.clone().into()),
            ("LOCATION", self.config.location.clone().into()),
            ("MOUNT", self.config.mount.clone().into()),
            ("DIRECTORY", order.directory.clone().into()),
            ("EXIT_RECORD", scratch.join("exit").into()),
            ("SCRATCH", scratch.into()),
            ("OOM_FILE", oom_file.into()),
            // With the grant it is the mark by which stray processes are found.
            ("AGENT", self.mark.clone().into()),
        ];
        all.extend(told.into_iter().map(|(name, value)| (format!("FUXI_{name}"), value)));
        if !order.job_master.is_empty() {
            all.push(("FUXI_JOB_MASTER".into(), order.job_master.clone().into()));
        }
        if let Some(keys) = &self.config.keys {
            all.push(("FUXI_KEYS".into(), folder.join("keys").into()));
            all.push(("FUXI_KEY_NAME".into(), keys::name(keys, order.program).into()));
        }
        all
    }
}

fn is_root(account: Option<&Account>) -> bool {
    account.map_or_else(|| nix::unistd::Uid::effective().is_root(), |account| account.uid == 0)
}

/// Whom to run as: the order's user, for which the agent must be root or that user.
fn account(order: &Order) -> io::Result<Option<Account>> {
    let own = nix::unistd::Uid::effective();
    if own.is_root() {
        return Account::of(order.uid, order.gid).map(Some).map_err(during("look up its user"));
    }
    if own.as_raw() != order.uid {
        let text = format!(
            "the agent runs as user {own} and cannot become user {}: run it as root, or let only user {own} use this machine",
            order.uid
        );
        return Err(io::Error::new(io::ErrorKind::PermissionDenied, text));
    }
    Ok(None)
}
