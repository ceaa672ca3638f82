//! Ending all processes of a grant, wherever they went.
//!
//! Where there is a control group, it says which they are. Else they are those of the program's session, and those that have the grant in
//! their environment: only a process that leaves its session and clears its environment is missed.

use std::time::Duration;

use crate::cgroup::Group;
use crate::order::Grant;
use crate::process;
use crate::table::Process;

/// Rounds of looking and killing: each is after what the last one's victims started meanwhile. Together about two seconds.
const ROUNDS: usize = 400;
const PAUSE: Duration = Duration::from_millis(5);

/// All that belongs to one grant.
#[derive(Clone, Debug)]
pub struct Target {
    pub grant: Grant,
    /// Names the agent: grants of another one's on this machine are not ours.
    pub agent: String,
    pub leader: Option<Process>,
    pub group: Group,
}

impl Target {
    /// Its processes that have not ended.
    #[must_use]
    pub fn members(&self) -> Vec<i32> {
        if !self.group.is_empty() {
            let is_alive = |pid: &i32| process::look(*pid).is_some_and(|seen| !seen.is_zombie);
            return self.group.processes().into_iter().filter(is_alive).collect();
        }
        self.search()
    }

    /// Looks at all processes of the machine.
    #[must_use]
    pub fn search(&self) -> Vec<i32> {
        let own = i32::try_from(std::process::id()).unwrap_or(0);
        let marks = [format!("FUXI_AGENT={}", self.agent), format!("FUXI_GRANT={}", self.grant)];
        let is_ours = |seen: &process::Seen| {
            let in_session = self
                .leader
                .is_some_and(|leader| seen.session == leader.pid && seen.start_ticks >= leader.start_ticks);
            in_session || marks.iter().all(|mark| process::has_in_environment(seen.pid, mark))
        };
        let all = process::all().into_iter().filter(|seen| seen.pid != own && !seen.is_zombie);
        all.filter(is_ours).map(|seen| seen.pid).collect()
    }

    /// Kills them all, and whatever they start meanwhile. Whether nothing is left. Blocks, for at most about two seconds.
    #[must_use]
    pub fn sweep(&self) -> bool {
        self.group.forbid_forks();
        self.group.kill();
        for _ in 0..ROUNDS {
            let members = self.members();
            if members.is_empty() {
                return true;
            }
            for pid in members {
                // SAFETY: kill takes no pointers. The number was seen among ours just now; the kernel gives it to another process only
                // after all others were used.
                unsafe { libc::kill(pid, libc::SIGKILL) };
            }
            std::thread::sleep(PAUSE);
        }
        tracing::warn!(grant = %self.grant, left = ?self.members(), "processes cannot be killed: they wait for the kernel");
        false
    }
}
