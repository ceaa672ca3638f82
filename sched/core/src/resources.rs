//! Amounts of every resource at once, as integers of fixed scale.
//!
//! A vector is eight numbers, one cache line, without allocation: comparing a request with a node is the innermost
//! step of every decision. Which name a place in it has is told by [`Dimensions`]; the first three are always the same.

use std::fmt;

use thiserror::Error;

/// Names that a cluster may have: three of ours and five of the administrator's. Eight u64 fill one cache line.
pub const DIMENSIONS_MAX: usize = 8;
/// The largest amount of one unit, node or quota: sums over 2^20 nodes then stay far from overflow.
pub const AMOUNT_MAX: u64 = 1 << 40;
/// Shares are in millionths.
const SHARE_SCALE: u64 = 1_000_000;

/// The place of one resource in a vector.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Dimension(u8);

impl Dimension {
    /// Thousandths of a core.
    pub const CPU: Self = Self(0);
    /// MiB of memory.
    pub const MEMORY: Self = Self(1);
    /// MiB of local disk.
    pub const DISK: Self = Self(2);

    pub(crate) fn all() -> impl Iterator<Item = Self> {
        (0..DIMENSIONS_MAX as u8).map(Self)
    }
}

/// There is no place for another named resource.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error(
    "resource {name:?} is one too many: a cluster has at most {DIMENSIONS_MAX}, and has {known}; use one of those"
)]
pub struct TooManyDimensions {
    /// The refused name.
    pub name: String,
    /// The names there are, with commas.
    pub known: String,
}

/// The names of the dimensions of one cluster.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Dimensions(Vec<String>);

impl Default for Dimensions {
    fn default() -> Self {
        Self(["cpu", "memory", "disk"].map(str::to_owned).to_vec())
    }
}

impl Dimensions {
    /// The place of `name`, a new one if it has none yet.
    ///
    /// # Errors
    /// If all places have names.
    pub fn intern(&mut self, name: &str) -> Result<Dimension, TooManyDimensions> {
        if let Some(known) = self.find(name) {
            return Ok(known);
        }
        if self.0.len() == DIMENSIONS_MAX {
            return Err(TooManyDimensions { name: name.to_owned(), known: self.0.join(", ") });
        }
        self.0.push(name.to_owned());
        Ok(Dimension((self.0.len() - 1) as u8))
    }

    /// The place of `name`, if it has one.
    #[must_use]
    pub fn find(&self, name: &str) -> Option<Dimension> {
        self.0.iter().position(|known| known == name).map(|place| Dimension(place as u8))
    }

    /// The name of a place.
    #[must_use]
    pub fn name(&self, dimension: Dimension) -> &str {
        self.0.get(dimension.0 as usize).map_or("unnamed", String::as_str)
    }

    /// `amount` as people say it: `1.5 cpu`, `2 GiB memory`, `3 gpu`.
    #[must_use]
    pub fn say(&self, dimension: Dimension, amount: u64) -> String {
        let name = self.name(dimension);
        match dimension {
            Dimension::CPU if amount.is_multiple_of(1000) => format!("{} {name}", amount / 1000),
            Dimension::CPU => format!("{}.{:03} {name}", amount / 1000, amount % 1000),
            Dimension::MEMORY | Dimension::DISK if amount > 0 && amount.is_multiple_of(1024) => {
                format!("{} GiB {name}", amount / 1024)
            }
            Dimension::MEMORY | Dimension::DISK => format!("{amount} MiB {name}"),
            _ => format!("{amount} {name}"),
        }
    }
}

/// One amount for each dimension.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Resources([u64; DIMENSIONS_MAX]);

impl Resources {
    /// Nothing of anything.
    pub const ZERO: Self = Self([0; DIMENSIONS_MAX]);
    /// No limit anywhere: the maximum of a queue that has none.
    pub const UNLIMITED: Self = Self([u64::MAX; DIMENSIONS_MAX]);

    /// cpu in thousandths of a core, memory and disk in MiB, nothing else.
    #[must_use]
    pub const fn new(cpu_milli: u64, memory_mib: u64, disk_mib: u64) -> Self {
        Self([cpu_milli, memory_mib, disk_mib, 0, 0, 0, 0, 0])
    }

    /// The same with `amount` in one place.
    #[must_use]
    pub const fn with(mut self, dimension: Dimension, amount: u64) -> Self {
        self.0[dimension.0 as usize] = amount;
        self
    }

    /// The amount in one place.
    #[must_use]
    pub const fn get(&self, dimension: Dimension) -> u64 {
        self.0[dimension.0 as usize]
    }

    /// True if there is nothing of anything.
    #[must_use]
    pub fn is_zero(&self) -> bool {
        self.0.iter().all(|amount| *amount == 0)
    }

    /// True if no amount is above that of `room`.
    #[must_use]
    pub fn fits_in(&self, room: &Self) -> bool {
        // Without an early exit the compiler compares all eight at once.
        self.0.iter().zip(&room.0).fold(true, |fits, (a, b)| fits & (a <= b))
    }

    /// The sum, unless a place overflows.
    #[must_use]
    pub fn checked_add(&self, other: &Self) -> Option<Self> {
        let mut sum = *self;
        for (a, b) in sum.0.iter_mut().zip(&other.0) {
            *a = a.checked_add(*b)?;
        }
        Some(sum)
    }

    /// The difference, unless a place would be below zero.
    #[must_use]
    pub fn checked_sub(&self, other: &Self) -> Option<Self> {
        let mut rest = *self;
        for (a, b) in rest.0.iter_mut().zip(&other.0) {
            *a = a.checked_sub(*b)?;
        }
        Some(rest)
    }

    /// The sum, which stays at the largest number.
    #[must_use]
    pub fn plus(&self, other: &Self) -> Self {
        self.each(other, u64::saturating_add)
    }

    /// The difference, which stays at zero.
    #[must_use]
    pub fn minus(&self, other: &Self) -> Self {
        self.each(other, u64::saturating_sub)
    }

    /// The larger amount in each place; `Ord::max` would compare whole vectors.
    #[must_use]
    pub fn each_max(&self, other: &Self) -> Self {
        self.each(other, u64::max)
    }

    /// The smaller amount in each place.
    #[must_use]
    pub fn each_min(&self, other: &Self) -> Self {
        self.each(other, u64::min)
    }

    /// `count` times this, which stays at the largest number.
    #[must_use]
    pub fn times(&self, count: u32) -> Self {
        Self(self.0.map(|amount| amount.saturating_mul(u64::from(count))))
    }

    /// The dominant share of `total` in millionths: the largest over the dimensions that `total` has.
    #[must_use]
    pub fn share_of(&self, total: &Self) -> u64 {
        let share = |(used, of): (&u64, &u64)| used.saturating_mul(SHARE_SCALE).checked_div(*of).unwrap_or(0);
        self.0.iter().zip(&total.0).map(share).max().unwrap_or(0)
    }

    /// The first dimension in which this is more than `room`.
    #[must_use]
    pub fn exceeds(&self, room: &Self) -> Option<Dimension> {
        Dimension::all().find(|dimension| self.get(*dimension) > room.get(*dimension))
    }

    /// True if no amount is above [`AMOUNT_MAX`].
    #[must_use]
    pub fn is_sane(&self) -> bool {
        self.0.iter().all(|amount| *amount <= AMOUNT_MAX)
    }

    /// True if this plus `more` stays within `limit` where `limit` names an amount, and it names any.
    pub(crate) fn within_named(&self, more: &Self, limit: &Self) -> bool {
        let mut named = false;
        for ((used, more), limit) in self.0.iter().zip(&more.0).zip(&limit.0) {
            if *limit > 0 {
                named = true;
                if used.saturating_add(*more) > *limit {
                    return false;
                }
            }
        }
        named
    }

    /// True if taking `less` from this leaves `floor` wherever `less` takes and `floor` names an amount.
    pub(crate) fn keeps(&self, less: &Self, floor: &Self) -> bool {
        self.0
            .iter()
            .zip(&less.0)
            .zip(&floor.0)
            .all(|((used, less), floor)| *less == 0 || *floor == 0 || used.saturating_sub(*less) >= *floor)
    }

    fn each(&self, other: &Self, of: impl Fn(u64, u64) -> u64) -> Self {
        let mut result = *self;
        for (a, b) in result.0.iter_mut().zip(&other.0) {
            *a = of(*a, *b);
        }
        result
    }
}

impl fmt::Debug for Resources {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.0.iter()).finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_ninth_name_is_refused_and_a_known_one_keeps_its_place() {
        let mut names = Dimensions::default();
        for name in ["gpu", "port", "license", "ssd", "fpga"] {
            names.intern(name).unwrap();
        }
        assert_eq!(names.intern("gpu").unwrap(), names.find("gpu").unwrap());
        assert_eq!(names.intern("cpu").unwrap(), Dimension::CPU);
        assert_eq!(names.intern("more").unwrap_err().name, "more");
    }

    #[test]
    fn one_dimension_too_large_does_not_fit() {
        let room = Resources::new(4000, 4096, 0);
        assert!(Resources::new(4000, 4096, 0).fits_in(&room));
        assert!(!Resources::new(1, 1, 1).fits_in(&room));
        assert_eq!(Resources::new(1, 5000, 0).exceeds(&room), Some(Dimension::MEMORY));
    }

    #[test]
    fn arithmetic_is_checked() {
        let one = Resources::new(1, 0, 0);
        assert_eq!(Resources::UNLIMITED.checked_add(&one), None);
        assert_eq!(Resources::ZERO.checked_sub(&one), None);
        assert_eq!(one.share_of(&Resources::new(4, 0, 0)), 250_000);
    }

    #[test]
    fn amounts_are_said_in_people_s_units() {
        let names = Dimensions::default();
        assert_eq!(names.say(Dimension::CPU, 1500), "1.500 cpu");
        assert_eq!(names.say(Dimension::MEMORY, 2048), "2 GiB memory");
        assert_eq!(names.say(Dimension::DISK, 1500), "1500 MiB disk");
    }
}
