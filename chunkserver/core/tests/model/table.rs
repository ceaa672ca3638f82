//! The tables of states and events of `chunkserver/docs/replication.md`, read as they stand there: each step of a member is looked up
//! in them.
//!
//! A cell allows to stay, and to go where it has an arrow to. "Cannot be" allows nothing.

use std::collections::{BTreeMap, BTreeSet};

use chunkserver_core::Replica;

const DOCUMENT: &str = include_str!("../../../docs/replication.md");

/// A table, a state, an event, the state after it.
pub(crate) type Move = (Kind, String, String, String);

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Kind {
    Primary,
    Secondary,
}

#[derive(Debug)]
pub(crate) struct Tables {
    /// Where each (state, event) may lead; `None`: it cannot be.
    cells: BTreeMap<(Kind, String, String), Option<BTreeSet<String>>>,
    pub(crate) seen: BTreeSet<Move>,
}

impl Tables {
    /// # Panics
    /// If the document has no such tables.
    pub(crate) fn read() -> Self {
        let mut cells = BTreeMap::new();
        for (kind, title) in
            [(Kind::Primary, "\n## The primary of a group"), (Kind::Secondary, "\n## A secondary")]
        {
            let (_, section) = DOCUMENT.split_once(title).expect("the section is there");
            let mut rows = section.lines().skip_while(|line| !line.starts_with("| state ")).map(columns);
            let events: Vec<_> = rows.next().expect("a table").into_iter().skip(1).collect();
            for row in rows.skip(1).take_while(|row| !row.is_empty()) {
                let state = row[0].split("**").nth(1).expect("the name of a state").to_owned();
                assert_eq!(row.len(), events.len() + 1, "{state}");
                for (event, cell) in events.iter().zip(&row[1..]) {
                    let to = cell.split("→ ").skip(1).map(|to| word(to).to_owned()).collect();
                    let to = (*cell != "cannot be").then_some(to);
                    cells.insert((kind, state.clone(), (*event).to_owned()), to);
                }
            }
        }
        Self { cells, seen: BTreeSet::new() }
    }

    /// Notes what happened; says what is wrong with it. `events`: the columns it may be.
    pub(crate) fn check(
        &mut self,
        before: &(Kind, String),
        events: &[&str],
        after: Option<&(Kind, String)>,
    ) -> Option<String> {
        let (kind, state) = before;
        let cell = |event: &str| {
            let cell = self.cells.get(&(*kind, state.clone(), event.to_owned()));
            cell.unwrap_or_else(|| panic!("the table has no {state} × {event}"))
        };
        if events.iter().all(|event| cell(event).is_none()) {
            return Some(format!("table: {state} × {events:?} cannot be"));
        }
        let (_, to) = after.filter(|(to, _)| to == kind)?;
        let Some(event) = events.iter().find(|event| leads(cell(event).as_ref(), to)) else {
            return (to != state).then(|| format!("table: {state} × {events:?} leads to {to}"));
        };
        self.seen.insert((*kind, state.clone(), (*event).to_owned(), to.clone()));
        None
    }

    /// Moves of the tables that are not among these.
    pub(crate) fn missing(&self, seen: &BTreeSet<Move>) -> Vec<Move> {
        let moves = self.cells.iter().flat_map(|((kind, state, event), to)| {
            to.iter().flatten().map(move |to| (*kind, state.clone(), event.clone(), to.clone()))
        });
        let met = |(kind, state, event, to): &Move| {
            seen.iter().any(|(k, s, e, t)| (k, s, e) == (kind, state, event) && (t == to || passes(to, t)))
        };
        moves.filter(|wanted| !met(wanted)).collect()
    }
}

fn leads(cell: Option<&BTreeSet<String>>, to: &str) -> bool {
    cell.is_some_and(|cell| cell.iter().any(|target| target == to || passes(target, to)))
}

/// A state that may be over at once: with nothing to wait for, or nobody to ask.
fn passes(through: &str, to: &str) -> bool {
    matches!((through, to), ("Draining", "Promising" | "Active") | ("Promising", "Active"))
}

fn columns(line: &str) -> Vec<&str> {
    let inner = line.strip_prefix('|').and_then(|line| line.strip_suffix('|'));
    inner.map_or_else(Vec::new, |inner| inner.split('|').map(str::trim).collect())
}

fn word(text: &str) -> &str {
    text.split(|c: char| !c.is_alphanumeric()).next().unwrap_or_default()
}

/// Where a replica is in the tables; `None`: it is being filled. The steps of a preparation are nobody's business but the core's:
/// they are taken from what it prints.
pub(crate) fn state(replica: &Replica<u8>) -> Option<(Kind, String)> {
    let text = format!("{replica:?}");
    let (_, role) = text.split_once("role: ").expect("a replica has a role");
    if role.starts_with("Out") {
        return Some((Kind::Secondary, "Out".to_owned()));
    }
    if role.starts_with("Primary") {
        let (_, step) = role.split_once("step: ").expect("a primary has a step");
        return Some((Kind::Primary, word(step).to_owned()));
    }
    if role.starts_with("Secondary(Secondary { fill: true") {
        return None;
    }
    let active = role.starts_with("Secondary(Secondary { fill: false, active: true");
    let name = match (active, replica.activation()) {
        (true, _) => "Active",
        (false, 0) => "Idle",
        (false, _) => "Prepared",
    };
    Some((Kind::Secondary, name.to_owned()))
}
