//! `multipart/form-data` (RFC 7578): field by field, by its name and its own content type.
//!
//! Invariants:
//! - What stands in no part is left out, and so is a body without a boundary
//!   (`multipart_fields_are_judged_by_name_and_type`).
//! - A part that is no text shows how long it is instead of its bytes.

use memchr::memmem;

use super::{Kind, REDACTED, Scope};

/// The body as text without its secrets; `None` when its parts can't be told.
pub(super) fn redact(scope: &Scope<'_>, bytes: &[u8], boundary: &[u8], cut: bool) -> Option<(String, bool)> {
    let delimiter = [b"--", boundary].concat();
    let mut rest = bytes.get(memmem::find(bytes, &delimiter)?..)?;
    let (mut out, mut placed) = (String::new(), true);
    while let Some(part) = rest.strip_prefix(delimiter.as_slice()) {
        let text = String::from_utf8_lossy(&delimiter);
        out.push_str(&text);
        if part.starts_with(b"--") {
            out.push_str("--\r\n");
            return Some((out, placed));
        }
        let end = next(part, &delimiter);
        let one = part.get(..end.unwrap_or(part.len())).unwrap_or_default();
        placed &= of_part(scope, one, cut && end.is_none(), &mut out);
        rest = part.get(end.unwrap_or(part.len())..).unwrap_or_default();
    }
    Some((out, placed))
}

/// Where the next delimiter stands that begins a line.
fn next(part: &[u8], delimiter: &[u8]) -> Option<usize> {
    memmem::find_iter(part, delimiter).find(|at| at.checked_sub(1).and_then(|at| part.get(at)) == Some(&b'\n'))
}

/// Appends a part: its fields, the blank line, its value. Tells whether all of it could be placed.
fn of_part(scope: &Scope<'_>, part: &[u8], cut: bool, out: &mut String) -> bool {
    let Some(split) = memmem::find(part, b"\r\n\r\n") else {
        // The cut is in the part's fields.
        let text = String::from_utf8_lossy(part);
        out.push_str(&scope.text(text, cut));
        return true;
    };
    let (fields, value) = part.split_at_checked(split + 4).unwrap_or((part, b""));
    let fields = String::from_utf8_lossy(fields);
    out.push_str(&scope.text(std::borrow::Cow::Borrowed(&fields), false));
    let (value, line_end) = match value.strip_suffix(b"\r\n") {
        Some(value) if !cut => (value, "\r\n"),
        _ => (value, ""),
    };
    let name = parameter(&fields, "name").unwrap_or_default();
    let mut placed = true;
    if let Some(rule) = scope.name(name.as_bytes()).filter(|_| !value.is_empty()) {
        scope.trail.note(name.as_bytes(), &rule);
        out.push_str(REDACTED);
    } else {
        match text(value, cut) {
            Some(text) => {
                let kind = content_type(&fields).map_or(Kind::Text, |value| Kind::of(value.as_bytes()));
                let (clean, whole) = scope.of_kind(kind, text, cut);
                out.push_str(&clean);
                placed = whole;
            }
            // Writing to a String doesn't fail.
            None => drop(std::fmt::Write::write_fmt(out, format_args!("[{} bytes]", value.len()))),
        }
    }
    out.push_str(line_end);
    placed
}

/// The value as text; when it is cut, without a character that the cut went through.
fn text(value: &[u8], cut: bool) -> Option<&str> {
    match std::str::from_utf8(value) {
        Ok(text) => Some(text),
        Err(error) if cut && error.error_len().is_none() => std::str::from_utf8(value.get(..error.valid_up_to())?).ok(),
        Err(_) => None,
    }
}

fn content_type(fields: &str) -> Option<&str> {
    let mut lines = fields.lines().filter_map(|line| line.split_once(':'));
    lines
        .find(|(name, _)| name.trim().eq_ignore_ascii_case("content-type"))
        .map(|(_, value)| value)
}

/// A parameter of the fields: `name="a"`.
fn parameter<'f>(fields: &'f str, name: &str) -> Option<&'f str> {
    fields.split([';', '\n', '\r']).find_map(|part| {
        let (key, value) = part.trim().split_once('=')?;
        let value = value.trim().trim_matches('"');
        key.trim().eq_ignore_ascii_case(name).then_some(value)
    })
}
