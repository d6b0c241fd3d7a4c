//! Who we are to the server: credentials and certificates, from files and from the URL.
//!
//! Invariants:
//! - whatever is wrong with a file is told with its path and its key when the connection is begun, and what stands in it
//!   never
//! - files are read at each attempt to connect: one that came later or has changed is followed
//!   (`credentials_that_come_later_are_waited_for_and_those_that_change_are_followed`)

use std::io;
use std::path::Path;
use std::sync::Arc;

use anyhow::{Context, bail, ensure};
use async_nats::{Auth, AuthError, ConnectOptions};
use nkeys::KeyPair;

use super::settings::NatsSettings;
use super::url::UrlCredentials;

/// A credentials file is a few kilobytes.
const MAX_SECRET: u64 = 64 * 1024;

/// Options that tell the server at each attempt who the settings say we are.
pub(super) fn authenticated(settings: &NatsSettings) -> anyhow::Result<ConnectOptions> {
    begins(settings, auth(settings, &[]).map(drop))?;
    let settings = Arc::new(settings.clone());
    Ok(ConnectOptions::with_auth_callback(move |nonce| {
        let settings = Arc::clone(&settings);
        let read = tokio::task::spawn_blocking(move || auth(&settings, &nonce));
        async move {
            let auth = read.await.map_err(AuthError::new)?;
            auth.map_err(|error| AuthError::new(format!("{error:#}")))
        }
    }))
}

/// The options with the certificates of the settings, which are read at each attempt.
pub(super) fn secured(options: ConnectOptions, settings: &NatsSettings) -> anyhow::Result<ConnectOptions> {
    let tls = &settings.tls;
    let mut options = options.require_tls(tls.required);
    let good = |path: &Path, key: &str| begins(settings, secret(path, key).map(drop));
    if let Some(ca) = &tls.ca_file {
        good(ca, "nats.tls.ca_file")?;
        options = options.add_root_certificates(ca.clone());
    }
    if let (Some(cert), Some(key)) = (&tls.cert_file, &tls.key_file) {
        good(cert, "nats.tls.cert_file")?;
        good(key, "nats.tls.key_file")?;
        options = options.add_client_certificate(cert.clone(), key.clone());
    }
    Ok(options)
}

/// What is wrong with a file ends the start, unless it is missing and may be.
fn begins(settings: &NatsSettings, read: anyhow::Result<()>) -> anyhow::Result<()> {
    let missing = |error: &anyhow::Error| {
        let mut causes = error.chain().filter_map(|cause| cause.downcast_ref::<io::Error>());
        causes.any(|cause| cause.kind() == io::ErrorKind::NotFound)
    };
    match read {
        Err(error) if settings.wait_for_files && missing(&error) => {
            tracing::warn!(
                error = format!("{error:#}"),
                "NATS counts as away until the file is there (nats.wait_for_files)"
            );
            Ok(())
        }
        read => read,
    }
}

/// Who the settings say we are, to a server that wants `nonce` signed.
fn auth(settings: &NatsSettings, nonce: &[u8]) -> anyhow::Result<Auth> {
    let mut auth = Auth::new();
    match settings.url.credentials() {
        Some(UrlCredentials::Password { user, password }) => {
            (auth.username, auth.password) = (Some(user.clone()), Some(password.clone()));
        }
        Some(UrlCredentials::Token(token)) => auth.token = Some(token.clone()),
        None => {}
    }
    if let Some(path) = &settings.creds_file {
        let creds = secret(path, "nats.creds_file")?;
        let (jwt, key) = parsed(&creds).with_context(|| {
            format!(
                "{} (nats.creds_file) is not a credentials file; `nsc generate creds` writes one",
                path.display()
            )
        })?;
        (auth.jwt, auth.signature) = (Some(jwt.to_owned()), Some(key.sign(nonce)?));
    } else if let Some(path) = &settings.nkey_file {
        let seed = secret(path, "nats.nkey_file")?;
        let is_user = seed.starts_with("SU");
        let key = KeyPair::from_seed(&seed).ok().filter(|_| is_user).with_context(|| {
            format!(
                "{} (nats.nkey_file) doesn't hold an NKey user seed; `nk -gen user` makes one, it begins with SU",
                path.display()
            )
        })?;
        (auth.nkey, auth.signature) = (Some(key.public_key()), Some(key.sign(nonce)?));
    } else if let Some(path) = &settings.token_file {
        auth.token = Some(secret(path, "nats.token_file")?);
    } else if let (Some(user), Some(path)) = (&settings.user, &settings.password_file) {
        let password = secret(path, "nats.password_file")?;
        (auth.username, auth.password) = (Some(user.clone()), Some(password));
    }
    Ok(auth)
}

/// The JWT and the key of a credentials file: what stands below its first and its second `-----BEGIN …` line.
fn parsed(creds: &str) -> Option<(&str, KeyPair)> {
    let mut lines = creds.lines().map(str::trim);
    let mut next = || {
        lines.find(|line| line.starts_with("---") && line.contains("BEGIN"))?;
        lines.next()
    };
    let (jwt, seed) = (next()?, next()?);
    Some((jwt, KeyPair::from_seed(seed).ok()?))
}

/// A small text file without the blanks around its text; never an empty one.
fn secret(path: &Path, key: &str) -> anyhow::Result<String> {
    let shown = path.display();
    let size = std::fs::metadata(path)
        .with_context(|| format!("failed to read {shown} ({key}); check the path and its permissions"))?
        .len();
    ensure!(
        size <= MAX_SECRET,
        "{shown} ({key}) is larger than {MAX_SECRET} bytes; is it the right file?"
    );
    let text = std::fs::read_to_string(path).with_context(|| format!("failed to read {shown} ({key})"))?;
    if text.trim().is_empty() {
        bail!("{shown} ({key}) is empty");
    }
    Ok(text.trim().to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_of_credentials_that_is_missing_or_wrong_is_named_with_its_key() {
        let folder = tempfile::tempdir().expect("a folder");
        let empty = folder.path().join("empty");
        let wrong = folder.path().join("wrong");
        std::fs::write(&empty, " \n").expect("a file");
        std::fs::write(&wrong, "hello").expect("a file");
        let creds = |creds_file| NatsSettings {
            creds_file: Some(creds_file),
            ..NatsSettings::default()
        };
        let nkey = NatsSettings {
            nkey_file: Some(wrong.clone()),
            ..NatsSettings::default()
        };
        for (settings, part) in [
            (
                creds(folder.path().join("missing")),
                "missing (nats.creds_file); check the path",
            ),
            (creds(empty), "empty (nats.creds_file) is empty"),
            (creds(wrong), "wrong (nats.creds_file) is not a credentials file"),
            (nkey, "wrong (nats.nkey_file) doesn't hold an NKey user seed"),
        ] {
            let told = format!("{:#}", authenticated(&settings).map(drop).expect_err(part));
            assert!(told.contains(part), "{told}");
        }
    }
}
