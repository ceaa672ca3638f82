//! What is recorded of each change, for watches.

use coord_kv::{Range, Read};
use nuwa_model::proto::{Event, SetHistory};
use prost::Message as _;

use crate::error::{Outcome, corrupt};
use crate::keys;
use crate::records::Meta;
use crate::state::{PAGE, State, decode, read_meta};

/// Unless it is set.
const EVENTS_MAX: u64 = 1_000_000;
const BYTES_MAX: u64 = 64 << 20;
/// What a command drops beyond twice what it adds, so that a smaller limit is reached step by step.
const DROP_MORE: u64 = 256;
/// Once there is too much, this part of the limit is dropped too: one command in many reads old events, and not each.
const SLACK: u64 = 1024;

pub(crate) fn set(state: &mut State<'_>, request: SetHistory) {
    state.meta.history_events_max = request.events_max;
    state.meta.history_bytes_max = request.bytes_max;
}

/// Whether there is more than may be, less one part in `parts` of it.
fn is_above(meta: &Meta, parts: u64) -> bool {
    let limit = |given, default| if given == 0 { default } else { given };
    let (events_max, bytes_max) =
        (limit(meta.history_events_max, EVENTS_MAX), limit(meta.history_bytes_max, BYTES_MAX));
    meta.history_events > events_max - events_max / parts
        || meta.history_bytes > bytes_max - bytes_max / parts
}

fn is_too_much(meta: &Meta) -> bool {
    is_above(meta, u64::MAX)
}

impl State<'_> {
    /// Records this command's events, and drops old ones that are too many. Its own stay, however large they are.
    pub(crate) fn keep_events(&mut self) -> Outcome<()> {
        let revision = self.meta.revision;
        let records: Vec<_> = self.events().iter().map(|event| (event.number, event.clone())).collect();
        let before = self.meta;
        for (number, event) in records {
            // Its place says which it is.
            let record = Event { revision: 0, number: 0, ..event };
            self.meta.history_events += 1;
            self.meta.history_bytes += record.encoded_len() as u64;
            self.put(keys::HISTORY, keys::event(revision, number), &record);
        }
        if is_too_much(&self.meta) {
            let events = self.meta.history_events - before.history_events;
            self.drop_events(events, self.meta.history_bytes - before.history_bytes)?;
        }
        Ok(())
    }

    /// Drops the oldest revisions, each whole, until there is room again or enough went for what was added: so what is kept
    /// does not grow above a limit that it was below. What has to be read for it is at most what is dropped and one revision
    /// more, which is bounded as what a command touches is; and each event is dropped once.
    fn drop_events(&mut self, added: u64, added_bytes: u64) -> Outcome<()> {
        let has_dropped_enough = |now: &Meta, before: &Meta| {
            !is_above(now, SLACK)
                || (before.history_events - now.history_events >= 2 * added + DROP_MORE
                    && before.history_bytes - now.history_bytes >= added_bytes)
        };
        let before = self.meta;
        // From the first one on, so that the scan does not come by those dropped before.
        let oldest = keys::events_from(before.history_first, 0);
        let mut rest = oldest.clone();
        let (mut events, mut bytes) = (0, 0);
        'pages: while self.meta.history_first < self.meta.revision {
            let page = self.scan(keys::HISTORY, &rest, PAGE)?;
            let (last, _) = page.last().ok_or_else(|| corrupt("the newest event"))?;
            rest = rest.after(last);
            for (key, record) in &page {
                let (of, _) = keys::split_event(key).ok_or_else(|| corrupt("the key of an event"))?;
                // A revision goes once it is known to be whole: when the next one begins.
                if of != self.meta.history_first {
                    self.meta.history_events -= std::mem::take(&mut events);
                    self.meta.history_bytes -= std::mem::take(&mut bytes);
                    self.meta.history_first = of;
                    if of == self.meta.revision || has_dropped_enough(&self.meta, &before) {
                        break 'pages;
                    }
                }
                events += 1;
                bytes += record.len() as u64;
            }
        }
        // One deletion for all: one for each event is as much work for the store as the event was.
        let first_left = keys::event(self.meta.history_first, 0).to_vec();
        if first_left > oldest.start {
            self.delete_range(keys::HISTORY, Range { end_exclusive: Some(first_left), ..oldest });
        }
        Ok(())
    }
}

/// A page of history.
#[derive(Clone, Debug, PartialEq)]
pub enum Page {
    /// From the one asked for on; none if it did not happen yet.
    Events(Vec<Event>),
    /// It is no longer kept; those from this revision on are.
    Lost { first: u64 },
}

/// At most `limit` events from (revision, number) on.
pub(crate) fn page(read: &dyn Read, from: (u64, u32), limit: usize) -> coord_kv::Result<Page> {
    let pairs = read.scan(keys::HISTORY, &keys::events_from(from.0, from.1), limit)?;
    // Only now: between two reads a command may drop events, and a follower may take over another store. What the newer
    // state still keeps of it was there before, too.
    let meta = read_meta(read)?;
    if from.0 < meta.history_first {
        return Ok(Page::Lost { first: meta.history_first });
    }
    let events = pairs.iter().map(|(key, record)| {
        let (revision, number) = keys::split_event(key).ok_or_else(|| corrupt("the key of an event"))?;
        Ok(Event { revision, number, ..decode("an event", record)? })
    });
    Ok(Page::Events(events.collect::<coord_kv::Result<_>>()?))
}
