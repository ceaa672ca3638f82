//! Events of directories on the wire.

use std::collections::BTreeMap;

use coord_types::InodeId;

use super::Invalid;
use crate::{DirectoryEvent, Errno, EventKind, EventPlace, Name, Position, Watch, Watched, proto};

impl From<EventKind> for proto::EventKind {
    fn from(kind: EventKind) -> Self {
        match kind {
            EventKind::Created => Self::Created,
            EventKind::Removed => Self::Removed,
            EventKind::MovedFrom => Self::MovedFrom,
            EventKind::MovedTo => Self::MovedTo,
            EventKind::Written => Self::Written,
            EventKind::Attributes => Self::Attributes,
            EventKind::Gone => Self::Gone,
        }
    }
}

fn kind(number: i32) -> Result<EventKind, Invalid> {
    Ok(match proto::EventKind::try_from(number) {
        Ok(proto::EventKind::Created) => EventKind::Created,
        Ok(proto::EventKind::Removed) => EventKind::Removed,
        Ok(proto::EventKind::MovedFrom) => EventKind::MovedFrom,
        Ok(proto::EventKind::MovedTo) => EventKind::MovedTo,
        Ok(proto::EventKind::Written) => EventKind::Written,
        Ok(proto::EventKind::Attributes) => EventKind::Attributes,
        Ok(proto::EventKind::Gone) => EventKind::Gone,
        Ok(proto::EventKind::Unspecified) | Err(_) => return Err(Invalid::EventKind(number)),
    })
}

impl From<EventPlace> for proto::EventPlace {
    fn from(place: EventPlace) -> Self {
        let Position { index, number } = place.position;
        Self { epoch: place.epoch, index, number }
    }
}

impl From<proto::EventPlace> for EventPlace {
    fn from(place: proto::EventPlace) -> Self {
        let position = Position { index: place.index, number: place.number };
        Self { epoch: place.epoch, position }
    }
}

impl From<DirectoryEvent> for proto::DirectoryEvent {
    fn from(event: DirectoryEvent) -> Self {
        Self {
            index: event.position.index,
            number: event.position.number,
            directory: event.directory.0,
            kind: proto::EventKind::from(event.kind).into(),
            ino: event.ino.0,
            name: event.name.map(Name::into_bytes).unwrap_or_default(),
        }
    }
}

impl TryFrom<proto::DirectoryEvent> for DirectoryEvent {
    type Error = Invalid;

    fn try_from(event: proto::DirectoryEvent) -> Result<Self, Invalid> {
        let name = match event.name.is_empty() {
            true => None,
            false => {
                let named = Name::new(event.name);
                Some(named.map_err(|source| Invalid::Name { field: "the name of an event", source })?)
            }
        };
        Ok(Self {
            position: Position { index: event.index, number: event.number },
            directory: InodeId(event.directory),
            kind: kind(event.kind)?,
            ino: InodeId(event.ino),
            name,
        })
    }
}

impl Watch {
    /// The message, under a session.
    #[must_use]
    pub fn request(&self, session: coord_types::SessionId) -> proto::WatchRequest {
        let numbers = |inos: &[InodeId]| inos.iter().map(|ino| ino.0).collect();
        proto::WatchRequest {
            session: session.0,
            watcher: self.watcher,
            sequence: self.sequence,
            acknowledged: self.acknowledged,
            add: numbers(&self.add),
            remove: numbers(&self.remove),
            after: self.after.map(Into::into),
            wait_ms: u32::try_from(self.wait.as_millis()).unwrap_or(u32::MAX),
        }
    }
}

/// A watcher's answer.
///
/// # Errors
/// It means nothing.
pub fn watched(reply: proto::WatchReply) -> Result<Watched, Invalid> {
    if reply.unknown {
        return Ok(Watched::Unknown);
    }
    let next = reply.next.ok_or(Invalid::Missing { message: "a watcher's answer", field: "next place" })?;
    let mut refused = BTreeMap::new();
    for one in reply.refused {
        let errno = Errno::from_number(one.errno).ok_or(Invalid::Errno(one.errno))?;
        refused.insert(InodeId(one.directory), errno);
    }
    let events = reply.events.into_iter().map(DirectoryEvent::try_from).collect::<Result<_, _>>()?;
    Ok(Watched::Told { lost: reply.lost, next: next.into(), events, refused })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn events_survive_the_wire_and_nonsense_is_refused() {
        use EventKind::{Attributes, Created, Gone, MovedFrom, MovedTo, Removed, Written};
        for (kind, name) in [
            (Created, Some("a")),
            (Removed, Some("b")),
            (MovedFrom, Some("c")),
            (MovedTo, Some("d")),
            (Written, None),
            (Attributes, None),
            (Gone, None),
        ] {
            let event = DirectoryEvent {
                position: Position { index: 7, number: 2 },
                directory: InodeId(3),
                kind,
                ino: InodeId(4),
                name: name.map(|name| Name::try_from(name.as_bytes()).unwrap()),
            };
            let wire = proto::DirectoryEvent::from(event.clone());
            assert_eq!(DirectoryEvent::try_from(wire.clone()), Ok(event));
            let unknown = proto::DirectoryEvent { kind: 99, ..wire.clone() };
            assert_eq!(DirectoryEvent::try_from(unknown), Err(Invalid::EventKind(99)));
            let slash = proto::DirectoryEvent { name: "a/b".into(), ..wire };
            assert!(DirectoryEvent::try_from(slash).is_err());
        }
    }

    #[test]
    fn an_answer_without_a_place_means_nothing() {
        let known = proto::WatchReply::default();
        assert!(watched(known.clone()).is_err());
        assert_eq!(watched(proto::WatchReply { unknown: true, ..known.clone() }), Ok(Watched::Unknown));
        let next = Some(proto::EventPlace { epoch: 1, index: 2, number: 3 });
        let refused = vec![proto::WatchRefused { directory: 5, errno: 13 }];
        let told = watched(proto::WatchReply { next, refused, ..known.clone() }).unwrap();
        let Watched::Told { next, refused, .. } = told else { panic!("{told:?}") };
        assert_eq!(next, EventPlace { epoch: 1, position: Position { index: 2, number: 3 } });
        assert_eq!(refused, [(InodeId(5), Errno::EACCES)].into());
        let next = Some(proto::EventPlace::default());
        let refused = vec![proto::WatchRefused { directory: 5, errno: 0 }];
        assert_eq!(watched(proto::WatchReply { next, refused, ..known }), Err(Invalid::Errno(0)));
    }
}
