//! The escapes of JSON strings (RFC 8259, 7), undone and done.

use std::fmt::Write;

/// A string's text. What is no escape stays as it is, a lone surrogate becomes U+FFFD, and an escape that is cut ends the text.
pub(super) fn undone(raw: &str) -> String {
    let mut out = String::with_capacity(raw.len());
    let mut rest = raw;
    while let Some((before, after)) = rest.split_once('\\') {
        out.push_str(before);
        let mut chars = after.chars();
        match chars.next() {
            Some('n') => out.push('\n'),
            Some('r') => out.push('\r'),
            Some('t') => out.push('\t'),
            Some('b') => out.push('\u{8}'),
            Some('f') => out.push('\u{c}'),
            Some('u') => {
                rest = unit(chars.as_str(), &mut out);
                continue;
            }
            Some(other) => out.push(other),
            None => {}
        }
        rest = chars.as_str();
    }
    out.push_str(rest);
    out
}

/// Appends the character of `XXXX` or `XXXX\uXXXX`; gives what stands behind it.
fn unit<'r>(digits: &'r str, out: &mut String) -> &'r str {
    let hex = |text: &'r str| {
        let (digits, rest) = text.split_at_checked(4)?;
        let is_hex = digits.bytes().all(|byte| byte.is_ascii_hexdigit());
        Some((u16::from_str_radix(digits, 16).ok().filter(|_| is_hex)?, rest))
    };
    let Some((first, rest)) = hex(digits) else {
        return digits;
    };
    let second = rest.strip_prefix("\\u").and_then(hex);
    let pair = second.and_then(|(second, rest)| Some((char::decode_utf16([first, second]).next()?.ok()?, rest)));
    match pair {
        Some((c, rest)) if c.len_utf16() == 2 => {
            out.push(c);
            rest
        }
        _ => {
            out.push(char::from_u32(first.into()).unwrap_or(char::REPLACEMENT_CHARACTER));
            rest
        }
    }
}

/// The text as it stands in a JSON string.
pub(super) fn escaped(text: &str) -> String {
    let mut out = String::with_capacity(text.len() + 16);
    for c in text.chars() {
        match c {
            '"' => out.push_str("\\\""),
            '\\' => out.push_str("\\\\"),
            '\n' => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            '\t' => out.push_str("\\t"),
            // Writing to a String doesn't fail.
            c if c < ' ' => drop(write!(out, "\\u{:04x}", u32::from(c))),
            c => out.push(c),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn escapes_are_undone() {
        assert_eq!(undone(r#"a\"b\\c\/d\n\u0041\ud83d\ude00\u00e9"#), "a\"b\\c/d\nA😀é");
    }

    #[test]
    fn broken_escapes_lose_nothing_but_themselves() {
        assert_eq!(undone(r"a\qb\ud800c\u00zzd\"), "aqb\u{fffd}c00zzd");
        assert_eq!(undone(r"\ud800\u0041"), "\u{fffd}A");
    }

    #[test]
    fn what_is_escaped_is_undone_to_the_same() {
        let text = "a\"b\\c\n\r\t\u{1}é😀";
        assert_eq!(undone(&escaped(text)), text);
        assert_eq!(
            serde_json::from_str::<String>(&format!("\"{}\"", escaped(text))).unwrap(),
            text
        );
    }
}
