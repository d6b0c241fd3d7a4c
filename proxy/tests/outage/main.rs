//! Plugs that are pulled between proxy and JetStream: what was accepted is there afterwards, or counted.

#![expect(
    clippy::unwrap_used,
    reason = "a test stops at the first thing that is not as it expects"
)]
#![expect(clippy::print_stderr, reason = "a skipped test is loud")]

mod clock;
mod disk;
mod limits;
mod nats_away;
mod proxy_killed;
mod soak;
mod stand;
