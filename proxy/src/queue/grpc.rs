//! What gRPC says of itself in an exchange: HTTP's status is 200 whatever becomes of a call.

use std::borrow::Cow;

use http::{HeaderMap, HeaderValue, header};

/// A call by gRPC.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Grpc {
    /// `grpc-status`, in the trailers or, where there is no body, in the header; none until it came.
    pub status: Option<u16>,
}

/// The names of the status codes, in their order (gRPC, "Status codes and their use in gRPC").
const CODES: [&str; 17] = [
    "OK",
    "CANCELLED",
    "UNKNOWN",
    "INVALID_ARGUMENT",
    "DEADLINE_EXCEEDED",
    "NOT_FOUND",
    "ALREADY_EXISTS",
    "PERMISSION_DENIED",
    "RESOURCE_EXHAUSTED",
    "FAILED_PRECONDITION",
    "ABORTED",
    "OUT_OF_RANGE",
    "UNIMPLEMENTED",
    "INTERNAL",
    "UNAVAILABLE",
    "DATA_LOSS",
    "UNAUTHENTICATED",
];
/// Codes that are a failure of the server: the others blame the caller (semconv, "gRPC span status").
const OF_SERVER: [&str; 6] = [
    "UNKNOWN",
    "DEADLINE_EXCEEDED",
    "UNIMPLEMENTED",
    "INTERNAL",
    "UNAVAILABLE",
    "DATA_LOSS",
];

impl Grpc {
    /// A call, if the request's content type says so; gRPC-Web is another protocol.
    pub fn of_request(fields: &HeaderMap) -> Option<Self> {
        let value = fields.get(header::CONTENT_TYPE)?.as_bytes();
        let rest = value.strip_prefix(b"application/grpc")?;
        matches!(rest.first(), None | Some(b'+' | b';')).then(Self::default)
    }

    /// Reads the status, if it is among these fields or trailers.
    pub fn read(&mut self, fields: &HeaderMap) {
        let status = fields.get("grpc-status").map(HeaderValue::as_bytes);
        let status = status.and_then(|status| std::str::from_utf8(status).ok()?.parse().ok());
        self.status = status.or(self.status);
    }

    /// The status by name: `NOT_FOUND`, or its number where gRPC has no name for it.
    pub fn status_name(self) -> Option<Cow<'static, str>> {
        let status = self.status?;
        let name = CODES.get(usize::from(status));
        Some(name.map_or_else(|| Cow::Owned(status.to_string()), |name| Cow::Borrowed(*name)))
    }

    /// Whether the call failed: for the caller whatever isn't OK, for the server only what is its own fault.
    pub fn is_failure(self, for_caller: bool) -> bool {
        let named = self.status.map(|status| CODES.get(usize::from(status)));
        match named {
            None | Some(Some(&"OK")) => false,
            Some(Some(name)) => for_caller || OF_SERVER.contains(name),
            Some(None) => true,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fields(name: &'static str, value: &'static str) -> HeaderMap {
        HeaderMap::from_iter([(name.parse().unwrap(), HeaderValue::from_static(value))])
    }

    #[test]
    fn a_call_is_known_by_its_content_type() {
        for (content_type, is_call) in [
            ("application/grpc", true),
            ("application/grpc+proto", true),
            ("application/grpc; charset=x", true),
            ("application/grpc-web", false),
            ("application/json", false),
        ] {
            assert_eq!(
                Grpc::of_request(&fields("content-type", content_type)).is_some(),
                is_call,
                "{content_type}"
            );
        }
        assert_eq!(Grpc::of_request(&HeaderMap::new()), None);
    }

    #[test]
    fn a_status_has_a_name_and_fails_the_one_to_blame() {
        for (status, name, caller, server) in [
            ("0", Some("OK"), false, false),
            ("5", Some("NOT_FOUND"), true, false),
            ("13", Some("INTERNAL"), true, true),
            ("99", Some("99"), true, true),
            ("x", None, false, false),
        ] {
            let mut call = Grpc::default();
            call.read(&fields("grpc-status", status));
            call.read(&HeaderMap::new());
            assert_eq!(call.status_name().as_deref(), name);
            assert_eq!(
                (call.is_failure(true), call.is_failure(false)),
                (caller, server),
                "{status}"
            );
        }
    }
}
