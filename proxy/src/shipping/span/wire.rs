//! Protobuf as OTLP's spans need it, written straight into a buffer (<https://protobuf.dev/programming-guides/encoding/>).
//!
//! The generated types would have every key and value of a span's attributes copied to the heap before they are written.
//!
//! Invariants:
//! - What is written is what the generated types read (`span_and_record_of_an_exchange_agree`).
//! - A field of its type's default is left out, as proto3 has it.

use prost::encoding::{WireType, encode_key, encode_varint, encoded_len_varint};

/// The value of an attribute (`opentelemetry.proto.common.v1.AnyValue`).
#[derive(Clone, Copy, Debug)]
pub(super) enum Value<'v> {
    Text(&'v str),
    Number(u64),
}

pub(super) fn bytes(tag: u32, value: &[u8], out: &mut Vec<u8>) {
    if !value.is_empty() {
        length_delimited(tag, value.len(), out);
        out.extend_from_slice(value);
    }
}

pub(super) fn varint(tag: u32, value: u64, out: &mut Vec<u8>) {
    if value != 0 {
        encode_key(tag, WireType::Varint, out);
        encode_varint(value, out);
    }
}

pub(super) fn fixed64(tag: u32, value: u64, out: &mut Vec<u8>) {
    if value != 0 {
        encode_key(tag, WireType::SixtyFourBit, out);
        out.extend_from_slice(&value.to_le_bytes());
    }
}

pub(super) fn fixed32(tag: u32, value: u32, out: &mut Vec<u8>) {
    if value != 0 {
        encode_key(tag, WireType::ThirtyTwoBit, out);
        out.extend_from_slice(&value.to_le_bytes());
    }
}

/// A message that is seldom there, which is written for itself first.
pub(super) fn message(tag: u32, write: impl FnOnce(&mut Vec<u8>), out: &mut Vec<u8>) {
    let mut inner = Vec::new();
    write(&mut inner);
    length_delimited(tag, inner.len(), out);
    out.extend_from_slice(&inner);
}

/// An attribute (`opentelemetry.proto.common.v1.KeyValue`).
pub(super) fn attribute(tag: u32, key: &str, value: Value<'_>, out: &mut Vec<u8>) {
    /// Fields of `KeyValue` and `AnyValue`; their keys take a byte each.
    const KEY: u32 = 1;
    const VALUE: u32 = 2;
    const STRING_VALUE: u32 = 1;
    const INT_VALUE: u32 = 3;
    let value_len = match value {
        Value::Text(text) => delimited_len(text.len()),
        Value::Number(number) => 1 + encoded_len_varint(number),
    };
    length_delimited(tag, delimited_len(key.len()) + delimited_len(value_len), out);
    length_delimited(KEY, key.len(), out);
    out.extend_from_slice(key.as_bytes());
    length_delimited(VALUE, value_len, out);
    match value {
        // A value that is set is written though it be the default: it tells which of the kinds it is.
        Value::Text(text) => {
            length_delimited(STRING_VALUE, text.len(), out);
            out.extend_from_slice(text.as_bytes());
        }
        Value::Number(number) => {
            encode_key(INT_VALUE, WireType::Varint, out);
            encode_varint(number, out);
        }
    }
}

fn length_delimited(tag: u32, len: usize, out: &mut Vec<u8>) {
    encode_key(tag, WireType::LengthDelimited, out);
    encode_varint(len as u64, out);
}

/// Bytes of a field of one key byte that has `len` bytes itself.
fn delimited_len(len: usize) -> usize {
    1 + encoded_len_varint(len as u64) + len
}
