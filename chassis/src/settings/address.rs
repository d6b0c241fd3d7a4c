//! Addresses to listen at: `0.0.0.0:8080`. For a field: `#[serde(with = "address")]`.

use std::fmt;
use std::net::SocketAddr;

use serde::de::{Deserializer, Error, Visitor};
use serde::ser::Serializer;

/// Reads an IP address with a port, `127.0.0.1:8080` or `[::1]:8080`; port 0 is any free port.
///
/// # Errors
///
/// A sentence that says what to write instead.
pub fn parse(text: &str) -> Result<SocketAddr, String> {
    text.trim().parse().map_err(|_| {
        format!("{text:?} is not an address to listen at; write an IP address and a port, such as \"0.0.0.0:8080\"")
    })
}

/// Serializes an address as a string.
///
/// # Errors
///
/// The serializer's.
pub fn serialize<S: Serializer>(address: &SocketAddr, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_str(address)
}

/// Deserializes an address from a string.
///
/// # Errors
///
/// As [`parse`].
pub fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<SocketAddr, D::Error> {
    deserializer.deserialize_str(AddressVisitor)
}

struct AddressVisitor;

impl Visitor<'_> for AddressVisitor {
    type Value = SocketAddr;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an address to listen at, such as \"0.0.0.0:8080\"")
    }

    fn visit_str<E: Error>(self, text: &str) -> Result<SocketAddr, E> {
        parse(text).map_err(E::custom)
    }
}
