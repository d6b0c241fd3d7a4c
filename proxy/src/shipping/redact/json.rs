//! JSON, also cut, broken, or several documents one behind the other: one pass over its bytes that knows at each value
//! under which key and path it stands.
//!
//! Values of secret keys become `"REDACTED"`; of objects and arrays under such a key every scalar does, so that the
//! structure stays to be read. `null` stays. Strings with escapes are searched unescaped, and as JSON where they hold some.
//!
//! Invariants:
//! - Valid JSON stays valid (`valid_json_stays_valid_and_no_marked_value_survives`).
//! - What can't be placed ends the text: nothing behind it is kept (`what_cannot_be_placed_is_left_out`).
//! - Nothing is copied while nothing is replaced and no string has escapes.

use std::borrow::Cow;
use std::ops::Range;

use memchr::memchr2;

use super::edits::Edits;
use super::escape;
use super::marks::Ends;
use super::patterns::{Around, run};
use super::trail::Rule;
use super::{REDACTED_STRING, SHORT, Scope};
use crate::settings::Step;

/// Deeper JSON can't be placed.
const DEPTH: u32 = 128;
/// A text without its secrets, as far as it could be placed.
#[derive(Debug)]
pub(super) struct Redacted<'t> {
    pub(super) text: Cow<'t, str>,
    pub(super) placed: bool,
}

/// Takes the secrets out of JSON; `level` counts the strings it stands in.
pub(super) fn redact<'t>(scope: &Scope<'_>, text: &'t str, cut: bool, level: u8) -> Redacted<'t> {
    let mut walk = Walk::new(scope, text, cut, level);
    let placed = walk.all().is_some();
    let end = walk.at;
    let structured = walk.edits.finish(end);
    let around = Around {
        json: true,
        cut: cut || !placed,
    };
    Redacted {
        text: scope.patterns(structured, around),
        placed,
    }
}

/// What may come next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Expect {
    /// A value; in an array also its end.
    Value,
    /// A key, or the object's end.
    Key,
    /// A comma or an end; at the top another document.
    After,
}

struct Walk<'t, 's> {
    scope: &'s Scope<'s>,
    text: &'t str,
    bytes: &'t [u8],
    ends: Ends,
    at: usize,
    cut: bool,
    level: u8,
    edits: Edits<'t>,
    /// One bit for each open container, the innermost lowest: whether it is an object.
    objects: u128,
    depth: u32,
    expect: Expect,
    /// The key of the value that comes, and the rule that takes it out.
    key: Range<usize>,
    rule: Option<Rule<'s>>,
    /// Within which depth everything is taken out.
    secret: Option<(u32, Rule<'s>)>,
    /// How many steps of each path lead to where we are.
    progress: Vec<u32>,
}

impl<'t, 's> Walk<'t, 's> {
    fn new(scope: &'s Scope<'s>, text: &'t str, cut: bool, level: u8) -> Self {
        Self {
            scope,
            text,
            bytes: text.as_bytes(),
            ends: Ends::new(text.as_bytes()),
            at: 0,
            cut,
            level,
            edits: Edits::new(text),
            objects: 0,
            depth: 0,
            expect: Expect::Value,
            key: 0..0,
            rule: None,
            secret: None,
            progress: vec![0; scope.paths().len()],
        }
    }

    /// Walks to the end; `None` when something can't be placed, and `at` is where it begins.
    fn all(&mut self) -> Option<()> {
        if self.text.starts_with('\u{feff}') {
            self.at = '\u{feff}'.len_utf8();
        }
        while let Some(byte) = self.next() {
            match self.expect {
                Expect::Value => self.value(byte)?,
                Expect::Key => self.members()?,
                Expect::After => self.after(byte)?,
            }
        }
        Some(())
    }

    /// The next byte that is no blank.
    fn next(&mut self) -> Option<u8> {
        self.at = behind_blanks(self.bytes, self.at);
        self.bytes.get(self.at).copied()
    }

    /// Walks over members as long as they are plain; where another comes, over its key.
    fn members(&mut self) -> Option<()> {
        if self.secret.is_none() && self.progress.is_empty() {
            self.plain_members();
            if self.expect != Expect::Key {
                return Some(());
            }
        }
        match self.bytes.get(self.at) {
            Some(byte) => self.key(*byte),
            None => Some(()),
        }
    }

    /// Walks over members as long as they are plain: a key, and if it is no secret's a string without escapes or a short scalar, and a
    /// comma. At what is not plain the walk goes on as everywhere, with the rule for the key; until then there is none.
    ///
    /// Where it is stays in registers, as each step would wait for the one before in memory.
    fn plain_members(&mut self) {
        let (bytes, names) = (self.bytes, self.scope.names());
        let mut ends = std::mem::take(&mut self.ends);
        let mut at = self.at;
        loop {
            let Some((key, value)) = plain_key(bytes, &mut ends, at) else {
                self.at = at;
                break;
            };
            if let Some(rule) = names.rule_at(bytes, key.clone()) {
                (self.at, self.expect) = (value, Expect::Value);
                (self.key, self.rule) = (key, Some(rule));
                break;
            }
            let end = match bytes.get(value) {
                Some(b'"') => plain_string(bytes, &mut ends, value).map(|inner| inner.end + 1),
                _ => short_scalar(bytes, value),
            };
            let Some(end) = end else {
                (self.at, self.expect) = (value, Expect::Value);
                self.key = key;
                break;
            };
            at = behind_blanks(bytes, end);
            if bytes.get(at) != Some(&b',') {
                (self.at, self.expect) = (at, Expect::After);
                break;
            }
            at = behind_blanks(bytes, at + 1);
        }
        self.ends = ends;
    }

    fn in_object(&self) -> bool {
        self.depth > 0 && self.objects & 1 == 1
    }

    fn after(&mut self, byte: u8) -> Option<()> {
        match byte {
            b',' => {
                self.at += 1;
                self.expect = if self.in_object() { Expect::Key } else { Expect::Value };
            }
            b'}' | b']' => self.close(byte)?,
            _ if self.depth == 0 => self.value(byte)?,
            _ => return None,
        }
        Some(())
    }

    fn key(&mut self, byte: u8) -> Option<()> {
        if byte == b'}' {
            return self.close(byte);
        }
        let start = self.at;
        let key = match byte {
            b'"' | b'\'' => self.quoted(byte),
            _ => {
                let bare = run(self.bytes, start, |byte| {
                    byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-' | b'$')
                });
                Quoted {
                    end: bare.end,
                    inner: bare,
                    escapes: false,
                }
            }
        };
        if key.end == start {
            return None;
        }
        self.at = key.end;
        let Some(byte) = self.next() else {
            return Some(());
        };
        if byte != b':' {
            self.at = start;
            return None;
        }
        self.at += 1;
        self.judge(key);
        self.expect = Expect::Value;
        Some(())
    }

    /// Finds the rule for the value behind `key`.
    fn judge(&mut self, key: Quoted) {
        self.key = key.inner;
        let raw = self.text.get(self.key.clone()).unwrap_or_default();
        let undone = key.escapes.then(|| escape::undone(raw));
        self.rule = match &undone {
            Some(name) => self.scope.name(name.as_bytes()),
            None => self.scope.name_at(self.bytes, self.key.clone()),
        };
        if !self.progress.is_empty() {
            let name = undone.as_deref().unwrap_or(raw);
            let on = self.step(|step| matches!(step, Step::Key(key) if key.to_lowercase() == name.to_lowercase()));
            self.rule = self.rule.or(on);
        }
    }

    /// The string that begins here. Inlined in its two places, as most strings are short.
    #[inline(always)]
    fn quoted(&mut self, quote: u8) -> Quoted {
        match plain_string(self.bytes, &mut self.ends, self.at) {
            Some(inner) => Quoted {
                end: inner.end + 1,
                inner,
                escapes: false,
            },
            None => string(self.bytes, self.at, quote),
        }
    }

    /// Follows the paths one level down; gives the one that ends here.
    fn step(&mut self, fits: impl Fn(&Step) -> bool) -> Option<Rule<'s>> {
        let mut ends = None;
        for (path, progress) in self.scope.paths().iter().zip(&mut self.progress) {
            *progress = (*progress).min(self.depth - 1);
            let reached = *progress + 1 == self.depth;
            if reached && path.steps.get(*progress as usize).is_some_and(&fits) {
                *progress += 1;
                if path.steps.len() == *progress as usize {
                    ends = Some(Rule::Path(&path.text));
                }
            }
        }
        ends
    }

    fn value(&mut self, byte: u8) -> Option<()> {
        if self.depth > 0 && !self.in_object() && byte != b']' {
            self.rule = if self.progress.is_empty() {
                None
            } else {
                self.step(|step| *step == Step::Elements)
            };
        }
        match byte {
            b'{' | b'[' => return self.open(byte == b'{'),
            b']' if self.depth > 0 && !self.in_object() => return self.close(byte),
            b'"' | b'\'' => self.string(byte),
            b',' | b':' | b'}' | b']' => return None,
            _ => self.scalar(),
        }
        self.rule = None;
        self.expect = Expect::After;
        Some(())
    }

    fn open(&mut self, object: bool) -> Option<()> {
        if self.depth == DEPTH {
            return None;
        }
        self.depth += 1;
        self.objects = self.objects << 1 | u128::from(object);
        if let Some(rule) = self.rule.take().filter(|_| self.secret.is_none()) {
            self.secret = Some((self.depth, rule));
        }
        self.expect = if object { Expect::Key } else { Expect::Value };
        self.at += 1;
        Some(())
    }

    fn close(&mut self, byte: u8) -> Option<()> {
        if self.depth == 0 || self.in_object() != (byte == b'}') {
            return None;
        }
        if self.secret.is_some_and(|(depth, _)| depth == self.depth) {
            self.secret = None;
        }
        self.depth -= 1;
        self.objects >>= 1;
        for progress in &mut self.progress {
            *progress = (*progress).min(self.depth);
        }
        self.expect = Expect::After;
        self.at += 1;
        Some(())
    }

    /// The rule that takes out the scalar here.
    fn taken_out(&self) -> Option<Rule<'s>> {
        self.rule.or(self.secret.map(|(_, rule)| rule))
    }

    fn take_out(&mut self, token: Range<usize>, rule: &Rule<'_>) {
        let key = self.bytes.get(self.key.clone()).unwrap_or_default();
        self.scope.trail.note(key, rule);
        self.edits.replace(token, REDACTED_STRING);
    }

    fn string(&mut self, quote: u8) {
        let start = self.at;
        let string = self.quoted(quote);
        self.at = string.end;
        if let Some(rule) = self.taken_out() {
            if !string.inner.is_empty() {
                self.take_out(start..string.end, &rule);
            }
        } else if string.escapes {
            let raw = self.text.get(string.inner.clone()).unwrap_or_default();
            let cut = self.cut && string.end == self.bytes.len();
            let undone = escape::undone(raw);
            if let Cow::Owned(redacted) = self.scope.embedded(&undone, cut, self.level + 1) {
                self.edits.replace(string.inner, &escape::escaped(&redacted));
            }
        }
    }

    /// A number, a literal, or a bare word.
    fn scalar(&mut self) {
        let token = run(self.bytes, self.at, |byte| {
            !matches!(byte, b',' | b':' | b'}' | b']' | b'{' | b'[' | b'"') && !is_blank(byte)
        });
        self.at = token.end;
        let Some(text) = self.text.get(token.clone()) else {
            return;
        };
        let cut = self.cut && token.end == self.bytes.len();
        match self.taken_out() {
            Some(_) if text == "null" => {}
            Some(rule) => self.take_out(token, &rule),
            None if text.len() < SHORT && !cut => {}
            None => {
                let rule = self.scope.shape(text, Around { json: true, cut });
                if let Some(rule) = rule {
                    self.take_out(token, &rule);
                }
            }
        }
    }
}

/// Where the next token begins, at or behind `at`.
#[inline]
fn behind_blanks(bytes: &[u8], mut at: usize) -> usize {
    // All blanks are below; most tokens stand right here.
    while bytes.get(at).is_some_and(|byte| *byte <= b' ' && is_blank(*byte)) {
        at += 1;
    }
    at
}

/// What the string holds that begins with the `"` at `start`; `None` if it has escapes or doesn't end.
#[inline]
fn plain_string(bytes: &[u8], ends: &mut Ends, start: usize) -> Option<Range<usize>> {
    if bytes.get(start) != Some(&b'"') {
        return None;
    }
    let end = ends.behind(start)?;
    (bytes.get(end) == Some(&b'"')).then_some(start + 1..end)
}

/// The key without escapes that begins here, and where its value does.
#[inline]
fn plain_key(bytes: &[u8], ends: &mut Ends, start: usize) -> Option<(Range<usize>, usize)> {
    let key = plain_string(bytes, ends, start)?;
    let colon = behind_blanks(bytes, key.end + 1);
    (bytes.get(colon) == Some(&b':')).then(|| (key, behind_blanks(bytes, colon + 1)))
}

/// Where a number or literal ends that is too short for a secret. All its bytes are looked at, as a branch at its end would be
/// mispredicted.
#[inline]
fn short_scalar(bytes: &[u8], start: usize) -> Option<usize> {
    let window: &[u8; SHORT] = bytes.get(start..)?.first_chunk()?;
    let others = window.iter().enumerate().fold(0, |others, (at, byte)| {
        others | u32::from(!PLAIN[usize::from(*byte)]) << at
    });
    let len = others.trailing_zeros() as usize;
    let behind = *window.get(len)?;
    let ends = matches!(behind, b',' | b'}') || is_blank(behind);
    (len > 0 && ends).then_some(start + len)
}

static PLAIN: [bool; 256] = {
    let mut plain = [false; 256];
    let mut byte = 0;
    while byte < 256 {
        plain[byte] = is_plain(byte as u8);
        byte += 1;
    }
    plain
};

/// Whether numbers and literals have such a byte.
const fn is_plain(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || matches!(byte, b'+' | b'-' | b'.')
}

/// What stands between tokens, and in no bare one: else a walk would stay where it is for ever.
fn is_blank(byte: u8) -> bool {
    // 0x1e begins the documents of a JSON text sequence (RFC 7464).
    matches!(byte, b' ' | b'\n' | b'\r' | b'\t' | 0x1e)
}

/// A string as it stands in a text.
struct Quoted {
    inner: Range<usize>,
    /// Behind its closing quote, or of the text.
    end: usize,
    escapes: bool,
}

/// The string whose opening quote is at `start`, with whatever escapes.
#[cold]
fn string(bytes: &[u8], start: usize, quote: u8) -> Quoted {
    let mut at = start + 1;
    let mut escapes = false;
    loop {
        let rest = bytes.get(at..).unwrap_or_default();
        match memchr2(quote, b'\\', rest) {
            None => {
                return Quoted {
                    inner: start + 1..bytes.len(),
                    end: bytes.len(),
                    escapes,
                };
            }
            Some(found) if rest.get(found) == Some(&quote) => {
                return Quoted {
                    inner: start + 1..at + found,
                    end: at + found + 1,
                    escapes,
                };
            }
            Some(found) => {
                escapes = true;
                at += found + 2;
            }
        }
    }
}
