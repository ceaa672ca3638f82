//! An operation as an identity may ask for it: what Linux takes off silently, instead of refusing.

use coord_kv::Read;
use coord_types::InodeId;
use master_model::{Attr, Changes, Errno, Mutation, mode};

use super::Identity;
use super::identity::is_privileged;
use crate::error::OpResult;
use crate::state::read_inode;

/// Makes new inodes the identity's; takes set-group-id off where the group is not one of its own; lets a write or truncation
/// take set-user-id and set-group-id from a program. A client that is a kernel did all this already: this is for those that
/// are none. Call it after [`super::permit`].
///
/// # Errors
/// ENOENT if the inode is not there; a store that failed.
pub fn act_for(read: &dyn Read, identity: &Identity, mutation: &mut Mutation) -> OpResult<()> {
    let (uid, gid) = (identity.uid, identity.gid());
    match mutation {
        Mutation::Create(op) => {
            (op.uid, op.gid) = (uid, gid);
            op.mode = made(read, identity, op.parent, op.mode)?;
        }
        Mutation::Mknod(op) => {
            (op.uid, op.gid) = (uid, gid);
            op.mode = made(read, identity, op.parent, op.mode)?;
        }
        Mutation::Mkdir(op) => (op.uid, op.gid) = (uid, gid),
        Mutation::Symlink(op) => (op.uid, op.gid) = (uid, gid),
        Mutation::SetAttr(op) => {
            // The owner, too, loses them by a truncation.
            op.changes.kill_privileges |= op.changes.size_bytes.is_some() && !identity.superuser;
            if let Some(bits) = op.changes.mode.filter(|bits| bits & mode::SGID != 0) {
                op.changes.mode = Some(changed(identity, &attr(read, op.ino)?, &op.changes, bits));
            }
        }
        Mutation::CommitWrite(op) if !identity.superuser => {
            let attr = attr(read, op.ino)?;
            if is_privileged(attr.mode) {
                op.attributes.get_or_insert_default().kill_privileges = true;
            }
            if let Some(changes) = &mut op.attributes {
                changes.mode = changes.mode.map(|bits| changed(identity, &attr, changes, bits));
            }
        }
        Mutation::CommitWrite(_)
        | Mutation::Link(_)
        | Mutation::Unlink(_)
        | Mutation::Rmdir(_)
        | Mutation::Rename(_)
        | Mutation::SetXattr(_)
        | Mutation::RemoveXattr(_)
        | Mutation::RaiseFence(_)
        | Mutation::Forget(_) => {}
    }
    Ok(())
}

fn attr(read: &dyn Read, ino: InodeId) -> OpResult<Attr> {
    Ok(read_inode(read, ino)?.ok_or(Errno::ENOENT)?.attr)
}

/// The mode of a new file. In a set-group-id directory it gets the directory's group, and with it only what that group's
/// people may give.
fn made(read: &dyn Read, identity: &Identity, parent: InodeId, bits: u32) -> OpResult<u32> {
    let group = mode::SGID | mode::GROUP_EXEC;
    if bits & group != group {
        return Ok(bits);
    }
    let parent = attr(read, parent)?;
    let inherits = parent.mode & mode::SGID != 0;
    Ok(if inherits && identity.is_foreign_group(parent.gid) { bits & !mode::SGID } else { bits })
}

/// The mode of a chmod: set-group-id only with a group of one's own.
fn changed(identity: &Identity, attr: &Attr, changes: &Changes, bits: u32) -> u32 {
    let gid = changes.gid.unwrap_or(attr.gid);
    if identity.is_foreign_group(gid) { bits & !mode::SGID } else { bits }
}
