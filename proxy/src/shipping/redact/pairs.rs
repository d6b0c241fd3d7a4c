//! `name=value`, `name: value` and `"name": "value"` in a text that has no structure of its own.

use std::borrow::Cow;
use std::ops::Range;

use percent_encoding::percent_decode;

use super::judged::{Judged, Verdict};
use super::patterns::{Around, Found, run};
use super::trail::Rule;
use super::{REDACTED, Rules, names};

/// Names of secrets: the built-in ones, and those of the configuration.
#[derive(Clone, Copy, Debug)]
pub(super) struct Names<'r> {
    pub(super) rules: &'r Rules,
    pub(super) judged: &'r Judged,
}

/// A longer name is read from its end.
const NAME_MAX: usize = 64;

impl<'r> Names<'r> {
    /// The rule that makes a name secret.
    pub(super) fn rule(&self, name: &[u8]) -> Option<Rule<'r>> {
        self.look_up(name, 0..name.len())
    }

    /// The same for a name that stands in a text.
    #[inline(always)]
    pub(super) fn rule_at(&self, text: &[u8], name: Range<usize>) -> Option<Rule<'r>> {
        if self.judged.knows_open(self.rules.id, text, &name) {
            return None;
        }
        self.look_up(text, name)
    }

    #[inline(never)]
    fn look_up(&self, text: &[u8], name: Range<usize>) -> Option<Rule<'r>> {
        match self.judged.verdict(self.rules.id, text, name, |name| self.judge(name)) {
            Verdict::Open => None,
            Verdict::Listed(word) => Some(Rule::Name(word)),
            Verdict::Configured(number) => {
                let name = self.rules.names.get(number);
                Some(Rule::Configured(name.map_or("", |(written, _)| written)))
            }
        }
    }

    fn judge(&self, name: &[u8]) -> Verdict {
        if let Some(word) = names::secret(name) {
            return Verdict::Listed(word);
        }
        let own = self.rules.names.iter().position(|(_, flat)| names::is(flat, name));
        own.map_or(Verdict::Open, Verdict::Configured)
    }
}

/// The value to take out at the `=` or `:` at `at`, if what stands before it is the name of a secret.
pub(super) fn value<'t>(names: &Names<'t>, text: &'t [u8], at: usize, around: Around) -> Option<Found<'t>> {
    let is_quote = |byte: u8| byte == b'\'' || (!around.json && matches!(byte, b'"' | b'\\'));
    let before = text.get(..at)?;
    let end = before
        .iter()
        .rposition(|byte| !is_blank(*byte))
        .map_or(0, |last| last + 1);
    let end = before
        .get(..end)?
        .iter()
        .rposition(|byte| !is_quote(*byte))
        .map_or(0, |last| last + 1);
    let head = before.get(..end)?;
    let (mut len, mut letters) = (0, 0);
    for byte in head.iter().rev().take(NAME_MAX) {
        match NAME[usize::from(*byte)] {
            InName::No => break,
            InName::Other => {}
            InName::Letter => letters += 1,
        }
        len += 1;
    }
    // Most are of a time.
    if letters < names.rules.fewest_letters {
        return None;
    }
    let start = end - len;
    let name = head.get(start..)?;
    // A namespace's prefix in XML names no value.
    if name.is_empty() || head.get(..start)?.ends_with(b"xmlns:") {
        return None;
    }
    let decoded: Cow<'_, [u8]> = if name.contains(&b'%') {
        percent_decode(name).into()
    } else {
        Cow::Borrowed(name)
    };
    let rule = match decoded {
        Cow::Borrowed(_) => names.rule_at(text, start..end)?,
        Cow::Owned(decoded) => names.rule(&decoded)?,
    };
    let value = behind(text, at + 1, around.json, of_a_line(&rule))?;
    let bytes = text.get(value.clone())?;
    (!bytes.is_empty() && bytes != REDACTED.as_bytes() && bytes != b"null").then_some(Found {
        range: value,
        rule,
        name,
    })
}

/// Whether the values of such a name hold blanks: `Authorization: Bearer abc`, `Cookie: a=1; b=2`.
fn of_a_line(rule: &Rule<'_>) -> bool {
    matches!(
        rule,
        Rule::Name("authorization" | "auth" | "authentication" | "cookie" | "cookies")
    )
}

/// The value behind the joint: in quotes up to the same quote, else up to what ends a value.
fn behind(text: &[u8], start: usize, json: bool, line: bool) -> Option<Range<usize>> {
    let start = run(text, start, is_blank).end;
    let escapes = if json {
        start..start
    } else {
        run(text, start, |byte| byte == b'\\')
    };
    let quote = text
        .get(escapes.end)
        .copied()
        .filter(|byte| *byte == b'\'' || (*byte == b'"' && !json));
    if let Some(quote) = quote {
        let inner = run(text, escapes.end + 1, |byte| {
            byte != quote && !(json && matches!(byte, b'"' | b'\\'))
        });
        let closing = text
            .get(inner.clone())?
            .iter()
            .rev()
            .take_while(|byte| **byte == b'\\')
            .count();
        return Some(inner.start..inner.end - closing.min(escapes.len()));
    }
    let ends = |byte: u8| match byte {
        b'"' | b'\\' | b'<' | b'\r' | b'\n' => true,
        b'\'' | b'>' | b'`' | b',' | b';' | b'&' | b'{' | b'}' | b'[' | b']' | b'(' | b')' | b'|' => !line,
        _ => !line && byte.is_ascii_whitespace(),
    };
    Some(run(text, start, |byte| !ends(byte)))
}

fn is_blank(byte: u8) -> bool {
    byte == b' ' || byte == b'\t'
}

/// Whether a byte may stand in a name.
#[derive(Clone, Copy, Debug)]
enum InName {
    No,
    /// A digit, a joint, or what is beyond ASCII.
    Other,
    /// A letter, or what encodes one.
    Letter,
}

/// For each byte; most names are looked at from their end, byte by byte.
static NAME: [InName; 256] = {
    let mut name = [InName::No; 256];
    let mut byte = 0;
    while byte < 256 {
        name[byte] = match byte as u8 {
            b'a'..=b'z' | b'A'..=b'Z' | b'%' => InName::Letter,
            b'0'..=b'9' | b'_' | b'-' | b'.' | b'$' | b'[' | b']' | 0x80.. => InName::Other,
            _ => InName::No,
        };
        byte += 1;
    }
    name
};
