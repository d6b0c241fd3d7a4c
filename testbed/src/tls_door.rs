//! TLS in front of a server that has none.

use std::{fmt, net::SocketAddr, path::Path, sync::Arc};

use rustls::{
    RootCertStore, ServerConfig,
    pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject},
    server::WebPkiClientVerifier,
};
use tokio::{io::copy_bidirectional, net::TcpStream};
use tokio_rustls::TlsAcceptor;

use crate::{Port, hosted::Hosted};

/// Passes what comes in by TLS, from clients with a certificate, on to another address. Ends with its value.
pub struct TlsDoor {
    port: Port,
    _hosted: Hosted,
}

impl TlsDoor {
    /// Opens one in front of `target`; the files are PEM: the door's certificate and key, and who signs the clients' certificates.
    ///
    /// # Panics
    /// When a file isn't what it should be.
    #[must_use]
    pub fn open(target: SocketAddr, certificate: &Path, key: &Path, client_ca: &Path) -> Self {
        let port = Port::reserve();
        let acceptor = TlsAcceptor::from(Arc::new(config(certificate, key, client_ca)));
        let hosted = Hosted::start_with(port.address(), async move |listener| {
            loop {
                let (stream, _) = listener.accept().await?;
                tokio::spawn(pass(acceptor.clone(), stream, target));
            }
        });
        Self { port, _hosted: hosted }
    }

    /// `127.0.0.1:<port>`.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.port.address()
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
async fn pass(acceptor: TlsAcceptor, stream: TcpStream, target: SocketAddr) {
    if let Ok(mut inside) = acceptor.accept(stream).await
        && let Ok(mut outside) = TcpStream::connect(target).await
    {
        drop(copy_bidirectional(&mut inside, &mut outside).await);
    }
}

fn config(certificate: &Path, key: &Path, client_ca: &Path) -> ServerConfig {
    let certificates = |path: &Path| -> Vec<CertificateDer<'static>> {
        let found = CertificateDer::pem_file_iter(path).expect("a PEM file");
        found.collect::<Result<_, _>>().expect("certificates")
    };
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let mut roots = RootCertStore::empty();
    roots.add_parsable_certificates(certificates(client_ca));
    let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), Arc::clone(&provider))
        .build()
        .expect("an authority");
    ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .expect("protocol versions")
        .with_client_cert_verifier(verifier)
        .with_single_cert(
            certificates(certificate),
            PrivateKeyDer::from_pem_file(key).expect("a key"),
        )
        .expect("a certificate with its key")
}
