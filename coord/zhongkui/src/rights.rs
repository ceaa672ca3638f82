//! What may be done to a resource.

use std::fmt;

bitflags::bitflags! {
    /// A set of rights. The bits are part of the format (`docs/capability.md`): they are only ever added.
    #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Default)]
    pub struct Rights: u16 {
        /// Look at content, names and attributes; watch.
        const READ = 1 << 0;
        /// Change them, make and remove.
        const WRITE = 1 << 1;
        /// Hold locks, stand for election.
        const LOCK = 1 << 2;
        /// Submit jobs, control one's own.
        const RUN = 1 << 3;
        /// Change how the thing itself works: members, quotas, limits.
        const ADMINISTER = 1 << 4;
        /// Say on behalf of which uid and gids a request is made.
        const ACT_AS = 1 << 5;
        /// Uid 0 is the superuser within; without it, nobody.
        const SUPERUSER = 1 << 6;
        /// Answer for it: be a server of this service.
        const SERVE = 1 << 7;
    }
}

const WORDS: [(Rights, &str); 8] = [
    (Rights::READ, "read"),
    (Rights::WRITE, "write"),
    (Rights::LOCK, "lock"),
    (Rights::RUN, "run"),
    (Rights::ADMINISTER, "administer"),
    (Rights::ACT_AS, "act-as"),
    (Rights::SUPERUSER, "superuser"),
    (Rights::SERVE, "serve"),
];

/// `read, write`
impl fmt::Display for Rights {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut words = WORDS.iter().filter(|(right, _)| self.contains(*right)).map(|(_, word)| word);
        match words.next() {
            None => f.write_str("nothing"),
            Some(first) => {
                f.write_str(first)?;
                words.try_for_each(|word| write!(f, ", {word}"))
            }
        }
    }
}

/// A word that names no right.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("'{0}' is no right; they are: read, write, lock, run, administer, act-as, superuser, serve, all")]
pub struct UnknownRight(pub String);

/// `read,write`, with or without spaces; `all` for all of them.
impl std::str::FromStr for Rights {
    type Err = UnknownRight;

    fn from_str(text: &str) -> Result<Self, UnknownRight> {
        text.split(',').map(str::trim).try_fold(Self::empty(), |rights, word| {
            if word == "all" {
                return Ok(Self::all());
            }
            let right = WORDS.iter().find(|(_, name)| *name == word);
            right.map(|(right, _)| rights | *right).ok_or_else(|| UnknownRight(word.to_owned()))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_right_has_a_word_of_its_own() {
        for bit in Rights::all().iter() {
            assert_eq!(bit.to_string().parse(), Ok(bit));
        }
        assert_eq!(Rights::all().to_string().parse(), Ok(Rights::all()));
        assert_eq!("all".parse(), Ok(Rights::all()));
        assert_eq!("read,writ".parse::<Rights>(), Err(UnknownRight("writ".to_owned())));
        assert_eq!("".parse::<Rights>(), Err(UnknownRight(String::new())));
        assert_eq!(Rights::empty().to_string(), "nothing");
    }
}
