//! Text as it stands between the quotes of a JSON string (RFC 8259, 7).
//!
//! 64 bytes are looked at together. Those among which something has to be escaped are written without a branch for what it is:
//! where the processor has registers of 64 bytes (AVX-512), each byte gets a backslash before it, and those that are not wanted are
//! pressed out; elsewhere by eight, as a table says which of them, and where a backslash, goes to which place. By single bytes are
//! written those among which a control character is that is rare in text. Slow at this are processors on which bytes are not shuffled:
//! on x86 those without SSE4.2, of 2008.
//!
//! Invariant: what is written is, byte for byte, what serde_json writes (`a_text_is_escaped_as_by_serde_json`).

use std::hint::black_box;

use fearless_simd::prelude::*;
use fearless_simd::{Level, dispatch, mask8x64, u8x16, u8x64, u64x2};

use crate::json::HEX_DIGITS;

/// Bytes that are looked at together.
const BLOCK: usize = 64;
/// Bytes that are escaped together.
const PART: usize = 8;

/// Appends `text` to `out`, escaped.
pub(crate) fn escape(text: &str, out: &mut Vec<u8>) {
    let bytes = text.as_bytes();
    if bytes.len() < BLOCK && is_plain(bytes) {
        return out.extend_from_slice(bytes);
    }
    dispatch!(Level::new(), simd => escape_blocks(simd, bytes, out));
}

#[inline(always)]
fn escape_blocks<S: Simd>(simd: S, bytes: &[u8], out: &mut Vec<u8>) {
    let (blocks, rest) = bytes.as_chunks();
    for block in blocks {
        escape_block(simd, block, BLOCK, out);
    }
    if !rest.is_empty() {
        // Blanks have no escape.
        let mut block = [b' '; BLOCK];
        block[..rest.len()].copy_from_slice(rest);
        escape_block(simd, &block, rest.len(), out);
    }
}

/// Appends the first `len` bytes of a block, escaped. Behind them nothing has to be.
#[inline(always)]
fn escape_block<S: Simd>(simd: S, block: &[u8; BLOCK], len: usize, out: &mut Vec<u8>) {
    let bytes = block.get(..len).unwrap_or(block);
    let text = u8x64::simd_from(simd, *block);
    // A number from here on: a mask that lives on behind a branch is taken apart and put together by compilers, byte by byte.
    let specials = black_box(specials(text));
    if specials == 0 {
        return out.extend_from_slice(bytes);
    }
    let mut letters = *block;
    if text.simd_lt(b' ').to_bitmask() != 0 {
        let mut replaced = text;
        for (control, letter) in [(b'\n', b'n'), (b'\r', b'r'), (b'\t', b't')] {
            replaced = text.simd_eq(control).select(u8x64::splat(simd, letter), replaced);
        }
        if replaced.simd_lt(b' ').to_bitmask() != 0 {
            return escape_bytes(bytes, out);
        }
        letters = replaced.into();
    }
    let start = out.len();
    if S::u8s::LEN == BLOCK {
        press_out(simd, u8x64::simd_from(simd, letters), specials, out);
    } else {
        place_by_eight(simd, &letters, specials, out);
    }
    out.truncate(start + len + specials.count_ones() as usize);
}

/// Appends the letters of a block with a backslash before those that are special, and what is to be cut off behind them.
#[inline(always)]
fn press_out<S: Simd>(simd: S, letters: u8x64<S>, specials: u64, out: &mut Vec<u8>) {
    let backslashes = u8x64::splat(simd, b'\\');
    let (none, all) = (u8x64::splat(simd, 0), u8x64::splat(simd, 0xff));
    let wanted = mask8x64::from_bitmask(simd, specials).select(all, none);
    let [front, back] = [
        (backslashes.zip_low(letters), wanted.zip_low(all)),
        (backslashes.zip_high(letters), wanted.zip_high(all)),
    ]
    .map(|(pairs, wanted)| simd.compress_u8x64(pairs, wanted.simd_eq(all)));
    let end = out.len() + BLOCK / 2 + (specials << (BLOCK / 2)).count_ones() as usize;
    out.extend_from_slice(front.as_slice());
    out.truncate(end);
    out.extend_from_slice(back.as_slice());
}

/// The same on any processor that shuffles bytes.
#[inline(always)]
fn place_by_eight<S: Simd>(simd: S, letters: &[u8; BLOCK], specials: u64, out: &mut Vec<u8>) {
    for (letters, specials) in letters.as_chunks::<PART>().0.iter().zip(specials.to_le_bytes()) {
        let (places, len) = &PLACES[usize::from(specials)];
        // The backslash stands behind the letters.
        let letters = u64x2::simd_from(simd, [u64::from_le_bytes(*letters), u64::from(b'\\')]);
        let letters: u8x16<S> = letters.bitcast();
        let escaped = letters.swizzle_dyn_within_blocks(u8x16::simd_from(simd, *places));
        let end = out.len() + usize::from(*len);
        out.extend_from_slice(escaped.as_slice());
        out.truncate(end);
    }
}

/// Which bytes have to be escaped; the lowest bit is the first byte.
#[inline(always)]
fn specials<S: Simd>(text: u8x64<S>) -> u64 {
    (text.simd_eq(b'"') | text.simd_eq(b'\\') | text.simd_lt(b' ')).to_bitmask()
}

/// For each set of bytes of a part that have to be escaped, which of them stands where in the outcome, and its length. The backslash
/// counts as the byte behind the part.
static PLACES: [([u8; 2 * PART], u8); 1 << PART] = {
    let mut all = [([0; 2 * PART], 0); 1 << PART];
    let mut specials = 0;
    while specials < all.len() {
        let (places, len) = &mut all[specials];
        let mut byte = 0;
        while byte < PART {
            if specials >> byte & 1 == 1 {
                places[*len as usize] = PART as u8;
                *len += 1;
            }
            places[*len as usize] = byte as u8;
            *len += 1;
            byte += 1;
        }
        specials += 1;
    }
    all
};

/// What one byte becomes: itself, a two-character escape, or `\u00XX`.
pub(crate) fn escaped_byte_len(byte: u8) -> usize {
    match SHORT[usize::from(byte)] {
        0 if byte < b' ' => 6,
        0 => 1,
        _ => 2,
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

    /// As on a processor that has nothing more than all of its kind.
    fn escaped_anywhere(text: &str) -> String {
        let mut out = Vec::new();
        dispatch!(Level::baseline(), simd => escape_blocks(simd, text.as_bytes(), &mut out));
        String::from_utf8(out).unwrap()
    }

    proptest! {
        #[test]
        fn a_text_is_escaped_as_by_serde_json(
            pieces in proptest::collection::vec(("[a-zé\"\n]{0,90}", "[\0-\u{80}😀]{0,3}|\"{0,140}|\u{1}{0,140}"), 0..6),
        ) {
            let text: String = pieces.iter().flat_map(|(plain, dense)| [plain.as_str(), dense]).collect();
            let expected = serde_json::to_string(&text).unwrap();
            prop_assert_eq!(format!("\"{}\"", escaped(&text)), expected.as_str());
            prop_assert_eq!(format!("\"{}\"", escaped_anywhere(&text)), expected.as_str());
        }
    }

    proptest! {
        #[test]
        fn what_is_pressed_out_is_what_is_placed_by_eight(letters in any::<[[u8; 32]; 2]>(), specials: u64) {
            let letters: [u8; BLOCK] = *letters.as_flattened().first_chunk().unwrap();
            let len = BLOCK + specials.count_ones() as usize;
            let (mut pressed, mut placed) = (Vec::new(), Vec::new());
            dispatch!(Level::baseline(), simd => press_out(simd, u8x64::simd_from(simd, letters), specials, &mut pressed));
            dispatch!(Level::baseline(), simd => place_by_eight(simd, &letters, specials, &mut placed));
            prop_assert_eq!(&pressed[..len], &placed[..len]);
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
