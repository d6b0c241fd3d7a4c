//! TLS in front of a server that has none.

use std::{
    fmt,
    net::SocketAddr,
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
};

use rustls::{
    RootCertStore, ServerConfig,
    pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject},
    server::WebPkiClientVerifier,
};
use tokio::{io::copy_bidirectional, net::TcpStream};
use tokio_rustls::TlsAcceptor;

use crate::{Port, hosted::Hosted};

/// Passes what comes in by TLS on to another address. Ends with its value.
pub struct TlsDoor {
    port: Port,
    passed: Arc<AtomicUsize>,
    _hosted: Hosted,
}

impl TlsDoor {
    /// Opens one in front of `target`, for clients with a certificate; the files are PEM: the door's certificate and key, and
    /// who signs the clients' certificates.
    ///
    /// # Panics
    /// When a file isn't what it should be.
    #[must_use]
    pub fn open(target: SocketAddr, certificate: &Path, key: &Path, client_ca: &Path) -> Self {
        Self::open_speaking(target, certificate, key, Some(client_ca), &[])
    }

    /// Opens one in front of `target` that offers `protocols` by ALPN (nothing, if there are none), and asks clients for a
    /// certificate where `client_ca` says who signs it.
    ///
    /// # Panics
    /// When a file isn't what it should be.
    #[must_use]
    pub fn open_speaking(
        target: SocketAddr,
        certificate: &Path,
        key: &Path,
        client_ca: Option<&Path>,
        protocols: &[&str],
    ) -> Self {
        let port = Port::reserve();
        let mut config = config(certificate, key, client_ca);
        config.alpn_protocols = protocols.iter().map(|name| name.as_bytes().to_vec()).collect();
        let acceptor = TlsAcceptor::from(Arc::new(config));
        let passed = Arc::<AtomicUsize>::default();
        let count = Arc::clone(&passed);
        let hosted = Hosted::start_with(port.address(), async move |listener| {
            loop {
                let (stream, _) = listener.accept().await?;
                tokio::spawn(pass(acceptor.clone(), stream, target, Arc::clone(&count)));
            }
        });
        Self {
            port,
            passed,
            _hosted: hosted,
        }
    }

    /// `127.0.0.1:<port>`.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.port.address()
    }

    /// How many connections came in whose handshake was good.
    #[must_use]
    pub fn passed(&self) -> usize {
        self.passed.load(Ordering::Acquire)
    }
}

impl fmt::Debug for TlsDoor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TlsDoor")
            .field("address", &self.address())
            .finish_non_exhaustive()
    }
}

/// A client that is refused, or that leaves, concerns nobody here.
async fn pass(acceptor: TlsAcceptor, stream: TcpStream, target: SocketAddr, count: Arc<AtomicUsize>) {
    if let Ok(mut inside) = acceptor.accept(stream).await
        && let Ok(mut outside) = TcpStream::connect(target).await
    {
        count.fetch_add(1, Ordering::AcqRel);
        drop(copy_bidirectional(&mut inside, &mut outside).await);
    }
}

fn config(certificate: &Path, key: &Path, client_ca: Option<&Path>) -> ServerConfig {
    let certificates = |path: &Path| -> Vec<CertificateDer<'static>> {
        let found = CertificateDer::pem_file_iter(path).expect("a PEM file");
        found.collect::<Result<_, _>>().expect("certificates")
    };
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder = ServerConfig::builder_with_provider(Arc::clone(&provider))
        .with_safe_default_protocol_versions()
        .expect("protocol versions");
    let builder = match client_ca {
        None => builder.with_no_client_auth(),
        Some(client_ca) => {
            let mut roots = RootCertStore::empty();
            roots.add_parsable_certificates(certificates(client_ca));
            let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider);
            builder.with_client_cert_verifier(verifier.build().expect("an authority"))
        }
    };
    let key = PrivateKeyDer::from_pem_file(key).expect("a key");
    builder
        .with_single_cert(certificates(certificate), key)
        .expect("a certificate with its key")
}
