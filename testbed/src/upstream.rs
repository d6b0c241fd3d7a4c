//! An HTTP service that tests steer: it echoes, answers as told, waits until it is let go on, and remembers.

use std::{net::SocketAddr, sync::Arc};

use axum::{
    Router,
    body::Body,
    extract::{DefaultBodyLimit, Request, State},
    http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, Uri, Version},
    response::{IntoResponse, Response},
};
use bytes::Bytes;
use http_body_util::BodyExt;
use parking_lot::Mutex;
use serde_json::json;
use tokio::sync::watch;

use crate::{Port, hosted::Hosted, wait::until};

/// A service on HTTP/1.1 and h2c at one port.
///
/// Its answer is JSON that echoes the request: `method`, `uri`, `version`, `headers` (name → list of values), `body` (text).
/// Request headers steer it:
///
/// - `x-answer-status: 503` – answer with this status instead of 200;
/// - `x-answer-body: …` – answer with this text instead of the echo;
/// - `x-answer-type: text/plain` – with this content type;
/// - `x-answer-held: 1` – wait for [`release`](Self::release) before answering.
#[derive(Debug)]
pub struct Upstream {
    hosted: Option<Hosted>,
    port: Port,
    router: Router,
    memory: Arc<Memory>,
}

/// A request as the service got it.
#[derive(Debug, Clone)]
pub struct Received {
    /// The method.
    pub method: Method,
    /// The request target.
    pub uri: Uri,
    /// The protocol version.
    pub version: Version,
    /// Header fields in their order.
    pub headers: HeaderMap,
    /// The whole body.
    pub body: Bytes,
}

#[derive(Debug, Default)]
struct Memory {
    received: Mutex<Vec<Received>>,
    held: Mutex<usize>,
    released: watch::Sender<bool>,
}

impl Upstream {
    /// Starts the echo.
    ///
    /// # Panics
    /// When it can't listen.
    #[must_use]
    pub fn start() -> Self {
        let memory = Arc::<Memory>::default();
        let router = Router::new()
            .fallback(echo)
            .layer(DefaultBodyLimit::disable())
            .with_state(Arc::clone(&memory));
        Self::host(router, memory)
    }

    /// Starts a service of the test's own making. It remembers nothing and holds nothing.
    ///
    /// # Panics
    /// When it can't listen.
    #[must_use]
    pub fn serving(router: Router) -> Self {
        Self::host(router, Arc::default())
    }

    fn host(router: Router, memory: Arc<Memory>) -> Self {
        let port = Port::reserve();
        Self {
            hosted: Some(Hosted::start(port.address(), router.clone())),
            port,
            router,
            memory,
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

    /// Every request whose body arrived whole, in the order of arrival.
    #[must_use]
    pub fn received(&self) -> Vec<Received> {
        self.memory.received.lock().clone()
    }

    /// Waits until so many requests are held.
    ///
    /// # Panics
    /// When they don't come.
    pub async fn holds(&self, count: usize) {
        until("the upstream holds the requests", async || {
            *self.memory.held.lock() >= count
        })
        .await;
    }

    /// Answers the requests that are held, and holds no further ones.
    pub fn release(&self) {
        self.memory.released.send_replace(true);
    }

    /// Ends it, and every connection with it.
    pub fn kill(&mut self) {
        self.hosted = None;
    }

    /// Starts it again at the same port.
    ///
    /// # Panics
    /// When it can't listen.
    pub fn restart(&mut self) {
        self.kill();
        self.hosted = Some(Hosted::start(self.port.address(), self.router.clone()));
    }
}

async fn echo(State(memory): State<Arc<Memory>>, request: Request) -> Response {
    let (head, body) = request.into_parts();
    let Ok(body) = body.collect().await else {
        return StatusCode::BAD_REQUEST.into_response();
    };
    let received = Received {
        method: head.method,
        uri: head.uri,
        version: head.version,
        headers: head.headers,
        body: body.to_bytes(),
    };
    memory.received.lock().push(received.clone());
    if received.headers.contains_key("x-answer-held") {
        hold(&memory).await;
    }
    answer(&received)
}

async fn hold(memory: &Memory) {
    let mut released = memory.released.subscribe();
    *memory.held.lock() += 1;
    // It fails only if the sender is gone, which is in `memory`.
    drop(released.wait_for(|released| *released).await);
    *memory.held.lock() -= 1;
}

fn answer(received: &Received) -> Response {
    let said = |name: &str| received.headers.get(name).and_then(|value| value.to_str().ok());
    let body = said("x-answer-body").map_or_else(|| echoed(received), str::to_owned);
    let mut response = Response::new(Body::from(body));
    *response.status_mut() = said("x-answer-status")
        .and_then(|status| status.parse().ok())
        .unwrap_or(StatusCode::OK);
    let content_type = said("x-answer-type").unwrap_or("application/json");
    response.headers_mut().insert(
        HeaderName::from_static("content-type"),
        HeaderValue::from_str(content_type).expect("it was a header value before"),
    );
    response
}

fn echoed(received: &Received) -> String {
    let headers: serde_json::Map<String, serde_json::Value> = received
        .headers
        .keys()
        .map(|name| {
            let values = received.headers.get_all(name).iter();
            let values: Vec<_> = values.map(|value| String::from_utf8_lossy(value.as_bytes())).collect();
            (name.to_string(), json!(values))
        })
        .collect();
    json!({
        "method": received.method.as_str(),
        "uri": received.uri.to_string(),
        "version": format!("{:?}", received.version),
        "headers": headers,
        "body": String::from_utf8_lossy(&received.body),
    })
    .to_string()
}
