//! Quota groups come and change.

use crate::error::EventError;
use crate::event::QueueSpec;
use crate::ids::QueueId;
use crate::scheduler::Scheduler;
use crate::work::Look;

impl Scheduler {
    /// Nothing that runs is stopped when a maximum is lowered: the group only gets nothing until it is below it.
    pub(crate) fn queue_defined(&mut self, id: QueueId, spec: QueueSpec) -> Result<(), EventError> {
        let group = self.queues.define(id, spec, &self.config.limits)?;
        // A change of parent moves usage between groups, so any group may have got room.
        self.queues.get_mut(group).denied = false;
        let groups: Vec<_> = self.queues.groups().collect();
        for group in groups {
            self.work.push(Look::Group(group));
        }
        Ok(())
    }
}
