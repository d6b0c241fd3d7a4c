//! Jaeger all-in-one: takes spans by OTLP, answers for them by HTTP.

use std::collections::BTreeMap;

use rustix::process::Signal;
use serde_json::Value;
use tempfile::TempDir;

use crate::{
    Port, http,
    process::{Process, command},
    tools::tool,
    wait::{PATIENCE, until},
};

/// A Jaeger that keeps its spans in memory: they are gone when it is killed. Its ports stay when it is started again.
#[derive(Debug)]
pub struct Jaeger {
    process: Process,
    ports: Ports,
    http: reqwest::Client,
    arguments: Vec<String>,
    folder: TempDir,
}

#[derive(Debug)]
struct Ports {
    otlp_grpc: Port,
    otlp_http: Port,
    query: Port,
    admin: Port,
}

/// A span as Jaeger has it.
#[derive(Debug, Clone, PartialEq)]
pub struct Span {
    /// 32 hexadecimal digits.
    pub trace_id: String,
    /// 16 hexadecimal digits.
    pub span_id: String,
    /// The span id of the `CHILD_OF` reference.
    pub parent_span_id: Option<String>,
    /// The span's name.
    pub operation: String,
    /// `service.name` of its resource.
    pub service: String,
    /// In microseconds.
    pub duration_us: u64,
    /// Attributes, and what Jaeger adds: `span.kind`, `otel.status_code`.
    pub tags: BTreeMap<String, Value>,
}

impl Jaeger {
    /// Starts one.
    ///
    /// # Panics
    /// When it doesn't start.
    pub async fn start() -> Self {
        Self::start_with(Vec::new()).await
    }

    /// Starts one with further arguments, such as `--collector.otlp.grpc.tls.enabled=true`.
    ///
    /// # Panics
    /// When it doesn't start.
    pub async fn start_with(arguments: Vec<String>) -> Self {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let ports = Ports {
            otlp_grpc: Port::reserve(),
            otlp_http: Port::reserve(),
            query: Port::reserve(),
            admin: Port::reserve(),
        };
        let mut jaeger = Self {
            process: launch(&folder, &ports, &arguments),
            ports,
            http: http::client(),
            arguments,
            folder,
        };
        jaeger.ready().await;
        jaeger
    }

    /// Where it takes OTLP/gRPC: `127.0.0.1:<port>`.
    #[must_use]
    pub fn otlp_grpc(&self) -> String {
        self.ports.otlp_grpc.address().to_string()
    }

    /// Where it takes OTLP/HTTP: `http://127.0.0.1:<port>`.
    #[must_use]
    pub fn otlp_http(&self) -> String {
        format!("http://{}", self.ports.otlp_http.address())
    }

    /// The newest traces of a service as Jaeger's API gives them, at most `limit`.
    ///
    /// # Panics
    /// When Jaeger doesn't answer.
    pub async fn traces(&self, service: &str, limit: usize) -> Vec<Value> {
        let answer = self
            .query(&format!("/api/traces?service={service}&limit={limit}"))
            .await;
        list(&answer["data"]).to_vec()
    }

    /// The trace with this id (32 hexadecimal digits); `None` while Jaeger has none.
    ///
    /// # Panics
    /// When Jaeger doesn't answer.
    pub async fn trace(&self, id: &str) -> Option<Value> {
        let url = self.url(&format!("/api/traces/{id}"));
        let answer = self.http.get(&url).send().await.expect("an answer of Jaeger");
        if answer.status() == reqwest::StatusCode::NOT_FOUND {
            return None;
        }
        let answer: Value = answer.json().await.expect("JSON from Jaeger");
        list(&answer["data"]).first().cloned()
    }

    /// All spans of the newest traces of a service, at most `limit` traces. Spans of other services in these traces too.
    ///
    /// # Panics
    /// When Jaeger doesn't answer, or answers something unknown.
    pub async fn spans(&self, service: &str, limit: usize) -> Vec<Span> {
        self.traces(service, limit).await.iter().flat_map(spans).collect()
    }

    /// The spans of one trace; empty while Jaeger has none.
    ///
    /// # Panics
    /// When Jaeger doesn't answer, or answers something unknown.
    pub async fn spans_of(&self, trace_id: &str) -> Vec<Span> {
        self.trace(trace_id).await.iter().flat_map(spans).collect()
    }

    /// The services it knows.
    ///
    /// # Panics
    /// When Jaeger doesn't answer.
    pub async fn services(&self) -> Vec<String> {
        strings(&self.query("/api/services").await["data"])
    }

    /// The span names of a service.
    ///
    /// # Panics
    /// When Jaeger doesn't answer.
    pub async fn operations(&self, service: &str) -> Vec<String> {
        strings(&self.query(&format!("/api/services/{service}/operations")).await["data"])
    }

    /// Ends it with SIGKILL. Its spans are gone.
    pub fn kill(&mut self) {
        self.process.kill();
    }

    /// Starts it again, empty, at the same ports; kills it before if it runs.
    ///
    /// # Panics
    /// When it doesn't start.
    pub async fn restart(&mut self) {
        self.process.kill();
        self.process = launch(&self.folder, &self.ports, &self.arguments);
        self.ready().await;
    }

    /// Ends it with SIGTERM, and waits for the end.
    ///
    /// # Panics
    /// When it doesn't end.
    pub async fn stop(&mut self) {
        self.process.signal(Signal::TERM);
        self.process.end(PATIENCE).await;
    }

    /// Stops it in mid-air (SIGSTOP): connections stay open, and nobody answers.
    pub fn freeze(&mut self) {
        self.process.freeze();
    }

    /// Lets it go on after [`freeze`](Self::freeze).
    pub fn thaw(&mut self) {
        self.process.signal(Signal::CONT);
    }

    async fn query(&self, path: &str) -> Value {
        http::json(&self.http, &self.url(path)).await
    }

    fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.ports.query.address())
    }

    async fn ready(&mut self) {
        let health = format!("http://{}/", self.ports.admin.address());
        let query = self.url("/api/services");
        until("Jaeger is ready", async || {
            self.process.assert_running();
            http::is_ok(&self.http, &health).await && http::is_ok(&self.http, &query).await
        })
        .await;
    }
}

/// All that it could listen on is told: its defaults are fixed ports on every address.
fn launch(folder: &TempDir, ports: &Ports, arguments: &[String]) -> Process {
    let mut jaeger = command(tool("jaeger"));
    for (listener, port) in [
        ("collector.otlp.grpc.host-port", &ports.otlp_grpc),
        ("collector.otlp.http.host-port", &ports.otlp_http),
        ("query.http-server.host-port", &ports.query),
        ("admin.http.host-port", &ports.admin),
    ] {
        jaeger.arg(format!("--{listener}={}", port.address()));
    }
    for unused in [
        "collector.grpc-server.host-port",
        "collector.http-server.host-port",
        "query.grpc-server.host-port",
        "http-server.host-port",
        "processor.jaeger-binary.server-host-port",
        "processor.jaeger-compact.server-host-port",
        "processor.zipkin-compact.server-host-port",
    ] {
        jaeger.arg(format!("--{unused}=127.0.0.1:0"));
    }
    jaeger.args(arguments).env("SPAN_STORAGE_TYPE", "memory");
    Process::start("jaeger", jaeger, &folder.path().join("output"))
}

fn spans(trace: &Value) -> Vec<Span> {
    list(&trace["spans"])
        .iter()
        .map(|span| Span {
            // Jaeger leaves out the first half where it is all zero.
            trace_id: format!("{:0>32}", string(&span["traceID"])),
            span_id: string(&span["spanID"]),
            parent_span_id: list(&span["references"])
                .iter()
                .find(|reference| reference["refType"] == "CHILD_OF")
                .map(|reference| string(&reference["spanID"])),
            operation: string(&span["operationName"]),
            service: string(&trace["processes"][string(&span["processID"])]["serviceName"]),
            duration_us: span["duration"].as_u64().expect("a duration"),
            tags: list(&span["tags"])
                .iter()
                .map(|tag| (string(&tag["key"]), tag["value"].clone()))
                .collect(),
        })
        .collect()
}

fn list(value: &Value) -> &[Value] {
    value.as_array().map_or(&[], Vec::as_slice)
}

fn strings(value: &Value) -> Vec<String> {
    list(value).iter().map(string).collect()
}

fn string(value: &Value) -> String {
    value
        .as_str()
        .unwrap_or_else(|| panic!("not a string: {value}"))
        .to_owned()
}
