//! Plugs that are pulled between proxy and JetStream: what was accepted is there afterwards, or counted.

#![expect(
    clippy::unwrap_used,
    reason = "a test stops at the first thing that is not as it expects"
)]

mod nats_away;
mod stand;
