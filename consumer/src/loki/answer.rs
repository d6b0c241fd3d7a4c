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

use crate::answer::{Answer, Hold, Reach, RefusedAs};

/// Judges an answer by its status, its `Retry-After` and the beginning of its body.
pub(super) fn judge(status: StatusCode, retry_after: Option<&str>, text: &str) -> Answer {
    let hold = |kind, what: &str| {
        let said = if text.is_empty() { "" } else { "; it says: " };
        Answer::Hold(Hold {
            kind,
            reach: if kind.starts_with("stream_") {
                Reach::Stream
            } else {
                Reach::Store
            },
            by_rate: status == StatusCode::TOO_MANY_REQUESTS,
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
        // The push held one stream, so it is that one.
        429 if text.contains("Per stream rate limit exceeded") => hold(
            "stream_rate_limited",
            "this stream alone waits, its records in JetStream; raise limits_config.per_stream_rate_limit in Loki, or let the service \
             log less (the proxy's capture keys)",
        ),
        429 if text.contains("active stream limit") => hold(
            "stream_limit",
            "a stream that Loki doesn't know yet waits, its records in JetStream; raise limits_config.max_global_streams_per_user in \
             Loki, or lower loki.max_services",
        ),
        429 => hold(
            "rate_limited",
            "the records wait in JetStream; for a higher rate raise limits_config.ingestion_rate_mb in Loki",
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
    fn a_limit_of_one_stream_holds_that_stream_and_any_other_429_everything() {
        for (text, kind, reach) in [
            (
                "entry with timestamp 2026-01-01 00:00:00 +0000 UTC ignored, reason: 'Per stream rate limit exceeded (limit: 3MB/sec) while \
                 attempting to ingest for stream '{a=\"b\"}' totaling 1kB'",
                "stream_rate_limited",
                Reach::Stream,
            ),
            (
                "Maximum active stream limit exceeded when trying to create stream {a=\"b\"}, reduce the number of active streams",
                "stream_limit",
                Reach::Stream,
            ),
            (
                "Ingestion rate limit exceeded for user fake",
                "rate_limited",
                Reach::Store,
            ),
            ("", "rate_limited", Reach::Store),
        ] {
            let Answer::Hold(hold) = judge(StatusCode::TOO_MANY_REQUESTS, Some("3"), text) else {
                panic!("429 must hold: {text}");
            };
            assert_eq!((hold.kind, hold.reach, hold.by_rate), (kind, reach, true), "{text}");
            assert_eq!(hold.wait, Some(Duration::from_secs(3)));
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
