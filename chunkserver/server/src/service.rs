//! The services: translate the message, ask the group, translate the answer.

pub(crate) mod admin;
pub(crate) mod chunk;
pub(crate) mod read;
pub(crate) mod replica;
pub(crate) mod write;

use std::time::Duration;

use chunkserver_api::convert::{Invalid, fenced_detail, stale_detail};
use chunkserver_core::{Fault, Refusal};
use kuafu::{Code, Status};

/// What a client that met a full queue waits.
const BUSY_DELAY: Duration = Duration::from_millis(20);

/// Translates a refusal.
pub(crate) fn status(refusal: Refusal) -> Status {
    match refusal {
        Refusal::Stale { epoch, activation } => {
            Status::new(Code::Stale, format!("this member is at epoch {epoch}, activation {activation}"))
                .with_detail(stale_detail(epoch, activation))
        }
        Refusal::NotPrimary => Status::new(Code::NotLeader, "this member is not the group's primary"),
        Refusal::Fenced { fence } => {
            Status::new(Code::PermissionDenied, format!("the data is fenced at {fence}, and this is lower"))
                .with_detail(fenced_detail(fence))
        }
        Refusal::NotCommitted => {
            Status::not_committed("the chunk has a write that may not be on all members")
        }
        Refusal::NotServing => Status::unavailable("the group is being prepared"),
        Refusal::Busy => Status::busy("too many writes wait in this group", BUSY_DELAY),
        Refusal::Fault(Fault::Full) => Status::full("the disk is full"),
        Refusal::Fault(Fault::Damaged) => Status::data_loss("the chunk is damaged on this disk"),
        Refusal::Fault(Fault::Checksum) => {
            Status::data_loss("the data did not have its checksums on arrival")
        }
        Refusal::Fault(Fault::Invalid) => Status::invalid_argument("the request does not fit the chunk"),
        Refusal::Fault(Fault::Disk) => Status::unavailable("the disk failed"),
        Refusal::Fault(Fault::Conflict) => Status::unavailable("the chunk is being brought to one state"),
    }
}

pub(crate) fn invalid(error: Invalid) -> Status {
    Status::invalid_argument(error.to_string())
}
