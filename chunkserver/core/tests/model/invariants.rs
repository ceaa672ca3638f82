//! What must hold: looked at in every state, and at every acknowledgement and every answer to a reader.

use coord_types::Epoch;
use master_model::MemberState;

use super::bug::Bug;
use super::master::bit;
use super::message::Read;
use super::setup::{index, place};
use super::world::{Draft, World, small};

impl World {
    /// A client hears that its write is done.
    pub(crate) fn acknowledged(
        &self,
        draft: &mut Draft,
        at: usize,
        write: u8,
        epoch: Epoch,
    ) -> Result<(), String> {
        draft.edit().acknowledged |= bit(write.into());
        if draft.common.sealed & bit(write.into()) != 0 {
            return Err(format!("fence: write {write} is acknowledged under a fence that is over"));
        }
        if self.setup.is_raise(write) {
            // What is lower and was not applied is over.
            let facts = self.facts(draft.members[at]);
            let lower = |other: &u8| {
                !self.setup.is_raise(*other)
                    && self.setup.fence(*other) < self.setup.fence(write)
                    && !facts.holds(*other)
            };
            let over = (0..small(self.setup.writes.len())).filter(lower);
            let over = over.fold(0, |mask, other| mask | bit(other.into()));
            draft.edit().sealed |= over;
        }
        let copies = draft.members.iter().filter(|member| self.facts(**member).holds(write)).count();
        if copies < self.setup.rules.min_replicas as usize {
            return Err(format!("I1: write {write} is acknowledged and durable on {copies} members"));
        }
        let newest = draft.common.master.newest().group.epoch;
        match self.lost(draft) {
            Some(lost) if epoch < newest => {
                Err(format!("I3: the primary of {epoch} acknowledges write {write} in {newest}: {lost}"))
            }
            Some(lost) => Err(format!("I1: {lost}")),
            None => Ok(()),
        }
    }

    /// A reader gets its answer.
    pub(crate) fn shown(&self, draft: &mut Draft, read: &Read) -> Result<(), String> {
        let at = read.member + 1;
        let mut acknowledged = (0..8u8).filter(|write| read.acknowledged & bit((*write).into()) != 0);
        let chunk = index(read.key);
        if let Some(write) = acknowledged
            .find(|write| self.setup.writes[usize::from(*write)] == chunk && !read.rec.writes.contains(write))
        {
            return Err(format!(
                "I4: {at} shows {:?}, write {write} was acknowledged before",
                read.rec.writes
            ));
        }
        if !read.rec.writes.starts_with(&read.shown) {
            return Err(format!("I4: {at} shows {:?} after {:?}", read.rec.writes, read.shown));
        }
        show(draft, chunk as usize, &read.rec.writes, read.member.into())
    }

    /// An acknowledged write that a member lacks which serves, as the newest table says.
    fn lost(&self, draft: &Draft) -> Option<String> {
        let table = draft.common.master.newest();
        let joined = if draft.common.master.active { MemberState::Joining } else { MemberState::Serving };
        let serving = table.group.in_state(MemberState::Serving);
        let joining = table.group.in_state(MemberState::Joining).filter(|_| joined == MemberState::Joining);
        for member in serving.chain(joining) {
            let facts = self.facts(draft.members[place(member)]);
            for write in (0..8u8).filter(|write| draft.common.acknowledged & bit((*write).into()) != 0) {
                if !facts.holds(write) {
                    return Some(format!("{member:?} serves and lacks the acknowledged write {write}"));
                }
            }
        }
        None
    }

    /// What readers would see in this moment counts as seen.
    pub(crate) fn observe(&self, draft: &mut Draft) -> Result<(), String> {
        for at in 0..draft.members.len() {
            let facts = self.facts(draft.members[at]);
            if facts.permit.is_none() || !self.may_answer(draft, at) {
                continue;
            }
            for (chunk, shown) in facts.showable.iter().enumerate() {
                let Some(writes) = shown else { continue };
                let of_chunk = (0..8u8).filter(|write| {
                    draft.common.acknowledged & bit((*write).into()) != 0
                        && self.setup.writes[usize::from(*write)] as usize == chunk
                });
                for write in of_chunk {
                    if !writes.contains(&write) {
                        return Err(format!(
                            "I4: {} shows {writes:?}, write {write} is acknowledged",
                            at + 1
                        ));
                    }
                }
                if !writes.starts_with(&draft.common.shown[chunk]) {
                    let before = &draft.common.shown[chunk];
                    return Err(format!("I4: {} shows {writes:?} after {before:?}", at + 1));
                }
                show(draft, chunk, writes, at)?;
            }
        }
        Ok(())
    }

    /// By its lease, or because all other members of its epoch follow it still.
    fn may_answer(&self, draft: &Draft, at: usize) -> bool {
        let facts = self.facts(draft.members[at]);
        let follows = |other: usize| {
            let replica = self.member(draft.members[other]).replica.as_ref();
            replica.is_some_and(|replica| replica.confirm(facts.epoch).is_ok())
        };
        let mut others = (0..draft.members.len()).filter(|other| facts.others & bit(*other) != 0);
        draft.common.master.is_leased(at)
            || self.setup.has(Bug::NoLease)
            || (facts.knows_others && others.all(follows))
    }

    pub(crate) fn check(&self, draft: &Draft) -> Result<(), String> {
        if let Some(lost) = self.lost(draft) {
            return Err(format!("I1: {lost}"));
        }
        for (at, member) in draft.members.iter().enumerate() {
            let facts = self.facts(*member);
            for (version, writes) in &facts.chunks {
                if (1..writes.len()).any(|at| writes[..at].contains(&writes[at])) {
                    return Err(format!("I5: {} has {writes:?} at {version}: one of them twice", at + 1));
                }
            }
            for (other, number) in draft.members.iter().enumerate().skip(at + 1) {
                let others = self.facts(*number);
                for (mine, theirs) in facts.chunks.iter().zip(&others.chunks) {
                    if mine.0 == theirs.0 && mine.1 != theirs.1 {
                        return Err(format!(
                            "equal versions: {} has {:?} and {} has {:?} at {}",
                            at + 1,
                            mine.1,
                            other + 1,
                            theirs.1,
                            mine.0
                        ));
                    }
                }
                let active = |facts: &super::facts::Facts| facts.is_primary && facts.active;
                if active(facts) && active(others) && facts.epoch == others.epoch {
                    return Err(format!("I3: two primaries are active in {}", facts.epoch));
                }
            }
        }
        Ok(())
    }

    /// Nothing goes on by itself any more: is everything done that can be?
    pub(crate) fn check_rest(&self, draft: &Draft) -> Result<(), String> {
        if self.is_given_up(draft) {
            return Ok(());
        }
        let table = draft.common.master.newest();
        let Some(primary) = table.group.primary() else { return Ok(()) };
        let (at, facts) = (place(primary), self.facts(draft.members[place(primary)]));
        if !facts.is_primary || !facts.active {
            return Err(format!("rest: {} leads {} and is not active", at + 1, table.group.epoch));
        }
        if facts.backlog > 0 && table.group.serving().count() >= self.setup.rules.min_replicas as usize {
            return Err(format!("rest: {} has {} writes that nothing goes on with", at + 1, facts.backlog));
        }
        Ok(())
    }
}

/// A reader has seen these writes.
fn show(draft: &mut Draft, chunk: usize, writes: &[u8], at: usize) -> Result<(), String> {
    if let Some(write) = writes.iter().find(|write| draft.common.sealed & bit((**write).into()) != 0) {
        return Err(format!("fence: {} shows write {write} under a fence that is over", at + 1));
    }
    let longest = &draft.common.shown[chunk];
    let (short, long) =
        if longest.len() < writes.len() { (&longest[..], writes) } else { (writes, &longest[..]) };
    if !long.starts_with(short) {
        return Err(format!("I4: {} shows {writes:?}, {longest:?} was shown", at + 1));
    }
    if longest.len() < writes.len() {
        draft.edit().shown[chunk] = writes.to_vec();
    }
    Ok(())
}
