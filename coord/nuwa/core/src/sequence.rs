//! Sequential names. A directory keeps the number that is next, and the one above all that names in it were given by
//! others, so that a taken number is passed without looking for the end of those that are taken: that could be far away.
//!
//! Invariant: every number of at most [`DIGITS_MAX`] digits that a name in a directory ends with, read as any sequential name's,
//! is below one of the two.

use nuwa_model::{Path, Refusal};

use crate::entries::check_no_other_kind;
use crate::error::{Failure, Outcome, path};
use crate::keys;
use crate::state::State;

/// Digits of a sequential name; more when they do not suffice.
const DIGITS: usize = 10;
/// Digits of the numbers that are noted, at most: above them there is room to count on for ever.
const DIGITS_MAX: usize = 18;
/// Taken numbers that a command passes one by one: the usual accident, after which numbers go on as if nothing were.
/// Behind a longer run it goes on above all numbers there are.
const PASSED_MAX: u32 = 16;

/// The next sequential name: one that nobody has.
pub(crate) fn next(state: &mut State<'_>, prefix: &Path) -> Outcome<Path> {
    let parent = prefix.parent().unwrap_or_else(Path::root);
    let Some(mut record) = state.entry(&parent)? else { return Err(Refusal::ParentNotFound(parent).into()) };
    loop {
        let number = record.sequence;
        record.sequence = number.checked_add(1).ok_or(Refusal::Invalid(
            "the directory has given out all its numbers: make sequential names in another",
        ))?;
        let target = path(&format!("{prefix}{number:0DIGITS$}"), Path::file)?;
        if !is_taken(state, &target)? {
            // The counter is no change anybody is told of.
            state.put(keys::ENTRIES, keys::entry(&parent), &record);
            return Ok(target);
        }
        if state.passed < PASSED_MAX {
            state.passed += 1;
        } else if number < record.numbered {
            record.sequence = record.numbered;
        } else {
            // Above all that are noted, where only names of nineteen digits led.
            return Err(Refusal::Exists(target).into());
        }
    }
}

fn is_taken(state: &State<'_>, target: &Path) -> Outcome<bool> {
    if state.entry(target)?.is_some() {
        return Ok(true);
    }
    match check_no_other_kind(state, target) {
        Ok(()) => Ok(false),
        Err(Failure::Refused(_)) => Ok(true),
        Err(error) => Err(error),
    }
}

/// The greatest number a name may be taken to end with, as a sequential name does: ten digits, or more that do not begin
/// with 0. Which of its digits are the prefix's cannot be seen.
pub(crate) fn number_of(name: &str) -> Option<u64> {
    let name = name.strip_suffix('/').unwrap_or(name).as_bytes();
    let digits = name.iter().rev().take(DIGITS_MAX).take_while(|byte| byte.is_ascii_digit()).count();
    let len = (DIGITS..=digits).rev().find(|len| *len == DIGITS || name[name.len() - len] != b'0')?;
    let digits = str::from_utf8(&name[name.len() - len..]).ok()?;
    digits.parse().ok()
}

impl State<'_> {
    /// An entry gets this name: sequential ones must find the way past it.
    pub(crate) fn note_number(&mut self, target: &Path) -> Outcome<()> {
        let Some((parent, name)) = target.split() else { return Ok(()) };
        let Some(number) = number_of(name) else { return Ok(()) };
        let parent = path(parent, Path::directory)?;
        let Some(mut record) = self.entry(&parent)? else { return Ok(()) };
        if number >= record.sequence.max(record.numbered) {
            record.numbered = number + 1;
            self.put(keys::ENTRIES, keys::entry(&parent), &record);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_greatest_number_a_name_may_end_with() {
        for (name, number) in [
            ("job-0000000003", Some(3)),
            ("job-0000000003/", Some(3)),
            ("0000000003", Some(3)),
            ("123000000003", Some(123_000_000_003)),
            ("1200000000003", Some(1_200_000_000_003)),
            ("x012345678901", Some(12_345_678_901)),
            ("job-000000003", None),
            ("job-0000000003x", None),
            ("job-99999999999999999999", Some(999_999_999_999_999_999)),
            ("job-9000000000000000000", Some(0)),
            ("", None),
        ] {
            assert_eq!(number_of(name), number, "{name}");
        }
    }
}
