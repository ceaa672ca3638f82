//! Keys for a grant's program: copies of its own, readable by its user alone.

use std::fs;
use std::io::{self, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _, chown};
use std::path::Path;

use crate::config::KeyFolder;
use crate::order::{Order, Program};

/// The name of the program's key.
#[must_use]
pub fn name(keys: &KeyFolder, program: Program) -> &str {
    match program {
        Program::Worker => &keys.worker,
        Program::JobMaster => &keys.job_master,
    }
}

/// Puts the program's keys into `folder`, which is made anew. `owner`: whom they belong to, if it is not this process's user.
///
/// # Errors
/// A key cannot be read, or not be written.
pub fn give(keys: &KeyFolder, order: &Order, folder: &Path, owner: Option<(u32, u32)>) -> io::Result<()> {
    if folder.exists() {
        fs::remove_dir_all(folder)?;
    }
    fs::DirBuilder::new().mode(0o700).create(folder)?;
    let name = name(keys, order.program);
    for entry in fs::read_dir(&keys.folder)? {
        let file = entry?.file_name();
        let Some(text) = file.to_str() else { continue };
        let is_authority = text.starts_with("authority") && text.ends_with(".pub");
        if !is_authority && text != format!("{name}.key") && text != format!("{name}.cap") {
            continue;
        }
        let path = folder.join(text);
        let mut copy = fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(&path)?;
        copy.write_all(&fs::read(keys.folder.join(text))?)?;
        if let Some((uid, gid)) = owner {
            chown(&path, Some(uid), Some(gid))?;
        }
    }
    if let Some((uid, gid)) = owner {
        chown(folder, Some(uid), Some(gid))?;
    }
    Ok(())
}
