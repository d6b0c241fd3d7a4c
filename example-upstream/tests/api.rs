//! The API over real sockets: every endpoint, every error, HTTP/1.1 and h2c, and the spans.

#![expect(
    clippy::expect_used,
    clippy::unwrap_used,
    reason = "a failed helper is a failed test"
)]

use std::sync::{Arc, Mutex};

use axum::Router;
use example_upstream::telemetry::Telemetry;
use opentelemetry::trace::{SpanKind, Status};
use opentelemetry_sdk::error::OTelSdkResult;
use opentelemetry_sdk::trace::{SdkTracerProvider, SpanData, SpanExporter};
use reqwest::header::{ALLOW, CONTENT_TYPE, LOCATION};
use reqwest::{Client, ClientBuilder, Method, Response, StatusCode, Version};
use serde_json::{Value, json};
use tokio::net::TcpListener;

/// A served app; it goes away with the test's runtime.
struct Served {
    url: String,
    client: Client,
}

impl Served {
    async fn api() -> Self {
        Self::app(example_upstream::router()).await
    }

    async fn app(app: Router) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        tokio::spawn(async move { axum::serve(listener, app).await });
        Self {
            url,
            client: client().build().unwrap(),
        }
    }

    async fn get(&self, path: &str) -> Response {
        let url = format!("{}{path}", self.url);
        self.client.get(url).send().await.unwrap()
    }

    async fn post_user(&self, user: Value) -> Response {
        let url = format!("{}/api/v1/users", self.url);
        self.client.post(url).json(&user).send().await.unwrap()
    }
}

fn client() -> ClientBuilder {
    // The workspace builds reqwest without a TLS provider of its own. A second install is refused: fine.
    drop(rustls::crypto::ring::default_provider().install_default());
    Client::builder()
}

/// Asserts the status and the shape of an error, and gives its text.
async fn error_text(response: Response, status: StatusCode) -> String {
    assert_eq!(response.status(), status);
    let body: Value = response.json().await.expect("an error is JSON");
    let fields = body.as_object().expect("an error is an object");
    assert_eq!(fields.len(), 1, "{body}");
    body["error"].as_str().expect("`error` is a string").to_owned()
}

#[tokio::test]
async fn health_is_ok() {
    let response = Served::api().await.get("/health").await;
    assert_eq!(response.status(), StatusCode::OK);
    assert_eq!(response.json::<Value>().await.unwrap(), json!({ "status": "ok" }));
}

#[tokio::test]
async fn users_are_listed_by_ascending_id() {
    let served = Served::api().await;
    served
        .post_user(json!({ "name": "Zoe", "email": "aaa@example.com" }))
        .await;
    let list: Value = served.get("/api/v1/users").await.json().await.unwrap();
    let ids: Vec<u64> = list
        .as_array()
        .unwrap()
        .iter()
        .map(|user| user["id"].as_u64().unwrap())
        .collect();
    assert_eq!(ids, [1, 2, 3, 4]);
}

#[tokio::test]
async fn a_known_user_is_shown() {
    let response = Served::api().await.get("/api/v1/users/1").await;
    assert_eq!(response.status(), StatusCode::OK);
    let user: Value = response.json().await.unwrap();
    assert_eq!(
        user,
        json!({ "id": 1, "name": "Ada Lovelace", "email": "ada@example.com" })
    );
}

#[tokio::test]
async fn an_unknown_user_is_404() {
    let served = Served::api().await;
    for id in ["0", "999", "-1", "abc", "99999999999999999999"] {
        let response = served.get(&format!("/api/v1/users/{id}")).await;
        let text = error_text(response, StatusCode::NOT_FOUND).await;
        assert!(text.contains(id), "{text}");
    }
}

#[tokio::test]
async fn a_new_user_is_created_and_found_at_its_location() {
    let served = Served::api().await;
    let response = served
        .post_user(json!({ "name": "Barbara", "email": "barbara@example.com" }))
        .await;
    assert_eq!(response.status(), StatusCode::CREATED);
    let location = response.headers()[LOCATION].to_str().unwrap().to_owned();
    let created: Value = response.json().await.unwrap();
    assert_eq!(
        created,
        json!({ "id": 4, "name": "Barbara", "email": "barbara@example.com" })
    );
    let found: Value = served.get(&location).await.json().await.unwrap();
    assert_eq!(found, created);
}

#[tokio::test]
async fn a_body_that_is_not_json_is_400() {
    let served = Served::api().await;
    let cases = [
        ("application/json", "not json"),
        ("application/json", ""),
        ("application/json", "{\"name\":\"a\""),
        ("text/plain", "{\"name\":\"a\",\"email\":\"a@b\"}"),
    ];
    for (content_type, body) in cases {
        let response = served
            .client
            .post(format!("{}/api/v1/users", served.url))
            .header(CONTENT_TYPE, content_type)
            .body(body)
            .send()
            .await
            .unwrap();
        error_text(response, StatusCode::BAD_REQUEST).await;
    }
}

#[tokio::test]
async fn a_taken_email_is_409_in_any_case() {
    let served = Served::api().await;
    for email in ["ada@example.com", "ADA@example.com"] {
        let response = served.post_user(json!({ "name": "Another", "email": email })).await;
        error_text(response, StatusCode::CONFLICT).await;
    }
}

#[tokio::test]
async fn an_invalid_user_is_422() {
    let served = Served::api().await;
    let cases = [
        json!({ "name": "", "email": "a@b" }),
        json!({ "name": "  ", "email": "a@b" }),
        json!({ "name": "a", "email": "no at sign" }),
        json!({ "name": "a", "email": "@" }),
        json!({ "name": "x".repeat(255), "email": "a@b" }),
        json!({ "name": "a" }),
        json!({ "name": 1, "email": "a@b" }),
        json!([]),
    ];
    for user in cases {
        let response = served.post_user(user).await;
        error_text(response, StatusCode::UNPROCESSABLE_ENTITY).await;
    }
    let list: Value = served.get("/api/v1/users").await.json().await.unwrap();
    assert_eq!(list.as_array().unwrap().len(), 3, "a refused user is not stored");
}

#[tokio::test]
async fn a_body_over_two_megabytes_is_413() {
    let response = Served::api()
        .await
        .post_user(json!({ "name": "a".repeat(3 << 20), "email": "a@b" }))
        .await;
    error_text(response, StatusCode::PAYLOAD_TOO_LARGE).await;
}

#[tokio::test]
async fn the_failing_endpoint_is_500() {
    let response = Served::api().await.get("/api/v1/error").await;
    error_text(response, StatusCode::INTERNAL_SERVER_ERROR).await;
}

#[tokio::test]
async fn an_unknown_path_is_404() {
    let response = Served::api().await.get("/nowhere?a=1").await;
    let text = error_text(response, StatusCode::NOT_FOUND).await;
    assert!(text.contains("/nowhere"), "{text}");
}

#[tokio::test]
async fn a_wrong_method_is_405_and_names_the_right_ones() {
    let served = Served::api().await;
    let url = format!("{}/api/v1/users", served.url);
    let response = served.client.delete(url).send().await.unwrap();
    let allow = response.headers()[ALLOW].to_str().unwrap().to_owned();
    assert_eq!(allow, "GET,HEAD,POST");
    error_text(response, StatusCode::METHOD_NOT_ALLOWED).await;
}

#[tokio::test]
async fn h2c_with_prior_knowledge_works_on_the_same_port() {
    let mut served = Served::api().await;
    served.client = client().http2_prior_knowledge().build().unwrap();
    let response = served.get("/health").await;
    assert_eq!(response.version(), Version::HTTP_2);
    assert_eq!(response.status(), StatusCode::OK);
}

/// Keeps what is exported.
#[derive(Clone, Debug, Default)]
struct Collected(Arc<Mutex<Vec<SpanData>>>);

impl SpanExporter for Collected {
    async fn export(&self, batch: Vec<SpanData>) -> OTelSdkResult {
        self.0.lock().unwrap().extend(batch);
        Ok(())
    }
}

/// Sends one request with a `traceparent` through the traced API and gives its span.
async fn span_of(method: Method, path: &str) -> SpanData {
    let collected = Collected::default();
    let provider = SdkTracerProvider::builder()
        .with_batch_exporter(collected.clone())
        .build();
    let telemetry = Telemetry::new(provider);
    let served = Served::app(telemetry.trace(example_upstream::router())).await;
    served
        .client
        .request(method, format!("{}{path}", served.url))
        .header("traceparent", "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01")
        .send()
        .await
        .unwrap();
    telemetry.flush().await;
    let mut spans = collected.0.lock().unwrap();
    assert_eq!(spans.len(), 1, "one span per request: {spans:?}");
    spans.remove(0)
}

fn attribute(span: &SpanData, key: &str) -> Option<String> {
    let found = span.attributes.iter().find(|pair| pair.key.as_str() == key);
    found.map(|pair| pair.value.to_string())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_request_makes_a_server_span_under_the_callers_span() {
    let span = span_of(Method::GET, "/api/v1/users/1").await;
    assert_eq!(
        span.span_context.trace_id().to_string(),
        "0af7651916cd43dd8448eb211c80319c"
    );
    assert_eq!(span.parent_span_id.to_string(), "b7ad6b7169203331");
    assert_eq!(span.span_kind, SpanKind::Server);
    assert_eq!(span.name, "GET /api/v1/users/{id}");
    assert_eq!(attribute(&span, "http.route").as_deref(), Some("/api/v1/users/{id}"));
    assert_eq!(attribute(&span, "http.response.status_code").as_deref(), Some("200"));
    assert_eq!(span.status, Status::Unset);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_500_marks_its_span_as_an_error_and_a_404_does_not() {
    let span = span_of(Method::GET, "/api/v1/error").await;
    assert_eq!(span.status, Status::error(""));
    assert_eq!(attribute(&span, "error.type").as_deref(), Some("500"));
    let span = span_of(Method::GET, "/nowhere").await;
    assert_eq!(span.name, "GET");
    assert_eq!(span.status, Status::Unset);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_method_that_http_does_not_know_names_no_span() {
    let span = span_of(Method::from_bytes(b"BREW").unwrap(), "/health").await;
    assert_eq!(span.name, "HTTP /health");
    assert_eq!(attribute(&span, "http.request.method").as_deref(), Some("_OTHER"));
}
