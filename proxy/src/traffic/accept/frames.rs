//! What the accept layer looks at in HTTP/2: where frames begin, and what they are (RFC 9113, 4.1). Nothing is changed, and
//! nothing of it is a reason for anything but a limit.

use super::PREFACE;

/// Bytes before a frame's payload.
const FRAME_HEAD: usize = 9;
const HEADERS: u8 = 0x1;
const RST_STREAM: u8 = 0x3;
const CONTINUATION: u8 = 0x9;
const END_HEADERS: u8 = 0x4;

/// Follows the frames that a client sends.
#[derive(Debug)]
pub(super) struct Frames {
    head: [u8; FRAME_HEAD],
    filled: usize,
    /// Bytes of the preface, or of a frame's payload, that are still to come.
    skip: usize,
    before_first: bool,
    /// A block of header fields has begun and not ended.
    in_headers: bool,
    /// What is skipped ends such a block.
    ends_headers: bool,
}

impl Frames {
    /// Before the preface.
    pub(super) fn new() -> Self {
        Self {
            head: [0; FRAME_HEAD],
            filled: 0,
            skip: PREFACE.len(),
            before_first: true,
            in_headers: false,
            ends_headers: false,
        }
    }

    /// A request, or what must come before the first one, has begun and is not whole.
    pub(super) fn is_incomplete(&self) -> bool {
        self.before_first || self.in_headers || self.filled > 0
    }

    /// Looks at more bytes, and says how many requests they take back.
    pub(super) fn read(&mut self, mut bytes: &[u8]) -> u32 {
        let mut resets = 0;
        while !bytes.is_empty() {
            if self.skip > 0 {
                let n = self.skip.min(bytes.len());
                bytes = bytes.get(n..).unwrap_or_default();
                self.skip -= n;
                if self.skip == 0 {
                    self.payload_ends();
                }
                continue;
            }
            let wanted = FRAME_HEAD - self.filled;
            let n = wanted.min(bytes.len());
            let (part, rest) = bytes.split_at(n);
            if let Some(space) = self.head.get_mut(self.filled..self.filled + n) {
                space.copy_from_slice(part);
            }
            bytes = rest;
            self.filled += n;
            if self.filled == FRAME_HEAD {
                resets += self.frame_begins();
            }
        }
        resets
    }

    fn frame_begins(&mut self) -> u32 {
        let [a, b, c, kind, flags, ..] = self.head;
        self.filled = 0;
        self.before_first = false;
        self.skip = usize::from(a) << 16 | usize::from(b) << 8 | usize::from(c);
        if matches!(kind, HEADERS | CONTINUATION) {
            self.in_headers = true;
            self.ends_headers = flags & END_HEADERS != 0;
        }
        if self.skip == 0 {
            self.payload_ends();
        }
        u32::from(kind == RST_STREAM)
    }

    fn payload_ends(&mut self) {
        if std::mem::take(&mut self.ends_headers) {
            self.in_headers = false;
        }
    }
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
        let (mut whole, mut pieces) = (Frames::new(), Frames::new());
        for (bytes, resets, incomplete) in steps {
            assert_eq!(whole.read(&bytes), resets);
            assert_eq!(bytes.iter().map(|byte| pieces.read(&[*byte])).sum::<u32>(), resets);
            assert_eq!(
                (whole.is_incomplete(), pieces.is_incomplete()),
                (incomplete, incomplete)
            );
        }
    }
}
