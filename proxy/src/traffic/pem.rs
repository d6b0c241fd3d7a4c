//! Certificates and keys from PEM files (RFC 7468), judged before they are used.
//!
//! Invariant: what is wrong with a file is told with its key and its path, and what stands in it never.

use std::path::Path;
use std::sync::Arc;

use anyhow::{Context, bail, ensure};
use rustls::crypto::CryptoProvider;
use rustls::pki_types::pem::{Error, PemObject};
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::sign::CertifiedKey;
use rustls::{InconsistentKeys, RootCertStore};
use sidelog_chassis::settings::file;

/// The provider of the process: ring.
pub(super) fn provider() -> Arc<CryptoProvider> {
    Arc::new(rustls::crypto::ring::default_provider())
}

/// The certificates of a file, at least one.
pub(super) fn certificates(key: &str, path: &Path) -> anyhow::Result<Vec<CertificateDer<'static>>> {
    let shown = path.display();
    let found: Vec<_> = CertificateDer::pem_slice_iter(&file::read(key, path)?)
        .collect::<Result<_, _>>()
        .with_context(|| format!("{key}: {shown} is not a PEM file"))?;
    ensure!(!found.is_empty(), "{key}: there is no certificate (PEM) in {shown}");
    Ok(found)
}

/// The roots of a file, each of which can sign.
pub(super) fn roots(key: &str, path: &Path) -> anyhow::Result<(RootCertStore, Vec<CertificateDer<'static>>)> {
    let found = certificates(key, path)?;
    let mut roots = RootCertStore::empty();
    for certificate in &found {
        roots
            .add(certificate.clone())
            .with_context(|| format!("{key}: a certificate in {} can't be used", path.display()))?;
    }
    Ok((roots, found))
}

/// A certificate with those between it and the root, and its key.
pub(super) struct Pair {
    pub(super) chain: Vec<CertificateDer<'static>>,
    pub(super) key: PrivateKeyDer<'static>,
}

/// A certificate and the key that belongs to it, from the files `cert_file` and `key_file` below `key`.
pub(super) fn pair(key: &str, cert_file: &Path, key_file: &Path) -> anyhow::Result<Pair> {
    let (cert_key, key_key) = (format!("{key}.cert_file"), format!("{key}.key_file"));
    let chain = certificates(&cert_key, cert_file)?;
    let shown = key_file.display();
    let secret = PrivateKeyDer::from_pem_slice(&file::read(&key_key, key_file)?);
    // What the reader says of a broken file may quote it.
    let secret = secret.map_err(|error| match error {
        Error::NoItemsFound => anyhow::anyhow!("{key_key}: there is no private key (PEM) in {shown}"),
        _ => anyhow::anyhow!("{key_key}: {shown} is not a PEM file"),
    })?;
    let loaded = provider().key_provider.load_private_key(secret.clone_key());
    let loaded = loaded.with_context(|| format!("{key_key}: the key in {shown} can't be used"))?;
    match CertifiedKey::new(chain.clone(), loaded).keys_match() {
        // Not every key tells; the handshake will.
        Ok(()) | Err(rustls::Error::InconsistentKeys(InconsistentKeys::Unknown)) => {}
        Err(rustls::Error::InconsistentKeys(_)) => bail!(
            "{key_key}: {shown} is not the key of {} ({cert_key})",
            cert_file.display()
        ),
        Err(error) => bail!("{cert_key}: {} can't be used: {error}", cert_file.display()),
    }
    Ok(Pair { chain, key: secret })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    fn told(error: &anyhow::Error) -> String {
        format!("{error:#}")
    }

    #[test]
    fn a_wrong_file_is_named_with_its_key_and_not_shown() {
        let folder = tempfile::tempdir().unwrap();
        let file = |name: &str, text: &str| {
            let path = folder.path().join(name);
            fs::write(&path, text).unwrap();
            path
        };
        let own = rcgen::generate_simple_self_signed(["a.test".to_owned()]).unwrap();
        let other = rcgen::generate_simple_self_signed(["a.test".to_owned()]).unwrap();
        let cert = file("cert.pem", &own.cert.pem());
        let key = file("key.pem", &own.signing_key.serialize_pem());
        let other_key = file("other.pem", &other.signing_key.serialize_pem());
        let text = file("text", "s3cret");
        let broken = file(
            "broken",
            "-----BEGIN CERTIFICATE-----\ns3cret!\n-----END CERTIFICATE-----\n",
        );
        let broken_key = file(
            "broken.key",
            "-----BEGIN PRIVATE KEY-----\ns3cret!\n-----END PRIVATE KEY-----\n",
        );
        let missing = folder.path().join("missing");

        assert!(pair("tls", &cert, &key).is_ok());
        for (cert_file, key_file, part) in [
            (&missing, &key, "tls.cert_file: failed to read "),
            (&text, &key, "tls.cert_file: there is no certificate (PEM) in "),
            (&broken, &key, "tls.cert_file: "),
            (&cert, &missing, "tls.key_file: failed to read "),
            (&cert, &cert, "tls.key_file: there is no private key (PEM) in "),
            (&cert, &broken_key, "tls.key_file: "),
            (&cert, &other_key, "is not the key of "),
        ] {
            let told = told(&pair("tls", cert_file, key_file).err().unwrap());
            assert!(told.contains(part), "{told}");
            assert!(!told.contains("s3cret"), "{told}");
        }
        let told = told(&roots("tls.ca_file", &key).err().unwrap());
        assert!(told.contains("tls.ca_file: there is no certificate"), "{told}");
    }
}
