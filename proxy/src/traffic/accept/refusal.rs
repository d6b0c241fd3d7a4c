//! The answers that the accept layer gives for itself, and the close that lets a client read them.

use std::io;
use std::time::Duration;

use http::StatusCode;
use pingora::protocols::Stream;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::traffic::head::Reason;

/// How long a client may take to read the last answer and to close.
const LINGER: Duration = Duration::from_secs(2);

/// Why reading a request's body failed, where the client's bytes or its pace are the reason.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// What came can't be a body.
    #[error("the body is not well-formed: {}", .0.as_str())]
    Malformed(Reason),
    /// It came too slowly: `limits.downstream_rate_min`.
    #[error("the body came too slowly")]
    Slow,
    /// The answer was not read for `limits.downstream_write_timeout`.
    #[error("the answer was not read")]
    Unread,
}

impl Refusal {
    /// The refusal that an error was made of.
    pub fn of(error: &(dyn std::error::Error + 'static)) -> Option<Self> {
        error.downcast_ref::<io::Error>()?.get_ref()?.downcast_ref().copied()
    }
}

impl From<Refusal> for io::Error {
    fn from(refusal: Refusal) -> Self {
        let kind = match refusal {
            Refusal::Malformed(_) => io::ErrorKind::InvalidData,
            Refusal::Slow | Refusal::Unread => io::ErrorKind::TimedOut,
        };
        Self::new(kind, refusal)
    }
}

/// A whole answer of HTTP/1 with this status, after which the connection closes.
pub(super) fn answer(status: u16) -> Vec<u8> {
    let phrase = StatusCode::from_u16(status)
        .ok()
        .and_then(|status| status.canonical_reason());
    let allow = if status == 405 {
        "allow: GET, HEAD, POST, PUT, DELETE, PATCH, OPTIONS, TRACE\r\n"
    } else {
        ""
    };
    let phrase = phrase.unwrap_or_default();
    format!("HTTP/1.1 {status} {phrase}\r\n{allow}content-length: 0\r\nconnection: close\r\n\r\n").into_bytes()
}

/// Closes this side, and waits until the other has closed: bytes that nobody reads would make the kernel reset the
/// connection, and destroy an answer that is on its way (RFC 9112, 9.6).
pub(super) async fn linger(mut stream: Stream) {
    let closing = async {
        stream.shutdown().await?;
        let mut rest = [0; 1024];
        while stream.read(&mut rest).await? > 0 {}
        io::Result::Ok(())
    };
    // Whoever doesn't close in time, or breaks off, has had the chance.
    drop(tokio::time::timeout(LINGER, closing).await);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_is_whole_and_the_last() {
        let answer = String::from_utf8(answer(431)).unwrap();
        assert!(
            answer.starts_with("HTTP/1.1 431 Request Header Fields Too Large\r\n"),
            "{answer}"
        );
        assert!(
            answer.ends_with("content-length: 0\r\nconnection: close\r\n\r\n"),
            "{answer}"
        );
    }

    #[test]
    fn a_refusal_is_found_again_in_an_error() {
        let error = io::Error::from(Refusal::Slow);
        assert_eq!(Refusal::of(&error), Some(Refusal::Slow));
        assert_eq!(Refusal::of(&io::Error::from(io::ErrorKind::TimedOut)), None);
    }
}
