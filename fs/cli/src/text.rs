//! Sizes, as flags name them.

/// A number of bytes, or one with K, M, G or T (powers of 1024).
///
/// # Errors
/// What a size looks like.
pub(crate) fn parse_size(text: &str) -> Result<u64, String> {
    let wrong =
        || format!("{text:?} is no size: write a number of bytes, or one with K, M, G or T (powers of 1024)");
    let (digits, shift) = match text.char_indices().last() {
        Some((at, 'k' | 'K')) => (&text[..at], 10),
        Some((at, 'm' | 'M')) => (&text[..at], 20),
        Some((at, 'g' | 'G')) => (&text[..at], 30),
        Some((at, 't' | 'T')) => (&text[..at], 40),
        _ => (text, 0),
    };
    let number: u64 = digits.parse().map_err(|_| wrong())?;
    number.checked_mul(1 << shift).ok_or_else(wrong)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_have_a_unit_or_none() {
        assert_eq!(parse_size("512M"), Ok(512 << 20));
        assert_eq!(parse_size("7"), Ok(7));
        assert_eq!(parse_size("2t"), Ok(2 << 40));
        for bad in ["", "M", "-1", "1.5G", "99999999999T", "1é"] {
            assert!(parse_size(bad).unwrap_err().contains("is no size"), "{bad}");
        }
    }
}
