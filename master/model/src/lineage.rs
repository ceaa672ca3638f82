//! Which cluster a master speaks for, and how far its state has come: whoever was told of a newer state does not follow an older one.
//! `master/docs/restore.md` says why and what is to be done then.

use crate::proto;

/// What a master shows with its answers, and what its clients remember of it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Lineage {
    /// Empty: nothing is known yet.
    pub cluster_id: String,
    /// Raised when the masters were restored from an older copy.
    pub epoch: u64,
    /// The end of what was applied of the masters' log when they answered: no answer to a later call shows less.
    pub log_index: u64,
}

/// Why a master is not followed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NotFollowed {
    #[error("the masters belong to cluster {theirs}, and this one to {ours}: correct the list of masters")]
    OtherCluster { ours: String, theirs: String },
    #[error(
        "the masters are at cluster epoch {shown}, and {known} was seen already: they were superseded, or restored from an \
         older copy. Start the cluster's own masters instead; if these are to be the cluster's, say `pangu master new-epoch`"
    )]
    OlderEpoch { known: u64, shown: u64 },
    #[error(
        "the masters' log ends at {shown}, and {known} was seen already: they were restored from an older copy. Start the \
         cluster's own masters instead; if these are to be the cluster's, say `pangu master new-epoch`"
    )]
    OlderLog { known: u64, shown: u64 },
}

impl Lineage {
    /// Whether a master that shows this may be followed. `self` is what was known when it was asked: answers to calls
    /// under way at the same time may come in any order.
    ///
    /// # Errors
    /// See [`NotFollowed`].
    pub fn check(&self, shown: &Self) -> Result<(), NotFollowed> {
        if self.cluster_id.is_empty() {
            return Ok(());
        }
        if shown.cluster_id != self.cluster_id {
            let (ours, theirs) = (self.cluster_id.clone(), shown.cluster_id.clone());
            return Err(NotFollowed::OtherCluster { ours, theirs });
        }
        if shown.epoch < self.epoch {
            return Err(NotFollowed::OlderEpoch { known: self.epoch, shown: shown.epoch });
        }
        if shown.epoch == self.epoch && shown.log_index < self.log_index {
            return Err(NotFollowed::OlderLog { known: self.log_index, shown: shown.log_index });
        }
        Ok(())
    }

    /// Remembers what was shown, if it is newer. True if it was.
    pub fn learn(&mut self, shown: &Self) -> bool {
        let newer =
            self.cluster_id.is_empty() || (shown.epoch, shown.log_index) > (self.epoch, self.log_index);
        if newer {
            self.clone_from(shown);
        }
        newer
    }
}

impl From<proto::Lineage> for Lineage {
    fn from(message: proto::Lineage) -> Self {
        let proto::Lineage { cluster_id, epoch, log_index } = message;
        Self { cluster_id, epoch, log_index }
    }
}

impl From<Lineage> for proto::Lineage {
    fn from(lineage: Lineage) -> Self {
        let Lineage { cluster_id, epoch, log_index } = lineage;
        Self { cluster_id, epoch, log_index }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lineage(cluster_id: &str, epoch: u64, log_index: u64) -> Lineage {
        Lineage { cluster_id: cluster_id.to_owned(), epoch, log_index }
    }

    #[test]
    fn what_is_older_is_not_followed() {
        let known = lineage("a", 5, 100);
        assert_eq!(Lineage::default().check(&lineage("b", 0, 0)), Ok(()), "nothing is known");
        for shown in [lineage("a", 5, 100), lineage("a", 5, 101), lineage("a", 6, 1)] {
            assert_eq!(known.check(&shown), Ok(()), "{shown:?}");
        }
        let refused = |shown: Lineage| known.check(&shown).unwrap_err().to_string();
        assert!(refused(lineage("a", 5, 99)).contains("log ends at 99, and 100 was seen already"));
        assert!(refused(lineage("a", 4, 999)).contains("epoch 4, and 5 was seen already"));
        assert!(refused(lineage("a", 4, 999)).contains("pangu master new-epoch"));
        assert!(refused(lineage("b", 9, 999)).contains("belong to cluster b, and this one to a"));
    }

    #[test]
    fn only_what_is_newer_is_remembered() {
        let mut known = Lineage::default();
        assert!(known.learn(&lineage("a", 0, 7)));
        assert!(!known.learn(&lineage("a", 0, 7)) && !known.learn(&lineage("a", 0, 6)));
        assert!(known.learn(&lineage("a", 2, 1)) && !known.learn(&lineage("a", 0, 99)));
        assert_eq!(known, lineage("a", 2, 1));
    }
}
