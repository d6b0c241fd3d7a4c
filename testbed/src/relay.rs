//! A service between two hops that has nothing to do with tracing but this: it passes the trace headers of a request on
//! with the call that it makes for it.

use std::net::SocketAddr;

use axum::{
    Router,
    extract::{Request, State},
    http::{HeaderMap, StatusCode},
};

use crate::{Upstream, http};

/// The header fields that are passed on, all values in their order.
const PASSED: [&str; 3] = ["traceparent", "tracestate", "baggage"];

/// A service that calls another one for each request, with the same path, and answers with its status.
#[derive(Debug)]
pub struct Relay {
    upstream: Upstream,
}

#[derive(Debug, Clone)]
struct Next {
    url: String,
    http: reqwest::Client,
}

impl Relay {
    /// Starts one that calls `url`: a base, to which the request's path is added.
    ///
    /// # Panics
    /// When it can't listen.
    #[must_use]
    pub fn start(url: impl Into<String>) -> Self {
        let next = Next {
            url: url.into(),
            http: http::client(),
        };
        let router = Router::new().fallback(pass_on).with_state(next);
        Self {
            upstream: Upstream::serving(router),
        }
    }

    /// `127.0.0.1:<port>`.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.upstream.address()
    }

    /// `http://127.0.0.1:<port>`.
    #[must_use]
    pub fn url(&self) -> String {
        self.upstream.url()
    }
}

async fn pass_on(State(next): State<Next>, request: Request) -> StatusCode {
    let mut headers = HeaderMap::new();
    for name in PASSED {
        for value in request.headers().get_all(name) {
            headers.append(name, value.clone());
        }
    }
    let url = format!("{}{}", next.url, request.uri().path());
    let answer = next.http.get(url).headers(headers).send().await;
    answer.map_or(StatusCode::BAD_GATEWAY, |answer| answer.status())
}
