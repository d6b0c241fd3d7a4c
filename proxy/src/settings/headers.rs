//! Header fields that go with every request to the collector: `name=value,name=value`, the values percent-encoded where
//! they must be (the format of `OTEL_EXPORTER_OTLP_HEADERS`).
//!
//! Invariant: no value is ever shown (`values_are_not_shown`).

use std::fmt;
use std::str::FromStr;

use http::{HeaderMap, HeaderName, HeaderValue};
use percent_encoding::percent_decode_str;
use serde::de::{Deserialize, Deserializer, Error, Visitor};
use serde::ser::{Serialize, Serializer};

/// Fields that belong to the protocol.
const RESERVED: [&str; 8] = [
    "connection",
    "content-encoding",
    "content-length",
    "content-type",
    "host",
    "te",
    "transfer-encoding",
    "user-agent",
];

/// Header fields with secret values.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Headers(HeaderMap);

impl Headers {
    /// The fields; their values are marked as secret.
    pub fn get(&self) -> &HeaderMap {
        &self.0
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl FromStr for Headers {
    type Err = String;

    /// Reads a list; its parts are parted by commas or line ends.
    fn from_str(text: &str) -> Result<Self, String> {
        let mut fields = HeaderMap::new();
        let parts = text.split([',', '\n', '\r']).map(str::trim);
        for (index, part) in parts.filter(|part| !part.is_empty()).enumerate() {
            let (name, value) = field(part).map_err(|what| {
                let at = index + 1;
                format!(
                    "header field {at} {what}; write \"name=value\", several parted by commas, values percent-encoded"
                )
            })?;
            fields.append(name, value);
        }
        Ok(Self(fields))
    }
}

fn field(part: &str) -> Result<(HeaderName, HeaderValue), String> {
    let (name, value) = part.split_once('=').ok_or("has no =")?;
    let name: HeaderName = name
        .trim()
        .parse()
        .map_err(|_| "has no name of a header field".to_owned())?;
    let is_reserved = RESERVED.contains(&name.as_str()) || name.as_str().starts_with("grpc-");
    if is_reserved || name.as_str().ends_with("-bin") {
        return Err(format!("is {name}, which the protocol keeps for itself"));
    }
    let value: Vec<u8> = percent_decode_str(value.trim()).collect();
    // gRPC takes printable ASCII only, and so does every HTTP server.
    let is_printable = value.iter().all(|byte| matches!(byte, b' '..=b'~'));
    let value = HeaderValue::from_bytes(&value).ok().filter(|_| is_printable);
    let mut value = value.ok_or_else(|| format!("({name}) has a value that is not printable ASCII"))?;
    value.set_sensitive(true);
    Ok((name, value))
}

impl fmt::Debug for Headers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_map().entries(self.0.keys().map(|name| (name, "***"))).finish()
    }
}

impl Serialize for Headers {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let shown: Vec<_> = self.0.keys().map(|name| format!("{name}=***")).collect();
        serializer.serialize_str(&shown.join(","))
    }
}

impl<'de> Deserialize<'de> for Headers {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_str(HeadersVisitor)
    }
}

struct HeadersVisitor;

impl Visitor<'_> for HeadersVisitor {
    type Value = Headers;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("header fields, such as \"api-key=secret\"")
    }

    fn visit_str<E: Error>(self, text: &str) -> Result<Headers, E> {
        text.parse().map_err(E::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Vec<(String, String)> {
        let headers: Headers = text.parse().expect(text);
        let fields = headers.get().iter();
        fields
            .map(|(name, value)| (name.to_string(), value.to_str().expect("ASCII").to_owned()))
            .collect()
    }

    fn field(name: &str, value: &str) -> (String, String) {
        (name.to_owned(), value.to_owned())
    }

    #[test]
    fn a_list_is_read_and_its_values_are_decoded() {
        assert_eq!(read("Api-Key=abc"), [field("api-key", "abc")]);
        let expected = [field("authorization", "Bearer a=b,c"), field("x", "1")];
        assert_eq!(read(" authorization = Bearer%20a=b%2Cc , x=1,"), expected);
        assert_eq!(read("authorization=Bearer a=b%2Cc\nx=1\n"), expected);
        assert_eq!(read(""), []);
    }

    #[test]
    fn what_is_no_field_says_what_to_write() {
        for (text, part) in [
            ("a=1,b", "header field 2 has no =; write \"name=value\""),
            ("a b=1", "header field 1 has no name"),
            ("a=%0a", "header field 1 (a) has a value that is not printable"),
            ("content-type=x", "is content-type, which the protocol keeps"),
            ("grpc-timeout=1", "is grpc-timeout"),
            ("trace-bin=1", "is trace-bin"),
        ] {
            let error = text.parse::<Headers>().expect_err(text);
            assert!(error.contains(part), "{text}: {error}");
        }
    }

    #[test]
    fn values_are_not_shown() {
        let headers: Headers = "api-key=SECRET".parse().expect("a header");
        assert_eq!(format!("{headers:?}"), "{\"api-key\": \"***\"}");
        let error = "api-key=SECRET,SECRET".parse::<Headers>().expect_err("malformed");
        assert!(!error.contains("SECRET"), "{error}");
    }
}
