//! A line that is set aside, and the message it becomes.

use std::str::FromStr;
use std::sync::Arc;

use async_nats::HeaderValue;
use async_nats::jetstream::message::PublishMessage;
use bytes::Bytes;
use sidelog_record::DecodeError;

use crate::delivery::Delivery;
use crate::entry::Entry;

/// Header: why the line is here, one of [`Reason::as_str`].
pub(crate) const HEADER_REASON: &str = "Sidelog-Reason";
/// Header: the reason in words, for a refusal the store's own.
pub(crate) const HEADER_DETAIL: &str = "Sidelog-Detail";
/// Header: the sequence of the message, in the stream it came from.
pub(crate) const HEADER_SEQUENCE: &str = "Sidelog-Stream-Sequence";
/// Header: the bytes of the line, when it had to be cut.
pub(crate) const HEADER_SIZE: &str = "Sidelog-Size";

/// The longest detail.
const DETAIL_MAX: usize = 512;

/// Why a line is set aside; a closed set.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Reason {
    /// The message holds no line at all.
    Empty,
    /// The line is no record; the reason is [`sidelog_record::DecodeError::reason`].
    Decode(&'static str),
    /// The line is longer than the store takes.
    TooLong,
    /// The store takes nothing of that age.
    TooOld,
    /// The store takes nothing from the future.
    TooNew,
    /// The store refused it for another reason (400).
    Refused,
    /// The store found it too large (413).
    TooLarge,
}

impl Reason {
    /// The names of all, those of lines that are no record first.
    pub(crate) fn names() -> impl Iterator<Item = &'static str> {
        let others = [
            Self::Empty,
            Self::TooLong,
            Self::TooOld,
            Self::TooNew,
            Self::Refused,
            Self::TooLarge,
        ];
        DecodeError::REASONS.into_iter().chain(others.map(Self::as_str))
    }

    /// The name in the metric and in [`HEADER_REASON`].
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Empty => "empty",
            Self::Decode(reason) => reason,
            Self::TooLong => "too_long",
            Self::TooOld => "too_old",
            Self::TooNew => "too_new",
            Self::Refused => "refused",
            Self::TooLarge => "too_large",
        }
    }
}

/// A line that is to be set aside.
#[derive(Debug)]
pub(crate) struct Letter {
    pub(crate) service: String,
    pub(crate) delivery: Arc<Delivery>,
    /// The line's place in its message.
    pub(crate) index: usize,
    pub(crate) line: Bytes,
    pub(crate) reason: Reason,
    pub(crate) detail: String,
}

impl Letter {
    /// An entry that the store refuses for good; `detail` is what it said.
    pub(crate) fn of_entry(entry: Entry, reason: Reason, detail: String) -> Self {
        Self {
            service: entry.service(),
            line: entry.shared_line(),
            delivery: entry.delivery,
            index: entry.index,
            reason,
            detail,
        }
    }

    /// The letter as a message with a payload of at most `room` bytes.
    pub(crate) fn message(&self, room: usize) -> PublishMessage {
        let id = self.delivery.id;
        let mut message = PublishMessage::build()
            .message_id(format!("{}-{}-{}", id.published, id.sequence, self.index))
            .header(HEADER_REASON, self.reason.as_str())
            .header(HEADER_DETAIL, header_text(&self.detail))
            .header(HEADER_SEQUENCE, HeaderValue::from(id.sequence));
        let mut line = self.line.clone();
        if line.len() > room {
            message = message.header(HEADER_SIZE, HeaderValue::from(line.len()));
            line.truncate(room);
        }
        message.payload(line)
    }
}

/// Text as a header may hold it: one line, short.
fn header_text(text: &str) -> HeaderValue {
    let mut end = text.len().min(DETAIL_MAX);
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    let line: String = text
        .chars()
        .scan(0, |at, character| {
            *at += character.len_utf8();
            (*at <= end).then_some(character)
        })
        .map(|character| if character.is_control() { ' ' } else { character })
        .collect();
    // Without control characters nothing is left that a header can't hold.
    HeaderValue::from_str(&line).unwrap_or_else(|_| HeaderValue::from(0_u64))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::delivery::tests::delivery;

    fn letter(line: &[u8], detail: &str) -> Letter {
        Letter {
            service: "api".to_owned(),
            delivery: delivery(7, line),
            index: 3,
            line: Bytes::copy_from_slice(line),
            reason: Reason::Refused,
            detail: detail.to_owned(),
        }
    }

    fn published(letter: &Letter, room: usize) -> (async_nats::HeaderMap, Bytes) {
        let outbound = letter.message(room).outbound_message("logs_dead.api");
        (outbound.headers.unwrap(), outbound.payload)
    }

    #[test]
    fn a_letter_says_why_and_where_from_and_holds_the_raw_line() {
        let (headers, payload) = published(&letter(b"\xff\0raw", "too old\r\nNats-Rollup: all"), 100);
        assert_eq!(payload, &b"\xff\0raw"[..]);
        let header = |name: &str| headers.get(name).map(|value| value.as_str().to_owned());
        assert_eq!(header(HEADER_REASON).unwrap(), "refused");
        assert_eq!(header(HEADER_DETAIL).unwrap(), "too old  Nats-Rollup: all");
        assert_eq!(header(HEADER_SEQUENCE).unwrap(), "7");
        assert_eq!(header("Nats-Msg-Id").unwrap(), "1700000000000000007-7-3");
        assert_eq!(header(HEADER_SIZE), None);
    }

    #[test]
    fn a_line_that_leaves_no_room_for_headers_is_cut_and_tells_its_size() {
        let (headers, payload) = published(&letter(&[b'x'; 150], ""), 100);
        assert_eq!(payload.len(), 100);
        assert_eq!(headers.get(HEADER_SIZE).unwrap().as_str(), "150");
    }

    #[test]
    fn a_long_detail_is_cut_on_a_character_boundary() {
        let text = header_text(&"é".repeat(DETAIL_MAX));
        assert_eq!(text.as_str().len(), DETAIL_MAX);
        assert_eq!(
            header_text(&format!("a{}", "é".repeat(DETAIL_MAX))).as_str().len(),
            DETAIL_MAX - 1
        );
    }
}
