//! The payload of a normal entry: commands with their stamps, and the leader's time. Byte map: docs/log-format.md.

use bytes::{Buf, BufMut, Bytes, BytesMut};
use coord_types::SessionId;

use crate::node::{Proposal, ProposalStamp};

const VERSION: u8 = 1;
const HEAD_LEN: usize = 13;
const STAMP_LEN: usize = 24;

/// A decoded batch. Commands share the entry's memory.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct CommandBatch {
    pub(crate) time_nanos: u64,
    pub(crate) commands: Vec<Command>,
}

#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Command {
    pub(crate) stamp: Option<ProposalStamp>,
    pub(crate) bytes: Bytes,
}

/// An entry passed its checksum and is still no batch: another version wrote it.
#[derive(Debug, thiserror::Error)]
#[error("entry {index} is no batch of commands this version knows: {reason}")]
pub(crate) struct BatchError {
    pub(crate) index: u64,
    pub(crate) reason: &'static str,
}

/// Bytes `proposal` takes in a batch.
pub(crate) fn encoded_len(proposal: &Proposal) -> usize {
    1 + proposal.stamp.map_or(0, |_| STAMP_LEN) + 4 + proposal.command.len()
}

pub(crate) fn encode<'a>(
    time_nanos: u64,
    proposals: impl ExactSizeIterator<Item = &'a Proposal> + Clone,
) -> Bytes {
    let len: usize = proposals.clone().map(encoded_len).sum();
    let mut out = BytesMut::with_capacity(HEAD_LEN + len);
    out.put_u8(VERSION);
    out.put_u64_le(time_nanos);
    out.put_u32_le(u32::try_from(proposals.len()).expect("the proposer bounds a batch's commands"));
    for proposal in proposals {
        match proposal.stamp {
            None => out.put_u8(0),
            Some(stamp) => {
                out.put_u8(1);
                out.put_u64_le(stamp.session.0);
                out.put_u64_le(stamp.seq);
                out.put_u64_le(stamp.acknowledged_below);
            }
        }
        out.put_u32_le(
            u32::try_from(proposal.command.len()).expect("the proposer bounds a command's length"),
        );
        out.put_slice(&proposal.command);
    }
    out.freeze()
}

pub(crate) fn decode(index: u64, mut bytes: Bytes) -> Result<CommandBatch, BatchError> {
    let error = |reason| BatchError { index, reason };
    if bytes.len() < HEAD_LEN {
        return Err(error("too short"));
    }
    if bytes.get_u8() != VERSION {
        return Err(error("unknown version"));
    }
    let time_nanos = bytes.get_u64_le();
    let count = bytes.get_u32_le();
    let mut commands = Vec::with_capacity(bytes.len().min(count as usize));
    for _ in 0..count {
        commands.push(decode_command(&mut bytes).ok_or_else(|| error("a command is cut off"))?);
    }
    if bytes.has_remaining() {
        return Err(error("bytes after the last command"));
    }
    Ok(CommandBatch { time_nanos, commands })
}

fn decode_command(bytes: &mut Bytes) -> Option<Command> {
    let stamp = match bytes.try_get_u8().ok()? {
        0 => None,
        1 => Some(ProposalStamp {
            session: SessionId(bytes.try_get_u64_le().ok()?),
            seq: bytes.try_get_u64_le().ok()?,
            acknowledged_below: bytes.try_get_u64_le().ok()?,
        }),
        _ => return None,
    };
    let len = bytes.try_get_u32_le().ok()? as usize;
    (len <= bytes.len()).then(|| Command { stamp, bytes: bytes.split_to(len) })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn proposal() -> impl Strategy<Value = Proposal> {
        let stamp =
            (any::<u64>(), any::<u64>(), any::<u64>()).prop_map(|(session, seq, acknowledged_below)| {
                ProposalStamp { session: SessionId(session), seq, acknowledged_below }
            });
        (proptest::option::of(stamp), proptest::collection::vec(any::<u8>(), 0..40))
            .prop_map(|(stamp, command)| Proposal { stamp, command: command.into() })
    }

    #[test]
    fn what_another_version_wrote_is_not_read() {
        let proposal = Proposal { stamp: None, command: Bytes::from_static(b"x") };
        let good = encode(7, [&proposal].into_iter()).to_vec();
        assert!(decode(1, good.clone().into()).is_ok());
        for (at, value) in [(0, VERSION + 1), (HEAD_LEN, 2)] {
            let mut other = good.clone();
            other[at] = value;
            assert!(decode(1, other.into()).is_err(), "byte {at}");
        }
        let longer = [good.as_slice(), b"y"].concat();
        assert!(decode(1, longer.into()).is_err());
    }

    proptest! {
        #[test]
        fn a_batch_round_trips_and_no_prefix_or_garbage_panics(
            proposals in proptest::collection::vec(proposal(), 0..8), time: u64, flip in any::<(usize, u8)>(),
        ) {
            let bytes = encode(time, proposals.iter());
            let batch = decode(1, bytes.clone()).unwrap();
            prop_assert_eq!(batch.time_nanos, time);
            prop_assert_eq!(batch.commands.len(), proposals.len());
            for (command, proposal) in batch.commands.iter().zip(&proposals) {
                prop_assert_eq!(&command.bytes, &proposal.command);
                prop_assert_eq!(command.stamp, proposal.stamp);
            }
            for cut in 0..bytes.len() {
                prop_assert!(decode(1, bytes.slice(..cut)).is_err());
            }
            let mut damaged = bytes.to_vec();
            let at = flip.0 % damaged.len();
            damaged[at] ^= flip.1;
            let _ = decode(1, damaged.into());
        }
    }
}
