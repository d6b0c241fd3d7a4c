//! Loki's push protocol: a snappy block (not a snappy stream) of a protobuf message.
//!
//! The messages are those of Loki's `pkg/push/push.proto`. `line` is a string there and `bytes` here, which is the
//! same on the wire and saves a copy of each line.
//!
//! Invariants: entries of one label set form one stream, entries keep the order they are given in, and equal input
//! gives equal bytes, so that a batch sent twice is stored once.

use bytes::Bytes;
use prost::Message;

use crate::entry::Entry;

/// The `content-type` of a push.
pub(super) const CONTENT_TYPE: &str = "application/x-protobuf";

/// `logproto.PushRequest`.
#[derive(Clone, PartialEq, Message)]
pub(super) struct PushRequest {
    #[prost(message, repeated, tag = "1")]
    pub(super) streams: Vec<Stream>,
}

/// `logproto.StreamAdapter`; its hash is left to Loki.
#[derive(Clone, PartialEq, Message)]
pub(super) struct Stream {
    /// The label set as LogQL writes it: `{env="production", level="info", service="api"}`.
    #[prost(string, tag = "1")]
    pub(super) labels: String,
    #[prost(message, repeated, tag = "2")]
    pub(super) entries: Vec<PushEntry>,
}

/// `logproto.EntryAdapter`.
#[derive(Clone, PartialEq, Message)]
pub(super) struct PushEntry {
    #[prost(message, optional, tag = "1")]
    pub(super) timestamp: Option<Timestamp>,
    #[prost(bytes = "bytes", tag = "2")]
    pub(super) line: Bytes,
    #[prost(message, repeated, tag = "3")]
    pub(super) structured_metadata: Vec<LabelPair>,
}

/// `logproto.LabelPairAdapter`.
#[derive(Clone, PartialEq, Message)]
pub(super) struct LabelPair {
    #[prost(string, tag = "1")]
    pub(super) name: String,
    #[prost(string, tag = "2")]
    pub(super) value: String,
}

/// `google.protobuf.Timestamp`.
#[derive(Clone, Copy, PartialEq, Eq, Message)]
pub(super) struct Timestamp {
    #[prost(int64, tag = "1")]
    pub(super) seconds: i64,
    #[prost(int32, tag = "2")]
    pub(super) nanos: i32,
}

/// An entry and the label set of its stream.
#[derive(Debug)]
pub(super) struct Labelled {
    pub(super) labels: String,
    pub(super) entry: Entry,
}

/// The body of one push. `entries` is sorted by label set, so that a label set is one run and becomes one stream.
///
/// # Errors
/// Only for a message over 4 GiB, which snappy can't express; a batch is far below.
pub(super) fn encode(entries: &[Labelled]) -> Result<Vec<u8>, snap::Error> {
    let streams = entries
        .chunk_by(|left, right| left.labels == right.labels)
        .map(|run| Stream {
            labels: run.first().map(|first| first.labels.clone()).unwrap_or_default(),
            entries: run.iter().map(|labelled| push_entry(&labelled.entry)).collect(),
        })
        .collect();
    let message = PushRequest { streams }.encode_to_vec();
    snap::raw::Encoder::new().compress_vec(&message)
}

fn push_entry(entry: &Entry) -> PushEntry {
    PushEntry {
        timestamp: Some(timestamp(entry.timestamp)),
        line: entry.line.clone(),
        structured_metadata: entry
            .metadata
            .iter()
            .map(|(name, value)| LabelPair {
                name: (*name).to_owned(),
                value: value.clone(),
            })
            .collect(),
    }
}

/// Unix nanoseconds as protobuf's seconds and nanoseconds.
fn timestamp(nanoseconds: u64) -> Timestamp {
    const SECOND: u64 = 1_000_000_000;
    Timestamp {
        seconds: i64::try_from(nanoseconds / SECOND).unwrap_or(i64::MAX),
        nanos: i32::try_from(nanoseconds % SECOND).unwrap_or_default(),
    }
}

#[cfg(test)]
pub(super) fn decode(body: &[u8]) -> PushRequest {
    let message = snap::raw::Decoder::new().decompress_vec(body).unwrap();
    PushRequest::decode(message.as_slice()).unwrap()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::entry::tests::entry;

    fn labelled(labels: &str, timestamp: u64, line: &str) -> Labelled {
        Labelled {
            labels: labels.to_owned(),
            entry: entry("api", timestamp, line),
        }
    }

    #[test]
    fn a_push_decodes_to_the_lines_times_labels_and_metadata_it_was_made_of() {
        let mut first = labelled("{service=\"api\"}", 1_700_000_000_123_456_789, r#"{"a":1}"#);
        first.entry.metadata = vec![
            ("trace_id", "0af7".to_owned()),
            ("http_route", "/users/{id}".to_owned()),
        ];
        let second = labelled("{service=\"web\"}", 1, "{}");

        let request = decode(&encode(&[first, second]).unwrap());

        assert_eq!(request.streams.len(), 2);
        let stream = &request.streams[0];
        assert_eq!(stream.labels, "{service=\"api\"}");
        let stored = &stream.entries[0];
        assert_eq!(stored.line, r#"{"a":1}"#);
        let time = stored.timestamp.unwrap();
        assert_eq!((time.seconds, time.nanos), (1_700_000_000, 123_456_789));
        assert_eq!(stored.structured_metadata[0].name, "trace_id");
        assert_eq!(stored.structured_metadata[1].value, "/users/{id}");
        assert_eq!(request.streams[1].entries[0].timestamp.unwrap().nanos, 1);
    }

    #[test]
    fn entries_of_one_label_set_become_one_stream_in_their_order() {
        let entries = [
            labelled("{a}", 1, "a"),
            labelled("{a}", 2, "b"),
            labelled("{b}", 1, "c"),
        ];
        let request = decode(&encode(&entries).unwrap());
        let lines: Vec<Vec<_>> = request
            .streams
            .iter()
            .map(|stream| stream.entries.iter().map(|entry| entry.line.as_ref()).collect())
            .collect();
        assert_eq!(lines, [vec![&b"a"[..], b"b"], vec![b"c"]]);
    }

    #[test]
    fn the_same_batch_is_the_same_bytes() {
        let batch = || [labelled("{a}", 1, "a"), labelled("{b}", 2, "b")];
        assert_eq!(encode(&batch()).unwrap(), encode(&batch()).unwrap());
    }
}
