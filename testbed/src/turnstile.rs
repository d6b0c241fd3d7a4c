//! A door that counts.

use std::{
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
};

use tokio::{io::copy_bidirectional, net::TcpStream};

use crate::{Port, hosted::Hosted};

/// Passes connections on to another address, and counts them. Ends with its value.
#[derive(Debug)]
pub struct Turnstile {
    port: Port,
    passed: Arc<AtomicUsize>,
    open: Arc<AtomicUsize>,
    _hosted: Hosted,
}

impl Turnstile {
    /// Opens one in front of `target`.
    ///
    /// # Panics
    /// When it can't listen.
    #[must_use]
    pub fn open(target: SocketAddr) -> Self {
        let port = Port::reserve();
        let (passed, open) = (Arc::<AtomicUsize>::default(), Arc::<AtomicUsize>::default());
        let (count, held) = (Arc::clone(&passed), Arc::clone(&open));
        let hosted = Hosted::start_with(port.address(), async move |listener| {
            loop {
                let (mut inside, _) = listener.accept().await?;
                count.fetch_add(1, Ordering::AcqRel);
                held.fetch_add(1, Ordering::AcqRel);
                let held = Arc::clone(&held);
                tokio::spawn(async move {
                    if let Ok(mut outside) = TcpStream::connect(target).await {
                        // How it ends concerns nobody here.
                        drop(copy_bidirectional(&mut inside, &mut outside).await);
                    }
                    held.fetch_sub(1, Ordering::AcqRel);
                });
            }
        });
        Self {
            port,
            passed,
            open,
            _hosted: hosted,
        }
    }

    /// `127.0.0.1:<port>`.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.port.address()
    }

    /// `http://127.0.0.1:<port>`.
    #[must_use]
    pub fn url(&self) -> String {
        format!("http://{}", self.address())
    }

    /// How many connections came in since the start.
    #[must_use]
    pub fn passed(&self) -> usize {
        self.passed.load(Ordering::Acquire)
    }

    /// How many are open now.
    #[must_use]
    pub fn open_now(&self) -> usize {
        self.open.load(Ordering::Acquire)
    }
}
