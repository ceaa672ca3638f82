//! The `Replica` service: what primaries and the master call.

use std::collections::HashMap;
use std::sync::Arc;

use chunkserver_api::convert::{check_payload, check_range, crcs_from_bytes, key_from};
use chunkserver_api::pb;
use chunkserver_core::{Refusal, Replicate};
use chunkserver_engine::{ChunkContents, Piece};
use coord_types::{ChunkKey, DataId, DiskId, Epoch, GroupId, SessionId, WriterWindow};
use kuafu::{Request, Response, Status};
use parking_lot::Mutex;

use crate::disks::Disk;
use crate::group::{Body, Content, Group, LIST_PAGE};
use crate::node::Node;
use crate::service::{invalid, status};
use crate::space::offered_bytes;

/// Chunks being installed here at the same time; each may hold 64 MiB. A primary works on four, so this serves several.
const ASSEMBLIES_MAX: usize = 32;
/// Items in one Delete: what the master sends at once, and more.
const DELETE_MAX: usize = 65_536;

#[derive(Debug)]
pub(crate) struct ReplicaService(pub(crate) Arc<Node>);

/// Chunks of which some pieces have come.
#[derive(Debug, Default)]
pub(crate) struct Assemblies {
    by_chunk: Mutex<HashMap<(DiskId, ChunkKey), Assembly>>,
}

#[derive(Debug)]
struct Assembly {
    at: (Epoch, u64),
    contents: ChunkContents,
}

impl Assemblies {
    /// What came for a group belongs to an attempt that is over.
    fn forget(&self, disk: DiskId, group: GroupId) {
        self.by_chunk.lock().retain(|(on, key), _| (*on, key.group) != (disk, group));
    }

    /// Adds a piece; gives the whole chunk when it is complete.
    fn add(
        &self,
        at: (Epoch, u64),
        disk: DiskId,
        key: ChunkKey,
        request: &pb::InstallRequest,
        piece: Option<Piece>,
    ) -> Result<Option<ChunkContents>, Status> {
        let mut by_chunk = self.by_chunk.lock();
        if request.first {
            let version = request.version.ok_or_else(|| Status::invalid_argument("no version"))?.into();
            if by_chunk.len() >= ASSEMBLIES_MAX {
                return Err(Status::busy(
                    "too many chunks are being installed",
                    std::time::Duration::from_millis(50),
                ));
            }
            let windows = request
                .windows
                .iter()
                .map(|w| WriterWindow { session: SessionId(w.session), newest: w.newest, seen: w.seen })
                .collect();
            let chunk_size_bytes = request.chunk_size_bytes;
            let contents = ChunkContents { version, windows, chunk_size_bytes, pieces: Vec::new() };
            by_chunk.insert((disk, key), Assembly { at, contents });
        }
        let Some(assembly) = by_chunk.get_mut(&(disk, key)).filter(|assembly| assembly.at == at) else {
            return Err(Status::invalid_argument("a piece without the ones before it"));
        };
        if let Some(piece) = piece {
            let ascends = assembly
                .contents
                .pieces
                .last()
                .is_none_or(|last| last.end_bytes() <= piece.offset_bytes() as usize);
            if !ascends {
                by_chunk.remove(&(disk, key));
                return Err(Status::invalid_argument("pieces do not ascend"));
            }
            assembly.contents.pieces.push(piece);
        }
        if !request.last {
            return Ok(None);
        }
        Ok(by_chunk.remove(&(disk, key)).map(|assembly| assembly.contents))
    }
}

impl ReplicaService {
    fn disk(&self, id: u32) -> Result<(&Arc<Disk>, DiskId), Status> {
        let id = DiskId(id);
        let disk = self.0.disk(id).ok_or_else(|| Status::unavailable(format!("{id:?} is not here (yet)")))?;
        if disk.failed() {
            return Err(Status::unavailable(format!("{id:?} failed")));
        }
        Ok((disk, id))
    }

    /// A replica that exists; without one, this process has promised nothing.
    fn replica(&self, disk: u32, group: GroupId) -> Result<Arc<Group>, Status> {
        let (_, id) = self.disk(disk)?;
        self.0.replica(id, group).ok_or_else(|| status(Refusal::Stale { epoch: Epoch(0), activation: 0 }))
    }

    fn committed(&self, disk: DiskId, news: &[pb::ChunkVersion]) {
        for chunk in news {
            let (Ok(key), Some(version)) = (key_from(chunk.chunk.as_ref()), chunk.version) else { continue };
            if let Some(group) = self.0.replica(disk, key.group) {
                group.event(&self.0, |replica, _| replica.committed(key, version.into()));
            }
        }
    }
}

impl pb::Replica for ReplicaService {
    async fn replicate(
        &self,
        request: Request<pb::ReplicateRequest>,
    ) -> Result<Response<pb::ReplicateReply>, Status> {
        let Request { message, payload, .. } = request;
        let key = key_from(message.chunk.as_ref()).map_err(invalid)?;
        let group = self.replica(message.disk, key.group)?;
        self.committed(group.disk_id, &message.committed);
        let body = if message.punch_len_bytes > 0 {
            let len_bytes = message.punch_len_bytes;
            check_range(message.offset_bytes, len_bytes as usize, message.chunk_size_bytes)
                .map_err(invalid)?;
            Body::Punch { len_bytes }
        } else {
            check_payload(message.offset_bytes, payload.len(), &message.block_crcs, message.chunk_size_bytes)
                .map_err(invalid)?;
            Body::Data { data: payload, block_crcs: message.block_crcs }
        };
        let missing = || Status::invalid_argument("no version");
        let previous = message.previous.ok_or_else(missing)?.into();
        let version = message.version.ok_or_else(missing)?.into();
        let content =
            Content { offset_bytes: message.offset_bytes, chunk_size_bytes: message.chunk_size_bytes, body };
        let write = |token| Replicate {
            token,
            epoch: Epoch(message.epoch),
            activation: message.activation,
            key,
            previous,
            version,
            stamp: message.stamp.map(Into::into),
            content,
        };
        group.ask(&self.0, |token, replica, io| replica.replicate(write(token), io)).await.map_err(status)?;
        self.0.metrics.replicated.add(1);
        Ok(Response::new(pb::ReplicateReply { available_bytes: offered_bytes(&group.disk.engine.usage()) }))
    }

    async fn commit(&self, request: Request<pb::CommitRequest>) -> Result<Response<pb::CommitReply>, Status> {
        self.committed(DiskId(request.message.disk), &request.message.committed);
        Ok(Response::new(pb::CommitReply {}))
    }

    async fn prepare(
        &self,
        request: Request<pb::PrepareRequest>,
    ) -> Result<Response<pb::PrepareReply>, Status> {
        let message = request.message;
        let (disk, id) = self.disk(message.disk)?;
        let group_id = GroupId(message.group);
        let group = self
            .0
            .replica_or_new(disk, id, group_id)
            .map_err(|error| Status::unavailable(format!("read the promised epoch: {error}")))?;
        let at = (Epoch(message.epoch), message.activation);
        let after = match &message.after {
            Some(after) => Some(key_from(Some(after)).map_err(invalid)?),
            None => {
                self.0.assemblies.forget(id, group_id);
                None
            }
        };
        let fill = message.fill;
        group
            .ask(&self.0, |token, replica, io| replica.prepare(token, at, fill, io))
            .await
            .map_err(status)?;
        let limit = LIST_PAGE.min(message.limit as usize);
        let mut reply = pb::PrepareReply { chunks: Vec::new(), end: false, incarnation: self.0.incarnation };
        if limit > 0 {
            let chunks = group.disk.engine.list(group_id, after, limit);
            let chunks = group.outcome(&self.0, chunks).map_err(|fault| status(Refusal::Fault(fault)))?;
            reply.end = chunks.len() < limit;
            reply.chunks = chunks
                .into_iter()
                .map(|(key, version)| pb::ChunkVersion {
                    chunk: Some(key.into()),
                    version: Some(version.into()),
                })
                .collect();
        }
        Ok(Response::new(reply))
    }

    async fn install(
        &self,
        request: Request<pb::InstallRequest>,
    ) -> Result<Response<pb::InstallReply>, Status> {
        let Request { message, payload, .. } = request;
        let key = key_from(message.chunk.as_ref()).map_err(invalid)?;
        let group = self.replica(message.disk, key.group)?;
        let at = (Epoch(message.epoch), message.activation);
        group.event(&self.0, |replica, _| replica.check_preparing(at)).map_err(status)?;
        let contents = if message.remove {
            None
        } else {
            let piece = if payload.is_empty() {
                None
            } else {
                let crcs = crcs_from_bytes(&message.block_crcs).map_err(invalid)?;
                let piece = Piece::new(key, message.offset_bytes, payload, crcs);
                Some(group.outcome(&self.0, piece).map_err(|fault| status(Refusal::Fault(fault)))?)
            };
            match self.0.assemblies.add(at, group.disk_id, key, &message, piece)? {
                Some(contents) => Some(contents),
                None => return Ok(Response::new(pb::InstallReply {})),
            }
        };
        group.event(&self.0, |replica, io| replica.install(at, key, io)).map_err(status)?;
        // From here to the event that ends it nothing may get lost: not even if the caller hangs up.
        let node = self.0.clone();
        let installing = tokio::spawn(async move {
            let result = match contents {
                Some(contents) => group.disk.engine.install(key, contents).await,
                None => group.disk.engine.remove(key).await,
            };
            let result = group.outcome(&node, result);
            group.event(&node, |replica, io| replica.installed(key, io));
            result
        });
        let result = installing.await.map_err(|error| Status::internal(format!("install: {error}")))?;
        result.map_err(|fault| status(Refusal::Fault(fault)))?;
        Ok(Response::new(pb::InstallReply {}))
    }

    async fn activate(
        &self,
        request: Request<pb::ActivateRequest>,
    ) -> Result<Response<pb::ActivateReply>, Status> {
        let message = request.message;
        let group = self.replica(message.disk, GroupId(message.group))?;
        let at = (Epoch(message.epoch), message.activation);
        group.ask(&self.0, |token, replica, io| replica.activate(token, at, io)).await.map_err(status)?;
        Ok(Response::new(pb::ActivateReply { available_bytes: offered_bytes(&group.disk.engine.usage()) }))
    }

    async fn join(&self, request: Request<pb::JoinRequest>) -> Result<Response<pb::JoinReply>, Status> {
        let message = request.message;
        for group in self.0.replicas() {
            for disk in message.disks.iter().map(|disk| DiskId(*disk)) {
                group.event(&self.0, |replica, io| replica.heard_of(disk, message.incarnation, io));
            }
        }
        Ok(Response::new(pb::JoinReply {}))
    }

    async fn confirm(
        &self,
        request: Request<pb::ConfirmRequest>,
    ) -> Result<Response<pb::ConfirmReply>, Status> {
        let message = request.message;
        let group = self.replica(message.disk, GroupId(message.group))?;
        group.event(&self.0, |replica, _| replica.confirm(Epoch(message.epoch))).map_err(status)?;
        Ok(Response::new(pb::ConfirmReply {}))
    }

    async fn delete(&self, request: Request<pb::DeleteRequest>) -> Result<Response<pb::DeleteReply>, Status> {
        let message = request.message;
        let (disk, _) = self.disk(message.disk)?;
        let items: Vec<_> = message
            .items
            .iter()
            .flat_map(|item| item.groups.iter().map(|group| (GroupId(*group), DataId(item.data))))
            .collect();
        if items.len() > DELETE_MAX {
            return Err(Status::invalid_argument(format!("{} items, at most {DELETE_MAX}", items.len())));
        }
        let result = disk.engine.delete_data(&items).await;
        if let Err(error) = result {
            if disk.failed() {
                self.0.disk_failed(disk, &error);
            }
            return Err(Status::unavailable(format!("delete: {error}")));
        }
        self.0.metrics.deleted.add(items.len() as u64);
        Ok(Response::new(pb::DeleteReply {}))
    }
}

#[cfg(test)]
mod tests {
    use coord_types::Version;

    use super::*;

    fn request(first: bool, last: bool) -> pb::InstallRequest {
        let version = Some(Version { epoch: Epoch(1), counter: 1 }.into());
        pb::InstallRequest {
            first,
            last,
            version,
            chunk_size_bytes: 1 << 20,
            ..pb::InstallRequest::default()
        }
    }

    fn at_block(block: u32) -> Option<Piece> {
        let key = ChunkKey::new(GroupId(1), DataId(1), 0);
        Some(Piece::new(key, block * 4096, vec![1; 4096].into(), vec![crc32c::crc32c(&[1; 4096])]).unwrap())
    }

    #[test]
    fn a_chunk_is_whole_only_with_all_its_pieces_of_one_attempt() {
        let assemblies = Assemblies::default();
        let key = ChunkKey::new(GroupId(1), DataId(1), 0);
        let add = |activation, request: &pb::InstallRequest, piece| {
            assemblies.add((Epoch(1), activation), DiskId(1), key, request, piece)
        };
        assert!(add(1, &request(false, true), at_block(0)).is_err(), "no first piece came");
        assert_eq!(add(1, &request(true, false), at_block(0)).unwrap().map(|c| c.pieces.len()), None);
        assert!(add(2, &request(false, true), at_block(1)).is_err(), "another attempt's piece");
        assert_eq!(add(1, &request(false, true), at_block(1)).unwrap().map(|c| c.pieces.len()), Some(2));
        assert!(add(1, &request(true, false), at_block(4)).unwrap().is_none());
        assert!(add(1, &request(false, true), at_block(3)).is_err(), "pieces go backwards");
        assert!(add(1, &request(true, false), None).unwrap().is_none());
        assemblies.forget(DiskId(1), GroupId(1));
        assert!(add(1, &request(false, true), at_block(0)).is_err(), "forgotten with the attempt");
    }

    #[test]
    fn what_is_half_there_is_bounded() {
        let assemblies = Assemblies::default();
        let begin = |index, request: &pb::InstallRequest| {
            let key = ChunkKey::new(GroupId(1), DataId(1), index);
            assemblies.add((Epoch(1), 1), DiskId(1), key, request, at_block(0))
        };
        let max = u32::try_from(ASSEMBLIES_MAX).unwrap();
        for index in 0..max {
            assert!(begin(index, &request(true, false)).unwrap().is_none());
        }
        assert!(begin(max, &request(true, false)).is_err(), "no room");
        assert!(begin(0, &request(false, true)).is_err(), "a block that is there already");
        assert!(begin(max, &request(true, false)).unwrap().is_none(), "an attempt that failed makes room");
    }
}
