//! How an exchange ended, and what follows from it: its level, and whether it counts as failed.

use crate::{Level, closed_set::closed_set};

closed_set! {
    /// How an exchange ended. Every exchange ends exactly once, in exactly one of these.
    #[derive(Default)]
    pub enum End {
        /// The answer went out whole.
        #[default]
        Complete = "complete",
        /// 101, then closed in order.
        Upgraded = "upgraded",
        /// No connection or no TLS to the upstream; the client got 502.
        UpstreamUnreachable = "upstream_unreachable",
        /// The upstream broke off or answered nonsense.
        UpstreamError = "upstream_error",
        /// The upstream was too slow; the client got 504, or a cut answer.
        UpstreamTimeout = "upstream_timeout",
        /// The client left before the end.
        ClientGone = "client_gone",
        /// The client was too slow: 408, or a stalled upload.
        ClientTimeout = "client_timeout",
        /// sidelog refused the request (4xx).
        Rejected = "rejected",
        /// Cut at the drain deadline.
        Shutdown = "shutdown",
        /// Not an exchange: what was dropped, by reason, in a minute.
        Loss = "loss",
    }
}

impl End {
    /// The level of a record that ended so with this response status.
    #[must_use]
    pub const fn level(self, status: Option<u16>) -> Level {
        match self {
            Self::Complete => match status {
                Some(500..) => Level::Error,
                Some(400..) => Level::Warn,
                _ => Level::Info,
            },
            Self::Upgraded => Level::Info,
            Self::ClientGone | Self::ClientTimeout | Self::Rejected => Level::Warn,
            Self::UpstreamUnreachable | Self::UpstreamError | Self::UpstreamTimeout | Self::Shutdown | Self::Loss => {
                Level::Error
            }
        }
    }

    /// Whether an exchange that ended so with this response status counts as failed.
    ///
    /// A loss is not an exchange, so it is neither.
    #[must_use]
    pub const fn failed(self, status: Option<u16>) -> bool {
        match self {
            Self::Complete => matches!(status, Some(500..)),
            Self::Upgraded | Self::Rejected | Self::Loss => false,
            Self::UpstreamUnreachable
            | Self::UpstreamError
            | Self::UpstreamTimeout
            | Self::ClientGone
            | Self::ClientTimeout
            | Self::Shutdown => true,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The table of the contract: end, status, level, failed.
    const TABLE: &[(End, Option<u16>, Level, bool)] = &[
        (End::Complete, None, Level::Info, false),
        (End::Complete, Some(200), Level::Info, false),
        (End::Complete, Some(399), Level::Info, false),
        (End::Complete, Some(400), Level::Warn, false),
        (End::Complete, Some(499), Level::Warn, false),
        (End::Complete, Some(500), Level::Error, true),
        (End::Complete, Some(599), Level::Error, true),
        (End::Upgraded, Some(101), Level::Info, false),
        (End::UpstreamUnreachable, Some(502), Level::Error, true),
        (End::UpstreamError, Some(200), Level::Error, true),
        (End::UpstreamTimeout, Some(504), Level::Error, true),
        (End::ClientGone, Some(200), Level::Warn, true),
        (End::ClientGone, None, Level::Warn, true),
        (End::ClientTimeout, Some(408), Level::Warn, true),
        (End::Rejected, Some(431), Level::Warn, false),
        (End::Shutdown, Some(200), Level::Error, true),
        (End::Loss, None, Level::Error, false),
    ];

    #[test]
    fn every_end_has_the_level_and_the_failure_of_the_table() {
        for (end, status, level, failed) in TABLE {
            assert_eq!(end.level(*status), *level, "{end} {status:?}");
            assert_eq!(end.failed(*status), *failed, "{end} {status:?}");
        }
    }

    #[test]
    fn the_table_speaks_of_every_end() {
        for end in End::ALL {
            assert!(TABLE.iter().any(|row| row.0 == *end), "{end} is not in the table");
        }
    }
}
