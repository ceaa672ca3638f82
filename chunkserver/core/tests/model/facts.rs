//! What the model asks of a member again and again, looked up once.

use chunkserver_core::{ReadPermit, ReadVerdict, Replica, Stage};
use coord_types::{Epoch, Version};

use super::master::bit;
use super::member::Member;
use super::message::At;
use super::setup::{Setup, key, place};
use super::table::{Kind, state};

#[derive(Debug)]
pub(crate) struct Facts {
    pub(crate) up: bool,
    pub(crate) incarnation: u8,
    pub(crate) adopted: u8,
    pub(crate) epoch: Epoch,
    pub(crate) promised: At,
    pub(crate) in_group: bool,
    pub(crate) is_primary: bool,
    pub(crate) active: bool,
    pub(crate) backlog: usize,
    /// Where it is in the tables of the document.
    pub(crate) state: Option<(Kind, String)>,
    pub(crate) permit: Option<ReadPermit>,
    /// The others of its write set, one bit each, if it knows them.
    pub(crate) others: u8,
    pub(crate) knows_others: bool,
    pub(crate) calls: Vec<u32>,
    /// Of each chunk: the version, and the writes in it.
    pub(crate) chunks: Vec<(Version, Vec<u8>)>,
    /// What a read in one moment would show, of each chunk.
    pub(crate) showable: Vec<Option<Vec<u8>>>,
}

impl Facts {
    pub(crate) fn of(member: &Member, setup: &Setup) -> Self {
        let replica = member.replica.as_ref();
        let chunk = |index| {
            let rec = member.disk.chunks.get(&key(index));
            rec.map_or((Version::NONE, Vec::new()), |rec| (rec.version, rec.writes.clone()))
        };
        let chunks: Vec<_> = (0..setup.keys()).map(chunk).collect();
        let permit = replica.and_then(|replica| replica.may_read(replica.epoch()).ok());
        let shows = |(index, (version, writes)): (usize, &(Version, Vec<u8>))| {
            let (mut replica, permit) = (replica?.clone(), permit?);
            let index = u32::try_from(index).expect("few chunks");
            let shown = replica.read(u64::MAX, permit, (key(index), *version)) == Ok(ReadVerdict::Show);
            shown.then(|| writes.clone())
        };
        let others = replica.and_then(Replica::others);
        Self {
            up: replica.is_some(),
            incarnation: member.incarnation,
            adopted: member.adopted,
            epoch: replica.map_or(Epoch(0), Replica::epoch),
            promised: replica.map_or((Epoch(0), 0), |replica| (replica.epoch(), replica.activation())),
            in_group: replica.is_some_and(|replica| replica.stage() != Stage::Out),
            is_primary: replica.is_some_and(Replica::is_primary),
            active: replica.is_some_and(|replica| replica.stage() == Stage::Active),
            backlog: replica.map_or(0, Replica::backlog),
            state: replica.and_then(state),
            permit,
            others: others.iter().flatten().fold(0, |mask, disk| mask | bit(place(*disk))),
            knows_others: others.is_some(),
            calls: member.calls.clone(),
            showable: chunks.iter().enumerate().map(shows).collect(),
            chunks,
        }
    }

    pub(crate) fn holds(&self, write: u8) -> bool {
        self.chunks.iter().any(|(_, writes)| writes.contains(&write))
    }
}
