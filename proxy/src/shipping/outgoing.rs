//! A closed frame on its way: what it keeps from its closing to its acknowledgement, in memory and on disk.
//!
//! Invariants:
//! - A frame is built once. Sent again, from memory, from the spool or by the next process, it has the same bytes and the
//!   same `Nats-Msg-Id`.
//! - What a server is too small for is sent in pieces, whose ids say which lines they hold: cut in the same way they are
//!   the same messages, cut in another way they are other ones (`pieces_hold_all_lines_and_say_which`).

use std::borrow::Cow;
use std::sync::Arc;

use async_nats::HeaderMap;
use async_nats::jetstream::message::PublishMessage;
use bytes::Bytes;
use sidelog_record::frame::{Frame, HEADER_COUNT, HEADER_OBSERVED, HEADER_SCHEMA, SCHEMA};

/// A closed frame and what goes with it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Outgoing {
    /// `Nats-Msg-Id`.
    pub id: String,
    /// The subject it goes to.
    pub subject: Arc<str>,
    /// The schema of its records.
    pub schema: u64,
    /// How many of its records the ledger counts: all, or none of a loss record's.
    pub counted: u32,
    /// The records.
    pub frame: Frame,
}

impl Outgoing {
    /// A frame of records that the ledger counts.
    pub fn new(id: String, subject: Arc<str>, frame: Frame) -> Self {
        Self {
            id,
            subject,
            schema: SCHEMA,
            counted: frame.count,
            frame,
        }
    }

    /// The message, or messages where the payload is larger than `max_bytes`. A line that is larger is one by itself.
    pub fn pieces(&self, max_bytes: usize) -> Vec<Piece<'_>> {
        let whole = Piece {
            outgoing: self,
            lines: (0, self.frame.count),
            payload: self.frame.payload.clone(),
        };
        if self.frame.payload.len() <= max_bytes || self.frame.count < 2 {
            return vec![whole];
        }
        let ends = memchr::memchr_iter(b'\n', &self.frame.payload).map(|newline| newline + 1);
        let (mut pieces, mut first, mut start, mut line, mut last) = (Vec::new(), 0, 0, 0, 0);
        let mut cut = |first: u32, line: u32, start: usize, end: usize| {
            pieces.push(Piece {
                outgoing: self,
                lines: (first, line - first),
                payload: self.frame.payload.slice(start..end),
            });
        };
        for end in ends {
            if end - start > max_bytes && last > start {
                cut(first, line, start, last);
                (first, start) = (line, last);
            }
            line += 1;
            last = end;
        }
        if last > start {
            cut(first, line, start, last);
        }
        pieces
    }
}

/// One message of a frame.
#[derive(Debug)]
pub struct Piece<'a> {
    outgoing: &'a Outgoing,
    /// The first line, and how many.
    lines: (u32, u32),
    payload: Bytes,
}

impl Piece<'_> {
    /// How many records it holds.
    pub fn count(&self) -> u32 {
        self.lines.1
    }

    /// Bytes of its payload.
    pub fn bytes(&self) -> usize {
        self.payload.len()
    }

    /// `Nats-Msg-Id`: the frame's where it is the whole frame.
    pub fn id(&self) -> Cow<'_, str> {
        let (first, count) = self.lines;
        if count == self.outgoing.frame.count {
            Cow::Borrowed(&self.outgoing.id)
        } else {
            Cow::Owned(format!("{}.{first}+{count}", self.outgoing.id))
        }
    }

    /// The message as it is published.
    pub fn message(&self) -> PublishMessage {
        let mut headers = HeaderMap::new();
        headers.insert(HEADER_SCHEMA, self.outgoing.schema.to_string());
        headers.insert(HEADER_COUNT, self.count().to_string());
        headers.insert(HEADER_OBSERVED, self.outgoing.frame.observed().to_string());
        PublishMessage::build()
            .payload(self.payload.clone())
            .headers(headers)
            .message_id(self.id())
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use sidelog_record::frame::lines;

    /// A frame of `count` lines, each `size` bytes long.
    pub(crate) fn outgoing(id: &str, count: u32, size: usize) -> Outgoing {
        let line = format!("{}\n", "x".repeat(size - 1));
        let frame = Frame {
            payload: Bytes::from(line.repeat(count as usize)),
            count,
            first_observed: 1,
            last_observed: 9,
        };
        Outgoing::new(id.to_owned(), Arc::from("logs.test"), frame)
    }

    #[test]
    fn a_frame_that_fits_is_one_message_with_its_own_id() {
        let frame = outgoing("a-1", 3, 10);
        let pieces = frame.pieces(30);
        assert_eq!(pieces.len(), 1);
        assert_eq!((pieces[0].id().as_ref(), pieces[0].count()), ("a-1", 3));
    }

    #[test]
    fn pieces_hold_all_lines_and_say_which() {
        let mut frame = outgoing("a-1", 5, 10);
        frame.frame.payload = Bytes::from_static(b"one\ntwo\nthirteen thousand\nfour\nfive\n");
        let pieces = frame.pieces(10);
        let held: Vec<_> = pieces
            .iter()
            .map(|piece| (piece.id().into_owned(), lines(&piece.payload).count()))
            .collect();
        assert_eq!(
            held,
            [
                ("a-1.0+2".to_owned(), 2),
                ("a-1.2+1".to_owned(), 1),
                ("a-1.3+2".to_owned(), 2)
            ]
        );
        let again: Vec<u8> = pieces.iter().flat_map(|piece| piece.payload.to_vec()).collect();
        assert_eq!(again, frame.frame.payload);
    }

    #[test]
    fn a_single_record_is_never_cut() {
        assert_eq!(outgoing("a-1", 1, 1_000).pieces(10).len(), 1);
    }
}
