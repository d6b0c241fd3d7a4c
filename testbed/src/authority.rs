//! Certificates for tests, signed by an authority that nobody else trusts.

use std::{
    fs,
    path::{Path, PathBuf},
};

use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair};
use tempfile::TempDir;

/// Signs certificates. Its files end with its value.
#[derive(Debug)]
pub struct Authority {
    issuer: Issuer<'static, KeyPair>,
    folder: TempDir,
}

/// A certificate's file and its key's, both PEM.
#[derive(Debug, Clone)]
pub struct CertificateFiles {
    /// The certificate.
    pub cert: PathBuf,
    /// Its key.
    pub key: PathBuf,
}

impl Authority {
    /// A new one.
    ///
    /// # Panics
    /// When its file can't be written.
    #[must_use]
    pub fn new() -> Self {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let key = KeyPair::generate().expect("a key");
        let mut params = CertificateParams::new(Vec::new()).expect("no names are good names");
        // OpenSSL takes a certificate for self-signed whose issuer is called as its subject.
        params.distinguished_name.push(DnType::CommonName, "test authority");
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let own = params.self_signed(&key).expect("a certificate");
        fs::write(folder.path().join("ca.pem"), own.pem()).expect("a file in a temporary folder");
        Self {
            issuer: Issuer::new(params, key),
            folder,
        }
    }

    /// Its own certificate.
    #[must_use]
    pub fn ca(&self) -> PathBuf {
        self.folder.path().join("ca.pem")
    }

    /// The folder of its files.
    #[must_use]
    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// Signs a certificate for host names and IP addresses, into the files `<file>.pem` and `<file>.key`.
    ///
    /// # Panics
    /// When the files can't be written.
    #[must_use]
    pub fn sign(&self, file: &str, names: &[&str]) -> CertificateFiles {
        let names: Vec<_> = names.iter().map(|name| (*name).to_owned()).collect();
        let key = KeyPair::generate().expect("a key");
        let mut params = CertificateParams::new(names).expect("names");
        params.distinguished_name.push(DnType::CommonName, file);
        let signed = params.signed_by(&key, &self.issuer).expect("a certificate");
        let at = |end: &str| self.folder.path().join(format!("{file}.{end}"));
        let files = CertificateFiles {
            cert: at("pem"),
            key: at("key"),
        };
        fs::write(&files.cert, signed.pem()).expect("a file in a temporary folder");
        fs::write(&files.key, key.serialize_pem()).expect("a file in a temporary folder");
        files
    }
}

impl Default for Authority {
    fn default() -> Self {
        Self::new()
    }
}
