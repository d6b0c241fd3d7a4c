//! Where in a text a secret may be, and where its strings may end: the bytes that tell are looked for in 64 at a time, a bit each.
//!
//! Invariants:
//! - What is marked is what stands there, wherever the text's blocks begin and end (`each_byte_is_marked_for_what_it_is`,
//!   `each_end_is_found_from_each_place`).
//! - No end is told that isn't the next one: who goes back gets none (`no_end_is_found_on_the_way_back`).

use wide::u8x16;

/// Bytes that are looked at together, in lanes.
const BLOCK: usize = 64;
const LANE: usize = 16;

/// The bytes by which the patterns' beginnings are found: each holds one of them. With the bytes around it, that tells most
/// other texts at once.
pub(super) const ANCHORS: [u8; 9] = *b"_-/.IJxBb";

/// What stands in 64 bytes of a text; the lowest bit is the first byte.
#[derive(Clone, Copy, Debug, Default)]
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

/// The blocks of a text.
#[inline]
pub(super) fn blocks(text: &[u8]) -> impl Iterator<Item = Marks> {
    let (whole, rest) = text.as_chunks::<BLOCK>();
    let last = (!rest.is_empty()).then(|| Marks::of(&padded(rest), whole.len() * BLOCK));
    let whole = whole.iter().enumerate();
    whole
        .map(|(number, block)| Marks::of(block, number * BLOCK))
        .chain(last)
}

impl Marks {
    #[inline(always)]
    fn of(block: &[u8; BLOCK], from: usize) -> Self {
        let mut marks = Self {
            from,
            ..Self::default()
        };
        let (lanes, _) = block.as_chunks::<LANE>();
        for lane in lanes.iter().rev() {
            marks.look(u8x16::new(*lane));
        }
        marks
    }

    /// Adds a lane, from the last to the first.
    #[inline(always)]
    fn look(&mut self, lane: u8x16) {
        let is = |byte| lane.simd_eq(u8x16::splat(byte));
        let add = |marks: &mut u64, mask: u8x16| *marks = *marks << LANE | u64::from(mask.to_bitmask());
        // One comparison for two bytes that differ in this bit.
        let either = |byte, bit| (lane | u8x16::splat(bit)).simd_eq(u8x16::splat(byte | bit));
        let hyphens = is(b'-');
        let anchors = hyphens | either(b'.', 1) | either(b'B', 0x20) | is(b'_') | is(b'I') | is(b'J') | is(b'x');
        add(&mut self.joints, hyphens | is(b' '));
        add(&mut self.anchors, anchors);
        add(&mut self.separators, is(b'=') | is(b':'));
        add(&mut self.quotes, is(b'"'));
        add(&mut self.digits, (lane - u8x16::splat(b'0')).simd_lt(u8x16::splat(10)));
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
    /// The place that was asked for last.
    asked: usize,
}

impl Ends {
    /// None of a text that is longer than its places can say.
    pub(super) fn new(text: &[u8]) -> Self {
        let mut places = Vec::new();
        if u32::try_from(text.len()).is_ok() {
            // In most JSON there are fewer.
            places.reserve(text.len() / 4);
            let (whole, rest) = text.as_chunks::<BLOCK>();
            let last = (!rest.is_empty()).then(|| padded(rest));
            for (from, block) in (0..).step_by(BLOCK).zip(whole.iter().chain(&last)) {
                let mut ends = Self::of(block);
                while ends != 0 {
                    places.push(from + ends.trailing_zeros());
                    ends &= ends - 1;
                }
            }
        }
        Self {
            places,
            next: 0,
            asked: 0,
        }
    }

    /// The first at or behind `at`; `None` if there is none, and if `at` is before that of the last call.
    #[inline]
    pub(super) fn next(&mut self, at: usize) -> Option<usize> {
        if at < self.asked {
            return None;
        }
        self.asked = at;
        loop {
            let place = *self.places.get(self.next)? as usize;
            if place >= at {
                return Some(place);
            }
            self.next += 1;
        }
    }

    #[inline(always)]
    fn of(block: &[u8; BLOCK]) -> u64 {
        let (lanes, _) = block.as_chunks::<LANE>();
        let of_lane = |lane: &[u8; LANE]| {
            let lane = u8x16::new(*lane);
            let ends = lane.simd_eq(u8x16::splat(b'"')) | lane.simd_eq(u8x16::splat(b'\\'));
            u64::from(ends.to_bitmask())
        };
        lanes.iter().rev().fold(0, |ends, lane| ends << LANE | of_lane(lane))
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
    fn each_end_is_found_from_each_place() {
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
                let mut last = 0;
                for at in (0..length + 5).step_by(step) {
                    let at = at.max(last);
                    let expected = text
                        .iter()
                        .skip(at)
                        .position(|byte| *byte != b'~')
                        .map(|behind| at + behind);
                    assert_eq!(ends.next(at), expected);
                    last = expected.unwrap_or(last);
                }
            }
        }
    }

    #[test]
    fn no_end_is_found_on_the_way_back() {
        let mut ends = Ends::new(b"\"a\"b\"");
        assert_eq!((ends.next(3), ends.next(1), ends.next(3)), (Some(4), None, Some(4)));
    }
}
