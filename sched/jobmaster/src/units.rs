//! The kinds of workers a job needs.

use std::collections::BTreeMap;

/// What one worker may use.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Unit {
    /// In the scheduler's units, by name.
    pub(crate) resources: BTreeMap<String, u64>,
}

/// Units by number; tasks that need the same share one. 0 is the job master's own.
#[derive(Debug, Default)]
pub(crate) struct Units(BTreeMap<Unit, u32>);

impl Units {
    pub(crate) fn number(&mut self, unit: Unit) -> u32 {
        let next = u32::try_from(self.0.len()).expect("a job has at most thousands of tasks") + 1;
        *self.0.entry(unit).or_insert(next)
    }

    pub(crate) fn into_map(self) -> BTreeMap<u32, Unit> {
        self.0.into_iter().map(|(unit, number)| (number, unit)).collect()
    }
}
