//! Amounts of resources and times, as people write them.

/// An amount that means nothing.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AmountError {
    #[error("'{text}' is no number of cores: write 2, 0.5 or 1.25")]
    Cpu { text: String },
    #[error("'{text}' is no size: write a number and a unit, as 512MiB, 2GiB or 1TiB")]
    Size { text: String },
    #[error("'{text}' is no amount of {name}: write a whole number")]
    Count { name: String, text: String },
    #[error("'{text}' is no time: write a number and a unit, as 500ms, 30s, 10min, 2h or 1d")]
    Time { text: String },
    #[error("{text} is more than a machine can have")]
    TooMuch { text: String },
}

/// More of anything is a mistake: the scheduler's sums stay far from overflow.
const AMOUNT_MAX: u64 = 1 << 40;

/// An amount of a resource in the scheduler's units: cpu in 1/1000 cores, memory and disk in MiB (rounded up), others as they are.
///
/// # Errors
/// See [`AmountError`].
pub fn parse_amount(name: &str, text: &str) -> Result<u64, AmountError> {
    let amount = match name {
        "cpu" => cpu(text)?,
        "memory" | "disk" => bytes(text)?.div_ceil(1 << 20),
        _ => text.parse().map_err(|_| AmountError::Count { name: name.to_owned(), text: text.to_owned() })?,
    };
    if amount > AMOUNT_MAX { Err(AmountError::TooMuch { text: text.to_owned() }) } else { Ok(amount) }
}

fn cpu(text: &str) -> Result<u64, AmountError> {
    let wrong = || AmountError::Cpu { text: text.to_owned() };
    let (whole, part) = text.split_once('.').unwrap_or((text, ""));
    let digits = |text: &str| text.bytes().all(|byte| byte.is_ascii_digit());
    if whole.is_empty() || !digits(whole) || !digits(part) || part.len() > 3 || text.ends_with('.') {
        return Err(wrong());
    }
    let whole: u64 = whole.parse().map_err(|_| wrong())?;
    let thousandths: u64 = format!("{part:0<3}").parse().map_err(|_| wrong())?;
    whole.checked_mul(1_000).and_then(|whole| whole.checked_add(thousandths)).ok_or_else(wrong)
}

/// A size in bytes.
///
/// # Errors
/// See [`AmountError`].
pub fn bytes(text: &str) -> Result<u64, AmountError> {
    let wrong = || AmountError::Size { text: text.to_owned() };
    let end = text.find(|c: char| !c.is_ascii_digit()).ok_or_else(wrong)?;
    let (number, unit) = text.split_at(end);
    let number: u64 = number.parse().map_err(|_| wrong())?;
    let unit: u64 = match unit.trim_start() {
        "B" => 1,
        "KiB" => 1 << 10,
        "MiB" => 1 << 20,
        "GiB" => 1 << 30,
        "TiB" => 1 << 40,
        "kB" | "KB" => 1_000,
        "MB" => 1_000_000,
        "GB" => 1_000_000_000,
        "TB" => 1_000_000_000_000,
        _ => return Err(wrong()),
    };
    number.checked_mul(unit).ok_or_else(wrong)
}

/// A time in milliseconds.
///
/// # Errors
/// See [`AmountError`].
pub fn millis(text: &str) -> Result<u64, AmountError> {
    let wrong = || AmountError::Time { text: text.to_owned() };
    let end = text.find(|c: char| !c.is_ascii_digit()).ok_or_else(wrong)?;
    let (number, unit) = text.split_at(end);
    let number: u64 = number.parse().map_err(|_| wrong())?;
    let unit: u64 = match unit.trim_start() {
        "ms" => 1,
        "s" => 1_000,
        "min" => 60_000,
        "h" => 3_600_000,
        "d" => 86_400_000,
        _ => return Err(wrong()),
    };
    number.checked_mul(unit).ok_or_else(wrong)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn amounts_as_people_write_them() {
        for (name, text, amount) in [
            ("cpu", "1", 1_000),
            ("cpu", "0.5", 500),
            ("cpu", "1.25", 1_250),
            ("memory", "512MiB", 512),
            ("memory", "1 GiB", 1_024),
            ("memory", "1B", 1),
            ("disk", "2TB", 1_907_349),
            ("gpu", "3", 3),
        ] {
            assert_eq!(parse_amount(name, text), Ok(amount), "{name} {text}");
        }
        for (name, text) in [
            ("cpu", ""),
            ("cpu", "-1"),
            ("cpu", "1."),
            ("cpu", "1.2345"),
            ("cpu", "two"),
            ("memory", "512"),
            ("memory", "1 gib"),
            ("memory", "99999999999999999999GiB"),
            ("memory", "99999999TiB"),
            ("gpu", "1.5"),
            ("gpu", "-1"),
        ] {
            assert!(parse_amount(name, text).is_err(), "{name} {text}");
        }
        assert_eq!(millis("10min"), Ok(600_000));
        assert!(millis("10").is_err() && millis("10m").is_err());
    }
}
