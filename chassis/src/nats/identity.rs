//! Who we are to the server: credentials and certificates, from files and from the URL.
//!
//! Invariant: whatever is wrong with a file is told with its path and its key when the connection is begun, and what stands
//! in it never.

use std::path::Path;

use anyhow::{Context, bail, ensure};
use async_nats::ConnectOptions;

use super::settings::{NatsSettings, TlsSettings};
use super::url::UrlCredentials;

/// A credentials file is a few kilobytes.
const MAX_SECRET: u64 = 64 * 1024;

/// The options with the credentials of the settings.
pub(super) fn authenticated(options: ConnectOptions, settings: &NatsSettings) -> anyhow::Result<ConnectOptions> {
    let options = match settings.url.credentials() {
        Some(UrlCredentials::Password { user, password }) => options.user_and_password(user.clone(), password.clone()),
        Some(UrlCredentials::Token(token)) => options.token(token.clone()),
        None => options,
    };
    if let Some(path) = &settings.creds_file {
        let creds = secret(path, "nats.creds_file")?;
        return options.credentials(&creds).with_context(|| {
            format!(
                "{} (nats.creds_file) is not a credentials file; `nsc generate creds` writes one",
                path.display()
            )
        });
    }
    if let Some(path) = &settings.nkey_file {
        let seed = secret(path, "nats.nkey_file")?;
        ensure!(
            seed.len() == 58 && seed.starts_with("SU"),
            "{} (nats.nkey_file) doesn't hold an NKey user seed; `nk -gen user` makes one, it begins with SU",
            path.display()
        );
        return Ok(options.nkey(seed));
    }
    if let Some(path) = &settings.token_file {
        return Ok(options.token(secret(path, "nats.token_file")?));
    }
    if let (Some(user), Some(path)) = (&settings.user, &settings.password_file) {
        return Ok(options.user_and_password(user.clone(), secret(path, "nats.password_file")?));
    }
    Ok(options)
}

/// The options with the certificates of the settings.
pub(super) fn secured(options: ConnectOptions, tls: &TlsSettings) -> anyhow::Result<ConnectOptions> {
    let mut options = options.require_tls(tls.required);
    if let Some(ca) = &tls.ca_file {
        secret(ca, "nats.tls.ca_file")?;
        options = options.add_root_certificates(ca.clone());
    }
    if let (Some(cert), Some(key)) = (&tls.cert_file, &tls.key_file) {
        secret(cert, "nats.tls.cert_file")?;
        secret(key, "nats.tls.key_file")?;
        options = options.add_client_certificate(cert.clone(), key.clone());
    }
    Ok(options)
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
            let error = authenticated(ConnectOptions::new(), &settings).expect_err(part);
            assert!(format!("{error:#}").contains(part), "{error:#}");
        }
    }
}
