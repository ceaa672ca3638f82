//! What a machine has to grant, unless its administrator says otherwise.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

/// All cores, nine tenths of the memory and of the free space: the rest is the system's.
#[must_use]
pub fn of_machine(data: &Path) -> BTreeMap<String, u64> {
    let cores = std::thread::available_parallelism().map_or(1, std::num::NonZero::get) as u64;
    let memory_kib = fs::read_to_string("/proc/meminfo").ok().and_then(|text| {
        let line = text.lines().find_map(|line| line.strip_prefix("MemTotal:"))?;
        line.trim().trim_end_matches("kB").trim().parse::<u64>().ok()
    });
    // The directory may not be there yet: the nearest one that is.
    let disk = data.ancestors().find_map(|path| nix::sys::statvfs::statvfs(path).ok());
    #[allow(clippy::useless_conversion, reason = "of another width on other machines")]
    let disk_bytes =
        disk.map_or(0, |disk| u64::from(disk.blocks_available()) * u64::from(disk.fragment_size()));
    BTreeMap::from([
        ("cpu".to_owned(), cores * 1000),
        ("memory".to_owned(), memory_kib.unwrap_or(0) / 1024 * 9 / 10),
        ("disk".to_owned(), (disk_bytes >> 20) * 9 / 10),
    ])
}

/// A size such as `512M`, `1.5G` or `100` (MiB), in MiB.
///
/// # Errors
/// What is wrong with it, for people.
pub fn parse_mib(text: &str) -> Result<u64, String> {
    let wrong = || format!("{text:?} is no size: write MiB (512), or 512M, 1.5G, 2T");
    let digits = text.trim_end_matches(|c: char| c.is_ascii_alphabetic());
    let factor = match text[digits.len()..].trim_end_matches("iB").to_ascii_uppercase().as_str() {
        "" | "M" => 1.0,
        "G" => 1024.0,
        "T" => 1024.0 * 1024.0,
        _ => return Err(wrong()),
    };
    let number: f64 = digits.parse().map_err(|_| wrong())?;
    let mib = number * factor;
    if !(1.0..=1e12).contains(&mib) {
        return Err(wrong());
    }
    #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "checked just now")]
    Ok(mib as u64)
}

/// `NAME=AMOUNT`.
///
/// # Errors
/// What is wrong with it, for people.
pub fn parse_named(text: &str) -> Result<(String, u64), String> {
    let wrong = || format!("{text:?} is no resource: write NAME=AMOUNT, for example gpu=2");
    let (name, amount) = text.split_once('=').ok_or_else(wrong)?;
    let plain = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || matches!(c, '-' | '_' | '.');
    if name.is_empty() || !name.chars().all(plain) {
        return Err(wrong());
    }
    Ok((name.to_owned(), amount.parse().map_err(|_| wrong())?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_and_names() {
        assert_eq!(parse_mib("512"), Ok(512));
        assert_eq!(parse_mib("512M"), Ok(512));
        assert_eq!(parse_mib("1.5G"), Ok(1536));
        assert_eq!(parse_mib("2TiB"), Ok(2 << 20));
        for bad in ["", "G", "-1", "0", "1K", "1e99", "nan"] {
            assert!(parse_mib(bad).is_err(), "{bad:?}");
        }
        assert_eq!(parse_named("gpu=2"), Ok(("gpu".to_owned(), 2)));
        for bad in ["gpu", "=1", "gpu=", "g u=1", "gpu=x"] {
            assert!(parse_named(bad).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn this_machine_has_something() {
        let capacity = of_machine(Path::new("/no/such/directory/yet"));
        assert!(capacity.values().all(|amount| *amount > 0), "{capacity:?}");
    }
}
