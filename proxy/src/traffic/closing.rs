//! When a connection is to let its client go: from the drain on.
//!
//! An HTTP/1.1 client is told by its next answer (`Connection: close`), an HTTP/2 client by a GOAWAY after which its
//! streams go on to their end. pingora does both for a connection whose watch turns true; this file is that watch.
//!
//! Invariants:
//! - No connection is closed by a drain that its client doesn't close (`tests/drain.rs`).
//! - A connection that is accepted while draining serves first: an HTTP/2 client that was sent away before its first
//!   request would only come again (`a_connection_that_comes_late_is_served_before_it_is_sent_away`).

use std::time::Duration;

use pingora::server::ShutdownWatch;
use sidelog_chassis::drain::Shutdown;
use tokio::sync::watch;

/// How long an HTTP/2 connection serves that was accepted while draining.
const LATE: Duration = Duration::from_secs(1);

/// Makes the watch of each connection.
#[derive(Debug, Clone)]
pub struct Closing {
    shutdown: Shutdown,
    early: ShutdownWatch,
}

impl Closing {
    /// Follows `shutdown`, on the current runtime.
    pub fn new(shutdown: Shutdown) -> Self {
        let (let_go, early) = watch::channel(false);
        let drained = shutdown.clone();
        tokio::spawn(async move {
            drained.draining().await;
            let_go.send_replace(true);
            // Those that look later find it true; without a sender they would find an error.
            let_go.closed().await;
        });
        Self { shutdown, early }
    }

    /// Whether answers tell their client to close.
    pub fn is_draining(&self) -> bool {
        self.shutdown.is_draining()
    }

    /// The watch of a connection that is accepted now.
    pub fn connection(&self) -> ShutdownWatch {
        if !self.shutdown.is_draining() {
            return self.early.clone();
        }
        let (let_go, late) = watch::channel(false);
        let shutdown = self.shutdown.clone();
        tokio::spawn(async move {
            tokio::select! {
                () = tokio::time::sleep(LATE) => {}
                () = shutdown.requested() => {}
                () = let_go.closed() => return,
            }
            let_go.send_replace(true);
            let_go.closed().await;
        });
        late
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_connection_lets_go_from_the_drain_on() {
        let shutdown = Shutdown::new();
        let closing = Closing::new(shutdown.clone());
        let mut connection = closing.connection();
        assert!(!*connection.borrow());
        shutdown.drain();
        connection.changed().await.unwrap();
        assert!(*connection.borrow());
    }

    #[tokio::test(start_paused = true)]
    async fn a_connection_that_comes_late_is_served_before_it_is_sent_away() {
        let shutdown = Shutdown::new();
        shutdown.drain();
        let closing = Closing::new(shutdown.clone());
        let begun = tokio::time::Instant::now();
        let mut late = closing.connection();
        late.changed().await.unwrap();
        assert!(*late.borrow() && begun.elapsed() >= LATE);
        let mut later = closing.connection();
        let begun = tokio::time::Instant::now();
        shutdown.request();
        later.changed().await.unwrap();
        assert!(begun.elapsed() < LATE, "an end is not waited with");
    }
}
