//! What every sidelog process stands on.
//!
//! | Module | What it is for |
//! |---|---|
//! | [`settings`] | the TOML file, the variables and the environment become one checked value |
//! | [`cli`] | the way from the command line to `run`, and the exit codes |
//! | [`logging`] | the process's own log, on stderr |
//! | [`drain`] | signals and the two steps of an orderly end |
//! | [`admin`] | `/livez`, `/readyz`, `/metrics` |
//! | [`scrape`] | the two forms of `/metrics` |
//! | [`nats`] | the connection to NATS and the stream that both ends must agree on |
//!
//! Invariants:
//! - nothing here knows what a proxy or a consumer does; both stand on this crate and it depends on neither
//! - no secret is ever logged or shown: credentials are files, and a URL shows its user information as `***`
//!   (`nats::url::tests::a_url_never_shows_its_credentials`)

pub mod admin;
pub mod cli;
pub mod drain;
pub mod logging;
pub mod nats;
pub mod scrape;
pub mod settings;

/// What `--version` shows: the version, and the commit that was built.
pub const VERSION: &str = concat!(env!("CARGO_PKG_VERSION"), " (", env!("SIDELOG_COMMIT"), ")");

/// Makes rustls with ring the one cryptography of the process. The first line of `main`; safe to call again.
///
/// Without it the first TLS handshake of a library that asks for the process default would panic.
pub fn install_crypto_provider() {
    if rustls::crypto::CryptoProvider::get_default().is_none() {
        // An error means that another thread was faster: a provider is installed either way.
        drop(rustls::crypto::ring::default_provider().install_default());
    }
}
