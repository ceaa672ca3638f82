//! Many sorted segments to one stream, by a loser tree.
//!
//! Equal keys come in the order of the segments, so a merge of runs in the order of the input is a stable sort.

use std::cmp::Ordering;

use crate::cursor::{Cursor, CursorSettings, Segment};
use crate::error::Result;
use crate::pool::Pool;
use crate::record::{RecordSpec, prefix};

/// A merge. Inner node `n` (1..k) of the tree holds the loser of its two children; leaf `i` is node `k + i`; the
/// winner of all stands apart. So the next winner costs one comparison per level.
pub(crate) struct Merge<'p> {
    spec: RecordSpec,
    cursors: Vec<Cursor<'p>>,
    /// The prefixes of the current records; nothing for a segment that has ended.
    heads: Vec<Option<u64>>,
    losers: Vec<u32>,
    winner: usize,
}

impl<'p> Merge<'p> {
    pub(crate) fn new(
        segments: Vec<Segment>,
        spec: RecordSpec,
        pool: &'p Pool,
        settings: CursorSettings,
    ) -> Result<Self> {
        let mut cursors = Vec::with_capacity(segments.len());
        for segment in segments {
            cursors.push(Cursor::new(segment, pool, settings)?);
        }
        let mut merge = Self {
            spec,
            heads: vec![None; cursors.len()],
            losers: vec![0; cursors.len()],
            cursors,
            winner: 0,
        };
        for i in 0..merge.cursors.len() {
            merge.advance(i)?;
        }
        if !merge.cursors.is_empty() {
            merge.winner = merge.play(1);
        }
        Ok(merge)
    }

    /// The smallest record that is left, or nothing.
    #[inline]
    pub(crate) fn record(&self) -> Option<&[u8]> {
        self.heads.get(self.winner)?.map(|_| self.cursors[self.winner].record())
    }

    /// Goes on to the next record.
    #[inline]
    pub(crate) fn next(&mut self) -> Result<()> {
        let mut winner = self.winner;
        self.advance(winner)?;
        let mut node = (winner + self.cursors.len()) / 2;
        while node > 0 {
            let other = self.losers[node] as usize;
            if self.is_before(other, winner) {
                self.losers[node] = winner as u32;
                winner = other;
            }
            node /= 2;
        }
        self.winner = winner;
        Ok(())
    }

    /// Plays the whole sub-tree of a node and returns its winner.
    fn play(&mut self, node: usize) -> usize {
        let k = self.cursors.len();
        if node >= k {
            return node - k;
        }
        let (left, right) = (self.play(2 * node), self.play(2 * node + 1));
        let (winner, loser) = if self.is_before(right, left) { (right, left) } else { (left, right) };
        self.losers[node] = loser as u32;
        winner
    }

    #[inline]
    fn advance(&mut self, i: usize) -> Result<()> {
        let cursor = &mut self.cursors[i];
        self.heads[i] =
            if cursor.advance()? { Some(prefix(self.spec.key_of(cursor.record()))) } else { None };
        Ok(())
    }

    #[inline]
    fn is_before(&self, a: usize, b: usize) -> bool {
        match (self.heads[a], self.heads[b]) {
            (Some(x), Some(y)) if x != y => x < y,
            (Some(_), Some(_)) => {
                let order = self.spec.compare(self.cursors[a].record(), self.cursors[b].record());
                order.then(a.cmp(&b)) == Ordering::Less
            }
            (Some(_), None) => true,
            (None, _) => false,
        }
    }
}
