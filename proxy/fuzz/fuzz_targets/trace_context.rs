//! `traceparent` and `tracestate` of anybody: no bytes make the parsers panic, what they take they write back, and what
//! was joined is joined again to the same.
//!
//! The two parsers stand on nothing else of the proxy, and are taken in by path: the proxy need not be built for this.

#![no_main]

use libfuzzer_sys::fuzz_target;

#[path = "../../src/traffic/traceparent.rs"]
mod traceparent;
#[path = "../../src/traffic/tracestate.rs"]
mod tracestate;

use traceparent::Traceparent;

fuzz_target!(|bytes: &[u8]| {
    if let Some(read) = Traceparent::parse(bytes) {
        let written = Traceparent::header(read.trace_id, read.parent_id, read.flags);
        assert_eq!(Traceparent::parse(&written), Some(read));
        assert_eq!(Traceparent::only([bytes].into_iter()), Some(read));
        assert_eq!(Traceparent::only([bytes, bytes].into_iter()), None);
    }
    // Line ends part header fields of one name.
    if let Some(list) = tracestate::join(bytes.split(|byte| *byte == b'\n')) {
        assert_eq!(tracestate::join([list.as_ref()].into_iter()), Some(list.clone()));
        assert!(list.iter().all(|byte| matches!(byte, b' '..=b'~' | b'\t')));
    }
});
