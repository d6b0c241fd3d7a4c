//! The lines of a message, sorted: entries for the store, and what is no record.
//!
//! Invariants:
//! - A line is stored exactly as it was published; it is looked into for its time, labels and metadata only.
//! - Sorting is a function of the message alone, so that a message delivered again gives the same entries.
//! - Every line of a message becomes exactly one entry or one letter, and an empty message one letter.

use std::borrow::Cow;
use std::sync::Arc;

use bytes::Bytes;
use sidelog_record::{Envelope, frame};

use crate::dead_letter::{Letter, Reason};
use crate::delivery::Delivery;

/// Metadata longer than this stays in the line only: Loki takes 64 KB of it an entry, and a client chooses the length
/// of its request id.
const MAX_METADATA_VALUE: usize = 4096;

/// What stands for a label that a record doesn't have.
const UNKNOWN: &str = "unknown";

/// A record on its way to the store.
#[derive(Debug)]
pub(crate) struct Entry {
    /// The record as it was published, without its newline.
    pub(crate) line: Bytes,
    /// Its time in Unix nanoseconds.
    pub(crate) timestamp: u64,
    pub(crate) service: String,
    pub(crate) environment: String,
    pub(crate) level: &'static str,
    /// Names and values of those that the record has.
    pub(crate) metadata: Vec<(&'static str, String)>,
    /// The message that the line came in, and its place there.
    pub(crate) delivery: Arc<Delivery>,
    pub(crate) index: usize,
}

/// Sorts messages into entries and letters.
#[derive(Debug, Clone)]
pub(crate) struct Sorter {
    /// Where the service stands in a message's subject: what comes before it.
    subject_prefix: Option<String>,
    /// The longest line that the store takes, in bytes.
    line_max: usize,
}

impl Sorter {
    /// For messages whose subjects match `subject`, and a store that takes lines of up to `line_max` bytes.
    pub(crate) fn new(subject: &str, line_max: usize) -> Self {
        let wildcard = subject.strip_suffix('>').or_else(|| subject.strip_suffix('*'));
        Self {
            subject_prefix: wildcard.map(str::to_owned),
            line_max,
        }
    }

    /// Appends what the lines of a message are.
    pub(crate) fn sort(&self, delivery: &Arc<Delivery>, entries: &mut Vec<Entry>, letters: &mut Vec<Letter>) {
        let mut empty = true;
        for (index, line) in frame::lines(&delivery.payload).enumerate() {
            empty = false;
            let line = delivery.payload.slice_ref(line);
            match self.read(delivery, index, line) {
                Ok(entry) => entries.push(entry),
                Err(letter) => letters.push(*letter),
            }
        }
        if empty {
            let detail = "the message holds no line".to_owned();
            letters.push(self.letter(delivery, 0, delivery.payload.clone(), Reason::Empty, detail));
        }
    }

    fn read(&self, delivery: &Arc<Delivery>, index: usize, line: Bytes) -> Result<Entry, Box<Letter>> {
        let letter = |reason, detail| Box::new(self.letter(delivery, index, line.clone(), reason, detail));
        let envelope =
            Envelope::read(&line).map_err(|error| letter(Reason::Decode(error.reason()), error.to_string()))?;
        let service = or_unknown(envelope.service.as_deref());
        if line.len() > self.line_max {
            let detail = format!(
                "{} bytes are more than the store takes in a line ({}, loki.line_max)",
                line.len(),
                self.line_max
            );
            return Err(Box::new(Letter {
                service,
                ..*letter(Reason::TooLong, detail)
            }));
        }
        Ok(Entry {
            timestamp: envelope.timestamp_ns,
            service,
            environment: or_unknown(envelope.environment.as_deref()),
            level: envelope.level.map_or(UNKNOWN, |level| level.as_str()),
            metadata: metadata(envelope),
            line: line.clone(),
            delivery: Arc::clone(delivery),
            index,
        })
    }

    fn letter(&self, delivery: &Arc<Delivery>, index: usize, line: Bytes, reason: Reason, detail: String) -> Letter {
        let service = self
            .subject_prefix
            .as_deref()
            .and_then(|prefix| delivery.subject.strip_prefix(prefix));
        Letter {
            service: or_unknown(service),
            delivery: Arc::clone(delivery),
            index,
            line,
            reason,
            detail,
        }
    }
}

/// An empty label value would be no label.
fn or_unknown(value: Option<&str>) -> String {
    value.filter(|value| !value.is_empty()).unwrap_or(UNKNOWN).to_owned()
}

/// Structured metadata: the dots of the record's keys are underscores, because LogQL names have no dots.
fn metadata(envelope: Envelope<'_>) -> Vec<(&'static str, String)> {
    let status = envelope.status.map(|status| Cow::Owned(status.to_string()));
    [
        ("trace_id", envelope.trace_id),
        ("span_id", envelope.span_id),
        ("request_id", envelope.request_id),
        ("http_request_method", envelope.method),
        ("http_route", envelope.route),
        ("http_response_status_code", status),
    ]
    .into_iter()
    .filter_map(|(name, value)| Some((name, value?)))
    .filter(|(_, value)| !value.is_empty() && value.len() <= MAX_METADATA_VALUE)
    .map(|(name, value)| (name, value.into_owned()))
    .collect()
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use crate::delivery::tests::delivery;

    /// An entry of a message of its own.
    pub(crate) fn entry(service: &str, timestamp: u64, line: &str) -> Entry {
        Entry {
            line: Bytes::copy_from_slice(line.as_bytes()),
            timestamp,
            service: service.to_owned(),
            environment: "test".to_owned(),
            level: "info",
            metadata: Vec::new(),
            delivery: delivery(timestamp, line.as_bytes()),
            index: 0,
        }
    }

    const RECORD: &str = r#"{"observed_timestamp":"1970-01-01T00:00:01Z","level":"warn","service.name":"api","deployment.environment.name":"prod","trace_id":"0af7651916cd43dd8448eb211c80319c","http.response.status_code":404}"#;

    fn sort(payload: &[u8]) -> (Vec<Entry>, Vec<Letter>) {
        let (mut entries, mut letters) = (Vec::new(), Vec::new());
        Sorter::new("logs.>", 1000).sort(&delivery(7, payload), &mut entries, &mut letters);
        (entries, letters)
    }

    fn reasons(letters: &[Letter]) -> Vec<&str> {
        letters.iter().map(|letter| letter.reason.as_str()).collect()
    }

    #[test]
    fn a_record_gives_its_time_its_labels_its_metadata_and_its_line_as_published() {
        let (entries, letters) = sort(format!("{RECORD}\n").as_bytes());
        assert!(letters.is_empty(), "{letters:?}");
        let entry = &entries[0];
        assert_eq!(entry.line, RECORD);
        assert_eq!(entry.timestamp, 1_000_000_000);
        assert_eq!(
            (entry.service.as_str(), entry.environment.as_str(), entry.level),
            ("api", "prod", "warn")
        );
        assert_eq!(
            entry.metadata,
            [
                ("trace_id", "0af7651916cd43dd8448eb211c80319c".to_owned()),
                ("http_response_status_code", "404".to_owned()),
            ]
        );
    }

    #[test]
    fn bad_lines_are_set_aside_and_the_good_ones_of_the_same_message_are_kept() {
        let mut payload = format!("{RECORD}\nnot json\n{{\"cut\":\n").into_bytes();
        payload.extend_from_slice(b"\"\xff\"\n[]\n{}\n");
        payload.extend_from_slice(format!("{}\n{RECORD}", RECORD.replacen('{', r#"{"schema":9,"#, 1)).as_bytes());
        let (entries, letters) = sort(&payload);
        assert_eq!(entries.iter().map(|entry| entry.index).collect::<Vec<_>>(), [0, 7]);
        assert_eq!(
            reasons(&letters),
            ["not_json", "not_json", "not_utf8", "not_an_object", "no_time", "schema"]
        );
        assert_eq!(letters[0].line, "not json");
    }

    #[test]
    fn a_line_that_the_store_would_refuse_for_its_length_is_set_aside_under_its_service() {
        let long = RECORD.replacen('{', &format!(r#"{{"filler":"{}","#, "x".repeat(1000)), 1);
        let (entries, letters) = sort(long.as_bytes());
        assert!(entries.is_empty());
        assert_eq!(reasons(&letters), ["too_long"]);
        assert_eq!(letters[0].service, "api");
    }

    #[test]
    fn an_empty_message_is_one_letter() {
        for payload in [&b""[..], b"\n\r\n"] {
            let (entries, letters) = sort(payload);
            assert!(entries.is_empty());
            assert_eq!(reasons(&letters), ["empty"]);
        }
    }

    #[test]
    fn the_service_of_a_line_that_can_not_be_read_is_what_its_subject_says() {
        let (mut entries, mut letters) = (Vec::new(), Vec::new());
        for subject in ["logs.>", "logs", "other.*"] {
            Sorter::new(subject, 1000).sort(&delivery(1, b"x"), &mut entries, &mut letters);
        }
        let services: Vec<_> = letters.iter().map(|letter| letter.service.as_str()).collect();
        assert_eq!(services, ["api", "unknown", "unknown"]);
    }

    #[test]
    fn metadata_that_a_client_made_long_stays_in_the_line_only() {
        let line = RECORD.replacen(
            '{',
            &format!(r#"{{"request_id":"{}","#, "r".repeat(MAX_METADATA_VALUE + 1)),
            1,
        );
        let (mut entries, mut letters) = (Vec::new(), Vec::new());
        Sorter::new("logs.>", 10_000).sort(&delivery(7, line.as_bytes()), &mut entries, &mut letters);
        assert!(entries[0].metadata.iter().all(|(name, _)| *name != "request_id"));
        assert_eq!(entries[0].metadata.len(), 2);
    }
}
