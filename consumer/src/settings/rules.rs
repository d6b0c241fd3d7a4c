//! What must fit together, over keys and sections.

use std::time::Duration;

use sidelog_chassis::settings::{ByteSize, Misfit, Validate, duration};

use super::{LokiSettings, Settings, SinkKind, SourceSettings};

/// Below this a slow moment of the network would already deliver messages twice.
const ACK_WAIT_MIN: Duration = Duration::from_millis(500);
/// A message of NATS's default `max_payload`, and as much again for what is being pushed.
const MEMORY_MIN: ByteSize = ByteSize::mib(4);
/// What the byte budget can count.
const MEMORY_MAX: ByteSize = ByteSize::gib(4);
/// More connections to one store than this only hurt it.
const CONCURRENCY_MAX: usize = 64;

impl Validate for Settings {
    fn validate(&self) -> Vec<Misfit> {
        let mut misfits = self.nats.validate();
        misfits.extend(source(&self.source));
        misfits.extend(batches(self));
        misfits.extend(loki(&self.loki));
        misfits.extend(streams(self));
        if self.sink.kind == SinkKind::File && self.sink.path.is_none() {
            misfits.push(Misfit::new(
                ["sink.path"],
                "is missing; sink.kind = \"file\" needs the file's name",
            ));
        }
        if self.sink.keep > 0 && self.sink.rotate_bytes.bytes() == 0 && self.sink.rotate_after.is_zero() {
            misfits.push(Misfit::new(
                ["sink.keep", "sink.rotate_bytes"],
                "has no effect on a file that is never renamed; set sink.rotate_bytes or sink.rotate_after",
            ));
        }
        if self.shutdown.deadline.is_zero() {
            misfits.push(Misfit::new(
                ["shutdown.deadline"],
                "must be more than 0s, such as \"25s\"",
            ));
        }
        misfits
    }
}

fn source(source: &SourceSettings) -> Vec<Misfit> {
    let mut misfits = Vec::new();
    if source.ack_wait < ACK_WAIT_MIN {
        misfits.push(Misfit::new(
            ["source.ack_wait"],
            "must be at least 500ms, such as \"30s\"",
        ));
    }
    if source.max_ack_pending == 0 {
        misfits.push(Misfit::new(
            ["source.max_ack_pending"],
            "must be at least 1, such as 131072",
        ));
    }
    if source.memory_max < MEMORY_MIN || source.memory_max >= MEMORY_MAX {
        let message = format!("must be from {MEMORY_MIN} to below {MEMORY_MAX}, such as \"64MiB\"");
        misfits.push(Misfit::new(["source.memory_max"], message));
    }
    misfits
}

fn batches(settings: &Settings) -> Vec<Misfit> {
    let mut misfits = Vec::new();
    let (loki, memory) = (&settings.loki, settings.source.memory_max);
    if loki.batch_max_bytes.bytes() == 0 || loki.batch_max_bytes.bytes().saturating_mul(2) > memory.bytes() {
        let message = format!(
            "loki.batch_max_bytes ({}) must be more than nothing and at most half of source.memory_max ({memory}), so that one batch can be \
             filled while another is pushed; lower the first or raise the second",
            loki.batch_max_bytes
        );
        misfits.push(Misfit::new(["loki.batch_max_bytes", "source.memory_max"], message));
    }
    if loki.concurrency == 0 || loki.concurrency > CONCURRENCY_MAX {
        misfits.push(Misfit::new(["loki.concurrency"], "must be from 1 to 64, such as 4"));
    } else if loki.batch_max_bytes.bytes().saturating_mul(loki.concurrency as u64) > memory.bytes() {
        let message = format!(
            "loki.concurrency ({}) times loki.batch_max_bytes ({}) is more than source.memory_max ({memory}), so that many can't be full; lower one of \
             the first two or raise the third",
            loki.concurrency, loki.batch_max_bytes
        );
        misfits.push(Misfit::new(
            ["loki.concurrency", "loki.batch_max_bytes", "source.memory_max"],
            message,
        ));
    }
    misfits
}

fn loki(loki: &LokiSettings) -> Vec<Misfit> {
    let mut misfits = Vec::new();
    if loki.basic_auth.is_some() && loki.bearer_token_file.is_some() {
        misfits.push(Misfit::new(
            ["loki.bearer_token_file", "loki.basic_auth"],
            "each say who we are; keep one of them",
        ));
    }
    let (certificate, key) = (loki.tls.cert_file.is_some(), loki.tls.key_file.is_some());
    if certificate != key {
        let (given, missing) = if certificate {
            ("cert_file", "key_file")
        } else {
            ("key_file", "cert_file")
        };
        let message = format!("needs loki.tls.{missing} beside it; set both or neither");
        misfits.push(Misfit::new([format!("loki.tls.{given}")], message));
    }
    if loki.backoff_min.is_zero() || loki.backoff_min > loki.backoff_max {
        misfits.push(Misfit::new(
            ["loki.backoff_min", "loki.backoff_max"],
            format!(
                "loki.backoff_min ({}) must be more than 0s and no longer than loki.backoff_max ({}); change one of them",
                duration::format(loki.backoff_min),
                duration::format(loki.backoff_max)
            ),
        ));
    }
    if loki.timeout.is_zero() {
        misfits.push(Misfit::new(["loki.timeout"], "must be more than 0s, such as \"10s\""));
    }
    if loki.max_services == 0 {
        misfits.push(Misfit::new(["loki.max_services"], "must be at least 1, such as 100"));
    }
    misfits
}

/// Dead letters must not come back as records.
fn streams(settings: &Settings) -> Vec<Misfit> {
    let (records, dead) = (&settings.nats, &settings.dead_letter);
    let mut misfits = Vec::new();
    if records.stream == dead.stream {
        let message = format!(
            "dead_letter.stream and nats.stream are both {:?}; dead letters need a stream of their own",
            dead.stream
        );
        misfits.push(Misfit::new(["dead_letter.stream", "nats.stream"], message));
    }
    if overlap(&records.subject, &dead.subject) {
        let message = format!(
            "dead_letter.subject ({:?}) and nats.subject ({:?}) overlap, so that dead letters would come back as records; choose one that the other \
             doesn't match",
            dead.subject, records.subject
        );
        misfits.push(Misfit::new(["dead_letter.subject", "nats.subject"], message));
    }
    if dead.max_bytes < ByteSize::mib(1) {
        misfits.push(Misfit::new(
            ["dead_letter.max_bytes"],
            "must be at least 1MiB, such as \"1GiB\"",
        ));
    }
    misfits
}

/// Whether a subject can match both patterns.
fn overlap(left: &str, right: &str) -> bool {
    let (mut left, mut right) = (left.split('.'), right.split('.'));
    loop {
        match (left.next(), right.next()) {
            (None, None) => return true,
            (Some(_), None) | (None, Some(_)) => return false,
            (Some(">"), Some(_)) | (Some(_), Some(">")) => return true,
            (Some(left), Some(right)) if left != "*" && right != "*" && left != right => return false,
            (Some(_), Some(_)) => {}
        }
    }
}

#[cfg(test)]
pub(super) mod tests {
    use sidelog_chassis::settings::{Environment, load};

    use super::*;
    use crate::settings::PROGRAM;

    /// Every key, as the deserializer names them to someone who wrote a wrong one.
    pub(in crate::settings) fn every_key() -> Vec<String> {
        let mut keys = Vec::new();
        below("", &mut keys);
        keys.sort();
        keys
    }

    fn below(path: &str, keys: &mut Vec<String>) {
        let section = path.trim_end_matches('.');
        let text = if section.is_empty() {
            "zzzzzzzzzzzzzz = 1\n".to_owned()
        } else {
            format!("[{section}]\nzzzzzzzzzzzzzz = 1\n")
        };
        let error = load::<Settings>(
            &PROGRAM,
            None,
            &Environment::from([("SIDELOG_CONFIG_TOML".to_owned(), text)]),
        )
        .expect_err("there is no such key")
        .to_string();
        let listed = error
            .split_once("the keys here are ")
            .map(|(_, keys)| keys.lines().next().unwrap_or_default());
        let Some(listed) = listed else {
            keys.push(section.to_owned());
            return;
        };
        for key in listed.split(", ") {
            below(&format!("{path}{key}."), keys);
        }
    }

    fn misfits(toml: &str) -> String {
        let env = Environment::from([("SIDELOG_CONFIG_TOML".to_owned(), toml.to_owned())]);
        match load::<Settings>(&PROGRAM, None, &env) {
            Ok(_) => String::new(),
            Err(error) => error.to_string(),
        }
    }

    #[test]
    fn each_misfit_is_one_line_that_names_the_keys() {
        for (toml, keys) in [
            (
                "[loki]\nbatch_max_bytes = \"12MiB\"\nconcurrency = 1",
                &["loki.batch_max_bytes", "source.memory_max"][..],
            ),
            (
                "[loki]\nbackoff_min = \"1m\"",
                &["loki.backoff_min", "loki.backoff_max"],
            ),
            ("[loki]\nconcurrency = 0", &["loki.concurrency"]),
            (
                "[loki]\nconcurrency = 64\nbatch_max_bytes = \"2MiB\"",
                &["loki.concurrency", "loki.batch_max_bytes", "source.memory_max"],
            ),
            ("[loki]\nmax_services = 0", &["loki.max_services"]),
            ("[loki]\ntimeout = \"0s\"", &["loki.timeout"]),
            (
                "[loki.tls]\ncert_file = \"a\"",
                &["loki.tls.cert_file", "loki.tls.key_file"],
            ),
            (
                "[loki]\nbearer_token_file = \"t\"\nbasic_auth = { user = \"u\", password_file = \"p\" }",
                &["loki.bearer_token_file", "loki.basic_auth"],
            ),
            ("[sink]\nkind = \"file\"", &["sink.path", "sink.kind"]),
            (
                "[sink]\nkeep = 3\nrotate_bytes = \"0B\"",
                &["sink.keep", "sink.rotate_bytes", "sink.rotate_after"],
            ),
            ("[source]\nack_wait = \"1ms\"", &["source.ack_wait"]),
            ("[source]\nmemory_max = \"4GiB\"", &["source.memory_max"]),
            ("[source]\nmax_ack_pending = 0", &["source.max_ack_pending"]),
            (
                "[dead_letter]\nstream = \"logs\"",
                &["dead_letter.stream", "nats.stream"],
            ),
            (
                "[dead_letter]\nsubject = \"logs.dead.>\"",
                &["dead_letter.subject", "nats.subject"],
            ),
            ("[dead_letter]\nmax_bytes = \"1KiB\"", &["dead_letter.max_bytes"]),
            ("[shutdown]\ndeadline = \"0s\"", &["shutdown.deadline"]),
            ("[nats]\nuser = \"u\"", &["nats.user"]),
        ] {
            let told = misfits(toml);
            assert_eq!(told.lines().count(), 1, "{toml}: {told}");
            for key in keys {
                assert!(told.contains(key), "{toml}: {told}");
            }
        }
    }

    #[test]
    fn subjects_overlap_when_one_message_can_match_both() {
        for (left, right, expected) in [
            ("logs.>", "logs_dead.>", false),
            ("logs.>", "logs.dead.>", true),
            ("logs.*", "logs.a.b", false),
            ("*.a", "logs.*", true),
            ("logs", "logs.>", false),
            ("logs", "logs", true),
        ] {
            assert_eq!(overlap(left, right), expected, "{left} {right}");
            assert_eq!(overlap(right, left), expected, "{right} {left}");
        }
    }
}
