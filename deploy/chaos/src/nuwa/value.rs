//! What files hold: a number, each written by one change only, and a filling that tells if a value is whole.

/// Most are small; one in so many is larger than a page.
const LARGE_EVERY: u64 = 61;
const LARGE_BYTES: usize = 9000;
const FILL_BYTES: u64 = 80;

/// The value that stands for a number, which is not 0.
pub(crate) fn value(number: u64) -> Vec<u8> {
    let fill = if number.is_multiple_of(LARGE_EVERY) {
        LARGE_BYTES
    } else {
        (number.wrapping_mul(7) % FILL_BYTES) as usize
    };
    let mut value = format!("{number}:").into_bytes();
    let byte = b'a' + u8::try_from(number % 26).expect("below 26");
    value.resize(value.len() + fill, byte);
    value
}

/// The number a value stands for; 0 if it is empty, and in words what it is if it stands for none.
pub(crate) fn number(got: &[u8]) -> Result<u64, String> {
    if got.is_empty() {
        return Ok(0);
    }
    let digits = got.split(|byte| *byte == b':').next().unwrap_or_default();
    let number = std::str::from_utf8(digits).ok().and_then(|digits| digits.parse().ok());
    number.filter(|number| value(*number) == got).ok_or_else(|| {
        let start = String::from_utf8_lossy(&got[..got.len().min(60)]);
        format!("a value that nobody wrote, of {} bytes: {start:?}", got.len())
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_value_stands_for_its_number_and_a_part_of_one_for_none() {
        for n in [1, 25, 26, 60, LARGE_EVERY, 12_345] {
            let whole = value(n);
            assert_eq!(number(&whole), Ok(n));
            assert!(number(&[whole.clone(), whole.clone()].concat()).is_err());
            assert!(number(&whole[..1]).is_err() || whole.len() == 1);
        }
        assert_eq!(number(b""), Ok(0));
        assert!(number(b"x").is_err());
    }
}
