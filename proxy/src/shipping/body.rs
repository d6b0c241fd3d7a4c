//! What was copied of a body, as text.
//!
//! Invariants:
//! - A body is recorded as the text it is or left out with a reason, never changed and never silently short
//!   (`a_body_cut_inside_a_character_ends_before_it`).

use std::borrow::Cow;

use sidelog_record::Omitted;

use crate::queue::exchange::Body;

/// The record's body for a captured one.
pub fn text<'a>(body: &Body<'a>) -> sidelog_record::Body<'a> {
    let cut = (body.bytes.len() as u64) < body.size;
    let content = if body.omitted.is_some() || body.bytes.is_empty() {
        Ok(None)
    } else {
        utf8(body.bytes, cut).map(Some).ok_or(Omitted::Decode)
    };
    sidelog_record::Body {
        size: Some(body.size),
        content: content.as_ref().ok().copied().flatten().map(Cow::Borrowed),
        omitted: body.omitted.or(content.err()),
        truncated: cut && matches!(content, Ok(Some(_))),
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

#[cfg(test)]
mod tests {
    use super::*;

    fn captured(bytes: &[u8], size: u64) -> Body<'_> {
        Body {
            size,
            bytes,
            omitted: None,
        }
    }

    #[test]
    fn a_whole_body_is_its_text() {
        let text = text(&captured("grüße".as_bytes(), 7));
        assert_eq!(text.content.as_deref(), Some("grüße"));
        assert_eq!((text.size, text.omitted, text.truncated), (Some(7), None, false));
    }

    #[test]
    fn a_body_cut_inside_a_character_ends_before_it() {
        let text = text(&captured(&"grüße".as_bytes()[..3], 7));
        assert_eq!(text.content.as_deref(), Some("gr"));
        assert!(text.truncated);
    }

    #[test]
    fn what_is_no_text_is_left_out_with_a_reason() {
        let text = text(&captured(b"\xff\xfe\x00", 3));
        assert_eq!(text.content, None);
        assert_eq!((text.omitted, text.truncated), (Some(Omitted::Decode), false));
    }

    #[test]
    fn a_body_that_was_not_copied_keeps_its_reason_and_size() {
        let text = text(&Body {
            size: 9,
            bytes: b"",
            omitted: Some(Omitted::ContentType),
        });
        assert_eq!(
            (text.size, text.omitted, text.truncated),
            (Some(9), Some(Omitted::ContentType), false)
        );
    }

    #[test]
    fn an_empty_body_has_a_size_and_nothing_else() {
        let text = text(&captured(b"", 0));
        assert_eq!(
            (text.size, text.content, text.omitted, text.truncated),
            (Some(0), None, None, false)
        );
    }
}
