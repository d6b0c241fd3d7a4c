//! What was copied of a body, as the text that is recorded: decoded, read by its charset, redacted.
//!
//! Invariants:
//! - A body is recorded as the text it is or left out with a reason, never changed but by redaction and never silently
//!   short (`a_body_cut_inside_a_character_ends_before_it`).
//! - A secret is found before the text is cut once more to fit its record.

use std::borrow::Cow;

use sidelog_record::Omitted;

use super::decode;
use super::redact::{Applied, Clean, Kind};
use super::window::Window;
use crate::generation::policy::Policy;
use crate::queue::exchange::{Body, Fields};
use crate::queue::feed::Parts;

/// The record's body for a captured one, whose message had these header fields.
pub fn record<'a>(
    body: &Body<'a>,
    fields: Fields<'_>,
    redaction: &Applied<'_>,
    policy: &Policy,
) -> sidelog_record::Body<'a> {
    let mut record = sidelog_record::Body {
        size: Some(body.size),
        content: None,
        omitted: body.omitted,
        ..sidelog_record::Body::default()
    };
    match body.parts {
        Some(Parts::Events(count)) => record.events = Some(count),
        Some(Parts::Messages(count)) => record.messages = Some(count),
        Some(Parts::Frames(count)) => record.frames = Some(count),
        None => {}
    }
    if body.omitted.is_some() || body.bytes.is_empty() {
        return record;
    }
    let text = match Window::of(body, fields) {
        Some(window) => windowed(&window, fields, redaction),
        None => {
            let cut = (body.bytes.len() as u64) < body.size;
            text(body.bytes, fields, redaction, policy.body_max(), cut)
        }
    };
    match text {
        Ok((clean, cut)) => {
            record.omitted = clean.ends_early.then_some(Omitted::Redaction);
            record.content = Some(clean.text).filter(|text| !text.is_empty());
            record.truncated = (cut || clean.ends_early) && record.content.is_some();
        }
        Err(reason) => record.omitted = Some(reason),
    }
    record
}

/// The text as it may be recorded, and whether it is cut.
fn text<'a>(
    bytes: &'a [u8],
    fields: Fields<'_>,
    redaction: &Applied<'_>,
    limit: usize,
    cut: bool,
) -> Result<(Clean<'a>, bool), Omitted> {
    let content_type = fields.get("content-type").unwrap_or_default();
    let decoded = decode::content(bytes, fields, limit, cut).ok_or(Omitted::Decode)?;
    let cut = decoded.cut;
    if decoded.bytes.is_empty() && cut {
        return Err(Omitted::Decode);
    }
    if is_multipart(content_type) && redaction.is_in_force() {
        let boundary = parameter(content_type, "boundary").ok_or(Omitted::Redaction)?;
        let clean = redaction.multipart(&decoded.bytes, boundary, cut);
        return Ok((clean.ok_or(Omitted::Redaction)?, cut));
    }
    let (kind, charset) = (Kind::of(content_type), parameter(content_type, "charset"));
    let clean = match decoded.bytes {
        Cow::Borrowed(bytes) => match decode::text(bytes, charset, cut).ok_or(Omitted::Decode)? {
            Cow::Borrowed(text) => redaction.body(kind, text, cut),
            Cow::Owned(text) => owned(redaction, kind, text, cut),
        },
        Cow::Owned(bytes) => {
            let text = decode::text(&bytes, charset, cut).ok_or(Omitted::Decode)?;
            owned(redaction, kind, text.into_owned(), cut)
        }
    };
    Ok((clean, cut))
}

/// The beginning and the end of a feed, and the gap between them.
fn windowed<'a>(
    window: &Window<'_>,
    fields: Fields<'_>,
    redaction: &Applied<'_>,
) -> Result<(Clean<'a>, bool), Omitted> {
    let content_type = fields.get("content-type").unwrap_or_default();
    let (kind, charset) = (Kind::of(content_type), parameter(content_type, "charset"));
    let front = decode::text(window.front, charset, window.front_is_cut).ok_or(Omitted::Decode)?;
    let back = decode::text(window.back, charset, false).ok_or(Omitted::Decode)?;
    let front = redaction.body(kind, &front, window.front_is_cut);
    let back = redaction.body(kind, &back, false);
    let end_of_line = if front.text.ends_with('\n') { "" } else { "\n" };
    let text = [&front.text, end_of_line, &window.gap, &back.text].concat();
    let clean = Clean {
        text: Cow::Owned(text),
        ends_early: front.ends_early || back.ends_early,
    };
    Ok((clean, true))
}

/// As [`Applied::body`] for a text that was made here.
fn owned<'a>(redaction: &Applied<'_>, kind: Kind, text: String, cut: bool) -> Clean<'a> {
    let clean = redaction.body(kind, &text, cut);
    let ends_early = clean.ends_early;
    let text = match clean.text {
        Cow::Owned(redacted) => redacted,
        Cow::Borrowed(same) if same.len() == text.len() => text,
        Cow::Borrowed(front) => front.to_owned(),
    };
    Clean {
        text: Cow::Owned(text),
        ends_early,
    }
}

fn is_multipart(content_type: &[u8]) -> bool {
    content_type
        .get(.."multipart/".len())
        .is_some_and(|front| front.eq_ignore_ascii_case(b"multipart/"))
}

/// A parameter of a content type, without its quotes (RFC 9110, 5.6.6).
fn parameter<'f>(content_type: &'f [u8], name: &str) -> Option<&'f [u8]> {
    content_type.split(|byte| *byte == b';').skip(1).find_map(|parameter| {
        let at = parameter.iter().position(|byte| *byte == b'=')?;
        let (key, value) = parameter.split_at_checked(at)?;
        let value = value.get(1..)?.trim_ascii();
        let bare = value.strip_prefix(b"\"").and_then(|value| value.strip_suffix(b"\""));
        key.trim_ascii()
            .eq_ignore_ascii_case(name.as_bytes())
            .then_some(bare.unwrap_or(value))
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::generation::Generation;
    use crate::settings::{Redaction, Settings};
    use crate::shipping::decode::tests::encoded;
    use crate::shipping::redact::Redactor;

    /// The record of a body of this content type and coding.
    fn recorded(
        content_type: &str,
        coding: &str,
        bytes: &[u8],
        size: usize,
    ) -> (Option<String>, Option<Omitted>, bool) {
        recorded_by(Settings::default(), content_type, coding, bytes, size)
    }

    fn recorded_by(
        settings: Settings,
        content_type: &str,
        coding: &str,
        bytes: &[u8],
        size: usize,
    ) -> (Option<String>, Option<Omitted>, bool) {
        let mut fields = Vec::new();
        Fields::push(&mut fields, b"content-type", content_type.as_bytes());
        Fields::push(&mut fields, b"content-encoding", coding.as_bytes());
        let body = Body {
            size: size as u64,
            bytes,
            head: bytes.len(),
            ..Body::default()
        };
        let generation = Generation::new(1, settings);
        let redactor = Redactor::default();
        let policy = generation.policy(None);
        let record = record(&body, Fields(&fields), &redactor.under(policy), policy);
        assert_eq!(record.size, Some(size as u64));
        (record.content.map(Cow::into_owned), record.omitted, record.truncated)
    }

    fn whole(text: &str) -> (Option<String>, Option<Omitted>, bool) {
        (Some(text.to_owned()), None, false)
    }

    #[test]
    fn a_whole_body_is_its_text() {
        assert_eq!(recorded("text/plain", "", "grüße".as_bytes(), 7), whole("grüße"));
        assert_eq!(
            recorded("text/plain; charset=latin1", "", b"gr\xfc\xdfe", 5),
            whole("grüße")
        );
        assert_eq!(
            recorded("text/csv; Charset=\"utf-16le\"", "", b"a\0,\0b\0", 6),
            whole("a,b")
        );
    }

    #[test]
    fn a_compressed_body_is_its_text_and_its_size_is_that_on_the_wire() {
        for coding in ["gzip", "br", "zstd", "deflate"] {
            let sent = encoded(coding, br#"{"name":"Ada","password":"abc"}"#);
            let content = whole(r#"{"name":"Ada","password":"REDACTED"}"#);
            assert_eq!(
                recorded("application/json", coding, &sent, sent.len()),
                content,
                "{coding}"
            );
        }
    }

    #[test]
    fn a_body_cut_inside_a_character_ends_before_it() {
        let front = "grüße".as_bytes().get(..3).unwrap();
        let content = Some("gr".to_owned());
        assert_eq!(recorded("text/plain", "", front, 7), (content, None, true));
    }

    #[test]
    fn what_is_no_text_is_left_out_with_a_reason() {
        let decode = (None, Some(Omitted::Decode), false);
        assert_eq!(recorded("text/plain", "", b"\xff\xfd\x00", 3), decode);
        assert_eq!(recorded("text/plain", "gzip", b"no gzip at all, but text", 24), decode);
        assert_eq!(recorded("text/plain; charset=klingon", "", b"a", 1), decode);
        assert_eq!(recorded("text/plain", "aes128gcm", b"abc", 3), decode);
    }

    #[test]
    fn what_cannot_be_searched_for_secrets_is_left_out_and_it_is_said() {
        let broken = br#"{"a":1 "password":"abc"}"#;
        let front = Some(r#"{"a":1 "#.to_owned());
        assert_eq!(
            recorded("application/json", "", broken, broken.len()),
            (front, Some(Omitted::Redaction), true)
        );
        assert_eq!(
            recorded("multipart/form-data", "", b"--x\r\n", 5),
            (None, Some(Omitted::Redaction), false)
        );
    }

    #[test]
    fn without_redaction_a_multipart_body_is_the_text_that_it_is() {
        let settings = || Settings {
            redaction: Redaction {
                enabled: false,
                ..Redaction::default()
            },
            ..Settings::default()
        };
        let text = "preamble\r\n--x\r\ncontent-disposition: form-data; name=password\r\n\r\nabc\r\n--x--\r\n";
        for content_type in ["multipart/form-data; boundary=x", "multipart/form-data"] {
            let told = recorded_by(settings(), content_type, "", text.as_bytes(), text.len());
            assert_eq!(told, whole(text), "{content_type}");
            let told = recorded_by(settings(), content_type, "", b"--x\r\n\r\n\xff\xfe\xfd", 12);
            assert_eq!(told, (None, Some(Omitted::Decode), false), "{content_type}");
        }
    }

    /// The record of a feed of which only so many bytes at each end were copied.
    fn recorded_window(content_type: &str, text: &str, head: usize, tail: usize) -> (String, Option<Omitted>) {
        let mut fields = Vec::new();
        Fields::push(&mut fields, b"content-type", content_type.as_bytes());
        let bytes = [&text.as_bytes()[..head], &text.as_bytes()[text.len() - tail..]].concat();
        let body = Body {
            size: text.len() as u64,
            bytes: &bytes,
            head,
            parts: Some(Parts::Events(7)),
            omitted: None,
        };
        let generation = Generation::new(1, Settings::default());
        let redactor = Redactor::default();
        let policy = generation.policy(None);
        let record = record(&body, Fields(&fields), &redactor.under(policy), policy);
        assert_eq!((record.truncated, record.events), (true, Some(7)));
        (record.content.map(Cow::into_owned).unwrap_or_default(), record.omitted)
    }

    #[test]
    fn of_a_feed_the_beginning_and_the_end_are_read() {
        let text = "{\"password\":\"MARK\"}\n{\"a\":2}\n{\"token\":\"MARK\"}\n";
        assert_eq!(
            recorded_window("application/x-ndjson", text, 24, 20),
            (
                "{\"password\":\"REDACTED\"}\n… 8 bytes left out …\n{\"token\":\"REDACTED\"}\n".to_owned(),
                None
            )
        );
    }

    #[test]
    fn no_secret_survives_on_either_side_of_a_gap() {
        let event = "id: 7\ndata: {\"password\":\"MARKMARK\",\"n\":[1,{\"api_key\":\"MARKMARK\"}]}\n\n";
        let line = "{\"password\":\"MARKMARK\",\"n\":[1,{\"api_key\":\"MARKMARK\"}]}\n";
        let document = "\u{1e}{\n \"password\": \"MARKMARK\",\n \"api_key\":\n \"MARKMARK\"}\n";
        for (content_type, part) in [
            ("text/event-stream", event),
            ("application/jsonl", line),
            ("application/json-seq", document),
        ] {
            let text = part.repeat(8);
            for head in 0..part.len() + 3 {
                for tail in 1..part.len() * 2 {
                    let (content, _) = recorded_window(content_type, &text, head, tail);
                    assert!(!content.contains("MARK"), "{head} {tail}: {content}");
                }
            }
        }
    }

    #[test]
    fn a_body_that_was_not_copied_keeps_its_reason_and_size() {
        let body = Body {
            size: 9,
            omitted: Some(Omitted::ContentType),
            ..Body::default()
        };
        let generation = Generation::new(1, Settings::default());
        let redactor = Redactor::default();
        let policy = generation.policy(None);
        let record = record(&body, Fields::default(), &redactor.under(policy), policy);
        let told = (record.size, record.omitted, record.truncated);
        assert_eq!(told, (Some(9), Some(Omitted::ContentType), false));
    }

    #[test]
    fn an_empty_body_has_a_size_and_nothing_else() {
        assert_eq!(recorded("text/plain", "", b"", 0), (None, None, false));
    }
}
