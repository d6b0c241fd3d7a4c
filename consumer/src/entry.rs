//! The lines of a message, sorted: entries for the store, and what is no record.
//!
//! Invariants:
//! - A line is stored exactly as it was published; it is looked into for its time, labels and metadata only.
//! - Nothing of a line is copied: an entry says where in its message things stand, and holds only values of its own that are
//!   written with escapes there.
//! - Sorting is a function of the message alone, so that a message delivered again gives the same entries.
//! - Every line of a message becomes exactly one entry or one letter, and an empty message one letter.

use std::borrow::Cow;
use std::ops::Range;
use std::sync::Arc;

use bytes::Bytes;
use sidelog_record::{Envelope, frame};

use crate::dead_letter::{Letter, Reason};
use crate::delivery::Delivery;
use crate::metadata::Metadata;

/// What stands for a label that a record doesn't have.
const UNKNOWN: &str = "unknown";

/// A record on its way to the store.
#[derive(Debug)]
pub(crate) struct Entry {
    /// Its time in Unix nanoseconds.
    pub(crate) timestamp: u64,
    metadata: Metadata,
    /// The message that the line came in, and its number there.
    pub(crate) delivery: Arc<Delivery>,
    pub(crate) index: usize,
    /// Where the record stands in its message, without its newline.
    place: Range<usize>,
}

impl Entry {
    /// The record as it was published.
    pub(crate) fn line(&self) -> &[u8] {
        self.delivery.payload.get(self.place.clone()).unwrap_or_default()
    }

    /// The record, shared with its message.
    pub(crate) fn shared_line(&self) -> Bytes {
        self.delivery.payload.slice_ref(self.line())
    }

    /// The bytes of the line.
    pub(crate) fn size(&self) -> usize {
        self.place.len()
    }

    /// The record's service.
    pub(crate) fn service(&self) -> String {
        let service = Envelope::read(self.line()).ok().and_then(|envelope| envelope.service);
        or_unknown(service).into_owned()
    }

    /// Hands over the names and values of the metadata that the record has.
    pub(crate) fn for_each_metadata(&self, visit: impl FnMut(&'static str, &[u8])) {
        self.metadata.for_each(&self.delivery.payload, visit);
    }
}

/// What a record is labelled by.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Origin<'a> {
    pub(crate) service: Cow<'a, str>,
    pub(crate) environment: Cow<'a, str>,
    pub(crate) level: &'static str,
}

/// What the lines of a message are.
#[derive(Debug, Default)]
pub(crate) struct Sorted {
    /// In the order of the message.
    pub(crate) entries: Vec<Entry>,
    /// Which stream the entries belong to: so many, one after another, to each.
    pub(crate) runs: Vec<(Arc<str>, usize)>,
    pub(crate) letters: Vec<Letter>,
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

    /// Says what the lines of a message are; `stream_of` names the stream of those that are labelled alike.
    pub(crate) fn sort(&self, delivery: &Arc<Delivery>, stream_of: impl Fn(&Origin<'_>) -> Arc<str>) -> Sorted {
        let mut sorted = Sorted::default();
        let mut last = None;
        for (index, line) in frame::lines(&delivery.payload).enumerate() {
            match self.read(delivery, index, line) {
                Ok((entry, origin)) => {
                    match sorted.runs.last_mut().filter(|_| last.as_ref() == Some(&origin)) {
                        Some((_, count)) => *count += 1,
                        None => sorted.runs.push((stream_of(&origin), 1)),
                    }
                    last = Some(origin);
                    sorted.entries.push(entry);
                }
                Err(letter) => sorted.letters.push(*letter),
            }
        }
        if sorted.entries.is_empty() && sorted.letters.is_empty() {
            let detail = "the message holds no line".to_owned();
            let line = delivery.payload.clone();
            sorted
                .letters
                .push(self.letter(delivery, 0, line, Reason::Empty, detail));
        }
        sorted
    }

    fn read<'a>(
        &self,
        delivery: &'a Arc<Delivery>,
        index: usize,
        line: &'a [u8],
    ) -> Result<(Entry, Origin<'a>), Box<Letter>> {
        let payload = &delivery.payload;
        let letter = |reason, detail| Box::new(self.letter(delivery, index, payload.slice_ref(line), reason, detail));
        let mut envelope =
            Envelope::read(line).map_err(|error| letter(Reason::Decode(error.reason()), error.to_string()))?;
        let origin = Origin {
            service: or_unknown(envelope.service.take()),
            environment: or_unknown(envelope.environment.take()),
            level: envelope.level.map_or(UNKNOWN, |level| level.as_str()),
        };
        if line.len() > self.line_max {
            let detail = format!(
                "{} bytes are more than the store takes in a line ({}, loki.line_max)",
                line.len(),
                self.line_max
            );
            return Err(Box::new(Letter {
                service: origin.service.into_owned(),
                ..*letter(Reason::TooLong, detail)
            }));
        }
        let entry = Entry {
            timestamp: envelope.timestamp_ns,
            metadata: Metadata::of(envelope, payload),
            delivery: Arc::clone(delivery),
            index,
            place: place(payload, line),
        };
        Ok((entry, origin))
    }

    fn letter(&self, delivery: &Arc<Delivery>, index: usize, line: Bytes, reason: Reason, detail: String) -> Letter {
        let service = self
            .subject_prefix
            .as_deref()
            .and_then(|prefix| delivery.subject.strip_prefix(prefix));
        Letter {
            service: or_unknown(service.map(Cow::Borrowed)).into_owned(),
            delivery: Arc::clone(delivery),
            index,
            line,
            reason,
            detail,
        }
    }
}

/// An empty label value would be no label.
fn or_unknown(value: Option<Cow<'_, str>>) -> Cow<'_, str> {
    value
        .filter(|value| !value.is_empty())
        .unwrap_or(Cow::Borrowed(UNKNOWN))
}

/// Where `part` stands in `whole`, of which it is a part.
pub(crate) fn place(whole: &[u8], part: &[u8]) -> Range<usize> {
    let start = part.as_ptr().addr().saturating_sub(whole.as_ptr().addr());
    start..start + part.len()
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use crate::delivery::tests::delivery;

    /// An entry of a message of its own, without metadata.
    pub(crate) fn entry(timestamp: u64, line: &str) -> Entry {
        Entry {
            timestamp,
            metadata: Metadata::default(),
            delivery: delivery(timestamp, line.as_bytes()),
            index: 0,
            place: 0..line.len(),
        }
    }

    /// The entries of a message that holds these lines.
    pub(crate) fn entries(payload: &str) -> Vec<Entry> {
        sort(payload.as_bytes()).entries
    }

    fn stream_of(origin: &Origin<'_>) -> Arc<str> {
        format!("{} {} {}", origin.service, origin.environment, origin.level).into()
    }

    const RECORD: &str = r#"{"observed_timestamp":"1970-01-01T00:00:01Z","level":"warn","service.name":"api","deployment.environment.name":"prod","trace_id":"0af7651916cd43dd8448eb211c80319c","http.response.status_code":404}"#;

    fn sort(payload: &[u8]) -> Sorted {
        Sorter::new("logs.>", 1000).sort(&delivery(7, payload), stream_of)
    }

    fn metadata(entry: &Entry) -> Vec<(&'static str, String)> {
        let mut found = Vec::new();
        entry.for_each_metadata(|name, value| found.push((name, String::from_utf8(value.to_vec()).unwrap())));
        found
    }

    fn reasons(letters: &[Letter]) -> Vec<&str> {
        letters.iter().map(|letter| letter.reason.as_str()).collect()
    }

    #[test]
    fn a_record_gives_its_time_its_labels_its_metadata_and_its_line_as_published() {
        let Sorted { entries, runs, letters } = sort(format!("{RECORD}\n").as_bytes());
        assert!(letters.is_empty(), "{letters:?}");
        let entry = &entries[0];
        assert_eq!(entry.line(), RECORD.as_bytes());
        assert_eq!(entry.timestamp, 1_000_000_000);
        assert_eq!(runs, [("api prod warn".into(), 1)]);
        assert_eq!(entry.service(), "api");
        assert_eq!(
            metadata(entry),
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
        let Sorted { entries, letters, .. } = sort(&payload);
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
        let Sorted { entries, letters, .. } = sort(long.as_bytes());
        assert!(entries.is_empty());
        assert_eq!(reasons(&letters), ["too_long"]);
        assert_eq!(letters[0].service, "api");
    }

    #[test]
    fn an_empty_message_is_one_letter() {
        for payload in [&b""[..], b"\n\r\n"] {
            let Sorted { entries, letters, .. } = sort(payload);
            assert!(entries.is_empty());
            assert_eq!(reasons(&letters), ["empty"]);
        }
    }

    #[test]
    fn entries_that_are_labelled_alike_are_one_run_and_the_stream_is_asked_for_once() {
        let asked = std::cell::Cell::new(0);
        let error = RECORD.replace("warn", "error");
        let payload = format!("{RECORD}\nno record\n{RECORD}\n{error}\n{RECORD}");
        let sorted = Sorter::new("logs.>", 1000).sort(&delivery(7, payload.as_bytes()), |origin| {
            asked.set(asked.get() + 1);
            stream_of(origin)
        });
        let runs: Vec<_> = sorted.runs.iter().map(|(stream, count)| (&**stream, *count)).collect();
        assert_eq!(
            runs,
            [("api prod warn", 2), ("api prod error", 1), ("api prod warn", 1)]
        );
        assert_eq!(asked.get(), 3);
        assert_eq!(
            sorted.entries.iter().map(|entry| entry.index).collect::<Vec<_>>(),
            [0, 2, 3, 4]
        );
    }

    #[test]
    fn the_service_of_a_line_that_can_not_be_read_is_what_its_subject_says() {
        let services = ["logs.>", "logs", "other.*"].map(|subject| {
            let mut sorted = Sorter::new(subject, 1000).sort(&delivery(1, b"x"), stream_of);
            sorted.letters.remove(0).service
        });
        assert_eq!(services, ["api", "unknown", "unknown"]);
    }

    #[test]
    fn metadata_is_what_the_line_says_with_escapes_and_without_and_what_a_client_made_long_stays_there() {
        let line = |id: &str| RECORD.replacen('{', &format!(r#"{{"request_id":"{id}","#), 1);
        let long = "r".repeat(5000);
        let payload = format!("{}\n{}\n{}", line("r-1"), line(r#"\"\u00e9"#), line(&long));
        let sorted = Sorter::new("logs.>", 10_000).sort(&delivery(7, payload.as_bytes()), stream_of);
        let found: Vec<_> = sorted.entries.iter().map(metadata).collect();
        assert_eq!(found[0][1], ("request_id", "r-1".to_owned()));
        assert_eq!(found[1][1], ("request_id", "\"é".to_owned()));
        assert_eq!(
            found[2].iter().map(|(name, _)| *name).collect::<Vec<_>>(),
            ["trace_id", "http_response_status_code"]
        );
    }
}
