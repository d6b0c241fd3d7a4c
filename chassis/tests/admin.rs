//! The admin endpoints, on a real socket.

#![expect(clippy::expect_used, reason = "a test stops where something is not as it needs it")]
#![expect(clippy::print_stderr, reason = "a test that skips a part says so")]

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use http::Method;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::registry::Registry;
use sidelog_chassis::admin::client::{AskError, ask};
use sidelog_chassis::admin::{Admin, Endpoints, MAX_CONNECTIONS, Page, Verb};
use sidelog_chassis::drain::Shutdown;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::task::JoinHandle;

struct Served {
    address: SocketAddr,
    ready: Arc<AtomicBool>,
    troubled: Arc<AtomicBool>,
    shutdown: Shutdown,
    task: JoinHandle<std::io::Result<()>>,
}

impl Served {
    fn start() -> Self {
        Self::start_at("127.0.0.1:0")
    }

    fn start_at(address: &str) -> Self {
        let admin = Admin::bind(address.parse().expect("an address")).expect("a free port");
        let address = admin.local_addr();
        let mut registry = Registry::with_prefix("sidelog");
        let counter: Counter = Counter::default();
        registry.register("exchanges", "Exchanges seen", counter.clone());
        counter.inc_by(3);
        let ready = Arc::new(AtomicBool::new(false));
        let troubled = Arc::new(AtomicBool::new(false));
        let shutdown = Shutdown::new();
        let is_ready = {
            let ready = Arc::clone(&ready);
            Arc::new(move || ready.load(Ordering::Relaxed))
        };
        let endpoints = Endpoints {
            metrics: Arc::new(registry),
            ready: is_ready,
            troubles: {
                let troubled = Arc::clone(&troubled);
                let told = || "the store is away".to_owned();
                Arc::new(move || troubled.load(Ordering::Relaxed).then(told).into_iter().collect())
            },
            verbs: vec![Verb::new(Method::PUT, "/echo", |body| match body {
                b"" => Err("write something".to_owned()),
                body => Ok(Page::text(String::from_utf8_lossy(body))),
            })],
        };
        let task = tokio::spawn(admin.serve(endpoints, shutdown.clone()));
        Self {
            address,
            ready,
            troubled,
            shutdown,
            task,
        }
    }

    /// Sends a request as it is and reads until the server closes.
    async fn ask(&self, request: &str) -> String {
        let mut stream = TcpStream::connect(self.address).await.expect("a connection");
        stream.write_all(request.as_bytes()).await.expect("the request is sent");
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.expect("an answer");
        answer
    }

    async fn get(&self, path: &str) -> String {
        self.ask(&format!("GET {path} HTTP/1.1\r\nHost: a\r\n\r\n")).await
    }

    async fn stop(self) {
        self.shutdown.force();
        self.task.await.expect("no panic").expect("an orderly end");
    }
}

#[tokio::test]
async fn a_process_is_alive_before_it_is_ready() {
    let served = Served::start();
    assert!(served.get("/livez").await.starts_with("HTTP/1.1 200 OK"));
    assert!(served.get("/readyz").await.starts_with("HTTP/1.1 503 "));
    served.ready.store(true, Ordering::Relaxed);
    let ready = served.get("/readyz").await;
    assert!(
        ready.starts_with("HTTP/1.1 200 OK") && ready.ends_with("\r\n\r\nok\n"),
        "{ready}"
    );
    served.stop().await;
}

#[tokio::test]
async fn a_process_that_is_to_end_is_alive_and_not_ready() {
    let served = Served::start();
    served.ready.store(true, Ordering::Relaxed);
    served.shutdown.request();
    let answer = served.get("/readyz").await;
    assert!(
        answer.starts_with("HTTP/1.1 503 ") && answer.ends_with("shutting down\n"),
        "{answer}"
    );
    assert!(served.get("/livez").await.starts_with("HTTP/1.1 200 OK"));
    assert!(served.get("/metrics").await.starts_with("HTTP/1.1 200 OK"));
    served.stop().await;
}

#[tokio::test]
async fn metrics_come_in_the_form_that_is_asked_for() {
    let served = Served::start();
    let text = served.get("/metrics").await;
    assert!(
        text.contains("content-type: text/plain; version=0.0.4; charset=utf-8\r\n"),
        "{text}"
    );
    assert!(text.contains("\n# TYPE sidelog_exchanges_total counter\n"), "{text}");
    assert!(text.ends_with("\nsidelog_exchanges_total 3\n"), "{text}");

    let open_metrics = "GET /metrics HTTP/1.1\r\nHost: a\r\nAccept: application/openmetrics-text\r\n\r\n";
    let metrics = served.ask(open_metrics).await;
    assert!(
        metrics.contains("content-type: application/openmetrics-text; version=1.0.0; charset=utf-8\r\n"),
        "{metrics}"
    );
    assert!(metrics.contains("\nsidelog_exchanges_total 3\n"), "{metrics}");
    assert!(metrics.ends_with("# EOF\n"), "{metrics}");
}

#[tokio::test]
async fn other_methods_and_paths_are_refused() {
    let served = Served::start();
    let head = served.ask("HEAD /livez HTTP/1.1\r\nHost: a\r\n\r\n").await;
    assert!(
        head.starts_with("HTTP/1.1 200 OK") && head.ends_with("\r\n\r\n"),
        "{head}"
    );
    let post = served
        .ask("POST /livez HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\n\r\n")
        .await;
    assert!(
        post.starts_with("HTTP/1.1 405 ") && post.contains("allow: GET, HEAD\r\n"),
        "{post}"
    );
    assert!(served.get("/").await.starts_with("HTTP/1.1 404 "));
    assert!(served.get("/livez/x").await.starts_with("HTTP/1.1 404 "));
    assert!(served.get("/livez?verbose").await.starts_with("HTTP/1.1 200 "));
    served.stop().await;
}

#[tokio::test]
async fn a_verb_of_the_program_is_done_or_refused_with_a_sentence() {
    let served = Served::start();
    let put = |body: &str| {
        format!(
            "PUT /echo HTTP/1.1\r\nHost: localhost\r\nContent-Length: {}\r\n\r\n{body}",
            body.len()
        )
    };
    let done = served.ask(&put("hello")).await;
    assert!(
        done.starts_with("HTTP/1.1 200 ") && done.ends_with("\r\n\r\nhello"),
        "{done}"
    );
    let refused = served.ask(&put("")).await;
    assert!(
        refused.starts_with("HTTP/1.1 400 ") && refused.ends_with("write something\n"),
        "{refused}"
    );
    let get = served.ask("GET /echo HTTP/1.1\r\nHost: localhost\r\n\r\n").await;
    assert!(
        get.starts_with("HTTP/1.1 405 ") && get.contains("allow: PUT\r\n") && get.ends_with("use PUT\n"),
        "{get}"
    );
    let large = served.ask(&put(&"x".repeat(5_000))).await;
    assert!(large.starts_with("HTTP/1.1 413 "), "{large}");
    let page = served
        .ask("PUT /echo HTTP/1.1\r\nHost: a.example\r\nContent-Length: 1\r\n\r\nx")
        .await;
    assert!(
        page.starts_with("HTTP/1.1 403 ") && page.contains("not from a web page"),
        "{page}"
    );
    let unknown = served.get("/nothing").await;
    assert!(
        unknown.contains("GET /livez") && unknown.contains("PUT /echo"),
        "{unknown}"
    );
    served.stop().await;
}

#[tokio::test]
async fn a_verb_answers_only_to_loopback() {
    let served = Served::start_at("[::]:0");
    let port = served.address.port();
    let mut asked = 0;
    for own in own_addresses() {
        let mut stream = TcpStream::connect((own, port)).await.expect("a connection");
        stream
            .write_all(b"PUT /echo HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1\r\n\r\nx")
            .await
            .expect("the request is sent");
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.expect("an answer");
        let expected = if own.is_loopback() { "200" } else { "403" };
        assert!(answer.starts_with(&format!("HTTP/1.1 {expected} ")), "{own}: {answer}");
        let is_told = answer.contains("only from loopback");
        assert_eq!(is_told, !own.is_loopback(), "{own}: {answer}");
        asked += 1;
    }
    assert!(asked > 0, "no address was tried");
    served.stop().await;
}

/// 127.0.0.1, and the address by which others know this machine, where it has one.
fn own_addresses() -> Vec<std::net::IpAddr> {
    let mut own = vec![std::net::Ipv4Addr::LOCALHOST.into()];
    let socket = std::net::UdpSocket::bind("0.0.0.0:0").expect("a socket");
    // Nothing is sent: the system only says which address it would send from.
    if socket.connect("192.0.2.1:9").is_ok() {
        own.extend(socket.local_addr().map(|address| address.ip()));
    }
    if own.len() == 1 {
        eprintln!("SKIPPED in part: this machine has no address but loopback");
    }
    own
}

#[tokio::test(flavor = "multi_thread")]
async fn a_command_asks_the_process_at_its_address() {
    let served = Served::start();
    served.ready.store(true, Ordering::Relaxed);
    let address = served.address;
    assert_eq!(ask(address, &Method::GET, "/readyz").expect("ready"), "ok\n");
    let refused = ask(address, &Method::POST, "/readyz").expect_err("a wrong method");
    assert_eq!(
        refused.to_string(),
        format!("{address} (admin.address) answered \"405 Method Not Allowed use GET\"")
    );
    served.stop().await;
    let away = ask(address, &Method::GET, "/readyz").expect_err("it has ended");
    assert!(matches!(away, AskError::Away { .. }), "{away}");
}

#[tokio::test]
async fn clients_that_say_nothing_keep_nobody_out_for_ever() {
    let served = Served::start();
    let mut silent = Vec::new();
    for _ in 0..MAX_CONNECTIONS {
        silent.push(TcpStream::connect(served.address).await.expect("a connection"));
    }
    assert!(served.get("/livez").await.starts_with("HTTP/1.1 200 OK"));
    for mut stream in silent {
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer).await.expect("the connection is closed");
    }
    served.stop().await;
}

#[test]
fn a_taken_port_is_an_error_that_names_the_key() {
    let taken = std::net::TcpListener::bind("127.0.0.1:0").expect("a free port");
    let address = taken.local_addr().expect("an address");
    let error = Admin::bind(address).expect_err("taken").to_string();
    assert!(
        error.starts_with(&format!("failed to bind {address} (admin.address): ")),
        "{error}"
    );
    assert!(error.contains("another process listens there"), "{error}");
}

#[tokio::test]
async fn troubles_are_told_and_change_no_status() {
    let served = Served::start();
    served.troubled.store(true, Ordering::Relaxed);
    let told = "\r\n\r\nok\nthe store is away\n";
    let live = served.get("/livez").await;
    assert!(live.starts_with("HTTP/1.1 200") && live.ends_with(told), "{live}");
    let unready = served.get("/readyz").await;
    assert!(unready.starts_with("HTTP/1.1 503"), "{unready}");
    served.ready.store(true, Ordering::Relaxed);
    let ready = served.get("/readyz").await;
    assert!(ready.starts_with("HTTP/1.1 200") && ready.ends_with(told), "{ready}");
    served.stop().await;
}
