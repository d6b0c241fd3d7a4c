//! What was copied of a body, as the text that is recorded: decoded, cut, redacted.
//!
//! Invariants:
//! - A body is recorded as the text it is or left out with a reason, never changed but by redaction and never silently
//!   short (`a_body_cut_inside_a_character_ends_before_it`).

use sidelog_record::Omitted;

use super::redact::{Applied, Kind};
use crate::generation::Policy;
use crate::queue::exchange::{Body, Fields};

/// The record's body for a captured one, whose message had these header fields.
pub fn record<'a>(
    body: &Body<'a>,
    fields: Fields<'a>,
    redaction: &Applied<'_>,
    _policy: &Policy,
) -> sidelog_record::Body<'a> {
    let cut = (body.bytes.len() as u64) < body.size;
    let mut record = sidelog_record::Body {
        size: Some(body.size),
        content: None,
        omitted: body.omitted,
        truncated: false,
    };
    if body.omitted.is_some() || body.bytes.is_empty() {
        return record;
    }
    let Some(text) = utf8(body.bytes, cut) else {
        record.omitted = Some(Omitted::Decode);
        return record;
    };
    let clean = redaction.body(kind(fields), text, cut);
    record.content = Some(clean.text).filter(|text| !text.is_empty() || !clean.ends_early);
    record.omitted = clean.ends_early.then_some(Omitted::Redaction);
    record.truncated = (cut || clean.ends_early) && record.content.is_some();
    record
}

fn kind(fields: Fields<'_>) -> Kind {
    let essence = fields.get("content-type").unwrap_or_default();
    let essence = essence
        .split(|byte| *byte == b';')
        .next()
        .unwrap_or_default()
        .trim_ascii();
    let essence = String::from_utf8_lossy(essence).to_ascii_lowercase();
    match essence.as_str() {
        "application/x-www-form-urlencoded" => Kind::Form,
        json if json.contains("json") => Kind::Json,
        _ => Kind::Text,
    }
}

/// The bytes as text; when they were cut, without a character that the cut went through.
fn utf8(bytes: &[u8], cut: bool) -> Option<&str> {
    match std::str::from_utf8(bytes) {
        Ok(text) => Some(text),
        Err(error) if cut && error.error_len().is_none() => std::str::from_utf8(bytes.get(..error.valid_up_to())?).ok(),
        Err(_) => None,
    }
}
