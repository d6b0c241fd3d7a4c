//! What of a record is left out so that it fits its bound.
//!
//! Bodies give way first, the larger one before the smaller one; then header fields, from the end. Single strings
//! have limits of their own that together leave room, so the rest always fits.

use crate::{
    Message, Record,
    encode::{REQUEST, RESPONSE, write},
    fields,
    json::{escaped_len, escaped_prefix},
};

/// How much of a record is written.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Cut {
    pub(crate) request: Kept,
    pub(crate) response: Kept,
}

/// How much of a message is written.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Kept {
    /// The first so many header fields.
    pub(crate) fields: usize,
    /// The first so many bytes of the body's content, up to a character boundary.
    pub(crate) content: usize,
}

impl Kept {
    const NOTHING: Self = Self { fields: 0, content: 0 };
    const EVERYTHING: Self = Self {
        fields: usize::MAX,
        content: usize::MAX,
    };
}

impl Cut {
    /// Leaves out nothing.
    pub(crate) const NOTHING: Self = Self {
        request: Kept::EVERYTHING,
        response: Kept::EVERYTHING,
    };

    /// Leaves out what must be, for the encoded record to take at most `limit` bytes.
    pub(crate) fn to_fit(record: &Record<'_>, limit: usize) -> Self {
        let mut cut = Self {
            request: Kept::NOTHING,
            response: Kept::NOTHING,
        };
        let mut room = limit.saturating_sub(bare_len(record, &cut));

        let (request, response) = (&record.request, &record.response);
        let (for_request, for_response) = share(room, all_fields_len(request), all_fields_len(response));
        let (request_fields, request_len) = first_fields(request, for_request);
        let (response_fields, response_len) = first_fields(response, for_response);
        cut.request.fields = request_fields;
        cut.response.fields = response_fields;
        room = room.saturating_sub(request_len + response_len);

        let (request, response) = (content(request), content(response));
        let (for_request, for_response) = share(room, escaped_len(request), escaped_len(response));
        cut.request.content = escaped_prefix(request, for_request);
        cut.response.content = escaped_prefix(response, for_response);
        cut
    }
}

/// What the record takes without header fields and contents, but with the marks that say they are missing.
fn bare_len(record: &Record<'_>, nothing: &Cut) -> usize {
    let mut bare = Vec::new();
    write(record, nothing, &mut bare);
    let objects = REQUEST.header.opening().len() + RESPONSE.header.opening().len() + 2 * "{}".len();
    bare.len() + objects
}

fn content<'r>(message: &'r Message<'_>) -> &'r str {
    message.body.content.as_deref().unwrap_or_default()
}

fn all_fields_len(message: &Message<'_>) -> usize {
    message.headers.iter().map(fields::encoded_len).sum()
}

/// How many of the first fields take at most `room` bytes, and what they take.
fn first_fields(message: &Message<'_>, room: usize) -> (usize, usize) {
    let mut taken = 0;
    for (count, field) in message.headers.iter().enumerate() {
        let len = fields::encoded_len(field);
        if taken + len > room {
            return (count, taken);
        }
        taken += len;
    }
    (message.headers.len(), taken)
}

/// Divides `room` between two wishes: the larger one is cut until it is as small as the other, then both alike.
fn share(room: usize, left: usize, right: usize) -> (usize, usize) {
    let half = room / 2;
    if left <= half {
        (left, right.min(room - left))
    } else if right <= half {
        (left.min(room - right), right)
    } else {
        (half, half)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_larger_wish_is_cut_first() {
        assert_eq!(share(100, 10, 20), (10, 20));
        assert_eq!(share(100, 10, 500), (10, 90));
        assert_eq!(share(100, 500, 10), (90, 10));
        assert_eq!(share(100, 60, 70), (50, 50));
        assert_eq!(share(0, 1, 1), (0, 0));
        assert_eq!(share(100, 100, 0), (100, 0));
    }
}
