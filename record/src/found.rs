//! The envelope of a line as sidelog writes it, found without parsing the line: its strings are passed over by their quotes,
//! eight bytes at a time.
//!
//! Invariant: what is answered is what the strict reader ([`crate::reader`]) answers, and everything that is not plainly a
//! record is left to it, so that it alone says what is wrong: white space, arrays, `null`, numbers with an exponent, an escape in a
//! key or in a value of the envelope (`tests/envelope.rs`).

use std::borrow::Cow;

use crate::{Envelope, time};

/// The digit that [`crate::frame::SCHEMA`] is.
const SCHEMA: &str = "1";

/// The envelope, if the line is plainly a record.
pub(crate) fn envelope(line: &str) -> Option<Envelope<'_>> {
    // No control character stands in a string of JSON, and outside of one it would be white space.
    if line.bytes().fold(u8::MAX, u8::min) < b' ' {
        return None;
    }
    let mut scan = Scan { line, at: 0 };
    let mut envelope = Envelope::empty();
    let (mut timestamp, mut observed) = (None, None);
    scan.expect(b'{')?;
    loop {
        let key = scan.text()?;
        scan.expect(b':')?;
        // By length first, which tells most of the other keys at once.
        match (key.len(), key) {
            (9, "timestamp") => timestamp = Some(time::parse_timestamp(scan.text()?)?),
            (18, "observed_timestamp") => observed = Some(time::parse_timestamp(scan.text()?)?),
            (6, "schema") if scan.number()? == SCHEMA => {}
            (6, "schema") => return None,
            (5, "level") => envelope.level = Some(scan.text()?.parse().ok()?),
            (12, "service.name") => envelope.service = scan.borrowed()?,
            (27, "deployment.environment.name") => envelope.environment = scan.borrowed()?,
            (8, "trace_id") => envelope.trace_id = scan.hex::<16>()?,
            (7, "span_id") => envelope.span_id = scan.hex::<8>()?,
            (10, "request_id") => envelope.request_id = scan.borrowed()?,
            (19, "http.request.method") => envelope.method = scan.borrowed()?,
            (10, "http.route") => envelope.route = scan.borrowed()?,
            (25, "http.response.status_code") => envelope.status = Some(scan.number()?.parse().ok()?),
            _ => scan.skip()?,
        }
        match scan.next()? {
            b',' => {}
            b'}' if scan.at == line.len() => break,
            _ => return None,
        }
    }
    envelope.timestamp_ns = observed.or(timestamp)?;
    Some(envelope)
}

/// A place in a line.
struct Scan<'a> {
    line: &'a str,
    at: usize,
}

impl<'a> Scan<'a> {
    fn peek(&self) -> Option<u8> {
        self.line.as_bytes().get(self.at).copied()
    }

    fn next(&mut self) -> Option<u8> {
        let byte = self.peek()?;
        self.at += 1;
        Some(byte)
    }

    fn expect(&mut self, byte: u8) -> Option<()> {
        (self.next()? == byte).then_some(())
    }

    /// A string without escapes.
    #[inline]
    fn text(&mut self) -> Option<&'a str> {
        self.expect(b'"')?;
        let start = self.at;
        self.seek_mark()?;
        let text = self.line.get(start..self.at)?;
        self.expect(b'"')?;
        Some(text)
    }

    #[expect(
        clippy::option_option,
        reason = "the outer one is for a line that is not plain; the inner one is the field's own"
    )]
    fn borrowed(&mut self) -> Option<Option<Cow<'a, str>>> {
        self.text().map(|text| Some(Cow::Borrowed(text)))
    }

    #[expect(
        clippy::option_option,
        reason = "the outer one is for a line that is not plain; the inner one is the field's own"
    )]
    fn hex<const N: usize>(&mut self) -> Option<Option<Cow<'a, str>>> {
        let text = self.text()?;
        let digits = text.bytes().map(|byte| byte.is_ascii_hexdigit());
        let is_hex = text.len() == 2 * N && digits.fold(true, |all, is_digit| all & is_digit);
        is_hex.then_some(Some(Cow::Borrowed(text)))
    }

    /// A whole number, not negative.
    fn number(&mut self) -> Option<&'a str> {
        let start = self.at;
        self.digits()?;
        self.line.get(start..self.at)
    }

    /// Digits without a leading zero.
    fn digits(&mut self) -> Option<()> {
        let start = self.at;
        self.pass_digits();
        let length = self.at - start;
        let is_padded = length > 1 && self.line.as_bytes().get(start) == Some(&b'0');
        (length > 0 && !is_padded).then_some(())
    }

    fn pass_digits(&mut self) {
        while self.peek().is_some_and(|byte| byte.is_ascii_digit()) {
            self.at += 1;
        }
    }

    /// Passes over a value, or over an object of plain values.
    fn skip(&mut self) -> Option<()> {
        if self.peek()? != b'{' {
            return self.skip_plain();
        }
        self.at += 1;
        if self.peek()? == b'}' {
            self.at += 1;
            return Some(());
        }
        loop {
            self.skip_string()?;
            self.expect(b':')?;
            self.skip_plain()?;
            match self.next()? {
                b',' => {}
                b'}' => return Some(()),
                _ => return None,
            }
        }
    }

    fn skip_plain(&mut self) -> Option<()> {
        match self.peek()? {
            b'"' => self.skip_string(),
            b'0'..=b'9' => self.skip_number(),
            b't' => self.skip_word("true"),
            b'f' => self.skip_word("false"),
            _ => None,
        }
    }

    fn skip_word(&mut self, word: &str) -> Option<()> {
        let is_there = self.line.as_bytes().get(self.at..)?.starts_with(word.as_bytes());
        self.at += word.len();
        is_there.then_some(())
    }

    fn skip_number(&mut self) -> Option<()> {
        self.digits()?;
        if self.peek() == Some(b'.') {
            self.at += 1;
            let start = self.at;
            self.pass_digits();
            return (self.at > start).then_some(());
        }
        Some(())
    }

    fn skip_string(&mut self) -> Option<()> {
        self.expect(b'"')?;
        self.seek_end();
        loop {
            self.seek_mark()?;
            if self.next()? == b'"' {
                return Some(());
            }
            match self.next()? {
                b'"' | b'\\' | b'/' | b'b' | b'f' | b'n' | b'r' | b't' => {}
                b'u' => {
                    let digits = self.line.as_bytes().get(self.at..self.at + 4)?;
                    self.at += 4;
                    digits.iter().all(u8::is_ascii_hexdigit).then_some(())?;
                }
                _ => return None,
            }
        }
    }

    /// Goes to the string's end, or to somewhere before it: no further than to the first eight bytes with an escape that isn't common.
    ///
    /// A quote behind a backslash is a part of the string as long as no backslash is escaped itself.
    fn seek_end(&mut self) {
        let bytes = self.line.as_bytes();
        let (before, _) = bytes.get(self.at - 1..).unwrap_or_default().as_chunks::<8>();
        let (words, _) = bytes.get(self.at..).unwrap_or_default().as_chunks::<8>();
        for (before, word) in before.iter().zip(words) {
            let word = u64::from_le_bytes(*word);
            let quotes = equal(word, b'"');
            let escaped = equal(u64::from_le_bytes(*before), b'\\');
            let others = escaped & !quotes;
            if others != 0 && others & !(equal(word, b'n') | equal(word, b't') | equal(word, b'r')) != 0 {
                break;
            }
            let ends = quotes & !escaped;
            if ends != 0 {
                self.at += ends.trailing_zeros() as usize / 8;
                return;
            }
            self.at += 8;
        }
        // Not into the middle of an escape.
        if bytes.get(self.at - 1) == Some(&b'\\') {
            self.at -= 1;
        }
    }

    /// Goes to the next quote or backslash.
    #[inline]
    fn seek_mark(&mut self) -> Option<()> {
        let rest = self.line.as_bytes().get(self.at..)?;
        let (words, tail) = rest.as_chunks::<8>();
        for word in words {
            let marks = marks(u64::from_le_bytes(*word));
            if marks != 0 {
                self.at += marks.trailing_zeros() as usize / 8;
                return Some(());
            }
            self.at += 8;
        }
        self.at += tail.iter().position(|byte| matches!(byte, b'"' | b'\\'))?;
        Some(())
    }
}

/// The high bit of each byte that is a quote or a backslash; above the first one also of bytes that are not.
const fn marks(word: u64) -> u64 {
    zeros(word ^ repeat(b'"')) | zeros(word ^ repeat(b'\\'))
}

/// The high bit of each byte that is `byte`, and of no other.
const fn equal(word: u64, byte: u8) -> u64 {
    let other = word ^ repeat(byte);
    !(((other & repeat(0x7f)) + repeat(0x7f)) | other) & repeat(0x80)
}

/// The high bit of each byte that is zero, and perhaps of bytes above one that is.
const fn zeros(word: u64) -> u64 {
    word.wrapping_sub(repeat(1)) & !word & repeat(0x80)
}

const fn repeat(byte: u8) -> u64 {
    u64::from_ne_bytes([byte; 8])
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Record, frame};

    #[test]
    fn the_schema_that_is_found_is_this_one() {
        assert_eq!(SCHEMA, frame::SCHEMA.to_string());
    }

    #[test]
    fn what_sidelog_writes_is_found() {
        let mut line = Vec::new();
        let mut record = Record {
            observed_timestamp: 2,
            service_name: "api".into(),
            trace_id: Some([0xab; 16]),
            status: Some(404),
            loss: Some(vec![("queue".into(), 3), ("spool".into(), 0)]),
            ..Record::default()
        };
        record.request.headers = vec![("accept".into(), "a \"quoted\"\u{1}\\".into())];
        record.response.body.content = Some("{\"é\":\"\n\"}".into());
        record.response.body.truncated = true;
        record.encode(&mut line);
        let line = String::from_utf8(line).unwrap();
        let envelope = envelope(&line).unwrap();
        assert_eq!((envelope.timestamp_ns, envelope.status), (2, Some(404)));
        assert_eq!(envelope.service.as_deref(), Some("api"));
        assert_eq!(envelope.trace_id, Some("ab".repeat(16).into()));
    }

    #[test]
    fn a_string_ends_where_it_ends_wherever_its_escapes_stand() {
        let escapes = [r#"\""#, r"\n", r"\\", r"\u00e9", r"\/", "]\\\\\\\""];
        for (escape, before) in escapes
            .iter()
            .flat_map(|escape| (0..20).map(move |before| (escape, before)))
        {
            for (between, after) in (0..20).flat_map(|between| (0..3).map(move |after| (between, after))) {
                let filler = "#".repeat(between);
                let string = format!(
                    "\"{}{escape}{filler}{escape}{}\"",
                    "!".repeat(before),
                    "é".repeat(after)
                );
                let line = format!("{string},\"\\\"\"");
                let mut scan = Scan { line: &line, at: 0 };
                scan.skip_string().unwrap();
                assert_eq!(scan.at, string.len(), "{line}");
            }
        }
    }

    #[test]
    fn marks_are_found_wherever_they_stand() {
        for (before, mark) in (0..40).flat_map(|before| [(before, '"'), (before, '\\')]) {
            let line = format!("{}{mark}\u{1}!]#", "\u{a3}".repeat(before));
            let mut scan = Scan { line: &line, at: 0 };
            scan.seek_mark().unwrap();
            assert_eq!(scan.at, line.find(mark).unwrap());
        }
    }
}
