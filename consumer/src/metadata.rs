//! Structured metadata of a record: where its values stand in the message.
//!
//! Invariant: a value that is written without escapes is not copied; every other one is kept as it reads.

use std::borrow::Cow;

use sidelog_record::Envelope;

use crate::entry::place;

/// Metadata longer than this stays in the line only: Loki takes 64 KB of it an entry, and a client chooses the length
/// of its request id.
const MAX_VALUE: usize = 4096;

/// The dots of the record's keys are underscores, because LogQL names have no dots.
const TEXTS: [&str; 5] = ["trace_id", "span_id", "request_id", "http_request_method", "http_route"];
const STATUS: &str = "http_response_status_code";

/// The values that a record has.
#[derive(Debug, Default)]
pub(crate) struct Metadata {
    /// In the order of [`TEXTS`].
    texts: [Text; TEXTS.len()],
    status: Option<u16>,
}

#[derive(Debug, Default)]
enum Text {
    #[default]
    None,
    /// In the message.
    There {
        start: u32,
        length: u32,
    },
    Own(Box<str>),
}

impl Metadata {
    /// What `envelope`, which was read from a line of `payload`, says.
    pub(crate) fn of(envelope: Envelope<'_>, payload: &[u8]) -> Self {
        let texts = [
            envelope.trace_id,
            envelope.span_id,
            envelope.request_id,
            envelope.method,
            envelope.route,
        ];
        Self {
            texts: texts.map(|text| Text::of(text, payload)),
            status: envelope.status,
        }
    }

    /// Hands over names and values, always in the same order.
    pub(crate) fn for_each(&self, payload: &[u8], mut visit: impl FnMut(&'static str, &[u8])) {
        for (name, text) in TEXTS.into_iter().zip(&self.texts) {
            if let Some(value) = text.value(payload) {
                visit(name, value);
            }
        }
        if let Some(status) = self.status {
            let mut digits = [0; 5];
            visit(STATUS, decimal(status, &mut digits));
        }
    }
}

impl Text {
    fn of(value: Option<Cow<'_, str>>, payload: &[u8]) -> Self {
        match value {
            None => Self::None,
            Some(value) if value.is_empty() || value.len() > MAX_VALUE => Self::None,
            Some(Cow::Owned(value)) => Self::Own(value.into()),
            Some(Cow::Borrowed(value)) => {
                let place = place(payload, value.as_bytes());
                match (u32::try_from(place.start), u32::try_from(place.len())) {
                    (Ok(start), Ok(length)) => Self::There { start, length },
                    _ => Self::Own(value.into()),
                }
            }
        }
    }

    fn value<'a>(&'a self, payload: &'a [u8]) -> Option<&'a [u8]> {
        match self {
            Self::None => None,
            Self::There { start, length } => payload.get(*start as usize..)?.get(..*length as usize),
            Self::Own(value) => Some(value.as_bytes()),
        }
    }
}

/// A number in decimal, at the end of `digits`.
fn decimal(number: u16, digits: &mut [u8; 5]) -> &[u8] {
    let mut rest = number;
    let mut start = digits.len();
    for (at, digit) in digits.iter_mut().enumerate().rev() {
        *digit = b"0123456789"[usize::from(rest % 10)];
        rest /= 10;
        start = at;
        if rest == 0 {
            break;
        }
    }
    digits.get(start..).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_status_is_written_in_decimal() {
        for status in [0, 7, 99, 100, 404, 65_535] {
            assert_eq!(decimal(status, &mut [0; 5]), status.to_string().as_bytes());
        }
    }
}
