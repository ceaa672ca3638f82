//! One fault: the system is whole and programs go on; a server is hurt; programs go on; it returns; the system is whole.

use std::time::Duration;

use deploy_e2e::Load;

use crate::fault::Fault;
use crate::system::System;

/// Programs that still wait then wait for the server to return.
const PATIENCE: Duration = Duration::from_secs(60);

/// The longest operation at the fault, and at the return.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Stall {
    pub(crate) fault: Duration,
    pub(crate) back: Duration,
    /// Whether programs went on without the server.
    pub(crate) alone: bool,
}

pub(crate) fn round(
    system: &mut dyn System,
    load: &mut Load,
    fault: Fault,
    number: usize,
) -> anyhow::Result<Stall> {
    system.wait_whole()?;
    load.wait_going_on()?;
    let _before = load.take_longest();
    system.hurt(fault, number)?;
    // Whoever waits for the server shows within this time, and is then waited for.
    std::thread::sleep(fault.lasts());
    let alone = load.goes_on_within(PATIENCE)?;
    let at_fault = load.take_longest();
    system.heal()?;
    load.wait_going_on()?;
    system.wait_whole()?;
    load.wait_going_on()?;
    Ok(Stall { fault: at_fault, back: load.take_longest(), alone })
}
