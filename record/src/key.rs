//! The keys of a record: their names, how they open in JSON, and what their values must be.

use crate::{End, Level, Omitted};

/// Declares [`Key`] from one list: variant, name, and what its value must be.
macro_rules! keys {
    ($($variant:ident = $name:literal: $expected:expr,)+) => {
        /// A key of a record, in the order in which keys are written.
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        pub(crate) enum Key {
            $($variant,)+
        }

        impl Key {
            #[cfg(test)]
            pub(crate) const ALL: &'static [Self] = &[$(Self::$variant,)+];

            /// The name as it stands in a record.
            pub(crate) const fn name(self) -> &'static str {
                match self {
                    $(Self::$variant => $name,)+
                }
            }

            /// The name with the comma before it and the colon behind it, ready to be written.
            pub(crate) const fn opening(self) -> &'static str {
                match self {
                    $(Self::$variant => concat!(",\"", $name, "\":"),)+
                }
            }

            /// What a value must be, as a sentence part for [`DecodeError`](crate::DecodeError).
            pub(crate) const fn expected(self) -> &'static str {
                match self {
                    $(Self::$variant => $expected,)+
                }
            }

            /// The key of this name; `None` for keys that other programs add.
            pub(crate) fn of(name: &str) -> Option<Self> {
                match name {
                    $($name => Some(Self::$variant),)+
                    _ => None,
                }
            }
        }
    };
}

keys! {
    Timestamp = "timestamp": "an RFC 3339 time from 1970 on, such as \"2026-01-31T12:00:00.000000000Z\"",
    ObservedTimestamp = "observed_timestamp": "an RFC 3339 time from 1970 on, such as \"2026-01-31T12:00:00.000000000Z\"",
    Schema = "schema": "a whole number",
    Level = "level": Level::NAMES,
    ServiceName = "service.name": "a string",
    ServiceVersion = "service.version": "a string",
    ServiceInstanceId = "service.instance.id": "a string",
    Environment = "deployment.environment.name": "a string",
    TraceId = "trace_id": "a string of 32 hexadecimal digits",
    SpanId = "span_id": "a string of 16 hexadecimal digits",
    ParentSpanId = "parent_span_id": "a string of 16 hexadecimal digits",
    TraceFlags = "trace_flags": "a string of 2 hexadecimal digits",
    RequestId = "request_id": "a string",
    Method = "http.request.method": "a string",
    Scheme = "url.scheme": "a string",
    Path = "url.path": "a string",
    Query = "url.query": "a string",
    Route = "http.route": "a string",
    ServerAddress = "server.address": "a string",
    ServerPort = "server.port": "a whole number up to 65535",
    ClientAddress = "client.address": "a string",
    UserAgent = "user_agent.original": "a string",
    ProtocolVersion = "network.protocol.version": "a string",
    RequestHeader = "http.request.header": "an object of strings",
    RequestHeaderOmitted = "http.request.header.omitted": "a whole number",
    ResponseHeader = "http.response.header": "an object of strings",
    ResponseHeaderOmitted = "http.response.header.omitted": "a whole number",
    RequestBodySize = "http.request.body.size": "a whole number",
    RequestBodyContent = "http.request.body.content": "a string",
    RequestBodyOmitted = "http.request.body.omitted": Omitted::NAMES,
    RequestBodyTruncated = "http.request.body.truncated": "true or false",
    RequestBodyEvents = "http.request.body.events": "a whole number",
    RequestBodyMessages = "http.request.body.messages": "a whole number",
    RequestBodyFrames = "http.request.body.frames": "a whole number",
    ResponseBodySize = "http.response.body.size": "a whole number",
    ResponseBodyContent = "http.response.body.content": "a string",
    ResponseBodyOmitted = "http.response.body.omitted": Omitted::NAMES,
    ResponseBodyTruncated = "http.response.body.truncated": "true or false",
    ResponseBodyEvents = "http.response.body.events": "a whole number",
    ResponseBodyMessages = "http.response.body.messages": "a whole number",
    ResponseBodyFrames = "http.response.body.frames": "a whole number",
    Status = "http.response.status_code": "a whole number up to 65535",
    RpcStatus = "rpc.response.status_code": "a string",
    RpcMessage = "rpc.response.status_message": "a string",
    CloseCode = "websocket.close_code": "a whole number up to 65535",
    Duration = "duration_ms": "a number of milliseconds, not negative",
    Ttfb = "ttfb_ms": "a number of milliseconds, not negative",
    UpstreamAddress = "upstream.address": "a string",
    UpstreamAttempts = "upstream.attempts": "a whole number",
    End = "end": End::NAMES,
    ErrorType = "error.type": "a string",
    Dropped = "dropped": "an object of whole numbers",
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_name_is_found_and_needs_no_escape() {
        for key in Key::ALL {
            assert_eq!(Key::of(key.name()), Some(*key));
            assert_eq!(
                key.opening(),
                format!(",{}:", serde_json::to_string(key.name()).unwrap())
            );
        }
        assert_eq!(Key::of("http.request.headers"), None);
    }
}
