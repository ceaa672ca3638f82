//! The tracker against masters that forget, lose answers and are not always the same.

use master_api::model::Position;
use proptest::prelude::*;

use super::*;

/// What a master knows of the watcher.
#[derive(Clone, Debug, Default)]
struct Master {
    /// The number of its last request, and what it watches.
    known: Option<(u64, BTreeSet<InodeId>)>,
}

/// The log: the n-th event, from 1, happened in this directory.
type Log = Vec<InodeId>;

fn place(index: u64) -> EventPlace {
    EventPlace { epoch: 0, position: Position::end_of(index) }
}

fn event(index: u64, directory: InodeId, kind: EventKind) -> DirectoryEvent {
    let position = Position { index, number: 0 };
    DirectoryEvent { position, directory, kind, ino: InodeId(99), name: None }
}

impl Master {
    /// The rules of `master/docs/events.md`. Events before `floor` are not known any more.
    fn answer(&mut self, request: &Watch, log: &Log, floor: u64) -> Option<Watched> {
        let known = self.known.take();
        if known.as_ref().is_some_and(|(sequence, _)| *sequence > request.sequence) {
            self.known = known;
            return None;
        }
        let mut watched = match known {
            _ if request.acknowledged == 0 => BTreeSet::new(),
            Some((sequence, watched)) if sequence >= request.acknowledged => watched,
            known => {
                self.known = known;
                return Some(Watched::Unknown);
            }
        };
        watched.retain(|directory| !request.remove.contains(directory));
        watched.extend(&request.add);
        let end = log.len() as u64;
        let after = request.after.map_or(end, |after| after.position.index);
        let lost = after < floor;
        let events = (1..)
            .zip(log)
            .filter(|(index, directory)| *index > after && !lost && watched.contains(*directory));
        let events = events.map(|(index, directory)| event(index, *directory, EventKind::Created)).collect();
        self.known = Some((request.sequence, watched));
        Some(Watched::Told { lost, next: place(end), events, refused: BTreeMap::new() })
    }
}

#[derive(Clone, Debug)]
enum Step {
    Add(u64),
    Remove(u64),
    /// Something happens in a directory.
    Happens(u64),
    /// A request to a master; whether its answer arrives.
    Ask {
        master: usize,
        answered: bool,
    },
    /// The answer to the same request arrives only now, at the master: it was on its way for long.
    Late {
        master: usize,
    },
    /// A master starts anew, or forgets an idle watcher.
    Forgets(usize),
    /// The ring begins here.
    Overrun,
}

fn steps() -> impl Strategy<Value = Step> {
    prop_oneof![
        3 => (0..5_u64).prop_map(Step::Add),
        1 => (0..5_u64).prop_map(Step::Remove),
        4 => (0..5_u64).prop_map(Step::Happens),
        5 => (0..2_usize, any::<bool>()).prop_map(|(master, answered)| Step::Ask { master, answered }),
        1 => (0..2_usize).prop_map(|master| Step::Late { master }),
        1 => (0..2_usize).prop_map(Step::Forgets),
        1 => Just(Step::Overrun),
    ]
}

/// The last event of each watched directory that nobody was told of.
type Owed = BTreeMap<InodeId, u64>;

fn listen(tracker: &mut Tracker, owed: &mut Owed) {
    while let Some(notice) = tracker.notice() {
        match notice {
            Notice::Lost => owed.clear(),
            Notice::Changed(changed) => {
                owed.retain(|directory, index| {
                    changed
                        .get(directory)
                        .and_then(|events| events.last())
                        .is_none_or(|event| event.position.index < *index)
                });
            }
            Notice::Refused(refused) => panic!("{refused:?}"),
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]
    #[test]
    fn nothing_is_missed(steps in prop::collection::vec(steps(), 0..60)) {
        let mut masters = [Master::default(), Master::default()];
        let (mut log, mut floor, mut owed) = (Log::new(), 0, Owed::new());
        let mut tracker = Tracker::new(1);
        let first = tracker.request(Duration::ZERO);
        let answer = masters[0].answer(&first, &log, floor).unwrap();
        tracker.answered(&first, answer);
        let mut on_their_way = Vec::new();
        for step in steps {
            match step {
                Step::Add(directory) => tracker.add(InodeId(directory)),
                Step::Remove(directory) => {
                    tracker.remove(InodeId(directory));
                    owed.remove(&InodeId(directory));
                }
                Step::Happens(directory) => {
                    let directory = InodeId(directory);
                    log.push(directory);
                    if tracker.watched.contains(&directory) {
                        owed.insert(directory, log.len() as u64);
                    }
                }
                Step::Ask { master, answered } => {
                    let request = tracker.request(Duration::ZERO);
                    let answer = masters[master].answer(&request, &log, floor);
                    on_their_way.push(request.clone());
                    match answer {
                        Some(answer) if answered => tracker.answered(&request, answer),
                        _ => {}
                    }
                    listen(&mut tracker, &mut owed);
                }
                Step::Late { master } => {
                    if let Some(request) = on_their_way.pop() {
                        masters[master].answer(&request, &log, floor);
                    }
                }
                Step::Forgets(master) => masters[master] = Master::default(),
                Step::Overrun => floor = log.len() as u64,
            }
        }
        // Not known, told all, and told what happened since.
        for _ in 0..3 {
            let request = tracker.request(Duration::ZERO);
            let answer = masters[0].answer(&request, &log, floor);
            tracker.answered(&request, answer.expect("nothing overtakes the last request"));
            listen(&mut tracker, &mut owed);
        }
        prop_assert_eq!(owed, Owed::new());
        let watched = masters[0].known.clone().unwrap().1;
        prop_assert_eq!(watched, tracker.watched);
    }
}

#[test]
fn many_directories_are_told_in_pieces_and_nothing_is_missed_meanwhile() {
    let (mut master, mut log, mut owed) = (Master::default(), Log::new(), Owed::new());
    let mut tracker = Tracker::new(1);
    let first = tracker.request(WAIT);
    let answer = master.answer(&first, &log, 0).unwrap();
    tracker.answered(&first, answer);
    let many = 2 * WATCH_CHANGES_MAX as u64 + 1;
    (0..many).for_each(|directory| tracker.add(InodeId(directory)));
    log.push(InodeId(many - 1));
    owed.insert(InodeId(many - 1), 1);
    for left in [2, 1, 0] {
        log.push(InodeId(0));
        owed.insert(InodeId(0), log.len() as u64);
        let request = tracker.request(WAIT);
        assert_eq!(request.wait.is_zero(), left > 0, "only with all of them there is something to wait for");
        assert!(request.add.len() <= WATCH_CHANGES_MAX);
        let answer = master.answer(&request, &log, 0).unwrap();
        tracker.answered(&request, answer);
        listen(&mut tracker, &mut owed);
        assert_eq!(owed.is_empty(), left == 0);
    }
    // Told all of it again after a change of masters, from the same place on.
    let place = tracker.place;
    let request = tracker.request(WAIT);
    tracker.answered(&request, Watched::Unknown);
    assert_eq!(tracker.request(WAIT).acknowledged, 0);
    assert_eq!((tracker.pending.len() as u64, tracker.place), (many, place));
}

const WAIT: Duration = Duration::from_secs(1);

#[test]
fn what_is_refused_or_gone_is_watched_no_longer() {
    let mut tracker = Tracker::new(1);
    for directory in 1..=3 {
        tracker.add(InodeId(directory));
    }
    let request = tracker.request(WAIT);
    let events = vec![
        event(1, InodeId(2), EventKind::Removed),
        event(2, InodeId(2), EventKind::Gone),
        event(3, InodeId(3), EventKind::Created),
        event(4, InodeId(9), EventKind::Created),
    ];
    let refused = [(InodeId(1), master_api::Errno::EACCES), (InodeId(9), master_api::Errno::EACCES)].into();
    tracker.answered(&request, Watched::Told { lost: false, next: place(4), events, refused });
    let Some(Notice::Changed(changed)) = tracker.notice() else { panic!("something changed") };
    let kinds: Vec<_> = changed.values().flatten().map(|event| (event.directory.0, event.kind)).collect();
    assert_eq!(kinds, [(2, EventKind::Removed), (2, EventKind::Gone), (3, EventKind::Created)]);
    assert_eq!(tracker.notice(), Some(Notice::Refused([(InodeId(1), Errno::EACCES)].into())));
    assert_eq!(tracker.notice(), None);
    assert_eq!(tracker.watched, [InodeId(3)].into());
    let next = tracker.request(WAIT);
    assert_eq!((next.add, next.remove), (vec![], vec![InodeId(1), InodeId(2)]));
}
