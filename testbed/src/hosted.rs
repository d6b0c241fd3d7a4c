//! A server inside the test's process, on a thread and a runtime of its own.
//!
//! The runtime ends with the value, and with it every connection: to its clients that is a server that was killed.

use std::{
    io,
    net::{SocketAddr, TcpListener},
    thread::{self, JoinHandle},
};

use axum::Router;
use tokio::sync::oneshot;

/// A server that runs until it is dropped.
#[derive(Debug)]
pub(crate) struct Hosted {
    stop: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Hosted {
    /// Serves `router` by HTTP/1.1 and h2c at `address`. Connections are accepted from the moment this returns.
    pub(crate) fn start(address: SocketAddr, router: Router) -> Self {
        Self::start_with(address, async move |listener| axum::serve(listener, router).await)
    }

    /// Runs `server` with a socket that listens at `address`, from the moment this returns. It is not to end by itself.
    pub(crate) fn start_with<S>(address: SocketAddr, server: S) -> Self
    where
        S: AsyncFnOnce(tokio::net::TcpListener) -> io::Result<()> + Send + 'static,
    {
        let listener = TcpListener::bind(address).unwrap_or_else(|error| panic!("{address}: {error}"));
        listener.set_nonblocking(true).expect("a socket of our own");
        let (stop, stopped) = oneshot::channel();
        let thread = thread::spawn(move || serve(listener, server, stopped));
        Self {
            stop: Some(stop),
            thread: Some(thread),
        }
    }
}

fn serve<S>(listener: TcpListener, server: S, stopped: oneshot::Receiver<()>)
where
    S: AsyncFnOnce(tokio::net::TcpListener) -> io::Result<()>,
{
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .expect("a runtime");
    runtime.block_on(async {
        let listener = tokio::net::TcpListener::from_std(listener).expect("a listening socket");
        tokio::select! {
            ended = server(listener) => panic!("the server ended: {ended:?}"),
            _ = stopped => {}
        }
    });
    // Not waited for: a handler may hold a request for ever.
    runtime.shutdown_background();
}

impl Drop for Hosted {
    fn drop(&mut self) {
        drop(self.stop.take());
        if let Some(thread) = self.thread.take() {
            // A panic in there was printed when it happened.
            drop(thread.join());
        }
    }
}
