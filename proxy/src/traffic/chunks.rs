//! The syntax of chunked bodies, looked at while they pass (RFC 9112, 7.1). pingora's parser takes more than that:
//! blanks, an empty size, any byte in an extension.
//!
//! It finds no message for anybody: pingora parses the body for itself, and only where the two agree on its end does
//! another request begin. It stands on nothing else of the proxy: the fuzz target takes it in by path.
//!
//! Invariants:
//! - No bytes make it panic, and it doesn't matter in which pieces they come (`pieces_make_no_difference`).

/// Bytes of a line: of a size with its extensions, or of all trailers.
const LINES_MAX: usize = 8 * 1024;
/// Digits of a size: 2^60 bytes.
const DIGITS_MAX: u8 = 15;

/// How far a chunked body has passed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Chunks {
    place: Place,
    /// Bytes of the chunk that are still to come, or its size so far.
    size: u64,
    digits: u8,
    /// Bytes of the line, or of the trailers.
    line: usize,
    /// Bytes of chunks since they were last asked for.
    data: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Place {
    Size,
    /// Behind `;`, and behind `=`: what must not be empty.
    NameStart,
    Name,
    ValueStart,
    Value,
    Quoted,
    Escaped,
    QuotedEnd,
    SizeEnd,
    Data,
    DataCr,
    DataLf,
    TrailerStart,
    TrailerName,
    TrailerValue,
    TrailerEnd,
    LastLf,
    Done,
}

/// What isn't a chunk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NoChunk;

impl Chunks {
    /// Before the first byte.
    pub fn new() -> Self {
        Self {
            place: Place::Size,
            size: 0,
            digits: 0,
            line: 0,
            data: 0,
        }
    }

    /// How many bytes of chunks have passed since this was last asked; sizes, extensions and trailers are none.
    pub fn take_data(&mut self) -> u64 {
        std::mem::take(&mut self.data)
    }

    /// The body is over.
    pub fn is_done(&self) -> bool {
        self.place == Place::Done
    }

    /// Looks at more of the body, and says how many of these bytes belong to it.
    ///
    /// # Errors
    /// When they can't.
    pub fn read(&mut self, bytes: &[u8]) -> Result<usize, NoChunk> {
        let mut at = 0;
        while let Some(byte) = bytes.get(at) {
            match self.place {
                Place::Done => break,
                Place::Data => {
                    let left = bytes.len() - at;
                    let passed = usize::try_from(self.size).map_or(left, |size| size.min(left));
                    at += passed;
                    self.size -= passed as u64;
                    self.data += passed as u64;
                    if self.size == 0 {
                        self.place = Place::DataCr;
                    }
                }
                place => {
                    self.line += 1;
                    if self.line > LINES_MAX {
                        return Err(NoChunk);
                    }
                    self.place = self.next(place, *byte).ok_or(NoChunk)?;
                    at += 1;
                }
            }
        }
        Ok(at)
    }

    fn next(&mut self, place: Place, byte: u8) -> Option<Place> {
        use Place as P;
        Some(match (place, byte) {
            (P::Size, byte) if byte.is_ascii_hexdigit() => return self.digit(byte),
            (P::Size, b';') if self.digits > 0 => P::NameStart,
            (P::Size, b'\r') if self.digits > 0 => P::SizeEnd,
            (P::NameStart | P::Name, byte) if is_token(byte) => P::Name,
            (P::Name, b'=') => P::ValueStart,
            (P::ValueStart, b'"') => P::Quoted,
            (P::ValueStart | P::Value, byte) if is_token(byte) => P::Value,
            (P::Quoted, b'"') => P::QuotedEnd,
            (P::Quoted, b'\\') => P::Escaped,
            (P::Quoted | P::Escaped, byte) if is_text(byte) => P::Quoted,
            (P::Name | P::Value | P::QuotedEnd, b';') => P::NameStart,
            (P::Name | P::Value | P::QuotedEnd, b'\r') => P::SizeEnd,
            (P::SizeEnd, b'\n') => self.sized(),
            (P::DataCr, b'\r') => P::DataLf,
            (P::DataLf, b'\n') => {
                (self.size, self.digits, self.line) = (0, 0, 0);
                P::Size
            }
            (P::TrailerStart, b'\r') => P::LastLf,
            (P::TrailerStart | P::TrailerName, byte) if is_token(byte) => P::TrailerName,
            (P::TrailerName, b':') => P::TrailerValue,
            (P::TrailerValue, b'\r') => P::TrailerEnd,
            (P::TrailerValue, byte) if is_text(byte) => P::TrailerValue,
            (P::TrailerEnd, b'\n') => P::TrailerStart,
            (P::LastLf, b'\n') => P::Done,
            _ => return None,
        })
    }

    fn digit(&mut self, digit: u8) -> Option<Place> {
        let value = char::from(digit).to_digit(16)?;
        self.digits += 1;
        self.size = self.size * 16 + u64::from(value);
        (self.digits <= DIGITS_MAX).then_some(Place::Size)
    }

    fn sized(&mut self) -> Place {
        self.line = 0;
        if self.size == 0 {
            Place::TrailerStart
        } else {
            Place::Data
        }
    }
}

impl Default for Chunks {
    fn default() -> Self {
        Self::new()
    }
}

/// RFC 9110, 5.6.2.
fn is_token(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte)
}

/// What may stand in a quoted string or a field's value (RFC 9110, 5.5 and 5.6.4).
fn is_text(byte: u8) -> bool {
    byte == b'\t' || (byte >= b' ' && byte != 0x7f)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(bytes: &[u8]) -> Result<Option<usize>, NoChunk> {
        let mut chunks = Chunks::new();
        let used = chunks.read(bytes)?;
        Ok(chunks.is_done().then_some(used))
    }

    const GOOD: [&[u8]; 7] = [
        b"0\r\n\r\n",
        b"3\r\nabc\r\n0\r\n\r\n",
        b"003\r\na\nc\r\nA\r\n0123456789\r\n000\r\n\r\n",
        b"3;name\r\nabc\r\n0;last=1\r\n\r\n",
        b"3;a=b;c=\"d;\\\"\xff\"\r\nabc\r\n0\r\n\r\n",
        b"0\r\nX-Sum: 1\r\nY:\r\n\r\n",
        b"1\r\n\r\r\n0\r\n\r\n",
    ];

    const BAD: [&[u8]; 28] = [
        b"\r\n",
        b"3\nabc\r\n0\r\n\r\n",
        b"0x3\r\nabc\r\n",
        b"+3\r\nabc\r\n",
        b"-3\r\nabc\r\n",
        b" 3\r\nabc\r\n",
        b"3 \r\nabc\r\n",
        b"3\t;a\r\nabc\r\n",
        b"3; a\r\nabc\r\n",
        b"3;\r\nabc\r\n",
        b"3;a=\r\nabc\r\n",
        b"3;a\nb\r\nabc\r\n",
        b"3;a=\"b\r\nabc\r\n",
        b"3;a=\"b\"c\r\nabc\r\n",
        b"3;a\x00\r\nabc\r\n",
        b"3_\r\nabc\r\n",
        b"g\r\nabc\r\n",
        b"10000000000000000\r\nabc\r\n",
        b"fffffffffffffffff\r\nabc\r\n",
        b"3\r\nabcd\r\n",
        b"3\r\nabc\n0\r\n\r\n",
        b"3\r\nabc\r0\r\n\r\n",
        b"0\r\n\n",
        b"0\n\r\n",
        b"0\r\nx : 1\r\n\r\n",
        b"0\r\n folded\r\n\r\n",
        b"0\r\nx: 1\n\r\n",
        b"0\r\nx: a\x00\r\n\r\n",
    ];

    #[test]
    fn a_good_body_ends_where_it_ends() {
        for body in GOOD {
            let more = [body, b"GET / HTTP/1.1\r\n"].concat();
            assert_eq!(read(&more), Ok(Some(body.len())), "{}", body.escape_ascii());
            assert_eq!(read(&body[..body.len() - 1]), Ok(None), "{}", body.escape_ascii());
        }
    }

    #[test]
    fn only_what_is_in_chunks_is_data() {
        let mut chunks = Chunks::new();
        chunks
            .read(b"3;name=value\r\nabc\r\n2\r\nde\r\n0;a\r\nX-Sum: 1\r\n\r\n")
            .unwrap();
        assert_eq!((chunks.take_data(), chunks.take_data()), (5, 0));
    }

    #[test]
    fn a_bad_one_never_ends() {
        for body in BAD {
            assert_eq!(read(body), Err(NoChunk), "{}", body.escape_ascii());
        }
        let long = [b"3;".as_slice(), &[b'a'; LINES_MAX]].concat();
        assert_eq!(read(&long), Err(NoChunk));
    }

    #[test]
    fn pieces_make_no_difference() {
        for body in GOOD {
            let mut chunks = Chunks::new();
            for byte in body {
                assert!(!chunks.is_done());
                assert_eq!(chunks.read(&[*byte]), Ok(1));
            }
            assert!(chunks.is_done());
        }
    }
}
