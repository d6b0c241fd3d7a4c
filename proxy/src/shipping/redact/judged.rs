//! Names that were judged before: the fields of a service's exchanges and the keys of its bodies are the same again and
//! again.
//!
//! Invariants:
//! - A name is judged as by [`names::secret`], remembered or not (`what_is_remembered_is_what_was_judged`).

use std::cell::RefCell;

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
    /// The entry of the list of secret names that makes `name` one.
    pub(super) fn secret(&self, name: &[u8]) -> Option<&'static str> {
        let mut places = self.0.borrow_mut();
        let Some((short, place)) = Short::of(name).and_then(|short| Some((short, places.get_mut(short.place())?)))
        else {
            return names::secret(name);
        };
        if place.name != short {
            *place = Place {
                name: short,
                word: names::secret(name),
            };
        }
        place.word
    }
}

/// A name of at most 32 bytes in machine words that may overlap: with its length they tell all of its bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Short {
    words: [u64; 4],
    len: usize,
}

impl Short {
    /// `None` for a longer name, which is judged each time.
    fn of(name: &[u8]) -> Option<Self> {
        let word = |bytes: &[u8; 8]| u64::from_le_bytes(*bytes);
        let half = |bytes: &[u8; 4]| u64::from(u32::from_le_bytes(*bytes));
        let words = match name.len() {
            0..4 => [name.iter().fold(0, |word, byte| word << 8 | u64::from(*byte)), 0, 0, 0],
            4..8 => [half(name.first_chunk()?), half(name.last_chunk()?), 0, 0],
            8..16 => [word(name.first_chunk()?), word(name.last_chunk()?), 0, 0],
            16..=32 => {
                let (front, back) = (name.first_chunk::<16>()?, name.last_chunk::<16>()?);
                [
                    word(front.first_chunk()?),
                    word(front.last_chunk()?),
                    word(back.first_chunk()?),
                    word(back.last_chunk()?),
                ]
            }
            _ => return None,
        };
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

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn what_is_remembered_is_what_was_judged(
            names in proptest::collection::vec("[ab]{0,2}(token|Pass_word|next_page_token|id|\0)?[ab]{0,32}", 1..60),
        ) {
            let judged = Judged::default();
            for name in names.iter().chain(names.iter().rev()) {
                prop_assert_eq!(judged.secret(name.as_bytes()), names::secret(name.as_bytes()));
            }
        }
    }
}
