//! Bodies of anybody, decoded: no bytes make the decoders panic or give more than was asked for.

#![no_main]

use libfuzzer_sys::fuzz_target;
use sidelog_proxy::queue::exchange::Fields;
use sidelog_proxy::shipping::decode;

const CODINGS: [&str; 6] = ["gzip", "br", "zstd", "deflate", "gzip, br", "identity"];
const CHARSETS: [Option<&[u8]>; 4] = [None, Some(b"utf-16"), Some(b"windows-1252"), Some(b"shift_jis")];
const LIMIT: usize = 64 * 1024;

fuzz_target!(|input: (u8, u8, bool, &[u8])| {
    let (coding, charset, cut, bytes) = input;
    let mut fields = Vec::new();
    let coding = CODINGS[usize::from(coding) % CODINGS.len()];
    Fields::push(&mut fields, b"content-encoding", coding.as_bytes());
    if let Some(decoded) = decode::content(bytes, Fields(&fields), LIMIT, cut) {
        assert!(decoded.bytes.len() <= LIMIT.max(bytes.len()));
        decode::text(&decoded.bytes, CHARSETS[usize::from(charset) % CHARSETS.len()], decoded.cut);
    }
});
