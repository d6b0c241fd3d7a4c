//! The wall: what is refused, by whom it is said, and that nothing of it reaches the upstream. Raw sockets on a real proxy.

#![expect(
    clippy::panic,
    clippy::print_stdout,
    clippy::unwrap_used,
    reason = "a test stops at the first thing that is not as it expects, and shows what it measured"
)]

mod chunking;
mod connection;
mod fields;
mod framing;
mod host;
mod hostile;
mod http2;
mod memory;
mod pipelining;
mod records;
mod request_line;
mod stand;
mod time;
