//! Names that were judged before: the fields of a service's exchanges and the keys of its bodies are the same again and
//! again.
//!
//! Invariants:
//! - A name is judged as by [`names::secret`], remembered or not (`what_is_remembered_is_what_was_judged`).

use std::cell::RefCell;
use std::ops::Range;

use super::names;

/// Names that are remembered; a name has one place, and the last one that has it is there. A power of two.
const PLACES: usize = 512;

/// What was judged of the names of late.
#[derive(Debug)]
pub(super) struct Judged(RefCell<Box<[Place]>>);

#[derive(Clone, Copy, Debug, Default)]
struct Place {
    name: Short,
    word: Option<&'static str>,
}

impl Default for Judged {
    fn default() -> Self {
        Self(RefCell::new(vec![Place::default(); PLACES].into()))
    }
}

impl Judged {
    /// The entry of the list of secret names that makes a name of a text one.
    pub(super) fn secret(&self, text: &[u8], name: Range<usize>) -> Option<&'static str> {
        let mut places = self.0.borrow_mut();
        let short = Short::of(text, name.clone());
        let Some((short, place)) = short.and_then(|short| Some((short, places.get_mut(short.place())?))) else {
            return names::secret(text.get(name).unwrap_or_default());
        };
        if place.name != short {
            *place = Place {
                name: short,
                word: names::secret(text.get(name).unwrap_or_default()),
            };
        }
        place.word
    }
}

/// The bytes of a longer name are not remembered.
const LONGEST: usize = 32;

/// A name in machine words, with zeros behind it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Short {
    words: [u64; 4],
    len: usize,
}

impl Short {
    /// `None` for a longer name, which is judged each time. Names of any length are read alike: a branch by length would be
    /// mispredicted most of the time.
    #[inline]
    fn of(text: &[u8], name: Range<usize>) -> Option<Self> {
        let mask = MASKS.get(name.len())?;
        let mut words = match text.get(name.start..).and_then(<[u8]>::first_chunk) {
            Some(window) => words(window),
            None => {
                let mut window = [0; LONGEST];
                let bytes = text.get(name.clone())?;
                window.get_mut(..bytes.len())?.copy_from_slice(bytes);
                words(&window)
            }
        };
        for (word, mask) in words.iter_mut().zip(mask) {
            *word &= mask;
        }
        Some(Self { words, len: name.len() })
    }

    fn place(&self) -> usize {
        /// Odd, and its bits are as good as random: the golden ratio in 64 bits.
        const FACTOR: u64 = 0x9e37_79b9_7f4a_7c15;
        let [a, b, c, d] = self.words;
        let mixed = (a ^ b.rotate_left(17) ^ c.rotate_left(31) ^ d.rotate_left(47)).wrapping_mul(FACTOR);
        // The highest bits depend on all the others.
        usize::try_from(mixed >> (u64::BITS - PLACES.ilog2())).unwrap_or_default()
    }
}

fn words(window: &[u8; LONGEST]) -> [u64; 4] {
    let (words, _) = window.as_chunks();
    std::array::from_fn(|at| words.get(at).map_or(0, |word| u64::from_le_bytes(*word)))
}

/// For each length which bits of the words are a name's.
static MASKS: [[u64; 4]; LONGEST + 1] = masks();

const fn masks() -> [[u64; 4]; LONGEST + 1] {
    let mut masks = [[0; 4]; LONGEST + 1];
    let mut len = 0;
    while len <= LONGEST {
        let mut byte = 0;
        while byte < len {
            masks[len][byte / 8] |= 0xff << (byte % 8 * 8);
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
