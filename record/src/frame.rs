//! Many records as one message: newline-delimited JSON, and the headers that go with it.
//!
//! Every line ends with `\n`. A frame holds at most the records and bytes its builder was given; only a record
//! that alone is larger than that makes a larger frame, of its own. A frame is built once: what is stored and sent again is
//! its bytes.

use std::fmt;

use bytes::Bytes;

use crate::{Record, time};

/// The schema of the records in this version.
pub const SCHEMA: u64 = 1;
/// Message header: the schema of the records, [`SCHEMA`].
pub const HEADER_SCHEMA: &str = "Sidelog-Schema";
/// Message header: how many records the frame holds, in decimal.
pub const HEADER_COUNT: &str = "Sidelog-Count";
/// Message header: the span of `observed_timestamp` in the frame, as [`Observed`] writes it.
pub const HEADER_OBSERVED: &str = "Sidelog-Observed";

/// What the buffer of the next frame may have beyond a frame's size, for the record that is one too many for it.
const SPARE: usize = 128 * 1024;

/// A closed frame.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Frame {
    /// One JSON object a line, each line ended by `\n`; exactly as large as its allocation.
    pub payload: Bytes,
    /// How many records it holds; at least one.
    pub count: u32,
    /// The earliest `observed_timestamp` in it, in unix nanoseconds.
    pub first_observed: u64,
    /// The latest `observed_timestamp` in it, in unix nanoseconds.
    pub last_observed: u64,
}

impl Frame {
    /// The value of [`HEADER_OBSERVED`].
    #[must_use]
    pub const fn observed(&self) -> Observed {
        Observed {
            first: self.first_observed,
            last: self.last_observed,
        }
    }
}

/// The earliest and latest `observed_timestamp` of a frame, in unix nanoseconds.
///
/// As text it is an ISO 8601 interval: `2026-01-31T12:00:00.000000000Z/2026-01-31T12:00:00.199999999Z`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Observed {
    /// The earliest.
    pub first: u64,
    /// The latest.
    pub last: u64,
}

impl Observed {
    /// Reads the value of [`HEADER_OBSERVED`]; `None` if it isn't two times in order.
    #[must_use]
    pub fn parse(value: &str) -> Option<Self> {
        let (first, last) = value.split_once('/')?;
        let (first, last) = (time::parse_timestamp(first)?, time::parse_timestamp(last)?);
        (first <= last).then_some(Self { first, last })
    }
}

impl fmt::Display for Observed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut text = Vec::with_capacity(61);
        time::write_timestamp(self.first, &mut text);
        text.push(b'/');
        time::write_timestamp(self.last, &mut text);
        f.write_str(&String::from_utf8_lossy(&text))
    }
}

/// Collects records until a frame is full.
#[derive(Debug)]
pub struct FrameBuilder {
    max_records: u32,
    max_bytes: usize,
    lines: Vec<u8>,
    count: u32,
    observed: Observed,
}

impl FrameBuilder {
    /// A builder of frames of at most `max_records` records (at least 1) and `max_bytes` bytes, newlines included.
    #[must_use]
    pub fn new(max_records: u32, max_bytes: usize) -> Self {
        Self {
            max_records: max_records.max(1),
            max_bytes,
            lines: Vec::new(),
            count: 0,
            observed: Observed { first: 0, last: 0 },
        }
    }

    /// From the next record on frames have at most `max_bytes` bytes.
    pub const fn set_max_bytes(&mut self, max_bytes: usize) {
        self.max_bytes = max_bytes;
    }

    /// Adds a record, encoded in place, and returns a frame if this filled one.
    ///
    /// The frame holds the records before this one, if it did not fit in any more; else this one is its last.
    /// What is not returned waits for the next push, or for [`close`](Self::close) after the linger time.
    #[must_use = "the frame holds records that are nowhere else"]
    pub fn push(&mut self, record: &Record<'_>) -> Option<Frame> {
        let start = self.lines.len();
        record.encode(&mut self.lines);
        self.lines.push(b'\n');
        let full = if self.lines.len() > self.max_bytes && self.count > 0 {
            self.close_at(start)
        } else {
            None
        };
        let observed = record.observed_timestamp;
        self.observed = match self.count {
            0 => Observed {
                first: observed,
                last: observed,
            },
            _ => Observed {
                first: self.observed.first.min(observed),
                last: self.observed.last.max(observed),
            },
        };
        self.count += 1;
        full.or_else(|| {
            if self.count >= self.max_records {
                self.close()
            } else {
                None
            }
        })
    }

    /// Closes the frame as it is; `None` if it is empty.
    pub fn close(&mut self) -> Option<Frame> {
        self.close_at(self.lines.len())
    }

    /// Closes the frame at a line's end; what is behind it begins the next frame, which is expected to grow as large as this one.
    fn close_at(&mut self, end: usize) -> Option<Frame> {
        if self.count == 0 {
            return None;
        }
        let expected = self.max_bytes.saturating_add(SPARE).min(self.lines.len());
        let mut next = Vec::with_capacity(expected);
        next.extend_from_slice(self.lines.get(end..)?);
        let mut lines = std::mem::replace(&mut self.lines, next);
        lines.truncate(end);
        let frame = Frame {
            // Shrinking is no copy where the allocator can leave a large allocation where it is, as jemalloc does.
            payload: lines.into_boxed_slice().into(),
            count: self.count,
            first_observed: self.observed.first,
            last_observed: self.observed.last,
        };
        self.count = 0;
        Some(frame)
    }

    /// Whether no record waits.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.count == 0
    }

    /// How many records wait.
    #[must_use]
    pub const fn count(&self) -> u32 {
        self.count
    }

    /// How many bytes wait.
    #[must_use]
    pub const fn bytes(&self) -> usize {
        self.lines.len()
    }
}

/// The lines of a payload, in order.
///
/// Empty lines are skipped, `\r\n` ends a line as `\n` does, and the last newline may be missing.
pub fn lines(payload: &[u8]) -> impl Iterator<Item = &[u8]> {
    let mut rest = payload;
    std::iter::from_fn(move || {
        while !rest.is_empty() {
            let end = memchr::memchr(b'\n', rest).unwrap_or(rest.len());
            let (line, behind) = rest.split_at_checked(end)?;
            rest = behind.strip_prefix(b"\n").unwrap_or(behind);
            let line = line.strip_suffix(b"\r").unwrap_or(line);
            if !line.is_empty() {
                return Some(line);
            }
        }
        None
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(observed_timestamp: u64, path: &str) -> Record<'_> {
        Record {
            observed_timestamp,
            path: path.into(),
            ..Record::default()
        }
    }

    fn line_len(record: &Record<'_>) -> usize {
        let mut out = Vec::new();
        record.encode(&mut out);
        out.len() + 1
    }

    #[test]
    fn a_frame_is_full_at_its_count() {
        let mut builder = FrameBuilder::new(2, usize::MAX);
        assert_eq!(builder.push(&record(7, "/a")), None);
        let frame = builder.push(&record(5, "/b")).unwrap();
        assert_eq!((frame.count, frame.first_observed, frame.last_observed), (2, 5, 7));
        assert!(builder.is_empty());
        assert_eq!(builder.bytes(), 0);
    }

    #[test]
    fn a_record_that_does_not_fit_begins_the_next_frame() {
        let len = line_len(&record(1, "/a"));
        let mut builder = FrameBuilder::new(100, 2 * len);
        assert_eq!(builder.push(&record(1, "/a")), None);
        assert_eq!(builder.push(&record(2, "/b")), None);
        let frame = builder.push(&record(3, "/c")).unwrap();
        assert_eq!((frame.count, frame.payload.len(), frame.last_observed), (2, 2 * len, 2));
        assert_eq!((builder.count(), builder.bytes()), (1, len));
        let rest = builder.close().unwrap();
        assert_eq!((rest.count, rest.first_observed, rest.last_observed), (1, 3, 3));
        assert_eq!(builder.close(), None);
    }

    #[test]
    fn a_record_larger_than_a_frame_has_one_to_itself() {
        let mut builder = FrameBuilder::new(100, 10);
        assert_eq!(builder.push(&record(1, "/a")), None);
        assert_eq!(builder.push(&record(2, "/b")).unwrap().count, 1);
        assert_eq!(builder.close().unwrap().count, 1);
    }

    #[test]
    fn one_record_a_frame_leaves_nothing_waiting() {
        let mut builder = FrameBuilder::new(1, 10);
        for at in 0..3 {
            assert_eq!(builder.push(&record(at, "/a")).unwrap().first_observed, at);
            assert!(builder.is_empty());
        }
    }

    #[test]
    fn the_memory_of_a_huge_record_is_given_back() {
        let mut builder = FrameBuilder::new(10, 1000);
        let mut huge = record(1, "/a");
        huge.response.body.content = Some("\u{1}".repeat(200_000).into());
        assert_eq!(builder.push(&huge), None);
        assert!(builder.lines.capacity() > 200_000);
        assert!(builder.close().is_some());
        assert!(builder.lines.capacity() <= 1000 + SPARE, "{}", builder.lines.capacity());
    }

    #[test]
    fn lines_are_read_as_other_programs_end_them() {
        let read: Vec<_> = lines(b"a\n\nb\r\n\r\nc").collect();
        assert_eq!(read, [b"a", b"b", b"c"]);
        assert_eq!(lines(b"").count(), 0);
        assert_eq!(lines(b"\n\r\n").count(), 0);
    }

    #[test]
    fn the_observed_span_is_read_back() {
        let observed = Observed {
            first: 1,
            last: u64::MAX,
        };
        assert_eq!(
            observed.to_string(),
            "1970-01-01T00:00:00.000000001Z/2554-07-21T23:34:33.709551615Z"
        );
        assert_eq!(Observed::parse(&observed.to_string()), Some(observed));
        for value in [
            "",
            "/",
            "1970-01-01T00:00:00Z",
            "1970-01-02T00:00:00Z/1970-01-01T00:00:00Z",
        ] {
            assert_eq!(Observed::parse(value), None, "{value}");
        }
    }
}
