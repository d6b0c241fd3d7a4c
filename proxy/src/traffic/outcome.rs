//! How an exchange ended, told from pingora's error, and what a client gets that has no answer yet.

use pingora::{Error, ErrorSource, ErrorType};
use sidelog_record::End;

use super::accept::Refusal;
use super::head::Reason;

/// An upstream whose name has never resolved; pingora has no name for it.
pub const NO_ADDRESS: ErrorType = ErrorType::Custom("NoAddress");

/// The end of an exchange that pingora gave up on, and its `error.type`.
pub fn of_error(error: &Error) -> (End, &'static str) {
    use ErrorType as E;
    match Refusal::of(error.root_cause()) {
        Some(Refusal::Malformed(reason)) => return (End::Rejected, reason.as_str()),
        Some(Refusal::Slow | Refusal::Unread) => return (End::ClientTimeout, "client_timeout"),
        None => {}
    }
    if is_fault(error) {
        return (End::Rejected, Reason::Http2.as_str());
    }
    match (error.esource(), error.etype()) {
        (_, E::HTTPStatus(400..500)) => (End::Rejected, "rejected"),
        (ErrorSource::Downstream, E::ReadTimedout | E::WriteTimedout) => (End::ClientTimeout, "client_timeout"),
        // What pingora has no type of its own for is a chunk, a trailer or a length that can't be.
        (ErrorSource::Downstream, E::InvalidHTTPHeader | E::ConnectError | E::Custom(_)) => {
            (End::Rejected, "bad_request")
        }
        (ErrorSource::Downstream, _) => (End::ClientGone, "client_gone"),
        (_, E::ReadTimedout | E::WriteTimedout) => (End::UpstreamTimeout, "timeout"),
        (_, E::ConnectTimedout | E::TLSHandshakeTimedout) => (End::UpstreamUnreachable, "connect_timeout"),
        (_, E::ConnectRefused) => (End::UpstreamUnreachable, "connection_refused"),
        (ErrorSource::Upstream, etype) if *etype == NO_ADDRESS => (End::UpstreamUnreachable, "name_resolution"),
        (_, E::ConnectNoRoute) => (End::UpstreamUnreachable, "no_route"),
        (_, E::TLSHandshakeFailure | E::InvalidCert | E::HandshakeError | E::TLSWantX509Lookup) => {
            (End::UpstreamUnreachable, "tls")
        }
        (_, E::ConnectError | E::BindError | E::SocketError | E::ConnectProxyFailure) => {
            (End::UpstreamUnreachable, "connect_error")
        }
        (ErrorSource::Upstream, E::InvalidHTTPHeader | E::H1Error | E::H2Error | E::InvalidH2) => {
            (End::UpstreamError, "invalid_response")
        }
        (ErrorSource::Upstream, _) => (End::UpstreamError, "connection_closed"),
        (ErrorSource::Internal | ErrorSource::Unset, _) => (End::UpstreamError, "internal"),
    }
}

/// Whether the client broke the protocol of HTTP/2 in the middle of a request: with a body of another length than it told, say.
fn is_fault(error: &Error) -> bool {
    let fault = error.root_cause().downcast_ref::<h2::Error>();
    *error.esource() == ErrorSource::Downstream && fault.is_some_and(|fault| fault.is_library() && fault.is_reset())
}

/// Whether the client closed its side; a write that failed is something else.
pub fn client_left(error: &Error) -> bool {
    let left = matches!(error.etype(), ErrorType::ReadError | ErrorType::ConnectionClosed);
    left && *error.esource() == ErrorSource::Downstream
}

/// Whether some of an answer's head had come when the upstream broke off. pingora tells it in words alone.
pub fn answer_began(error: &Error) -> bool {
    let context = error.context.as_ref().map_or("", |context| context.as_str());
    let read = context.split_once("bytes already read: ").map(|(_, read)| read);
    read.is_some_and(|read| !read.starts_with('0'))
}

/// Whether the client took no more of the answer.
pub fn is_unread(error: &Error) -> bool {
    *error.esource() == ErrorSource::Downstream && matches!(error.etype(), ErrorType::WriteTimedout)
}

/// The status that a client without an answer is sent; `None` when there is nobody to send it to.
pub fn status_of(end: End) -> Option<u16> {
    match end {
        End::UpstreamTimeout => Some(504),
        End::UpstreamUnreachable | End::UpstreamError => Some(502),
        End::ClientTimeout => Some(408),
        End::Rejected => Some(400),
        End::Shutdown => Some(503),
        End::ClientGone | End::Complete | End::Upgraded | End::Loss => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn end(source: ErrorSource, etype: ErrorType) -> (End, &'static str) {
        of_error(&Error::create(etype, source, None, None))
    }

    #[test]
    fn each_failure_has_its_end() {
        use {ErrorSource as S, ErrorType as E};
        let cases = [
            (S::Upstream, E::ConnectRefused, End::UpstreamUnreachable),
            (S::Upstream, E::ConnectTimedout, End::UpstreamUnreachable),
            (S::Upstream, E::InvalidCert, End::UpstreamUnreachable),
            (S::Upstream, NO_ADDRESS, End::UpstreamUnreachable),
            (S::Upstream, E::ReadTimedout, End::UpstreamTimeout),
            (S::Upstream, E::ConnectionClosed, End::UpstreamError),
            (S::Upstream, E::InvalidHTTPHeader, End::UpstreamError),
            (S::Downstream, E::ConnectionClosed, End::ClientGone),
            (S::Downstream, E::WriteError, End::ClientGone),
            (S::Downstream, E::ReadTimedout, End::ClientTimeout),
            (S::Downstream, E::InvalidHTTPHeader, End::Rejected),
            (S::Downstream, E::new("InvalidChunk"), End::Rejected),
            (S::Internal, E::HTTPStatus(400), End::Rejected),
            (S::Internal, E::InternalError, End::UpstreamError),
        ];
        for (source, etype, expected) in cases {
            let what = format!("{source:?} {etype:?}");
            assert_eq!(end(source, etype).0, expected, "{what}");
        }
    }

    #[test]
    fn only_who_is_still_there_is_sent_a_status() {
        assert_eq!(status_of(End::ClientGone), None);
        assert_eq!(status_of(End::UpstreamTimeout), Some(504));
        assert_eq!(status_of(End::UpstreamUnreachable), Some(502));
    }
}
