//! What the server announces, held against the settings: each misfit is one sentence that names both sides.
//!
//! What two keys of ours say against each other is an error of the configuration ([`crate::settings`]); here nothing is
//! refused, because a server can be changed while we run.

use std::time::Duration;

use sidelog_chassis::settings::{ByteSize, duration};
use sidelog_record::MAX_ENCODED;

use crate::settings::{Settings, SinkKind};
use crate::source::FETCH_MESSAGES;

/// What Loki takes in a push where nobody changed it: gRPC's limit between its parts, and its Helm gateway's for a body.
const LOKI_PUSH: ByteSize = ByteSize::mib(4);
/// Loki's own default of `reject_old_samples_max_age`.
const LOKI_AGE: Duration = Duration::from_secs(168 * 3600);

/// What is known of the server.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Server {
    pub(crate) max_payload: usize,
    /// How long the stream keeps a message, where that is known and has an end.
    pub(crate) max_age: Option<Duration>,
    /// What the durable waits for an answer.
    pub(crate) ack_wait: Duration,
    /// How many messages the durable leaves unanswered; below 1 where there is no limit.
    pub(crate) max_ack_pending: i64,
}

/// Everything that doesn't fit together, in no order.
pub(crate) fn misfits(settings: &Settings, server: Server) -> Vec<String> {
    let (source, loki) = (&settings.source, &settings.loki);
    let max_payload = ByteSize::new(server.max_payload as u64);
    let mut found = Vec::new();
    if max_payload.bytes() > source.memory_max.bytes() / 2 {
        found.push(format!(
            "the server's max_payload ({max_payload}) is more than half of source.memory_max ({}); raise the latter, or the largest \
             messages exceed it",
            source.memory_max
        ));
    }
    if max_payload > settings.dead_letter.max_bytes {
        found.push(format!(
            "the server's max_payload ({max_payload}) is more than dead_letter.max_bytes ({}); raise the latter, or the largest lines \
             can't be set aside",
            settings.dead_letter.max_bytes
        ));
    }
    if (1..FETCH_MESSAGES as i64).contains(&server.max_ack_pending) {
        found.push(format!(
            "the durable's max_ack_pending ({}, source.max_ack_pending) is less than the {FETCH_MESSAGES} messages of a fetch; raise it \
             with `nats consumer edit`, or consumers wait for each other",
            server.max_ack_pending
        ));
    }
    if settings.sink.kind != SinkKind::Loki {
        return found;
    }
    if loki.line_max.bytes() < MAX_ENCODED as u64 {
        found.push(format!(
            "loki.line_max ({}) is less than the {MAX_ENCODED} bytes that a record may have; raise it together with Loki's \
             limits_config.max_line_size, or lower capture.body_max of the proxies, or longer records become dead letters",
            loki.line_max
        ));
    }
    if loki.batch_max_bytes > LOKI_PUSH {
        found.push(format!(
            "loki.batch_max_bytes ({}) is more than the {LOKI_PUSH} that Loki takes by default (server.grpc_server_max_recv_msg_size, and \
             client_max_body_size of its gateway); lower the first, or see that those were raised",
            loki.batch_max_bytes
        ));
    }
    if let Some(max_age) = server.max_age.filter(|max_age| *max_age > LOKI_AGE) {
        found.push(format!(
            "the stream keeps messages for {} (max_age), and Loki refuses by default what is older than {} \
             (limits_config.reject_old_samples_max_age); see that the latter is longer, or older records become dead letters",
            duration::format(max_age),
            duration::format(LOKI_AGE)
        ));
    }
    if loki.batch_wait > server.ack_wait {
        found.push(format!(
            "loki.batch_wait ({}) is longer than the durable's ack_wait ({}, source.ack_wait); records of a consumer that dies come \
             that much later",
            duration::format(loki.batch_wait),
            duration::format(server.ack_wait)
        ));
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    const USUAL: Server = Server {
        max_payload: 1024 * 1024,
        max_age: Some(LOKI_AGE),
        ack_wait: Duration::from_secs(30),
        max_ack_pending: 131_072,
    };

    #[test]
    fn the_defaults_fit_a_server_as_it_comes() {
        assert_eq!(misfits(&Settings::default(), USUAL), Vec::<String>::new());
    }

    #[test]
    fn each_misfit_is_a_sentence_that_names_both_sides() {
        let mut small = Settings::default();
        small.dead_letter.max_bytes = ByteSize::mib(1);
        let mut large = Settings::default();
        large.loki.batch_max_bytes = ByteSize::mib(8);
        let mut slow = Settings::default();
        slow.loki.batch_wait = Duration::from_secs(60);
        let mut short = Settings::default();
        short.loki.line_max = ByteSize::kib(100);
        let few = Server {
            max_ack_pending: 1000,
            ..USUAL
        };
        let payload = |mib: usize| Server {
            max_payload: mib * 1024 * 1024,
            ..USUAL
        };
        let old = Server {
            max_age: Some(LOKI_AGE * 2),
            ..USUAL
        };
        for (settings, server, sides) in [
            (
                Settings::default(),
                payload(12),
                ["max_payload (12MiB)", "source.memory_max (16MiB)"],
            ),
            (
                small,
                payload(2),
                ["max_payload (2MiB)", "dead_letter.max_bytes (1MiB)"],
            ),
            (
                large,
                USUAL,
                ["loki.batch_max_bytes (8MiB)", "grpc_server_max_recv_msg_size"],
            ),
            (
                Settings::default(),
                old,
                ["for 14d (max_age)", "reject_old_samples_max_age"],
            ),
            (slow, USUAL, ["loki.batch_wait (1m)", "source.ack_wait"]),
            (short, USUAL, ["loki.line_max (100KiB)", "capture.body_max"]),
            (
                Settings::default(),
                few,
                ["max_ack_pending (1000, source.max_ack_pending)", "1024 messages"],
            ),
        ] {
            let found = misfits(&settings, server);
            assert_eq!(found.len(), 1, "{found:?}");
            for side in sides {
                assert!(found[0].contains(side), "{side}: {found:?}");
            }
        }
    }

    #[test]
    fn what_concerns_loki_is_not_told_of_another_sink() {
        let mut settings = Settings::default();
        settings.loki.batch_max_bytes = ByteSize::mib(8);
        settings.sink.kind = SinkKind::Stdout;
        assert_eq!(misfits(&settings, USUAL), Vec::<String>::new());
    }
}
