//! The request line: method, target, version (RFC 9112, 3).

use std::ops::Range;

use memchr::memchr;

use super::field::{is_host, is_token};
use super::reason::Reason;

/// The longest method that is taken.
pub const METHOD_MAX: usize = 64;
/// What a request line has beside its target: method, blanks, version, the line's end.
const FRAME_MAX: usize = METHOD_MAX + " ".len() + " HTTP/1.1\r\n".len();

/// The parts of a request line, as places in the head.
#[derive(Clone, Debug, Default)]
pub(super) struct RequestLine {
    pub(super) method: Range<usize>,
    pub(super) target: Range<usize>,
    /// The host of an absolute target.
    pub(super) authority: Option<Range<usize>>,
    /// HTTP/1.1, not 1.0.
    pub(super) is_11: bool,
}

impl RequestLine {
    /// The same line at another place.
    pub(super) fn moved(self, by: usize) -> Self {
        let moved = |range: Range<usize>| range.start + by..range.end + by;
        Self {
            method: moved(self.method),
            target: moved(self.target),
            authority: self.authority.map(moved),
            is_11: self.is_11,
        }
    }
}

/// Reads a whole line. Of one that is refused, the parts that could be read are given, too.
pub(super) fn parse(line: &[u8], target_max: usize) -> (Option<RequestLine>, Result<(), Reason>) {
    let Some(method_end) = memchr(b' ', line) else {
        return (None, Err(method(line).err().unwrap_or(Reason::RequestLine)));
    };
    let (name, rest) = line.split_at(method_end);
    if let Err(reason) = method(name) {
        return (None, Err(reason));
    }
    let rest = rest.get(1..).unwrap_or_default();
    let Some(target_end) = memchr(b' ', rest) else {
        // HTTP/0.9, or no request at all.
        return (None, Err(Reason::RequestLine));
    };
    let (target, version) = rest.split_at(target_end);
    let start = method_end + 1;
    let mut request = RequestLine {
        method: 0..method_end,
        target: start..start + target_end,
        authority: None,
        is_11: false,
    };
    let verdict = judge(
        &mut request,
        name,
        target,
        version.get(1..).unwrap_or_default(),
        target_max,
    );
    (Some(request), verdict)
}

fn judge(request: &mut RequestLine, name: &[u8], target: &[u8], version: &[u8], max: usize) -> Result<(), Reason> {
    request.is_11 = match version {
        b"HTTP/1.1" => true,
        b"HTTP/1.0" => false,
        [b'H', b'T', b'T', b'P', b'/', major, b'.', minor] if major.is_ascii_digit() && minor.is_ascii_digit() => {
            return Err(Reason::Version);
        }
        // One more blank is a blank in the target, or behind the version.
        _ => return Err(Reason::RequestLine),
    };
    if target.len() > max {
        return Err(Reason::TargetTooLong);
    }
    if name == b"CONNECT" {
        return Err(Reason::Connect);
    }
    let start = request.target.start;
    request.authority = authority(name, target)?.map(|range| range.start + start..range.end + start);
    Ok(())
}

/// Whether what there is of a line can become a request line.
pub(super) fn begins(line: &[u8], target_max: usize) -> Result<(), Reason> {
    if line.starts_with(b"\r") {
        // An empty line before the head, if LF follows.
        return if line.len() > 1 { Err(Reason::LineEnd) } else { Ok(()) };
    }
    match memchr(b' ', line) {
        None => method(line),
        Some(end) => {
            method(line.get(..end).unwrap_or_default())?;
            if line.len() > target_max + FRAME_MAX {
                return Err(Reason::TargetTooLong);
            }
            Ok(())
        }
    }
}

fn method(name: &[u8]) -> Result<(), Reason> {
    match name {
        [] => Ok(()),
        name if !is_token(name.get(..METHOD_MAX).unwrap_or(name)) => Err(Reason::RequestLine),
        name if name.len() > METHOD_MAX => Err(Reason::Method),
        _ => Ok(()),
    }
}

/// The host that an absolute target names, in the target. Others are a path, or `*` of `OPTIONS`.
fn authority(method: &[u8], target: &[u8]) -> Result<Option<Range<usize>>, Reason> {
    // Raw UTF-8 passes; bytes that are no text would not pass unchanged.
    let (path, query) = target.split_at(memchr(b'?', target).unwrap_or(target.len()));
    let visible = path.iter().all(|byte| is_visible(*byte) && !matches!(byte, b'`'))
        && query.iter().all(|byte| is_visible(*byte) && *byte != b'"');
    if !visible || std::str::from_utf8(target).is_err() {
        return Err(Reason::Target);
    }
    match target {
        [b'/', ..] => Ok(None),
        b"*" if method == b"OPTIONS" => Ok(None),
        _ => absolute(target).ok_or(Reason::Target).map(Some),
    }
}

/// Neither a control character nor one that ends what it stands in.
fn is_visible(byte: u8) -> bool {
    byte > b' ' && !matches!(byte, 0x7f | b'#' | b'<' | b'>')
}

fn absolute(target: &[u8]) -> Option<Range<usize>> {
    let scheme = [b"http://".as_slice(), b"https://"]
        .into_iter()
        .find(|scheme| {
            target
                .get(..scheme.len())
                .is_some_and(|start| start.eq_ignore_ascii_case(scheme))
        })?
        .len();
    let rest = target.get(scheme..)?;
    let len = rest
        .iter()
        .position(|byte| matches!(byte, b'/' | b'?'))
        .unwrap_or(rest.len());
    let host = rest.get(..len)?;
    (!host.is_empty() && host.is_ascii() && is_host(host)).then_some(scheme..scheme + len)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_bad_line_has_its_reason() {
        let cases: [(&[u8], Reason); 26] = [
            (b"GET /", Reason::RequestLine),
            (b"GET  / HTTP/1.1", Reason::RequestLine),
            (b"GET /a b HTTP/1.1", Reason::RequestLine),
            (b"GET / HTTP/1.1 ", Reason::RequestLine),
            (b"GET /\tHTTP/1.1", Reason::RequestLine),
            (b" GET / HTTP/1.1", Reason::RequestLine),
            (b"G\x00T / HTTP/1.1", Reason::RequestLine),
            (b"GET: / HTTP/1.1", Reason::RequestLine),
            (b"GET / http/1.1", Reason::RequestLine),
            (b"GET / HTTP/1.11", Reason::RequestLine),
            (b"GET / HTTP/1", Reason::RequestLine),
            (b"GET / HTTP/2.0", Reason::Version),
            (b"GET / HTTP/1.2", Reason::Version),
            (b"GET / HTTP/0.9", Reason::Version),
            (b"CONNECT a:443 HTTP/1.1", Reason::Connect),
            (b"GET a HTTP/1.1", Reason::Target),
            (b"GET * HTTP/1.1", Reason::Target),
            (b"GET /a\x01 HTTP/1.1", Reason::Target),
            (b"GET /a\x7f HTTP/1.1", Reason::Target),
            (b"GET /a\xff HTTP/1.1", Reason::Target),
            (b"GET /a#b HTTP/1.1", Reason::Target),
            (b"GET /<a> HTTP/1.1", Reason::Target),
            (b"GET http:/a HTTP/1.1", Reason::Target),
            (b"GET http:// HTTP/1.1", Reason::Target),
            (b"GET http://u@a/ HTTP/1.1", Reason::Target),
            (b"GET ftp://a/ HTTP/1.1", Reason::Target),
        ];
        for (line, reason) in cases {
            assert_eq!(parse(line, 64).1, Err(reason), "{}", line.escape_ascii());
        }
        let long = [[b'M'; METHOD_MAX + 1].as_slice(), b" / HTTP/1.1"].concat();
        assert_eq!(parse(&long, 64).1, Err(Reason::Method));
    }

    #[test]
    fn garbage_is_told_from_its_first_bytes() {
        assert_eq!(begins(b"\x00", 64), Err(Reason::RequestLine));
        assert_eq!(begins(b"\rG", 64), Err(Reason::LineEnd));
        assert_eq!(begins(b"GE", 64), Ok(()));
        assert_eq!(begins(b"GET /a", 64), Ok(()));
    }

    #[test]
    fn what_passes_is_what_pingora_can_read() {
        for byte in 0..=0x7f_u8 {
            for target in [[b'/', b'a', byte], [b'/', b'?', byte]] {
                let known = http::uri::PathAndQuery::try_from(&target[..]);
                let unchanged = known.is_ok_and(|known| known.as_str().as_bytes() == target);
                assert_eq!(
                    authority(b"GET", &target).is_ok(),
                    unchanged,
                    "{}",
                    target.escape_ascii()
                );
            }
        }
    }
}
