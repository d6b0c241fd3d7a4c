//! Where in a text a secret may be, and where its strings may end: the bytes that tell are looked for in 64 at a time, a bit each.
//!
//! Invariants:
//! - What is marked is what stands there, wherever the text's blocks begin and end (`each_byte_is_marked_for_what_it_is`,
//!   `each_end_is_found_behind_the_one_before`).
//! - No end is told that isn't the next one: who goes back gets none (`no_end_is_found_on_the_way_back`).

use fearless_simd::prelude::*;
use fearless_simd::{Level, dispatch, u8x64};

/// Bytes that are looked at together.
const BLOCK: usize = 64;
/// Blocks that are looked at before the first of their marks is asked for.
const BATCH: usize = 16;

/// The bytes by which the patterns' beginnings are found: each holds one of them. With the bytes around it, that tells most
/// other texts at once.
pub(super) const ANCHORS: [u8; 9] = *b"_-/.IJxBb";

/// What stands in 64 bytes of a text; the lowest bit is the first byte.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Marks {
    /// Where in the text they begin.
    pub(super) from: usize,
    /// One of [`ANCHORS`].
    pub(super) anchors: u64,
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
    /// What is not looked at yet, and where in the text it begins.
    rest: &'t [u8],
    from: usize,
    batch: [Marks; BATCH],
    /// Which of them is next, and how many there are.
    next: usize,
    len: usize,
}

/// The blocks of a text.
pub(super) fn blocks(text: &[u8]) -> Blocks<'_> {
    Blocks {
        rest: text,
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
            if self.rest.is_empty() {
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
        let (now, later) = self.rest.split_at(self.rest.len().min(BATCH * BLOCK));
        dispatch!(Level::new(), simd => mark(simd, now, self.from, &mut self.batch));
        self.rest = later;
        self.from += now.len();
        (self.next, self.len) = (0, now.len().div_ceil(BLOCK));
    }
}

#[inline(always)]
fn mark<S: Simd>(simd: S, text: &[u8], from: usize, batch: &mut [Marks; BATCH]) {
    let (whole, rest) = text.as_chunks();
    let last = (!rest.is_empty()).then(|| padded(rest));
    for (number, (marks, block)) in batch.iter_mut().zip(whole.iter().chain(&last)).enumerate() {
        *marks = Marks::of(simd, block, from + number * BLOCK);
    }
}

impl Marks {
    #[inline(always)]
    fn of<S: Simd>(simd: S, block: &[u8; BLOCK], from: usize) -> Self {
        let block = u8x64::simd_from(simd, *block);
        let hyphens = block.simd_eq(b'-');
        let anchors = hyphens
            | block.simd_eq(b'_')
            | block.simd_eq(b'I')
            | block.simd_eq(b'J')
            | block.simd_eq(b'x')
            // One comparison for two bytes that differ in a bit.
            | (block | 1).simd_eq(b'/')
            | (block | 0x20).simd_eq(b'b');
        let separators = block.simd_eq(b'=') | block.simd_eq(b':');
        let joints = hyphens | block.simd_eq(b' ');
        Self {
            from,
            anchors: anchors.to_bitmask(),
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
#[derive(Debug)]
pub(super) struct Ends {
    places: Vec<u32>,
    /// The first that was not passed.
    next: usize,
}

impl Ends {
    /// None of a text that is longer than its places can say.
    pub(super) fn new(text: &[u8]) -> Self {
        let mut places = Vec::new();
        if u32::try_from(text.len()).is_ok() {
            // In most JSON there are fewer.
            places.reserve(text.len() / 4);
            dispatch!(Level::new(), simd => find_ends(simd, text, &mut places));
        }
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
        let mut ends = (block.simd_eq(b'"') | block.simd_eq(b'\\')).to_bitmask();
        while ends != 0 {
            places.push(from + ends.trailing_zeros());
            ends &= ends - 1;
        }
    }
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
            let mut anchors = ANCHORS.to_vec();
            anchors.sort_unstable();
            let mut told = vec![Vec::new(); 5];
            for (number, marks) in blocks(&text).enumerate() {
                assert_eq!(marks.from, number * BLOCK);
                let masks = [
                    marks.anchors,
                    marks.separators,
                    marks.quotes,
                    marks.digits,
                    marks.joints,
                ];
                for (told, mask) in told.iter_mut().zip(masks) {
                    told.extend(marks.places(mask).map(|at| text[at]));
                }
            }
            assert_eq!(
                told,
                [
                    anchors,
                    b":=".to_vec(),
                    b"\"".to_vec(),
                    b"0123456789".to_vec(),
                    b" -".to_vec()
                ]
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
