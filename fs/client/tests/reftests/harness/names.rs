//! Steps that change names and attributes.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use coord_types::InodeId;
use fs_client::{Errno, FileAttr, Op, SetAttr, SetTime};

use super::{Harness, attr_of, dir_name, err, name};
use crate::generators::{Spot, Step};

impl Harness {
    pub(super) async fn name_step(&mut self, step: &Step) {
        match *step {
            Step::Rename { from, to, flags } => {
                let (Some(parent), Some(new_parent)) = (self.dir(from), self.dir(to)) else { return };
                let op = Op::Rename {
                    parent,
                    name: &name(from.name),
                    new_parent,
                    new_name: &name(to.name),
                    flags,
                };
                let reply = self.ask(op).await;
                assert_eq!(err(reply), self.model.rename(from, to, flags).err());
                self.drop_unreachable();
            }
            Step::Link { from, to } => {
                let (Some(file), Some(new_parent)) = (self.model.at(from), self.dir(to)) else { return };
                let reply =
                    self.ask(Op::Link { ino: self.ino(file), new_parent, new_name: &name(to.name) }).await;
                if self.model.at(to).is_some() {
                    assert_eq!(err(reply), Some(Errno::EEXIST));
                } else {
                    self.model.names.insert((to.dir, to.name), file);
                    self.compare_attr(file, &attr_of(reply));
                }
            }
            Step::Unlink { spot } => {
                let Some(parent) = self.dir(spot) else { return };
                let reply = self.ask(Op::Unlink { parent, name: &name(spot.name) }).await;
                let Some(file) = self.model.names.remove(&(spot.dir, spot.name)) else {
                    assert_eq!(err(reply), Some(Errno::ENOENT));
                    return;
                };
                reply.unwrap();
                self.drop_unreachable();
                if self.model.files.contains_key(&file) {
                    self.compare(file).await;
                }
            }
            Step::Mkdir { dir } => {
                let parent = InodeId::ROOT;
                let reply = self.ask(Op::Mkdir { parent, name: &dir_name(dir), mode: 0o755 }).await;
                if self.model.dirs[dir].is_some() {
                    assert_eq!(err(reply), Some(Errno::EEXIST));
                } else {
                    self.model.dirs[dir] = Some(attr_of(reply).ino);
                }
            }
            Step::Rmdir { dir } => {
                let parent = InodeId::ROOT;
                let reply = self.ask(Op::Rmdir { parent, name: &dir_name(dir) }).await;
                if self.model.dirs[dir].is_none() {
                    assert_eq!(err(reply), Some(Errno::ENOENT));
                } else if self.model.is_empty(dir) {
                    reply.unwrap();
                    self.model.dirs[dir] = None;
                } else {
                    assert_eq!(err(reply), Some(Errno::ENOTEMPTY));
                }
            }
            Step::Chmod { spot, mode } => {
                let changes = SetAttr { mode: Some(mode), ..SetAttr::default() };
                let Some((file, attr)) = self.set_attr(spot, changes).await else { return };
                self.model.files.get_mut(&file).unwrap().mode = mode;
                self.compare_attr(file, &attr);
            }
            Step::Utimes { spot, seconds } => {
                let time: SystemTime = UNIX_EPOCH + Duration::from_secs(u64::from(seconds));
                let changes = SetAttr { mtime: Some(SetTime::At(time)), ..SetAttr::default() };
                let Some((file, attr)) = self.set_attr(spot, changes).await else { return };
                self.model.files.get_mut(&file).unwrap().mtime = Some(seconds);
                self.compare_attr(file, &attr);
            }
            Step::ReadDir { dir } => {
                if self.model.dirs[dir].is_some() {
                    self.list(dir).await;
                }
            }
            _ => unreachable!("not a step of names"),
        }
    }

    async fn set_attr(&mut self, spot: Spot, changes: SetAttr) -> Option<(u64, FileAttr)> {
        let file = self.model.at(spot)?;
        let attr = attr_of(self.ask(Op::SetAttr { ino: self.ino(file), changes }).await);
        self.model.files.get_mut(&file).unwrap().attributes_at_risk = true;
        Some((file, attr))
    }
}
