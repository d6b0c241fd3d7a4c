//! The few fields of a record that a store indexes, read without decoding the rest.
//!
//! The whole line is still walked: that it is one complete JSON object is part of the answer. Lines as sidelog writes them take the
//! short way ([`crate::found`]), all others that of the strict reader.

use std::borrow::Cow;

use serde::de::{Error, MapAccess};

use crate::{
    DecodeError, Level, found,
    key::Key,
    reader::{self, Fields, name, parse_hex, skip, text, timestamp},
};

/// What the consumer needs of a record for its entry's time, labels and structured metadata.
///
/// Texts are borrowed from the line where they have no escapes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Envelope<'a> {
    /// The time of the entry in unix nanoseconds: `observed_timestamp`, else `timestamp`.
    pub timestamp_ns: u64,
    /// `service.name`.
    pub service: Option<Cow<'a, str>>,
    /// `deployment.environment.name`.
    pub environment: Option<Cow<'a, str>>,
    /// `level`.
    pub level: Option<Level>,
    /// `trace_id`: 32 hexadecimal digits.
    pub trace_id: Option<Cow<'a, str>>,
    /// `span_id`: 16 hexadecimal digits.
    pub span_id: Option<Cow<'a, str>>,
    /// `request_id`.
    pub request_id: Option<Cow<'a, str>>,
    /// `http.request.method`.
    pub method: Option<Cow<'a, str>>,
    /// `http.route`.
    pub route: Option<Cow<'a, str>>,
    /// `http.response.status_code`.
    pub status: Option<u16>,
}

impl<'a> Envelope<'a> {
    /// Reads the envelope of one JSON line.
    ///
    /// # Errors
    ///
    /// [`DecodeError`] as [`Record::decode`](crate::Record::decode) gives it, but only for the keys that an envelope holds.
    pub fn read(line: &'a [u8]) -> Result<Self, DecodeError> {
        if let Some(envelope) = simdutf8::basic::from_utf8(line).ok().and_then(found::envelope) {
            return Ok(envelope);
        }
        let mut draft = Draft {
            timestamp: None,
            observed_timestamp: None,
            envelope: Self::empty(),
        };
        reader::read(line, &mut draft)?;
        let timestamp_ns = draft
            .observed_timestamp
            .or(draft.timestamp)
            .ok_or(DecodeError::NoTime)?;
        Ok(Self {
            timestamp_ns,
            ..draft.envelope
        })
    }

    pub(crate) const fn empty() -> Self {
        Self {
            timestamp_ns: 0,
            service: None,
            environment: None,
            level: None,
            trace_id: None,
            span_id: None,
            request_id: None,
            method: None,
            route: None,
            status: None,
        }
    }
}

struct Draft<'a> {
    timestamp: Option<u64>,
    observed_timestamp: Option<u64>,
    envelope: Envelope<'a>,
}

impl<'de> Fields<'de> for Draft<'de> {
    fn take<A: MapAccess<'de>>(&mut self, key: Key, map: &mut A) -> Result<(), A::Error> {
        let envelope = &mut self.envelope;
        match key {
            Key::Timestamp => self.timestamp = timestamp(map)?,
            Key::ObservedTimestamp => self.observed_timestamp = timestamp(map)?,
            Key::Level => envelope.level = name(map)?,
            Key::ServiceName => envelope.service = text(map)?,
            Key::Environment => envelope.environment = text(map)?,
            Key::TraceId => envelope.trace_id = hex::<_, 16>(map)?,
            Key::SpanId => envelope.span_id = hex::<_, 8>(map)?,
            Key::RequestId => envelope.request_id = text(map)?,
            Key::Method => envelope.method = text(map)?,
            Key::Route => envelope.route = text(map)?,
            Key::Status => envelope.status = map.next_value()?,
            _ => skip(map)?,
        }
        Ok(())
    }
}

/// A string of `2 * N` hexadecimal digits, kept as text.
fn hex<'de, A: MapAccess<'de>, const N: usize>(map: &mut A) -> Result<Option<Cow<'de, str>>, A::Error> {
    let Some(text) = text(map)? else {
        return Ok(None);
    };
    match parse_hex::<N>(&text) {
        Some(_) => Ok(Some(text)),
        None => Err(A::Error::custom("not hexadecimal")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Record;

    #[test]
    fn the_envelope_says_what_the_record_says() {
        let record = Record {
            timestamp: 1,
            observed_timestamp: 2,
            level: Level::Warn,
            service_name: "api-service".into(),
            environment: "production".into(),
            trace_id: Some([0xab; 16]),
            span_id: Some([0xcd; 8]),
            request_id: Some("r-\"1\"".into()),
            method: "GET".into(),
            route: Some("/users/{id}".into()),
            status: Some(404),
            ..Record::default()
        };
        let mut line = Vec::new();
        record.encode(&mut line);
        let envelope = Envelope::read(&line).unwrap();
        assert_eq!(
            envelope,
            Envelope {
                timestamp_ns: 2,
                service: Some("api-service".into()),
                environment: Some("production".into()),
                level: Some(Level::Warn),
                trace_id: Some("ab".repeat(16).into()),
                span_id: Some("cd".repeat(8).into()),
                request_id: Some("r-\"1\"".into()),
                method: Some("GET".into()),
                route: Some("/users/{id}".into()),
                status: Some(404),
            }
        );
        assert!(matches!(envelope.service, Some(Cow::Borrowed(_))));
    }

    #[test]
    fn a_record_without_an_observed_time_is_dated_by_its_start() {
        let envelope = Envelope::read(b"{\"timestamp\":\"1970-01-01T00:00:01Z\"}").unwrap();
        assert_eq!(envelope.timestamp_ns, 1_000_000_000);
        assert_eq!(envelope.service, None);
    }

    #[test]
    fn keys_outside_the_envelope_are_not_judged() {
        let line = b"{\"timestamp\":\"1970-01-01T00:00:01Z\",\"end\":7,\"deep\":[[{}]]}";
        assert!(Envelope::read(line).is_ok());
        assert!(Record::decode(line).is_err());
    }

    #[test]
    fn a_line_that_is_cut_is_refused_wherever_it_is_cut() {
        let mut line = Vec::new();
        Record::default().encode(&mut line);
        for length in 0..line.len() {
            assert!(
                Envelope::read(&line[..length]).is_err(),
                "{length} bytes were taken for a record"
            );
        }
    }
}
