//! A text with some of its ranges replaced: nothing is copied before the first of them.

use std::borrow::Cow;
use std::ops::Range;

/// Replacements in a text, from its front to its end.
#[derive(Debug)]
pub(super) struct Edits<'t> {
    source: &'t str,
    out: String,
    copied: usize,
}

impl<'t> Edits<'t> {
    /// No replacement yet.
    pub(super) fn new(source: &'t str) -> Self {
        Self {
            source,
            out: String::new(),
            copied: 0,
        }
    }

    /// Puts `with` in the place of a range behind the last one.
    pub(super) fn replace(&mut self, range: Range<usize>, with: &str) {
        if self.out.is_empty() {
            self.out.reserve(self.source.len() + with.len());
        }
        let start = range.start.max(self.copied);
        self.out
            .push_str(self.source.get(self.copied..start).unwrap_or_default());
        self.out.push_str(with);
        self.copied = range.end.max(start);
    }

    /// The text up to `end`.
    pub(super) fn finish(mut self, end: usize) -> Cow<'t, str> {
        if self.copied == 0 && self.out.is_empty() {
            return Cow::Borrowed(self.source.get(..end).unwrap_or(self.source));
        }
        self.out.push_str(self.source.get(self.copied..end).unwrap_or_default());
        Cow::Owned(self.out)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_is_replaced_differs() {
        let mut edits = Edits::new("a=1&b=2&c=3");
        edits.replace(2..3, "X");
        edits.replace(10..11, "YY");
        assert_eq!(edits.finish(11), "a=X&b=2&c=YY");
    }

    #[test]
    fn nothing_is_copied_without_a_replacement() {
        assert!(matches!(Edits::new("abc").finish(2), Cow::Borrowed("ab")));
    }

    #[test]
    fn the_front_can_be_replaced_by_nothing() {
        let mut edits = Edits::new("abc");
        edits.replace(0..1, "");
        assert_eq!(edits.finish(3), "bc");
    }
}
