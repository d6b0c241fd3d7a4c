//! What the outage tests share: a proxy with a spool, traffic that is counted, and what the stream holds in the end.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Instant;

use axum::Router;
use axum::body::Bytes;
use axum::http::HeaderMap;
use futures_util::StreamExt;
use parking_lot::Mutex;
use sidelog_record::{End, Record};
use testbed::{NatsServer, Port, Sidelog, SidelogCommand, Upstream, wait};

pub(crate) use testbed::{Balance, balanced, settled};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::task::JoinHandle;

/// Connections that send at the same time.
const CONNECTIONS: usize = 16;

/// A service that answers with the number it was sent, and remembers nothing.
pub(crate) fn upstream() -> Upstream {
    // A body that isn't read would cost the connection.
    let answer = async |headers: HeaderMap, _: Bytes| format!("answer {}", headers["x-number"].to_str().unwrap());
    Upstream::serving(Router::new().fallback(answer))
}

/// A proxy without spans, whose listener and spool the next process can take over.
pub(crate) fn proxy(upstream: &Upstream, nats_url: &str, spool: &Path, port: &Port) -> SidelogCommand {
    Sidelog::proxy()
        .env("SERVICE_NAME", "api-service")
        .env("UPSTREAM_URL", upstream.url())
        .env("NATS_URL", nats_url)
        .env("PORT", port.number())
        .env("SIDELOG_TRACES__ENABLED", "false")
        .env("SIDELOG_SPOOL__DIRECTORY", spool.display())
}

/// The exchanges that were answered, and when.
type Answered = Arc<Mutex<Vec<(usize, Instant)>>>;

/// Exchanges that are being sent.
#[derive(Debug)]
pub(crate) struct Traffic {
    answered: Answered,
    connections: Vec<JoinHandle<Result<(), String>>>,
}

impl Traffic {
    /// Sends the exchanges numbered `from` to `to`, with a body of so many bytes. Every answer must be the service's.
    pub(crate) fn start(proxy: &Sidelog, from: usize, to: usize, body: usize) -> Self {
        let answered = Answered::default();
        let next = Arc::new(AtomicUsize::new(from));
        let address = proxy.addresses()[0].port();
        let body: Arc<str> = format!("{{\"fill\":\"{}\"}}", "x".repeat(body)).into();
        let connections = (0..CONNECTIONS).map(|_| {
            let (next, answered, body) = (Arc::clone(&next), Arc::clone(&answered), Arc::clone(&body));
            tokio::spawn(async move {
                let mut connection = TcpStream::connect(("127.0.0.1", address)).await.unwrap();
                loop {
                    let number = next.fetch_add(1, Ordering::AcqRel);
                    if number >= to {
                        return Ok(());
                    }
                    exchange(&mut connection, number, &body).await?;
                    answered.lock().push((number, Instant::now()));
                }
            })
        });
        Self {
            connections: connections.collect(),
            answered,
        }
    }

    /// Waits until so many exchanges of all were answered.
    pub(crate) async fn reaches(&self, count: usize) {
        wait::until("traffic goes on", async || self.answered.lock().len() >= count).await;
    }

    /// Waits for the end of all.
    pub(crate) async fn end(self) {
        for connection in self.connections {
            assert_eq!(connection.await.unwrap(), Ok(()));
        }
    }

    /// Waits for the end of all, though some may be cut off. Gives back those that were answered.
    pub(crate) async fn cut_off(self) -> Vec<(usize, Instant)> {
        for connection in self.connections {
            drop(connection.await.unwrap());
        }
        std::mem::take(&mut *self.answered.lock())
    }
}

/// One exchange over HTTP/1.1, written by hand: a whole client costs more than the proxy.
async fn exchange(connection: &mut TcpStream, number: usize, body: &str) -> Result<(), String> {
    let failed = |error: std::io::Error| format!("exchange {number}: {error}");
    let request = format!(
        "POST /orders HTTP/1.1\r\nhost: test\r\nx-number: {number}\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\r\n{body}",
        body.len()
    );
    connection.write_all(request.as_bytes()).await.map_err(failed)?;
    let expected = format!("\r\n\r\nanswer {number}");
    let mut answer = Vec::new();
    while !answer.ends_with(expected.as_bytes()) {
        let read = connection.read_buf(&mut answer).await.map_err(failed)?;
        if read == 0 || !answer.starts_with(b"HTTP/1.1 200") || answer.len() > 4096 {
            return Err(format!(
                "exchange {number} was answered {:?}",
                String::from_utf8_lossy(&answer)
            ));
        }
    }
    Ok(())
}

/// Waits until every message of the stream is acknowledged by the consumer.
pub(crate) async fn acknowledged(nats: &NatsServer) {
    let jetstream = nats.jetstream().await;
    wait::until("every message is acknowledged", async || {
        let Ok(stream) = jetstream.get_stream("logs").await else {
            return false;
        };
        let durable = stream.consumer_info("sidelog-consumer").await;
        durable.is_ok_and(|info| info.num_pending == 0 && info.num_ack_pending == 0)
    })
    .await;
}

/// What the stream holds.
#[derive(Debug, Default)]
pub(crate) struct Stored {
    /// How often each exchange is there.
    pub(crate) exchanges: BTreeMap<usize, usize>,
    /// What loss records tell, by reason.
    pub(crate) losses: BTreeMap<String, u64>,
    /// `Nats-Msg-Id` of all messages.
    pub(crate) ids: Vec<String>,
}

impl Stored {
    /// Reads all of the stream `logs`.
    pub(crate) async fn of(nats: &NatsServer) -> Self {
        let mut stream = nats.jetstream().await.get_stream("logs").await.unwrap();
        let count = usize::try_from(stream.info().await.unwrap().state.messages).unwrap();
        let config = async_nats::jetstream::consumer::pull::Config::default();
        let consumer = stream.create_consumer(config).await.unwrap();
        let mut messages = consumer.messages().await.unwrap().take(count);
        let mut stored = Self::default();
        while let Some(message) = messages.next().await {
            let message = message.unwrap();
            message.ack().await.unwrap();
            let id = message.headers.as_ref().unwrap().get("Nats-Msg-Id").unwrap();
            stored.ids.push(id.to_string());
            for line in sidelog_record::frame::lines(&message.payload) {
                stored.read(&Record::decode(line).unwrap());
            }
        }
        stored
    }

    /// Reads the lines of a store.
    pub(crate) fn of_lines(lines: impl IntoIterator<Item = impl AsRef<[u8]>>) -> Self {
        let mut stored = Self::default();
        for line in lines {
            stored.read(&Record::decode(line.as_ref()).unwrap());
        }
        stored
    }

    fn read(&mut self, record: &Record<'_>) {
        if record.end == End::Loss {
            for (reason, count) in record.loss.iter().flatten() {
                *self.losses.entry(reason.to_string()).or_default() += count;
            }
            return;
        }
        let number = record.request.headers.iter().find(|(name, _)| name == "x-number");
        let number = number.unwrap().1.parse().unwrap();
        *self.exchanges.entry(number).or_default() += 1;
    }

    /// Each exchange from 0 to `count` is there once.
    pub(crate) fn assert_whole(&self, count: usize) {
        let missing = (0..count).filter(|number| !self.exchanges.contains_key(number)).count();
        assert_eq!(
            (missing, self.doubled(), self.exchanges.len()),
            (0, 0, count),
            "missing, doubled, all"
        );
    }

    /// How many exchanges are there more than once.
    pub(crate) fn doubled(&self) -> usize {
        self.exchanges.values().filter(|count| **count > 1).count()
    }
}
