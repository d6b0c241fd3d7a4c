//! The stream: whether it may be published to.

use std::sync::Arc;
use std::time::Duration;

use sidelog_chassis::nats::{Connection, NatsSettings, StreamError, ensure_stream};
use tokio::sync::{Notify, watch};

/// Wait between two questions; doubled each time, up to the second value.
const RETRY: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(5));

/// Sees to it that the stream is there: at the start, and again whenever a publish finds it missing.
#[derive(Debug)]
pub struct StreamKeeper {
    ready: watch::Receiver<bool>,
    missing: Arc<Notify>,
}

impl StreamKeeper {
    /// Starts asking. Call it inside the runtime that will drive it.
    pub fn start(mut connection: Connection, nats: NatsSettings) -> Self {
        let (sender, ready) = watch::channel(false);
        let missing = Arc::new(Notify::new());
        let asked = Arc::clone(&missing);
        tokio::spawn(async move {
            while !sender.is_closed() {
                connection.connected().await;
                keep_asking(&connection, &nats).await;
                sender.send_replace(true);
                asked.notified().await;
            }
        });
        Self { ready, missing }
    }

    /// Whether the stream was there, or not ours to create, when last asked.
    pub fn is_ready(&self) -> bool {
        *self.ready.borrow()
    }

    /// A publish found no stream: ask again.
    pub fn missing(&self) {
        self.missing.notify_one();
    }
}

/// Until the stream is there, or we are told that it is not ours to create.
async fn keep_asking(connection: &Connection, nats: &NatsSettings) {
    let mut told = false;
    let mut delay = RETRY.0;
    loop {
        match ensure_stream(connection, nats).await {
            Ok(_) => return,
            Err(error @ StreamError::Denied { .. }) => {
                tracing::info!(%error, "the stream is taken as it is");
                return;
            }
            Err(error) if !told => tracing::warn!(%error, "the stream can't be used yet; asking again"),
            Err(_) => {}
        }
        told = true;
        tokio::time::sleep(delay).await;
        delay = (delay * 2).min(RETRY.1);
    }
}
