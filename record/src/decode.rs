//! The decoder: a line back into a record, also one of an earlier version or of another program.

use serde::de::MapAccess;

use crate::{
    Body, DecodeError, Level, Record,
    key::Key,
    reader::{self, Fields, counts, hex, millis, name, skip, strings, text, timestamp},
};

impl<'a> Record<'a> {
    /// Reads one JSON object; texts without escapes are borrowed from `line`.
    ///
    /// Unknown keys are ignored and `null` is absence. Where a key is missing: one of the two times stands for the
    /// other, `level` follows from `end` and the status, `end` is `complete`, anything else is empty.
    ///
    /// # Errors
    ///
    /// [`DecodeError`] says why the line is no record of this schema.
    pub fn decode(line: &'a [u8]) -> Result<Self, DecodeError> {
        let mut draft = Draft::default();
        reader::read(line, &mut draft)?;
        draft.finish()
    }
}

/// A record of which some keys may still come.
#[derive(Default)]
struct Draft<'a> {
    record: Record<'a>,
    timestamp: Option<u64>,
    observed_timestamp: Option<u64>,
    level: Option<Level>,
}

impl<'a> Draft<'a> {
    fn finish(self) -> Result<Record<'a>, DecodeError> {
        let mut record = self.record;
        record.timestamp = self.timestamp.or(self.observed_timestamp).ok_or(DecodeError::NoTime)?;
        record.observed_timestamp = self.observed_timestamp.unwrap_or(record.timestamp);
        record.level = self.level.unwrap_or_else(|| record.end.level(record.status));
        Ok(record)
    }
}

impl<'de> Fields<'de> for Draft<'de> {
    fn take<A: MapAccess<'de>>(&mut self, key: Key, map: &mut A) -> Result<(), A::Error> {
        let record = &mut self.record;
        match key {
            Key::Timestamp => self.timestamp = timestamp(map)?,
            Key::ObservedTimestamp => self.observed_timestamp = timestamp(map)?,
            Key::Schema => skip(map)?,
            Key::Level => self.level = name(map)?,
            Key::ServiceName => record.service_name = text(map)?.unwrap_or_default(),
            Key::ServiceVersion => record.service_version = text(map)?,
            Key::ServiceInstanceId => record.service_instance_id = text(map)?.unwrap_or_default(),
            Key::Environment => record.environment = text(map)?.unwrap_or_default(),
            Key::TraceId => record.trace_id = hex(map)?,
            Key::SpanId => record.span_id = hex(map)?,
            Key::ParentSpanId => record.parent_span_id = hex(map)?,
            Key::TraceFlags => record.trace_flags = hex(map)?.map(|[flags]| flags),
            Key::RequestId => record.request_id = text(map)?,
            Key::Method => record.method = text(map)?.unwrap_or_default(),
            Key::Scheme => record.scheme = text(map)?.unwrap_or_default(),
            Key::Path => record.path = text(map)?.unwrap_or_default(),
            Key::Query => record.query = text(map)?,
            Key::Route => record.route = text(map)?,
            Key::ServerAddress => record.server_address = text(map)?,
            Key::ServerPort => record.server_port = map.next_value()?,
            Key::ClientAddress => record.client_address = text(map)?,
            Key::UserAgent => record.user_agent = text(map)?,
            Key::ProtocolVersion => record.protocol_version = text(map)?.unwrap_or_default(),
            Key::RequestHeader => record.request.headers = strings(map)?.unwrap_or_default(),
            Key::RequestHeaderOmitted => record.request.headers_omitted = whole(map)?.unwrap_or_default(),
            Key::ResponseHeader => record.response.headers = strings(map)?.unwrap_or_default(),
            Key::ResponseHeaderOmitted => record.response.headers_omitted = whole(map)?.unwrap_or_default(),
            Key::RequestBodySize
            | Key::RequestBodyContent
            | Key::RequestBodyOmitted
            | Key::RequestBodyTruncated
            | Key::RequestBodyEvents
            | Key::RequestBodyMessages
            | Key::RequestBodyFrames => take_body(&mut record.request.body, key, map)?,
            Key::ResponseBodySize
            | Key::ResponseBodyContent
            | Key::ResponseBodyOmitted
            | Key::ResponseBodyTruncated
            | Key::ResponseBodyEvents
            | Key::ResponseBodyMessages
            | Key::ResponseBodyFrames => take_body(&mut record.response.body, key, map)?,
            Key::Status => record.status = map.next_value()?,
            Key::RpcStatus => record.rpc_status = text(map)?,
            Key::RpcMessage => record.rpc_message = text(map)?,
            Key::CloseCode => record.close_code = map.next_value()?,
            Key::Duration => record.duration = millis(map)?.unwrap_or_default(),
            Key::Ttfb => record.ttfb = millis(map)?,
            Key::UpstreamAddress => record.upstream_address = text(map)?,
            Key::UpstreamAttempts => record.upstream_attempts = whole(map)?,
            Key::End => record.end = name(map)?.unwrap_or_default(),
            Key::ErrorType => record.error_type = text(map)?,
            Key::Dropped => record.loss = counts(map)?,
        }
        Ok(())
    }
}

fn take_body<'de, A: MapAccess<'de>>(body: &mut Body<'de>, key: Key, map: &mut A) -> Result<(), A::Error> {
    match key {
        Key::RequestBodySize | Key::ResponseBodySize => body.size = map.next_value()?,
        Key::RequestBodyContent | Key::ResponseBodyContent => body.content = text(map)?,
        Key::RequestBodyOmitted | Key::ResponseBodyOmitted => body.omitted = name(map)?,
        Key::RequestBodyTruncated | Key::ResponseBodyTruncated => {
            body.truncated = map.next_value::<Option<bool>>()?.unwrap_or_default();
        }
        Key::RequestBodyEvents | Key::ResponseBodyEvents => body.events = map.next_value()?,
        Key::RequestBodyMessages | Key::ResponseBodyMessages => body.messages = map.next_value()?,
        Key::RequestBodyFrames | Key::ResponseBodyFrames => body.frames = map.next_value()?,
        _ => skip(map)?,
    }
    Ok(())
}

fn whole<'de, A: MapAccess<'de>>(map: &mut A) -> Result<Option<u32>, A::Error> {
    map.next_value()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::End;

    fn refusal(line: &[u8]) -> String {
        Record::decode(line).unwrap_err().to_string()
    }

    #[test]
    fn a_line_that_is_no_json_object_is_refused() {
        for (line, reason) in [
            (&b""[..], "not JSON: ends too early at column 0"),
            (b"hello", "not JSON: syntax error at column 1"),
            (
                b"{\"timestamp\":\"1970-01-01T00:0",
                "not JSON: ends too early at column 29",
            ),
            (
                b"{\"timestamp\":\"1970-01-01T00:00:00Z\"} {}",
                "not JSON: syntax error at column 38",
            ),
            (b"{\"service.name\":\"\\ud800\"}", "not JSON: syntax error at column 24"),
            (
                b"{\"service.name\":\"\xff\"}",
                "not UTF-8: the byte at 17 fits no character",
            ),
            (b"[]", "not a JSON object"),
            (b"7", "not a JSON object"),
            (b"null", "not a JSON object"),
        ] {
            assert_eq!(refusal(line), reason, "{}", line.escape_ascii());
        }
    }

    #[test]
    fn a_record_without_a_time_or_of_another_schema_is_refused() {
        assert_eq!(
            refusal(b"{}"),
            "neither \"observed_timestamp\" nor \"timestamp\" is present"
        );
        assert_eq!(
            refusal(b"{\"schema\":2,\"level\":7}"),
            "schema 2 is not supported, only 1 is; upgrade sidelog, or set \"schema\": 1 where the record is made"
        );
    }

    #[test]
    fn a_value_that_cannot_be_is_refused_by_its_key() {
        for (entry, key, expected) in [
            (r#""schema":"1""#, "schema", "a whole number"),
            (r#""service.name":7"#, "service.name", "a string"),
            (r#""level":"debug""#, "level", "one of: info warn error"),
            (r#""end":"abrupt""#, "end", End::NAMES),
            (r#""trace_id":"abc""#, "trace_id", "a string of 32 hexadecimal digits"),
            (
                r#""span_id":"00000000000000zz""#,
                "span_id",
                "a string of 16 hexadecimal digits",
            ),
            (r#""server.port":65536"#, "server.port", "a whole number up to 65535"),
            (
                r#""duration_ms":"12""#,
                "duration_ms",
                "a number of milliseconds, not negative",
            ),
            (
                r#""http.request.header":{"a":1}"#,
                "http.request.header",
                "an object of strings",
            ),
            (
                r#""x":1,"http.response.body.truncated":1"#,
                "http.response.body.truncated",
                "true or false",
            ),
        ] {
            let error = Record::decode(format!("{{{entry}}}").as_bytes()).unwrap_err();
            assert_eq!(error, DecodeError::Value { key, expected }, "{entry}");
        }
    }

    #[test]
    fn a_refusal_never_shows_the_value() {
        assert!(!refusal(b"{\"server.port\":\"hunter2\"}").contains("hunter2"));
    }

    #[test]
    fn one_time_stands_for_the_other() {
        let record = Record::decode(b"{\"timestamp\":\"1970-01-01T00:00:01Z\"}").unwrap();
        assert_eq!(
            (record.timestamp, record.observed_timestamp),
            (1_000_000_000, 1_000_000_000)
        );
        let record = Record::decode(b"{\"observed_timestamp\":\"1970-01-01T00:00:01Z\"}").unwrap();
        assert_eq!(
            (record.timestamp, record.observed_timestamp),
            (1_000_000_000, 1_000_000_000)
        );
    }

    #[test]
    fn a_missing_level_follows_from_the_end_and_the_status() {
        let line = b"{\"timestamp\":\"1970-01-01T00:00:01Z\",\"http.response.status_code\":503}";
        assert_eq!(Record::decode(line).unwrap().level, Level::Error);
        let line = b"{\"timestamp\":\"1970-01-01T00:00:01Z\",\"end\":\"client_gone\",\"level\":null}";
        let record = Record::decode(line).unwrap();
        assert_eq!((record.end, record.level), (End::ClientGone, Level::Warn));
    }
}
