//! The log's line about an upstream that can't be reached: which, and why. Each exchange's record says no more than the kind.
//!
//! Invariants:
//! - Of a request nothing is logged but its method and route, and not every one
//!   (`tests/upstreams.rs: the_log_says_once_in_a_while_why_an_upstream_can_t_be_reached`).

use std::net::SocketAddr;

use pingora::{Error, ErrorType};

use super::seldom::Seldom;
use crate::settings::Upstream;

/// The line of one upstream.
#[derive(Debug)]
pub struct Unreachable {
    upstream: String,
    seldom: Seldom,
}

/// The request that it could not be reached for.
#[derive(Clone, Copy, Debug)]
pub struct For<'a> {
    /// Its method.
    pub method: &'a str,
    /// The route's path as configured.
    pub route: Option<&'a str>,
    /// The address that was tried last.
    pub address: Option<SocketAddr>,
    /// The record's `error.type`.
    pub kind: &'static str,
}

impl Unreachable {
    /// That of an upstream.
    pub fn new(upstream: &Upstream) -> Self {
        Self {
            upstream: upstream.to_string(),
            seldom: Seldom::default(),
        }
    }

    /// Says why, if a line is due.
    pub fn tell(&self, error: &Error, request: For<'_>) {
        let Some(left_out) = self.seldom.due() else {
            return;
        };
        tracing::warn!(
            upstream = self.upstream,
            address = request.address.map(tracing::field::display),
            kind = request.kind,
            error = why(error),
            method = request.method,
            route = request.route,
            left_out,
            "an upstream can't be reached; clients get 502"
        );
    }
}

/// What went wrong at the bottom; pingora's own errors around it say where in pingora. What is wrong in a TLS handshake it has
/// put in words, and the bottom is an address.
fn why(error: &Error) -> String {
    let context = error.context.as_ref().map_or("", |context| context.as_str());
    let root = error.root_cause();
    match error.etype() {
        ErrorType::TLSHandshakeFailure => context.rsplit("cause: ").next().unwrap_or_default().to_owned(),
        _ if !root.is::<Error>() => root.to_string(),
        _ if context.is_empty() => error.etype().as_str().to_owned(),
        _ => context.to_owned(),
    }
}
