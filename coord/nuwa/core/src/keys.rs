//! What is stored where. The table is in `coord/nuwa/docs/tree.md`.

use coord_kv::{Family, FamilySpec, Range};
use nuwa_model::Path;

/// One record: [`Meta`](crate::records::Meta), at [`META_KEY`].
pub const META: Family = Family(0);
/// Parent path, NUL, name.
pub const ENTRIES: Family = Family(1);
/// Session.
pub const SESSIONS: Family = Family(2);
/// Session, kind, path: what a session owns.
pub const CLAIMS: Family = Family(3);
/// Path of a file.
pub const LOCKS: Family = Family(4);
/// Revision, number.
pub const HISTORY: Family = Family(5);
/// Path of a directory.
pub const QUOTAS: Family = Family(6);

pub(crate) const META_KEY: &[u8] = &[0];
/// Between a directory and a name in it. Paths have none.
const NUL: u8 = 0;

/// In the order of their numbers.
#[must_use]
pub const fn families() -> &'static [FamilySpec] {
    const fn family(name: &'static str, bloom: bool) -> FamilySpec {
        FamilySpec { name, bloom, prefix_len_bytes: None }
    }
    const FAMILIES: [FamilySpec; 7] = [
        family("nuwa_meta", false),
        family("nuwa_entries", true),
        family("nuwa_sessions", false),
        family("nuwa_claims", false),
        family("nuwa_locks", true),
        family("nuwa_history", false),
        family("nuwa_quotas", true),
    ];
    &FAMILIES
}

/// What a session owns.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum ClaimKind {
    File = 1,
    Lock = 2,
}

/// The root's, which is in no directory, is the separator alone.
pub(crate) fn entry(path: &Path) -> Vec<u8> {
    let (parent, name) = path.split().unwrap_or_default();
    let mut key = Vec::with_capacity(path.as_str().len() + 1);
    key.extend_from_slice(parent.as_bytes());
    key.push(NUL);
    key.extend_from_slice(name.as_bytes());
    key
}

/// The path of an entry by its key.
pub(crate) fn entry_path(key: &[u8]) -> Option<Path> {
    if key == [NUL] {
        return Some(Path::root());
    }
    let at = key.iter().position(|byte| *byte == NUL)?;
    let mut path = key[..at].to_vec();
    path.extend_from_slice(&key[at + 1..]);
    Path::new(String::from_utf8(path).ok()?).ok()
}

/// What is in a directory itself, by name.
pub(crate) fn children(directory: &Path) -> Range {
    let mut prefix = directory.as_str().as_bytes().to_vec();
    prefix.push(NUL);
    Range::prefix(&prefix)
}

/// All entries below a directory: what is in it before what is in its directories. Also the locks and quotas below it, by
/// path; then the directory's own quota is among them.
pub(crate) fn below(directory: &Path) -> Range {
    Range::prefix(directory.as_str().as_bytes())
}

pub(crate) fn session(session: u64) -> [u8; 8] {
    session.to_be_bytes()
}

pub(crate) fn claim(session: u64, kind: ClaimKind, path: &Path) -> Vec<u8> {
    let mut key = session.to_be_bytes().to_vec();
    key.push(kind as u8);
    key.extend_from_slice(path.as_str().as_bytes());
    key
}

/// Its files before its locks.
pub(crate) fn claims(session: u64) -> Range {
    Range::prefix(&session.to_be_bytes())
}

pub(crate) fn split_claim(key: &[u8]) -> Option<(u64, ClaimKind, Path)> {
    let (session, rest) = key.split_first_chunk::<8>()?;
    let (kind, path) = rest.split_first()?;
    let kind = match kind {
        1 => ClaimKind::File,
        2 => ClaimKind::Lock,
        _ => return None,
    };
    let path = Path::file(String::from_utf8(path.to_vec()).ok()?).ok()?;
    Some((u64::from_be_bytes(*session), kind, path))
}

pub(crate) fn path(path: &Path) -> &[u8] {
    path.as_str().as_bytes()
}

pub(crate) fn split_path(key: &[u8]) -> Option<Path> {
    Path::new(String::from_utf8(key.to_vec()).ok()?).ok()
}

pub(crate) fn event(revision: u64, number: u32) -> [u8; 12] {
    let mut key = [0; 12];
    key[..8].copy_from_slice(&revision.to_be_bytes());
    key[8..].copy_from_slice(&number.to_be_bytes());
    key
}

/// All events from this one on.
pub(crate) fn events_from(revision: u64, number: u32) -> Range {
    Range { start: event(revision, number).to_vec(), end_exclusive: None }
}

pub(crate) fn split_event(key: &[u8]) -> Option<(u64, u32)> {
    let (revision, number) = key.split_first_chunk::<8>()?;
    Some((u64::from_be_bytes(*revision), u32::from_be_bytes(number.try_into().ok()?)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn path(path: &str) -> Path {
        Path::new(path).unwrap()
    }

    #[test]
    fn a_directory_is_a_range_and_so_is_a_subtree() {
        let mut keys: Vec<_> = ["/", "/a", "/a/", "/a/b", "/a/b/", "/a/b/c", "/a/z", "/a!", "/b"]
            .map(|p| entry(&path(p)))
            .into();
        keys.sort();
        let found = |range: Range| -> Vec<String> {
            let paths = keys.iter().filter(|key| range.contains(key)).map(|key| entry_path(key));
            paths.map(|path| path.unwrap().to_string()).collect()
        };
        assert_eq!(found(children(&Path::root())), ["/a", "/a!", "/a/", "/b"]);
        assert_eq!(found(children(&path("/a/"))), ["/a/b", "/a/b/", "/a/z"]);
        assert_eq!(found(below(&path("/a/"))), ["/a/b", "/a/b/", "/a/z", "/a/b/c"]);
        assert_eq!(found(below(&Path::root())).len(), 8, "all but the root itself");
    }

    #[test]
    fn keys_say_what_they_are_of() {
        let claimed = claim(7, ClaimKind::Lock, &path("/a/b"));
        assert_eq!(split_claim(&claimed), Some((7, ClaimKind::Lock, path("/a/b"))));
        assert!(claims(7).contains(&claimed) && !claims(8).contains(&claimed));
        assert_eq!(split_claim(&[0; 8]), None);
        assert_eq!(split_event(&event(3, 9)), Some((3, 9)));
        assert_eq!(split_event(b"short"), None);
    }
}
