//! The beginning and the end of a feed, as one text: whole events of each, and between them a line that says how much is left
//! out.
//!
//! Invariants:
//! - What stands behind the gap begins with an event, never in the midst of one: nothing is read without what tells that it
//!   is a secret (`behind_the_gap_everything_begins_anew`).
//! - What is kept and what is left out add up to the body's size (`the_gap_says_how_much_it_is`).

use crate::queue::exchange::{Body, Fields};
use crate::queue::feed::Feed;

/// Which bytes of a feed are read.
#[derive(Debug, PartialEq, Eq)]
pub struct Window<'b> {
    /// The beginning.
    pub front: &'b [u8],
    /// Whether its last event is cut, because not a single one is whole.
    pub front_is_cut: bool,
    /// The end.
    pub back: &'b [u8],
    /// What stands between the two.
    pub gap: String,
}

impl<'b> Window<'b> {
    /// The window of a body; `None` when it is no feed, or all of it is there.
    pub fn of(body: &Body<'b>, fields: Fields<'_>) -> Option<Self> {
        let feed = Feed::of(fields.get("content-type").unwrap_or_default())?;
        if body.head >= body.bytes.len() || body.bytes.len() as u64 >= body.size {
            return None;
        }
        let (front, back) = body.bytes.split_at_checked(body.head)?;
        let whole = last_end(feed, front);
        let front = front.get(..whole.unwrap_or(front.len())).unwrap_or_default();
        let back = first_begin(feed, back)
            .and_then(|at| back.get(at..))
            .unwrap_or_default();
        let left_out = body.size - (front.len() + back.len()) as u64;
        Some(Self {
            front,
            front_is_cut: whole.is_none(),
            back,
            gap: gap(feed, left_out),
        })
    }
}

/// A comment where there are such, else a line that is no document.
fn gap(feed: Feed, left_out: u64) -> String {
    match feed {
        Feed::Events => format!(": … {left_out} bytes left out …\n\n"),
        Feed::Lines | Feed::Sequence => format!("… {left_out} bytes left out …\n"),
    }
}

/// The record separator of RFC 7464: it begins a document.
const SEPARATOR: u8 = 0x1e;

/// Where the last whole event ends.
fn last_end(feed: Feed, bytes: &[u8]) -> Option<usize> {
    match feed {
        Feed::Events => memchr::memrchr_iter(b'\n', bytes).find_map(|at| behind_blank_line(bytes, at)),
        Feed::Lines => memchr::memrchr(b'\n', bytes).map(|at| at + 1),
        Feed::Sequence => memchr::memrchr(SEPARATOR, bytes).filter(|at| *at > 0),
    }
}

/// Where the first whole event begins.
fn first_begin(feed: Feed, bytes: &[u8]) -> Option<usize> {
    match feed {
        Feed::Events => memchr::memchr_iter(b'\n', bytes).find_map(|at| behind_blank_line(bytes, at)),
        Feed::Lines => memchr::memchr(b'\n', bytes).map(|at| at + 1),
        Feed::Sequence => memchr::memchr(SEPARATOR, bytes),
    }
}

/// What follows the blank line that follows the line feed at `at`, if one does.
fn behind_blank_line(bytes: &[u8], at: usize) -> Option<usize> {
    let rest = bytes.get(at + 1..)?;
    let len = [&b"\n"[..], b"\r\n"]
        .into_iter()
        .find(|blank| rest.starts_with(blank))?
        .len();
    Some(at + 1 + len)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn fields(content_type: &str) -> Vec<u8> {
        let mut fields = Vec::new();
        Fields::push(&mut fields, b"content-type", content_type.as_bytes());
        fields
    }

    /// The window of a feed of which `head` and `tail` bytes were kept: front, gap, back.
    fn told(content_type: &str, text: &str, head: usize, tail: usize) -> Option<(String, String, String)> {
        let kept = [&text.as_bytes()[..head], &text.as_bytes()[text.len() - tail..]].concat();
        let body = Body {
            size: text.len() as u64,
            bytes: &kept,
            head,
            ..Body::default()
        };
        let fields = fields(content_type);
        let window = Window::of(&body, Fields(&fields))?;
        let utf8 = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).unwrap();
        Some((utf8(window.front), window.gap, utf8(window.back)))
    }

    fn parts(front: &str, gap: &str, back: &str) -> Option<(String, String, String)> {
        Some((front.to_owned(), gap.to_owned(), back.to_owned()))
    }

    #[test]
    fn behind_the_gap_everything_begins_anew() {
        assert_eq!(
            told(
                "text/event-stream",
                "data: 1\n\ndata: 22\ndata: 3\n\ndata: 4\n\n",
                12,
                15
            ),
            parts("data: 1\n\n", ": … 18 bytes left out …\n\n", "data: 4\n\n")
        );
        assert_eq!(
            told(
                "text/event-stream",
                "data: 1\r\n\r\ndata: 2\r\n\r\ndata: 3\r\n\r\n",
                14,
                14
            ),
            parts("data: 1\r\n\r\n", ": … 11 bytes left out …\n\n", "data: 3\r\n\r\n")
        );
        assert_eq!(
            told("application/x-ndjson", "{\"a\":1}\n{\"b\":2}\n{\"c\":3}\n", 10, 12),
            parts("{\"a\":1}\n", "… 8 bytes left out …\n", "{\"c\":3}\n")
        );
        assert_eq!(
            told("application/json-seq", "\u{1e}{\n}\n\u{1e}[\n]\n\u{1e}7\n", 6, 5),
            parts("\u{1e}{\n}\n", "… 5 bytes left out …\n", "\u{1e}7\n")
        );
    }

    #[test]
    fn what_holds_no_whole_event_is_a_cut_beginning_and_no_end() {
        assert_eq!(
            told("application/x-ndjson", "{\"a\":1,\"password\":\"MARK\"}", 5, 6),
            parts("{\"a\":", "… 20 bytes left out …\n", "")
        );
    }

    #[test]
    fn what_is_whole_or_no_feed_has_no_window() {
        assert_eq!(told("application/x-ndjson", "1\n2\n3\n", 2, 4), None);
        assert_eq!(told("text/plain", "1\n2\n3\n", 1, 2), None);
        let fields = fields("application/x-ndjson");
        let body = Body {
            size: 9,
            bytes: b"1\n2",
            head: 3,
            ..Body::default()
        };
        assert_eq!(Window::of(&body, Fields(&fields)), None);
    }

    proptest! {
        #[test]
        fn the_gap_says_how_much_it_is(
            text in "(data: [a-z]{0,9}|\n|\r\n|\u{1e}){0,40}", head in 0..100_usize, tail in 1..100_usize,
            content_type in "text/event-stream|application/jsonl|application/json-seq",
        ) {
            prop_assume!(head + tail < text.len());
            let (front, gap, back) = told(&content_type, &text, head, tail).unwrap();
            let left_out: usize = gap.split(' ').find_map(|word| word.parse().ok()).unwrap();
            prop_assert_eq!(front.len() + left_out + back.len(), text.len());
            prop_assert!(text.starts_with(&front) && text.ends_with(&back));
        }
    }
}
