//! The heads of answers: what in one could be read in two ways is refused, or put right where the RFC says how.
//!
//! Invariants:
//! - No answer has two lengths, or one that it can't have, when it goes out (`tests/wall/hostile.rs`).
//! - A connection is switched only to what its client asked for, and that is WebSocket.

use http::{HeaderValue, StatusCode, Version, header};
use pingora::http::ResponseHeader;
use pingora::{Error, ErrorType, Result};

/// Judges an answer to a request that `asks` to switch to WebSocket, or doesn't.
///
/// # Errors
/// When it can't go out.
pub fn judge(response: &mut ResponseHeader, asks: bool) -> Result<()> {
    let status = response.status;
    if status == StatusCode::SWITCHING_PROTOCOLS {
        return if asks && response.version == Version::HTTP_11 && is_websocket(response) {
            Ok(())
        } else {
            refuse("an upgrade that nobody asked for")
        };
    }
    if status.is_informational() {
        response.remove_header(&header::CONTENT_LENGTH);
        response.remove_header(&header::TRANSFER_ENCODING);
        return Ok(());
    }
    coding(response)?;
    length(response)
}

/// Whether the protocol that a connection is switched to is WebSocket (RFC 6455, 4.2.2).
fn is_websocket(response: &ResponseHeader) -> bool {
    let mut protocols = response.headers.get_all(header::UPGRADE).iter();
    let (first, second) = (protocols.next(), protocols.next());
    second.is_none() && first.is_some_and(|protocol| protocol.as_bytes().eq_ignore_ascii_case(b"websocket"))
}

/// Chunks are of HTTP/1.1, and are made once (RFC 9112, 6.1); where there is no body there are none.
fn coding(response: &mut ResponseHeader) -> Result<()> {
    if !response.headers.contains_key(header::TRANSFER_ENCODING) {
        return Ok(());
    }
    let codings = response.headers.get_all(header::TRANSFER_ENCODING).iter();
    let codings = codings.flat_map(|value| value.as_bytes().split(|byte| *byte == b','));
    let chunked = codings.filter(|coding| coding.trim_ascii().eq_ignore_ascii_case(b"chunked"));
    if chunked.count() > 1 || response.version == Version::HTTP_10 {
        return refuse("a transfer coding that can't be");
    }
    if response.status == StatusCode::NO_CONTENT {
        response.remove_header(&header::TRANSFER_ENCODING);
    }
    Ok(())
}

/// One length, not the same one several times (RFC 9112, 6.3), and none of nothing (RFC 9110, 8.6). pingora has seen that they
/// are the same.
fn length(response: &mut ResponseHeader) -> Result<()> {
    let mut values = response.headers.get_all(header::CONTENT_LENGTH).iter();
    let (Some(first), second) = (values.next(), values.next()) else {
        return Ok(());
    };
    let digits = first.as_bytes().split(|byte| *byte == b',').next().unwrap_or_default();
    let digits = digits.trim_ascii();
    if response.status == StatusCode::NO_CONTENT && digits != b"0" {
        response.remove_header(&header::CONTENT_LENGTH);
    } else if second.is_some() || digits.len() < first.len() {
        let Ok(one) = HeaderValue::from_bytes(digits) else {
            return refuse("a length that can't be");
        };
        response.insert_header(header::CONTENT_LENGTH, one)?;
    }
    Ok(())
}

fn refuse<T>(why: &'static str) -> Result<T> {
    Err(Error::explain(ErrorType::InvalidHTTPHeader, why).into_up())
}

#[cfg(test)]
mod tests {
    use super::*;

    const LENGTH: &str = "content-length";
    const CODING: &str = "transfer-encoding";

    type Fields = &'static [(&'static str, &'static str)];

    /// What goes out of an answer, or nothing.
    fn judged(version: Version, status: u16, fields: Fields) -> Option<Vec<(String, String)>> {
        let mut response = ResponseHeader::build(status, None).unwrap();
        response.set_version(version);
        for (name, value) in fields {
            response.append_header(*name, *value).unwrap();
        }
        judge(&mut response, true).ok()?;
        let left = response.headers.iter();
        Some(
            left.map(|(name, value)| (name.to_string(), value.to_str().unwrap().to_owned()))
                .collect(),
        )
    }

    #[test]
    fn lengths_are_put_right_and_codings_refused() {
        use Version as V;
        let cases: [(V, u16, Fields, Option<Fields>); 14] = [
            (V::HTTP_11, 200, &[(LENGTH, "2")], Some(&[(LENGTH, "2")])),
            (V::HTTP_11, 200, &[(LENGTH, "2"), (LENGTH, "2")], Some(&[(LENGTH, "2")])),
            (V::HTTP_11, 200, &[(LENGTH, "2, 2")], Some(&[(LENGTH, "2")])),
            (V::HTTP_11, 204, &[(LENGTH, "0")], Some(&[(LENGTH, "0")])),
            (V::HTTP_11, 204, &[(LENGTH, "2")], Some(&[])),
            (V::HTTP_11, 204, &[(CODING, "chunked")], Some(&[])),
            (V::HTTP_11, 304, &[(LENGTH, "2")], Some(&[(LENGTH, "2")])),
            (V::HTTP_11, 103, &[(LENGTH, "2"), (CODING, "chunked")], Some(&[])),
            (
                V::HTTP_11,
                200,
                &[(CODING, "gzip, chunked")],
                Some(&[(CODING, "gzip, chunked")]),
            ),
            (V::HTTP_11, 200, &[(CODING, "chunked, Chunked")], None),
            (V::HTTP_11, 200, &[(CODING, "chunked"), (CODING, "chunked")], None),
            (V::HTTP_10, 200, &[(CODING, "chunked")], None),
            (V::HTTP_10, 200, &[(LENGTH, "2")], Some(&[(LENGTH, "2")])),
            (V::HTTP_2, 200, &[(LENGTH, "2")], Some(&[(LENGTH, "2")])),
        ];
        for (version, status, fields, expected) in cases {
            let expected = expected.map(|fields| {
                let owned = |(name, value): &(&str, &str)| ((*name).to_owned(), (*value).to_owned());
                fields.iter().map(owned).collect()
            });
            assert_eq!(judged(version, status, fields), expected, "{status} {fields:?}");
        }
    }

    #[test]
    fn a_connection_is_switched_to_what_was_asked_for() {
        let websocket: Fields = &[("upgrade", "WebSocket"), ("connection", "upgrade")];
        assert!(judged(Version::HTTP_11, 101, websocket).is_some());
        assert_eq!(judged(Version::HTTP_10, 101, websocket), None);
        let others: [Fields; 3] = [
            &[("upgrade", "h2c")],
            &[],
            &[("upgrade", "websocket"), ("upgrade", "h2c")],
        ];
        for other in others {
            assert_eq!(judged(Version::HTTP_11, 101, other), None, "{other:?}");
        }
        let mut response = ResponseHeader::build(101, None).unwrap();
        response.append_header("upgrade", "websocket").unwrap();
        assert!(judge(&mut response, false).is_err());
    }
}
