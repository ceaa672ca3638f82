//! How a primary brings all serving members to one state: promise, compare lists page by page, install or remove what
//! differs, activate. Each attempt has its own activation number; a failed step ends the attempt.

use coord_types::{ChunkKey, DiskId, Version};

use crate::event::{Effect, Io, MemberInfo, Page, PeerError, Store};
use crate::replica::{Replica, Role};
use crate::sync::Sync;

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Primary<C> {
    /// The other members that take part in writes.
    pub(crate) peers: Vec<Peer>,
    /// The members that are being filled.
    pub(crate) syncing: Vec<Sync<C>>,
    pub(crate) step: Step,
    /// Attempts that failed since the last one that did not.
    failures: u32,
}

/// Steps of an attempt, in order; see the table in the document.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Step {
    Draining,
    Promising,
    Listing,
    Activating,
    Waiting,
    Active,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Peer {
    pub(crate) disk: DiskId,
    /// Of the process that promised in this attempt; 0 before it did.
    incarnation: u64,
    /// Compared up to here.
    cursor: Option<ChunkKey>,
    /// Nothing follows the page at hand.
    last_page: bool,
    /// Differences of the page at hand that are being removed.
    equalising: usize,
    /// Done with the step the attempt is at.
    done: bool,
}

impl<C> Primary<C> {
    pub(crate) fn new(peers: &[MemberInfo], syncing: &[MemberInfo]) -> Self {
        assert!(peers.len() < 32, "a group has fewer than 32 members");
        let peers = peers
            .iter()
            .map(|member| Peer {
                disk: member.disk,
                incarnation: 0,
                cursor: None,
                last_page: false,
                equalising: 0,
                done: false,
            })
            .collect();
        let syncing = syncing.iter().map(|member| Sync::new(*member)).collect();
        Self { peers, syncing, step: Step::Waiting, failures: 0 }
    }

    /// The bits of all peers.
    pub(crate) fn everybody(&self) -> u32 {
        (1u32 << self.peers.len()) - 1
    }

    pub(crate) fn bit(&self, disk: DiskId) -> Option<u32> {
        self.peers.iter().position(|peer| peer.disk == disk).map(|index| 1 << index)
    }

    fn peer_mut(&mut self, disk: DiskId) -> Option<&mut Peer> {
        self.peers.iter_mut().find(|peer| peer.disk == disk)
    }

    /// Whether all are done with the step; if so, begins the next.
    fn next_step(&mut self, next: Step) -> bool {
        let all = self.peers.iter().all(|peer| peer.done);
        if all {
            self.step = next;
            self.peers.iter_mut().for_each(|peer| peer.done = false);
        }
        all
    }
}

impl<C: Clone> Replica<C> {
    /// Begins anew: draws an activation, and waits until the disk is at rest.
    pub(crate) fn begin_attempt(&mut self, io: &mut Io<'_, impl Store, C>) {
        let Role::Primary(primary) = &mut self.role else { return };
        primary.step = Step::Draining;
        primary.syncing.iter_mut().for_each(Sync::reset);
        self.promised.1 += 1;
        self.proceed_if_drained(io);
    }

    /// The disk is at rest and the epoch promised.
    pub(crate) fn drained(&mut self, io: &mut Io<'_, impl Store, C>) {
        self.settle_in_flight(io);
        self.broken.clear();
        let Role::Primary(primary) = &mut self.role else { return };
        primary.step = Step::Promising;
        for peer in &mut primary.peers {
            peer.incarnation = 0;
            peer.cursor = None;
            peer.last_page = false;
            peer.equalising = 0;
            peer.done = false;
            io.emit(Effect::Prepare {
                peer: peer.disk,
                epoch: self.promised.0,
                activation: self.promised.1,
                after: None,
                fill: false,
            });
        }
        if primary.peers.is_empty() {
            self.become_active(io);
        }
    }

    /// A member answered [`Effect::Prepare`].
    pub fn prepared(
        &mut self,
        peer: DiskId,
        activation: u64,
        result: Result<Page, PeerError>,
        io: &mut Io<'_, impl Store, C>,
    ) {
        let epoch = self.promised.0;
        if self.sync_prepared(peer, activation, &result, io) {
            return;
        }
        let Some(primary) = self.attempt(activation) else { return };
        let step = primary.step;
        if !matches!(step, Step::Promising | Step::Listing) {
            return;
        }
        let Some(member) = primary.peer_mut(peer) else { return };
        let page = match result {
            Ok(page) => page,
            Err(error) => return self.fail_attempt(error, io),
        };
        let restarted = member.incarnation != 0 && member.incarnation != page.incarnation;
        if restarted {
            return self.fail_attempt(PeerError::Failed, io);
        }
        member.incarnation = page.incarnation;
        match step {
            Step::Promising => {
                member.done = true;
                if primary.next_step(Step::Listing) {
                    for peer in &primary.peers {
                        let after = Some(None);
                        io.emit(Effect::Prepare { peer: peer.disk, epoch, activation, after, fill: false });
                    }
                }
            }
            Step::Listing => self.compare(peer, &page, io),
            Step::Draining | Step::Activating | Step::Waiting | Step::Active => {}
        }
    }

    /// Finds what differs within a page, and asks for it to be made equal.
    fn compare(&mut self, peer: DiskId, page: &Page, io: &mut Io<'_, impl Store, C>) {
        let (epoch, activation) = self.promised;
        let Role::Primary(primary) = &mut self.role else { return };
        let Some(member) = primary.peer_mut(peer) else { return };
        let upto = if page.end { None } else { page.chunks.last().map(|(key, _)| *key) };
        if !page.end && upto.is_none_or(|upto| member.cursor.is_some_and(|cursor| upto <= cursor)) {
            // A page that is empty or goes backwards would be asked for again for ever.
            return self.fail_attempt(PeerError::Failed, io);
        }
        let Ok(mine) = io.store.list(member.cursor, upto) else {
            return self.fail_attempt(PeerError::Failed, io);
        };
        // The page ends where the shorter of the two lists does.
        let upto = if mine.truncated { mine.chunks.last().map(|(key, _)| *key) } else { upto };
        let theirs = page.chunks.iter().filter(|(key, _)| upto.is_none_or(|upto| *key <= upto));
        let mut differences = 0;
        for key in differing(&mine.chunks, theirs) {
            differences += 1;
            io.emit(Effect::Equalise { peer, epoch, activation, key });
        }
        member.equalising = differences;
        member.last_page = upto.is_none();
        member.cursor = upto.or(member.cursor);
        if differences == 0 {
            self.page_done(peer, io);
        }
    }

    /// A difference is gone, or could not be removed.
    pub fn equalised(
        &mut self,
        peer: DiskId,
        activation: u64,
        key: ChunkKey,
        result: Result<(), PeerError>,
        io: &mut Io<'_, impl Store, C>,
    ) {
        // An attempt that failed stays failed, whatever else of it succeeds while it waits.
        let Some(primary) = self.attempt(activation).filter(|primary| primary.step == Step::Listing) else {
            return;
        };
        let Some(member) = primary.peer_mut(peer).filter(|member| member.equalising > 0) else { return };
        member.equalising -= 1;
        let page_done = member.equalising == 0;
        match result {
            Ok(()) => {}
            Err(PeerError::SourceDamaged) => {
                self.broken.insert(key);
            }
            Err(error @ (PeerError::Stale { .. } | PeerError::Failed)) => {
                return self.fail_attempt(error, io);
            }
        }
        if page_done {
            self.page_done(peer, io);
        }
    }

    fn page_done(&mut self, peer: DiskId, io: &mut Io<'_, impl Store, C>) {
        let (epoch, activation) = self.promised;
        let Role::Primary(primary) = &mut self.role else { return };
        let Some(member) = primary.peer_mut(peer) else { return };
        if !member.last_page {
            let after = Some(member.cursor);
            io.emit(Effect::Prepare { peer, epoch, activation, after, fill: false });
            return;
        }
        member.done = true;
        if primary.next_step(Step::Activating) {
            for peer in &primary.peers {
                io.emit(Effect::Activate { peer: peer.disk, epoch, activation });
            }
        }
    }

    /// A member answered [`Effect::Activate`].
    pub fn activated(
        &mut self,
        peer: DiskId,
        activation: u64,
        result: Result<(), PeerError>,
        io: &mut Io<'_, impl Store, C>,
    ) {
        let Some(primary) = self.attempt(activation).filter(|primary| primary.step == Step::Activating)
        else {
            return;
        };
        if let Err(error) = result {
            return self.fail_attempt(error, io);
        }
        if let Some(member) = primary.peer_mut(peer) {
            member.done = true;
        }
        if primary.peers.iter().all(|peer| peer.done) {
            self.become_active(io);
        }
    }

    fn become_active(&mut self, io: &mut Io<'_, impl Store, C>) {
        let Role::Primary(primary) = &mut self.role else { return };
        primary.step = Step::Active;
        primary.failures = 0;
        self.serving = true;
        // First, so that what is committed now finds the members that are being filled.
        self.begin_syncs(io);
        self.commit_everything(io);
    }

    /// The back-off of this attempt is over.
    pub fn retry(&mut self, activation: u64, io: &mut Io<'_, impl Store, C>) {
        if self.attempt(activation).is_some_and(|primary| primary.step == Step::Waiting) {
            self.begin_attempt(io);
        }
    }

    /// A member's process has this incarnation: what it was activated with, or news.
    pub fn heard_of(&mut self, disk: DiskId, incarnation: u64, io: &mut Io<'_, impl Store, C>) {
        let Role::Primary(primary) = &mut self.role else { return };
        if let Some(sync) = primary.syncing.iter().find(|sync| sync.disk == disk) {
            if sync.is_news(incarnation) {
                self.begin_sync(disk, io);
            }
            return;
        }
        let Some(member) = primary.peer_mut(disk) else { return };
        // Incarnations grow: an older one is old news, from a table written before the member started.
        if incarnation > member.incarnation && primary.step != Step::Draining {
            self.begin_attempt(io);
        }
    }

    /// The attempt with this number, if it goes on.
    fn attempt(&mut self, activation: u64) -> Option<&mut Primary<C>> {
        if activation != self.promised.1 {
            return None;
        }
        match &mut self.role {
            Role::Primary(primary) => Some(primary),
            Role::Secondary(_) | Role::Out => None,
        }
    }

    fn fail_attempt(&mut self, error: PeerError, io: &mut Io<'_, impl Store, C>) {
        self.heed(error, io);
        let activation = self.promised.1;
        let Role::Primary(primary) = &mut self.role else { return };
        if matches!(primary.step, Step::Draining | Step::Waiting) {
            return;
        }
        primary.step = Step::Waiting;
        io.emit(Effect::Retry { activation, attempt: primary.failures });
        primary.failures = primary.failures.saturating_add(1);
    }

    /// A refusal tells what to be above next time.
    pub(crate) fn heed(&mut self, error: PeerError, io: &mut Io<'_, impl Store, C>) {
        if let PeerError::Stale { epoch, activation } = error {
            if epoch > self.promised.0 {
                io.emit(Effect::Outdated { epoch });
            } else if epoch == self.promised.0 {
                self.promised.1 = self.promised.1.max(activation);
            }
        }
    }
}

/// Keys that are not in both lists with one version. Both ascend.
pub(crate) fn differing<'a>(
    mine: &'a [(ChunkKey, Version)],
    theirs: impl Iterator<Item = &'a (ChunkKey, Version)>,
) -> Vec<ChunkKey> {
    let mut out = Vec::new();
    let mut mine = mine.iter().peekable();
    for (key, version) in theirs {
        while let Some((absent, _)) = mine.next_if(|(mine, _)| mine < key) {
            out.push(*absent);
        }
        match mine.next_if(|(mine, _)| mine == key) {
            Some((_, same)) if same == version => {}
            Some(_) | None => out.push(*key),
        }
    }
    out.extend(mine.map(|(key, _)| *key));
    out
}

#[cfg(test)]
mod tests {
    use coord_types::{DataId, Epoch, GroupId};

    use super::*;

    #[test]
    fn differences_are_what_is_missing_or_other_on_either_side() {
        let chunk = |index, counter| {
            (ChunkKey::new(GroupId(1), DataId(1), index), Version { epoch: Epoch(1), counter })
        };
        let mine = [chunk(1, 1), chunk(2, 1), chunk(4, 5), chunk(9, 1)];
        let theirs = [chunk(2, 1), chunk(3, 1), chunk(4, 6)];
        let found: Vec<_> = differing(&mine, theirs.iter()).iter().map(|key| key.chunk.index).collect();
        assert_eq!(found, [1, 3, 4, 9]);
        assert!(differing(&mine, mine.iter()).is_empty());
        assert_eq!(differing(&[], theirs.iter()).len(), 3);
    }
}
