//! Values that were found clean of late: most header fields of a service's exchanges are the same again and again, and need
//! no second search.
//!
//! Invariants:
//! - Only what was searched is answered for: the same bytes under the same name, by the same rules
//!   (`what_is_known_is_what_was_noted`, `what_is_remembered_is_forgotten_with_its_rules`).

use std::cell::RefCell;

/// Values that are remembered; a value has one place, and the last one that has it is there. A power of two.
const PLACES: usize = 256;
/// The bytes of a name and its value together; longer ones are searched each time. An entry has 128 bytes.
const LONGEST: usize = 126;

/// What was found clean.
#[derive(Debug)]
pub(super) struct KnownClean(RefCell<Known>);

#[derive(Debug)]
struct Known {
    /// Whose verdict it was.
    rules: u64,
    entries: Box<[Entry]>,
}

#[derive(Clone, Copy, Debug)]
struct Entry {
    name_len: u8,
    len: u8,
    /// Name and value, one behind the other.
    bytes: [u8; LONGEST],
}

/// Nothing is known at this place; a value of no bytes is not remembered.
const NONE: Entry = Entry {
    name_len: 0,
    len: 0,
    bytes: [0; LONGEST],
};

impl Default for KnownClean {
    fn default() -> Self {
        Self(RefCell::new(Known {
            rules: 0,
            entries: vec![NONE; PLACES].into(),
        }))
    }
}

impl KnownClean {
    /// Whether the value was found clean under this name by these rules.
    pub(super) fn knows(&self, rules: u64, name: &str, value: &[u8]) -> bool {
        let known = self.0.borrow();
        let entry = place(name, value).and_then(|place| known.entries.get(place));
        known.rules == rules && entry.is_some_and(|entry| entry.is(name, value))
    }

    /// It was found clean.
    pub(super) fn note(&self, rules: u64, name: &str, value: &[u8]) {
        let mut known = self.0.borrow_mut();
        if known.rules != rules {
            known.rules = rules;
            known.entries.fill(NONE);
        }
        let place = place(name, value).and_then(|place| known.entries.get_mut(place));
        if let (Some(place), Some(entry)) = (place, Entry::of(name, value)) {
            *place = entry;
        }
    }
}

impl Entry {
    fn of(name: &str, value: &[u8]) -> Option<Self> {
        let len = name.len() + value.len();
        let mut entry = Self {
            name_len: u8::try_from(name.len()).ok()?,
            len: u8::try_from(len).ok()?,
            ..NONE
        };
        let (front, back) = entry.bytes.get_mut(..len)?.split_at_mut(name.len());
        front.copy_from_slice(name.as_bytes());
        back.copy_from_slice(value);
        Some(entry)
    }

    fn is(&self, name: &str, value: &[u8]) -> bool {
        let (name_len, len) = (usize::from(self.name_len), usize::from(self.len));
        len > 0 && self.bytes.get(..name_len) == Some(name.as_bytes()) && self.bytes.get(name_len..len) == Some(value)
    }
}

/// Where a value is remembered; `None` if it is none that is.
fn place(name: &str, value: &[u8]) -> Option<usize> {
    let fits = (1..=LONGEST).contains(&(name.len() + value.len()));
    let hash = fits.then(|| mixed(mixed(0, name.as_bytes()), value))?;
    usize::try_from(hash >> (u64::BITS - PLACES.ilog2())).ok()
}

/// A hash that need only be quick: who fills a place with values of their own makes others be searched again.
pub(super) fn mixed(hash: u64, bytes: &[u8]) -> u64 {
    /// Odd, and its bits are as good as random: the golden ratio in 64 bits.
    const FACTOR: u64 = 0x9e37_79b9_7f4a_7c15;
    let add = |hash: u64, word: u64| (hash.rotate_left(5) ^ word).wrapping_mul(FACTOR);
    let (words, rest) = bytes.as_chunks();
    let hash = words
        .iter()
        .fold(hash, |hash, word| add(hash, u64::from_le_bytes(*word)));
    let rest = rest
        .iter()
        .fold(bytes.len() as u64, |word, byte| word << 8 | u64::from(*byte));
    add(hash, rest)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn what_is_known_is_what_was_noted(
            noted in proptest::collection::vec((1..3_u64, "[ab]{0,3}", "([ab]{0,2}|[a-z]{7,10}|a{100,140})"), 1..40),
        ) {
            let clean = KnownClean::default();
            for (rules, name, value) in &noted {
                clean.note(*rules, name, value.as_bytes());
                let fits = (1..=LONGEST).contains(&(name.len() + value.len()));
                prop_assert_eq!(clean.knows(*rules, name, value.as_bytes()), fits);
                prop_assert!(!clean.knows(*rules, name, &[value.as_bytes(), b"~"].concat()));
                prop_assert!(!clean.knows(*rules, &[name, "~"].concat(), value.as_bytes()));
                for (rules_then, name, value) in &noted {
                    let of_now = rules_then == rules;
                    prop_assert!(of_now || !clean.knows(*rules_then, name, value.as_bytes()));
                }
            }
        }

        #[test]
        fn bytes_are_a_name_and_a_value_in_one_way(bytes in "[ab]{1,30}", cut in 0..30_usize) {
            let clean = KnownClean::default();
            let (name, value) = bytes.split_at(cut.min(bytes.len()));
            clean.note(1, name, value.as_bytes());
            for other in 0..=bytes.len() {
                let (other_name, value) = bytes.split_at(other);
                prop_assert_eq!(clean.knows(1, other_name, value.as_bytes()), other_name == name);
            }
        }
    }
}
