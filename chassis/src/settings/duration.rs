//! Durations, as people write them: `200ms`, `1h30m`, `7d`.
//!
//! Go's syntax (`time.ParseDuration`), with days. For a field: `#[serde(with = "duration")]`, or `"duration::positive"` where
//! 0 makes no sense.

use std::fmt::{self, Write};
use std::time::Duration;

use serde::de::{Deserializer, Error, Visitor};
use serde::ser::Serializer;

const UNITS: [(&str, u128); 7] = [
    ("d", 86_400_000_000_000),
    ("h", 3_600_000_000_000),
    ("m", 60_000_000_000),
    ("s", 1_000_000_000),
    ("ms", 1_000_000),
    ("us", 1_000),
    ("ns", 1),
];

/// Reads a duration: numbers, fractions allowed, each with a unit of `ns us ms s m h d`, or a plain `0`.
///
/// # Errors
///
/// A sentence that says what to write instead.
pub fn parse(text: &str) -> Result<Duration, String> {
    let mut rest = text.trim();
    if rest == "0" {
        return Ok(Duration::ZERO);
    }
    if rest.is_empty() {
        return Err(malformed(text));
    }
    let mut total = 0_u128;
    while !rest.is_empty() {
        let (number, after) = take_while(rest, |c| c.is_ascii_digit() || c == '.');
        let (unit, after) = take_while(after, char::is_alphabetic);
        if number == text.trim() {
            return Err(format!(
                "{text:?} has no unit; write \"{number}s\" for seconds, \"{number}ms\" for milliseconds"
            ));
        }
        let nanoseconds = part(number, unit).ok_or_else(|| malformed(text))?;
        total = total.checked_add(nanoseconds).ok_or_else(|| too_long(text))?;
        rest = after;
    }
    let seconds = u64::try_from(total / 1_000_000_000).map_err(|_| too_long(text))?;
    let nanoseconds = u32::try_from(total % 1_000_000_000).map_err(|_| too_long(text))?;
    Ok(Duration::new(seconds, nanoseconds))
}

/// Writes a duration so that [`parse`] reads it back: `1h30m`, `0s`.
#[must_use]
pub fn format(duration: Duration) -> String {
    let mut rest = duration.as_nanos();
    let mut text = String::new();
    for (unit, size) in UNITS {
        if rest >= size {
            // Writing to a String can't fail.
            write!(text, "{}{unit}", rest / size).unwrap_or_default();
            rest %= size;
        }
    }
    if text.is_empty() { "0s".to_owned() } else { text }
}

/// Serializes a duration as [`format()`] writes it.
///
/// # Errors
///
/// The serializer's.
pub fn serialize<S: Serializer>(duration: &Duration, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(&format(*duration))
}

/// The same, of a key that may be unset.
///
/// # Errors
///
/// The serializer's.
pub fn serialize_option<S: Serializer>(duration: &Option<Duration>, serializer: S) -> Result<S::Ok, S::Error> {
    match duration {
        Some(duration) => serialize(duration, serializer),
        None => serializer.serialize_none(),
    }
}

/// Deserializes a duration from a string.
///
/// # Errors
///
/// As [`parse`].
pub fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Duration, D::Error> {
    deserializer.deserialize_str(DurationVisitor)
}

/// Durations that aren't 0.
pub mod positive {
    pub use super::serialize;
    use std::time::Duration;

    use serde::de::{Deserializer, Error};

    /// Deserializes a duration of more than 0 from a string.
    ///
    /// # Errors
    ///
    /// As [`parse`](super::parse), and for 0.
    pub fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Duration, D::Error> {
        let duration = super::deserialize(deserializer)?;
        if duration.is_zero() {
            return Err(D::Error::custom(
                "0 is no time at all; write how long it may take, such as \"10s\"",
            ));
        }
        Ok(duration)
    }
}

struct DurationVisitor;

impl Visitor<'_> for DurationVisitor {
    type Value = Duration;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a duration with a unit, such as \"200ms\", \"30s\" or \"7d\"")
    }

    fn visit_str<E: Error>(self, text: &str) -> Result<Duration, E> {
        parse(text).map_err(E::custom)
    }
}

fn take_while(text: &str, keep: impl Fn(char) -> bool) -> (&str, &str) {
    let end = text.find(|c| !keep(c)).unwrap_or(text.len());
    text.split_at_checked(end).unwrap_or((text, ""))
}

/// The nanoseconds of one number with its unit; `None` where either isn't one.
fn part(number: &str, unit: &str) -> Option<u128> {
    let unit = if unit == "µs" || unit == "μs" { "us" } else { unit };
    let (_, size) = UNITS.iter().find(|(name, _)| *name == unit)?;
    let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
    if whole.is_empty() && fraction.is_empty() || whole.len() > 20 || fraction.len() > 18 {
        return None;
    }
    let digits = |digits: &str| {
        if digits.is_empty() {
            Some(0)
        } else {
            digits.parse::<u128>().ok()
        }
    };
    let scale = 10_u128.pow(u32::try_from(fraction.len()).ok()?);
    Some(digits(whole)? * size + digits(fraction)? * size / scale)
}

fn malformed(text: &str) -> String {
    format!(
        "{text:?} is not a duration; write numbers with units (ms, s, m, h, d), such as \"200ms\", \"1h30m\" or \"7d\""
    )
}

fn too_long(text: &str) -> String {
    format!("{text:?} is too long a duration")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_are_read_in_gos_syntax_and_in_days() {
        for (text, expected) in [
            ("0", Duration::ZERO),
            ("0s", Duration::ZERO),
            ("200ms", Duration::from_millis(200)),
            ("1s", Duration::from_secs(1)),
            ("1.5s", Duration::from_millis(1500)),
            (".5s", Duration::from_millis(500)),
            ("1h30m", Duration::from_secs(5_400)),
            ("168h", Duration::from_secs(604_800)),
            ("7d", Duration::from_secs(604_800)),
            ("1d12h", Duration::from_secs(129_600)),
            ("3us", Duration::from_micros(3)),
            ("3µs", Duration::from_micros(3)),
            ("7ns", Duration::from_nanos(7)),
            (" 5m ", Duration::from_secs(300)),
        ] {
            assert_eq!(parse(text), Ok(expected), "{text}");
        }
    }

    #[test]
    fn what_is_no_duration_says_what_to_write() {
        for (text, part) in [
            ("", "write numbers with units"),
            ("fast", "write numbers with units"),
            ("5 minutes", "write numbers with units"),
            ("-1s", "write numbers with units"),
            ("1s2", "write numbers with units"),
            ("1.2.3s", "write numbers with units"),
            (".s", "write numbers with units"),
            ("30", "has no unit; write \"30s\""),
            ("999999999999999999d", "too long"),
        ] {
            let error = parse(text).expect_err(text);
            assert!(error.contains(part), "{text}: {error}");
        }
    }

    #[test]
    fn a_duration_is_written_so_that_it_is_read_back() {
        for (duration, text) in [
            (Duration::ZERO, "0s"),
            (Duration::from_millis(200), "200ms"),
            (Duration::from_secs(5_400), "1h30m"),
            (Duration::from_secs(604_800), "7d"),
            (Duration::new(1, 1), "1s1ns"),
        ] {
            assert_eq!(format(duration), text);
            assert_eq!(parse(text), Ok(duration));
        }
        assert_eq!(parse(&format(Duration::MAX)), Ok(Duration::MAX));
    }
}
