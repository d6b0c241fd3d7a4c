//! The envelope of a line as sidelog writes it, found without parsing the line: its strings are passed over by their quotes, which
//! are all looked for before, in 64 bytes at a time.
//!
//! Invariant: what is answered is what the strict reader ([`crate::reader`]) answers, and everything that is not plainly a
//! record is left to it, so that it alone says what is wrong: white space, arrays, `null`, numbers with an exponent, an escape in a
//! key or in a value of the envelope (`tests/envelope.rs`).

use std::borrow::Cow;

use fearless_simd::prelude::*;
use fearless_simd::{Level, dispatch, u8x64};

use crate::{Envelope, time};

/// The digit that [`crate::frame::SCHEMA`] is.
const SCHEMA: &str = "1";

/// The envelope, if the line is plainly a record.
pub(crate) fn envelope(line: &str) -> Option<Envelope<'_>> {
    line.starts_with('{').then_some(())?;
    let mut scan = Scan {
        line,
        quotes: Quotes::of(line.as_bytes())?,
    };
    let mut envelope = Envelope::empty();
    let (mut timestamp, mut observed) = (None, None);
    let mut at = 1;
    loop {
        let (key, behind) = scan.string(at)?;
        let key = key.plain()?;
        let (value, behind) = scan.value(scan.behind(behind, b':')?)?;
        // By length first, which tells most of the other keys at once.
        match (key.len(), key) {
            (9, "timestamp") => timestamp = Some(time::parse_timestamp(value.plain()?)?),
            (18, "observed_timestamp") => observed = Some(time::parse_timestamp(value.plain()?)?),
            (6, "schema") => (value.number()? == SCHEMA).then_some(())?,
            (5, "level") => envelope.level = Some(value.plain()?.parse().ok()?),
            (12, "service.name") => envelope.service = Some(value.borrowed()?),
            (27, "deployment.environment.name") => envelope.environment = Some(value.borrowed()?),
            (8, "trace_id") => envelope.trace_id = Some(value.hex::<16>()?),
            (7, "span_id") => envelope.span_id = Some(value.hex::<8>()?),
            (10, "request_id") => envelope.request_id = Some(value.borrowed()?),
            (19, "http.request.method") => envelope.method = Some(value.borrowed()?),
            (10, "http.route") => envelope.route = Some(value.borrowed()?),
            (25, "http.response.status_code") => envelope.status = Some(value.number()?.parse().ok()?),
            _ => {}
        }
        at = behind + 1;
        match line.as_bytes().get(behind)? {
            b',' => {}
            b'}' if at == line.len() => break,
            _ => return None,
        }
    }
    envelope.timestamp_ns = observed.or(timestamp)?;
    Some(envelope)
}

/// A value, as far as an envelope has one of its kind.
enum Value<'a> {
    Text {
        text: &'a str,
        has_escapes: bool,
    },
    /// A whole number, not negative.
    Number(&'a str),
    Other,
}

impl<'a> Value<'a> {
    /// A string without escapes.
    #[inline(always)]
    fn plain(&self) -> Option<&'a str> {
        match self {
            Self::Text {
                text,
                has_escapes: false,
            } => Some(text),
            _ => None,
        }
    }

    #[inline(always)]
    fn borrowed(&self) -> Option<Cow<'a, str>> {
        self.plain().map(Cow::Borrowed)
    }

    fn hex<const N: usize>(&self) -> Option<Cow<'a, str>> {
        let text = self.plain()?;
        let digits = text.bytes().map(|byte| byte.is_ascii_hexdigit());
        let is_hex = text.len() == 2 * N && digits.fold(true, |all, is_digit| all & is_digit);
        is_hex.then_some(Cow::Borrowed(text))
    }

    #[inline(always)]
    fn number(&self) -> Option<&'a str> {
        match self {
            Self::Number(digits) => Some(digits),
            _ => None,
        }
    }
}

/// A line, and where its strings begin and end.
struct Scan<'a> {
    line: &'a str,
    quotes: Quotes,
}

/// Each says what is at a place, and the place behind it. Places only grow; what is inlined keeps them out of memory, where each
/// step would wait for the one before.
impl<'a> Scan<'a> {
    #[inline(always)]
    fn byte(&self, at: usize) -> Option<u8> {
        self.line.as_bytes().get(at).copied()
    }

    /// The place behind this byte.
    #[inline(always)]
    fn behind(&self, at: usize, byte: u8) -> Option<usize> {
        (self.byte(at)? == byte).then_some(at + 1)
    }

    #[inline(always)]
    fn string(&mut self, at: usize) -> Option<(Value<'a>, usize)> {
        let (end, has_escapes) = self.quotes.closing(at)?;
        let text = self.line.get(at + 1..end)?;
        Some((Value::Text { text, has_escapes }, end + 1))
    }

    /// A value, or an object of plain values.
    #[inline(always)]
    fn value(&mut self, at: usize) -> Option<(Value<'a>, usize)> {
        match self.byte(at)? {
            b'"' => self.string(at),
            b'{' => self.object(at + 1),
            _ => self.word(at),
        }
    }

    fn object(&mut self, at: usize) -> Option<(Value<'a>, usize)> {
        if let Some(behind) = self.behind(at, b'}') {
            return Some((Value::Other, behind));
        }
        let mut at = at;
        loop {
            let (_, behind) = self.string(at)?;
            let value = self.behind(behind, b':')?;
            let (_, behind) = match self.byte(value)? {
                b'"' => self.string(value)?,
                _ => self.word(value)?,
            };
            at = behind + 1;
            match self.byte(behind)? {
                b',' => {}
                b'}' => return Some((Value::Other, at)),
                _ => return None,
            }
        }
    }

    /// A number or a word, but `null`.
    fn word(&self, at: usize) -> Option<(Value<'a>, usize)> {
        let rest = self.line.as_bytes().get(at..)?;
        for word in ["true", "false"] {
            if rest.starts_with(word.as_bytes()) {
                return Some((Value::Other, at + word.len()));
            }
        }
        let end = self.digits(at);
        let is_padded = end > at + 1 && rest.first() == Some(&b'0');
        if end == at || is_padded {
            return None;
        }
        let Some(fraction) = self.behind(end, b'.') else {
            return Some((Value::Number(self.line.get(at..end)?), end));
        };
        let end = self.digits(fraction);
        (end > fraction).then_some((Value::Other, end))
    }

    /// The place behind digits.
    fn digits(&self, at: usize) -> usize {
        let rest = self.line.as_bytes().get(at..).unwrap_or_default();
        at + rest.iter().take_while(|byte| byte.is_ascii_digit()).count()
    }
}

/// Bytes that are looked at together.
const BLOCK: usize = 64;

/// The quotes of a line that no backslash escapes. At most they take four bytes for each of the line, and once more while they grow.
struct Quotes {
    /// Twice the place of each, and one more if a backslash stands between the one before and it.
    places: Vec<u32>,
    next: usize,
}

impl Quotes {
    /// `None` if there is an escape that is none of JSON's, or a control character: in a string there is none, and outside of one it
    /// would be white space.
    fn of(bytes: &[u8]) -> Option<Self> {
        u32::try_from(bytes.len()).ok()?.checked_mul(2)?;
        let mut places = Vec::with_capacity(bytes.len() / 8);
        dispatch!(Level::new(), simd => find_quotes(simd, bytes, &mut places))?;
        Some(Self { places, next: 0 })
    }

    /// Where the string ends that begins with the quote at `at`, and whether a backslash is in it; `None` if that isn't the next
    /// one.
    #[inline(always)]
    fn closing(&mut self, at: usize) -> Option<(usize, bool)> {
        let [opening, closing] = *self.places.get(self.next..)?.first_chunk()?;
        if (opening / 2) as usize != at {
            return None;
        }
        self.next += 2;
        Some(((closing / 2) as usize, closing % 2 == 1))
    }
}

#[inline(always)]
fn find_quotes<S: Simd>(simd: S, bytes: &[u8], places: &mut Vec<u32>) -> Option<()> {
    let (blocks, rest) = bytes.as_chunks();
    let mut last = [b' '; BLOCK];
    last.get_mut(..rest.len())?.copy_from_slice(rest);
    let mut escapes = Escapes::default();
    let mut has_escapes = 0;
    for (from, block) in (0_u32..).step_by(BLOCK).zip(blocks.iter().chain([&last])) {
        let block = u8x64::simd_from(simd, *block);
        if block.simd_lt(b' ').to_bitmask() != 0 {
            return None;
        }
        let mut quotes = block.simd_eq(b'"').to_bitmask();
        let mut backslashes = block.simd_eq(b'\\').to_bitmask();
        if backslashes | escapes.next != 0 {
            quotes &= !escapes.take(bytes, from as usize, quotes, backslashes)?;
        }
        while quotes != 0 {
            let before = (quotes & quotes.wrapping_neg()) - 1;
            has_escapes |= u32::from(backslashes & before != 0);
            places.push(2 * (from + quotes.trailing_zeros()) + has_escapes);
            (quotes, backslashes, has_escapes) = (quotes & (quotes - 1), backslashes & !before, 0);
        }
        has_escapes |= u32::from(backslashes != 0);
    }
    Some(())
}

/// What backslashes escape, block by block.
#[derive(Default)]
struct Escapes {
    /// 1 if a backslash at the last block's end escapes what comes next.
    next: u64,
}

impl Escapes {
    /// The bytes of a block that are escaped; `None` if one of them is none of JSON's.
    fn take(&mut self, bytes: &[u8], from: usize, quotes: u64, backslashes: u64) -> Option<u64> {
        let escaped = self.escaped(backslashes);
        let mut others = escaped & !(quotes | backslashes);
        while others != 0 {
            let at = from + others.trailing_zeros() as usize;
            match bytes.get(at)? {
                b'/' | b'b' | b'f' | b'n' | b'r' | b't' => {}
                b'u' => {
                    let digits = bytes.get(at + 1..at + 5)?;
                    digits.iter().all(u8::is_ascii_hexdigit).then_some(())?;
                }
                _ => return None,
            }
            others &= others - 1;
        }
        Some(escaped)
    }

    /// The bytes behind a backslash that is not escaped itself.
    ///
    /// simdjson's `json_escape_scanner`: in a row of backslashes each second one escapes, and subtraction walks a row.
    const fn escaped(&mut self, backslashes: u64) -> u64 {
        const ODD: u64 = 0xaaaa_aaaa_aaaa_aaaa;
        let begin = backslashes & !self.next;
        let rows = ((begin << 1) | ODD).wrapping_sub(begin) ^ ODD;
        let escaped = rows ^ (backslashes | self.next);
        self.next = (rows & backslashes) >> 63;
        escaped
    }
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
    fn a_processor_with_less_finds_the_same_quotes() {
        let text: String = (0..300)
            .map(|number| ["ab", "\"", r"\\", r#"\""#, "é"][number * number % 7 % 5])
            .collect();
        for from in (0..text.len()).filter(|from| text.is_char_boundary(*from)) {
            let bytes = text.get(from..).unwrap().as_bytes();
            let found = Quotes::of(bytes).map(|quotes| quotes.places);
            let mut places = Vec::new();
            let with_less = dispatch!(Level::baseline(), simd => find_quotes(simd, bytes, &mut places));
            assert_eq!(with_less.map(|()| places), found);
        }
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
            .flat_map(|escape| (0..70).map(move |before| (escape, before)))
        {
            for (between, after) in (0..20).flat_map(|between| (0..3).map(move |after| (between, after))) {
                let filler = "#".repeat(between);
                let string = format!(
                    "\"{}{escape}{filler}{escape}{}\"",
                    "!".repeat(before),
                    "é".repeat(after)
                );
                let line = format!("{string},\"\\\"\"");
                let (text, behind) = scan(&line).string(0).unwrap();
                assert_eq!(behind, string.len(), "{line}");
                assert!(text.plain().is_none(), "{line}");
            }
        }
    }

    #[test]
    fn a_string_without_escapes_is_plain_however_long_it_is_and_whatever_stands_behind_it() {
        for (before, length) in (0..70).flat_map(|before| (0..140).map(move |length| (before, length))) {
            let line = format!("{}\"{}\"\\n", " ".repeat(before), "]".repeat(length));
            let (text, behind) = scan(&line).string(before).unwrap();
            assert_eq!(text.plain().map(str::len), Some(length));
            assert_eq!(behind, before + length + 2);
        }
    }

    fn scan(line: &str) -> Scan<'_> {
        Scan {
            line,
            quotes: Quotes::of(line.as_bytes()).unwrap(),
        }
    }
}
