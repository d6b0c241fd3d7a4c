//! What Loki's words say about the entries that it refused.
//!
//! Source: `pkg/validation/validate.go` and `pkg/ingester/stream.go` of Loki, whose texts have stayed the same since 2.4. A text
//! that is not known costs more pushes (the entries are found by halving) and loses nothing.
//!
//! Invariants:
//! - A time that is told as the oldest acceptable one is told in whole seconds, rounded down, so every entry before
//!   it was refused; one within that second is judged by a push of its own.

use jiff::Timestamp;

use crate::dead_letter::Reason;

/// The words in front of a time, in both of Loki's texts about entries that are too old for it.
const OLDEST: &str = "oldest acceptable timestamp is: ";

/// Why entries of a push were refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Refusal {
    /// They are too far behind the newest entry of their stream; a stream of their own would take them.
    Late,
    /// Nothing would take them.
    Dead(Reason),
}

impl Refusal {
    /// What the text says about a push that held a single entry.
    pub(crate) fn of_one(text: &str) -> Self {
        let is = |words| text.contains(words);
        if is("too far behind") || is("out of order") {
            Self::Late
        } else if is("timestamp too old") {
            Self::Dead(Reason::TooOld)
        } else if is("timestamp too new") {
            Self::Dead(Reason::TooNew)
        } else if is("ax entry size") {
            // Begins with a capital up to Loki 3.5.
            Self::Dead(Reason::TooLong)
        } else {
            Self::Dead(Reason::Refused)
        }
    }

    /// What the text says about every entry before a time, in Unix nanoseconds.
    pub(crate) fn of_all_before(text: &str) -> Option<(Self, u64)> {
        let (told, time) = text.split_once(OLDEST)?;
        let refusal = match Self::of_one(told) {
            late @ Self::Late => late,
            old @ Self::Dead(Reason::TooOld) => old,
            Self::Dead(_) => return None,
        };
        // Behind the time stands what ends a sentence; RFC 3339 has none of it.
        let time = time.split(['\'', ',', ';', ' ', '\n']).next()?;
        let time: Timestamp = time.parse().ok()?;
        let nanoseconds = u64::try_from(time.as_nanosecond()).ok()?;
        Some((refusal, nanoseconds))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const BEHIND: &str = "entry with timestamp 2022-10-10 13:25:44 +0000 UTC ignored, reason: 'entry too far behind, entry timestamp \
         is: 2022-10-10T13:25:44Z, oldest acceptable timestamp is: 2022-10-28T23:10:16Z', user 'fake', total ignored: 1 out \
         of 2 for stream: {env=\"test\"}";
    const OLD: &str = "entry for stream '{env=\"test\"}' has timestamp too old: 2022-10-10T13:25:44Z, oldest acceptable timestamp is: \
         2022-10-28T23:10:16Z";

    #[test]
    fn each_of_lokis_texts_has_its_meaning() {
        for (text, expected) in [
            (BEHIND, Refusal::Late),
            (
                "entry with timestamp 2021-01-01 00:00:00 +0000 UTC ignored, reason: 'entry out of order'",
                Refusal::Late,
            ),
            (OLD, Refusal::Dead(Reason::TooOld)),
            (
                "entry for stream '{a=\"b\"}' has timestamp too new: 2099-10-10T13:25:44Z",
                Refusal::Dead(Reason::TooNew),
            ),
            (
                "Max entry size '262144' bytes exceeded for stream '{a=\"b\"}' while adding an entry with length '300000' bytes",
                Refusal::Dead(Reason::TooLong),
            ),
            (
                "max entry size '262144' bytes exceeded for stream '{a=\"b\"}' while adding an entry with length '300000' bytes",
                Refusal::Dead(Reason::TooLong),
            ),
            (
                "stream '{a=\"b\"}' has structured metadata too large: '70000' bytes, limit: '65536' bytes.",
                Refusal::Dead(Reason::Refused),
            ),
            ("", Refusal::Dead(Reason::Refused)),
        ] {
            assert_eq!(Refusal::of_one(text), expected, "{text}");
        }
    }

    #[test]
    fn the_oldest_acceptable_time_judges_all_entries_before_it() {
        const SECONDS: u64 = 1_666_998_616;
        let nanoseconds = SECONDS * 1_000_000_000;
        assert_eq!(Refusal::of_all_before(BEHIND), Some((Refusal::Late, nanoseconds)));
        let old = Some((Refusal::Dead(Reason::TooOld), nanoseconds));
        assert_eq!(Refusal::of_all_before(OLD), old);
        // Loki formats one of them in the time zone of its machine.
        let there = OLD.replace("2022-10-28T23:10:16Z", "2022-10-29T01:10:16+02:00");
        assert_eq!(Refusal::of_all_before(&there), old);
        for unknown in [
            "",
            "oldest acceptable timestamp is: 5",
            "Max entry size '5' bytes exceeded",
        ] {
            assert_eq!(Refusal::of_all_before(unknown), None, "{unknown}");
        }
    }
}
