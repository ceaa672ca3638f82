//! What travels between members, who waits for what, and the numbers all of it goes by.
//!
//! Nothing has an identity of its own: a call is what it is about, a token names who waits. So two ways that lead to
//! the same things under way lead to the same state.

use std::fmt::{Debug, Formatter, Result as Formatted};
use std::hash::Hash;

use chunkserver_core::{Page, PeerError, ReadPermit};
use coord_types::{ChunkKey, DiskId, Epoch, Version};
use indexmap::IndexSet;

use super::disk::Rec;

pub(crate) type At = (Epoch, u64);

/// A message under way. Bound to the process it was sent to: a connection does not survive a restart.
#[derive(Clone, PartialEq, Eq, Hash)]
pub(crate) struct Message {
    pub(crate) from: u8,
    pub(crate) to: u8,
    pub(crate) incarnation: u8,
    /// Who waits for the answer, or gets it; `None`: nobody any more.
    pub(crate) call: Option<u32>,
    pub(crate) body: Body,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Body {
    Replicate { at: At, key: ChunkKey, previous: Version, version: Version, write: u8 },
    Prepare { at: At, after: Option<Option<ChunkKey>>, fill: bool },
    Install { at: At, key: ChunkKey, rec: Option<Rec> },
    Activate { at: At },
    Commit { key: ChunkKey, version: Version },
    Answer(Result<Option<Page>, PeerError>),
}

impl Body {
    /// The attempt it belongs to, if a member that promised a newer one refuses it.
    pub(crate) const fn at(&self) -> Option<At> {
        match self {
            Self::Replicate { at, .. }
            | Self::Prepare { at, .. }
            | Self::Install { at, .. }
            | Self::Activate { at } => Some(*at),
            Self::Commit { .. } | Self::Answer(_) => None,
        }
    }
}

impl Debug for Message {
    fn fmt(&self, f: &mut Formatter<'_>) -> Formatted {
        let late =
            if self.call.is_none() && !matches!(self.body, Body::Commit { .. }) { " late" } else { "" };
        write!(f, "{} hears from {}{late}: {:?}", self.to + 1, self.from + 1, self.body)
    }
}

/// A call whose sender waits.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Call {
    pub(crate) from: u8,
    /// Of the two processes. 0: there was none to hear it.
    pub(crate) incarnations: (u8, u8),
    pub(crate) to: u8,
    pub(crate) at: At,
    pub(crate) about: About,
    /// Calls this process had given up before: tells this one from one that was given up.
    pub(crate) given_up: u8,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum About {
    Replicate(ChunkKey, Version),
    Prepare { after: Option<Option<ChunkKey>>, fill: bool },
    Equalise(ChunkKey),
    Activate,
    Fill(ChunkKey, Version),
    Forward(ChunkKey, Version),
}

/// Who waits for an answer of a replica.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Who {
    /// A client's write.
    Client(u8),
    /// Another member; `page`: what it wants of the list.
    Member {
        call: Option<u32>,
        page: Option<Option<ChunkKey>>,
    },
    Read(Read),
    /// What was read for a member that is being filled waits until it is committed.
    Fill {
        to: DiskId,
        at: At,
        key: ChunkKey,
        rec: Option<Rec>,
    },
}

/// A read under way.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Read {
    pub(crate) member: u8,
    pub(crate) incarnation: u8,
    pub(crate) epoch: Epoch,
    pub(crate) key: ChunkKey,
    pub(crate) rec: Rec,
    pub(crate) permit: ReadPermit,
    /// Members that have said that they follow the epoch.
    pub(crate) confirmed: u8,
    /// What was acknowledged, and the longest list shown, before the read began.
    pub(crate) acknowledged: u8,
    pub(crate) shown: Vec<u8>,
}

/// What stands for itself gets a number by which it is the same wherever it comes up again.
#[derive(Debug, Default)]
pub(crate) struct Names {
    pub(crate) messages: Numbered<Message>,
    pub(crate) calls: Numbered<Call>,
    pub(crate) who: Numbered<Who>,
}

#[derive(Debug)]
pub(crate) struct Numbered<T>(IndexSet<T>);

impl<T> Default for Numbered<T> {
    fn default() -> Self {
        Self(IndexSet::new())
    }
}

impl<T: Hash + Eq> Numbered<T> {
    /// The number, and whether it is new.
    pub(crate) fn insert(&mut self, thing: T) -> (u32, bool) {
        let (at, new) = self.0.insert_full(thing);
        (u32::try_from(at).expect("fewer than four billion"), new)
    }

    pub(crate) fn number(&mut self, thing: T) -> u32 {
        self.insert(thing).0
    }

    pub(crate) fn get(&self, number: u32) -> &T {
        &self.0[number as usize]
    }

    pub(crate) fn len(&self) -> usize {
        self.0.len()
    }
}
