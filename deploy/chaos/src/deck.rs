//! Kinds of fault, dealt from a shuffled deck: even a short run sees many of them. And what a plan is made of.

use std::time::Duration;

use rand::Rng as _;
use rand::rngs::StdRng;
use rand::seq::SliceRandom as _;

/// Faults that begin one after another and are healed together.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Step<F, V> {
    /// How long programs are left alone before.
    pub(crate) rest: Duration,
    /// What, and whom it meets.
    pub(crate) faults: Vec<(F, V)>,
    /// From the first fault to the second.
    pub(crate) between: Duration,
    pub(crate) lasts: Duration,
    /// Wait until all is whole before, although no rule asks for it.
    pub(crate) whole: bool,
}

/// Without end: shuffled again when it is empty.
#[derive(Debug)]
pub(crate) struct Deck<F> {
    dice: StdRng,
    faults: Vec<F>,
    /// Dealt from the end.
    left: Vec<F>,
}

impl<F: Copy> Deck<F> {
    /// Of these kinds, at least one.
    pub(crate) fn new(dice: StdRng, faults: Vec<F>) -> Self {
        Self { dice, faults, left: Vec::new() }
    }

    pub(crate) fn draw(&mut self) -> F {
        if self.left.is_empty() {
            self.left.clone_from(&self.faults);
            self.left.shuffle(&mut self.dice);
        }
        self.left.pop().expect("there is a kind of fault at least")
    }

    /// The next one that suits, if one is left.
    pub(crate) fn draw_if(&mut self, suits: impl Fn(F) -> bool) -> Option<F> {
        let at = self.left.iter().rposition(|fault| suits(*fault))?;
        Some(self.left.remove(at))
    }

    pub(crate) fn dice(&mut self) -> &mut StdRng {
        &mut self.dice
    }

    pub(crate) fn ms(&mut self, from: u64, upto: u64) -> Duration {
        Duration::from_millis(self.dice.random_range(from..upto))
    }
}
