//! Writing JSON strings and integers into a byte buffer.

use crate::escape::{escape, escaped_byte_len};

/// As hexadecimal digits are written.
pub(crate) const HEX_DIGITS: &[u8; 16] = b"0123456789abcdef";

/// What stands at the end of a string that was cut.
const ELLIPSIS: &str = "…";

/// Appends `text` as a JSON string with its quotes.
pub(crate) fn string(text: &str, out: &mut Vec<u8>) {
    out.push(b'"');
    escape(text, out);
    out.push(b'"');
}

/// Appends `text` as a JSON string; if it would take more than `limit` bytes between its quotes, only its beginning
/// and an ellipsis that fit.
pub(crate) fn string_within(limit: usize, text: &str, out: &mut Vec<u8>) {
    if text.len().saturating_mul(6) <= limit || escaped_prefix(text, limit) == text.len() {
        return string(text, out);
    }
    let kept = escaped_prefix(text, limit.saturating_sub(ELLIPSIS.len()));
    string(split(text, kept).0, out);
    extend(ELLIPSIS, out);
}

/// Lengthens the JSON string at the end of `out` by `text`.
pub(crate) fn extend(text: &str, out: &mut Vec<u8>) {
    let closing = out.pop();
    debug_assert_eq!(closing, Some(b'"'), "only a closed string can be extended");
    escape(text, out);
    out.push(b'"');
}

/// Appends an integer in decimal.
pub(crate) fn integer(value: u64, out: &mut Vec<u8>) {
    let mut digits = [0; 20];
    let mut at = digits.len();
    let mut rest = value;
    loop {
        at -= 1;
        digits[at] = digit(rest % 10);
        rest /= 10;
        if rest == 0 {
            break;
        }
    }
    out.extend_from_slice(&digits[at..]);
}

/// Appends the last `N` decimal digits of `value`, with leading zeros.
pub(crate) fn padded<const N: usize>(value: u64, out: &mut Vec<u8>) {
    let mut digits = [0; N];
    let mut rest = value;
    for slot in digits.iter_mut().rev() {
        *slot = digit(rest % 10);
        rest /= 10;
    }
    out.extend_from_slice(&digits);
}

/// Appends a JSON string of lower-case hexadecimal digits.
pub(crate) fn hex(bytes: &[u8], out: &mut Vec<u8>) {
    out.push(b'"');
    for byte in bytes {
        out.extend_from_slice(&[HEX_DIGITS[usize::from(byte >> 4)], HEX_DIGITS[usize::from(byte & 15)]]);
    }
    out.push(b'"');
}

/// The number of bytes that `text` takes between its quotes.
pub(crate) fn escaped_len(text: &str) -> usize {
    text.bytes().map(escaped_byte_len).sum()
}

/// The length of the longest beginning of `text`, ending between characters, that takes at most `limit` bytes between
/// its quotes.
pub(crate) fn escaped_prefix(text: &str, limit: usize) -> usize {
    let mut taken = 0;
    let fits = text.bytes().position(|byte| {
        taken += escaped_byte_len(byte);
        taken > limit
    });
    floor_char_boundary(text, fits.unwrap_or(text.len()))
}

/// Splits at the last character boundary at or before `at`.
pub(crate) fn split(text: &str, at: usize) -> (&str, &str) {
    text.split_at_checked(floor_char_boundary(text, at))
        .unwrap_or((text, ""))
}

/// The last character boundary at or before `at`; the text's length if `at` is behind it.
fn floor_char_boundary(text: &str, at: usize) -> usize {
    if at >= text.len() {
        return text.len();
    }
    (0..=at).rev().find(|at| text.is_char_boundary(*at)).unwrap_or(0)
}

#[expect(
    clippy::cast_possible_truncation,
    reason = "the argument is a remainder of division by ten"
)]
const fn digit(value: u64) -> u8 {
    b'0' + value as u8
}

#[cfg(test)]
mod tests {
    use super::*;

    fn written(write: impl FnOnce(&mut Vec<u8>)) -> String {
        let mut out = Vec::new();
        write(&mut out);
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn every_ascii_character_is_escaped_as_json_wants_it() {
        let text: String = (0..=0x7f_u8).map(char::from).collect();
        let line = written(|out| string(&text, out));
        assert_eq!(serde_json::from_str::<String>(&line).unwrap(), text);
        assert_eq!(line.len(), escaped_len(&text) + 2);
    }

    #[test]
    fn a_string_grows_its_buffer_by_little_more_than_itself() {
        let mut out = Vec::new();
        string(&"an \"escape\" in each block".repeat(1 << 16), &mut out);
        assert!(
            out.capacity() < 2 * out.len() + 1024,
            "{} of {}",
            out.capacity(),
            out.len()
        );
    }

    #[test]
    fn a_string_is_extended_inside_its_quotes() {
        assert_eq!(
            written(|out| {
                string("", out);
                extend("a", out);
            }),
            r#""a""#
        );
        assert_eq!(
            written(|out| {
                string("a\"", out);
                extend("\"b", out);
            }),
            r#""a\"\"b""#
        );
        assert_eq!(
            written(|out| {
                string("a", out);
                extend("", out);
            }),
            r#""a""#
        );
    }

    #[test]
    fn a_cut_string_ends_in_an_ellipsis_within_its_limit() {
        assert_eq!(written(|out| string_within(8, "abcdefgh", out)), r#""abcdefgh""#);
        assert_eq!(written(|out| string_within(8, "abcdefghi", out)), r#""abcde…""#);
        assert_eq!(written(|out| string_within(8, "abcdéfgh", out)), r#""abcd…""#);
        assert_eq!(written(|out| string_within(8, "a\u{1}\u{1}\u{1}", out)), r#""a…""#);
    }

    #[test]
    fn integers_are_written_in_decimal() {
        for value in [0, 1, 9, 10, 99, 100, 12_345, u64::MAX] {
            assert_eq!(written(|out| integer(value, out)), value.to_string());
        }
        assert_eq!(written(|out| padded::<3>(7, out)), "007");
    }
}
