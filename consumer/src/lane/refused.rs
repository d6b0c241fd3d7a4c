//! What becomes of the entries of a push that the store refused.

use crate::answer::RefusedAs;
use crate::dead_letter::Reason;
use crate::entry::Entry;
use crate::refusal::Refusal;

use super::Left;

/// The entries of a refused push, by what is to be done with them.
#[derive(Debug, Default)]
pub(super) struct Sorted {
    /// Late or dead.
    pub(super) left: Left,
    /// To be pushed again, the next ones last.
    pub(super) again: Vec<Vec<Entry>>,
    /// Nothing told which entries it was about: they are found by halving.
    pub(super) is_halved: bool,
}

/// Sorts the entries of a push, which are in order of time. `is_late`: their stream is one for late entries already.
pub(super) fn sort(mut part: Vec<Entry>, kind: RefusedAs, text: &str, is_late: bool) -> Sorted {
    let mut sorted = Sorted::default();
    if kind == RefusedAs::Invalid
        && let Some((refusal, before)) = Refusal::of_all_before(text)
    {
        // In order of time, so those before come first.
        let rest = part.split_off(part.partition_point(|entry| entry.timestamp < before));
        if !part.is_empty() {
            sorted.left.judge(part, refusal, text, is_late);
            sorted.again.extend(Some(rest).filter(|rest| !rest.is_empty()));
            return sorted;
        }
        part = rest;
    }
    sorted.is_halved = true;
    if part.len() > 1 {
        let second = part.split_off(part.len() / 2);
        sorted.again.extend([second, part]);
        return sorted;
    }
    let refusal = match kind {
        RefusedAs::Invalid => Refusal::of_one(text),
        RefusedAs::TooLarge => Refusal::Dead(Reason::TooLarge),
    };
    sorted.left.judge(part, refusal, text, is_late);
    sorted
}

impl Left {
    fn judge(&mut self, entries: Vec<Entry>, refusal: Refusal, text: &str, is_late: bool) {
        let reason = match refusal {
            Refusal::Late if !is_late => return self.late.extend(entries),
            Refusal::Late => Reason::Refused,
            Refusal::Dead(reason) => reason,
        };
        let dead = entries.into_iter().map(|entry| (entry, reason, text.to_owned()));
        self.dead.extend(dead);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::lane::tests::{BEHIND, at, seconds};

    fn of(seconds: &[u64]) -> Vec<Entry> {
        seconds.iter().map(|second| at(*second)).collect()
    }

    #[test]
    fn late_entries_are_told_by_the_stores_words_and_the_others_are_pushed_again() {
        let sorted = sort(of(&[10, 20, 60, 70]), RefusedAs::Invalid, BEHIND, false);
        assert_eq!(seconds(&sorted.left.late), [10, 20]);
        assert!(sorted.left.dead.is_empty() && !sorted.is_halved);
        assert_eq!(
            sorted.again.iter().map(|part| seconds(part)).collect::<Vec<_>>(),
            [vec![60, 70]]
        );
    }

    #[test]
    fn an_entry_that_is_late_for_its_late_stream_is_dead() {
        let sorted = sort(of(&[10]), RefusedAs::Invalid, BEHIND, true);
        assert_eq!((sorted.left.dead.len(), sorted.again.len()), (1, 0));
    }

    #[test]
    fn without_a_word_about_which_they_are_halved_the_first_half_comes_next() {
        for kind in [RefusedAs::Invalid, RefusedAs::TooLarge] {
            let mut sorted = sort(of(&[1, 2, 3, 4]), kind, "who knows", false);
            assert!(sorted.is_halved);
            assert_eq!(sorted.again.pop().map(|next| seconds(&next)), Some(vec![1, 2]));
        }
    }
}
