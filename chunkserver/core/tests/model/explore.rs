//! Breadth first through all states: each is kept whole, so none is taken for another, and the first that breaks an
//! invariant is as near to the beginning as any.

use std::collections::BTreeSet;
use std::fmt::{Display, Formatter, Result as Formatted};
use std::time::{Duration, Instant};

use super::message::Numbered;
use super::setup::Setup;
use super::table::Move;
use super::world::{Action, State, World};

/// What came of a run.
#[derive(Debug)]
pub(crate) struct Report {
    pub(crate) states: usize,
    /// Those in which all that was wanted is done.
    pub(crate) finished: usize,
    pub(crate) steps: usize,
    pub(crate) depth: usize,
    /// Different members, different steps of members.
    pub(crate) locals: (usize, usize),
    pub(crate) took: Duration,
    /// All states were visited.
    pub(crate) complete: bool,
    pub(crate) broken: Option<Broken>,
    /// Moves of the document's tables that were made.
    pub(crate) moves: BTreeSet<Move>,
}

/// An invariant that does not hold, and the shortest way there.
#[derive(Debug)]
pub(crate) struct Broken {
    pub(crate) what: String,
    pub(crate) trace: Vec<String>,
}

impl Display for Broken {
    fn fmt(&self, f: &mut Formatter<'_>) -> Formatted {
        for (number, line) in self.trace.iter().enumerate() {
            writeln!(f, "{:4}  {line}", number + 1)?;
        }
        write!(f, "      {}", self.what)
    }
}

impl Display for Report {
    fn fmt(&self, f: &mut Formatter<'_>) -> Formatted {
        let Self { states, steps, depth, locals, took, complete, .. } = self;
        let how = if *complete { "all" } else { "NOT all" };
        write!(
            f,
            "{how} {states} states, {steps} steps, depth {depth}, {} members, {} of their steps, {:.1} s",
            locals.0,
            locals.1,
            took.as_secs_f64()
        )
    }
}

/// Visits all states, at most so many.
pub(crate) fn explore(setup: Setup, states_max: usize) -> Report {
    let began = Instant::now();
    let mut world = World::new(setup);
    let mut states: Numbered<State> = Numbered::default();
    // Where each state was first come to from.
    let mut parents: Vec<u32> = Vec::new();
    let (mut finished, mut steps, mut depth, mut level_end, mut next) = (0, 0, 0, 1, 0);
    let mut broken = None;
    match world.first() {
        Ok(first) => {
            states.insert(first);
            parents.push(0);
        }
        Err(what) => broken = Some(Broken { what, trace: Vec::new() }),
    }
    while broken.is_none() && next < states.len() && states.len() <= states_max {
        if next == level_end {
            (depth, level_end) = (depth + 1, states.len());
        }
        let number = u32::try_from(next).expect("fewer than four billion");
        let state = states.get(number).clone();
        let draft = world.open(&state);
        let mut actions = world.progress(&draft);
        let rests = actions.is_empty();
        actions.extend(world.choices(&draft));
        if rests && let Err(what) = world.check_rest(&draft) {
            broken = Some(Broken { what, trace: trace(&mut world, &states, &parents, number) });
        }
        for action in actions {
            steps += 1;
            match world.after(&draft, action) {
                Ok((state, draft)) => {
                    let (new_number, new) = states.insert(state);
                    if !new {
                        continue;
                    }
                    parents.push(number);
                    finished += usize::from(world.is_finished(&draft));
                    if let Err(what) = world.check(&draft) {
                        broken =
                            Some(Broken { what, trace: trace(&mut world, &states, &parents, new_number) });
                        break;
                    }
                }
                Err(what) => {
                    let last = world.describe(&state, action);
                    let mut trace = trace(&mut world, &states, &parents, number);
                    trace.push(last);
                    broken = Some(Broken { what, trace });
                    break;
                }
            }
        }
        next += 1;
    }
    Report {
        states: states.len(),
        finished,
        steps,
        depth,
        locals: world.locals(),
        moves: std::mem::take(&mut world.tables.seen),
        took: began.elapsed(),
        complete: broken.is_none() && next == states.len(),
        broken,
    }
}

/// How to come to a state.
fn trace(world: &mut World, states: &Numbered<State>, parents: &[u32], to: u32) -> Vec<String> {
    let mut way = vec![to];
    while way[way.len() - 1] != 0 {
        way.push(parents[way[way.len() - 1] as usize]);
    }
    way.reverse();
    way.windows(2).map(|pair| line(world, states.get(pair[0]), states.get(pair[1]))).collect()
}

fn line(world: &mut World, from: &State, to: &State) -> String {
    let draft = world.open(from);
    let mut actions: Vec<Action> = world.progress(&draft);
    actions.extend(world.choices(&draft));
    let action =
        actions.into_iter().find(|action| world.after(&draft, *action).is_ok_and(|(state, _)| state == *to));
    action.map_or_else(|| "?".to_owned(), |action| world.describe(from, action))
}
