//! Card numbers in a text: 13 to 19 digits of a known scheme whose check digit fits (ISO/IEC 7812), alone or in groups
//! joined by a blank or a hyphen.

use std::ops::Range;

use super::marks::Marks;
use super::patterns::Found;
use super::trail::Rule;

/// The digits of a card number.
const LEAST: usize = 13;
const MOST: usize = 19;
/// So many digits at a cut are kept from being read: what card numbers are masked to.
const LEAST_CUT: usize = 7;

/// The search for card numbers in a text, block by block.
#[derive(Debug)]
pub(super) struct Search<'t> {
    text: &'t [u8],
    /// The text's end is not the end of what was sent.
    cut: bool,
    /// Of the last block and, in the upper half, of this one.
    digits: u128,
    joints: u128,
    /// Whether the last block may hold the longer half of a number.
    near: bool,
    /// Where the last run ends that was looked at.
    until: usize,
}

impl<'t> Search<'t> {
    pub(super) const fn new(text: &'t [u8], cut: bool) -> Self {
        Self {
            text,
            cut,
            digits: 0,
            joints: 0,
            near: false,
            until: 0,
        }
    }

    /// Adds those that end in the next block, or go on behind it.
    pub(super) fn block(&mut self, marks: &Marks, found: &mut Vec<Found<'_>>) {
        self.digits = u128::from(marks.digits) << 64 | self.digits >> 64;
        self.joints = u128::from(marks.joints) << 64 | self.joints >> 64;
        let near = may_hold_half(marks.digits, marks.joints);
        if !std::mem::replace(&mut self.near, near) && !near {
            return;
        }
        let mut starts = self.starts();
        while starts != 0 {
            let place = marks.from + starts.trailing_zeros() as usize - 64;
            starts &= starts - 1;
            if place >= self.until {
                self.run(place, LEAST, found);
            }
        }
    }

    /// Adds one that a cut goes through.
    pub(super) fn end(mut self, found: &mut Vec<Found<'_>>) {
        if let Some(last) = self.text.len().checked_sub(1)
            && self.cut
            && last >= self.until
            && is_digit(self.text, last)
        {
            self.run(last, LEAST_CUT, found);
        }
    }

    /// Where digits with the joints between them go on for the length of the shortest number.
    const fn starts(&self) -> u128 {
        let runs = self.digits | (self.joints & self.digits << 1 & self.digits >> 1);
        let two = runs & runs >> 1;
        let four = two & two >> 2;
        let eight = four & four >> 4;
        eight & eight >> (LEAST - 8)
    }

    /// Looks at the run around a digit.
    fn run(&mut self, digit: usize, least: usize, found: &mut Vec<Found<'_>>) {
        let run = around(self.text, digit);
        self.until = run.end;
        if run.len() >= least {
            let cut = self.cut && run.end == self.text.len();
            of_run(self.text, run, cut, found);
        }
    }
}

/// Whether in a block digits with the joints between them go on for half the length of the shortest number: of one that goes
/// on in the next block, one of the blocks has as much.
const fn may_hold_half(digits: u64, joints: u64) -> bool {
    // What stands beyond the block's bounds may be digits.
    let runs = digits | (joints & (digits << 1 | 1) & (digits >> 1 | 1 << 63));
    let two = runs & runs >> 1;
    let four = two & two >> 2;
    four & four >> (LEAST.div_ceil(2) - 4) != 0
}

/// The digits around one, with the single joints between them.
fn around(text: &[u8], digit: usize) -> Range<usize> {
    let (mut start, mut end) = (digit, digit + 1);
    loop {
        if start.checked_sub(1).is_some_and(|at| is_digit(text, at)) {
            start -= 1;
        } else if start
            .checked_sub(2)
            .is_some_and(|at| is_digit(text, at) && is_joint(text, at + 1))
        {
            start -= 2;
        } else {
            break;
        }
    }
    loop {
        if is_digit(text, end) {
            end += 1;
        } else if is_joint(text, end) && is_digit(text, end + 1) {
            end += 2;
        } else {
            break;
        }
    }
    start..end
}

/// Adds the card numbers among the groups of a run.
fn of_run(text: &[u8], run: Range<usize>, cut: bool, found: &mut Vec<Found<'_>>) {
    let Some(bytes) = text.get(run.clone()).filter(|_| stands_alone(text, &run)) else {
        return;
    };
    let digits = bytes.iter().filter(|byte| byte.is_ascii_digit()).count();
    if digits < LEAST && !cut {
        return;
    }
    let mut start = 0;
    while start < bytes.len() {
        let end = longest(bytes, start, cut);
        if let Some(end) = end {
            found.push(Found {
                range: run.start + start..run.start + end,
                rule: Rule::Pattern("card"),
                name: b"",
            });
        }
        let rest = bytes.get(end.unwrap_or(start)..).unwrap_or_default();
        let joint = rest.iter().position(|byte| !byte.is_ascii_digit());
        start = bytes.len() - rest.len() + joint.map_or(rest.len(), |joint| joint + 1);
    }
}

/// Where the longest card number ends that begins with the group at `start`.
fn longest(bytes: &[u8], start: usize, cut: bool) -> Option<usize> {
    let (mut digits, mut count) = ([0; MOST], 0);
    let mut longest = None;
    for at in start..=bytes.len() {
        match bytes.get(at).filter(|byte| byte.is_ascii_digit()) {
            Some(byte) => {
                let Some(place) = digits.get_mut(count) else {
                    break;
                };
                *place = byte - b'0';
                count += 1;
            }
            None if is_card(digits.get(..count)?, cut && at == bytes.len()) => longest = Some(at),
            None => {}
        }
    }
    longest
}

/// Whether neither a word nor a decimal point is around it.
fn stands_alone(text: &[u8], run: &Range<usize>) -> bool {
    let byte = |at: Option<usize>| at.and_then(|at| text.get(at)).copied();
    let before = byte(run.start.checked_sub(1));
    let decimals = before == Some(b'.') && byte(run.start.checked_sub(2)).is_some_and(|byte| byte.is_ascii_digit());
    let in_word = |byte: Option<u8>| byte.is_some_and(|byte| byte.is_ascii_alphabetic() || byte == b'_');
    !decimals && !in_word(before) && !in_word(byte(Some(run.end)))
}

fn is_card(digits: &[u8], cut: bool) -> bool {
    let count = digits.len();
    let begun = cut && count >= LEAST_CUT && scheme(digits).is_some();
    begun || (count >= LEAST && scheme(digits).is_some_and(|lengths| lengths.contains(&count)) && luhn(digits))
}

/// The lengths of the numbers of a scheme; `None` for a number of none.
fn scheme(digits: &[u8]) -> Option<Range<usize>> {
    let first = digits.get(..4)?;
    let four = first.iter().fold(0, |number, digit| number * 10 + u32::from(*digit));
    match four {
        4000..=4999 => Some(13..20),
        5100..=5599 | 2200..=2204 | 2221..=2720 => Some(16..17),
        3400..=3499 | 3700..=3799 => Some(15..16),
        3000..=3059 | 3600..=3699 | 3800..=3999 => Some(14..20),
        3528..=3589 | 6011 | 6440..=6599 | 6200..=6299 | 8100..=8199 => Some(16..20),
        5000..=5099 | 5600..=5899 | 6300..=6399 | 6700..=6799 => Some(13..20),
        _ => None,
    }
}

fn luhn(digits: &[u8]) -> bool {
    let sum: u32 = digits
        .iter()
        .rev()
        .enumerate()
        .map(|(at, digit)| {
            let digit = u32::from(*digit);
            let doubled = if digit > 4 { digit * 2 - 9 } else { digit * 2 };
            if at % 2 == 1 { doubled } else { digit }
        })
        .sum();
    sum.is_multiple_of(10)
}

fn is_digit(text: &[u8], at: usize) -> bool {
    text.get(at).is_some_and(u8::is_ascii_digit)
}

fn is_joint(text: &[u8], at: usize) -> bool {
    text.get(at).is_some_and(|byte| matches!(byte, b' ' | b'-'))
}

#[cfg(test)]
mod tests {
    use super::super::marks;
    use super::*;
    use proptest::prelude::*;

    fn cards(text: &str, cut: bool) -> Vec<&str> {
        let mut found = Vec::new();
        let mut search = Search::new(text.as_bytes(), cut);
        for marks in marks::blocks(text.as_bytes()) {
            search.block(&marks, &mut found);
        }
        search.end(&mut found);
        found
            .iter()
            .map(|found| text.get(found.range.clone()).unwrap())
            .collect()
    }

    #[test]
    fn card_numbers_are_found_alone_and_in_groups_at_any_place() {
        for card in [
            "4111111111111111",
            "4111 1111 1111 1111",
            "4111-1111-1111-1111",
            "378282246310005",
            "3782 822463 10005",
            "5555555555554444",
            "6011111111111117",
            "30569309025904",
            "4222222222222",
        ] {
            let many = "1 ".repeat(40);
            for before in ["", "a ", "no.: ", "\"", "12345,", "x=", "2026-01-02 ", &many] {
                let text = format!("{before}{card} 12/27");
                assert_eq!(cards(&text, false), [card], "{text}");
            }
            for before in 0..140 {
                let text = format!("{}{card},x", ",".repeat(before));
                assert_eq!(cards(&text, false), [card], "{text}");
            }
        }
    }

    #[test]
    fn other_numbers_stay() {
        for text in [
            "4111111111111112",
            "1700000000000",
            "1700000000000000000",
            "0.4111111111111111",
            "a4111111111111111",
            "4111111111111111b",
            "41111111111111111111",
            "411111",
            "2026-01-02 12:30:00",
        ] {
            assert_eq!(cards(text, false), Vec::<&str>::new(), "{text}");
        }
    }

    #[test]
    fn the_beginning_of_one_at_a_cut_counts() {
        assert_eq!(cards("x 41111111", true), ["41111111"]);
        assert_eq!(cards("x 4111 1111 1", true), ["4111 1111 1"]);
        assert_eq!(cards("x 411111", true), Vec::<&str>::new());
        assert_eq!(cards("x 17000000", true), Vec::<&str>::new());
    }

    proptest! {
        #[test]
        fn the_number_is_found_wherever_it_stands(
            pieces in proptest::collection::vec(("[ 0-9a-z.-]{0,70}", 0..4_usize, "[ 0-9-]{0,30}"), 0..5),
            cut: bool,
        ) {
            let numbers = ["", "4222222222222", "4111111111111111", "4-1-1-1-1-1-1-1-1-1-1-1-1-1-1-1"];
            let text: String = pieces.iter().map(|(before, number, behind)| format!("{before}{}{behind}", numbers[*number])).collect();
            let bytes = text.as_bytes();
            let (mut expected, mut until) = (Vec::new(), 0);
            for digit in 0..bytes.len() {
                if digit >= until && is_digit(bytes, digit) {
                    let run = around(bytes, digit);
                    until = run.end;
                    let cut = cut && run.end == bytes.len();
                    if run.len() >= if cut { LEAST_CUT } else { LEAST } {
                        of_run(bytes, run, cut, &mut expected);
                    }
                }
            }
            let expected: Vec<_> = expected.iter().map(|found| text.get(found.range.clone()).unwrap()).collect();
            prop_assert_eq!(cards(&text, cut), expected);
        }
    }
}
