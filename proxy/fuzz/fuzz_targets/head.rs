//! Request heads of anybody: no bytes make the judge panic, the verdict is the same in whatever pieces they come, and a head
//! that is taken ends at its empty line and is read alone as it was before others.

#![no_main]

use libfuzzer_sys::fuzz_target;
use sidelog_proxy::traffic::head::{HeadLimits, Judge, Verdict};

const LIMITS: HeadLimits = HeadLimits {
    bytes: 512,
    fields: 8,
    target: 64,
};

fuzz_target!(|bytes: &[u8]| {
    // The first byte says how large the pieces are.
    let Some((piece, bytes)) = bytes.split_first() else {
        return;
    };
    let whole = Judge::default().judge(bytes, &LIMITS);
    let mut slow = Judge::default();
    let mut end = 0;
    let dripping = loop {
        match slow.judge(&bytes[..end], &LIMITS) {
            Verdict::Incomplete if end < bytes.len() => end = bytes.len().min(end + usize::from(*piece) + 1),
            verdict => break verdict,
        }
    };
    // Of what is wrong in two ways, one is seen earlier in pieces.
    let refused = |verdict: &Verdict| matches!(verdict, Verdict::Refused(_));
    assert!(whole == dripping || (refused(&whole) && refused(&dripping)));
    if let Verdict::Taken(head) = whole {
        assert!(bytes[..head.len].ends_with(b"\r\n\r\n"));
        assert_eq!(Judge::default().judge(&bytes[..head.len], &LIMITS), whole);
    }
});
