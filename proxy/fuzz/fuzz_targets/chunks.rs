//! Chunked bodies of anybody: no bytes make the validator panic, it is of one mind in whatever pieces they come, and nothing
//! behind the end belongs to the body.
//!
//! It stands on nothing else of the proxy, and is taken in by path: the proxy need not be built for this.

#![no_main]

use libfuzzer_sys::fuzz_target;

#[allow(dead_code, reason = "the proxy uses all of it")]
#[path = "../../src/traffic/chunks.rs"]
mod chunks;

use chunks::Chunks;

fuzz_target!(|bytes: &[u8]| {
    let mut whole = Chunks::new();
    let used = whole.read(bytes);
    let mut slow = Chunks::new();
    let mut taken = 0;
    let dripping = bytes.iter().try_for_each(|byte| slow.read(&[*byte]).map(|used| taken += used));
    assert_eq!(used.is_err(), dripping.is_err());
    if let Ok(used) = used {
        assert_eq!(used, taken);
        assert_eq!(whole, slow);
        assert!(whole.is_done() || used == bytes.len());
    }
});
