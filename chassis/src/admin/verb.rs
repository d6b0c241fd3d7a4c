//! What an admin endpoint of the program's own does, and who may ask for it: processes of this machine, and none else.
//!
//! Invariants:
//! - a peer that isn't loopback is refused, whatever it asks (`only_loopback_may_ask`)
//! - so is what a browser sends for a page of somebody else's, though it comes from loopback
//!   (`a_page_in_a_browser_may_not_ask`)

use std::fmt;
use std::net::IpAddr;
use std::sync::Arc;

use http::header::{HOST, ORIGIN};
use http::uri::Authority;
use http::{HeaderMap, HeaderValue, Method};

/// The largest body of a request.
pub(super) const BODY_MAX: usize = 4 * 1024;

/// What is done with a request's body: a page, or a sentence that says why it is refused.
pub type Act = Arc<dyn Fn(&[u8]) -> Result<Page, String> + Send + Sync>;

/// An endpoint of the program's own.
#[derive(Clone)]
pub struct Verb {
    pub(super) method: Method,
    pub(super) path: &'static str,
    pub(super) act: Act,
}

/// An answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Page {
    /// Its `Content-Type`.
    pub content_type: &'static str,
    /// Its body.
    pub text: String,
}

impl Verb {
    /// What `method` at `path` does. It runs on the runtime that serves the endpoints: it may not wait.
    pub fn new(
        method: Method,
        path: &'static str,
        act: impl Fn(&[u8]) -> Result<Page, String> + Send + Sync + 'static,
    ) -> Self {
        let act = Arc::new(act);
        Self { method, path, act }
    }
}

impl fmt::Debug for Verb {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.method, self.path)
    }
}

impl Page {
    /// A page of plain text.
    pub fn text(text: impl Into<String>) -> Self {
        Self {
            content_type: super::TEXT,
            text: text.into(),
        }
    }
}

/// Why this peer may not ask, if so.
pub(super) fn refusal(peer: IpAddr, fields: &HeaderMap) -> Option<&'static str> {
    if !peer.to_canonical().is_loopback() {
        return Some("only from loopback: ask on the machine or in the pod itself, at 127.0.0.1 or [::1]\n");
    }
    let host = fields.get(HOST);
    (fields.contains_key(ORIGIN) || !host.is_none_or(names_this_machine))
        .then_some("not from a web page: ask with a client such as curl, at 127.0.0.1, [::1] or localhost\n")
}

/// A page can make its own name stand for 127.0.0.1, but not a name that it doesn't own.
fn names_this_machine(host: &HeaderValue) -> bool {
    let Ok(authority) = Authority::try_from(host.as_bytes()) else {
        return false;
    };
    let name = authority.host().trim_start_matches('[').trim_end_matches(']');
    name.eq_ignore_ascii_case("localhost") || name.parse::<IpAddr>().is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn is_refused(peer: &str, fields: &[(http::HeaderName, &'static str)]) -> bool {
        let fields = fields
            .iter()
            .map(|(name, value)| (name.clone(), HeaderValue::from_static(value)));
        refusal(peer.parse().unwrap(), &fields.collect()).is_some()
    }

    #[test]
    fn only_loopback_may_ask() {
        for peer in ["127.0.0.1", "127.8.8.8", "::1", "::ffff:127.0.0.1"] {
            assert!(!is_refused(peer, &[]), "{peer}");
        }
        for peer in ["10.0.0.1", "::ffff:10.0.0.1", "0.0.0.0", "::", "fe80::1", "::127.0.0.1"] {
            assert!(is_refused(peer, &[]), "{peer}");
        }
    }

    #[test]
    fn a_page_in_a_browser_may_not_ask() {
        for host in [
            "127.0.0.1:9901",
            "localhost",
            "LOCALHOST:9901",
            "[::1]:9901",
            "10.0.0.1",
        ] {
            assert!(!is_refused("127.0.0.1", &[(HOST, host)]), "{host}");
        }
        for host in ["rebound.example:9901", "localhost.example", "a b", "127.0.0.1.example"] {
            assert!(is_refused("127.0.0.1", &[(HOST, host)]), "{host}");
        }
        assert!(is_refused("127.0.0.1", &[(ORIGIN, "https://a.example")]));
        assert!(is_refused("127.0.0.1", &[(ORIGIN, "null"), (HOST, "localhost")]));
    }
}
