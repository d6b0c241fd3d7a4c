//! Names that were judged before: the fields of a service's exchanges and the keys of its bodies are the same again and
//! again.
//!
//! Invariants:
//! - A name is judged as by [`names::secret`], remembered or not (`what_is_remembered_is_what_was_judged`).

use std::cell::Cell;
use std::ops::Range;

use super::names;

/// Names that are remembered. A power of two.
const PLACES: usize = 1024;

/// What was judged of the names of late.
#[derive(Debug)]
pub(super) struct Judged {
    /// By twos, the one of two that was judged last before the other.
    places: Box<[Cell<Place>; PLACES]>,
    /// Names of up to 15 bytes that are no secret's, as most are; quicker to look up. What nobody put here is the name of no bytes.
    open: Box<[Cell<Brief>; PLACES]>,
}

#[derive(Clone, Copy, Debug, Default)]
struct Place {
    name: Short,
    word: Option<&'static str>,
}

impl Default for Judged {
    fn default() -> Self {
        Self {
            places: Box::new(std::array::from_fn(|_| Cell::default())),
            open: Box::new(std::array::from_fn(|_| Cell::default())),
        }
    }
}

impl Judged {
    /// Whether a name of a text is remembered as no secret's. `false` says nothing.
    #[inline(always)]
    pub(super) fn knows_open(&self, text: &[u8], name: &Range<usize>) -> bool {
        Brief::of(text, name).is_some_and(|brief| self.open[brief.place()].get() == brief)
    }

    /// The entry of the list of secret names that makes a name of a text one.
    pub(super) fn secret(&self, text: &[u8], name: Range<usize>) -> Option<&'static str> {
        let brief = Brief::of(text, &name);
        let bytes = text.get(name.clone()).unwrap_or_default();
        let found = match Short::of(text, name) {
            Some(short) => {
                let known = self.places[short.place()].get();
                if known.name.is(&short) {
                    known.word
                } else {
                    self.judge(short, bytes)
                }
            }
            None => names::secret(bytes),
        };
        if let Some(brief) = brief.filter(|_| found.is_none()) {
            self.open[brief.place()].set(brief);
        }
        found
    }

    /// Judges a name that is not in its place, and puts it there; what was there goes beside it, where this one may have been.
    #[cold]
    fn judge(&self, name: Short, bytes: &[u8]) -> Option<&'static str> {
        let (place, beside) = (&self.places[name.place()], &self.places[name.place() + 1]);
        let known = beside.get();
        let word = if known.name.is(&name) {
            known.word
        } else {
            names::secret(bytes)
        };
        beside.set(place.get());
        place.set(Place { name, word });
        word
    }
}

/// A name of up to 15 bytes, with zeros behind it, and its length as the last of 16.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Brief {
    front: u64,
    back: u64,
}

impl Brief {
    /// `None` for a longer name, and where less than 16 bytes of the text are left.
    #[inline(always)]
    fn of(text: &[u8], name: &Range<usize>) -> Option<Self> {
        let window: &[u8; 16] = text.get(name.start..)?.first_chunk()?;
        let len = name.end - name.start;
        let [front, back, ..] = MASKS.get(..window.len())?.get(len)?;
        let (words, _) = window.as_chunks();
        Some(Self {
            front: u64::from_le_bytes(words[0]) & front,
            back: u64::from_le_bytes(words[1]) & back | (len as u64) << 56,
        })
    }

    #[inline(always)]
    fn place(self) -> usize {
        let mixed = self.front ^ self.back.rotate_left(29);
        usize::try_from(mixed.wrapping_mul(FACTOR) >> (u64::BITS - PLACES.ilog2())).unwrap_or_default()
    }
}

/// Odd, and its bits are as good as random: the golden ratio in 64 bits. Of a product with it the highest bits depend on all the
/// others.
const FACTOR: u64 = 0x9e37_79b9_7f4a_7c15;

/// The bytes of a longer name are not remembered.
const LONGEST: usize = 32;

/// The words of such a name.
type Words = [u64; LONGEST / 8];

/// A name in whole words, with zeros behind it.
#[derive(Clone, Copy, Debug, Default)]
struct Short {
    words: Words,
    len: usize,
}

impl Short {
    /// `None` for a longer name, which is judged each time. Names of any length are read alike: a branch by length would be
    /// mispredicted most of the time.
    #[inline(always)]
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
            words: std::array::from_fn(|at| words[at] & masks[at]),
            len: name.len(),
        })
    }

    /// Whether it is the same name; without a branch for each word.
    #[inline(always)]
    fn is(&self, other: &Self) -> bool {
        let pairs = self.words.iter().zip(&other.words);
        let differences = pairs.fold(0, |differences, (one, other)| differences | (one ^ other));
        differences == 0 && self.len == other.len
    }

    /// Its place, the first of two.
    #[inline(always)]
    fn place(&self) -> usize {
        let [first, second, third, fourth] = self.words;
        let mixed = first ^ second.rotate_left(17) ^ third.rotate_left(31) ^ fourth.rotate_left(47);
        let pair = mixed.wrapping_mul(FACTOR) >> (u64::BITS - (PLACES / 2).ilog2());
        usize::try_from(2 * pair).unwrap_or_default()
    }
}

#[inline(always)]
fn words(window: &[u8; LONGEST]) -> Words {
    let (words, _) = window.as_chunks();
    std::array::from_fn(|at| words.get(at).map_or(0, |word| u64::from_le_bytes(*word)))
}

/// For each length which bits of the words are a name's.
static MASKS: [Words; LONGEST + 1] = masks();

const fn masks() -> [Words; LONGEST + 1] {
    let mut masks = [[0; LONGEST / 8]; LONGEST + 1];
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
                let place = 3..3 + name.len();
                prop_assert_eq!(judged.secret(text.as_bytes(), place.clone()), expected);
                let is_short = name.len() < 16 && text.len() >= place.start + 16;
                prop_assert_eq!(judged.knows_open(text.as_bytes(), &place), expected.is_none() && is_short);
            }
        }
    }

    #[test]
    fn two_names_of_the_same_place_are_both_remembered() {
        let short = |name: &str| Short::of(name.as_bytes(), 0..name.len()).unwrap();
        let place = short("name").place();
        let other = (0..).map(|number| format!("other{number}"));
        let other = other.into_iter().find(|name| short(name).place() == place).unwrap();
        let judged = Judged::default();
        for _ in 0..2 {
            for name in ["name", &other] {
                assert_eq!(judged.secret(name.as_bytes(), 0..name.len()), None);
            }
            let remembered = [place + 1, place].map(|place| judged.places[place].get().name.words);
            assert_eq!(remembered, [short("name").words, short(&other).words]);
        }
    }
}
