//! Durations and sizes with their unit in the value: `"5s"`, `"64KiB"`.

use std::time::Duration;

/// Why a text is no duration or size.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
pub enum UnitError {
    #[error("it begins with a whole number")]
    Number,
    #[error("it ends with a unit: ms, s, m, h or d, as in \"5s\"")]
    DurationUnit,
    #[error("it ends with a unit: B, KiB, MiB or GiB, as in \"64KiB\"")]
    SizeUnit,
    #[error("it is too large")]
    TooLarge,
}

fn split(text: &str) -> Result<(u64, &str), UnitError> {
    let digits = text.bytes().take_while(u8::is_ascii_digit).count();
    let (number, unit) = text.split_at(digits);
    if number.is_empty() {
        return Err(UnitError::Number);
    }
    let number = number.parse().map_err(|_| UnitError::TooLarge)?;
    Ok((number, unit.trim_start()))
}

pub fn duration(text: &str) -> Result<Duration, UnitError> {
    let (number, unit) = split(text)?;
    let milliseconds: u64 = match unit {
        "ms" => 1,
        "s" => 1000,
        "m" => 60 * 1000,
        "h" => 60 * 60 * 1000,
        "d" => 24 * 60 * 60 * 1000,
        _ => return Err(UnitError::DurationUnit),
    };
    number
        .checked_mul(milliseconds)
        .map(Duration::from_millis)
        .ok_or(UnitError::TooLarge)
}

pub fn size(text: &str) -> Result<u64, UnitError> {
    let (number, unit) = split(text)?;
    let shift = match unit {
        "B" => 0,
        "KiB" => 10,
        "MiB" => 20,
        "GiB" => 30,
        _ => return Err(UnitError::SizeUnit),
    };
    number.checked_mul(1 << shift).ok_or(UnitError::TooLarge)
}

/// A size as [`size`] reads it, in the largest unit that divides it.
pub fn print_size(bytes: u64) -> String {
    let units = [(30, "GiB"), (20, "MiB"), (10, "KiB")];
    let divides = |shift: u32| bytes > 0 && bytes.trailing_zeros() >= shift;
    match units.into_iter().find(|&(shift, _)| divides(shift)) {
        Some((shift, unit)) => format!("{}{unit}", bytes >> shift),
        None => format!("{bytes}B"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_unit_is_part_of_the_value() {
        let durations = [
            ("5s", Ok(Duration::from_secs(5))),
            ("250ms", Ok(Duration::from_millis(250))),
            ("2 h", Ok(Duration::from_secs(7200))),
            ("5", Err(UnitError::DurationUnit)),
            ("5sec", Err(UnitError::DurationUnit)),
            ("-5s", Err(UnitError::Number)),
            ("1.5s", Err(UnitError::DurationUnit)),
            ("", Err(UnitError::Number)),
            ("99999999999999999999s", Err(UnitError::TooLarge)),
            ("99999999999999999d", Err(UnitError::TooLarge)),
        ];
        for (text, want) in durations {
            assert_eq!(duration(text), want, "{text}");
        }
        let sizes = [
            ("64KiB", Ok(65536)),
            ("0B", Ok(0)),
            ("1MB", Err(UnitError::SizeUnit)),
            ("KiB", Err(UnitError::Number)),
        ];
        for (text, want) in sizes {
            assert_eq!(size(text), want, "{text}");
        }
    }

    #[test]
    fn a_size_is_printed_as_it_is_read() {
        for text in ["0B", "1023B", "64KiB", "1MiB", "1025KiB", "4GiB"] {
            assert_eq!(print_size(size(text).unwrap()), text);
        }
    }
}
