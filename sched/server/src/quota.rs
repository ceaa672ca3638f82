//! `quota.toml` in a queue's directory: what the queue is guaranteed, and what it never exceeds.
//!
//! ```toml
//! min = { cpu = 4, memory = "8GiB" }    # others give it back when this queue needs it
//! max = { cpu = 16 }                    # what is not named is not limited
//! weight = 2                            # share of what nobody is guaranteed, to the others' 1
//! parent = "research"                   # the queue this one is part of
//! ```

use std::collections::BTreeMap;

use serde::Deserialize;

use crate::spool::QueueName;

/// Longest file that is read.
pub(crate) const FILE_MAX_BYTES: u64 = 64 << 10;

/// See the module. Amounts are in the scheduler's units.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Quota {
    pub(crate) min: BTreeMap<String, u64>,
    pub(crate) max: Option<BTreeMap<String, u64>>,
    pub(crate) weight: u32,
    pub(crate) parent: Option<QueueName>,
}

impl Default for Quota {
    fn default() -> Self {
        Self { min: BTreeMap::new(), max: None, weight: 1, parent: None }
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    #[serde(default)]
    min: toml::Table,
    max: Option<toml::Table>,
    weight: Option<u32>,
    parent: Option<String>,
}

impl Quota {
    /// What a file says.
    ///
    /// # Errors
    /// In words, what is wrong with it, with line and column where there are some.
    pub(crate) fn parse(text: &str) -> Result<Self, String> {
        let file: File = toml::from_str(text).map_err(|error| error.to_string())?;
        let weight = file.weight.unwrap_or(1);
        if weight == 0 {
            return Err("weight = 0 would give the queue nothing: at least 1".to_owned());
        }
        Ok(Self {
            min: amounts(&file.min)?,
            max: file.max.as_ref().map(amounts).transpose()?,
            weight,
            parent: file
                .parent
                .map(|parent| parent.parse())
                .transpose()
                .map_err(|error: crate::spool::NameError| error.to_string())?,
        })
    }
}

fn amounts(table: &toml::Table) -> Result<BTreeMap<String, u64>, String> {
    table.iter().map(|(name, value)| Ok((name.clone(), amount(name, value)?))).collect()
}

fn amount(name: &str, value: &toml::Value) -> Result<u64, String> {
    let text = match value {
        toml::Value::String(text) => text.clone(),
        other => other.to_string(),
    };
    sched_spec::parse_amount(name, &text).map_err(|error| error.to_string())
}
