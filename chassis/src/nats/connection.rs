//! The connection: begun without a server, kept for ever, its events told once each.
//!
//! async-nats hands events over by a channel that drops them when it is full, so an event is a hint; what counts is the
//! client's own state.

use std::collections::HashMap;
use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use anyhow::Context;
use async_nats::connection::State;
use async_nats::{Client, ServerAddr};
use tokio::sync::watch;

use super::events::{Refused, Teller};
use super::identity::{authenticated, secured};
use super::settings::NatsSettings;

/// Pings that stay unanswered twice end the connection, so a dead server is noticed after three of these at most.
const PING_INTERVAL: Duration = Duration::from_secs(5);
/// The time that one attempt to connect has, TLS and credentials included.
const CONNECT_TIME: Duration = Duration::from_secs(5);
/// The longest wait between two attempts.
const MAX_RETRY_DELAY: Duration = Duration::from_secs(2);
/// The wait that doubles from attempt to attempt.
const RETRY_DELAY: Duration = Duration::from_millis(50);
/// How often the state itself is looked at while an event is waited for.
const STATE_CHECK: Duration = Duration::from_millis(250);

/// A connection that lasts as long as the process. Clones share it.
#[derive(Clone)]
pub struct Connection {
    /// The client, for publishing, subscribing and JetStream.
    pub client: Client,
    up: watch::Receiver<bool>,
    refused: Refused,
    /// By stream, what was told last of how it differs from the settings.
    told: Arc<Mutex<HashMap<String, String>>>,
}

impl fmt::Debug for Connection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Connection")
            .field("is_connected", &self.is_connected())
            .finish_non_exhaustive()
    }
}

impl Connection {
    /// Whether there is a server now.
    #[must_use]
    pub fn is_connected(&self) -> bool {
        self.client.connection_state() == State::Connected
    }

    /// Waits until there is a server. Cancel safe.
    pub async fn connected(&mut self) {
        while !self.is_connected() {
            // Both ends of the wait lead to the same question: a change, or time to look.
            drop(tokio::time::timeout(STATE_CHECK, self.up.changed()).await);
        }
    }

    /// Waits until there is no server. Cancel safe.
    pub async fn disconnected(&mut self) {
        while self.is_connected() {
            drop(tokio::time::timeout(STATE_CHECK, self.up.changed()).await);
        }
    }

    /// Whether this was not what was told last of a stream; from now on it is. An empty text is told never.
    pub(super) fn is_news(&self, stream: &str, text: &str) -> bool {
        let mut told = self.told.lock().unwrap_or_else(PoisonError::into_inner);
        let before = told.insert(stream.to_owned(), text.to_owned());
        !text.is_empty() && before.as_deref() != Some(text)
    }

    pub(super) fn refused(&self) -> &Refused {
        &self.refused
    }
}

/// Begins a connection and returns at once, whether or not there is a server; `name` is what the server shows of us.
///
/// Must run inside a tokio runtime that lives as long as the connection.
///
/// # Errors
///
/// A file of credentials or certificates can't be read or isn't what its key says; it may be missing where
/// `nats.wait_for_files` says so.
pub async fn connect(settings: &NatsSettings, name: &str) -> anyhow::Result<Connection> {
    let (up_sender, up) = watch::channel(false);
    let refused = Refused::default();
    let teller = Arc::new(Teller::new(settings.url.to_string(), up_sender, refused.clone()));
    let options = authenticated(settings)?
        .name(name)
        .retry_on_initial_connect()
        .max_reconnects(None)
        .ping_interval(PING_INTERVAL)
        .connection_timeout(CONNECT_TIME)
        .reconnect_delay_callback(retry_delay)
        .event_callback(move |event| {
            let teller = Arc::clone(&teller);
            async move { teller.tell(&event) }
        });
    let options = secured(options, settings)?;
    let servers: Vec<ServerAddr> = settings.url.iter().map(|url| url.address().clone()).collect();
    let client = options
        .connect(servers)
        .await
        .with_context(|| format!("failed to begin a connection to {} (nats.url)", settings.url))?;
    Ok(Connection {
        client,
        up,
        refused,
        told: Arc::default(),
    })
}

/// None before the first attempt, then doubling to the longest.
fn retry_delay(attempts: usize) -> Duration {
    let doublings = u32::try_from(attempts.saturating_sub(2)).unwrap_or(u32::MAX).min(16);
    match attempts {
        0 | 1 => Duration::ZERO,
        _ => RETRY_DELAY.saturating_mul(2_u32.pow(doublings)).min(MAX_RETRY_DELAY),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn retries_begin_at_once_and_never_wait_longer_than_two_seconds() {
        assert_eq!(retry_delay(0), Duration::ZERO);
        assert_eq!(retry_delay(1), Duration::ZERO);
        assert_eq!(retry_delay(2), Duration::from_millis(50));
        assert_eq!(retry_delay(4), Duration::from_millis(200));
        assert_eq!(retry_delay(20), MAX_RETRY_DELAY);
        assert_eq!(retry_delay(usize::MAX), MAX_RETRY_DELAY);
    }
}
