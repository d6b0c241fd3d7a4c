//! Names that were judged before: the fields of a service's exchanges and the keys of its bodies are the same again and
//! again.
//!
//! Invariants:
//! - A name is what the rules say that are asked for, remembered or not (`what_is_remembered_is_what_was_judged`).

use std::cell::Cell;
use std::ops::Range;

/// Names that are remembered. A power of two.
const PLACES: usize = 1024;

/// What a name is by some rules.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    /// No secret's.
    Open,
    /// It holds this entry of the built-in list.
    Listed(&'static str),
    /// It is the configured name with this number.
    Configured(usize),
}

/// What was judged of the names of late.
#[derive(Debug)]
pub(super) struct Judged {
    /// Whose verdicts they are.
    rules: Cell<u64>,
    /// By twos, the one of two that was judged last before the other.
    places: Box<[Cell<Place>; PLACES]>,
    /// Names of up to 15 bytes that are no secret's, as most are; quicker to look up.
    open: Box<[Cell<Brief>; PLACES]>,
}

#[derive(Clone, Copy, Debug)]
struct Place {
    name: Short,
    verdict: Verdict,
}

impl Place {
    /// No name has this length.
    const NONE: Self = Self {
        name: Short {
            words: [0; LONGEST / 8],
            len: usize::MAX,
        },
        verdict: Verdict::Open,
    };
}

impl Default for Judged {
    fn default() -> Self {
        Self {
            rules: Cell::new(0),
            places: Box::new(std::array::from_fn(|_| Cell::new(Place::NONE))),
            open: Box::new(std::array::from_fn(|_| Cell::new(Brief::NONE))),
        }
    }
}

impl Judged {
    /// Whether a name of a text is remembered as no secret's by these rules. `false` says nothing.
    #[inline(always)]
    pub(super) fn knows_open(&self, rules: u64, text: &[u8], name: &Range<usize>) -> bool {
        self.rules.get() == rules && Brief::of(text, name).is_some_and(|brief| self.open[brief.place()].get() == brief)
    }

    /// What a name of a text is by these rules; `judge` says it of one that isn't remembered.
    pub(super) fn verdict(
        &self,
        rules: u64,
        text: &[u8],
        name: Range<usize>,
        judge: impl FnOnce(&[u8]) -> Verdict,
    ) -> Verdict {
        if self.rules.replace(rules) != rules {
            self.forget();
        }
        let brief = Brief::of(text, &name);
        let bytes = text.get(name.clone()).unwrap_or_default();
        let verdict = match Short::of(text, name) {
            Some(short) => {
                let known = self.places[short.place()].get();
                if known.name.is(&short) {
                    known.verdict
                } else {
                    self.judge(short, || judge(bytes))
                }
            }
            None => judge(bytes),
        };
        if let Some(brief) = brief.filter(|_| verdict == Verdict::Open) {
            self.open[brief.place()].set(brief);
        }
        verdict
    }

    /// Judges a name that is not in its place, and puts it there; what was there goes beside it, where this one may have been.
    #[cold]
    fn judge(&self, name: Short, judge: impl FnOnce() -> Verdict) -> Verdict {
        let (place, beside) = (&self.places[name.place()], &self.places[name.place() + 1]);
        let known = beside.get();
        let verdict = if known.name.is(&name) { known.verdict } else { judge() };
        beside.set(place.get());
        place.set(Place { name, verdict });
        verdict
    }

    /// Exchanges that were served under an older configuration and end later than others make each forget what the other knew.
    #[cold]
    fn forget(&self) {
        self.places.iter().for_each(|place| place.set(Place::NONE));
        self.open.iter().for_each(|brief| brief.set(Brief::NONE));
    }
}

/// A name of up to 15 bytes, with zeros behind it, and its length as the last of 16.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Brief {
    front: u64,
    back: u64,
}

impl Brief {
    /// A name of no bytes has nothing in front.
    const NONE: Self = Self {
        front: u64::MAX,
        back: 0,
    };

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
#[derive(Clone, Copy, Debug)]
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

    /// Each of the rules has names of its own, the empty one among them.
    fn judge(rules: u64, name: &[u8]) -> Verdict {
        let own = [&b""[..], b"a", b"token"];
        match own.iter().position(|own| *own == name) {
            Some(number) if number as u64 % 2 == rules % 2 => Verdict::Configured(number),
            _ if name.windows(4).any(|part| part == b"Pass") => Verdict::Listed("pass"),
            _ => Verdict::Open,
        }
    }

    proptest! {
        #[test]
        fn what_is_remembered_is_what_was_judged(
            names in proptest::collection::vec("[ab]{0,2}(token|Pass_word|id|\0)?([ab]{0,30}|[ab]{32})", 1..60),
            rules in proptest::collection::vec(1..3_u64, 1..4),
            behind in "[ab]{0,40}",
        ) {
            let judged = Judged::default();
            for rules in rules {
                for name in names.iter().chain(names.iter().rev()) {
                    let expected = judge(rules, name.as_bytes());
                    let text = format!("key{name}{behind}");
                    let place = 3..3 + name.len();
                    if judged.knows_open(rules, text.as_bytes(), &place) {
                        prop_assert_eq!(expected, Verdict::Open);
                    }
                    let verdict = |text: &str, place| judged.verdict(rules, text.as_bytes(), place, |name| judge(rules, name));
                    prop_assert_eq!(verdict(name, 0..name.len()), expected);
                    prop_assert_eq!(verdict(&text, place.clone()), expected);
                    let is_short = name.len() < 16 && text.len() >= place.start + 16;
                    let is_known = expected == Verdict::Open && is_short;
                    prop_assert_eq!(judged.knows_open(rules, text.as_bytes(), &place), is_known);
                    prop_assert!(!judged.knows_open(rules + 1, text.as_bytes(), &place));
                }
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
                let verdict = judged.verdict(1, name.as_bytes(), 0..name.len(), |_| Verdict::Open);
                assert_eq!(verdict, Verdict::Open);
            }
            let remembered = [place + 1, place].map(|place| judged.places[place].get().name.words);
            assert_eq!(remembered, [short("name").words, short(&other).words]);
        }
    }
}
