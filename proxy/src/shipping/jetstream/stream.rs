//! The stream: whether it may be published to, and how large a message it takes.

use std::sync::Arc;
use std::time::Duration;

use async_nats::jetstream::stream::Config;
use sidelog_chassis::nats::{Connection, NatsSettings, StreamError, ensure_stream};
use tokio::sync::{Notify, watch};

use super::fit::{Announced, Wanted};

/// Wait between two questions; doubled each time, up to the second value.
const RETRY: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(5));

/// Sees to it that the stream is there: at the start, and again whenever a publish finds it missing.
#[derive(Debug)]
pub struct StreamKeeper {
    ready: watch::Receiver<Option<Announced>>,
    missing: Arc<Notify>,
}

impl StreamKeeper {
    /// Starts asking. Call it inside the runtime that will drive it.
    pub fn start(mut connection: Connection, nats: NatsSettings, wanted: Wanted) -> Self {
        let (sender, ready) = watch::channel(None);
        let missing = Arc::new(Notify::new());
        let asked = Arc::clone(&missing);
        tokio::spawn(async move {
            let mut told = Vec::new();
            while !sender.is_closed() {
                connection.connected().await;
                let stream = keep_asking(&connection, &nats).await;
                let announced = announced(&connection, stream.as_ref());
                let misfits = wanted.misfits(&announced);
                for misfit in misfits.iter().filter(|misfit| !told.contains(*misfit)) {
                    tracing::warn!("{misfit}");
                }
                told = misfits;
                sender.send_replace(Some(announced));
                asked.notified().await;
            }
        });
        Self { ready, missing }
    }

    /// Whether the stream was there, or not ours to create, when last asked.
    pub fn is_ready(&self) -> bool {
        self.ready.borrow().is_some()
    }

    /// The bytes of the largest message that the stream takes, as far as it told.
    pub fn message_max(&self) -> u64 {
        let announced = *self.ready.borrow();
        announced
            .and_then(|announced| announced.max_msg_size)
            .unwrap_or(u64::MAX)
    }

    /// A publish found no stream: ask again.
    pub fn missing(&self) {
        self.missing.notify_one();
    }
}

fn announced(connection: &Connection, stream: Option<&Config>) -> Announced {
    let limit = |limit: i64| u64::try_from(limit).ok().filter(|limit| *limit > 0);
    Announced {
        max_payload: connection.client.max_payload() as u64,
        max_msg_size: stream.and_then(|stream| limit(stream.max_message_size.into())),
        max_bytes: stream.and_then(|stream| limit(stream.max_bytes)),
        duplicate_window: stream.map(|stream| stream.duplicate_window),
    }
}

/// Until the stream is there, or we are told that it is not ours to create or look at.
async fn keep_asking(connection: &Connection, nats: &NatsSettings) -> Option<Config> {
    let mut told = false;
    let mut delay = RETRY.0;
    loop {
        match ensure_stream(connection, nats).await {
            Ok(info) => return Some(info.config),
            Err(error @ StreamError::Denied { .. }) => {
                tracing::info!(%error, "the stream is taken as it is");
                return None;
            }
            Err(error) if !told => tracing::warn!(%error, "the stream can't be used yet; asking again"),
            Err(_) => {}
        }
        told = true;
        tokio::time::sleep(delay).await;
        delay = (delay * 2).min(RETRY.1);
    }
}
