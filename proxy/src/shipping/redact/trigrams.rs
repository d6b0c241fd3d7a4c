//! Words that are looked for by their first three bytes, at 64 places of a text at a time.
//!
//! Each word is of one of eight families, such that few other texts look like a word of one. Of each of a place's three bytes two
//! tables say, by its two halves, in which families' words it may stand there; a place where a family is left is worth a look.
//!
//! Invariant: where a word stands a family is left (`where_a_word_begins_a_family_is_left`).

use fearless_simd::prelude::*;
use fearless_simd::{u8x16, u8x64};

/// Bytes that are looked at together.
pub(super) const BLOCK: usize = 64;
/// The bytes of a word that are looked at.
pub(super) const LENGTH: usize = 3;
/// A block, and the bytes that the word has behind it that begins with its last byte.
pub(super) type Window = [u8; BLOCK + LENGTH - 1];

/// For each of the bytes, which families have it: a bit each.
#[derive(Debug)]
pub(super) struct Trigrams([Halves; LENGTH]);

/// Which families have a byte with this lower half, and with this upper half.
#[derive(Clone, Copy, Debug)]
struct Halves {
    lower: [u8; 16],
    upper: [u8; 16],
}

impl Trigrams {
    /// No word.
    pub(super) const fn new() -> Self {
        let none = Halves {
            lower: [0; 16],
            upper: [0; 16],
        };
        Self([none; LENGTH])
    }

    /// A word more, and its family.
    pub(super) const fn with(mut self, word: &[u8], family: u32) -> Self {
        let mut place = 0;
        while place < LENGTH {
            self.0[place].add(word[place], family);
            place += 1;
        }
        self
    }

    /// The same for a word in any case.
    pub(super) const fn with_any_case(mut self, word: &[u8], family: u32) -> Self {
        let mut place = 0;
        while place < LENGTH {
            self.0[place].add(word[place].to_ascii_lowercase(), family);
            self.0[place].add(word[place].to_ascii_uppercase(), family);
            place += 1;
        }
        self
    }

    /// The families that have these bytes at a place of their words, counted from 0.
    #[inline(always)]
    pub(super) fn families<S: Simd>(&self, simd: S, place: usize, bytes: u8x64<S>) -> u8x64<S> {
        let Halves { lower, upper } = self.0[place];
        let lower = u8x64::block_splat(u8x16::simd_from(simd, lower));
        let upper = u8x64::block_splat(u8x16::simd_from(simd, upper));
        lower.swizzle_dyn_within_blocks(bytes & 15) & upper.swizzle_dyn_within_blocks(bytes >> 4)
    }
}

impl Halves {
    const fn add(&mut self, byte: u8, family: u32) {
        self.lower[(byte & 15) as usize] |= 1 << family;
        self.upper[(byte >> 4) as usize] |= 1 << family;
    }
}

/// The block of a window that begins so many bytes behind its start.
#[inline(always)]
pub(super) fn bytes<S: Simd>(simd: S, window: &Window, behind: usize) -> u8x64<S> {
    let block = window.get(behind..).and_then(<[u8]>::first_chunk::<BLOCK>);
    u8x64::simd_from(simd, *block.unwrap_or(&[0; BLOCK]))
}

/// The blocks of a text, each as a window; behind the text's end there are zeros.
#[inline(always)]
pub(super) fn windows<'t>(text: &'t [u8], last: &'t mut LastWindows) -> impl Iterator<Item = &'t Window> {
    let whole = text.len().saturating_sub(LENGTH - 1) / BLOCK;
    let rest = text.get(whole * BLOCK..).unwrap_or_default();
    if let Some(front) = last.0.get_mut(..rest.len()) {
        front.copy_from_slice(rest);
    }
    let window = |text: &'t [u8], number: usize| text.get(number * BLOCK..)?.first_chunk();
    let front = (0..whole).filter_map(move |number| window(text, number));
    let last: &'t [u8] = &last.0;
    front.chain((0..rest.len().div_ceil(BLOCK)).filter_map(move |number| window(last, number)))
}

/// Room for the windows that reach beyond a text's end: two at most.
pub(super) struct LastWindows([u8; 2 * BLOCK + LENGTH - 1]);

impl LastWindows {
    pub(super) const fn new() -> Self {
        Self([0; 2 * BLOCK + LENGTH - 1])
    }
}

#[cfg(test)]
mod tests {
    use fearless_simd::{Level, dispatch};
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn each_block_of_a_text_has_its_window() {
        for length in 0..400 {
            let text: Vec<u8> = (0..length).map(|at| (at % 250 + 1) as u8).collect();
            let mut padded = text.clone();
            padded.resize(length + BLOCK + LENGTH, 0);
            let mut last = LastWindows::new();
            let found: Vec<Window> = windows(&text, &mut last).copied().collect();
            let expected: Vec<Window> = (0..length)
                .step_by(BLOCK)
                .map(|from| *padded[from..].first_chunk().unwrap())
                .collect();
            assert_eq!(found, expected, "{length}");
        }
    }

    proptest! {
        #[test]
        fn where_a_word_begins_a_family_is_left(words in proptest::collection::vec("[!-~]{3,5}", 1..20), before in "[a ]{0,130}") {
            let families = 0..8_u32;
            let trigrams = words.iter().zip(families.clone().cycle()).fold(Trigrams::new(), |trigrams, (word, family)| {
                trigrams.with(word.as_bytes(), family)
            });
            for (word, family) in words.iter().zip(families.cycle()) {
                let text = format!("{before}{word}");
                let mut last = LastWindows::new();
                for level in [Level::new(), Level::baseline()] {
                    let found = windows(text.as_bytes(), &mut last).nth(before.len() / BLOCK).map(|window| {
                        dispatch!(level, simd => families_of(simd, &trigrams, window))
                    });
                    prop_assert!(found.unwrap()[before.len() % BLOCK] & 1 << family != 0);
                }
            }
        }
    }

    #[inline(always)]
    fn families_of<S: Simd>(simd: S, trigrams: &Trigrams, window: &Window) -> [u8; BLOCK] {
        let [first, second, third] = [0, 1, 2].map(|place| trigrams.families(simd, place, bytes(simd, window, place)));
        (first & second & third).into()
    }
}
