//! Loki's push protocol: a snappy block (not a snappy stream) of a protobuf message.
//!
//! The messages are those of Loki's `pkg/push/push.proto`, written field by field into a block of snappy's and compressed from
//! there while it is in the processor's cache: a line is copied once, the message is nowhere as a whole, and nothing is allocated for
//! an entry.
//!
//! Invariants: a push holds one stream, entries keep the order they are given in, and equal input gives equal bytes, so
//! that a push sent twice is stored once (`the_same_entries_are_the_same_bytes_in_the_order_given`).

use prost::encoding::{WireType, encode_key, encode_varint, encoded_len_varint, key_len};

use crate::entry::Entry;

use super::block::Blocks;

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

/// Makes the bodies of pushes, one after another.
#[derive(Debug)]
pub(super) struct Encoder {
    blocks: Blocks,
}

impl Encoder {
    pub(super) fn new() -> Self {
        Self { blocks: Blocks::new() }
    }

    /// The body of a push of one stream; `labels` is its label set as LogQL writes it.
    ///
    /// # Errors
    /// Only for a message over 4 GiB, which snappy can't express; a push is far below.
    pub(super) fn encode(&mut self, labels: &str, entries: &[Entry]) -> Result<Vec<u8>, snap::Error> {
        let stream = field_len(tag::LABELS, labels.len())
            + entries
                .iter()
                .map(|entry| field_len(tag::ENTRIES, entry_len(entry)))
                .sum::<usize>();
        let blocks = &mut self.blocks;
        blocks.begin(field_len(tag::STREAMS, stream));
        let message = blocks.plain();
        put_head(tag::STREAMS, stream, message);
        put(tag::LABELS, labels.as_bytes(), message);
        for entry in entries {
            let message = blocks.plain();
            put_head(tag::ENTRIES, entry_len(entry), message);
            put_head(tag::TIMESTAMP, timestamp_len(entry.timestamp), message);
            put_timestamp(entry.timestamp, message);
            put_head(tag::LINE, entry.size(), message);
            blocks.write(entry.line())?;
            let message = blocks.plain();
            entry.for_each_metadata(|name, value| {
                put_head(tag::METADATA, pair_len(name, value), message);
                put(tag::NAME, name.as_bytes(), message);
                put(tag::VALUE, value, message);
            });
        }
        blocks.end()
    }
}

fn entry_len(entry: &Entry) -> usize {
    let mut length = field_len(tag::TIMESTAMP, timestamp_len(entry.timestamp)) + field_len(tag::LINE, entry.size());
    entry.for_each_metadata(|name, value| length += field_len(tag::METADATA, pair_len(name, value)));
    length
}

fn pair_len(name: &str, value: &[u8]) -> usize {
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
    use crate::entry::tests::{entries, entry};

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

    fn encode(labels: &str, entries: &[Entry]) -> Vec<u8> {
        Encoder::new().encode(labels, entries).unwrap()
    }

    fn decode(body: &[u8]) -> PushRequest {
        PushRequest::decode(message(body).as_slice()).unwrap()
    }

    #[test]
    fn a_push_decodes_to_the_lines_times_labels_and_metadata_it_was_made_of() {
        let line = r#"{"timestamp":"2023-11-14T22:13:20.123456789Z","http.route":"/users/{id}","http.response.status_code":404}"#;
        let mut pushed = entries(line);
        pushed.push(entry(2_000_000_000, &"x".repeat(300)));

        let body = encode("{service=\"api\"}", &pushed);
        let request = decode(&body);

        assert_eq!(request.streams.len(), 1);
        let stream = &request.streams[0];
        assert_eq!(stream.labels, "{service=\"api\"}");
        let stored = &stream.entries[0];
        assert_eq!(stored.line, line);
        let time = stored.timestamp.unwrap();
        assert_eq!((time.seconds, time.nanos), (1_700_000_000, 123_456_789));
        assert_eq!(stored.structured_metadata[0].value, "/users/{id}");
        assert_eq!(stored.structured_metadata[1].name, "http_response_status_code");
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
        let entries = || [entry(1, "a"), entry(2, "b")];
        let body = encode("{a}", &entries());
        assert_eq!(body, encode("{a}", &entries()));
        let request = decode(&body);
        let lines: Vec<_> = request.streams[0]
            .entries
            .iter()
            .map(|entry| entry.line.clone())
            .collect();
        assert_eq!(lines, [&b"a"[..], b"b"]);
    }
}
