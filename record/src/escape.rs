//! Text as it stands between the quotes of a JSON string (RFC 8259, 7).
//!
//! What has to be escaped is found in 64 bytes at once, a bit each. What stands between is copied in steps of a fixed size, as
//! most of it is short: a branch for each length would be mispredicted most of the time.
//!
//! Invariant: what is written is, byte for byte, what serde_json writes (`a_text_is_escaped_as_by_serde_json`).

use wide::u8x64;

use crate::json::HEX_DIGITS;

/// Bytes that are looked at together.
const BLOCK: usize = 64;
/// Bytes that are copied at once.
const STEP: usize = 32;
/// A block, and what a step may read beyond it.
const WINDOW: usize = BLOCK + STEP;
/// What a block takes in escapes of two bytes, and what a step may write beyond it.
const ROOM: usize = 2 * BLOCK + STEP;

/// Appends `text` to `out`, escaped.
pub(crate) fn escape(text: &str, out: &mut Vec<u8>) {
    let mut rest = text.as_bytes();
    while let Some(window) = rest.first_chunk() {
        escape_block(window, BLOCK, out);
        rest = rest.get(BLOCK..).unwrap_or_default();
    }
    if is_plain(rest) {
        return out.extend_from_slice(rest);
    }
    while !rest.is_empty() {
        let (front, behind) = rest.split_at(rest.len().min(BLOCK));
        // Blanks have no escape.
        let mut window = [b' '; WINDOW];
        window[..front.len()].copy_from_slice(front);
        escape_block(&window, front.len(), out);
        rest = behind;
    }
}

/// What one byte becomes: itself, a two-character escape, or `\u00XX`.
pub(crate) fn escaped_byte_len(byte: u8) -> usize {
    match SHORT[usize::from(byte)] {
        0 if byte < b' ' => 6,
        0 => 1,
        _ => 2,
    }
}

/// Appends the first `len` bytes of a window, escaped; at most a block's.
#[inline(always)]
fn escape_block(window: &[u8; WINDOW], len: usize, out: &mut Vec<u8>) {
    let block = window.first_chunk().unwrap_or(&[b' '; BLOCK]);
    let mut specials = specials(block);
    let bytes = window.get(..len).unwrap_or_default();
    if specials == 0 {
        return out.extend_from_slice(bytes);
    }
    let start = out.len();
    out.extend_from_slice(&[0; ROOM]);
    let (mut from, mut to) = (0, start);
    while specials != 0 {
        let at = specials.trailing_zeros() as usize;
        let escape = SHORT[usize::from(block[at])];
        if escape == 0 {
            out.truncate(start);
            return escape_bytes(bytes, out);
        }
        copy(window, from, at - from, out, to);
        to += at - from;
        put(&[b'\\', escape], out, to);
        to += 2;
        from = at + 1;
        specials &= specials - 1;
    }
    copy(window, from, len - from, out, to);
    out.truncate(to + len - from);
}

/// Copies the `len` bytes from `from` on, and what is behind them, to `to` in `out`; at most a block's.
#[inline(always)]
fn copy(window: &[u8; WINDOW], from: usize, len: usize, out: &mut [u8], to: usize) {
    step(window, from, out, to);
    if len > STEP {
        step(window, from + STEP, out, to + STEP);
    }
}

#[inline(always)]
fn step(window: &[u8; WINDOW], from: usize, out: &mut [u8], to: usize) {
    let bytes = window.get(from..).and_then(<[u8]>::first_chunk::<STEP>);
    debug_assert!(bytes.is_some(), "a window holds a step from anywhere in its block");
    if let Some(bytes) = bytes {
        put(bytes, out, to);
    }
}

#[inline(always)]
fn put<const N: usize>(bytes: &[u8; N], out: &mut [u8], at: usize) {
    let place = out.get_mut(at..).and_then(<[u8]>::first_chunk_mut);
    debug_assert!(place.is_some(), "a block has room for its escapes");
    if let Some(place) = place {
        *place = *bytes;
    }
}

/// One by one, as some have escapes of six bytes.
#[cold]
fn escape_bytes(bytes: &[u8], out: &mut Vec<u8>) {
    for byte in bytes {
        match SHORT[usize::from(*byte)] {
            0 if *byte < b' ' => {
                out.extend_from_slice(b"\\u00");
                out.extend_from_slice(&[HEX_DIGITS[usize::from(byte >> 4)], HEX_DIGITS[usize::from(byte & 15)]]);
            }
            0 => out.push(*byte),
            escape => out.extend_from_slice(&[b'\\', escape]),
        }
    }
}

/// The second byte of the two that stand for a byte; 0 if it has no such escape.
static SHORT: [u8; 256] = {
    let mut short = [0; 256];
    short[b'"' as usize] = b'"';
    short[b'\\' as usize] = b'\\';
    short[0x08] = b'b';
    short[b'\t' as usize] = b't';
    short[b'\n' as usize] = b'n';
    short[0x0c] = b'f';
    short[b'\r' as usize] = b'r';
    short
};

/// Which bytes have to be escaped; the lowest bit is the first byte.
#[inline(always)]
fn specials(block: &[u8; BLOCK]) -> u64 {
    let block = u8x64::new(*block);
    let is = |byte| block.simd_eq(u8x64::splat(byte));
    (is(b'"') | is(b'\\') | block.simd_lt(u8x64::splat(b' '))).to_bitmask()
}

/// Whether nothing has to be escaped, for texts that are mostly shorter than a block.
#[inline(always)]
fn is_plain(bytes: &[u8]) -> bool {
    match bytes.last_chunk() {
        Some(last) => bytes.as_chunks().0.iter().all(word_is_plain) && word_is_plain(last),
        None => bytes.iter().all(|byte| escaped_byte_len(*byte) == 1),
    }
}

/// The same for eight bytes: of what is less than a bound, subtracting the bound borrows from the highest bit.
#[inline(always)]
fn word_is_plain(word: &[u8; 8]) -> bool {
    const ONES: u64 = u64::MAX / 255;
    let word = u64::from_le_bytes(*word);
    let less = |word: u64, bound: u64| word.wrapping_sub(ONES * bound) & !word;
    let is = |byte: u8| less(word ^ (ONES * u64::from(byte)), 1);
    (is(b'"') | is(b'\\') | less(word, 0x20)) & (ONES << 7) == 0
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn escaped(text: &str) -> String {
        let mut out = b"before".to_vec();
        escape(text, &mut out);
        String::from_utf8(out).unwrap().split_off("before".len())
    }

    proptest! {
        #[test]
        fn a_text_is_escaped_as_by_serde_json(
            pieces in proptest::collection::vec(("[a-zé\"\n]{0,90}", "[\0-\u{80}😀]{0,3}|\"{0,140}|\u{1}{0,140}"), 0..6),
        ) {
            let text: String = pieces.iter().flat_map(|(plain, dense)| [plain.as_str(), dense]).collect();
            let expected = serde_json::to_string(&text).unwrap();
            prop_assert_eq!(format!("\"{}\"", escaped(&text)), expected);
        }
    }

    #[test]
    fn each_byte_is_escaped_at_each_place() {
        for (byte, before) in (0..=0x7f_u8).flat_map(|byte| (0..200).map(move |before| (byte, before))) {
            for behind in [0, 1, 200] {
                let text = format!("{}{}{}", "~".repeat(before), char::from(byte), "~".repeat(behind));
                let escaped = escaped(&text);
                assert_eq!(format!("\"{escaped}\""), serde_json::to_string(&text).unwrap());
                assert_eq!(escaped.len(), before + escaped_byte_len(byte) + behind);
            }
        }
    }
}
