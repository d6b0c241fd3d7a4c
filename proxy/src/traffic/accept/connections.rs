//! What the accept layer counts, of all listeners.

use std::sync::atomic::{AtomicU64, Ordering};

use crate::traffic::head::Reason;
use crate::traffic::seldom::Seldom;

/// Why a head never became a request. Closed set; the metric's `reason` label.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NoRequest {
    /// It was not whole within `limits.header_timeout`.
    Timeout,
    /// The client closed in the middle of it.
    BrokeOff,
    /// HTTP without TLS, where TLS is spoken.
    Cleartext,
    /// The TLS handshake failed.
    TlsHandshake,
    /// It was refused.
    Refused(Reason),
}

impl NoRequest {
    const BEFORE: [Self; 4] = [Self::Timeout, Self::BrokeOff, Self::Cleartext, Self::TlsHandshake];
    const COUNT: usize = Self::BEFORE.len() + Reason::ALL.len();

    /// All reasons, in the order of their metrics.
    pub fn all() -> impl Iterator<Item = Self> {
        let refused = Reason::ALL.into_iter().map(Self::Refused);
        Self::BEFORE.into_iter().chain(refused)
    }

    /// The value of the `reason` label.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Timeout => "timeout",
            Self::BrokeOff => "broke_off",
            Self::Cleartext => "cleartext",
            Self::TlsHandshake => "tls_handshake",
            Self::Refused(reason) => reason.as_str(),
        }
    }

    fn index(self) -> usize {
        match self {
            Self::Timeout => 0,
            Self::BrokeOff => 1,
            Self::Cleartext => 2,
            Self::TlsHandshake => 3,
            Self::Refused(reason) => Self::BEFORE.len() + reason as usize,
        }
    }
}

/// A limit that somebody reached. Closed set; the metric's `limit` label is the key in `[limits]`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Limit {
    /// `connections_max`.
    Connections,
    /// `header_timeout`.
    HeaderTime,
    /// `header_max`.
    HeaderBytes,
    /// `header_fields_max`.
    HeaderFields,
    /// `target_max`.
    Target,
    /// `downstream_idle_timeout`.
    Idle,
    /// `downstream_rate_min`.
    UploadRate,
    /// `downstream_write_timeout`.
    Unread,
    /// `h2_resets_max`.
    Resets,
    /// `h2_streams_max`.
    Streams,
}

impl Limit {
    /// All limits, in the order of their metrics.
    pub const ALL: [Self; 10] = [
        Self::Connections,
        Self::HeaderTime,
        Self::HeaderBytes,
        Self::HeaderFields,
        Self::Target,
        Self::Idle,
        Self::UploadRate,
        Self::Unread,
        Self::Resets,
        Self::Streams,
    ];

    /// The value of the `limit` label.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Connections => "connections_max",
            Self::HeaderTime => "header_timeout",
            Self::HeaderBytes => "header_max",
            Self::HeaderFields => "header_fields_max",
            Self::Target => "target_max",
            Self::Idle => "downstream_idle_timeout",
            Self::UploadRate => "downstream_rate_min",
            Self::Unread => "downstream_write_timeout",
            Self::Resets => "h2_resets_max",
            Self::Streams => "h2_streams_max",
        }
    }

    fn of(reason: Reason) -> Option<Self> {
        match reason {
            Reason::HeaderTooLarge => Some(Self::HeaderBytes),
            Reason::HeaderCount => Some(Self::HeaderFields),
            Reason::TargetTooLong => Some(Self::Target),
            _ => None,
        }
    }
}

/// Counts of connections, shared by all listeners.
#[derive(Debug, Default)]
pub struct Connections {
    accepted: AtomicU64,
    closed: AtomicU64,
    no_request: [AtomicU64; NoRequest::COUNT],
    limits: [AtomicU64; Limit::ALL.len()],
    log: Seldom,
}

impl Connections {
    /// Connections accepted since start.
    pub fn accepted(&self) -> u64 {
        self.accepted.load(Ordering::Acquire)
    }

    /// Connections open now.
    pub fn open(&self) -> u64 {
        let closed = self.closed.load(Ordering::Acquire);
        self.accepted().saturating_sub(closed)
    }

    /// Heads that never became a request, for `reason`.
    pub fn without_request(&self, reason: NoRequest) -> u64 {
        self.no_request
            .get(reason.index())
            .map_or(0, |count| count.load(Ordering::Acquire))
    }

    /// How often `limit` was reached.
    pub fn reached(&self, limit: Limit) -> u64 {
        self.limits
            .get(limit as usize)
            .map_or(0, |count| count.load(Ordering::Acquire))
    }

    /// A connection is open from now until the guard is dropped.
    pub(super) fn open_one(self: &std::sync::Arc<Self>) -> Open {
        self.accepted.fetch_add(1, Ordering::AcqRel);
        Open(std::sync::Arc::clone(self))
    }

    pub(super) fn count(&self, reason: NoRequest) {
        if let Some(count) = self.no_request.get(reason.index()) {
            count.fetch_add(1, Ordering::AcqRel);
        }
        match reason {
            NoRequest::Timeout => self.limit(Limit::HeaderTime),
            NoRequest::BrokeOff => self.tell("reason", reason.as_str()),
            // The TLS side tells these, with why.
            NoRequest::Cleartext | NoRequest::TlsHandshake => {}
            NoRequest::Refused(refused) => match Limit::of(refused) {
                Some(limit) => self.limit(limit),
                None => self.tell("reason", reason.as_str()),
            },
        }
    }

    pub(super) fn limit(&self, limit: Limit) {
        if let Some(count) = self.limits.get(limit as usize) {
            count.fetch_add(1, Ordering::AcqRel);
        }
        // That clients leave connections unused is how they are.
        if limit != Limit::Idle {
            self.tell("limit", limit.as_str());
        }
    }

    fn tell(&self, what: &'static str, name: &'static str) {
        let Some(left_out) = self.log.due() else {
            return;
        };
        tracing::info!(
            what,
            name,
            left_out,
            "refused a client; all refusals are counted in sidelog_heads_refused_total and sidelog_limits_reached_total"
        );
    }
}

/// An open connection.
#[derive(Debug)]
pub(super) struct Open(std::sync::Arc<Connections>);

impl Drop for Open {
    fn drop(&mut self) {
        self.0.closed.fetch_add(1, Ordering::AcqRel);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_reason_has_its_own_count() {
        let connections = Connections::default();
        for reason in NoRequest::all() {
            connections.count(reason);
        }
        assert!(NoRequest::all().all(|reason| connections.without_request(reason) == 1));
        let limits: Vec<_> = Limit::ALL.map(|limit| connections.reached(limit)).into();
        assert_eq!(limits, [0, 1, 1, 1, 1, 0, 0, 0, 0, 0]);
    }
}
