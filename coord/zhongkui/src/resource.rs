//! What rights are on, and what a request is about.

use std::fmt;

use coord_types::InodeId;

/// Bytes of a resource's name, as its length is one byte.
pub const NAME_BYTES_MAX: usize = 255;

/// What a grant is on. Tags and forms are part of the format (`docs/capability.md`).
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Resource {
    /// The whole cluster.
    Everything,
    /// A directory of Pangu and all below it, wherever it is moved.
    Directory(InodeId),
    /// One inode of Pangu.
    File(InodeId),
    /// A file of Nuwa, or a directory (ends in `/`) and all below it.
    Nuwa(Name),
    /// A queue of Fuxi and those below it.
    Queue(Name),
    /// An action of Dayu.
    Action(Name),
    /// `package.Service` or `package.Service/Method`: methods that are about no other resource.
    Service(Name),
}

/// A resource's name: 1 to 255 bytes of UTF-8 without control characters.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Name(String);

/// What is no name of a resource.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BadName {
    #[error("a name of a resource has 1 to {NAME_BYTES_MAX} bytes, not {0}")]
    Length(usize),
    #[error("a name of a resource has no control characters")]
    Control,
    #[error("a path of Nuwa begins with '/', and a directory's ends with it")]
    NotAPath,
}

impl Name {
    /// # Errors
    /// It is too long or empty, or has control characters (they would make an audit line lie).
    pub fn new(name: impl Into<String>) -> Result<Self, BadName> {
        let name = name.into();
        if name.is_empty() || name.len() > NAME_BYTES_MAX {
            return Err(BadName::Length(name.len()));
        }
        if name.chars().any(char::is_control) { Err(BadName::Control) } else { Ok(Self(name)) }
    }

    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl Resource {
    /// # Errors
    /// It is no absolute path.
    pub fn nuwa(path: impl Into<String>) -> Result<Self, BadName> {
        let name = Name::new(path)?;
        if name.0.starts_with('/') { Ok(Self::Nuwa(name)) } else { Err(BadName::NotAPath) }
    }

    /// Whether a grant on this is one on the target.
    #[must_use]
    pub fn covers(&self, target: &Target<'_>) -> bool {
        match (self, target) {
            (Self::Everything, _) => true,
            (Self::Directory(directory), Target::Inode(place)) => place.within(*directory),
            (Self::File(file), Target::Inode(place)) => place.inode() == *file,
            (Self::Nuwa(granted), Target::Nuwa(path)) => {
                if granted.0.ends_with('/') {
                    path.starts_with(&granted.0)
                } else {
                    *path == granted.0
                }
            }
            (Self::Queue(granted), Target::Queue(queue)) => below(granted, queue, '/'),
            (Self::Action(granted), Target::Action(action)) => granted.0 == *action,
            (Self::Service(granted), Target::Method(method)) => below(granted, method, '/'),
            (
                Self::Directory(_)
                | Self::File(_)
                | Self::Nuwa(_)
                | Self::Queue(_)
                | Self::Action(_)
                | Self::Service(_),
                _,
            ) => false,
        }
    }
}

/// Whether `name` is `granted`, or begins with it and the separator.
fn below(granted: &Name, name: &str, separator: char) -> bool {
    name.strip_prefix(granted.as_str()).is_some_and(|rest| rest.is_empty() || rest.starts_with(separator))
}

/// Where an inode is, as the master knows it. Asked only if a grant is on less than everything.
pub trait Place {
    fn inode(&self) -> InodeId;
    /// Whether the inode is this directory, or below it by any of its names.
    fn within(&self, directory: InodeId) -> bool;
}

/// What a request is about.
#[derive(Clone, Copy)]
pub enum Target<'a> {
    /// Something in Pangu.
    Inode(&'a dyn Place),
    /// A path of Nuwa; a directory's ends in `/`.
    Nuwa(&'a str),
    /// A queue of Fuxi.
    Queue(&'a str),
    /// An action of Dayu.
    Action(&'a str),
    /// `package.Service/Method`
    Method(&'a str),
}

impl fmt::Debug for Target<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl fmt::Display for Target<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Target::Inode(place) => write!(f, "inode {}", place.inode()),
            Target::Nuwa(path) => write!(f, "nuwa {path}"),
            Target::Queue(queue) => write!(f, "queue {queue}"),
            Target::Action(action) => write!(f, "action {action}"),
            Target::Method(method) => write!(f, "method {method}"),
        }
    }
}

impl fmt::Display for Resource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Everything => f.write_str("everything"),
            Self::Directory(inode) => write!(f, "directory {inode} and all below"),
            Self::File(inode) => write!(f, "file {inode}"),
            Self::Nuwa(path) if path.0.ends_with('/') => write!(f, "{} and all below in Nuwa", path.0),
            Self::Nuwa(path) => write!(f, "{} in Nuwa", path.0),
            Self::Queue(queue) => write!(f, "queue {}", queue.0),
            Self::Action(action) => write!(f, "action {}", action.0),
            Self::Service(service) => write!(f, "service {}", service.0),
        }
    }
}

/// A text that names no resource.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "'{text}' is no resource{why}; they are: everything, directory:INODE, file:INODE, nuwa:PATH, queue:NAME, action:NAME, \
     service:NAME (ls -di DIR tells a directory's inode)"
)]
pub struct UnknownResource {
    text: String,
    why: String,
}

/// `everything`, `directory:1099`, `nuwa:/locks/`, …
impl std::str::FromStr for Resource {
    type Err = UnknownResource;

    fn from_str(text: &str) -> Result<Self, UnknownResource> {
        let unknown = |why: String| UnknownResource { text: text.to_owned(), why };
        if text == "everything" {
            return Ok(Self::Everything);
        }
        let (kind, name) = text.split_once(':').ok_or_else(|| unknown(String::new()))?;
        let inode =
            || name.parse().map(InodeId).map_err(|error| unknown(format!(" (inode '{name}': {error})")));
        let named = || Name::new(name).map_err(|error| unknown(format!(" ({error})")));
        match kind {
            "directory" => Ok(Self::Directory(inode()?)),
            "file" => Ok(Self::File(inode()?)),
            "nuwa" => Self::nuwa(name).map_err(|error| unknown(format!(" ({error})"))),
            "queue" => Ok(Self::Queue(named()?)),
            "action" => Ok(Self::Action(named()?)),
            "service" => Ok(Self::Service(named()?)),
            _ => Err(unknown(String::new())),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// An inode and the directories it is in.
    struct At(u64, &'static [u64]);

    impl Place for At {
        fn inode(&self) -> InodeId {
            InodeId(self.0)
        }
        fn within(&self, directory: InodeId) -> bool {
            self.0 == directory.0 || self.1.contains(&directory.0)
        }
    }

    #[test]
    fn a_grant_covers_what_it_names_and_what_is_below_and_nothing_beside() {
        let file = At(9, &[1, 5, 7]);
        let targets = [
            Target::Inode(&file),
            Target::Nuwa("/a/b"),
            Target::Nuwa("/a/b/"),
            Target::Nuwa("/a/b/c"),
            Target::Nuwa("/a/bc"),
            Target::Queue("big"),
            Target::Queue("big/one"),
            Target::Queue("bigger"),
            Target::Action("upgrade"),
            Target::Method("nuwa.v1.Admin/AddMember"),
            Target::Method("nuwa.v1.Administration/X"),
        ];
        for (resource, covered) in [
            ("everything", &[0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10][..]),
            ("directory:5", &[0]),
            ("directory:9", &[0]),
            ("directory:6", &[]),
            ("file:9", &[0]),
            ("file:5", &[]),
            ("nuwa:/", &[1, 2, 3, 4]),
            ("nuwa:/a/b", &[1]),
            ("nuwa:/a/b/", &[2, 3]),
            ("queue:big", &[5, 6]),
            ("queue:big/one", &[6]),
            ("action:upgrade", &[8]),
            ("action:upgrad", &[]),
            ("service:nuwa.v1.Admin", &[9]),
            ("service:nuwa.v1.Admin/AddMember", &[9]),
            ("service:nuwa.v1.Admin/Add", &[]),
        ] {
            let resource: Resource = resource.parse().unwrap();
            let found: Vec<usize> = (0..targets.len()).filter(|&n| resource.covers(&targets[n])).collect();
            assert_eq!(found, covered, "{resource}");
        }
    }

    #[test]
    fn what_is_no_resource_is_said() {
        for (text, word) in [
            ("all", "everything, directory:INODE"),
            ("directory:/a", "inode '/a'"),
            ("nuwa:a", "begins with '/'"),
            ("queue:", "1 to 255 bytes"),
            ("queue:a\nb", "control characters"),
            ("host:a", "'host:a' is no resource"),
        ] {
            let error = text.parse::<Resource>().unwrap_err().to_string();
            assert!(error.contains(word), "{error}");
        }
        assert!(format!("queue:{}", "x".repeat(255)).parse::<Resource>().is_ok());
        assert!(format!("queue:{}", "x".repeat(256)).parse::<Resource>().is_err());
    }
}
