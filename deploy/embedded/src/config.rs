//! What an embedded platform is asked to be.

use std::path::PathBuf;

/// Settings of an embedded platform. A setting left out is what the data directory says, or the default for a new one.
#[derive(Clone, Debug, Default)]
pub struct EmbeddedConfig {
    /// Everything lives under here.
    pub data_dir: PathBuf,
    /// Copies of each chunk, each in another chunkserver. Default 1. Fixed when the store is made.
    pub replicas: Option<u32>,
    /// Chunkservers, each with a store and a rack of its own. Default: as many as replicas. May grow later.
    pub chunkservers: Option<u32>,
    /// Bytes a chunkserver made now may hold. Default: its share of nine tenths of the free space.
    pub capacity_bytes: Option<u64>,
    /// A member of Nuwa, too. A store that once had one keeps it.
    pub nuwa: bool,
}

/// A setting that cannot be.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    #[error("--replicas is {0}, it must be from 1 to {max}", max = EmbeddedConfig::REPLICAS_MAX)]
    Replicas(u32),
    #[error("--chunkservers is {0}, it must be from 1 to {max}", max = EmbeddedConfig::CHUNKSERVERS_MAX)]
    Chunkservers(u32),
    #[error("--capacity is {0} bytes, a chunkserver needs at least 64 MiB")]
    Capacity(u64),
    #[error(
        "--replicas {replicas} needs as many chunkservers, and --chunkservers is {chunkservers}: each copy is kept by \
         another one"
    )]
    TooFew { replicas: u32, chunkservers: u32 },
    #[error(
        "the store in {path} keeps {found} copies of everything and --replicas asks for {wanted}: leave --replicas out, \
         or begin a new store with another --data",
        path = path.display()
    )]
    OtherReplicas { path: PathBuf, found: u32, wanted: u32 },
    #[error(
        "the store in {path} has {found} chunkservers and --chunkservers asks for {wanted}: it may grow, not shrink",
        path = path.display()
    )]
    FewerChunkservers { path: PathBuf, found: u32, wanted: u32 },
}

/// What a store is made of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Shape {
    pub(crate) replicas: u32,
    pub(crate) chunkservers: u32,
}

impl EmbeddedConfig {
    /// As many as a master takes.
    pub const REPLICAS_MAX: u32 = 7;
    /// All run on one thread of one machine; more would only be slower.
    pub const CHUNKSERVERS_MAX: u32 = 32;

    /// Less than this is no store: the margins kept free would leave nothing to write to.
    pub const CAPACITY_MIN_BYTES: u64 = 64 << 20;

    /// Settings for everything in `data_dir`, as it is or by default.
    #[must_use]
    pub fn new(data_dir: impl Into<PathBuf>) -> Self {
        Self { data_dir: data_dir.into(), ..Self::default() }
    }

    /// What the store shall be, given what it is.
    pub(crate) fn shape(&self, found: Option<Shape>) -> Result<Shape, ConfigError> {
        let replicas = self.replicas.or_else(|| found.map(|found| found.replicas)).unwrap_or(1);
        if !(1..=Self::REPLICAS_MAX).contains(&replicas) {
            return Err(ConfigError::Replicas(replicas));
        }
        let chunkservers =
            self.chunkservers.or_else(|| found.map(|found| found.chunkservers)).unwrap_or(replicas);
        if !(1..=Self::CHUNKSERVERS_MAX).contains(&chunkservers) {
            return Err(ConfigError::Chunkservers(chunkservers));
        }
        if let Some(found) = found {
            let path = self.data_dir.clone();
            if replicas != found.replicas {
                return Err(ConfigError::OtherReplicas { path, found: found.replicas, wanted: replicas });
            }
            if chunkservers < found.chunkservers {
                let (found, wanted) = (found.chunkservers, chunkservers);
                return Err(ConfigError::FewerChunkservers { path, found, wanted });
            }
        }
        if let Some(capacity) = self.capacity_bytes.filter(|capacity| *capacity < Self::CAPACITY_MIN_BYTES) {
            return Err(ConfigError::Capacity(capacity));
        }
        if chunkservers < replicas {
            return Err(ConfigError::TooFew { replicas, chunkservers });
        }
        Ok(Shape { replicas, chunkservers })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn wants(replicas: Option<u32>, chunkservers: Option<u32>) -> EmbeddedConfig {
        EmbeddedConfig { replicas, chunkservers, ..EmbeddedConfig::new("/x") }
    }

    #[test]
    fn what_is_left_out_is_as_it_was() {
        let shape = |replicas, chunkservers| Shape { replicas, chunkservers };
        assert_eq!(wants(None, None).shape(None).unwrap(), shape(1, 1));
        assert_eq!(wants(Some(3), None).shape(None).unwrap(), shape(3, 3));
        assert_eq!(wants(None, Some(4)).shape(None).unwrap(), shape(1, 4));
        assert_eq!(wants(None, None).shape(Some(shape(2, 5))).unwrap(), shape(2, 5));
        assert_eq!(wants(None, Some(6)).shape(Some(shape(2, 5))).unwrap(), shape(2, 6));
    }

    #[test]
    fn says_what_cannot_be() {
        let found = Some(Shape { replicas: 2, chunkservers: 3 });
        let said = |config: EmbeddedConfig, found| config.shape(found).unwrap_err().to_string();
        assert!(said(wants(Some(0), None), None).contains("from 1 to 7"));
        assert!(said(wants(None, Some(99)), None).contains("from 1 to 32"));
        let small = EmbeddedConfig { capacity_bytes: Some(1 << 20), ..EmbeddedConfig::new("/x") };
        assert!(said(small, None).contains("at least 64 MiB"));
        assert!(said(wants(Some(3), Some(2)), None).contains("needs as many"));
        assert!(said(wants(Some(3), None), found).contains("keeps 2 copies"));
        assert!(said(wants(None, Some(2)), found).contains("not shrink"));
    }
}
