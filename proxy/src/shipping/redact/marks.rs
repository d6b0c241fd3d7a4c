//! Where in a text a secret may be, and where its strings may end: the bytes that tell are looked for in 64 at a time, a bit each.
//!
//! Invariants:
//! - What is marked is what stands there, wherever the text's blocks begin and end (`each_byte_is_marked_for_what_it_is`,
//!   `each_end_is_found_behind_the_one_before`, and for beginnings `what_has_a_shape_is_found_wherever_it_stands`).
//! - No end is told that isn't the next one: who goes back gets none (`no_end_is_found_on_the_way_back`).

use fearless_simd::prelude::*;
use fearless_simd::{Level, dispatch, u8x64};

use super::patterns;
use super::trigrams::{BLOCK, LENGTH, LastWindows, Window, bytes, windows};

/// Blocks that are looked at before the first of their marks is asked for.
const BATCH: usize = 16;

/// What stands in 64 bytes of a text; the lowest bit is the first byte.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Marks {
    /// Where in the text they begin.
    pub(super) from: usize,
    /// What may be the first byte of one of the patterns.
    pub(super) beginnings: u64,
    /// `=` or `:`.
    pub(super) separators: u64,
    /// `"`.
    pub(super) quotes: u64,
    /// A digit.
    pub(super) digits: u64,
    /// What joins the groups of a card number: a blank or a hyphen.
    pub(super) joints: u64,
}

/// Gives the marks of a text, block by block.
#[derive(Debug)]
pub(super) struct Blocks<'t> {
    text: &'t [u8],
    /// Where in it begins what is not looked at yet.
    from: usize,
    batch: [Marks; BATCH],
    /// Which of them is next, and how many there are.
    next: usize,
    len: usize,
}

/// The blocks of a text.
pub(super) fn blocks(text: &[u8]) -> Blocks<'_> {
    Blocks {
        text,
        from: 0,
        batch: [Marks::default(); BATCH],
        next: 0,
        len: 0,
    }
}

impl Iterator for Blocks<'_> {
    type Item = Marks;

    #[inline]
    fn next(&mut self) -> Option<Marks> {
        if self.next == self.len {
            if self.from == self.text.len() {
                return None;
            }
            self.look();
        }
        let marks = self.batch.get(self.next).copied();
        self.next += 1;
        marks
    }
}

impl Blocks<'_> {
    #[inline(never)]
    fn look(&mut self) {
        let rest = self.text.get(self.from..).unwrap_or_default();
        let length = rest.len().min(BATCH * BLOCK);
        // With what the last window reaches into.
        let text = rest.get(..length + LENGTH - 1).unwrap_or(rest);
        dispatch!(Level::new(), simd => mark(simd, text, self.from, &mut self.batch));
        self.from += length;
        (self.next, self.len) = (0, length.div_ceil(BLOCK));
    }
}

#[inline(always)]
fn mark<S: Simd>(simd: S, text: &[u8], from: usize, batch: &mut [Marks; BATCH]) {
    let mut last = LastWindows::new();
    for (number, (marks, window)) in batch.iter_mut().zip(windows(text, &mut last)).enumerate() {
        *marks = Marks::of(simd, window, from + number * BLOCK);
    }
}

impl Marks {
    #[inline(always)]
    fn of<S: Simd>(simd: S, window: &Window, from: usize) -> Self {
        let block = bytes(simd, window, 0);
        let separators = block.simd_eq(b'=') | block.simd_eq(b':');
        let joints = block.simd_eq(b'-') | block.simd_eq(b' ');
        let [first, second, third] =
            [0, 1, 2].map(|place| patterns::FIRST.families(simd, place, bytes(simd, window, place)));
        Self {
            from,
            beginnings: (!(first & second & third).simd_eq(0)).to_bitmask(),
            separators: separators.to_bitmask(),
            quotes: block.simd_eq(b'"').to_bitmask(),
            digits: (block - b'0').simd_lt(10).to_bitmask(),
            joints: joints.to_bitmask(),
        }
    }

    /// The places in the text of the bits of a mask of these marks.
    #[inline]
    pub(super) fn places(&self, mask: u64) -> impl Iterator<Item = usize> + use<> {
        let (from, mut rest) = (self.from, mask);
        std::iter::from_fn(move || {
            let place = (rest != 0).then(|| from + rest.trailing_zeros() as usize);
            rest &= rest.wrapping_sub(1);
            place
        })
    }
}

/// Where strings of a text may end: each `"` and `\`, in their order. They are all found before the first is asked for: a loop
/// of its own is quicker than to go on with a block for each string. At most they take four bytes for each of the text, and once more
/// while they grow.
#[derive(Debug, Default)]
pub(super) struct Ends {
    places: Vec<u32>,
    /// The first that was not passed.
    next: usize,
}

impl Ends {
    /// None of a text that is longer than its places can say, with a block more.
    pub(super) fn new(text: &[u8]) -> Self {
        if u32::try_from(text.len() + BLOCK).is_err() {
            return Self::default();
        }
        // In most JSON there are fewer.
        let mut places = Vec::with_capacity(text.len() / 4 + STEP);
        dispatch!(Level::new(), simd => find_ends(simd, text, &mut places));
        Self { places, next: 0 }
    }

    /// The one that follows the one at `start`; `None` if there is none, if none is at `start`, and if `start` is not behind those
    /// that were asked for.
    #[inline]
    pub(super) fn behind(&mut self, start: usize) -> Option<usize> {
        // Mostly it is the next one.
        while (*self.places.get(self.next)? as usize) < start {
            self.next += 1;
        }
        let [opening, closing] = *self.places.get(self.next..)?.first_chunk()?;
        if opening as usize != start {
            return None;
        }
        self.next += 2;
        Some(closing as usize)
    }
}

#[inline(always)]
fn find_ends<S: Simd>(simd: S, text: &[u8], places: &mut Vec<u32>) {
    let (whole, rest) = text.as_chunks();
    let last = (!rest.is_empty()).then(|| padded(rest));
    for (from, block) in (0..).step_by(BLOCK).zip(whole.iter().chain(&last)) {
        let block = u8x64::simd_from(simd, *block);
        add_places(from, (block.simd_eq(b'"') | block.simd_eq(b'\\')).to_bitmask(), places);
    }
}

/// So many places are added at a time: their number is another in each block, and a branch for each would be mispredicted.
const STEP: usize = 8;

/// Adds the places of a mask's bits.
#[inline(always)]
fn add_places(from: u32, mask: u64, places: &mut Vec<u32>) {
    let len = places.len() + mask.count_ones() as usize;
    let mut rest = mask;
    while places.len() < len {
        places.extend_from_slice(&std::array::from_fn::<_, STEP, _>(|_| {
            let place = from + rest.trailing_zeros();
            rest &= rest.wrapping_sub(1);
            place
        }));
    }
    places.truncate(len);
}

/// Less than a block, with zeros behind it.
fn padded(rest: &[u8]) -> [u8; BLOCK] {
    let mut block = [0; BLOCK];
    if let Some(front) = block.get_mut(..rest.len()) {
        front.copy_from_slice(rest);
    }
    block
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_byte_is_marked_for_what_it_is() {
        let bytes: Vec<u8> = (0..=255).collect();
        for (before, after) in (0..70).flat_map(|before| (0..70).map(move |after| (before, after))) {
            let text = [&vec![b'~'; before], bytes.as_slice(), &vec![b'~'; after]].concat();
            let mut told = vec![Vec::new(); 4];
            for (number, marks) in blocks(&text).enumerate() {
                assert_eq!(marks.from, number * BLOCK);
                let masks = [marks.separators, marks.quotes, marks.digits, marks.joints];
                for (told, mask) in told.iter_mut().zip(masks) {
                    told.extend(marks.places(mask).map(|at| text[at]));
                }
            }
            assert_eq!(
                told,
                [b":=".to_vec(), b"\"".to_vec(), b"0123456789".to_vec(), b" -".to_vec()]
            );
        }
    }

    #[test]
    fn each_end_is_found_behind_the_one_before() {
        for (length, rare) in (0..200).flat_map(|length| [(length, true), (length, false)]) {
            let text: Vec<u8> = (0..length)
                .map(|at| {
                    if !rare || at * at % 31 == 5 {
                        b"\"\\"[at % 2]
                    } else {
                        b'~'
                    }
                })
                .collect();
            for step in 1..90 {
                let mut ends = Ends::new(&text);
                let mut passed = 0;
                for at in (0..length + 5).step_by(step) {
                    let mut places = (at..length).filter(|at| text[*at] != b'~');
                    let is_end = places.next() == Some(at);
                    let expected = places.next().filter(|_| is_end && at >= passed);
                    assert_eq!(ends.behind(at), expected);
                    passed = expected.map_or(passed, |end| end + 1);
                }
            }
        }
    }

    #[test]
    fn no_end_is_found_on_the_way_back() {
        let mut ends = Ends::new(b"\"a\"b\"c\"d\"e\"");
        let told = [4, 0, 4, 8].map(|start| ends.behind(start));
        assert_eq!(told, [Some(6), None, None, Some(10)]);
    }

    #[test]
    fn a_processor_with_less_marks_the_same() {
        let bytes: Vec<u8> = (0..=255).cycle().skip(7).take(700).collect();
        for from in 0..bytes.len() {
            let text = &bytes[from..];
            let mut places = Vec::new();
            dispatch!(Level::baseline(), simd => find_ends(simd, text, &mut places));
            assert_eq!(places, Ends::new(text).places);
            let mut batch = [Marks::default(); BATCH];
            dispatch!(Level::baseline(), simd => mark(simd, text, 0, &mut batch));
            let marks: Vec<_> = blocks(text).collect();
            assert_eq!(batch[..marks.len()], marks);
        }
    }
}
