//! Paths of the tree.

use std::fmt;

/// Of a component, in bytes.
pub const NAME_MAX_BYTES: usize = 255;
/// Of a path, in bytes.
pub const PATH_MAX_BYTES: usize = 4096;
/// Components of a path.
pub const DEPTH_MAX: usize = 32;

/// A path that is well-formed: begins with `/`; ends in `/` if, and only if, it names a directory.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Path(String);

/// What is wrong with a path.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PathError {
    #[error("a path begins with /")]
    Relative,
    #[error("a path has no empty component: write / once")]
    EmptyComponent,
    #[error("a component must not be . or ..")]
    Dots,
    #[error("a path must not contain a NUL")]
    Nul,
    #[error("a component has at most {NAME_MAX_BYTES} bytes")]
    NameTooLong,
    #[error("a path has at most {PATH_MAX_BYTES} bytes")]
    TooLong,
    #[error("a path has at most {DEPTH_MAX} components")]
    TooDeep,
    #[error("this names a directory, because it ends in /; a file is wanted")]
    NotAFile,
    #[error("this names a file; a directory, which ends in /, is wanted")]
    NotADirectory,
}

impl Path {
    /// # Errors
    /// [`PathError`], which says what a path must look like.
    pub fn new(path: impl Into<String>) -> Result<Self, PathError> {
        let path = path.into();
        if path.len() > PATH_MAX_BYTES {
            return Err(PathError::TooLong);
        }
        let inner = path.strip_prefix('/').ok_or(PathError::Relative)?;
        if path.contains('\0') {
            return Err(PathError::Nul);
        }
        let inner = inner.strip_suffix('/').unwrap_or(inner);
        // "/" is the root, "//" is not.
        if inner.is_empty() {
            return if path.len() == 1 { Ok(Self(path)) } else { Err(PathError::EmptyComponent) };
        }
        let mut depth = 0;
        for name in inner.split('/') {
            depth += 1;
            match name {
                "" => return Err(PathError::EmptyComponent),
                "." | ".." => return Err(PathError::Dots),
                name if name.len() > NAME_MAX_BYTES => return Err(PathError::NameTooLong),
                _ => {}
            }
        }
        if depth > DEPTH_MAX {
            return Err(PathError::TooDeep);
        }
        Ok(Self(path))
    }

    /// # Errors
    /// As [`Path::new`]; [`PathError::NotAFile`] of a directory.
    pub fn file(path: impl Into<String>) -> Result<Self, PathError> {
        let path = Self::new(path)?;
        if path.is_directory() { Err(PathError::NotAFile) } else { Ok(path) }
    }

    /// # Errors
    /// As [`Path::new`]; [`PathError::NotADirectory`] of a file.
    pub fn directory(path: impl Into<String>) -> Result<Self, PathError> {
        let path = Self::new(path)?;
        if path.is_directory() { Ok(path) } else { Err(PathError::NotADirectory) }
    }

    /// `/`.
    #[must_use]
    pub fn root() -> Self {
        Self("/".to_owned())
    }

    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    #[must_use]
    pub fn is_root(&self) -> bool {
        self.0.len() == 1
    }

    #[must_use]
    pub fn is_directory(&self) -> bool {
        self.0.ends_with('/')
    }

    /// The directory it is in, and its name there, with `/` if it is a directory itself; `None` of the root.
    #[must_use]
    pub fn split(&self) -> Option<(&str, &str)> {
        if self.is_root() {
            return None;
        }
        let end = self.0.len() - usize::from(self.is_directory());
        let at = self.0[..end].rfind('/').expect("a path begins with /") + 1;
        Some(self.0.split_at(at))
    }

    /// The directory it is in; `None` of the root.
    #[must_use]
    pub fn parent(&self) -> Option<Self> {
        self.split().map(|(parent, _)| Self(parent.to_owned()))
    }

    /// The directories it is in, the root first.
    pub fn ancestors(&self) -> impl Iterator<Item = &str> {
        let own = self.0.len();
        self.0
            .match_indices('/')
            .map(|(at, _)| at + 1)
            .filter(move |end| *end < own)
            .map(|end| &self.0[..end])
    }

    /// The same name as the other kind: of the file `/a` the directory `/a/`, and the other way around. `None` of the root.
    #[must_use]
    pub fn other_kind(&self) -> Option<String> {
        match self.0.strip_suffix('/') {
            Some("") => None,
            Some(file) => Some(file.to_owned()),
            None => Some(format!("{}/", self.0)),
        }
    }

    /// Whether it lies below the directory, at any depth.
    #[must_use]
    pub fn is_below(&self, directory: &Self) -> bool {
        directory.is_directory() && self.0.len() > directory.0.len() && self.0.starts_with(&directory.0)
    }

    /// An entry of this directory: a name, with `/` if it is a directory.
    ///
    /// # Errors
    /// [`PathError`], as of any path; [`PathError::NotADirectory`] if this is none.
    pub fn join(&self, name: &str) -> Result<Self, PathError> {
        if !self.is_directory() {
            return Err(PathError::NotADirectory);
        }
        Self::new(format!("{}{name}", self.0))
    }
}

impl fmt::Display for Path {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for Path {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&self.0, f)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn what_a_path_looks_like() {
        for good in ["/", "/a", "/a/", "/a/b", "/a/b/", "/…", "/.a", "/a..b/"] {
            assert_eq!(Path::new(good).unwrap().as_str(), good);
        }
        let long = format!("/{}", "n".repeat(NAME_MAX_BYTES + 1));
        let deep = "/d".repeat(DEPTH_MAX + 1);
        let far = "/0123456789".repeat(400);
        for (bad, error) in [
            ("", PathError::Relative),
            ("a", PathError::Relative),
            ("//", PathError::EmptyComponent),
            ("/a//b", PathError::EmptyComponent),
            ("/a//", PathError::EmptyComponent),
            ("/./a", PathError::Dots),
            ("/a/..", PathError::Dots),
            ("/a\0b", PathError::Nul),
            (&long, PathError::NameTooLong),
            (&deep, PathError::TooDeep),
            (&far, PathError::TooLong),
        ] {
            assert_eq!(Path::new(bad), Err(error), "{bad:?}");
        }
        assert!(Path::new("/d".repeat(DEPTH_MAX)).is_ok());
        assert_eq!(Path::file("/a/"), Err(PathError::NotAFile));
        assert_eq!(Path::directory("/a"), Err(PathError::NotADirectory));
    }

    #[test]
    fn parts_of_a_path() {
        let path = |path: &str| Path::new(path).unwrap();
        assert_eq!(path("/").split(), None);
        assert_eq!(path("/a").split(), Some(("/", "a")));
        assert_eq!(path("/a/b/").split(), Some(("/a/", "b/")));
        assert_eq!(path("/a/b/c").ancestors().collect::<Vec<_>>(), ["/", "/a/", "/a/b/"]);
        assert_eq!(path("/a/b/").ancestors().collect::<Vec<_>>(), ["/", "/a/"]);
        assert_eq!(path("/").ancestors().count(), 0);
        assert_eq!(path("/a").other_kind().unwrap(), "/a/");
        assert_eq!(path("/a/").other_kind().unwrap(), "/a");
        assert_eq!(path("/").other_kind(), None);
        assert!(path("/a/b").is_below(&path("/a/")) && path("/a").is_below(&Path::root()));
        assert!(!path("/a/").is_below(&path("/a/")) && !path("/ab").is_below(&path("/a/")));
        assert_eq!(path("/a/").join("b/").unwrap(), path("/a/b/"));
        assert_eq!(path("/a").join("b"), Err(PathError::NotADirectory));
    }

    proptest! {
        #[test]
        fn a_parent_and_a_name_make_the_path(text in "/([a-c.]{1,3}/){0,4}[a-c.]{0,3}") {
            if let Ok(path) = Path::new(text.as_str()) {
                match path.split() {
                    None => prop_assert!(path.is_root()),
                    Some((parent, name)) => {
                        let parent = Path::directory(parent).unwrap();
                        prop_assert_eq!(&parent.join(name).unwrap(), &path);
                        prop_assert_eq!(path.ancestors().last(), Some(parent.as_str()));
                        prop_assert!(path.is_below(&parent));
                    }
                }
            }
        }
    }
}
