//! What the accept layer looks at in HTTP/2: where frames begin, and what they are (RFC 9113, 4.1). Nothing is changed, and
//! nothing of it is a reason for anything but a limit.

use super::PREFACE;

/// Bytes before a frame's payload.
const FRAME_HEAD: usize = 9;
const HEADERS: u8 = 0x1;
const RST_STREAM: u8 = 0x3;
const GOAWAY: u8 = 0x7;
const CONTINUATION: u8 = 0x9;
const END_HEADERS: u8 = 0x4;
const NO_ERROR: u32 = 0x0;
const INTERNAL_ERROR: u32 = 0x2;
const REFUSED_STREAM: u32 = 0x7;
const CANCEL: u32 = 0x8;
const HTTP_1_1_REQUIRED: u32 = 0xd;

/// The block of an answer that is nothing but its status, as pingora and the `h2` crate send it: by its index in the static table
/// (RFC 7541, A), or, the first one of a connection, by its digits. Every answer that somebody gave has a `date`.
const STATUS_400: &[u8] = &[0x8c];
const STATUS_431: &[u8] = &[0x48, 0x83, 0x69, 0x90, 0xff];

/// Bytes of a frame's payload that are looked at.
const PAYLOAD: usize = 8;

/// What frames have told.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Told {
    /// Requests that were taken back, or not served.
    pub(super) resets: u32,
    /// Of those, the ones over the limit of requests open at once.
    pub(super) refused: u32,
    /// Of the resets, and of the connections that were given up, the ones where the other side broke the protocol.
    pub(super) faults: u32,
    /// Heads that were answered before anybody had them: 400, over what host they are for, or 431, over their size.
    pub(super) bad_hosts: u32,
    pub(super) too_large: u32,
}

/// Follows the frames that one side sends.
#[derive(Debug)]
pub(super) struct Frames {
    head: [u8; FRAME_HEAD],
    filled: usize,
    /// Bytes of the preface, or of a frame's payload, that are still to come.
    skip: usize,
    payload: [u8; PAYLOAD],
    looked: usize,
    before_first: bool,
    /// A block of header fields has begun and not ended.
    in_headers: bool,
}

impl Frames {
    /// Those of a client, before its preface.
    pub(super) fn of_client() -> Self {
        Self {
            skip: PREFACE.len(),
            before_first: true,
            ..Self::of_server()
        }
    }

    /// Those of a server.
    pub(super) fn of_server() -> Self {
        Self {
            head: [0; FRAME_HEAD],
            filled: 0,
            skip: 0,
            payload: [0; PAYLOAD],
            looked: 0,
            before_first: false,
            in_headers: false,
        }
    }

    /// A request, or what must come before the first one, has begun and is not whole.
    pub(super) fn is_incomplete(&self) -> bool {
        self.before_first || self.in_headers || self.filled > 0
    }

    /// Looks at more bytes.
    pub(super) fn read(&mut self, mut bytes: &[u8]) -> Told {
        let mut told = Told::default();
        while !bytes.is_empty() {
            let is_head = self.skip == 0;
            let wanted = if is_head { FRAME_HEAD - self.filled } else { self.skip };
            let (part, rest) = bytes.split_at(wanted.min(bytes.len()));
            bytes = rest;
            if is_head {
                self.head_goes_on(part);
            } else {
                self.payload_goes_on(part);
            }
            if self.skip == 0 && (!is_head || self.filled == FRAME_HEAD) {
                self.ends(&mut told);
            }
        }
        told
    }

    fn head_goes_on(&mut self, part: &[u8]) {
        if let Some(space) = self.head.get_mut(self.filled..self.filled + part.len()) {
            space.copy_from_slice(part);
        }
        self.filled += part.len();
        if self.filled < FRAME_HEAD {
            return;
        }
        let [_, _, _, kind, ..] = self.head;
        self.before_first = false;
        self.in_headers |= matches!(kind, HEADERS | CONTINUATION);
        self.skip = self.length();
        if self.skip > 0 {
            self.filled = 0;
        }
    }

    /// Bytes of the frame's payload.
    fn length(&self) -> usize {
        let [a, b, c, ..] = self.head;
        usize::from(a) << 16 | usize::from(b) << 8 | usize::from(c)
    }

    fn payload_goes_on(&mut self, part: &[u8]) {
        let space = self.payload.iter_mut().skip(self.looked);
        space.zip(part).for_each(|(known, byte)| *known = *byte);
        self.looked = PAYLOAD.min(self.looked + part.len());
        self.skip -= part.len();
    }

    /// A frame is whole, or the preface.
    fn ends(&mut self, told: &mut Told) {
        (self.filled, self.looked) = (0, 0);
        if self.before_first {
            return;
        }
        let [_, _, _, kind, flags, ..] = self.head;
        let [a, b, c, d, e, f, g, h] = std::mem::take(&mut self.payload);
        match kind {
            HEADERS if flags & END_HEADERS != 0 => {
                self.in_headers = false;
                let payload = [a, b, c, d, e, f, g, h];
                let block = payload.get(..self.length()).map_or(&[][..], block);
                told.bad_hosts += u32::from(block == STATUS_400);
                told.too_large += u32::from(block == STATUS_431);
            }
            HEADERS | CONTINUATION => self.in_headers = flags & END_HEADERS == 0,
            RST_STREAM => {
                let code = u32::from_be_bytes([a, b, c, d]);
                told.resets += 1;
                told.refused += u32::from(code == REFUSED_STREAM);
                told.faults += u32::from(is_fault(code));
            }
            GOAWAY => told.faults += u32::from(is_fault(u32::from_be_bytes([e, f, g, h]))),
            _ => {}
        }
    }
}

/// A block of header fields without the changes of the table's size that may come first (RFC 7541, 6.3).
fn block(mut bytes: &[u8]) -> &[u8] {
    while let [first @ 0x20..=0x3f, rest @ ..] = bytes {
        bytes = rest;
        let mut goes_on = *first == 0x3f;
        while goes_on && let [byte, rest @ ..] = bytes {
            goes_on = byte & 0x80 != 0;
            bytes = rest;
        }
    }
    bytes
}

/// Whether this code says that the other side broke the protocol (RFC 9113, 7): not those of an orderly end, of an error of
/// one's own, and of what is refused or taken back.
fn is_fault(code: u32) -> bool {
    !matches!(
        code,
        NO_ERROR | INTERNAL_ERROR | REFUSED_STREAM | CANCEL | HTTP_1_1_REQUIRED
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn frame(kind: u8, flags: u8, payload: usize) -> Vec<u8> {
        let mut frame = vec![0, 0, payload as u8, kind, flags, 0, 0, 0, 1];
        frame.resize(FRAME_HEAD + payload, 0);
        frame
    }

    #[test]
    fn frames_are_followed_in_any_pieces() {
        let settings = [PREFACE, &frame(0x4, 0, 6)].concat();
        let steps = [
            (PREFACE.to_vec(), 0, true),
            (settings[PREFACE.len()..].to_vec(), 0, false),
            (frame(HEADERS, 0, 20), 0, true),
            (frame(CONTINUATION, 0, 0), 0, true),
            (frame(CONTINUATION, END_HEADERS, 3), 0, false),
            (
                [frame(RST_STREAM, 0, 4), frame(0, 0, 100), frame(RST_STREAM, 0, 4)].concat(),
                2,
                false,
            ),
            (frame(HEADERS, END_HEADERS, 20)[..15].to_vec(), 0, true),
        ];
        let (mut whole, mut pieces) = (Frames::of_client(), Frames::of_client());
        for (bytes, resets, incomplete) in steps {
            assert_eq!(whole.read(&bytes).resets, resets);
            assert_eq!(
                bytes.iter().map(|byte| pieces.read(&[*byte]).resets).sum::<u32>(),
                resets
            );
            assert_eq!(
                (whole.is_incomplete(), pieces.is_incomplete()),
                (incomplete, incomplete)
            );
        }
    }
    #[test]
    fn faults_are_told_by_their_code() {
        let with_code = |kind: u8, at: usize, code: u8| {
            let mut frame = frame(kind, 0, at + 4);
            frame[FRAME_HEAD + at + 3] = code;
            frame
        };
        for (bytes, faults) in [
            (with_code(RST_STREAM, 0, 1), 1),
            (with_code(RST_STREAM, 0, 8), 0),
            (with_code(GOAWAY, 4, 0), 0),
            ([with_code(GOAWAY, 4, 11), with_code(RST_STREAM, 0, 2)].concat(), 1),
        ] {
            assert_eq!(Frames::of_server().read(&bytes).faults, faults);
            let mut pieces = Frames::of_server();
            assert_eq!(
                bytes.iter().map(|byte| pieces.read(&[*byte]).faults).sum::<u32>(),
                faults
            );
        }
        for (block, bad_hosts, too_large) in [
            (&[0x8c][..], 1, 0),
            (&[0x20, 0x3f, 0xe1, 0x1f, 0x8c], 1, 0),
            (STATUS_431, 0, 1),
            (&[0x8c, 0xbe], 0, 0),
            (&[0xbe], 0, 0),
            (&[0x88; 20], 0, 0),
        ] {
            let mut answer = frame(HEADERS, END_HEADERS, block.len());
            answer[FRAME_HEAD..].copy_from_slice(block);
            let told = Frames::of_server().read(&answer);
            assert_eq!((told.bad_hosts, told.too_large), (bad_hosts, too_large), "{block:x?}");
        }
        let refused = Frames::of_server().read(&with_code(RST_STREAM, 0, 7));
        assert_eq!((refused.refused, refused.faults), (1, 0));
    }
}
