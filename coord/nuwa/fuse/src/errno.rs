//! Refusals as system calls know them: the table at the end of `docs/mount.md`.

use fs_client::Errno;
use nuwa_api::proto::RefusalCode;
use nuwa_api::{CallError, ClientError};

pub(crate) fn errno(error: &ClientError) -> Errno {
    match error {
        // Whom it was refused, and what was missing, is in the member's audit log.
        error if error.is_denied() => Errno::EACCES,
        ClientError::Refused { code, .. } => refusal(*code),
        ClientError::Call(CallError::Deadline { .. }) => Errno::ETIMEDOUT,
        ClientError::Call(CallError::Refused { .. } | CallError::NoMembers) | ClientError::Reply(_) => {
            tracing::error!(%error, "Nuwa's answer is of no use");
            Errno::EIO
        }
    }
}

fn refusal(code: RefusalCode) -> Errno {
    match code {
        RefusalCode::BadPath | RefusalCode::Invalid | RefusalCode::NotHeld | RefusalCode::Unspecified => {
            Errno::EINVAL
        }
        RefusalCode::NotFound | RefusalCode::ParentNotFound => Errno::ENOENT,
        RefusalCode::Exists => Errno::EEXIST,
        RefusalCode::NotADirectory => Errno::ENOTDIR,
        RefusalCode::IsADirectory => Errno::EISDIR,
        RefusalCode::NotEmpty => Errno::ENOTEMPTY,
        RefusalCode::ValueTooLarge | RefusalCode::TooMuch => Errno::EFBIG,
        RefusalCode::Quota => Errno::EDQUOT,
        RefusalCode::SessionOver => Errno::EIO,
        RefusalCode::Locked | RefusalCode::Restoring => Errno::EBUSY,
    }
}
