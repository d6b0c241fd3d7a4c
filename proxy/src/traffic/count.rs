//! What a body consists of, counted while it passes: events, lines, messages of gRPC, frames of WebSockets.
//!
//! Invariants:
//! - How the bytes are cut into chunks makes no difference (`chunks_make_no_difference`).
//! - Nothing of the bytes is kept but a head that is not whole yet, and nothing is allocated.
//! - No bytes make a counter fail: what is no part is counted as one, or not (`arbitrary_bytes_never_panic`).

use crate::queue::feed::{Feed, Parts};

/// Counts the parts of one body.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Counter {
    /// Server-sent events.
    Events(Events),
    /// Lines that are not empty.
    Lines(Lines),
    /// Record separators.
    Sequence(u64),
    /// Messages of a call by gRPC.
    Messages(Messages),
    /// Frames of a WebSocket.
    Frames(Frames),
}

impl Counter {
    /// The counter for a feed.
    pub fn of_feed(feed: Feed) -> Self {
        match feed {
            Feed::Events => Self::Events(Events::default()),
            Feed::Lines => Self::Lines(Lines::default()),
            Feed::Sequence => Self::Sequence(0),
        }
    }

    /// The counter for a call by gRPC.
    pub fn of_messages() -> Self {
        Self::Messages(Messages::default())
    }

    /// The counter for a WebSocket.
    pub fn of_frames() -> Self {
        Self::Frames(Frames::default())
    }

    /// Forgets what it counted.
    pub fn restart(&mut self) {
        *self = match self {
            Self::Events(_) => Self::Events(Events::default()),
            Self::Lines(_) => Self::Lines(Lines::default()),
            Self::Sequence(_) => Self::Sequence(0),
            Self::Messages(_) => Self::of_messages(),
            Self::Frames(_) => Self::of_frames(),
        };
    }

    /// The next bytes of the body.
    pub fn read(&mut self, bytes: &[u8]) {
        match self {
            Self::Events(events) => events.read(bytes),
            Self::Lines(lines) => lines.read(bytes),
            Self::Sequence(count) => *count += memchr::memchr_iter(SEPARATOR, bytes).count() as u64,
            Self::Messages(messages) => messages.read(bytes),
            Self::Frames(frames) => frames.read(bytes),
        }
    }

    /// What was counted.
    pub fn parts(&self) -> Parts {
        match self {
            Self::Events(events) => Parts::Events(events.count),
            Self::Lines(lines) => Parts::Events(lines.count + u64::from(lines.begun)),
            Self::Sequence(count) => Parts::Events(*count),
            Self::Messages(messages) => Parts::Messages(messages.count),
            Self::Frames(frames) => Parts::Frames(frames.count),
        }
    }

    /// The code of a WebSocket's first close frame, once it came.
    pub fn close_code(&self) -> Option<u16> {
        match self {
            Self::Frames(frames) => frames.close_code(),
            _ => None,
        }
    }
}

/// The record separator of RFC 7464.
const SEPARATOR: u8 = 0x1e;

/// Server-sent events: what a blank line ends, if a line of data came before (HTML Living Standard, 9.2.6).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Events {
    count: u64,
    /// The line's first bytes: enough to know `data:`.
    line: [u8; 5],
    /// How many of them there are.
    known: usize,
    /// Whether the event has data.
    has_data: bool,
    /// Whether a carriage return was the last byte: a line feed behind it ends no other line.
    returned: bool,
}

impl Events {
    fn read(&mut self, mut bytes: &[u8]) {
        while !bytes.is_empty() {
            if std::mem::take(&mut self.returned) && bytes.first() == Some(&b'\n') {
                bytes = bytes.get(1..).unwrap_or_default();
                continue;
            }
            let end = memchr::memchr2(b'\n', b'\r', bytes);
            let (line, rest) = bytes.split_at_checked(end.unwrap_or(bytes.len())).unwrap_or_default();
            for (known, byte) in self.line.iter_mut().skip(self.known).zip(line) {
                *known = *byte;
                self.known += 1;
            }
            if end.is_some() {
                self.end_line();
                self.returned = rest.first() == Some(&b'\r');
            }
            bytes = rest.get(1..).unwrap_or_default();
        }
    }

    fn end_line(&mut self) {
        match self.line.get(..std::mem::take(&mut self.known)) {
            Some(b"data" | b"data:") => self.has_data = true,
            Some(b"") => self.count += u64::from(std::mem::take(&mut self.has_data)),
            _ => {}
        }
    }
}

/// Lines that are not empty; the last one needs no line feed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Lines {
    count: u64,
    /// Whether the line that has no end yet holds anything.
    begun: bool,
}

impl Lines {
    fn read(&mut self, bytes: &[u8]) {
        let mut at = 0;
        for end in memchr::memchr_iter(b'\n', bytes) {
            self.see(bytes.get(at..end).unwrap_or_default());
            self.count += u64::from(std::mem::take(&mut self.begun));
            at = end + 1;
        }
        self.see(bytes.get(at..).unwrap_or_default());
    }

    fn see(&mut self, part: &[u8]) {
        self.begun = self.begun || part.iter().any(|byte| *byte != b'\r');
    }
}

/// Messages of gRPC: a flag, a length of four bytes, and as many bytes (gRPC over HTTP/2, "Length-Prefixed-Message").
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Messages {
    count: u64,
    head: [u8; 5],
    known: usize,
    /// Bytes of the message that are still to come.
    left: u64,
}

impl Messages {
    fn read(&mut self, mut bytes: &[u8]) {
        while !bytes.is_empty() {
            bytes = pass(bytes, &mut self.left);
            bytes = fill(&mut self.head, &mut self.known, bytes);
            if self.known == self.head.len() {
                let [_, length @ ..] = self.head;
                self.left = u32::from_be_bytes(length).into();
                self.known = 0;
                self.count += 1;
            }
        }
    }
}

/// Frames of a WebSocket, of either side (RFC 6455, 5.2).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Frames {
    count: u64,
    head: [u8; 14],
    known: usize,
    /// Bytes of the payload that are still to come.
    left: u64,
    close: Option<Close>,
}

/// The first close frame, and as much of its code as came (RFC 6455, 5.5.1).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Close {
    mask: [u8; 2],
    length: u64,
    code: [u8; 2],
    known: usize,
}

/// What stands for the code of a close frame that has none (RFC 6455, 7.4.1).
const NO_CLOSE_CODE: u16 = 1005;
const CLOSE: u8 = 8;

impl Frames {
    fn read(&mut self, mut bytes: &[u8]) {
        while !bytes.is_empty() {
            if let Some(close) = &mut self.close {
                close.read(bytes);
            }
            bytes = pass(bytes, &mut self.left);
            let needed = needed(&self.head, self.known);
            let head = self.head.get_mut(..needed).unwrap_or_default();
            bytes = fill(head, &mut self.known, bytes);
            if self.known == needed && needed == self::needed(&self.head, needed) {
                self.begin();
            }
        }
    }

    /// The head of a frame is whole.
    fn begin(&mut self) {
        let [first, second, rest @ ..] = self.head;
        let extended = |from: &[u8]| from.iter().fold(0, |length, byte| length << 8 | u64::from(*byte));
        let (length, mask) = match second & 0x7f {
            126 => (extended(&rest[..2]), &rest[2..4]),
            127 => (extended(&rest[..8]), &rest[8..10]),
            length => (length.into(), &rest[..2]),
        };
        if first & 0x0f == CLOSE && self.close.is_none() {
            let mask = if second & 0x80 == 0 { [0; 2] } else { [mask[0], mask[1]] };
            self.close = Some(Close {
                mask,
                length,
                ..Close::default()
            });
        }
        self.left = length;
        self.known = 0;
        self.count += 1;
    }

    fn close_code(&self) -> Option<u16> {
        let close = self.close?;
        match close.known {
            2 => Some(u16::from_be_bytes(close.code)),
            _ if close.length < 2 => Some(NO_CLOSE_CODE),
            _ => None,
        }
    }
}

impl Close {
    fn read(&mut self, bytes: &[u8]) {
        if self.length < 2 {
            return;
        }
        for byte in bytes {
            let at = self.known;
            let (Some(code), Some(mask)) = (self.code.get_mut(at), self.mask.get(at)) else {
                return;
            };
            *code = byte ^ mask;
            self.known += 1;
        }
    }
}

/// Bytes of a frame's head, as far as can be told from the `known` first ones.
fn needed(head: &[u8; 14], known: usize) -> usize {
    if known < 2 {
        return 2;
    }
    let extended = match head[1] & 0x7f {
        126 => 2,
        127 => 8,
        _ => 0,
    };
    let mask = if head[1] & 0x80 == 0 { 0 } else { 4 };
    2 + extended + mask
}

/// What of the bytes is behind the `left` ones of a payload.
fn pass<'b>(bytes: &'b [u8], left: &mut u64) -> &'b [u8] {
    let passed = usize::try_from(*left).unwrap_or(usize::MAX).min(bytes.len());
    *left -= passed as u64;
    bytes.get(passed..).unwrap_or_default()
}

/// Fills up a head of which `known` bytes are there; what of the bytes is left.
fn fill<'b>(head: &mut [u8], known: &mut usize, bytes: &'b [u8]) -> &'b [u8] {
    let mut taken = 0;
    for (to, from) in head.iter_mut().skip(*known).zip(bytes) {
        *to = *from;
        taken += 1;
    }
    *known += taken;
    bytes.get(taken..).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn counted(mut counter: Counter, bytes: &[u8]) -> u64 {
        counter.read(bytes);
        match counter.parts() {
            Parts::Events(count) | Parts::Messages(count) | Parts::Frames(count) => count,
        }
    }

    fn all() -> [Counter; 5] {
        [
            Counter::of_feed(Feed::Events),
            Counter::of_feed(Feed::Lines),
            Counter::of_feed(Feed::Sequence),
            Counter::of_messages(),
            Counter::of_frames(),
        ]
    }

    #[test]
    fn an_event_is_what_has_data_and_a_blank_line_behind_it() {
        for (text, count) in [
            ("", 0),
            ("data: 1\n\ndata: 2\n\n", 2),
            ("data: 1\r\n\r\ndata: 2\r\n\r\n", 2),
            ("data: 1\r\rdata\r\r", 2),
            ("event: x\nid: 7\ndata: 1\ndata: 2\n\n", 1),
            (": still here\n\n: still here\n\n", 0),
            ("event: x\n\n", 0),
            ("dataset: 1\n\n\n\n", 0),
            ("data: not dispatched", 0),
            ("data: 1\n\n\n\ndata: 2\n", 1),
        ] {
            assert_eq!(
                counted(Counter::of_feed(Feed::Events), text.as_bytes()),
                count,
                "{text:?}"
            );
        }
    }

    #[test]
    fn a_line_is_what_is_not_empty() {
        for (text, count) in [("", 0), ("{}\n{}\n", 2), ("{}\r\n\r\n\n{}", 2), ("\n\n", 0)] {
            assert_eq!(
                counted(Counter::of_feed(Feed::Lines), text.as_bytes()),
                count,
                "{text:?}"
            );
        }
        assert_eq!(counted(Counter::of_feed(Feed::Sequence), b"\x1e{}\n\x1e{\n}\n"), 2);
    }

    #[test]
    fn a_message_is_a_flag_a_length_and_as_many_bytes() {
        let mut body = vec![0, 0, 0, 0, 3, b'a', b'b', b'c', 1, 0, 0, 0, 0];
        body.extend([0, 0, 0, 1, 0]);
        body.extend([7; 256]);
        assert_eq!(counted(Counter::of_messages(), &body), 3);
        assert_eq!(counted(Counter::of_messages(), &[0, 0, 0, 0]), 0);
    }

    /// A frame as a server sends it, or masked as a client does.
    fn frame(opcode: u8, payload: &[u8], mask: Option<[u8; 4]>) -> Vec<u8> {
        let masked = if mask.is_some() { 0x80 } else { 0 };
        let mut frame = vec![0x80 | opcode];
        match payload.len() {
            short @ ..126 => frame.push(masked | short as u8),
            long @ 126..=0xffff => {
                frame.push(masked | 126);
                frame.extend((long as u16).to_be_bytes());
            }
            longer => {
                frame.push(masked | 127);
                frame.extend((longer as u64).to_be_bytes());
            }
        }
        frame.extend(mask.into_iter().flatten());
        let key = mask.unwrap_or_default();
        frame.extend(payload.iter().zip(key.iter().cycle()).map(|(byte, key)| byte ^ key));
        frame
    }

    #[test]
    fn frames_of_every_length_are_counted_on_both_sides() {
        for mask in [None, Some([0x12, 0x34, 0x56, 0x78])] {
            let mut bytes = Vec::new();
            for length in [0, 1, 125, 126, 65_535, 65_536] {
                bytes.extend(frame(2, &vec![0x81; length], mask));
            }
            bytes.extend(frame(CLOSE, b"\x03\xe9going away", mask));
            let mut counter = Counter::of_frames();
            assert_eq!(counter.close_code(), None);
            counter.read(&bytes);
            assert_eq!((counter.parts(), counter.close_code()), (Parts::Frames(7), Some(1001)));
        }
    }

    #[test]
    fn the_first_close_frame_counts_also_one_without_a_code() {
        let told = |frames: &[Vec<u8>]| {
            let mut counter = Counter::of_frames();
            counter.read(&frames.concat());
            counter.close_code()
        };
        let close = |payload| frame(CLOSE, payload, Some([1, 2, 3, 4]));
        assert_eq!(told(&[close(b"")]), Some(1005));
        assert_eq!(told(&[close(b""), close(b"\x03\xe8")]), Some(1005));
        assert_eq!(told(&[close(b"\x03\xe8"), close(b"\x03\xe9")]), Some(1000));
        assert_eq!(told(&[close(b"\x03\xe8").split_at(7).0.to_vec()]), None);
        assert_eq!(told(&[frame(1, b"\x03\xe8", None)]), None);
    }

    proptest! {
        #[test]
        fn chunks_make_no_difference(
            bytes in prop_oneof![
                proptest::collection::vec(any::<u8>(), 0..300),
                "(data|da|:x|\r|\n|\r\n|\n\n|\u{1e}){0,60}".prop_map(String::into_bytes),
            ],
            cuts in proptest::collection::vec(0..300_usize, 0..20),
        ) {
            for whole in all() {
                let (mut whole, mut parted) = (whole, whole);
                whole.read(&bytes);
                let mut cuts = cuts.clone();
                cuts.sort_unstable();
                let mut at = 0;
                for cut in cuts.into_iter().chain([bytes.len()]) {
                    let cut = cut.clamp(at, bytes.len());
                    parted.read(&bytes[at..cut]);
                    at = cut;
                }
                prop_assert_eq!(whole, parted);
                prop_assert_eq!(whole.close_code(), parted.close_code());
            }
        }

        #[test]
        fn arbitrary_bytes_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
            for mut counter in all() {
                counter.read(&bytes);
                counter.read(&bytes);
                counter.restart();
                prop_assert!(all().contains(&counter));
            }
        }
    }
}
