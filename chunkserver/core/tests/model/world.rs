//! The members, the network between them, the master, the clients: a state, and what can happen next in it.
//!
//! A state is a few numbers: of what is common to all, of each member, of each message under way. What a member does is
//! computed once for each (member, input) and looked up afterwards.

use std::collections::HashMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::rc::Rc;

use chunkserver_core::View;

use super::bug::Bug;
use super::disk::{Job, firsts, survivors};
use super::facts::Facts;
use super::master::{Master, Table, bit};
use super::member::{Input, Member, Output, Processes, Step, Task};
use super::message::{Body, Message, Names, Numbered, Read, Who};
use super::setup::{DISKS_MAX, Setup, disk, key};
use super::table::Tables;

/// What is common to all, a number for each member, the messages under way, ascending.
pub(crate) type State = Box<[u32]>;

/// What is not in a member and not under way.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Common {
    pub(crate) master: Master,
    /// Writes, one bit each.
    pub(crate) acknowledged: u8,
    /// Writes that must never be seen: a raise above their fence was acknowledged before they were applied.
    pub(crate) sealed: u8,
    /// Of each chunk, the longest list of writes that a reader may have seen.
    pub(crate) shown: Vec<Vec<u8>>,
    pub(crate) reads: Vec<Read>,
    left: Left,
}

/// What may still happen.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Left {
    sends: Vec<u8>,
    reads: u8,
    crashes: u8,
    losses: u8,
    doubles: u8,
    disk_faults: u8,
    retries: u8,
}

/// One thing that happens.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Action {
    Member(usize, Input),
    Double(u32),
    Change(usize),
    BeginRead(usize, u32),
    Confirm { read: usize, by: usize },
    EndRead(usize),
}

/// What came of an input to a member.
#[derive(Debug)]
struct Outcome {
    member: u32,
    outputs: Vec<Output>,
    /// It must never happen.
    broken: Option<String>,
}

#[derive(Debug)]
pub(crate) struct World {
    pub(crate) setup: Setup,
    pub(crate) names: Names,
    members: Numbered<Member>,
    facts: Vec<Facts>,
    commons: Numbered<Rc<Common>>,
    views: Numbered<View>,
    memo: HashMap<(u32, Processes, Input), Rc<Outcome>>,
    pub(crate) tables: Tables,
}

/// A state that is being made.
#[derive(Clone, Debug)]
pub(crate) struct Draft {
    pub(crate) common: Rc<Common>,
    /// While `common` is as it was found.
    number: Option<u32>,
    pub(crate) members: Vec<u32>,
    net: Vec<u32>,
}

impl Draft {
    /// To change what is common.
    pub(crate) fn edit(&mut self) -> &mut Common {
        self.number = None;
        Rc::make_mut(&mut self.common)
    }
}

impl World {
    pub(crate) fn new(setup: Setup) -> Self {
        Self {
            setup,
            names: Names::default(),
            members: Numbered::default(),
            facts: Vec::new(),
            commons: Numbered::default(),
            views: Numbered::default(),
            memo: HashMap::new(),
            tables: Tables::read(),
        }
    }

    /// Different members, and steps of members, met so far.
    pub(crate) fn locals(&self) -> (usize, usize) {
        (self.members.len(), self.memo.len())
    }

    pub(crate) fn facts(&self, member: u32) -> &Facts {
        &self.facts[member as usize]
    }

    pub(crate) fn view(&self, view: u32) -> &View {
        self.views.get(view)
    }

    pub(crate) fn member(&self, member: u32) -> &Member {
        self.members.get(member)
    }

    /// All processes have just started; unless it begins cold, they have activated the first epoch.
    pub(crate) fn first(&mut self) -> Result<State, String> {
        let setup = self.setup.clone();
        let left = Left {
            sends: vec![setup.sends; setup.writes.len()],
            reads: setup.reads,
            crashes: setup.crashes,
            losses: setup.losses,
            doubles: setup.doubles,
            disk_faults: setup.disk_faults,
            retries: setup.retries,
        };
        let shown = vec![Vec::new(); setup.keys() as usize];
        let master = Master::new(&setup);
        let common = Common { master, acknowledged: 0, sealed: 0, shown, reads: Vec::new(), left };
        let members = (0..setup.disks as usize).map(|at| self.number(Member::new(at))).collect();
        let mut draft = Draft { common: Rc::new(common), number: None, members, net: Vec::new() };
        for at in 0..setup.disks as usize {
            self.input(&mut draft, at, Input::Start)?;
        }
        if !setup.cold {
            // In one way of many.
            while let Some(action) = self.progress(&draft).into_iter().next() {
                self.act(&mut draft, action)?;
            }
        }
        Ok(self.seal(&draft))
    }

    fn number(&mut self, member: Member) -> u32 {
        let facts = Facts::of(&member, &self.setup);
        let (number, new) = self.members.insert(member);
        if new {
            self.facts.push(facts);
        }
        number
    }

    pub(crate) fn open(&self, state: &State) -> Draft {
        let (members, net) = state[1..].split_at(self.setup.disks as usize);
        Draft {
            common: self.commons.get(state[0]).clone(),
            number: Some(state[0]),
            members: members.to_vec(),
            net: net.to_vec(),
        }
    }

    fn seal(&mut self, draft: &Draft) -> State {
        let common = draft.number.unwrap_or_else(|| self.commons.number(draft.common.clone()));
        std::iter::once(&common).chain(&draft.members).chain(&draft.net).copied().collect()
    }

    /// What a state becomes by an action, or what is wrong on the way.
    pub(crate) fn after(&mut self, before: &Draft, action: Action) -> Result<(State, Draft), String> {
        let mut draft = before.clone();
        self.act(&mut draft, action)?;
        Ok((self.seal(&draft), draft))
    }

    fn processes(&self, draft: &Draft) -> Processes {
        let mut processes = [0; DISKS_MAX];
        for (at, member) in draft.members.iter().enumerate() {
            let facts = self.facts(*member);
            processes[at] = if facts.up { facts.incarnation } else { 0 };
        }
        processes
    }

    /// What goes on by itself.
    pub(crate) fn progress(&self, draft: &Draft) -> Vec<Action> {
        let processes = self.processes(draft);
        let mut actions = Vec::new();
        for (at, number) in draft.members.iter().enumerate() {
            let mut add = |input| actions.push(Action::Member(at, input));
            let (member, facts) = (self.member(*number), self.facts(*number));
            if !facts.up {
                add(Input::Start);
                continue;
            }
            for job in firsts(&member.jobs) {
                add(Input::Job { at: small(job), refused: false });
            }
            for (task, what) in member.tasks.iter().enumerate() {
                if matches!(what, Task::Fill(..)) || draft.common.left.retries > 0 {
                    add(Input::Task { at: small(task) });
                }
            }
            for call in &member.calls {
                let to = self.names.calls.get(*call);
                if processes[usize::from(to.to)] != to.incarnations.1 {
                    add(Input::Fail { call: *call, given_up: false });
                }
            }
            for table in &draft.common.master.tables {
                if table.version > member.adopted && (facts.in_group || names(table, at)) {
                    // The view's number is known when it is looked up.
                    add(Input::Table { view: 0, version: table.version });
                }
            }
        }
        let deliver = |message: &u32| {
            let to = self.names.messages.get(*message).to.into();
            let up = processes[to] > 0;
            up.then_some(Action::Member(to, Input::Deliver(*message)))
        };
        let mut last = None;
        let mut net = draft.net.clone();
        net.retain(|message| last.replace(*message) != Some(*message));
        actions.extend(net.iter().filter_map(deliver));
        for (at, read) in draft.common.reads.iter().enumerate() {
            let member = self.facts(draft.members[usize::from(read.member)]);
            let confirms = |other: &usize| {
                let replica = self.member(draft.members[*other]).replica.as_ref();
                let asked = member.others & bit(*other) != 0 && read.confirmed & bit(*other) == 0;
                asked && replica.is_some_and(|replica| replica.confirm(read.epoch).is_ok())
            };
            let others = 0..draft.members.len();
            actions.extend(others.filter(confirms).map(|by| Action::Confirm { read: at, by }));
            actions.push(Action::EndRead(at));
        }
        actions
    }

    /// A table that somebody may still get names this disk.
    fn is_named(&self, draft: &Draft, at: usize) -> bool {
        draft.common.master.tables.iter().any(|table| names(table, at))
    }

    /// What clients, the master and fate may add.
    pub(crate) fn choices(&self, draft: &Draft) -> Vec<Action> {
        let (left, mut actions) = (&draft.common.left, Vec::new());
        for (at, number) in draft.members.iter().enumerate() {
            let mut add = |input| actions.push(Action::Member(at, input));
            let (member, facts) = (self.member(*number), self.facts(*number));
            if !facts.up {
                continue;
            }
            if facts.is_primary {
                let sendable = (0..left.sends.len()).filter(|write| left.sends[*write] > 0);
                sendable.for_each(|write| add(Input::Write(small(write))));
            }
            if left.losses > 0 {
                member.calls.iter().for_each(|call| add(Input::Fail { call: *call, given_up: true }));
            }
            if left.crashes > 0 {
                survivors(&member.jobs).for_each(|survivors| add(Input::Crash { survivors }));
            }
            if left.disk_faults > 0 {
                for job in firsts(&member.jobs).filter(|job| !matches!(member.jobs[*job], Job::Promise(_))) {
                    add(Input::Job { at: small(job), refused: true });
                }
            }
            if left.reads > 0 && facts.permit.is_some() {
                (0..self.setup.keys()).for_each(|key| actions.push(Action::BeginRead(at, key)));
            }
        }
        if left.doubles > 0 {
            let twice = |message: &&u32| {
                let Message { call, body, .. } = self.names.messages.get(**message);
                call.is_some() && !matches!(body, Body::Install { .. } | Body::Answer(_))
            };
            actions.extend(draft.net.iter().filter(twice).map(|message| Action::Double(*message)));
        }
        let up = |at: usize| self.facts(draft.members[at]).up;
        actions.extend(draft.common.master.due(&self.setup, up).map(Action::Change));
        actions
    }

    fn act(&mut self, draft: &mut Draft, action: Action) -> Result<(), String> {
        match action {
            Action::Member(at, input) => {
                self.pay(draft, at, input);
                self.input(draft, at, input)?;
            }
            Action::Double(message) => {
                draft.edit().left.doubles -= 1;
                let copy = Message { call: None, ..self.names.messages.get(message).clone() };
                draft.net.push(self.names.messages.number(copy));
            }
            Action::Change(at) => draft.edit().master.change(&self.setup, at),
            Action::BeginRead(at, chunk) => {
                let read = self.begin_read(draft, at, chunk);
                let common = draft.edit();
                common.left.reads -= 1;
                common.reads.push(read);
            }
            Action::Confirm { read, by } => draft.edit().reads[read].confirmed |= bit(by),
            Action::EndRead(read) => {
                let read = draft.edit().reads.remove(read);
                self.end_read(draft, read)?;
            }
        }
        self.tidy(draft);
        self.observe(draft)
    }

    /// Takes what an input uses up.
    fn pay(&self, draft: &mut Draft, at: usize, input: Input) {
        match input {
            Input::Crash { .. } => draft.edit().left.crashes -= 1,
            Input::Fail { given_up: true, .. } => draft.edit().left.losses -= 1,
            Input::Job { refused: true, .. } => draft.edit().left.disk_faults -= 1,
            Input::Write(write) => draft.edit().left.sends[usize::from(write)] -= 1,
            Input::Task { at: task } => {
                let task = self.member(draft.members[at]).tasks[usize::from(task)];
                if !matches!(task, Task::Fill(..)) {
                    draft.edit().left.retries -= 1;
                }
            }
            Input::Deliver(message) => {
                let at = draft.net.iter().position(|under_way| *under_way == message);
                draft.net.remove(at.expect("it is under way"));
            }
            Input::Start | Input::Fail { .. } | Input::Job { .. } | Input::Table { .. } | Input::Read(_) => {}
        }
    }

    fn begin_read(&self, draft: &Draft, at: usize, chunk: u32) -> Read {
        let (member, facts) = (self.member(draft.members[at]), self.facts(draft.members[at]));
        Read {
            member: small(at),
            incarnation: member.incarnation,
            epoch: facts.epoch,
            key: key(chunk),
            rec: member.disk.chunks.get(&key(chunk)).cloned().unwrap_or_default(),
            permit: facts.permit.expect("it may be read"),
            confirmed: 0,
            acknowledged: draft.common.acknowledged,
            shown: draft.common.shown[chunk as usize].clone(),
        }
    }

    /// The disk was read: the lease is looked at, then whether it may be shown.
    fn end_read(&mut self, draft: &mut Draft, read: Read) -> Result<(), String> {
        let at = usize::from(read.member);
        let facts = self.facts(draft.members[at]);
        if !facts.up || facts.incarnation != read.incarnation {
            return Ok(());
        }
        let confirmed = facts.knows_others && facts.others & !read.confirmed == 0;
        let leased = draft.common.master.is_leased(at) || self.setup.has(Bug::NoLease);
        if leased || confirmed {
            let who = self.names.who.number(Who::Read(read));
            self.input(draft, at, Input::Read(who))?;
        }
        Ok(())
    }

    /// Something happens to a member.
    fn input(&mut self, draft: &mut Draft, at: usize, input: Input) -> Result<(), String> {
        let input = match input {
            Input::Table { version, .. } => {
                let mut tables = draft.common.master.tables.iter();
                let table = tables.find(|table| table.version == version).expect("it is kept");
                Input::Table { view: self.views.number(table.view(&self.setup)), version }
            }
            other => other,
        };
        let processes = self.processes(draft);
        let outcome = self.outcome(draft.members[at], processes, input);
        if let Some(broken) = &outcome.broken {
            return Err(broken.clone());
        }
        draft.members[at] = outcome.member;
        match input {
            Input::Start => {
                let mut member = self.members.get(outcome.member).clone();
                let master = &mut draft.edit().master;
                master.registered(at, member.incarnation);
                // It asks for the newest table there is.
                member.adopted = master.newest().version - 1;
                draft.members[at] = self.number(member);
            }
            Input::Crash { .. } => draft.edit().master.died(at),
            Input::Table { version, .. } => draft.edit().master.told(at, version),
            _ => {}
        }
        for output in &outcome.outputs {
            match output {
                Output::Send(message) => draft.net.push(*message),
                Output::Acknowledged { write, epoch } => self.acknowledged(draft, at, *write, *epoch)?,
                Output::Level { disk, epoch } => draft.edit().master.heard_level(*disk, *epoch),
                Output::Active(epoch) => {
                    if !draft.common.master.active {
                        draft.edit().master.heard_active(*epoch);
                    }
                }
                Output::Shown(who) => {
                    let Who::Read(read) = self.names.who.get(*who).clone() else { continue };
                    self.shown(draft, &read)?;
                }
            }
        }
        Ok(())
    }

    fn outcome(&mut self, number: u32, processes: Processes, input: Input) -> Rc<Outcome> {
        if let Some(known) = self.memo.get(&(number, processes, input)) {
            return known.clone();
        }
        let view = match input {
            Input::Table { view, .. } => Some(self.views.get(view).clone()),
            _ => None,
        };
        let member = self.members.get(number).clone();
        let (setup, names) = (&self.setup, &mut self.names);
        let mut step = Step { setup, names, processes, member, outputs: Vec::new() };
        let ran = catch_unwind(AssertUnwindSafe(|| step.run(input, view)));
        let Step { member, outputs, .. } = step;
        let outcome = match ran {
            Ok(()) => {
                let after = self.number(member);
                let broken = self.look_up(number, input, after);
                Outcome { member: after, outputs, broken }
            }
            Err(panic) => {
                let text = panic.downcast_ref::<String>().cloned();
                let text = text.or_else(|| panic.downcast_ref::<&str>().map(|text| (*text).to_owned()));
                let broken = Some(format!("assertion: {}", text.unwrap_or_default()));
                Outcome { member: number, outputs: Vec::new(), broken }
            }
        };
        let outcome = Rc::new(outcome);
        self.memo.insert((number, processes, input), outcome.clone());
        outcome
    }

    /// Takes away what cannot have an effect any more.
    fn tidy(&mut self, draft: &mut Draft) {
        let processes = self.processes(draft);
        let outlive = self.setup.has(Bug::MessagesOutliveProcesses);
        let mut net = std::mem::take(&mut draft.net);
        net.retain_mut(|number| {
            let message = self.names.messages.get(*number);
            let to = usize::from(message.to);
            let answer = matches!(message.body, Body::Answer(_));
            if processes[to] != message.incarnation && (answer || !outlive) {
                return false;
            }
            if let Some(call) = message.call {
                let caller = self.names.calls.get(call);
                let facts = self.facts(draft.members[usize::from(caller.from)]);
                if facts.calls.binary_search(&call).is_err() {
                    // Nobody waits: an answer is nothing, a request is late.
                    if answer {
                        return false;
                    }
                    *number = self.names.messages.number(Message { call: None, ..message.clone() });
                }
            }
            let message = self.names.messages.get(*number);
            let refused = message.call.is_none()
                && !self.setup.heeds_old_messages()
                && message.body.at().is_some_and(|at| at < self.facts(draft.members[to]).promised);
            !refused
        });
        net.sort_unstable();
        draft.net = net;
        // A process that starts asks for the newest table.
        let asks = |(at, facts): &(usize, &Facts)| facts.up && (facts.in_group || self.is_named(draft, *at));
        let facts = draft.members.iter().map(|member| self.facts(*member));
        let adopted = facts.enumerate().filter(asks).map(|(_, facts)| facts.adopted).min();
        let adopted = adopted.unwrap_or(u8::MAX);
        if draft.common.master.trims(adopted) {
            draft.edit().master.trim(adopted);
        }
    }

    /// All writes are acknowledged, all changes of the group are done.
    pub(crate) fn is_finished(&self, draft: &Draft) -> bool {
        let acknowledged = draft.common.acknowledged.count_ones() as usize;
        acknowledged == self.setup.writes.len() && draft.common.master.is_done(&self.setup)
    }

    /// Something waits for a back-off, and the setup allows no more of them to end.
    pub(crate) fn is_given_up(&self, draft: &Draft) -> bool {
        let waits =
            |member: &u32| self.member(*member).tasks.iter().any(|task| !matches!(task, Task::Fill(..)));
        draft.common.left.retries == 0 && draft.members.iter().any(waits)
    }
}

fn names(table: &Table, at: usize) -> bool {
    table.group.state_of(disk(at)).is_some()
}

pub(crate) fn small(number: usize) -> u8 {
    u8::try_from(number).expect("few of everything")
}
