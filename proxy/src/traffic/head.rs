//! The judge of HTTP/1 request heads: raw bytes in, a verdict out. It takes only what no two parsers could read
//! differently (RFC 9112), and repairs nothing.
//!
//! Invariants:
//! - No bytes make it panic, and it doesn't matter in which pieces they come (`pieces_make_no_difference`, and the fuzz
//!   target `head`).
//! - Each byte is looked at once, however slowly a head drips in.
//! - A head that it takes has exactly one reading of where it ends and how its body is framed (`tests/wall`).

mod field;
mod line;
mod reason;

use std::ops::Range;

use memchr::memchr;

pub use field::is_host;
pub use line::METHOD_MAX;
pub use reason::Reason;

/// The first byte of a TLS connection: a record with a part of the handshake (RFC 8446, 5.1).
pub const TLS_HANDSHAKE: u8 = 22;

/// How much of a head is taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HeadLimits {
    /// Bytes of the whole head, line ends included.
    pub bytes: usize,
    /// Header fields.
    pub fields: usize,
    /// Bytes of the request target.
    pub target: usize,
}

/// How the body behind a head is framed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Framing {
    /// By its length; 0 where there is none.
    Length(u64),
    /// By chunks.
    Chunked,
}

/// What a head says that whoever reads the connection must know.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Head {
    /// Bytes of the head, up to where its body begins.
    pub len: usize,
    /// The body's framing.
    pub framing: Framing,
    /// No other request follows: HTTP/1.0, or `Connection: close`.
    pub last: bool,
    /// It asks for another protocol.
    pub upgrade: bool,
    /// It is a call of gRPC, whose streams may be silent.
    pub grpc: bool,
}

/// What the judge says of the bytes so far.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// They can still become a head.
    Incomplete,
    /// They begin with this head.
    Taken(Head),
    /// They can't be a head.
    Refused(Reason),
}

/// What is known of a head that is being read.
#[derive(Clone, Debug, Default)]
pub struct Judge {
    /// Where the line begins that isn't whole yet, and how far it was searched for its end.
    line: usize,
    searched: usize,
    request: Option<line::RequestLine>,
    fields: usize,
    seen: field::Seen,
}

impl Judge {
    /// Judges `bytes`, which begin with everything that was judged before.
    pub fn judge(&mut self, bytes: &[u8], limits: &HeadLimits) -> Verdict {
        match self.read(bytes, limits) {
            Ok(Some(head)) => Verdict::Taken(head),
            Ok(None) => Verdict::Incomplete,
            Err(reason) => Verdict::Refused(reason),
        }
    }

    /// Where method and target are, as far as the request line was readable.
    pub fn request(&self) -> Option<(Range<usize>, Range<usize>)> {
        let request = self.request.as_ref()?;
        Some((request.method.clone(), request.target.clone()))
    }

    /// Where the value of the first `Host` is.
    pub fn host(&self) -> Option<Range<usize>> {
        self.seen.host.clone()
    }

    fn read(&mut self, bytes: &[u8], limits: &HeadLimits) -> Result<Option<Head>, Reason> {
        if bytes.first() == Some(&TLS_HANDSHAKE) {
            return Err(Reason::Tls);
        }
        loop {
            let unsearched = bytes.get(self.searched..).unwrap_or_default();
            let Some(at) = memchr(b'\n', unsearched) else {
                self.searched = bytes.len();
                return self.unfinished(bytes, limits).map(|()| None);
            };
            let end = self.searched + at;
            if end >= limits.bytes {
                return Err(self.too_long(end - self.line, limits));
            }
            let line = bytes.get(self.line..end).unwrap_or_default();
            let Some(line) = line.strip_suffix(b"\r") else {
                return Err(Reason::LineEnd);
            };
            let start = std::mem::replace(&mut self.line, end + 1);
            self.searched = end + 1;
            if self.request.is_none() {
                let (request, verdict) = line::parse(line, limits.target);
                self.request = request.map(|request| request.moved(start));
                verdict?;
            } else if line.is_empty() {
                return self.finish(bytes, end + 1).map(Some);
            } else {
                self.fields += 1;
                if self.fields > limits.fields {
                    return Err(Reason::HeaderCount);
                }
                self.seen.read(line, start)?;
            }
        }
    }

    /// What can be said of a line that has no end yet: garbage and what is too long are not waited on.
    fn unfinished(&self, bytes: &[u8], limits: &HeadLimits) -> Result<(), Reason> {
        let line = bytes.get(self.line..).unwrap_or_default();
        if bytes.len() > limits.bytes {
            return Err(self.too_long(line.len(), limits));
        }
        match self.request {
            None => line::begins(line, limits.target),
            Some(_) => Ok(()),
        }
    }

    fn too_long(&self, line: usize, limits: &HeadLimits) -> Reason {
        match self.request {
            None if line > limits.target => Reason::TargetTooLong,
            _ => Reason::HeaderTooLarge,
        }
    }

    /// The head is whole: what its lines say together.
    fn finish(&self, bytes: &[u8], len: usize) -> Result<Head, Reason> {
        let request = self.request.as_ref().ok_or(Reason::RequestLine)?;
        let seen = &self.seen;
        let host = seen.host.clone().and_then(|range| bytes.get(range));
        match (request.authority.clone().and_then(|range| bytes.get(range)), host) {
            (Some(authority), Some(host)) if authority != host => return Err(Reason::Host),
            (_, None) if request.is_11 => return Err(Reason::Host),
            _ => {}
        }
        let framing = match (seen.chunked, seen.length) {
            (true, Some(_)) => return Err(Reason::BothLengths),
            (true, None) if !request.is_11 => return Err(Reason::TransferCoding),
            (true, None) => Framing::Chunked,
            (false, length) => Framing::Length(length.unwrap_or(0)),
        };
        Ok(Head {
            len,
            framing,
            last: !request.is_11 || seen.close,
            upgrade: request.is_11 && seen.upgrade,
            grpc: seen.grpc,
        })
    }
}

/// Bytes of the empty lines that stand before a head (RFC 9112, 2.2): they are skipped.
pub fn empty_lines(bytes: &[u8]) -> usize {
    let mut skipped = 0;
    while bytes.get(skipped..).is_some_and(|rest| rest.starts_with(b"\r\n")) {
        skipped += 2;
    }
    skipped
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMITS: HeadLimits = HeadLimits {
        bytes: 512,
        fields: 8,
        target: 64,
    };

    #[test]
    fn tls_is_told_from_its_first_byte_whatever_follows() {
        for hello in [b"\x16".as_slice(), b"\x16\x03\x01", b"\x16\x03\x01\x0a\x0d\x0a"] {
            assert!(matches!(
                Judge::default().judge(hello, &LIMITS),
                Verdict::Refused(Reason::Tls)
            ));
        }
    }

    fn judge(bytes: &[u8]) -> Verdict {
        Judge::default().judge(bytes, &LIMITS)
    }

    fn taken(bytes: &[u8]) -> Head {
        match judge(bytes) {
            Verdict::Taken(head) => head,
            other => panic!("{}: {other:?}", bytes.escape_ascii()),
        }
    }

    #[test]
    fn a_head_says_how_long_it_is_and_how_its_body_is_framed() {
        let cases: [(&[u8], Framing, bool); 6] = [
            (b"GET / HTTP/1.1\r\nHost: a\r\n\r\n", Framing::Length(0), false),
            (b"GET / HTTP/1.0\r\n\r\n", Framing::Length(0), true),
            (
                b"POST /a?b HTTP/1.1\r\nhost: a:80\r\ncontent-length: 12\r\n\r\n",
                Framing::Length(12),
                false,
            ),
            (
                b"POST http://a.test/ HTTP/1.1\r\nHost: a.test\r\nTransfer-Encoding: Chunked\r\n\r\n",
                Framing::Chunked,
                false,
            ),
            (
                b"OPTIONS * HTTP/1.1\r\nHost:\r\nConnection: te, Close\r\n\r\n",
                Framing::Length(0),
                true,
            ),
            (
                "GET /\u{fc}%zz HTTP/1.1\r\nHost: b\u{fc}cher.test\r\nX-Empty:\r\n\r\n".as_bytes(),
                Framing::Length(0),
                false,
            ),
        ];
        for (bytes, framing, last) in cases {
            let head = taken(bytes);
            assert_eq!((head.len, head.framing, head.last), (bytes.len(), framing, last));
            let more = [bytes, b"GET /next"].concat();
            assert_eq!(taken(&more), head, "what follows doesn't matter");
        }
    }

    #[test]
    fn pieces_make_no_difference() {
        let cases: [&[u8]; 5] = [
            b"POST /a HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\n\r\nabc",
            b"GET /a HTTP/1.1\r\nHost: a\r\n folded\r\n\r\n",
            b"GET /a HTTP/1.1\nHost: a\r\n\r\n",
            b"GET /a b HTTP/1.1\r\nHost: a\r\n\r\n",
            b"\x16\x03\x01\x02\x00\x01",
        ];
        for bytes in cases {
            let whole = judge(bytes);
            let mut slow = Judge::default();
            let dripping = (0..=bytes.len())
                .map(|end| slow.judge(&bytes[..end], &LIMITS))
                .find(|verdict| *verdict != Verdict::Incomplete);
            assert_eq!(dripping, Some(whole), "{}", bytes.escape_ascii());
        }
    }

    #[test]
    fn limits_are_kept_to_the_byte() {
        let with_target = |bytes: usize| format!("GET /{} HTTP/1.1\r\nHost: a\r\n\r\n", "a".repeat(bytes - 1));
        taken(with_target(LIMITS.target).as_bytes());
        assert_eq!(
            judge(with_target(LIMITS.target + 1).as_bytes()),
            Verdict::Refused(Reason::TargetTooLong)
        );
        let with_fields = |count: usize| format!("GET / HTTP/1.1\r\nHost: a\r\n{}\r\n", "x: 1\r\n".repeat(count - 1));
        taken(with_fields(LIMITS.fields).as_bytes());
        assert_eq!(
            judge(with_fields(LIMITS.fields + 1).as_bytes()),
            Verdict::Refused(Reason::HeaderCount)
        );
        let frame = "GET / HTTP/1.1\r\nHost: a\r\nx: \r\n\r\n".len();
        let of_bytes = |bytes: usize| format!("GET / HTTP/1.1\r\nHost: a\r\nx: {}\r\n\r\n", "a".repeat(bytes - frame));
        taken(of_bytes(LIMITS.bytes).as_bytes());
        assert_eq!(
            judge(of_bytes(LIMITS.bytes + 1).as_bytes()),
            Verdict::Refused(Reason::HeaderTooLarge)
        );
    }

    #[test]
    fn what_is_too_long_is_not_waited_on() {
        let endless = [b"GET /".as_slice(), &[b'a'; 200]].concat();
        assert_eq!(judge(&endless), Verdict::Refused(Reason::TargetTooLong));
        let endless = [b"GET / HTTP/1.1\r\nx: ".as_slice(), &[b'a'; 600]].concat();
        assert_eq!(judge(&endless), Verdict::Refused(Reason::HeaderTooLarge));
    }

    #[test]
    fn a_refused_head_still_says_what_was_asked_for() {
        let bytes = b"GET /a?b HTTP/1.1\r\nHost: one\r\nHost: two\r\n\r\n";
        let mut judge = Judge::default();
        assert_eq!(judge.judge(bytes, &LIMITS), Verdict::Refused(Reason::Host));
        let (method, target) = judge.request().unwrap();
        assert_eq!((&bytes[method], &bytes[target]), (&b"GET"[..], &b"/a?b"[..]));
        assert_eq!(&bytes[judge.host().unwrap()], b"one");
    }

    #[test]
    fn empty_lines_are_told_from_the_head() {
        assert_eq!(empty_lines(b"\r\n\r\nGET"), 4);
        assert_eq!(empty_lines(b"\r"), 0);
        assert_eq!(empty_lines(b"GET"), 0);
        assert_eq!(judge(b"\r"), Verdict::Incomplete, "the line's end may be on its way");
        assert_eq!(judge(b"\nGET / HTTP/1.1\r\n"), Verdict::Refused(Reason::LineEnd));
    }
}
