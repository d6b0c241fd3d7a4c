//! Times and durations as text: RFC 3339 with exactly nine digits, and exact decimal milliseconds.

use std::time::Duration;

use jiff::Timestamp;

use crate::json::{integer, padded};

const NANOS_PER_SECOND: u64 = 1_000_000_000;
const SECONDS_PER_DAY: u64 = 86_400;

/// Appends unix nanoseconds as RFC 3339 in UTC with nine digits of a second: `2026-01-31T12:00:00.000000000Z`.
///
/// Any `u64` has such a form; the last one is in the year 2554.
pub(crate) fn write_timestamp(unix_nanos: u64, out: &mut Vec<u8>) {
    let seconds = unix_nanos / NANOS_PER_SECOND;
    let (year, month, day) = civil(seconds / SECONDS_PER_DAY);
    let second_of_day = seconds % SECONDS_PER_DAY;
    padded::<4>(year, out);
    out.push(b'-');
    padded::<2>(month, out);
    out.push(b'-');
    padded::<2>(day, out);
    out.push(b'T');
    padded::<2>(second_of_day / 3600, out);
    out.push(b':');
    padded::<2>(second_of_day / 60 % 60, out);
    out.push(b':');
    padded::<2>(second_of_day % 60, out);
    out.push(b'.');
    padded::<9>(unix_nanos % NANOS_PER_SECOND, out);
    out.push(b'Z');
}

/// Year, month and day of a day since 1970-01-01, in the Gregorian calendar.
///
/// Howard Hinnant's `civil_from_days`, for days that are not negative.
const fn civil(days: u64) -> (u64, u64, u64) {
    let shifted = days + 719_468; // days since 0000-03-01
    let era = shifted / 146_097;
    let day_of_era = shifted % 146_097;
    let year_of_era = (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month_from_march = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * month_from_march + 2) / 5 + 1;
    let (month, carry) = if month_from_march < 10 {
        (month_from_march + 3, 0)
    } else {
        (month_from_march - 9, 1)
    };
    (year_of_era + era * 400 + carry, month, day)
}

/// Reads an RFC 3339 time, with any offset and any number of digits, as unix nanoseconds.
///
/// `None` for other text, and for times before 1970 or after the year 2554.
pub(crate) fn parse_timestamp(text: &str) -> Option<u64> {
    if let Some(written) = parse_written(text) {
        return Some(written);
    }
    let time: Timestamp = text.parse().ok()?;
    u64::try_from(time.as_nanosecond()).ok()
}

/// Reads a time as [`write_timestamp`] writes it, up to the year 2499; what else there is takes longer.
fn parse_written(text: &str) -> Option<u64> {
    let text: &[u8; 30] = text.as_bytes().try_into().ok()?;
    let marks = [text[4], text[7], text[10], text[13], text[16], text[19], text[29]];
    if marks != *b"--T::.Z" {
        return None;
    }
    let [year, month, day] = [digits::<4>(text, 0)?, digits::<2>(text, 5)?, digits::<2>(text, 8)?];
    let [hour, minute, second] = [digits::<2>(text, 11)?, digits::<2>(text, 14)?, digits::<2>(text, 17)?];
    let nanos = digits::<9>(text, 20)?;
    let is_leap = year.is_multiple_of(4) && (!year.is_multiple_of(100) || year.is_multiple_of(400));
    let last_day = match month {
        2 => 28 + u64::from(is_leap),
        4 | 6 | 9 | 11 => 30,
        _ => 31,
    };
    let is_day = matches!(year, 1970..2500) && matches!(month, 1..=12) && (1..=last_day).contains(&day);
    if !is_day || hour >= 24 || minute >= 60 || second >= 60 {
        return None;
    }
    let seconds = days(year, month, day) * SECONDS_PER_DAY + hour * 3600 + minute * 60 + second;
    Some(seconds * NANOS_PER_SECOND + nanos)
}

/// The number that `N` digits make.
fn digits<const N: usize>(text: &[u8; 30], from: usize) -> Option<u64> {
    let digits: &[u8; N] = text.get(from..from + N)?.try_into().ok()?;
    let (mut sum, mut greatest) = (0, 0);
    for digit in digits {
        let digit = digit.wrapping_sub(b'0');
        greatest = digit.max(greatest);
        sum = sum * 10 + u64::from(digit);
    }
    (greatest < 10).then_some(sum)
}

/// The day since 1970-01-01 of a day since then: the inverse of [`civil`], Howard Hinnant's `days_from_civil`.
const fn days(year: u64, month: u64, day: u64) -> u64 {
    let (year, month_from_march) = if month > 2 {
        (year, month - 3)
    } else {
        (year - 1, month + 9)
    };
    let (era, year_of_era) = (year / 400, year % 400);
    let day_of_year = (153 * month_from_march + 2) / 5 + day - 1;
    let day_of_era = year_of_era * 365 + year_of_era / 4 - year_of_era / 100 + day_of_year;
    era * 146_097 + day_of_era - 719_468
}

/// Appends a duration as decimal milliseconds, exact to the nanosecond, without trailing zeros: `12`, `0.3`, `1500.000001`.
pub(crate) fn write_millis(duration: Duration, out: &mut Vec<u8>) {
    if duration.as_secs() == 0 {
        integer(duration.subsec_millis().into(), out);
    } else {
        integer(duration.as_secs(), out);
        padded::<3>(duration.subsec_millis().into(), out);
    }
    let fraction = duration.subsec_nanos() % 1_000_000;
    if fraction > 0 {
        out.push(b'.');
        padded::<6>(fraction.into(), out);
        while out.last() == Some(&b'0') {
            out.pop();
        }
    }
}

/// Reads a JSON number of milliseconds: exactly, down to the nanosecond, where it has no exponent.
///
/// `None` for what is not a number, is negative, or is longer than a [`Duration`] can be.
pub(crate) fn parse_millis(number: &str) -> Option<Duration> {
    let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
    let is_plain = !whole.is_empty() && whole.bytes().chain(fraction.bytes()).all(|byte| byte.is_ascii_digit());
    if !is_plain {
        let millis: f64 = number.parse().ok()?;
        return Duration::try_from_secs_f64(millis / 1000.0).ok();
    }
    let (seconds, millis) = whole.split_at(whole.len().saturating_sub(3));
    let seconds: u64 = if seconds.is_empty() { 0 } else { seconds.parse().ok()? };
    let millis: u32 = millis.parse().ok()?;
    let nanos = fraction
        .bytes()
        .chain(std::iter::repeat(b'0'))
        .take(6)
        .fold(0, |sum, digit| sum * 10 + u32::from(digit - b'0'));
    Some(Duration::new(seconds, millis * 1_000_000 + nanos))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn timestamp(nanos: u64) -> String {
        let mut out = Vec::new();
        write_timestamp(nanos, &mut out);
        String::from_utf8(out).unwrap()
    }

    fn millis(duration: Duration) -> String {
        let mut out = Vec::new();
        write_millis(duration, &mut out);
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn times_are_rfc_3339_with_nine_digits() {
        assert_eq!(timestamp(0), "1970-01-01T00:00:00.000000000Z");
        assert_eq!(timestamp(951_782_400_000_000_001), "2000-02-29T00:00:00.000000001Z");
        assert_eq!(timestamp(u64::MAX), "2554-07-21T23:34:33.709551615Z");
    }

    #[test]
    fn every_day_is_the_day_that_jiff_says_it_is() {
        for day in 0..=u64::MAX / NANOS_PER_SECOND / SECONDS_PER_DAY {
            let nanos = day * SECONDS_PER_DAY * NANOS_PER_SECOND;
            let jiff = Timestamp::from_nanosecond(nanos.into()).unwrap();
            assert_eq!(timestamp(nanos), format!("{jiff:.9}"));
            assert_eq!(parse_timestamp(&timestamp(nanos)), Some(nanos));
        }
    }

    #[test]
    fn a_time_as_it_is_written_is_read_as_jiff_reads_it_whatever_is_wrong_with_it() {
        let jiff = |text: &str| {
            let time: Timestamp = text.parse().ok()?;
            u64::try_from(time.as_nanosecond()).ok()
        };
        let mut good = 0;
        for written in [
            "2024-02-29T23:59:59.123456789Z",
            "2026-01-31T12:00:00.000000000Z",
            "1970-01-01T00:00:00.000000001Z",
        ] {
            for (at, byte) in (0..written.len()).flat_map(|at| (b' '..=b'z').map(move |byte| (at, byte))) {
                let mut text = written.to_owned().into_bytes();
                text[at] = byte;
                let text = String::from_utf8(text).unwrap();
                if let Some(read) = parse_written(&text) {
                    assert_eq!(Some(read), jiff(&text), "{text}");
                    good += 1;
                }
            }
        }
        assert!(good > 300, "{good}");
    }

    #[test]
    fn times_with_offsets_and_fewer_digits_are_read() {
        assert_eq!(parse_timestamp("1970-01-01T01:00:00.5+01:00"), Some(500_000_000));
        assert_eq!(parse_timestamp("1970-01-01T00:00:01Z"), Some(NANOS_PER_SECOND));
        assert_eq!(parse_timestamp(&timestamp(u64::MAX)), Some(u64::MAX));
    }

    #[test]
    fn what_is_no_time_from_1970_on_is_refused() {
        for text in [
            "",
            "now",
            "1970-01-01",
            "1969-12-31T23:59:59Z",
            "1970-01-01T00:00:00",
            "2600-01-01T00:00:00Z",
        ] {
            assert_eq!(parse_timestamp(text), None, "{text}");
        }
    }

    #[test]
    fn durations_are_exact_milliseconds_without_trailing_zeros() {
        for (duration, text) in [
            (Duration::ZERO, "0"),
            (Duration::from_nanos(1), "0.000001"),
            (Duration::from_micros(300), "0.3"),
            (Duration::from_millis(12), "12"),
            (Duration::from_millis(1000), "1000"),
            (Duration::from_nanos(61_000_500_000), "61000.5"),
            (Duration::MAX, "18446744073709551615999.999999"),
        ] {
            assert_eq!(millis(duration), text);
            assert_eq!(parse_millis(text), Some(duration), "{text}");
        }
    }

    #[test]
    fn foreign_numbers_of_milliseconds_are_read() {
        assert_eq!(parse_millis("1.5e3"), Some(Duration::from_millis(1500)));
        assert_eq!(parse_millis("0.00000099"), Some(Duration::ZERO));
        for number in ["-1", "\"1\"", "true", "1e99", "null", "", "99999999999999999999999999"] {
            assert_eq!(parse_millis(number), None, "{number}");
        }
    }
}
