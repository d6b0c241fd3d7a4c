//! HTTP from the tests' side.

use std::{sync::Once, time::Duration};

/// A client for HTTP/1.1 that follows no redirect and gives up after a while.
///
/// # Panics
/// When the client can't be built.
#[must_use]
pub fn client() -> reqwest::Client {
    builder().build().expect("an HTTP client")
}

/// A client that speaks HTTP/2 from its first byte (h2c with prior knowledge).
///
/// # Panics
/// When the client can't be built.
#[must_use]
pub fn h2c_client() -> reqwest::Client {
    builder().http2_prior_knowledge().build().expect("an HTTP/2 client")
}

fn builder() -> reqwest::ClientBuilder {
    static PROVIDER: Once = Once::new();
    PROVIDER.call_once(|| {
        // An error says that the test has installed one already: as good.
        drop(rustls::crypto::ring::default_provider().install_default());
    });
    reqwest::Client::builder()
        .redirect(reqwest::redirect::Policy::none())
        .timeout(Duration::from_secs(30))
}

/// Whether a GET answers 2xx.
pub async fn is_ok(client: &reqwest::Client, url: &str) -> bool {
    let answer = client.get(url).timeout(Duration::from_secs(5)).send().await;
    answer.is_ok_and(|answer| answer.status().is_success())
}

/// The JSON that a GET answers with status 200.
///
/// # Panics
/// On any other answer.
pub async fn json(client: &reqwest::Client, url: &str) -> serde_json::Value {
    let answer = client
        .get(url)
        .send()
        .await
        .unwrap_or_else(|error| panic!("{url}: {error}"));
    let status = answer.status();
    let text = answer.text().await.unwrap_or_default();
    assert_eq!(status, reqwest::StatusCode::OK, "{url}: {text}");
    serde_json::from_str(&text).unwrap_or_else(|error| panic!("{url}: {error}: {text}"))
}
