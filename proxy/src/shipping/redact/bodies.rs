//! Bodies that came again, and what redaction makes of them: a service answers its probes, and who polls it, with much the same, and
//! what was searched needs no second search.
//!
//! What is kept has the secrets that came with it, until others take its place. It is in memory only.
//!
//! Invariants:
//! - Only what was searched is answered for: the same text, compared whole, of the same kind, cut or whole, by the same rules
//!   (`what_is_known_is_what_was_noted`).
//! - At most [`MOST`] bytes are kept (`what_is_kept_has_a_bound`).

use std::borrow::Cow;
use std::cell::RefCell;
use std::fmt;

use super::known::mixed;
use super::trail::Tally;
use super::{Kind, is_same};

/// Bodies that are kept; a body has one place, and the last one that has it is there. A power of two.
const PLACES: usize = 64;
/// The bytes of all of them, and of what redaction made of them.
const MOST: usize = 2 * 1024 * 1024;
/// The bytes at each end of a body that its mark is made of.
const END: usize = 64;

/// Bodies that came more than once.
#[derive(Debug)]
pub(super) struct KnownBodies(RefCell<Known>);

#[derive(Debug)]
struct Known {
    places: Box<[Place]>,
    bytes: usize,
}

#[derive(Debug, Default)]
struct Place {
    mark: u64,
    kept: Option<Kept>,
}

struct Kept {
    search: Search,
    text: Box<str>,
    /// What it was made into; `None` if nothing was found.
    redacted: Option<Box<str>>,
    tally: Tally,
}

/// Without its texts, which have secrets.
impl fmt::Debug for Kept {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Kept").finish_non_exhaustive()
    }
}

/// As what a body is searched.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Search {
    /// Whose verdict it is.
    pub(super) rules: u64,
    pub(super) kind: Kind,
    /// Whether the body goes on behind the end of its text.
    pub(super) cut: bool,
}

impl Default for KnownBodies {
    fn default() -> Self {
        let places = std::iter::repeat_with(Place::default).take(PLACES);
        Self(RefCell::new(Known {
            places: places.collect(),
            bytes: 0,
        }))
    }
}

impl KnownBodies {
    /// The text as it was redacted when it was searched as this, and how many values were taken out.
    pub(super) fn recall<'t>(&self, search: Search, text: &'t str) -> Option<(Cow<'t, str>, Tally)> {
        let known = self.0.borrow();
        let kept = known.places.get(place(mark(search, text)))?.kept.as_ref()?;
        (kept.search == search && *kept.text == *text).then_some(())?;
        let redacted = kept.redacted.as_ref();
        let redacted = redacted.map_or(Cow::Borrowed(text), |redacted| Cow::Owned(redacted.to_string()));
        Some((redacted, kept.tally))
    }

    /// All of it could be placed, and this was made of it. What comes a second time is kept: most bodies don't, and a copy for nothing
    /// would cost them what it spares others.
    pub(super) fn note(&self, search: Search, text: &str, redacted: &str, tally: Tally) {
        let redacted = Some(redacted).filter(|redacted| !is_same(redacted, text));
        let size = text.len() + redacted.map_or(0, str::len);
        let mark = mark(search, text);
        let known = &mut *self.0.borrow_mut();
        let Some(at) = known.places.get_mut(place(mark)) else {
            return;
        };
        // Where one of the same mark is kept, it differs in its middle, and goes.
        let is_second = at.mark == mark && at.kept.is_none() && size <= MOST;
        known.bytes -= at.kept.take().map_or(0, |kept| kept.size());
        at.mark = mark;
        if !is_second {
            return;
        }
        if known.bytes + size > MOST {
            known.forget();
        }
        if let Some(at) = known.places.get_mut(place(mark)) {
            known.bytes += size;
            at.kept = Some(Kept {
                search,
                text: text.into(),
                redacted: redacted.map(Box::from),
                tally,
            });
        }
    }
}

impl Known {
    /// Makes room. What comes again is kept again at once.
    fn forget(&mut self) {
        for place in &mut self.places {
            place.kept = None;
        }
        self.bytes = 0;
    }
}

impl Kept {
    fn size(&self) -> usize {
        self.text.len() + self.redacted.as_ref().map_or(0, |redacted| redacted.len())
    }
}

/// What tells most bodies from each other: as what they are searched, their length and their ends.
fn mark(search: Search, text: &str) -> u64 {
    let Search { rules, kind, cut } = search;
    let bytes = text.as_bytes();
    let front = bytes.first_chunk::<END>().map_or(bytes, <[u8; END]>::as_slice);
    let back = bytes.last_chunk::<END>().map_or(bytes, <[u8; END]>::as_slice);
    let seed = (rules << 4 | (kind as u64) << 1 | u64::from(cut)) ^ (bytes.len() as u64) << 32;
    mixed(mixed(seed, front), back)
}

/// The place of a body of this mark.
fn place(mark: u64) -> usize {
    usize::try_from(mark >> (u64::BITS - PLACES.ilog2())).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const SEARCH: Search = Search {
        rules: 1,
        kind: Kind::Json,
        cut: false,
    };

    fn searches() -> impl Strategy<Value = Search> {
        let kind = prop_oneof![Just(Kind::Json), Just(Kind::Text)];
        (1..3_u64, kind, any::<bool>()).prop_map(|(rules, kind, cut)| Search { rules, kind, cut })
    }

    /// What redaction makes of a text in these tests: each has another outcome by each search.
    fn redacted<'t>(search: Search, text: &'t str) -> (Cow<'t, str>, Tally) {
        let count = search.rules + u64::from(search.cut);
        match search.kind {
            Kind::Json => (Cow::Owned(format!("{text} {count}")), [count, 0, 0, 1]),
            _ => (Cow::Borrowed(text), [0; 4]),
        }
    }

    /// Whether it is known; if not, it is searched now.
    fn is_known(bodies: &KnownBodies, search: Search, text: &str) -> bool {
        let (made, tally) = redacted(search, text);
        let recalled = bodies.recall(search, text);
        match &recalled {
            Some(recalled) => assert_eq!(*recalled, (made, tally)),
            None => bodies.note(search, text, &made, tally),
        }
        recalled.is_some()
    }

    proptest! {
        #[test]
        fn what_is_known_is_what_was_noted(
            noted in proptest::collection::vec((searches(), "[ab]{0,2}|a{60,70}[ab]a{60,70}"), 1..60),
        ) {
            let bodies = KnownBodies::default();
            let mut seen = Vec::new();
            for (search, text) in &noted {
                is_known(&bodies, *search, text);
                seen.push((*search, text));
                for (other, _) in &noted {
                    let was_noted = seen.contains(&(*other, text));
                    prop_assert!(was_noted || bodies.recall(*other, text).is_none());
                }
                prop_assert!(bodies.recall(*search, &[text, "~"].concat()).is_none());
            }
        }
    }

    #[test]
    fn no_body_is_shown_for_debugging() {
        let bodies = KnownBodies::default();
        let known = [(); 3].map(|()| is_known(&bodies, SEARCH, "MARK"));
        assert!(known[2] && !format!("{bodies:?}").contains("MARK"));
    }

    #[test]
    fn a_body_is_known_once_it_came_twice() {
        let bodies = KnownBodies::default();
        for text in ["{}".to_owned(), "x".repeat(100_000)] {
            let known = [(); 4].map(|()| is_known(&bodies, SEARCH, &text));
            assert_eq!(known, [false, false, true, true], "{} bytes", text.len());
        }
    }

    #[test]
    fn a_body_whose_middle_changed_is_known_when_it_comes_again() {
        let bodies = KnownBodies::default();
        for middle in ["0", "1", "2"] {
            let text = ["a".repeat(100), middle.to_owned(), "a".repeat(100)].concat();
            let known = [(); 4].map(|()| is_known(&bodies, SEARCH, &text));
            assert_eq!(known, [false, false, true, true], "{middle}");
        }
    }

    #[test]
    fn what_is_kept_has_a_bound() {
        let bodies = KnownBodies::default();
        let clean = Search {
            kind: Kind::Text,
            ..SEARCH
        };
        for (search, copies) in [(SEARCH, 2), (clean, 1)] {
            for length in (1..)
                .map(|number| number * 10_000)
                .take_while(|length| *length < 2 * MOST)
            {
                let text = "x".repeat(length);
                let known = [(); 3].map(|()| is_known(&bodies, search, &text));
                let fits = copies * (length + 1) <= MOST;
                assert_eq!(known, [false, false, fits], "{length} bytes, though others were there");
                let known = bodies.0.borrow();
                let kept = known.places.iter().filter_map(|place| place.kept.as_ref());
                let redacted = |kept: &Kept| kept.redacted.as_ref().map_or(0, |redacted| redacted.len());
                let kept: usize = kept.map(|kept| kept.text.len() + redacted(kept)).sum();
                assert_eq!(kept, known.bytes);
                assert!(kept <= MOST);
            }
        }
    }
}
