//! The table of what an attempt's answer leads to, row by row, on members that say what the test wants.

use chunkserver_api::checksum::piece_crcs;
use chunkserver_api::{Map, Punch, RaiseFence, Read, ReadData, Write, Written};
use coord_types::{DataId, DiskId, GroupId, ServerId, SessionId, Version};
use futures::FutureExt as _;
use master_api::model::{DiskState, Member, MemberState, Scrub, Server, Vitals};
use tokio::sync::watch;

use super::*;

/// Members are asked in the order 1, 2, 3: the data's number is a multiple of three.
const KEY: ChunkKey = ChunkKey::new(GroupId(1), DataId(3), 0);
const DATA: &[u8] = &[7; BLOCK_SIZE];

/// One attempt, as a member sees it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Asked {
    server: u32,
    epoch: u64,
    stamp: Option<Stamp>,
}

/// What a member does: it never answers if `None`.
type Answer = Option<Result<(), ChunkError>>;

struct Scripted {
    table: watch::Sender<Arc<Table>>,
    script: Mutex<Box<dyn FnMut(Asked) -> Answer + Send>>,
    asked: Mutex<Vec<Asked>>,
    reported: Mutex<Vec<String>>,
}

impl Scripted {
    async fn attempt(
        &self,
        address: &str,
        epoch: Epoch,
        stamp: Option<Stamp>,
    ) -> Result<ReadData, ChunkError> {
        let server =
            (1..=3).find(|server| self::address(*server) == address).expect("an address of the table");
        let asked = Asked { server, epoch: epoch.0, stamp };
        self.asked.lock().push(asked);
        let answer = (self.script.lock())(asked);
        match answer {
            Some(answer) => answer.map(|()| ReadData {
                version: Version::NONE,
                data_offset_bytes: 0,
                data: Bytes::from_static(DATA),
                block_crcs: piece_crcs(0, DATA),
                hole: false,
            }),
            None => std::future::pending().await,
        }
    }

    async fn change(&self, address: &str, epoch: Epoch, stamp: Option<Stamp>) -> Result<Written, ChunkError> {
        self.attempt(address, epoch, stamp).await?;
        Ok(Written { version: Version::NONE, allocated_delta_bytes: 4096 })
    }
}

impl Members for Scripted {
    fn table(&self) -> Arc<Table> {
        self.table.borrow().clone()
    }

    fn newer_table(&self, known_version: u64) -> BoxFuture<'_, Arc<Table>> {
        let mut tables = self.table.subscribe();
        Box::pin(async move {
            let newer = tables.wait_for(|table| table.version > known_version).await;
            Arc::clone(&newer.expect("the sender lives as long as this"))
        })
    }

    fn report(&self, address: &str) {
        self.reported.lock().push(address.to_owned());
    }

    fn refresh(&self, _known_version: u64) -> BoxFuture<'_, ()> {
        Box::pin(tokio::task::yield_now())
    }

    fn session(&self) -> BoxFuture<'_, Option<SessionId>> {
        Box::pin(std::future::ready(Some(SessionId(9))))
    }

    fn write<'a>(
        &'a self,
        address: &'a str,
        write: &'a Write,
        _data: Bytes,
        _timeout: Duration,
    ) -> BoxFuture<'a, Result<Written, ChunkError>> {
        self.change(address, write.epoch, write.stamp).boxed()
    }

    fn punch<'a>(
        &'a self,
        address: &'a str,
        punch: &'a Punch,
        _timeout: Duration,
    ) -> BoxFuture<'a, Result<Written, ChunkError>> {
        self.change(address, punch.epoch, punch.stamp).boxed()
    }

    fn raise_fence<'a>(
        &'a self,
        address: &'a str,
        raise: &'a RaiseFence,
        _timeout: Duration,
    ) -> BoxFuture<'a, Result<(), ChunkError>> {
        async move { self.attempt(address, raise.epoch, None).await.map(|_| ()) }.boxed()
    }

    fn read<'a>(
        &'a self,
        address: &'a str,
        read: &'a Read,
        _timeout: Duration,
    ) -> BoxFuture<'a, Result<ReadData, ChunkError>> {
        self.attempt(address, read.epoch, None).boxed()
    }

    fn map<'a>(
        &'a self,
        address: &'a str,
        map: &'a Map,
        _timeout: Duration,
    ) -> BoxFuture<'a, Result<Vec<(u32, u32)>, ChunkError>> {
        async move { self.attempt(address, map.epoch, None).await.map(|_| vec![(0, 4096)]) }.boxed()
    }
}

fn address(server: u32) -> String {
    format!("tcp://10.0.0.{server}:1")
}

/// Three servers with a disk each; the first of `serving` leads the group. Version and epoch are the same number.
fn table(version: u64, serving: &[u32]) -> Arc<Table> {
    let state = DiskState {
        uuid: [0; 16],
        capacity_bytes: 1,
        used_bytes: 0,
        failed: false,
        draining: false,
        scrub: Scrub::default(),
        vitals: Vitals::default(),
    };
    let server = |id| Server {
        id: ServerId(id),
        address: address(id),
        location: String::new(),
        disks: vec![(DiskId(id), state)],
        incarnation: 1,
        silent_ms: 0,
    };
    let member = |id: &u32| Member { disk: DiskId(*id), state: MemberState::Serving };
    let members = serving.iter().map(member).collect();
    let group = Group { id: GroupId(1), epoch: Epoch(version), members };
    Arc::new(Table::new(version, (1..=3).map(server).collect(), vec![group]))
}

fn chunks(script: impl FnMut(Asked) -> Answer + Send + 'static) -> ReplicatedChunks<Scripted> {
    let members = Scripted {
        table: watch::Sender::new(table(1, &[1, 2, 3])),
        script: Mutex::new(Box::new(script)),
        asked: Mutex::default(),
        reported: Mutex::default(),
    };
    let pauses = RetryPauses { min: Duration::ZERO, max: Duration::ZERO };
    ReplicatedChunks::new(members, pauses, Arc::default())
}

/// Says these one after another, then always yes.
fn saying(errors: impl IntoIterator<Item = ChunkError>) -> impl FnMut(Asked) -> Answer {
    let mut errors = errors.into_iter().collect::<Vec<_>>().into_iter();
    move |_| Some(errors.next().map_or(Ok(()), Err))
}

async fn write(chunks: &ReplicatedChunks<Scripted>) -> Result<i64, DataError> {
    let data = Bytes::from_static(DATA);
    let block_crcs = piece_crcs(0, DATA);
    let (chunk_size_bytes, fence) = (1 << 20, Fence(3));
    chunks.write(ChunkWrite { key: KEY, offset_bytes: 0, data, block_crcs, chunk_size_bytes, fence }).await
}

async fn read(chunks: &ReplicatedChunks<Scripted>) -> Result<Option<Bytes>, DataError> {
    chunks.read(ChunkRead { key: KEY, offset_bytes: 1, len_bytes: 10 }).await
}

fn servers(chunks: &ReplicatedChunks<Scripted>) -> Vec<u32> {
    chunks.members.asked.lock().iter().map(|asked| asked.server).collect()
}

fn unavailable() -> ChunkError {
    ChunkError::Unavailable { message: "away".to_owned() }
}

fn damaged() -> ChunkError {
    ChunkError::Damaged { message: "rot".to_owned() }
}

fn refused(code: Code) -> ChunkError {
    ChunkError::Refused { code, message: "no".to_owned() }
}

#[tokio::test]
async fn a_write_goes_on_with_the_same_stamp_whatever_happens_to_it() {
    let busy = ChunkError::Busy { retry_after: Duration::ZERO };
    let stale = ChunkError::Stale { epoch: Epoch(5) };
    let errors = [stale, ChunkError::NotPrimary, busy, ChunkError::Deadline, unavailable()];
    let chunks = chunks(saying(errors));
    assert_eq!(write(&chunks).await, Ok(4096));
    let asked = chunks.members.asked.lock().clone();
    assert_eq!(asked, [asked[0]; 6]);
    assert_eq!((asked[0].server, asked[0].epoch), (1, 1), "the primary, at its epoch");
    assert_eq!(*chunks.members.reported.lock(), [address(1)], "who did not answer, once");
    assert_eq!(write(&chunks).await, Ok(4096));
    let next = chunks.members.asked.lock().last().and_then(|asked| asked.stamp);
    assert!(next > asked[0].stamp, "another write has another");
}

#[tokio::test]
async fn a_write_ends_when_there_is_no_use_in_going_on() {
    let full = ChunkError::NoSpace { message: "full".to_owned() };
    let rounds = |times: u32| times as usize;
    let cases = [
        (full, 1, DataError::NoSpace),
        (damaged(), rounds(DAMAGED_ROUNDS), DataError::Damaged),
        (refused(Code::InvalidArgument), 1, DataError::Refused),
        (refused(Code::PermissionDenied), 1, DataError::Denied),
        (ChunkError::Fenced { fence: Fence(7) }, 1, DataError::Fenced(Fence(7))),
        (refused(Code::Internal), rounds(REFUSED_MAX), DataError::Refused),
    ];
    for (error, attempts, end) in cases {
        let said = error.to_string();
        let chunks = chunks(move |_| Some(Err(error.clone())));
        assert_eq!(write(&chunks).await, Err(end), "{said}");
        assert_eq!(servers(&chunks).len(), attempts, "{said}");
        let records = chunks.errors.records();
        assert!(records.len() == 1 && records[0].what.contains(&said), "{records:?}");
    }
}

#[tokio::test]
async fn a_write_that_hangs_goes_to_the_primary_a_new_table_names() {
    let chunks = chunks(|asked| (asked.server != 1).then_some(Ok(())));
    let writing = write(&chunks);
    tokio::pin!(writing);
    assert!(writing.as_mut().now_or_never().is_none());
    chunks.members.table.send_replace(table(2, &[1, 3]));
    assert!(writing.as_mut().now_or_never().is_none(), "still the primary");
    chunks.members.table.send_replace(table(3, &[2, 3]));
    assert_eq!(writing.await, Ok(4096));
    let asked = chunks.members.asked.lock().clone();
    assert_eq!(asked.iter().map(|asked| (asked.server, asked.epoch)).collect::<Vec<_>>(), [(1, 1), (2, 3)]);
    assert_eq!(asked[0].stamp, asked[1].stamp);
}

#[tokio::test]
async fn a_read_asks_the_next_member_and_shuns_who_did_not_answer() {
    for error in [unavailable(), ChunkError::Deadline] {
        let chunks = chunks(saying([error]));
        assert_eq!(read(&chunks).await, Ok(Some(Bytes::from_static(&DATA[..10]))));
        assert_eq!(read(&chunks).await, Ok(Some(Bytes::from_static(&DATA[..10]))));
        assert_eq!(servers(&chunks), [1, 2, 2]);
        assert_eq!(*chunks.members.reported.lock(), [address(1)]);
    }
    for error in [damaged(), refused(Code::Internal), ChunkError::Stale { epoch: Epoch(5) }] {
        let chunks = chunks(saying([error]));
        assert!(read(&chunks).await.is_ok() && read(&chunks).await.is_ok());
        assert_eq!(servers(&chunks), [1, 2, 1]);
        assert!(chunks.members.reported.lock().is_empty());
    }
}

#[tokio::test]
async fn what_is_not_committed_the_primary_knows() {
    let chunks = chunks(|asked| Some(if asked.server == 3 { Ok(()) } else { Err(ChunkError::NotCommitted) }));
    chunks.members.table.send_replace(table(2, &[3, 1, 2]));
    // In the order 3, 1, 2, and the first is away.
    chunks.note(&address(3), &unavailable());
    assert!(read(&chunks).await.is_ok());
    assert_eq!(servers(&chunks), [1, 3], "it is asked before the others are");
}

#[tokio::test]
async fn a_read_ends_when_all_members_say_that_it_is_no_use() {
    let cases = [
        (damaged(), DAMAGED_ROUNDS, DataError::Damaged),
        (refused(Code::Internal), REFUSED_MAX, DataError::Refused),
    ];
    for (error, rounds, end) in cases {
        let chunks = chunks(move |_| Some(Err(error.clone())));
        assert_eq!(read(&chunks).await, Err(end));
        assert_eq!(servers(&chunks).len(), 3 * rounds as usize);
        assert_eq!(chunks.errors.records().len(), 1);
    }
}

/// The copy of who is away may be whole.
#[tokio::test]
async fn a_read_goes_on_while_one_member_may_still_have_it() {
    let mut rounds = 0;
    let chunks = chunks(move |asked| match asked.server {
        3 => {
            rounds += 1;
            Some(if rounds > 3 * DAMAGED_ROUNDS { Ok(()) } else { Err(unavailable()) })
        }
        2 => Some(Err(damaged())),
        _ => Some(Err(refused(Code::Internal))),
    });
    assert!(read(&chunks).await.is_ok());
}

#[tokio::test]
async fn a_read_that_takes_long_is_asked_of_the_next_member_too() {
    // Two of three never answer.
    let chunks = chunks(|asked| (asked.server == 3).then_some(Ok(())));
    assert!(read(&chunks).await.is_ok());
    assert_eq!(servers(&chunks), [1, 2, 3]);
    chunks.members.asked.lock().clear();
    assert!(read(&chunks).await.is_ok());
    assert_eq!(servers(&chunks), [3], "the others are asked last for a while");
    assert!(chunks.members.reported.lock().is_empty(), "slow is not dead");
}

#[tokio::test]
async fn an_error_of_the_slow_member_is_no_answer_and_none_of_the_others() {
    let chunks = chunks(|asked| match asked.server {
        1 => None,
        2 => Some(Err(damaged())),
        _ => Some(Ok(())),
    });
    assert!(read(&chunks).await.is_ok());
    assert_eq!(servers(&chunks), [1, 2, 3]);
}

#[tokio::test]
async fn who_lost_its_place_is_not_waited_for_by_a_read() {
    let chunks = chunks(|asked| (asked.server != 1).then_some(Ok(())));
    // No other is asked meanwhile: the budget is spent.
    while chunks.hedging.take() {}
    let reading = read(&chunks);
    tokio::pin!(reading);
    assert!(reading.as_mut().now_or_never().is_none());
    chunks.members.table.send_replace(table(2, &[2, 3]));
    assert!(reading.await.is_ok());
    assert_eq!(servers(&chunks), [1, 2]);
}
