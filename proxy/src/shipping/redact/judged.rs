//! Names that were judged before: the fields of a service's exchanges and the keys of its bodies are the same again and
//! again.
//!
//! Invariants:
//! - A name is judged as by [`names::secret`], remembered or not (`what_is_remembered_is_what_was_judged`).

use std::cell::Cell;
use std::ops::Range;

use super::names;

/// Names that are remembered; a name has one place, and the last one that has it is there. A power of two.
const PLACES: usize = 1024;

/// What was judged of the names of late.
#[derive(Debug)]
pub(super) struct Judged(Box<[Cell<Place>; PLACES]>);

#[derive(Clone, Copy, Debug, Default)]
struct Place {
    name: Short,
    word: Option<&'static str>,
}

impl Default for Judged {
    fn default() -> Self {
        Self(Box::new(std::array::from_fn(|_| Cell::default())))
    }
}

impl Judged {
    /// The entry of the list of secret names that makes a name of a text one.
    #[inline]
    pub(super) fn secret(&self, text: &[u8], name: Range<usize>) -> Option<&'static str> {
        let Some(short) = Short::of(text, name.clone()) else {
            return names::secret(text.get(name).unwrap_or_default());
        };
        let place = &self.0[short.place()];
        let known = place.get();
        if known.name.is(&short) {
            return known.word;
        }
        judge(place, short, text.get(name).unwrap_or_default())
    }
}

/// Judges a name and remembers it.
#[cold]
fn judge(place: &Cell<Place>, name: Short, bytes: &[u8]) -> Option<&'static str> {
    let word = names::secret(bytes);
    place.set(Place { name, word });
    word
}

/// The bytes of a longer name are not remembered.
const LONGEST: usize = 32;

/// A name in whole words, with zeros behind it.
#[derive(Clone, Copy, Debug, Default)]
struct Short {
    words: [u128; 2],
    len: usize,
}

impl Short {
    /// `None` for a longer name, which is judged each time. Names of any length are read alike: a branch by length would be
    /// mispredicted most of the time.
    #[inline]
    fn of(text: &[u8], name: Range<usize>) -> Option<Self> {
        let masks = MASKS.get(name.len())?;
        let words = match text.get(name.start..).and_then(<[u8]>::first_chunk) {
            Some(window) => words(window),
            None => {
                let mut window = [0; LONGEST];
                let bytes = text.get(name.clone())?;
                window.get_mut(..bytes.len())?.copy_from_slice(bytes);
                words(&window)
            }
        };
        Some(Self {
            words: [words[0] & masks[0], words[1] & masks[1]],
            len: name.len(),
        })
    }

    /// Whether it is the same name; without a branch for each word.
    #[inline]
    fn is(&self, other: &Self) -> bool {
        let differences = (self.words[0] ^ other.words[0]) | (self.words[1] ^ other.words[1]);
        differences == 0 && self.len == other.len
    }

    #[inline]
    fn place(&self) -> usize {
        /// Odd, and its bits are as good as random: the golden ratio in 64 bits.
        const FACTOR: u64 = 0x9e37_79b9_7f4a_7c15;
        let mixed = self.words[0] ^ self.words[1].rotate_left(31);
        let (low, high) = (mixed as u64, (mixed >> 64) as u64);
        let mixed = (low ^ high.rotate_left(17)).wrapping_mul(FACTOR);
        // The highest bits depend on all the others.
        usize::try_from(mixed >> (u64::BITS - PLACES.ilog2())).unwrap_or_default()
    }
}

#[inline]
fn words(window: &[u8; LONGEST]) -> [u128; 2] {
    let (words, _) = window.as_chunks();
    std::array::from_fn(|at| words.get(at).map_or(0, |word| u128::from_le_bytes(*word)))
}

/// For each length which bits of the words are a name's.
static MASKS: [[u128; 2]; LONGEST + 1] = masks();

const fn masks() -> [[u128; 2]; LONGEST + 1] {
    let mut masks = [[0; 2]; LONGEST + 1];
    let mut len = 0;
    while len <= LONGEST {
        let mut byte = 0;
        while byte < len {
            masks[len][byte / 16] |= 0xff << (byte % 16 * 8);
            byte += 1;
        }
        len += 1;
    }
    masks
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn what_is_remembered_is_what_was_judged(
            names in proptest::collection::vec("[ab]{0,2}(token|Pass_word|next_page_token|id|\0)?[ab]{0,32}", 1..60),
            behind in "[ab]{0,40}",
        ) {
            let judged = Judged::default();
            for name in names.iter().chain(names.iter().rev()) {
                let expected = names::secret(name.as_bytes());
                prop_assert_eq!(judged.secret(name.as_bytes(), 0..name.len()), expected);
                let text = format!("key{name}{behind}");
                prop_assert_eq!(judged.secret(text.as_bytes(), 3..3 + name.len()), expected);
            }
        }
    }
}
