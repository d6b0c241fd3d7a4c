//! The envelope of a line as sidelog writes it, found without parsing the line: its strings are passed over by their quotes,
//! eight bytes at a time.
//!
//! Invariant: what is answered is what the strict reader ([`crate::reader`]) answers, and everything that is not plainly a
//! record is left to it, so that it alone says what is wrong: white space, arrays, `null`, numbers with an exponent, an escape in a
//! key or in a value of the envelope (`tests/envelope.rs`).

use std::borrow::Cow;

use crate::{Envelope, reader::parse_hex, time};

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
        match key {
            "timestamp" => timestamp = Some(time::parse_timestamp(scan.text()?)?),
            "observed_timestamp" => observed = Some(time::parse_timestamp(scan.text()?)?),
            "schema" if scan.number()? == SCHEMA => {}
            "schema" => return None,
            "level" => envelope.level = Some(scan.text()?.parse().ok()?),
            "service.name" => envelope.service = scan.borrowed()?,
            "deployment.environment.name" => envelope.environment = scan.borrowed()?,
            "trace_id" => envelope.trace_id = scan.hex::<16>()?,
            "span_id" => envelope.span_id = scan.hex::<8>()?,
            "request_id" => envelope.request_id = scan.borrowed()?,
            "http.request.method" => envelope.method = scan.borrowed()?,
            "http.route" => envelope.route = scan.borrowed()?,
            "http.response.status_code" => envelope.status = Some(scan.number()?.parse().ok()?),
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
        parse_hex::<N>(text)?;
        Some(Some(Cow::Borrowed(text)))
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
    fn marks_are_found_wherever_they_stand() {
        for (before, mark) in (0..40).flat_map(|before| [(before, '"'), (before, '\\')]) {
            let line = format!("{}{mark}\u{1}!]#", "\u{a3}".repeat(before));
            let mut scan = Scan { line: &line, at: 0 };
            scan.seek_mark().unwrap();
            assert_eq!(scan.at, line.find(mark).unwrap());
        }
    }
}
