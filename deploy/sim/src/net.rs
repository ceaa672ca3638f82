//! The network: messages are late, lost, doubled and overtake each other; ends are cut off, also in one direction only. A connection
//! does not outlive either process: nothing reaches a process that began after the message was sent.

use std::collections::BTreeMap;

use crate::clock::{MS, Micros};
use crate::message::{About, Answer, End, Failure, Request};
use crate::world::{Event, World};

/// A message that waits for a cut network tries again so often.
const RESENDS: u32 = 40;
const RESEND: Micros = 100 * MS;

#[derive(Clone, Debug)]
pub(crate) enum Packet {
    Request { call: u64, from: End, request: Request },
    Answer { call: u64, answer: Answer },
}

impl Packet {
    const fn call(&self) -> u64 {
        match self {
            Self::Request { call, .. } | Self::Answer { call, .. } => *call,
        }
    }

    /// Whether it may arrive twice. (What a member puts together from pieces, the chunk of Install, never does.)
    const fn may_double(&self) -> bool {
        !matches!(self, Self::Request { request: Request::Install { .. }, .. })
    }
}

/// A call whose sender waits.
#[derive(Debug)]
pub(crate) struct Call {
    pub(crate) from: End,
    pub(crate) life: u64,
    pub(crate) to: End,
    pub(crate) about: About,
}

/// Directions that are cut, and how many faults cut each.
#[derive(Debug, Default)]
pub(crate) struct Net {
    cut: BTreeMap<(End, End), u32>,
    /// In a thousand, on top of the run's own, while there is a burst.
    pub(crate) burst: u64,
}

impl Net {
    pub(crate) fn open(&self, from: End, to: End) -> bool {
        !self.cut.contains_key(&(from, to))
    }

    pub(crate) fn cut(&mut self, from: End, to: End) {
        *self.cut.entry((from, to)).or_default() += 1;
    }

    pub(crate) fn mend(&mut self, from: End, to: End) {
        if let Some(cuts) = self.cut.get_mut(&(from, to)) {
            *cuts -= 1;
            if *cuts == 0 {
                self.cut.remove(&(from, to));
            }
        }
    }

    pub(crate) fn mend_all(&mut self) {
        self.cut.clear();
        self.burst = 0;
    }
}

impl World {
    fn delay(&mut self) -> Micros {
        let late = self.faults.late;
        if self.chance(late) {
            self.count("late messages");
            return self.dice.between(50 * MS, 1500 * MS);
        }
        if self.dice.chance(40) { self.dice.between(2 * MS, 30 * MS) } else { self.dice.between(80, MS) }
    }

    pub(crate) fn transmit(&mut self, from: End, to: End, packet: Packet) {
        let life = self.life(to);
        let delay = self.delay();
        if !self.net.open(from, to) {
            self.count("messages into a cut network");
            if self.dice.chance(300) {
                let packet = Box::new(packet);
                self.at(self.now + RESEND, Event::Resend { from, to, life, packet, left: RESENDS });
            }
            return;
        }
        if !self.is_up(to) {
            // Refused, if the refusal comes back.
            if self.net.open(to, from) && matches!(packet, Packet::Request { .. }) {
                let call = packet.call();
                self.at(self.now + delay, Event::CallOver { call, failure: Failure::Unavailable });
            }
            return;
        }
        let (loss, double) = (self.faults.loss + self.net.burst, self.faults.double);
        if self.chance(loss) {
            self.count("lost messages");
            return self.lose(to, life, packet, delay);
        }
        if packet.may_double() && self.chance(double) {
            self.count("doubled messages");
            let later = delay + self.dice.between(MS, 400 * MS);
            let packet = Box::new(packet.clone());
            self.at(self.now + later, Event::Deliver { to, life, packet });
        }
        self.at(self.now + delay, Event::Deliver { to, life, packet: Box::new(packet) });
    }

    /// The connection breaks: the caller is told or not, the message is gone, or comes all the same.
    fn lose(&mut self, to: End, life: u64, packet: Packet, delay: Micros) {
        if self.dice.chance(700) {
            let call = packet.call();
            self.at(self.now + delay, Event::CallOver { call, failure: Failure::Unavailable });
        }
        if self.dice.chance(400) {
            let later = self.dice.between(10 * MS, 800 * MS);
            self.at(self.now + later, Event::Deliver { to, life, packet: Box::new(packet) });
        }
    }

    pub(crate) fn resend(&mut self, (from, to): (End, End), life: u64, packet: Box<Packet>, left: u32) {
        if self.net.open(from, to) {
            self.at(self.now + MS, Event::Deliver { to, life, packet });
        } else if left > 0 {
            self.at(self.now + RESEND, Event::Resend { from, to, life, packet, left: left - 1 });
        }
    }

    pub(crate) fn deliver(&mut self, to: End, life: u64, packet: Box<Packet>) {
        if !self.is_up(to) || self.life(to) != life {
            return;
        }
        if let End::Server(server) = to
            && let Some(until) = self.frozen(server)
        {
            let jitter = self.dice.between(0, 2 * MS);
            self.at(until + jitter, Event::Deliver { to, life, packet });
            return;
        }
        self.arrived(to, *packet);
    }

    /// A process died: its connections break, and who waits for it hears of it, if the network lets him.
    pub(crate) fn connections_break(&mut self, end: End) {
        let broken: Vec<_> =
            self.calls.iter().filter(|(_, call)| call.to == end).map(|(id, call)| (*id, call.from)).collect();
        self.calls.retain(|_, call| call.from != end);
        for (call, from) in broken {
            if self.net.open(end, from) {
                let delay = self.dice.between(100, 3 * MS);
                self.at(self.now + delay, Event::CallOver { call, failure: Failure::Unavailable });
            }
        }
    }
}
