//! Header fields: their syntax, and what those say that frame the message (RFC 9110, 5; RFC 9112, 5 and 6).

use std::ops::Range;

use memchr::memchr;

use super::reason::Reason;

/// A table of the bytes that match a pattern.
macro_rules! bytes {
    ($pattern:pat) => {{
        let mut table = [false; 256];
        let mut byte = 0_u8;
        loop {
            table[byte as usize] = matches!(byte, $pattern);
            if byte == u8::MAX {
                break table;
            }
            byte += 1;
        }
    }};
}

/// Bytes of a token: of methods and of fields' names (RFC 9110, 5.6.2).
const TOKEN: [bool; 256] = bytes!(
    b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'!' | b'#'..=b'\'' | b'*' | b'+' | b'-' | b'.' | b'^'..=b'`' | b'|' | b'~'
);
/// Bytes of a field's value (RFC 9110, 5.5).
const VALUE: [bool; 256] = bytes!(b'\t' | b' '..=b'~' | 0x80..);
/// Bytes of a host's name: those of RFC 3986, and of names that are not ASCII; not the comma that makes lists.
const HOST: [bool; 256] = bytes!(
    b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'!' | b'$'..=b'+' | b'-' | b'.' | b';' | b'=' | b'_' | b'~' | 0x80..
);
const PORT_DIGITS_MAX: usize = 5;

fn all(bytes: &[u8], table: &[bool; 256]) -> bool {
    bytes
        .iter()
        .all(|byte| table.get(usize::from(*byte)).copied().unwrap_or(false))
}

/// Whether `bytes` are a token, if they are any.
pub(super) fn is_token(bytes: &[u8]) -> bool {
    all(bytes, &TOKEN)
}

/// Whether `bytes` are a host and perhaps a port; the empty host is one.
pub fn is_host(bytes: &[u8]) -> bool {
    let (name_is_good, rest) = match bytes.strip_prefix(b"[") {
        Some(address) => match memchr(b']', address) {
            Some(end) => {
                let (address, rest) = address.split_at(end);
                let good = address
                    .iter()
                    .all(|byte| byte.is_ascii_hexdigit() || matches!(byte, b':' | b'.'));
                (good && !address.is_empty(), rest.get(1..).unwrap_or_default())
            }
            None => (false, bytes),
        },
        None => {
            let (name, rest) = bytes.split_at(memchr(b':', bytes).unwrap_or(bytes.len()));
            (all(name, &HOST), rest)
        }
    };
    name_is_good
        && match rest.split_first() {
            None => true,
            Some((colon, port)) => {
                *colon == b':' && port.len() <= PORT_DIGITS_MAX && port.iter().all(u8::is_ascii_digit)
            }
        }
}

/// What was read of fields that matter.
#[derive(Clone, Debug, Default)]
pub(super) struct Seen {
    /// Where the value of `Host` is.
    pub(super) host: Option<Range<usize>>,
    pub(super) length: Option<u64>,
    pub(super) chunked: bool,
    pub(super) close: bool,
    pub(super) upgrade: bool,
    pub(super) grpc: bool,
}

impl Seen {
    /// Reads a field's line that begins at `start`.
    pub(super) fn read(&mut self, line: &[u8], start: usize) -> Result<(), Reason> {
        let Some(colon) = memchr(b':', line) else {
            return Err(if line.first().is_some_and(|byte| is_blank(*byte)) {
                Reason::Fold
            } else {
                Reason::FieldName
            });
        };
        let (name, value) = line.split_at(colon);
        match name.first() {
            Some(byte) if is_blank(*byte) => return Err(Reason::Fold),
            Some(_) if is_token(name) => {}
            _ => return Err(Reason::FieldName),
        }
        let value = value.get(1..).unwrap_or_default();
        if !all(value, &VALUE) {
            return Err(if value.contains(&b'\r') {
                Reason::LineEnd
            } else {
                Reason::FieldValue
            });
        }
        self.note(name, value, start + colon + 1)
    }

    /// Most names are told by their length alone.
    fn note(&mut self, name: &[u8], value: &[u8], start: usize) -> Result<(), Reason> {
        let is = |known: &[u8]| name.eq_ignore_ascii_case(known);
        match name.len() {
            4 if is(b"host") => {
                let blanks = value.iter().take_while(|byte| is_blank(**byte)).count();
                let value = trimmed(value);
                let place = start + blanks..start + blanks + value.len();
                if self.host.is_some() || !is_host(value) {
                    return Err(Reason::Host);
                }
                self.host = Some(place);
            }
            7 if is(b"upgrade") => self.upgrade = true,
            10 if is(b"connection") => {
                self.close |= value
                    .split(|byte| *byte == b',')
                    .any(|token| trimmed(token).eq_ignore_ascii_case(b"close"));
            }
            12 if is(b"content-type") => {
                let kind = b"application/grpc";
                let start = trimmed(value).get(..kind.len());
                self.grpc |= start.is_some_and(|start| start.eq_ignore_ascii_case(kind));
            }
            14 if is(b"content-length") => {
                let length = number(trimmed(value)).filter(|_| self.length.is_none());
                self.length = Some(length.ok_or(Reason::Length)?);
            }
            17 if is(b"transfer-encoding") => self.coding(trimmed(value))?,
            _ => {}
        }
        Ok(())
    }

    fn coding(&mut self, value: &[u8]) -> Result<(), Reason> {
        if std::mem::replace(&mut self.chunked, true) {
            return Err(Reason::TransferCoding);
        }
        if value.eq_ignore_ascii_case(b"chunked") {
            return Ok(());
        }
        let mut codings = value.split(|byte| *byte == b',').map(trimmed);
        let last_is_chunked = codings
            .next_back()
            .is_some_and(|last| last.eq_ignore_ascii_case(b"chunked"));
        let once = !codings.any(|coding| coding.is_empty() || coding.eq_ignore_ascii_case(b"chunked"));
        // One coding alone, or before chunked, may be known elsewhere; the rest is no coding of a request.
        let alone = !value.is_empty() && is_token(value);
        Err(if (last_is_chunked && once) || alone {
            Reason::UnknownCoding
        } else {
            Reason::TransferCoding
        })
    }
}

fn is_blank(byte: u8) -> bool {
    matches!(byte, b' ' | b'\t')
}

/// Without the blanks around it.
fn trimmed(mut value: &[u8]) -> &[u8] {
    while let [first, rest @ ..] = value
        && is_blank(*first)
    {
        value = rest;
    }
    while let [rest @ .., last] = value
        && is_blank(*last)
    {
        value = rest;
    }
    value
}

/// Digits and nothing else, as a number that a length can be.
fn number(digits: &[u8]) -> Option<u64> {
    if digits.is_empty() {
        return None;
    }
    let number = digits.iter().try_fold(0_u64, |number, digit| {
        let digit = digit.is_ascii_digit().then(|| u64::from(digit - b'0'))?;
        number.checked_mul(10)?.checked_add(digit)
    })?;
    i64::try_from(number).is_ok().then_some(number)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(lines: &[&[u8]]) -> Result<Seen, Reason> {
        let mut seen = Seen::default();
        lines.iter().try_for_each(|line| seen.read(line, 0)).map(|()| seen)
    }

    #[test]
    fn each_bad_field_has_its_reason() {
        let cases: [(&[&[u8]], Reason); 28] = [
            (&[b" folded: 1"], Reason::Fold),
            (&[b"\tfolded"], Reason::Fold),
            (&[b"x : 1"], Reason::FieldName),
            (&[b"x\t: 1"], Reason::FieldName),
            (&[b": 1"], Reason::FieldName),
            (&[b"x"], Reason::FieldName),
            (&[b"x y: 1"], Reason::FieldName),
            (&[b"x(: 1"], Reason::FieldName),
            (&[b"x\xe4: 1"], Reason::FieldName),
            (&[b"x: a\x00b"], Reason::FieldValue),
            (&[b"x: a\x0bb"], Reason::FieldValue),
            (&[b"x: a\x7fb"], Reason::FieldValue),
            (&[b"x: a\rb"], Reason::LineEnd),
            (&[b"host: a", b"Host: a"], Reason::Host),
            (&[b"host: a b"], Reason::Host),
            (&[b"host: a,b"], Reason::Host),
            (&[b"host: a/b"], Reason::Host),
            (&[b"host: u@a"], Reason::Host),
            (&[b"host: a:b"], Reason::Host),
            (&[b"host: a:1:2"], Reason::Host),
            (&[b"host: [::1"], Reason::Host),
            (&[b"content-length: +1"], Reason::Length),
            (&[b"content-length: 1, 1"], Reason::Length),
            (&[b"content-length: 1", b"content-length: 1"], Reason::Length),
            (&[b"content-length: 9223372036854775808"], Reason::Length),
            (
                &[b"transfer-encoding: chunked", b"transfer-encoding: chunked"],
                Reason::TransferCoding,
            ),
            (&[b"transfer-encoding: chunked, identity"], Reason::TransferCoding),
            (&[b"transfer-encoding: gzip, chunked"], Reason::UnknownCoding),
        ];
        for (lines, reason) in cases {
            let shown = lines.concat();
            assert_eq!(read(lines).err(), Some(reason), "{}", shown.escape_ascii());
        }
    }

    #[test]
    fn hosts_of_all_kinds_pass() {
        for host in [
            "",
            "a",
            "a.test:8080",
            "a:",
            "[::1]:80",
            "127.0.0.1",
            "a_b",
            "b\u{fc}cher.test",
        ] {
            assert!(is_host(host.as_bytes()), "{host}");
        }
    }

    #[test]
    fn values_are_read_without_the_blanks_around_them() {
        let seen = read(&[
            b"Host: \ta.test ",
            b"CONTENT-LENGTH:\t007 ",
            b"connection: keep-alive ,CLOSE",
            b"Content-Type: application/grpc+proto",
            b"x: \xff obs-text",
        ])
        .unwrap();
        assert_eq!(seen.host, Some(7..13));
        assert_eq!(seen.length, Some(7));
        assert!(seen.close && seen.grpc && !seen.chunked);
    }
}
