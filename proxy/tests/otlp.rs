//! Spans on their way to a collector: what is spoken, and what becomes of spans that it doesn't take.

#![expect(
    clippy::unwrap_used,
    reason = "a test stops at the first thing that is not as it expects"
)]

use std::io::Read as _;
use std::path::Path;
use std::time::{Duration, Instant};

use flate2::read::GzDecoder;
use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use prost::Message as _;
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, ExtendedKeyUsagePurpose, IsCa, KeyPair};
use testbed::{Jaeger, OtlpAnswer, OtlpDouble, OtlpRequest, Port, Sidelog, SidelogCommand, Upstream, http, wait};

const PROTOCOLS: [&str; 2] = ["grpc", "http/protobuf"];

/// A proxy that records nothing, and whose spans don't wait for others.
fn proxy(upstream: &Upstream, endpoint: &str, protocol: &str) -> SidelogCommand {
    Sidelog::proxy()
        .env("UPSTREAM_URL", upstream.url())
        .env("SIDELOG_CAPTURE__ENABLED", "false")
        .env("OTEL_EXPORTER_OTLP_ENDPOINT", endpoint)
        .env("OTEL_EXPORTER_OTLP_PROTOCOL", protocol)
        .env("SIDELOG_TRACES__LINGER", "0")
}

async fn get(proxy: &Sidelog) {
    let answer = http::client()
        .get(format!("{}/orders?token=SECRET", proxy.url()))
        .send()
        .await;
    assert_eq!(answer.unwrap().status(), 200);
}

async fn until_dropped(proxy: &Sidelog, reason: &str, count: f64) {
    wait::until("the spans are dropped and counted", async || {
        proxy
            .metric("sidelog_spans_dropped_total", &format!("reason={reason:?}"))
            .await
            >= count
    })
    .await;
}

async fn until_sent(proxy: &Sidelog, count: f64) {
    wait::until("the spans are sent", async || {
        proxy.metric("sidelog_spans_sent_total", "").await >= count
    })
    .await;
}

/// The names of the spans of a request.
fn names(request: &OtlpRequest) -> Vec<String> {
    let is_gzip = ["content-encoding", "grpc-encoding"]
        .iter()
        .any(|name| request.headers.get(*name).is_some_and(|value| value == "gzip"));
    let mut body = request.body.to_vec();
    if is_gzip {
        let mut plain = Vec::new();
        GzDecoder::new(body.as_slice()).read_to_end(&mut plain).unwrap();
        body = plain;
    }
    let request = ExportTraceServiceRequest::decode(body.as_slice()).unwrap();
    let scopes = request.resource_spans.iter().flat_map(|resource| &resource.scope_spans);
    scopes
        .flat_map(|scope| &scope.spans)
        .map(|span| span.name.clone())
        .collect()
}

#[tokio::test]
async fn a_real_collector_takes_spans_by_either_protocol_plain_and_compressed() {
    let (jaeger, upstream) = (Jaeger::start().await, Upstream::start());
    for (service, endpoint, protocol, compression) in [
        ("grpc", format!("http://{}", jaeger.otlp_grpc()), "grpc", "none"),
        ("grpc-gzip", format!("http://{}", jaeger.otlp_grpc()), "grpc", "gzip"),
        ("http", jaeger.otlp_http(), "http/protobuf", "none"),
        ("http-gzip", jaeger.otlp_http(), "http/protobuf", "gzip"),
    ] {
        let proxy = proxy(&upstream, &endpoint, protocol)
            .env("SERVICE_NAME", service)
            .env("OTEL_EXPORTER_OTLP_COMPRESSION", compression)
            .start()
            .await;
        get(&proxy).await;
        wait::until("Jaeger has the span", async || {
            jaeger.spans(service, 10).await.len() == 1
        })
        .await;
        until_sent(&proxy, 1.0).await;
    }
}

#[tokio::test]
async fn requests_carry_the_headers_of_the_settings_once_and_go_to_the_path_of_the_specification() {
    let (collector, upstream) = (OtlpDouble::start(), Upstream::start());
    for (protocol, path) in [
        ("grpc", "/opentelemetry.proto.collector.trace.v1.TraceService/Export"),
        ("http/protobuf", "/v1/traces"),
    ] {
        for compression in ["none", "gzip"] {
            let proxy = proxy(&upstream, &collector.url(), protocol)
                .env("OTEL_EXPORTER_OTLP_HEADERS", "api-key=general")
                .env("OTEL_EXPORTER_OTLP_TRACES_HEADERS", "api-key=a%20b,x-tenant=7")
                .env("OTEL_EXPORTER_OTLP_COMPRESSION", compression)
                .start()
                .await;
            get(&proxy).await;
            until_sent(&proxy, 1.0).await;
            let request = collector.received().pop().unwrap();
            assert!(request.path.ends_with(path), "{}", request.path);
            let keys: Vec<_> = request.headers.get_all("api-key").iter().collect();
            assert_eq!(keys, ["a b"]);
            assert_eq!(request.headers["x-tenant"], "7");
            assert!(
                request.headers["user-agent"]
                    .to_str()
                    .unwrap()
                    .starts_with("sidelog-proxy/")
            );
            assert_eq!(names(&request), ["GET"]);
            assert!(!proxy.output().contains("a b"), "a header's value is never logged");
        }
    }
}

#[tokio::test]
async fn headers_come_from_a_file_and_an_endpoint_for_traces_is_taken_as_it_is() {
    let (collector, upstream) = (OtlpDouble::start(), Upstream::start());
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("headers");
    std::fs::write(&file, "authorization=Bearer SECRET\n").unwrap();
    let proxy = proxy(&upstream, "http://127.0.0.1:1", "http/protobuf")
        .env(
            "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT",
            format!("{}/custom?x=y", collector.url()),
        )
        .env("SIDELOG_TRACES__HEADERS_FILE", file.display())
        .start()
        .await;
    get(&proxy).await;
    until_sent(&proxy, 1.0).await;
    let request = collector.received().pop().unwrap();
    assert_eq!(request.path, "/custom?x=y");
    assert_eq!(request.headers["authorization"], "Bearer SECRET");
}

#[tokio::test]
async fn a_partial_success_is_counted_and_not_sent_again() {
    let upstream = Upstream::start();
    for protocol in PROTOCOLS {
        let collector = OtlpDouble::start();
        collector.answer([OtlpAnswer::TakePart(1, "too old")]);
        let proxy = proxy(&upstream, &collector.url(), protocol)
            .env("SIDELOG_TRACES__LINGER", "1h")
            .env("SIDELOG_TRACES__BATCH_MAX", "3")
            .start()
            .await;
        for _ in 0..3 {
            get(&proxy).await;
        }
        until_sent(&proxy, 2.0).await;
        until_dropped(&proxy, "rejected", 1.0).await;
        assert_eq!(collector.received().len(), 1, "{protocol}");
        let told = proxy.output();
        assert!(told.contains("spans are dropped") && told.contains("too old"), "{told}");
        collector.answer([OtlpAnswer::Take]);
        for _ in 0..3 {
            get(&proxy).await;
        }
        wait::until("the change is told", async || {
            proxy.output().contains("the trace collector takes spans again")
        })
        .await;
    }
}

#[tokio::test]
async fn what_a_collector_refuses_is_dropped_and_told_once() {
    let upstream = Upstream::start();
    for protocol in PROTOCOLS {
        let collector = OtlpDouble::start();
        collector.answer([OtlpAnswer::Refuse {
            status: 401,
            code: 16,
            retry_after: None,
        }]);
        let proxy = proxy(&upstream, &collector.url(), protocol).start().await;
        for count in [1.0, 2.0] {
            get(&proxy).await;
            until_dropped(&proxy, "refused", count).await;
        }
        assert_eq!(collector.received().len(), 2, "{protocol}: nothing is sent again");
        assert_eq!(
            proxy.output().matches("spans are dropped").count(),
            1,
            "{}",
            proxy.output()
        );
    }
}

#[tokio::test]
async fn a_busy_collector_is_asked_again_when_it_wants_to_be() {
    let upstream = Upstream::start();
    for protocol in PROTOCOLS {
        let collector = OtlpDouble::start();
        let busy = |retry_after| OtlpAnswer::Refuse {
            status: 503,
            code: 14,
            retry_after,
        };
        collector.answer([busy(Some(1)), busy(None), OtlpAnswer::Take]);
        let proxy = proxy(&upstream, &collector.url(), protocol).start().await;
        let begun = Instant::now();
        get(&proxy).await;
        until_sent(&proxy, 1.0).await;
        let received = collector.received();
        assert_eq!(received.len(), 3, "{protocol}");
        assert!(
            received.iter().all(|request| request.body == received[0].body),
            "the same bytes"
        );
        if protocol == "http/protobuf" {
            assert!(begun.elapsed() >= Duration::from_secs(1), "Retry-After is kept");
        }
        assert_eq!(proxy.metric("sidelog_spans_dropped_total", "").await, 0.0);
    }
}

#[tokio::test]
async fn a_collector_that_stays_busy_is_given_up_when_the_time_is_over() {
    let upstream = Upstream::start();
    for protocol in PROTOCOLS {
        let collector = OtlpDouble::start();
        collector.answer([OtlpAnswer::Refuse {
            status: 429,
            code: 14,
            retry_after: None,
        }]);
        let proxy = proxy(&upstream, &collector.url(), protocol)
            .env("OTEL_BSP_EXPORT_TIMEOUT", "700")
            .start()
            .await;
        get(&proxy).await;
        until_dropped(&proxy, "busy", 1.0).await;
        assert!(collector.received().len() > 1, "{protocol}");
    }
}

#[tokio::test]
async fn a_collector_that_does_not_answer_costs_nothing_but_its_spans() {
    let upstream = Upstream::start();
    for protocol in PROTOCOLS {
        let collector = OtlpDouble::start();
        collector.answer([OtlpAnswer::Hang]);
        let mut proxy = proxy(&upstream, &collector.url(), protocol)
            .env("OTEL_EXPORTER_OTLP_TIMEOUT", "200")
            .env("OTEL_BSP_EXPORT_TIMEOUT", "600")
            .env("OTEL_BSP_MAX_QUEUE_SIZE", "4")
            .env("OTEL_BSP_MAX_EXPORT_BATCH_SIZE", "2")
            .start()
            .await;
        for _ in 0..20 {
            get(&proxy).await;
        }
        until_dropped(&proxy, "queue_full", 1.0).await;
        until_dropped(&proxy, "timeout", 1.0).await;
        assert!(proxy.output().contains("no answer within"), "{}", proxy.output());
        let waiting = proxy.metric("sidelog_spans_waiting", "").await;
        assert!(waiting <= 6.0, "{protocol}: {waiting} spans wait");
        proxy.terminate();
        let ended = proxy.exit_status(Duration::from_secs(10)).await;
        assert!(ended.success(), "{}", proxy.output());
    }
}

#[tokio::test]
async fn a_collector_that_is_not_there_is_unreachable_until_it_is() {
    let upstream = Upstream::start();
    for protocol in PROTOCOLS {
        let nowhere = Port::reserve();
        let proxy = proxy(&upstream, &format!("http://{}", nowhere.address()), protocol)
            .env("OTEL_BSP_EXPORT_TIMEOUT", "400")
            .start()
            .await;
        for count in [1.0, 2.0] {
            get(&proxy).await;
            until_dropped(&proxy, "unreachable", count).await;
        }
        let told = proxy.output();
        assert_eq!(told.matches("spans are dropped").count(), 1, "{told}");
        assert!(
            told.contains("refused") && told.contains("check traces.endpoint"),
            "{told}"
        );
    }
}

#[tokio::test]
async fn the_collectors_variables_are_read_by_nobody_but_the_settings() {
    let (collector, elsewhere, upstream) = (OtlpDouble::start(), OtlpDouble::start(), Upstream::start());
    for protocol in PROTOCOLS {
        let proxy = proxy(&upstream, &elsewhere.url(), protocol)
            .env("OTEL_EXPORTER_OTLP_HEADERS", "api-key=from-otel")
            .env("OTEL_EXPORTER_OTLP_COMPRESSION", "gzip")
            .env("OTEL_RESOURCE_ATTRIBUTES", "service.name=from-otel")
            .env("SIDELOG_TRACES__ENDPOINT", collector.url())
            .env("SIDELOG_TRACES__HEADERS", "api-key=of-its-own")
            .env("SIDELOG_TRACES__COMPRESSION", "none")
            .start()
            .await;
        get(&proxy).await;
        until_sent(&proxy, 1.0).await;
        let request = collector.received().pop().unwrap();
        let keys: Vec<_> = request.headers.get_all("api-key").iter().collect();
        assert_eq!(keys, ["of-its-own"], "{protocol}");
        assert_eq!(names(&request), ["GET"]);
    }
    assert_eq!(elsewhere.received().len(), 0);
}

/// A certificate authority, and what it signed, as files.
struct Certificates {
    folder: tempfile::TempDir,
}

impl Certificates {
    fn new() -> Self {
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let ca = CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap();
        let folder = tempfile::tempdir().unwrap();
        let write = |name: &str, pem: &str| std::fs::write(folder.path().join(name), pem).unwrap();
        write("ca.pem", &ca.pem());
        for (name, usage) in [
            ("server", ExtendedKeyUsagePurpose::ServerAuth),
            ("client", ExtendedKeyUsagePurpose::ClientAuth),
        ] {
            let key = KeyPair::generate().unwrap();
            let mut params = CertificateParams::new(vec!["localhost".to_owned(), "127.0.0.1".to_owned()]).unwrap();
            params.extended_key_usages = vec![usage];
            write(&format!("{name}.pem"), &params.signed_by(&key, &ca).unwrap().pem());
            write(&format!("{name}.key"), &key.serialize_pem());
        }
        Self { folder }
    }

    fn path(&self, name: &str) -> String {
        let folder: &Path = self.folder.path();
        folder.join(name).display().to_string()
    }
}

#[tokio::test]
async fn by_tls_the_collector_is_checked_and_checks_who_we_are() {
    let (certificates, upstream) = (Certificates::new(), Upstream::start());
    let others = Certificates::new();
    let arguments = ["grpc", "http"].iter().flat_map(|protocol| {
        [
            ("enabled", "true".to_owned()),
            ("cert", certificates.path("server.pem")),
            ("key", certificates.path("server.key")),
            ("client-ca", certificates.path("ca.pem")),
        ]
        .map(|(name, value)| format!("--collector.otlp.{protocol}.tls.{name}={value}"))
    });
    let jaeger = Jaeger::start_with(arguments.collect()).await;
    let endpoints = [
        ("grpc", format!("https://{}", jaeger.otlp_grpc())),
        ("http/protobuf", jaeger.otlp_http().replace("http://", "https://")),
    ];
    for (protocol, endpoint) in endpoints {
        let service = format!("by-{}", protocol.split('/').next().unwrap());
        let start = async |ca: &Certificates| {
            proxy(&upstream, &endpoint, protocol)
                .env("SERVICE_NAME", &service)
                .env("OTEL_BSP_EXPORT_TIMEOUT", "1000")
                .env("OTEL_EXPORTER_OTLP_CERTIFICATE", ca.path("ca.pem"))
                .env("OTEL_EXPORTER_OTLP_CLIENT_CERTIFICATE", certificates.path("client.pem"))
                .env("OTEL_EXPORTER_OTLP_CLIENT_KEY", certificates.path("client.key"))
                .start()
                .await
        };
        let good = start(&certificates).await;
        get(&good).await;
        wait::until("Jaeger has the span", async || {
            jaeger.spans(&service, 10).await.len() == 1
        })
        .await;
        let deceived = start(&others).await;
        get(&deceived).await;
        until_dropped(&deceived, "unreachable", 1.0).await;
    }
}

#[tokio::test]
async fn a_file_of_the_collector_that_is_missing_is_told_at_the_start() {
    for protocol in PROTOCOLS {
        for (key, name) in [
            ("SIDELOG_TRACES__TLS__CA_FILE", "traces.tls.ca_file"),
            ("SIDELOG_TRACES__HEADERS_FILE", "traces.headers_file"),
        ] {
            let finished = Sidelog::proxy()
                .env("OTEL_EXPORTER_OTLP_ENDPOINT", "https://127.0.0.1:1")
                .env("OTEL_EXPORTER_OTLP_PROTOCOL", protocol)
                .env(key, "/missing")
                .finish()
                .await;
            assert_eq!(finished.code, Some(1), "{}", finished.output);
            let told = format!("{name}: failed to read /missing");
            assert!(finished.output.contains(&told), "{}", finished.output);
        }
    }
}
