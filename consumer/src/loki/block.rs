//! A snappy block format, written piece by piece.
//!
//! Snappy compresses each [`BLOCK`] bytes for themselves and puts the outcomes one behind another, after the length of the whole. So
//! the whole needn't be there, only its length.
//!
//! Invariant: the bytes are those of the whole compressed at once (`pieces_of_any_length_are_the_whole_compressed_at_once`).

use std::fmt;

use prost::encoding::{encode_varint, encoded_len_varint};

/// What snappy compresses at a time.
const BLOCK: usize = 64 * 1024;
/// Room for what is written between two blocks beside long pieces.
const SLACK: usize = 8 * 1024;
/// What a body is expected to be smaller than what it is made of.
const RATIO: usize = 4;

/// One body after another. Its memory is kept.
pub(super) struct Blocks {
    snappy: snap::raw::Encoder,
    /// What isn't compressed yet.
    plain: Vec<u8>,
    /// A block that is.
    packed: Vec<u8>,
    body: Vec<u8>,
}

impl Blocks {
    pub(super) fn new() -> Self {
        Self {
            snappy: snap::raw::Encoder::new(),
            plain: Vec::with_capacity(BLOCK + SLACK),
            packed: vec![0; snap::raw::max_compress_len(BLOCK)],
            body: Vec::new(),
        }
    }

    /// Begins a body of so many bytes before they are compressed.
    pub(super) fn begin(&mut self, length: usize) {
        self.plain.clear();
        self.body = Vec::with_capacity(length / RATIO);
        encode_varint(length as u64, &mut self.body);
    }

    /// What follows, if it is short.
    pub(super) fn plain(&mut self) -> &mut Vec<u8> {
        &mut self.plain
    }

    /// Adds a piece of any length, and compresses what is full.
    pub(super) fn write(&mut self, piece: &[u8]) -> Result<(), snap::Error> {
        let mut rest = piece;
        loop {
            let room = BLOCK.saturating_sub(self.plain.len());
            let Some((now, later)) = rest.split_at_checked(room) else {
                self.plain.extend_from_slice(rest);
                return Ok(());
            };
            self.plain.extend_from_slice(now);
            self.compress(BLOCK)?;
            rest = later;
        }
    }

    /// The body.
    pub(super) fn end(&mut self) -> Result<Vec<u8>, snap::Error> {
        self.write(&[])?;
        if !self.plain.is_empty() {
            self.compress(self.plain.len())?;
        }
        Ok(std::mem::take(&mut self.body))
    }

    /// Compresses the first bytes of what is there.
    fn compress(&mut self, length: usize) -> Result<(), snap::Error> {
        let block = self.plain.get(..length).unwrap_or(&self.plain);
        let written = self.snappy.compress(block, &mut self.packed)?;
        // Each block comes with its own length before it.
        let head = encoded_len_varint(block.len() as u64);
        self.body
            .extend_from_slice(self.packed.get(head..written).unwrap_or_default());
        self.plain.drain(..length);
        Ok(())
    }
}

impl fmt::Debug for Blocks {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Blocks").finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pieces_of_any_length_are_the_whole_compressed_at_once() {
        let text: String = (0..60_000).map(|number| format!("{number} ")).collect();
        let mut blocks = Blocks::new();
        for whole in [0, 1, 16, 17, BLOCK - 1, BLOCK, BLOCK + 1, 3 * BLOCK, text.len()] {
            let whole = &text.as_bytes()[..whole];
            for piece in [1, 300, 1500, BLOCK - 1, BLOCK, BLOCK + 1, text.len()] {
                blocks.begin(whole.len());
                for (number, piece) in whole.chunks(piece).enumerate() {
                    if number % 2 == 0 && piece.len() <= 1500 {
                        blocks.plain().extend_from_slice(piece);
                    } else {
                        blocks.write(piece).unwrap();
                    }
                }
                let body = blocks.end().unwrap();
                assert_eq!(
                    body,
                    snap::raw::Encoder::new().compress_vec(whole).unwrap(),
                    "{} in {piece}",
                    whole.len()
                );
            }
        }
    }
}
