//! Loki's push protocol: a snappy block (not a snappy stream) of a protobuf message.
//!
//! The messages are those of Loki's `pkg/push/push.proto`, written field by field, so that a line is copied once, into the
//! message, and nothing is allocated for an entry.
//!
//! Invariants: a push holds one stream, entries keep the order they are given in, and equal input gives equal bytes, so
//! that a push sent twice is stored once (`the_same_entries_are_the_same_bytes_in_the_order_given`).

use prost::encoding::{WireType, encode_key, encode_varint, encoded_len_varint, key_len};

use crate::entry::Entry;

/// The `content-type` of a push.
pub(super) const CONTENT_TYPE: &str = "application/x-protobuf";

/// Tags of `logproto.PushRequest`, `StreamAdapter`, `EntryAdapter`, `LabelPairAdapter` and `google.protobuf.Timestamp`.
mod tag {
    pub(super) const STREAMS: u32 = 1;
    pub(super) const LABELS: u32 = 1;
    pub(super) const ENTRIES: u32 = 2;
    pub(super) const TIMESTAMP: u32 = 1;
    pub(super) const LINE: u32 = 2;
    pub(super) const METADATA: u32 = 3;
    pub(super) const NAME: u32 = 1;
    pub(super) const VALUE: u32 = 2;
    pub(super) const SECONDS: u32 = 1;
    pub(super) const NANOS: u32 = 2;
}

/// The body of a push of one stream; `labels` is its label set as LogQL writes it.
///
/// # Errors
/// Only for a message over 4 GiB, which snappy can't express; a push is far below.
pub(super) fn encode(labels: &str, entries: &[Entry]) -> Result<Vec<u8>, snap::Error> {
    let stream = field_len(tag::LABELS, labels.len())
        + entries
            .iter()
            .map(|entry| field_len(tag::ENTRIES, entry_len(entry)))
            .sum::<usize>();
    let mut message = Vec::with_capacity(field_len(tag::STREAMS, stream));
    put_head(tag::STREAMS, stream, &mut message);
    put(tag::LABELS, labels.as_bytes(), &mut message);
    for entry in entries {
        put_head(tag::ENTRIES, entry_len(entry), &mut message);
        put_entry(entry, &mut message);
    }
    snap::raw::Encoder::new().compress_vec(&message)
}

fn put_entry(entry: &Entry, message: &mut Vec<u8>) {
    put_head(tag::TIMESTAMP, timestamp_len(entry.timestamp), message);
    put_timestamp(entry.timestamp, message);
    put(tag::LINE, &entry.line, message);
    for (name, value) in &entry.metadata {
        put_head(tag::METADATA, pair_len(name, value), message);
        put(tag::NAME, name.as_bytes(), message);
        put(tag::VALUE, value.as_bytes(), message);
    }
}

fn entry_len(entry: &Entry) -> usize {
    let metadata = entry.metadata.iter();
    field_len(tag::TIMESTAMP, timestamp_len(entry.timestamp))
        + field_len(tag::LINE, entry.line.len())
        + metadata
            .map(|(name, value)| field_len(tag::METADATA, pair_len(name, value)))
            .sum::<usize>()
}

fn pair_len(name: &str, value: &str) -> usize {
    field_len(tag::NAME, name.len()) + field_len(tag::VALUE, value.len())
}

/// Unix nanoseconds as protobuf's seconds and nanoseconds. Zero is left out, as protobuf has it.
fn parts(timestamp: u64) -> impl Iterator<Item = (u32, u64)> {
    const SECOND: u64 = 1_000_000_000;
    let parts = [(tag::SECONDS, timestamp / SECOND), (tag::NANOS, timestamp % SECOND)];
    parts.into_iter().filter(|(_, value)| *value > 0)
}

fn timestamp_len(timestamp: u64) -> usize {
    parts(timestamp)
        .map(|(tag, value)| key_len(tag) + encoded_len_varint(value))
        .sum()
}

fn put_timestamp(timestamp: u64, message: &mut Vec<u8>) {
    for (tag, value) in parts(timestamp) {
        encode_key(tag, WireType::Varint, message);
        encode_varint(value, message);
    }
}

/// What a field with a length takes, its head included.
fn field_len(tag: u32, length: usize) -> usize {
    key_len(tag) + encoded_len_varint(length as u64) + length
}

fn put_head(tag: u32, length: usize, message: &mut Vec<u8>) {
    encode_key(tag, WireType::LengthDelimited, message);
    encode_varint(length as u64, message);
}

fn put(tag: u32, bytes: &[u8], message: &mut Vec<u8>) {
    put_head(tag, bytes.len(), message);
    message.extend_from_slice(bytes);
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use prost::Message;

    use super::*;
    use crate::entry::tests::entry;

    /// `logproto.PushRequest`, by prost's own derivation: what is written by hand is read by another.
    #[derive(Clone, PartialEq, Message)]
    struct PushRequest {
        #[prost(message, repeated, tag = "1")]
        streams: Vec<Stream>,
    }

    #[derive(Clone, PartialEq, Message)]
    struct Stream {
        #[prost(string, tag = "1")]
        labels: String,
        #[prost(message, repeated, tag = "2")]
        entries: Vec<PushEntry>,
    }

    #[derive(Clone, PartialEq, Message)]
    struct PushEntry {
        #[prost(message, optional, tag = "1")]
        timestamp: Option<Timestamp>,
        #[prost(bytes = "bytes", tag = "2")]
        line: Bytes,
        #[prost(message, repeated, tag = "3")]
        structured_metadata: Vec<LabelPair>,
    }

    #[derive(Clone, PartialEq, Message)]
    struct LabelPair {
        #[prost(string, tag = "1")]
        name: String,
        #[prost(string, tag = "2")]
        value: String,
    }

    #[derive(Clone, Copy, PartialEq, Eq, Message)]
    struct Timestamp {
        #[prost(int64, tag = "1")]
        seconds: i64,
        #[prost(int32, tag = "2")]
        nanos: i32,
    }

    fn message(body: &[u8]) -> Vec<u8> {
        snap::raw::Decoder::new().decompress_vec(body).unwrap()
    }

    fn decode(body: &[u8]) -> PushRequest {
        PushRequest::decode(message(body).as_slice()).unwrap()
    }

    #[test]
    fn a_push_decodes_to_the_lines_times_labels_and_metadata_it_was_made_of() {
        let mut first = entry("api", 1_700_000_000_123_456_789, r#"{"a":1}"#);
        first.metadata = vec![
            ("trace_id", "0af7".to_owned()),
            ("http_route", "/users/{id}".to_owned()),
        ];
        let second = entry("api", 2_000_000_000, &"x".repeat(300));

        let body = encode("{service=\"api\"}", &[first, second]).unwrap();
        let request = decode(&body);

        assert_eq!(request.streams.len(), 1);
        let stream = &request.streams[0];
        assert_eq!(stream.labels, "{service=\"api\"}");
        let stored = &stream.entries[0];
        assert_eq!(stored.line, r#"{"a":1}"#);
        let time = stored.timestamp.unwrap();
        assert_eq!((time.seconds, time.nanos), (1_700_000_000, 123_456_789));
        assert_eq!(stored.structured_metadata[0].name, "trace_id");
        assert_eq!(stored.structured_metadata[1].value, "/users/{id}");
        let time = stream.entries[1].timestamp.unwrap();
        assert_eq!((time.seconds, time.nanos), (2, 0));
        assert_eq!(
            request.encode_to_vec(),
            message(&body),
            "as any other encoder writes it"
        );
    }

    #[test]
    fn the_same_entries_are_the_same_bytes_in_the_order_given() {
        let entries = || [entry("api", 1, "a"), entry("api", 2, "b")];
        let body = encode("{a}", &entries()).unwrap();
        assert_eq!(body, encode("{a}", &entries()).unwrap());
        let request = decode(&body);
        let lines: Vec<_> = request.streams[0]
            .entries
            .iter()
            .map(|entry| entry.line.clone())
            .collect();
        assert_eq!(lines, [&b"a"[..], b"b"]);
    }
}
