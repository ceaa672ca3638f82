//! `pangu verify`: reads every copy of a file's chunks from every chunkserver that has one, and compares each block with
//! its checksum and each copy with the others.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::Path;
use std::time::{Duration, Instant};

use chunkserver_api::{ChunkClient, ChunkError, Read};
use coord_types::{ChunkKey, DataId, Epoch, GroupId, Layout, WRITE_SIZE_MAX};
use kuafu::{Address, CallOptions, Client, ClientConfig};
use master_api::proto::{MemberState, Place, WhereGroup, WhereReply};
use serde_json::json;

use super::{Session, Verdict, r#where};
use fs_control::text::size;

/// One read of one copy.
const READ_TIMEOUT: Duration = Duration::from_secs(10);
/// A copy that cannot be read just now (a write is under way, its server is starting) is asked again this often, for the
/// time that `--timeout` gives.
const AGAIN: Duration = Duration::from_millis(20);

#[derive(Debug, Default)]
struct Report {
    chunks: u64,
    copies: u64,
    bytes: u64,
    /// What is wrong with copies.
    problems: Vec<String>,
    /// Copies nothing can be said of.
    unread: Vec<String>,
}

/// Why a copy gave no data.
enum Failure {
    Damaged(String),
    Away(String),
}

pub(super) async fn run(session: &Session, shown: &Path, path: Vec<u8>) -> anyhow::Result<(String, Verdict)> {
    let reply = r#where::ask(session, shown, path).await?;
    let report = check(&reply, session.access.transport(), session.timeout).await?;
    let verdict = match (report.problems.is_empty(), report.unread.is_empty()) {
        (false, _) => Verdict::Damaged,
        (true, false) => Verdict::Unknown,
        (true, true) => Verdict::Well,
    };
    let text = if session.json {
        let value = json!({
            "chunks": report.chunks,
            "copies": report.copies,
            "bytes": report.bytes,
            "problems": report.problems,
            "unread": report.unread,
        });
        format!("{value:#}\n")
    } else {
        text(shown, &report)
    };
    Ok((text, verdict))
}

fn text(shown: &Path, report: &Report) -> String {
    let mut out = format!(
        "{}: {} chunk(s), {} copies, {} read: ",
        shown.display(),
        report.chunks,
        report.copies,
        size(report.bytes)
    );
    if report.problems.is_empty() && report.unread.is_empty() {
        out.push_str("every block matches its checksum, all copies are equal\n");
        return out;
    }
    let (problems, unread) = (report.problems.len(), report.unread.len());
    writeln!(out, "{problems} problem(s), {unread} copies could not be read").expect("a String grows");
    for line in report.problems.iter().chain(&report.unread) {
        writeln!(out, "  {line}").expect("a String grows");
    }
    out
}

async fn check(reply: &WhereReply, transport: ClientConfig, patience: Duration) -> anyhow::Result<Report> {
    let mut report = Report::default();
    let Some((attr, layout)) = reply.attr.as_ref().and_then(|attr| Some((attr, attr.layout.as_ref()?)))
    else {
        anyhow::bail!("it has no data of its own: it is no regular file");
    };
    let groups = layout.groups.iter().map(|id| GroupId(*id)).collect();
    let layout = Layout::new(layout.chunk_size_bytes, groups)?;
    let mut servers = Servers { clients: BTreeMap::new(), transport, patience };
    for index in 0..fs_control::show::chunks(reply) {
        let at = index * u64::from(layout.chunk_size_bytes());
        let key = layout.chunk_at(DataId(attr.data), at);
        let len = (attr.size_bytes - at).min(layout.chunk_size_bytes().into());
        let Some(group) = reply.groups.iter().find(|group| group.group == key.group.0) else {
            report.problems.push(format!("chunk {index}: its group {} is unknown", key.group));
            continue;
        };
        report.chunks += 1;
        chunk(&mut servers, &mut report, group, key, u32::try_from(len)?).await;
    }
    Ok(report)
}

/// Reads all copies of one chunk, piece by piece, so that memory is bounded whatever the chunk's size.
async fn chunk(servers: &mut Servers, report: &mut Report, group: &WhereGroup, key: ChunkKey, len: u32) {
    let name =
        |place: &Place| format!("chunk {} on disk {} of {}", key.chunk.index, place.disk, place.address);
    let serving: Vec<&Place> =
        group.places.iter().filter(|place| place.state() == MemberState::Serving).collect();
    report.copies += serving.len() as u64;
    let piece = WRITE_SIZE_MAX as u32;
    let mut broken = vec![false; serving.len()];
    for offset_bytes in (0..len).step_by(WRITE_SIZE_MAX) {
        let read =
            Read { key, epoch: Epoch(group.epoch), offset_bytes, len_bytes: piece.min(len - offset_bytes) };
        let mut first: Option<(&Place, u32)> = None;
        for (place, broken) in serving.iter().zip(&mut broken) {
            if *broken {
                continue;
            }
            match servers.read(place, &read).await {
                Ok((crc, bytes)) => {
                    report.bytes += bytes;
                    match first {
                        None => first = Some((place, crc)),
                        Some((other, found)) if found != crc => {
                            *broken = true;
                            report.problems.push(format!("{} differs from disk {}", name(place), other.disk));
                        }
                        Some(_) => {}
                    }
                }
                Err(failure) => {
                    *broken = true;
                    let (list, why) = match failure {
                        Failure::Damaged(why) => (&mut report.problems, why),
                        Failure::Away(why) => (&mut report.unread, why),
                    };
                    list.push(format!("{}: {why}", name(place)));
                }
            }
        }
    }
}

/// Connections, by address.
struct Servers {
    clients: BTreeMap<String, ChunkClient>,
    transport: ClientConfig,
    patience: Duration,
}

impl Servers {
    /// The checksum of what the file shows there, and how many bytes were read for it.
    async fn read(&mut self, place: &Place, read: &Read) -> Result<(u32, u64), Failure> {
        let client = self.client(&place.address).map_err(Failure::Away)?;
        let deadline = Instant::now() + self.patience;
        let data = loop {
            let error = match client.read(read, &CallOptions::within(READ_TIMEOUT)).await {
                Ok(data) => break data,
                Err(error) => error,
            };
            match error {
                ChunkError::Damaged { message } => return Err(Failure::Damaged(message)),
                error if error.retryable() && Instant::now() < deadline => tokio::time::sleep(AGAIN).await,
                error => return Err(Failure::Away(error.to_string())),
            }
        };
        let len = read.len_bytes as usize;
        if data.hole {
            return Ok((crc_of_zeros(len), 0));
        }
        if let Some(offset) = data.verify() {
            return Err(Failure::Damaged(format!("the block at {offset} does not match its checksum")));
        }
        let skip = (read.offset_bytes - data.data_offset_bytes) as usize;
        let short = || Failure::Damaged("the answer is too short".to_owned());
        let shown = data.data.get(skip..skip + len).ok_or_else(short)?;
        Ok((crc32c::crc32c(shown), data.data.len() as u64))
    }

    fn client(&mut self, address: &str) -> Result<ChunkClient, String> {
        if let Some(client) = self.clients.get(address) {
            return Ok(client.clone());
        }
        let parsed: Address = address.parse().map_err(|error| format!("its address is wrong: {error}"))?;
        let client = ChunkClient::new(Client::new(parsed, self.transport.clone()));
        self.clients.insert(address.to_owned(), client.clone());
        Ok(client)
    }
}

fn crc_of_zeros(len: usize) -> u32 {
    crc32c::crc32c(&vec![0; len])
}
