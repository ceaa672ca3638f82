//! A path from the root, for administration: where is this file?

use coord_kv::Read;
use coord_types::InodeId;
use master_model::{Answer, Errno, Name, NameError};

use super::{getattr, lookup};
use crate::error::OpResult;

pub(super) fn resolve(read: &dyn Read, path: &[u8]) -> OpResult<Answer> {
    let mut answer = getattr::getattr(read, InodeId::ROOT)?;
    for part in path.split(|byte| *byte == b'/').filter(|part| !part.is_empty() && *part != b".") {
        let at = answer.attr.as_ref().map_or(InodeId::ROOT, |attr| attr.ino);
        let name = Name::try_from(part).map_err(NameError::errno)?;
        answer = lookup::lookup(read, at, &name)?;
    }
    if path.ends_with(b"/") && answer.attr.as_ref().is_some_and(|attr| !attr.is_directory()) {
        return Err(Errno::ENOTDIR.into());
    }
    Ok(answer)
}

#[cfg(test)]
mod tests {
    use coord_types::InodeId;
    use master_model::{Errno, Query};

    use crate::testing::Tree;

    #[test]
    fn walks_from_the_root() {
        let mut tree = Tree::new();
        let dir = tree.mkdir(InodeId::ROOT, "d").unwrap().attr.unwrap().ino;
        let file = tree.create(dir, "f").unwrap().attr.unwrap().ino;
        let resolve = |path: &'static str| {
            tree.query(&Query::Resolve(path.into())).map(|answer| answer.attr.unwrap().ino)
        };
        assert_eq!(resolve("/"), Ok(InodeId::ROOT));
        assert_eq!(resolve(""), Ok(InodeId::ROOT));
        assert_eq!(resolve("//d/./f"), Ok(file));
        assert_eq!(resolve("/d/"), Ok(dir));
        assert_eq!(resolve("/d/f/"), Err(Errno::ENOTDIR));
        assert_eq!(resolve("/d/f/g"), Err(Errno::ENOTDIR));
        assert_eq!(resolve("/x/f"), Err(Errno::ENOENT));
        assert_eq!(resolve("/d/.."), Err(Errno::EINVAL));
    }
}
