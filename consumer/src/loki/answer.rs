//! What an answer of the store means for the entries that were sent.
//!
//! Invariant: 204 is the only success. Loki answers 260 when it discards what it was sent, and a 200 comes from
//! something that is no push endpoint.
//!
//! Source: Loki's HTTP API (`POST /loki/api/v1/push`) and its `block_ingestion_*` limits.

use std::time::Duration;

use jiff::Timestamp;
use jiff::fmt::rfc2822::DateTimeParser;
use reqwest::StatusCode;

/// Three kinds of answer, and what to do after each.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Answer {
    /// Every entry is stored.
    Stored,
    /// At least one entry was refused for good, and the store took the others; halves find out which.
    Refused { kind: RefusedAs, text: String },
    /// Nothing can be said about the entries: wait, then send them again.
    Hold(Hold),
}

/// Why entries were refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum RefusedAs {
    /// 400: an entry breaks one of the store's rules.
    Invalid,
    /// 413: the whole is too large.
    TooLarge,
}

/// Why nothing goes on, and what the operator can do.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Hold {
    /// One word for the log and the metric.
    pub(super) kind: &'static str,
    /// `Retry-After`.
    pub(super) wait: Option<Duration>,
    pub(super) advice: String,
}

/// Judges an answer by its status, its `Retry-After` and the beginning of its body.
pub(super) fn judge(status: StatusCode, retry_after: Option<&str>, text: &str) -> Answer {
    let hold = |kind, what: &str| {
        let said = if text.is_empty() { "" } else { "; it says: " };
        Answer::Hold(Hold {
            kind,
            wait: retry_after.and_then(|value| wait(value, Timestamp::now())),
            advice: format!("the store answered {}: {what}{said}{text}", status.as_u16()),
        })
    };
    let refused = |kind| Answer::Refused {
        kind,
        text: text.to_owned(),
    };
    match status.as_u16() {
        204 => Answer::Stored,
        // A setting of Loki's, and not the entries, is what stands in the way.
        400 if text.contains("allow_structured_metadata") => hold(
            "no_structured_metadata",
            "Loki is set to refuse structured metadata; set limits_config.allow_structured_metadata to true (it needs schema v13)",
        ),
        400 => refused(RefusedAs::Invalid),
        413 => refused(RefusedAs::TooLarge),
        // Loki's distributor passes on gRPC's own message limit as a 500; the same bytes would fail for ever.
        500 if text.contains("message larger than max") => refused(RefusedAs::TooLarge),
        260 => hold(
            "blocked",
            "Loki blocks ingestion for this tenant and discards what it is sent; lift the block (limits_config.block_ingestion_until)",
        ),
        401 => hold(
            "unauthorized",
            "check loki.basic_auth or loki.bearer_token_file, and loki.tenant",
        ),
        403 => hold(
            "forbidden",
            "these credentials may not write; check loki.basic_auth or loki.bearer_token_file, and loki.tenant",
        ),
        404 | 405 => hold("wrong_path", "check the path of loki.url; Loki's is /loki/api/v1/push"),
        429 => hold(
            "rate_limited",
            "the records wait in JetStream; for a higher rate raise limits_config.ingestion_rate_mb or per_stream_rate_limit in Loki",
        ),
        200..=299 => hold(
            "no_push_endpoint",
            "only 204 says that a push was stored; check that loki.url is a push endpoint",
        ),
        300..=399 => hold(
            "redirected",
            "redirects are not followed; put the final address into loki.url",
        ),
        500..=599 => hold("failing", "the store is failing; the records wait in JetStream"),
        _ => hold("unexpected", "check loki.url and what stands in front of the store"),
    }
}

/// `Retry-After` as seconds or as a date (RFC 9110 section 10.2.3).
fn wait(value: &str, now: Timestamp) -> Option<Duration> {
    let value = value.trim();
    if let Ok(seconds) = value.parse() {
        return Some(Duration::from_secs(seconds));
    }
    let date = DateTimeParser::new().parse_timestamp(value).ok()?;
    Some(Duration::try_from(date.duration_since(now)).unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn kind(status: u16) -> &'static str {
        match judge(StatusCode::from_u16(status).unwrap(), None, "") {
            Answer::Stored => "stored",
            Answer::Refused {
                kind: RefusedAs::Invalid,
                ..
            } => "invalid",
            Answer::Refused {
                kind: RefusedAs::TooLarge,
                ..
            } => "too_large",
            Answer::Hold(hold) => hold.kind,
        }
    }

    #[test]
    fn only_204_is_a_success_and_only_400_and_413_refuse() {
        let expected = [
            (200, "no_push_endpoint"),
            (202, "no_push_endpoint"),
            (204, "stored"),
            (260, "blocked"),
            (302, "redirected"),
            (400, "invalid"),
            (401, "unauthorized"),
            (403, "forbidden"),
            (404, "wrong_path"),
            (405, "wrong_path"),
            (408, "unexpected"),
            (413, "too_large"),
            (429, "rate_limited"),
            (500, "failing"),
            (503, "failing"),
        ];
        for (status, meaning) in expected {
            assert_eq!(kind(status), meaning, "{status}");
        }
    }

    #[test]
    fn a_hold_names_the_keys_to_check_and_what_the_store_said() {
        let Answer::Hold(hold) = judge(StatusCode::UNAUTHORIZED, None, "no org id") else {
            panic!("401 must hold");
        };
        for word in ["loki.basic_auth", "loki.bearer_token_file", "loki.tenant", "no org id"] {
            assert!(hold.advice.contains(word), "{}", hold.advice);
        }
    }

    #[test]
    fn the_message_limit_between_lokis_own_parts_counts_as_too_large() {
        let text = "rpc error: code = ResourceExhausted desc = grpc: received message larger than max (5 vs. 4)";
        let answer = judge(StatusCode::INTERNAL_SERVER_ERROR, None, text);
        assert!(matches!(
            answer,
            Answer::Refused {
                kind: RefusedAs::TooLarge,
                ..
            }
        ));
    }

    #[test]
    fn a_loki_that_takes_no_structured_metadata_is_waited_for() {
        let text = "stream '{}' includes structured metadata, but this feature is disallowed. Please see `limits_config.allow_structured_metadata`";
        let answer = judge(StatusCode::BAD_REQUEST, None, text);
        assert!(matches!(
            answer,
            Answer::Hold(Hold {
                kind: "no_structured_metadata",
                ..
            })
        ));
    }

    #[test]
    fn retry_after_is_seconds_or_a_date() {
        let now = Timestamp::from_second(1_445_412_470).unwrap();
        assert_eq!(wait("7", now), Some(Duration::from_secs(7)));
        assert_eq!(
            wait("Wed, 21 Oct 2015 07:28:00 GMT", now),
            Some(Duration::from_secs(10))
        );
        assert_eq!(wait("Wed, 21 Oct 2015 07:00:00 GMT", now), Some(Duration::ZERO));
        assert_eq!(wait("soon", now), None);
    }
}
