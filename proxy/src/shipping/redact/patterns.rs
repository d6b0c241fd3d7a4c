//! Secrets that have a shape of their own, wherever they stand in a text.
//!
//! JSON Web Tokens, private keys in PEM, card numbers, keys of well-known clouds and forges, user information in URLs,
//! credentials behind `Bearer` and `Basic`, and `name=value` or `name: value` where the name is a secret's.
//!
//! Invariants:
//! - A secret that the end of a cut text goes through is taken out as far as it is there (`a_cut_secret_is_taken_out`).
//! - In JSON a match never crosses the bounds of a string, so that what was valid stays so.

use std::borrow::Cow;
use std::ops::Range;

use memchr::{memmem, memrchr};

use super::REDACTED;
use super::cards;
use super::edits::Edits;
use super::marks;
use super::pairs;
use super::trail::{Rule, Trail};
use super::trigrams::{LENGTH, Trigrams};

/// What a text is, for the patterns.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Around {
    /// Quotes bound strings, as in JSON: a `name: value` doesn't reach across them.
    pub(super) json: bool,
    /// The text's end is not the end of what was sent.
    pub(super) cut: bool,
}

/// Something to take out.
#[derive(Debug)]
pub(super) struct Found<'r> {
    pub(super) range: Range<usize>,
    pub(super) rule: Rule<'r>,
    pub(super) name: &'r [u8],
}

/// How a secret goes on behind the text that it begins with.
#[derive(Clone, Copy, Debug)]
enum Shape {
    Jwt,
    Pem,
    UserInfo,
    /// Its beginning is an authentication scheme, in any case (RFC 9110, 11.1), and the whole of it: a wearer is no bearer.
    Credentials,
    /// So many more characters of a key.
    Key(usize),
}

/// What secrets begin with, the name of the pattern, and how they go on. At most 32.
const BEGINNINGS: [(&str, &str, Shape); 30] = [
    ("eyJ", "jwt", Shape::Jwt),
    ("-----BEGIN ", "pem", Shape::Pem),
    ("://", "userinfo", Shape::UserInfo),
    ("bearer ", "bearer", Shape::Credentials),
    ("basic ", "basic", Shape::Credentials),
    ("AKIA", "aws", Shape::Key(16)),
    ("ASIA", "aws", Shape::Key(16)),
    ("AIza", "google", Shape::Key(30)),
    ("ya29.", "google", Shape::Key(20)),
    ("GOCSPX-", "google", Shape::Key(20)),
    ("ghp_", "github", Shape::Key(30)),
    ("gho_", "github", Shape::Key(30)),
    ("ghu_", "github", Shape::Key(30)),
    ("ghs_", "github", Shape::Key(30)),
    ("ghr_", "github", Shape::Key(30)),
    ("github_pat_", "github", Shape::Key(20)),
    ("glpat-", "gitlab", Shape::Key(20)),
    ("glrt-", "gitlab", Shape::Key(20)),
    ("xox", "slack", Shape::Key(10)),
    ("xapp-", "slack", Shape::Key(10)),
    ("sk_live_", "stripe", Shape::Key(10)),
    ("sk_test_", "stripe", Shape::Key(10)),
    ("rk_live_", "stripe", Shape::Key(10)),
    ("whsec_", "stripe", Shape::Key(10)),
    ("sk-", "model provider", Shape::Key(20)),
    ("npm_", "npm", Shape::Key(30)),
    ("pypi-", "pypi", Shape::Key(20)),
    ("hf_", "hugging face", Shape::Key(30)),
    ("SG.", "sendgrid", Shape::Key(40)),
    ("dop_v1_", "digital ocean", Shape::Key(30)),
];

/// So many characters of a JWT's first part, or of a key that a cut goes through, are enough.
const JWT_HEAD: usize = 10;
const CUT_KEY: usize = 4;
/// Fewer characters behind `Bearer` are prose.
const CREDENTIALS: usize = 6;

/// The first bytes of all.
pub(super) static FIRST: Trigrams = {
    let mut trigrams = Trigrams::new();
    let mut number = 0;
    while number < BEGINNINGS.len() {
        let (text, _, shape) = BEGINNINGS[number];
        let (text, family) = (text.as_bytes(), family(text.as_bytes()[0]));
        trigrams = match shape {
            Shape::Credentials => trigrams.with_any_case(text, family),
            _ => trigrams.with(text, family),
        };
        number += 1;
    }
    trigrams
};

/// The family of those with this first letter, such that what the letters of one make in other orders is rare in texts.
const fn family(first: u8) -> u32 {
    match first {
        b'e' | b'y' => 0,
        b'-' | b':' => 1,
        b'b' => 2,
        b'A' | b'G' | b'S' => 3,
        b'x' => 4,
        b'd' | b'n' | b'p' => 5,
        b'g' => 6,
        _ => 7,
    }
}

/// For each byte, which of [`BEGINNINGS`] may have it as their first, second and third: a bit each.
static BY_BYTE: [[u32; 256]; LENGTH] = [beginnings_by(0), beginnings_by(1), beginnings_by(2)];

const fn beginnings_by(place: usize) -> [u32; 256] {
    let mut which = [0; 256];
    let mut number = 0;
    while number < BEGINNINGS.len() {
        let (text, _, shape) = BEGINNINGS[number];
        let mut byte = 0;
        while byte < which.len() {
            if is_alike(shape, text.as_bytes()[place], byte as u8) {
                which[byte] |= 1 << number;
            }
            byte += 1;
        }
        number += 1;
    }
    which
}

/// Whether a byte may stand in the place of one of a beginning.
const fn is_alike(shape: Shape, wanted: u8, byte: u8) -> bool {
    match shape {
        Shape::Credentials => wanted.eq_ignore_ascii_case(&byte),
        _ => wanted == byte,
    }
}

/// The text without what looks like a secret.
pub(super) fn redact<'t>(names: &pairs::Names<'_>, text: Cow<'t, str>, around: Around, trail: &Trail) -> Cow<'t, str> {
    let found = find(names, text.as_bytes(), around);
    if found.is_empty() {
        return text;
    }
    let mut edits = Edits::new(&text);
    let mut until = 0;
    for one in &found {
        trail.note(one.name, &one.rule);
        let start = one.range.start.max(until);
        if one.range.end > start {
            // What overlaps the last one is a part of the same secret.
            edits.replace(
                start..one.range.end,
                if one.range.start < until { "" } else { REDACTED },
            );
            until = one.range.end;
        }
    }
    Cow::Owned(edits.finish(text.len()).into_owned())
}

/// What looks like a secret, in the order of the text. May overlap.
pub(super) fn find<'t>(names: &pairs::Names<'t>, text: &'t [u8], around: Around) -> Vec<Found<'t>> {
    let mut found = Vec::new();
    let mut cards = cards::Search::new(text, around.cut);
    // Whether the last block ends with a quote.
    let mut quoted = 0;
    for marks in marks::blocks(text) {
        for at in marks.places(marks.beginnings) {
            begun(text, at, around, &mut found);
        }
        // What is behind a quote is behind a key that the structure has judged.
        let behind_quotes = if around.json { marks.quotes << 1 | quoted } else { 0 };
        quoted = marks.quotes >> 63;
        for at in marks.places(marks.separators & !behind_quotes) {
            found.extend(pairs::value(names, text, at, around));
        }
        cards.block(&marks, &mut found);
    }
    cards.end(&mut found);
    // Of two that begin together the shape says more.
    found.sort_by_key(|found| (found.range.start, !matches!(found.rule, Rule::Pattern(_))));
    found
}

/// Adds the secrets that begin at `at`.
#[inline]
fn begun(text: &[u8], at: usize, around: Around, found: &mut Vec<Found<'_>>) {
    let Some([first, second, third]) = text.get(at..).and_then(<[u8]>::first_chunk) else {
        return;
    };
    let by = |place: usize, byte: &u8| BY_BYTE[place][usize::from(*byte)];
    let mut which = by(0, first) & by(1, second) & by(2, third);
    while which != 0 {
        begins(which.trailing_zeros() as usize, text, at, around, found);
        which &= which - 1;
    }
}

/// Adds the secret that begins with one of [`BEGINNINGS`], if it is there.
#[inline(never)]
fn begins(number: usize, text: &[u8], start: usize, around: Around, found: &mut Vec<Found<'_>>) {
    let (_, pattern, shape) = BEGINNINGS[number];
    let range = end_of(number, text, start).and_then(|end| shape.range(text, start, end, around));
    found.extend(range.map(|range| Found {
        range,
        rule: Rule::Pattern(pattern),
        name: b"",
    }));
}

/// Where one of [`BEGINNINGS`] ends that stands at `start`; `None` if it doesn't.
fn end_of(number: usize, text: &[u8], start: usize) -> Option<usize> {
    let (beginning, _, shape) = BEGINNINGS[number];
    let end = start + beginning.len();
    let mut pairs = beginning.bytes().zip(text.get(start..end)?);
    pairs
        .all(|(wanted, byte)| is_alike(shape, wanted, *byte))
        .then_some(end)
}

impl Shape {
    /// The secret whose beginning stands at `start..end`.
    fn range(self, text: &[u8], start: usize, end: usize, around: Around) -> Option<Range<usize>> {
        match self {
            Self::Jwt => jwt(text, start, around.cut),
            Self::Pem => pem(text, start, end),
            Self::UserInfo => user_info(text, end, around.cut),
            Self::Credentials => {
                let secret = run(text, end, |byte| {
                    is_key(byte) || matches!(byte, b'+' | b'/' | b'=' | b'~')
                });
                let enough = secret.len() >= CREDENTIALS || (around.cut && secret.end == text.len());
                (enough && !secret.is_empty() && text.get(secret.clone()) != Some(REDACTED.as_bytes()))
                    .then_some(secret)
            }
            Self::Key(least) => {
                let key = run(text, end, is_key);
                let cut = around.cut && key.end == text.len() && key.len() >= CUT_KEY;
                let digits = text.get(key.clone()).unwrap_or_default().iter().any(u8::is_ascii_digit);
                let whole = key.len() >= least && digits;
                (is_start(text, start) && (whole || cut)).then_some(start..key.end)
            }
        }
    }
}

/// `header.payload.signature` (RFC 7519), of which the payload may be empty, and all but the header cut off.
fn jwt(text: &[u8], start: usize, cut: bool) -> Option<Range<usize>> {
    let all = run(text, start, is_key);
    let head = run(text, start, |byte| is_key(byte) && byte != b'.');
    let parts = head.len() >= JWT_HEAD && head.end < all.end;
    let begun = cut && all.end == text.len() && head.len() >= CUT_KEY;
    (is_start(text, start) && (parts || begun)).then_some(all)
}

/// A private key with both its lines, or as far as it is there (RFC 7468). Line ends may be escaped.
fn pem(text: &[u8], start: usize, end: usize) -> Option<Range<usize>> {
    const KIND: &[u8] = b"PRIVATE KEY";
    let line = text.get(end..)?;
    let label = run(line, 0, |byte| {
        byte.is_ascii_uppercase() || byte == b' ' || byte.is_ascii_digit()
    });
    let label = line.get(label)?;
    let begun = label.len() < 32 && end + label.len() == text.len();
    if memmem::find(label, KIND).is_none() && !begun {
        return None;
    }
    let body = end + label.len();
    let closing = text
        .get(body..)
        .and_then(|rest| memmem::find(rest, b"-----END "))
        .map(|at| body + at);
    let stop = match closing {
        Some(at) => {
            let behind = at + b"-----END ".len();
            let label = run(text, behind, |byte| byte.is_ascii_uppercase() || byte == b' ');
            run(text, label.end, |byte| byte == b'-').end
        }
        None => run(text, body, |byte| !matches!(byte, b'"' | b'\'' | b'<' | b'&')).end,
    };
    Some(start..stop)
}

/// What stands before `@` in a URL's authority (RFC 3986, 3.2.1).
fn user_info(text: &[u8], start: usize, cut: bool) -> Option<Range<usize>> {
    let authority = run(text, start, |byte| {
        !byte.is_ascii_whitespace() && !matches!(byte, b'/' | b'?' | b'#' | b'"' | b'\\' | b'<' | b'>')
    });
    let bytes = text.get(authority.clone())?;
    let info = match memrchr(b'@', bytes) {
        Some(at) => start..start + at,
        // The @ may be behind the cut; a port of digits looks the same as a password of digits.
        None if cut && authority.end == text.len() => start + memchr::memchr(b':', bytes)? + 1..authority.end,
        None => return None,
    };
    (!info.is_empty() && text.get(info.clone()) != Some(REDACTED.as_bytes())).then_some(info)
}

/// Characters of base64url, and the dots between the parts of tokens.
fn is_key(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.')
}

/// Whether no word goes on here: `task-force` holds no `sk-`.
fn is_start(text: &[u8], at: usize) -> bool {
    let before = at.checked_sub(1).and_then(|at| text.get(at));
    before.is_none_or(|byte| !byte.is_ascii_alphanumeric())
}

/// The bytes from `start` on that are such.
pub(super) fn run(text: &[u8], start: usize, such: impl Fn(u8) -> bool) -> Range<usize> {
    let rest = text.get(start..).unwrap_or_default();
    let len = rest.iter().position(|byte| !such(*byte)).unwrap_or(rest.len());
    start..start + len
}

#[cfg(test)]
mod tests {
    use super::super::Rules;
    use super::super::judged::Judged;
    use super::*;
    use crate::settings::Redaction;
    use proptest::prelude::*;

    proptest! {
        /// A piece is some letters, and one of the beginnings with what makes it a secret or doesn't. The first one may begin anywhere
        /// in a batch of marks.
        #[test]
        fn what_has_a_shape_is_found_wherever_it_stands(
            pieces in proptest::collection::vec(
                ("[ a-z\":./_-]{0,70}", 0..BEGINNINGS.len(), prop_oneof![Just(0), any::<u32>()], "[ -/:]{0,1}[A-Za-z0-9_.@-]{0,45}"),
                0..6,
            ),
            before in prop_oneof![0..1_usize, 950..1050_usize],
            cut: bool,
        ) {
            let mut text = "~".repeat(before);
            for (before, number, capitals, behind) in &pieces {
                text.push_str(before);
                for (at, letter) in BEGINNINGS[*number].0.chars().enumerate() {
                    let is_capital = capitals >> at & 1 == 1;
                    text.push(if is_capital { letter.to_ascii_uppercase() } else { letter });
                }
                text.push_str(behind);
            }
            let around = Around { json: false, cut };
            let mut expected = Vec::new();
            for start in 0..text.len() {
                for (number, (_, pattern, shape)) in BEGINNINGS.into_iter().enumerate() {
                    let end = end_of(number, text.as_bytes(), start);
                    let range = end.and_then(|end| shape.range(text.as_bytes(), start, end, around));
                    expected.extend(range.map(|range| (range.start, range.end, pattern)));
                }
            }
            let judged = Judged::default();
            let rules = Rules::new(&Redaction::default());
            let names = pairs::Names { rules: &rules, judged: &judged };
            let mut found: Vec<_> = find(&names, text.as_bytes(), around)
                .into_iter()
                .filter_map(|found| match found.rule {
                    Rule::Pattern(pattern) if pattern != "card" => Some((found.range.start, found.range.end, pattern)),
                    _ => None,
                })
                .collect();
            expected.sort_unstable();
            found.sort_unstable();
            prop_assert_eq!(found, expected);
        }
    }
}
