//! Query strings, form bodies, and parameters in paths.
//!
//! Invariants:
//! - A secret's value goes to the next `&`, whatever is in it (`a_value_goes_to_the_next_ampersand`).
//! - Other values are searched decoded (`values_are_searched_decoded`).

use std::borrow::Cow;

use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, percent_decode_str, utf8_percent_encode};

use super::edits::Edits;
use super::{REDACTED, SHORT, Scope};

/// All but the unreserved characters (RFC 3986, 2.3).
const RESERVED: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~');

/// `name=value` joined by `&` or `;`.
pub(super) fn redact<'t>(scope: &Scope<'_>, text: &'t str, cut: bool) -> Cow<'t, str> {
    let mut edits = Edits::new(text);
    let mut at = 0;
    for part in text.split('&') {
        let end = at + part.len();
        part_of(scope, part, at, cut && end == text.len(), &mut edits);
        at = end + 1;
    }
    edits.finish(text.len())
}

/// What stands between two `&`: one parameter, or several joined by `;`.
fn part_of(scope: &Scope<'_>, part: &str, start: usize, cut: bool, edits: &mut Edits<'_>) {
    let mut at = start;
    for pair in part.split_inclusive(';') {
        let (name, joined) = match pair.split_once('=') {
            Some((name, _)) => (name, true),
            None => (pair, false),
        };
        let value = at + name.len() + usize::from(joined);
        let end = start + part.len();
        let rule = scope.name(decoded(name.trim_end_matches(';')).as_bytes());
        if let Some(rule) = rule.filter(|_| joined && value < end) {
            scope.trail.note(name.as_bytes(), &rule);
            return edits.replace(value..end, REDACTED);
        }
        at += pair.len();
    }
    let (name, raw) = part.split_once('=').unwrap_or(("", part));
    let value = start + part.len() - raw.len();
    if let Some(redacted) = searched(scope, raw, cut) {
        scope
            .trail
            .note(name.as_bytes(), &super::trail::Rule::Pattern("in a value"));
        edits.replace(value..value + raw.len(), &redacted);
    }
}

/// The value without secrets that are known by their shape; `None` when there are none.
fn searched(scope: &Scope<'_>, raw: &str, cut: bool) -> Option<String> {
    let value = decoded(raw);
    // Shapes are longer, and pairs and JSON have joints.
    if !cut && value.len() < SHORT && !value.contains(['=', ':', '{', '[']) {
        return None;
    }
    match scope.embedded(&value, cut, 1) {
        Cow::Owned(redacted) if matches!(value, Cow::Owned(_)) => {
            Some(utf8_percent_encode(&redacted, RESERVED).to_string())
        }
        Cow::Owned(redacted) => Some(redacted),
        Cow::Borrowed(_) => None,
    }
}

/// Percent-decoded, with `+` for a blank.
fn decoded(text: &str) -> Cow<'_, str> {
    if text.contains('+') {
        let blanks = text.replace('+', " ");
        Cow::Owned(percent_decode_str(&blanks).decode_utf8_lossy().into_owned())
    } else {
        percent_decode_str(text).decode_utf8_lossy()
    }
}

/// A path: `;name=value` in its segments, and segments that hold secrets known by their shape.
pub(super) fn path<'t>(scope: &Scope<'_>, text: &'t str) -> Cow<'t, str> {
    let mut edits = Edits::new(text);
    let mut at = 0;
    for segment in text.split('/') {
        let (name, parameters) = segment.split_once(';').unwrap_or((segment, ""));
        if let Some(redacted) = searched(scope, name, false) {
            scope.trail.note(b"", &super::trail::Rule::Pattern("in a path"));
            edits.replace(at..at + name.len(), &redacted);
        }
        let mut from = at + name.len() + 1;
        for pair in parameters.split(';') {
            part_of(scope, pair, from, false, &mut edits);
            from += pair.len() + 1;
        }
        at += segment.len() + 1;
    }
    edits.finish(text.len())
}

/// A URL, or several in a header field's value: user information, and parameters by the query rules.
pub(super) fn url<'t>(scope: &Scope<'_>, text: &'t str) -> Cow<'t, str> {
    let mut edits = Edits::new(text);
    let is_end = |c: char| c.is_whitespace() || matches!(c, '<' | '>' | '"' | '#');
    let mut at = 0;
    for part in text.split_inclusive(is_end) {
        if let Some(mark) = part.find('?') {
            let query = part.get(mark + 1..).unwrap_or_default().trim_end_matches(is_end);
            let start = at + mark + 1;
            if let Cow::Owned(redacted) = redact(scope, query, false) {
                edits.replace(start..start + query.len(), &redacted);
            }
        } else if part.contains('=') {
            // A fragment: `#access_token=...`, as OAuth's implicit flow gives it.
            let fragment = part.trim_end_matches(is_end);
            if let Cow::Owned(redacted) = redact(scope, fragment, false) {
                edits.replace(at..at + fragment.len(), &redacted);
            }
        }
        at += part.len();
    }
    edits.finish(text.len())
}
