//! A push as it is on the wire: a snappy block of protobuf. Written apart from the consumer's own encoder, on purpose.

use axum::http::HeaderMap;
use bytes::Bytes;
use prost::Message;

/// A log entry with the stream it belongs to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// The stream's labels as they were sent: `{env="production", service="api"}`.
    pub labels: String,
    /// Unix nanoseconds.
    pub timestamp: u64,
    /// The line.
    pub line: Bytes,
    /// Structured metadata, in the order it was sent.
    pub metadata: Vec<(String, String)>,
}

impl Entry {
    /// The line as text.
    #[must_use]
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.line).into_owned()
    }

    /// The value of a label, if the labels are written as LogQL writes them.
    #[must_use]
    pub fn label(&self, name: &str) -> Option<&str> {
        let inner = self.labels.strip_prefix('{')?.strip_suffix('}')?;
        inner
            .split(", ")
            .find_map(|label| label.strip_prefix(name)?.strip_prefix("=\"")?.strip_suffix('"'))
    }

    /// The value of a piece of structured metadata.
    #[must_use]
    pub fn meta(&self, name: &str) -> Option<&str> {
        self.metadata
            .iter()
            .find(|(known, _)| known == name)
            .map(|(_, value)| value.as_str())
    }

    /// Entries that are alike in this are stored once.
    pub(super) fn identity(&self) -> (String, u64, Bytes) {
        (self.labels.clone(), self.timestamp, self.line.clone())
    }
}

/// The entries of a push and its decompressed size, or what Loki would answer with 400.
pub(super) fn decode(headers: &HeaderMap, body: &[u8]) -> Result<(Vec<Entry>, usize), String> {
    let content_type = headers.get("content-type").map(|value| value.as_bytes());
    if content_type != Some(b"application/x-protobuf") {
        return Err(format!("unsupported content type {content_type:?}\n"));
    }
    let message = snap::raw::Decoder::new()
        .decompress_vec(body)
        .map_err(|error| format!("snappy: {error}\n"))?;
    let request = PushRequest::decode(message.as_slice()).map_err(|error| format!("proto: {error}\n"))?;
    let entries = request
        .streams
        .into_iter()
        .flat_map(Stream::entries)
        .collect::<Result<Vec<_>, _>>()?;
    Ok((entries, message.len()))
}

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
    entries: Vec<EntryMessage>,
}

#[derive(Clone, PartialEq, Message)]
struct EntryMessage {
    #[prost(message, optional, tag = "1")]
    timestamp: Option<Timestamp>,
    #[prost(string, tag = "2")]
    line: String,
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

impl Stream {
    fn entries(self) -> impl Iterator<Item = Result<Entry, String>> {
        let labels = self.labels;
        self.entries.into_iter().map(move |entry| {
            let timestamp = entry.timestamp.and_then(Timestamp::unix_nanos);
            Ok(Entry {
                labels: labels.clone(),
                timestamp: timestamp.ok_or("an entry without a time from 1970 on\n")?,
                line: entry.line.into(),
                metadata: entry
                    .structured_metadata
                    .into_iter()
                    .map(|pair| (pair.name, pair.value))
                    .collect(),
            })
        })
    }
}

impl Timestamp {
    fn unix_nanos(self) -> Option<u64> {
        let seconds = u64::try_from(self.seconds).ok()?;
        let nanos = u64::try_from(self.nanos).ok()?;
        seconds.checked_mul(1_000_000_000)?.checked_add(nanos)
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    /// The body of a push with these entries, each in a stream of its own.
    pub(in super::super) fn encode(entries: &[Entry]) -> Vec<u8> {
        let streams = entries.iter().map(|entry| Stream {
            labels: entry.labels.clone(),
            entries: vec![EntryMessage {
                timestamp: Some(Timestamp {
                    seconds: i64::try_from(entry.timestamp / 1_000_000_000).unwrap(),
                    nanos: i32::try_from(entry.timestamp % 1_000_000_000).unwrap(),
                }),
                line: entry.text(),
                structured_metadata: entry
                    .metadata
                    .iter()
                    .map(|(name, value)| LabelPair {
                        name: name.clone(),
                        value: value.clone(),
                    })
                    .collect(),
            }],
        });
        let message = PushRequest {
            streams: streams.collect(),
        }
        .encode_to_vec();
        snap::raw::Encoder::new().compress_vec(&message).unwrap()
    }

    fn entry() -> Entry {
        Entry {
            labels: "{env=\"production\", service=\"api\"}".to_owned(),
            timestamp: 1_769_862_896_123_456_789,
            line: "{}".into(),
            metadata: vec![("trace_id".to_owned(), "ab".to_owned())],
        }
    }

    fn headers(content_type: &'static str) -> HeaderMap {
        HeaderMap::from_iter([("content-type".parse().unwrap(), content_type.parse().unwrap())])
    }

    #[test]
    fn a_push_is_decoded_to_its_entries() {
        let (entries, _) = decode(&headers("application/x-protobuf"), &encode(&[entry()])).unwrap();
        assert_eq!(entries, [entry()]);
        assert_eq!(
            (entries[0].label("service"), entries[0].label("env")),
            (Some("api"), Some("production"))
        );
        assert_eq!(
            (entries[0].meta("trace_id"), entries[0].label("level")),
            (Some("ab"), None)
        );
    }

    #[test]
    fn what_is_no_push_is_refused() {
        for (content_type, body) in [
            ("application/json", encode(&[entry()])),
            ("application/x-protobuf", b"no snappy".to_vec()),
            (
                "application/x-protobuf",
                snap::raw::Encoder::new().compress_vec(b"\x0a\xff").unwrap(),
            ),
        ] {
            assert!(decode(&headers(content_type), &body).is_err());
        }
    }
}
