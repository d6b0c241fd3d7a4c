//! Bodies that are lists without an end: server-sent events, line-delimited documents.
//!
//! Of these the beginning and the end are kept, and their parts are counted.

/// A feed, by what parts its events.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Feed {
    /// Server-sent events, parted by blank lines (HTML Living Standard, 9.2).
    Events,
    /// A document a line: NDJSON, JSON Lines.
    Lines,
    /// Documents behind a record separator, `0x1e` (RFC 7464).
    Sequence,
}

impl Feed {
    /// The feed that a `Content-Type` names, if it names one.
    pub fn of(content_type: &[u8]) -> Option<Self> {
        let essence = content_type.split(|byte| *byte == b';').next()?.trim_ascii();
        let ends = |end: &str| {
            let tail = essence.len().checked_sub(end.len()).and_then(|at| essence.get(at..));
            tail.is_some_and(|tail| tail.eq_ignore_ascii_case(end.as_bytes()))
        };
        match essence.last()?.to_ascii_lowercase() {
            b'm' if essence.eq_ignore_ascii_case(b"text/event-stream") => Some(Self::Events),
            b'q' if ends("json-seq") => Some(Self::Sequence),
            b'n' if ends("ndjson") || ends("/stream+json") => Some(Self::Lines),
            b'l' if ends("jsonl") => Some(Self::Lines),
            b's' if ends("jsonlines") => Some(Self::Lines),
            _ => None,
        }
    }
}

/// What a body consists of, and how many of it there were.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Parts {
    /// Events or lines of a feed.
    Events(u64),
    /// Messages of a call by gRPC.
    Messages(u64),
    /// Frames of a WebSocket.
    Frames(u64),
}

impl Parts {
    /// A kind, not 0, and a count.
    pub(super) fn code(parts: Option<Self>) -> (u8, u64) {
        match parts {
            None => (0, 0),
            Some(Self::Events(count)) => (1, count),
            Some(Self::Messages(count)) => (2, count),
            Some(Self::Frames(count)) => (3, count),
        }
    }

    /// The parts that have this code.
    pub(super) fn of_code((kind, count): (u8, u64)) -> Option<Self> {
        match kind {
            1 => Some(Self::Events(count)),
            2 => Some(Self::Messages(count)),
            3 => Some(Self::Frames(count)),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_feed_is_known_by_its_content_type() {
        for (content_type, feed) in [
            ("text/event-stream", Some(Feed::Events)),
            ("Text/Event-Stream; charset=utf-8", Some(Feed::Events)),
            ("application/x-ndjson", Some(Feed::Lines)),
            ("application/ndjson ;x", Some(Feed::Lines)),
            ("application/jsonl", Some(Feed::Lines)),
            ("application/x-jsonlines", Some(Feed::Lines)),
            ("application/stream+json", Some(Feed::Lines)),
            ("application/geo+json-seq", Some(Feed::Sequence)),
            ("application/json-seq", Some(Feed::Sequence)),
            ("application/json", None),
            ("application/problem+json", None),
            ("text/plain", None),
            ("n", None),
            ("", None),
        ] {
            assert_eq!(Feed::of(content_type.as_bytes()), feed, "{content_type}");
        }
    }

    #[test]
    fn parts_are_their_code() {
        for parts in [
            None,
            Some(Parts::Events(1)),
            Some(Parts::Messages(2)),
            Some(Parts::Frames(3)),
        ] {
            assert_eq!(Parts::of_code(Parts::code(parts)), parts);
        }
    }
}
