//! Kinds of upstream: https, Unix sockets, and what is spoken with each.

#![expect(
    clippy::unwrap_used,
    reason = "a test stops at the first thing that is not as it expects"
)]

use std::path::Path;
use std::time::Duration;

use async_nats::jetstream;
use axum::Router;
use axum::body::Body;
use axum::extract::Request;
use axum::http::StatusCode;
use axum::routing::any;
use serde_json::Value;
use testbed::{Authority, NatsServer, Port, Sidelog, SidelogCommand, TlsDoor, Turnstile, Upstream, http, wait};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;

const SOON: Duration = Duration::from_secs(10);

fn proxy(upstream: &str) -> SidelogCommand {
    Sidelog::proxy()
        .env("UPSTREAM_URL", upstream)
        .env("SIDELOG_TRACES__ENABLED", "false")
}

/// The only record of the stream.
async fn record(nats: &NatsServer) -> Value {
    let context = nats.jetstream().await;
    wait::obtain("there is a record", async || first(&context).await).await
}

async fn first(context: &jetstream::Context) -> Option<Value> {
    let message = context.get_stream("logs").await.ok()?.get_raw_message(1).await.ok()?;
    let line = sidelog_record::frame::lines(&message.payload).next()?;
    serde_json::from_slice(line).ok()
}

/// A door that speaks `protocols`, with a certificate for `names`.
fn door(authority: &Authority, names: &[&str], upstream: &Upstream, protocols: &[&str]) -> TlsDoor {
    let files = authority.sign("door", names);
    TlsDoor::open_speaking(upstream.address(), &files.cert, &files.key, None, protocols)
}

fn https(door: &TlsDoor) -> String {
    format!("https://{}", door.address())
}

#[tokio::test]
async fn an_https_upstream_is_served_when_its_certificate_is_for_the_name_in_the_address() {
    let (authority, upstream) = (Authority::new(), Upstream::start());
    let door = door(&authority, &["127.0.0.1", "inner.test"], &upstream, &["http/1.1"]);
    let localhost = https(&door).replace("127.0.0.1", "localhost");
    for (address, name, trusts, status) in [
        (https(&door), None, true, 200),
        (https(&door), Some("inner.test"), true, 200),
        (localhost.clone(), Some("127.0.0.1"), true, 200),
        // Not in the certificate.
        (localhost, None, true, 502),
        (https(&door), Some("other.test"), true, 502),
        // Signed by nobody that the system knows.
        (https(&door), None, false, 502),
    ] {
        let mut command = proxy(&address);
        if let Some(name) = name {
            command = command.env("SIDELOG_LISTENERS__0__UPSTREAM_TLS__SERVER_NAME", name);
        }
        if trusts {
            command = command.env("SIDELOG_LISTENERS__0__TLS__CA", authority.ca().display());
        }
        let proxy = command.start().await;
        let before = upstream.received().len();
        let answer = http::client().get(proxy.url()).send().await.unwrap();
        assert_eq!(answer.status(), status, "{address} {name:?} {trusts}");
        let served = upstream.received().len() - before;
        assert_eq!(served, usize::from(status == 200), "{address} {name:?} {trusts}");
    }
}

#[tokio::test]
async fn an_upstream_that_is_not_trusted_is_unreachable_by_tls() {
    let (nats, authority, upstream) = (NatsServer::start().await, Authority::new(), Upstream::start());
    let door = door(&authority, &["127.0.0.1"], &upstream, &["http/1.1"]);
    let proxy = proxy(&https(&door)).env("NATS_URL", nats.url()).start().await;
    let answer = http::client().post(proxy.url()).body("{}").send().await.unwrap();
    assert_eq!(answer.status(), 502);
    let record = record(&nats).await;
    assert_eq!(record["end"], "upstream_unreachable");
    assert_eq!(record["error.type"], "tls");
    assert!(upstream.received().is_empty());
}

#[tokio::test]
async fn the_log_says_once_in_a_while_why_an_upstream_can_t_be_reached() {
    let (authority, upstream) = (Authority::new(), Upstream::start());
    let door = door(&authority, &["inner.test"], &upstream, &["http/1.1"]);
    let nowhere = format!("http://{}", Port::reserve().address());
    let silent = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let silent = format!("https://{}", silent.local_addr().unwrap());
    for (address, trusts, kind, why) in [
        (nowhere.as_str(), false, "connection_refused", "Connection refused"),
        ("http://nobody.invalid", false, "name_resolution", "lookup"),
        (&https(&door), false, "tls", "UnknownIssuer"),
        (&https(&door), true, "tls", "not valid for name"),
        (&silent, false, "connect_timeout", "imeout"),
    ] {
        let mut command = proxy(address)
            .env("SIDELOG_LIMITS__UPSTREAM_CONNECT_TIMEOUT", "500ms")
            .env("SIDELOG_CONFIG_TOML", "[[routes]]\npath = \"/orders/{id}\"\n");
        if trusts {
            command = command.env("SIDELOG_LISTENERS__0__TLS__CA", authority.ca().display());
        }
        let proxy = command.start().await;
        for _ in 0..3 {
            let url = format!("{}/orders/SECRET?key=SECRET", proxy.url());
            let request = http::client()
                .post(url)
                .header("authorization", "SECRET")
                .body("SECRET");
            assert_eq!(request.send().await.unwrap().status(), 502, "{address}");
        }
        let output = proxy.output();
        let told: Vec<_> = output
            .lines()
            .filter(|line| line.contains("an upstream can't be reached"))
            .collect();
        let [told] = told[..] else {
            panic!("{address}: {output}")
        };
        for part in [address, kind, why, "POST", "/orders/{id}"] {
            assert!(told.contains(part), "{part}: {told}");
        }
        assert!(!output.contains("SECRET"), "{output}");
    }
}

#[tokio::test]
async fn a_system_whose_certificates_can_t_be_read_trusts_nobody_and_serves() {
    let (authority, upstream) = (Authority::new(), Upstream::start());
    let door = door(&authority, &["127.0.0.1"], &upstream, &["http/1.1"]);
    for (address, status) in [(upstream.url(), 200), (https(&door), 502)] {
        let proxy = proxy(&address).env("SSL_CERT_FILE", "/missing.pem").start().await;
        assert_eq!(http::client().get(proxy.url()).send().await.unwrap().status(), status);
        assert!(
            proxy.output().contains("the system's certificates can't be used"),
            "{}",
            proxy.output()
        );
    }
}

#[tokio::test]
async fn the_upstream_is_shown_our_certificate_and_routes_may_have_another() {
    let (authority, upstream) = (Authority::new(), Upstream::start());
    let (server, client) = (
        authority.sign("door", &["127.0.0.1"]),
        authority.sign("client", &["client"]),
    );
    let door = TlsDoor::open(upstream.address(), &server.cert, &server.key, &authority.ca());
    let (url, ca) = (https(&door), authority.ca());
    let (ca, cert, key) = (ca.display(), client.cert.display(), client.key.display());
    let config = format!(
        r#"
        [[listeners]]
        upstream = "{url}"
        upstream_tls = {{ ca_file = "{ca}", cert_file = "{cert}", key_file = "{key}" }}
        [[routes]]
        path = "/inherits"
        upstream = "{url}"
        [[listeners]]
        address = "127.0.0.1:0"
        upstream = "{url}"
        tls.ca = "{ca}"
        [[routes]]
        path = "/own"
        upstream = "{url}"
        tls = {{ ca = "{ca}", cert_file = "{cert}", key_file = "{key}" }}
        "#
    );
    let proxy = proxy("")
        .without_env("UPSTREAM_URL")
        .env("SIDELOG_CONFIG_TOML", config)
        .start()
        .await;
    let [with, without] = proxy.addresses() else {
        panic!("{:?}", proxy.addresses())
    };
    for (listener, path, good) in [
        (with, "/", true),
        (with, "/inherits", true),
        (without, "/", false),
        (without, "/inherits", false),
        (without, "/own", true),
    ] {
        let url = format!("http://127.0.0.1:{}{path}", listener.port());
        let answer = http::client().get(url).send().await.unwrap();
        assert_eq!(answer.status().as_u16(), if good { 200 } else { 502 }, "{path}");
    }
}

#[tokio::test]
async fn every_choice_of_protocol_speaks_what_it_says() {
    let (authority, upstream) = (Authority::new(), Upstream::start());
    let files = authority.sign("listener", &["127.0.0.1"]);
    let both = door(&authority, &["127.0.0.1"], &upstream, &["h2", "http/1.1"]);
    let plain = upstream.url();
    // Listener by TLS, upstream, protocol; then what arrives of HTTP/1.1 and of HTTP/2.
    let cases = [
        (false, &plain, "auto", ["HTTP/1.1", "HTTP/2.0"]),
        (false, &plain, "h1", ["HTTP/1.1", "HTTP/1.1"]),
        (false, &plain, "h2", ["HTTP/2.0", "HTTP/2.0"]),
        (false, &https(&both), "auto", ["HTTP/1.1", "HTTP/2.0"]),
        (false, &https(&both), "h1", ["HTTP/1.1", "HTTP/1.1"]),
        (false, &https(&both), "h2", ["HTTP/2.0", "HTTP/2.0"]),
        (true, &plain, "auto", ["HTTP/1.1", "HTTP/1.1"]),
        (true, &plain, "h2", ["HTTP/2.0", "HTTP/2.0"]),
        (true, &https(&both), "auto", ["HTTP/2.0", "HTTP/2.0"]),
        (true, &https(&both), "h1", ["HTTP/1.1", "HTTP/1.1"]),
    ];
    for (tls, upstream, protocol, arrives) in cases {
        let mut command = proxy(upstream)
            .env("SIDELOG_LISTENERS__0__UPSTREAM_PROTOCOL", protocol)
            .env("SIDELOG_LISTENERS__0__UPSTREAM_TLS__CA_FILE", authority.ca().display());
        if tls {
            command = command
                .env("SIDELOG_LISTENERS__0__TLS__CERT_FILE", files.cert.display())
                .env("SIDELOG_LISTENERS__0__TLS__KEY_FILE", files.key.display());
        }
        let proxy = command.start().await;
        let url = if tls {
            proxy.url().replace("http:", "https:")
        } else {
            proxy.url()
        };
        let root = reqwest::Certificate::from_pem(&std::fs::read(authority.ca()).unwrap()).unwrap();
        let builder = || reqwest::Client::builder().tls_certs_only([root.clone()]);
        let clients = [builder().http1_only(), builder().http2_prior_knowledge()];
        for (client, expected) in clients.into_iter().zip(arrives) {
            let client = client.build().unwrap();
            // A body, twice: the second goes by the connection of the first.
            for _ in 0..2 {
                let answer = client.post(&url).body("body").send().await.unwrap();
                let what = format!("{tls} {upstream} {protocol}");
                assert_eq!(answer.status(), 200, "{what}");
                let seen: Value = serde_json::from_str(&answer.text().await.unwrap()).unwrap();
                assert_eq!(
                    (seen["version"].as_str(), seen["body"].as_str()),
                    (Some(expected), Some("body")),
                    "{what}"
                );
            }
        }
    }
}

#[tokio::test]
async fn alpn_falls_back_to_http1_where_the_upstream_speaks_nothing_else() {
    let (authority, upstream) = (Authority::new(), Upstream::start());
    for protocols in [&["http/1.1"][..], &[]] {
        let door = door(&authority, &["127.0.0.1"], &upstream, protocols);
        let proxy = proxy(&https(&door))
            .env("SIDELOG_LISTENERS__0__TLS__CA", authority.ca().display())
            .start()
            .await;
        let answer = http::h2c_client().get(proxy.url()).send().await.unwrap();
        assert_eq!(answer.status(), 200, "{protocols:?}");
        let seen: Value = serde_json::from_str(&answer.text().await.unwrap()).unwrap();
        assert_eq!(seen["version"], "HTTP/1.1", "{protocols:?}");
    }
}

/// An axum service at a socket, which answers with the request's version.
async fn at_socket(path: &Path) -> tokio::task::JoinHandle<()> {
    let listener = tokio::net::UnixListener::bind(path).unwrap();
    let version = any(|request: Request| async move { format!("{:?}", request.version()) });
    let router = Router::new().fallback_service(version.with_state::<_>(()));
    tokio::spawn(async move { axum::serve(listener, router).await.unwrap() })
}

#[tokio::test]
async fn a_unix_socket_is_served_by_http1_and_http2_and_named_in_the_record() {
    let nats = NatsServer::start().await;
    let folder = tempfile::tempdir().unwrap();
    let socket = folder.path().join("api.sock");
    let upstream = format!("unix:{}", socket.display());
    let proxy = proxy(&upstream).env("NATS_URL", nats.url()).start().await;
    let refused = http::client().get(proxy.url()).send().await.unwrap();
    assert_eq!(refused.status(), 502, "nobody listens there");
    let record = record(&nats).await;
    assert_eq!(record["end"], "upstream_unreachable");
    assert_eq!(record["upstream.address"], upstream);

    let _server = at_socket(&socket).await;
    for (client, version) in [(http::client(), "HTTP/1.1"), (http::h2c_client(), "HTTP/2.0")] {
        for _ in 0..2 {
            let answer = client.get(proxy.url()).send().await.unwrap();
            assert_eq!(answer.status(), 200, "{version}");
            assert_eq!(answer.text().await.unwrap(), version);
        }
    }
}

#[tokio::test]
async fn connections_are_used_again_and_closed_before_the_upstream_does() {
    let upstream = Upstream::start();
    for client in [http::client(), http::h2c_client()] {
        let turnstile = Turnstile::open(upstream.address());
        let proxy = proxy(&turnstile.url())
            .env("SIDELOG_LIMITS__UPSTREAM_IDLE_TIMEOUT", "700ms")
            .start()
            .await;
        for body in ["", "body", ""] {
            let answer = client.post(proxy.url()).body(body).send().await.unwrap();
            assert_eq!(answer.status(), 200);
            answer.bytes().await.unwrap();
        }
        assert_eq!(turnstile.passed(), 1);
        wait::until("the idle connection is closed", async || turnstile.open_now() == 0).await;
        assert_eq!(client.get(proxy.url()).send().await.unwrap().status(), 200);
        assert_eq!(turnstile.passed(), 2);
    }
}

#[tokio::test]
async fn connections_by_tls_are_used_again() {
    let (authority, upstream) = (Authority::new(), Upstream::start());
    for client in [http::client(), http::h2c_client()] {
        let door = door(&authority, &["127.0.0.1"], &upstream, &["h2", "http/1.1"]);
        let proxy = proxy(&https(&door))
            .env("SIDELOG_LISTENERS__0__TLS__CA", authority.ca().display())
            .start()
            .await;
        for _ in 0..3 {
            let answer = client.get(proxy.url()).send().await.unwrap();
            assert_eq!(answer.status(), 200);
            answer.bytes().await.unwrap();
        }
        assert_eq!(door.passed(), 1);
    }
}

#[tokio::test]
async fn cookies_of_http2_are_one_field_to_an_http1_upstream() {
    let upstream = Upstream::start();
    for (protocol, expected) in [("h1", &["a=1; b=2; c=3"][..]), ("h2", &["a=1", "b=2", "c=3"])] {
        let proxy = proxy(&upstream.url())
            .env("SIDELOG_LISTENERS__0__UPSTREAM_PROTOCOL", protocol)
            .start()
            .await;
        let request = http::h2c_client().get(proxy.url());
        let request = request
            .header("cookie", "a=1")
            .header("cookie", "b=2")
            .header("cookie", "c=3");
        let seen: Value = serde_json::from_str(&request.send().await.unwrap().text().await.unwrap()).unwrap();
        assert_eq!(seen["headers"]["cookie"], serde_json::json!(expected), "{protocol}");
    }
}

/// One read of what comes next on a connection.
async fn next(client: &mut TcpStream) -> String {
    let mut bytes = [0; 4096];
    let count = timeout(SOON, client.read(&mut bytes)).await.unwrap().unwrap();
    String::from_utf8_lossy(&bytes[..count]).into_owned()
}

async fn begin(proxy: &Sidelog, version: &str, lines: &str) -> TcpStream {
    let mut client = TcpStream::connect(proxy.addresses()[0]).await.unwrap();
    let request = format!("POST / HTTP/{version}\r\nHost: a.test\r\n{lines}\r\n");
    client.write_all(request.as_bytes()).await.unwrap();
    client
}

#[tokio::test]
async fn a_client_that_waits_for_100_continue_is_answered_where_the_upstream_speaks_http2() {
    let upstream = Upstream::start();
    let proxy = proxy(&upstream.url())
        .env("SIDELOG_LISTENERS__0__UPSTREAM_PROTOCOL", "h2")
        .start()
        .await;
    for lines in [
        "Expect: 100-continue\r\nContent-Length: 4\r\n",
        "expect: 100-Continue\r\nTransfer-Encoding: chunked\r\n",
    ] {
        let mut client = begin(&proxy, "1.1", lines).await;
        assert_eq!(next(&mut client).await, "HTTP/1.1 100 Continue\r\n\r\n", "{lines}");
        let body = if lines.contains("chunked") {
            "4\r\nbody\r\n0\r\n\r\n"
        } else {
            "body"
        };
        client.write_all(body.as_bytes()).await.unwrap();
        let answer = next(&mut client).await;
        assert!(answer.starts_with("HTTP/1.1 200 "), "{answer}");
    }
    // It does not wait (RFC 9110, 10.1.1).
    let mut client = begin(&proxy, "1.0", "Expect: 100-continue\r\nContent-Length: 4\r\n").await;
    client.write_all(b"body").await.unwrap();
    let answer = next(&mut client).await;
    assert!(answer.contains(" 200 "), "{answer}");
    let received = upstream.received();
    assert_eq!(received.len(), 3);
    for request in &received[..2] {
        assert_eq!(request.body, "body");
        assert!(!request.headers.contains_key("expect"), "{:?}", request.headers);
    }
}

#[tokio::test]
async fn nobody_is_told_to_continue_whose_upstream_is_not_there() {
    let proxy = proxy(&format!("http://{}", Port::reserve().address()))
        .env("SIDELOG_LISTENERS__0__UPSTREAM_PROTOCOL", "h2")
        .start()
        .await;
    let mut client = begin(&proxy, "1.1", "Expect: 100-continue\r\nContent-Length: 4\r\n").await;
    let answer = next(&mut client).await;
    assert!(answer.starts_with("HTTP/1.1 502 "), "{answer}");
}

/// HTTP/1.0 knows no chunks: what has no length ends with the connection (RFC 9112, 6.3).
#[tokio::test]
async fn a_client_of_http_1_0_reads_what_an_upstream_of_http2_says() {
    let chunks = || futures_util::stream::iter(["one", " two"].map(Ok::<_, std::io::Error>));
    let router = Router::new()
        .route("/whole", any(async || "one two"))
        .route("/parts", any(async move || Body::from_stream(chunks())))
        .route("/nothing", any(async || StatusCode::NO_CONTENT));
    let upstream = Upstream::serving(router);
    let proxy = proxy(&upstream.url())
        .env("SIDELOG_LISTENERS__0__UPSTREAM_PROTOCOL", "h2")
        .start()
        .await;
    for (path, body, stays) in [
        ("/whole", "one two", true),
        ("/parts", "one two", false),
        ("/nothing", "", true),
    ] {
        let mut client = TcpStream::connect(proxy.addresses()[0]).await.unwrap();
        let request = format!("GET {path} HTTP/1.0\r\nHost: a.test\r\nConnection: keep-alive\r\n\r\n");
        client.write_all(request.as_bytes()).await.unwrap();
        if stays {
            client
                .write_all(request.replace("keep-alive", "close").as_bytes())
                .await
                .unwrap();
        }
        let mut answer = Vec::new();
        let read = timeout(SOON, client.read_to_end(&mut answer)).await;
        let answer = String::from_utf8(answer).unwrap();
        assert!(matches!(read, Ok(Ok(_))), "{path} does not end: {answer}");
        let (head, rest) = answer.split_once("\r\n\r\n").unwrap();
        let head = head.to_ascii_lowercase();
        assert!(!head.contains("transfer-encoding"), "{path}: {head}");
        assert_eq!(head.contains("connection: keep-alive"), stays, "{path}: {head}");
        let second = rest.strip_prefix(body).unwrap();
        assert_eq!(second.ends_with(&format!("\r\n\r\n{body}")), stays, "{path}: {second}");
    }
}
