//! What stands around the proxies: the service behind them, nats-server, and a collector that keeps nothing.

use std::convert::Infallible;
use std::fs;
use std::net::{SocketAddr, TcpListener};
use std::path::Path;
use std::process::Command;
use std::sync::mpsc;

use axum::Router;
use axum::body::Body;
use axum::extract::Request;
use axum::http::{HeaderMap, HeaderValue, Response, header};
use http_body_util::{BodyExt, Full};
use tempfile::TempDir;
use testbed::{NatsServer, Port};

use crate::contender::Running;
use crate::load::ORDER;

/// The message that a gRPC service answers, of a few fields.
const MESSAGE: &[u8] = b"\x00\x00\x00\x00\x20\x0a\x1ean answer of a gRPC service, 32";

/// Bodies that are answered: the path, and the bytes.
pub(crate) const BODIES: [(&str, usize); 6] = [
    ("0", 0),
    ("1kb", 1_024),
    ("16k", 16 * 1_024),
    ("64k", 64 * 1_024),
    ("256k", 256 * 1_024),
    ("1m", 1_024 * 1_024),
];
/// A message without fields.
const EMPTY: &[u8] = b"\0\0\0\0\0";

/// The rig, for as long as it is kept.
#[derive(Debug)]
pub(crate) struct Rig {
    /// Answers by HTTP/1.1: `/1k`, [`BODIES`], and each of them as `-anew`, where it is another JSON each time.
    pub(crate) upstream: SocketAddr,
    /// The same by HTTP/2 without TLS.
    pub(crate) upstream_h2: SocketAddr,
    /// Takes spans and forgets them; every other call of gRPC is answered by a message.
    pub(crate) grpc: SocketAddr,
    pub(crate) nats: NatsServer,
    _nginx: (Running, [Port; 2]),
    _folder: TempDir,
}

impl Rig {
    /// Starts all of it.
    pub(crate) async fn start() -> Self {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let ports = [Port::reserve(), Port::reserve()];
        let [upstream, upstream_h2] = [ports[0].address(), ports[1].address()];
        let nginx = Running::start("upstream", &mut nginx(&folder, upstream, upstream_h2));
        nginx.answers_at(upstream).await;
        Self {
            upstream,
            upstream_h2,
            grpc: grpc(),
            nats: NatsServer::start().await,
            _nginx: (nginx, ports),
            _folder: folder,
        }
    }

    /// An address where nobody is, and will be for as long as the rig stands.
    pub(crate) fn nobody() -> Port {
        Port::reserve()
    }
}

/// JSON of about so many bytes.
pub(crate) fn orders(bytes: usize) -> String {
    if bytes == 0 {
        return String::new();
    }
    let mut out = String::from("[");
    while out.len() + ORDER.len() + 2 <= bytes {
        if out.len() > 1 {
            out.push(',');
        }
        out.push_str(ORDER);
    }
    out.push_str(&" ".repeat(bytes.saturating_sub(out.len() + 1)));
    out.push(']');
    out
}

/// The same, as nginx puts it together: `$some` is a comma and an order, `$many` 32 of them, and the first order has an identifier of
/// its own, in its middle, so that neither the ends nor the length tell one from another.
fn orders_anew(bytes: usize) -> String {
    if bytes == 0 {
        return String::new();
    }
    let first = ORDER.replacen("SKU-1014", "$request_id", 1);
    // nginx writes 32 digits there.
    let others = bytes.saturating_sub(ORDER.len() + 32) / (ORDER.len() + 1);
    [
        "[",
        &first,
        &"$many".repeat(others / 32),
        &"$some".repeat(others % 32),
        "]",
    ]
    .concat()
}

fn nginx(folder: &TempDir, http1: SocketAddr, http2: SocketAddr) -> Command {
    let root = folder.path().join("www");
    fs::create_dir(&root).expect("a folder for answers");
    for (name, bytes) in BODIES {
        fs::write(root.join(name), orders(bytes)).expect("an answer");
    }
    let anew: String = [("1k", 1_024)]
        .iter()
        .chain(&BODIES)
        .map(|(name, bytes)| {
            let (some, all) = (format!(",{ORDER}"), "$some".repeat(32));
            format!(
                "    location = /{name}-anew {{ set $some '{some}'; set $many '{all}'; return 200 '{}'; }}\n",
                orders_anew(*bytes)
            )
        })
        .collect();
    let server = format!(
        "  server {{
    listen {http1} backlog=20000;
    listen {http2} http2;
    root {};
    default_type application/json;
    open_file_cache max=100;
    location = /1k {{ return 200 '{ORDER}'; }}
{anew}    location / {{ error_page 405 =200 $uri; }}
  }}
",
        root.display()
    );
    nginx_with(folder.path(), &server)
}

/// nginx as one process on this `http` section.
pub(crate) fn nginx_with(folder: &Path, http: &str) -> Command {
    let path = folder.display();
    let config = format!(
        "daemon off;
master_process off;
pid {path}/pid;
error_log {path}/error.log;
worker_rlimit_nofile 65535;
events {{ worker_connections 20000; }}
http {{
  access_log off;
  client_body_temp_path {path}/body;
  proxy_temp_path {path}/proxy;
  fastcgi_temp_path {path}/fastcgi;
  uwsgi_temp_path {path}/uwsgi;
  scgi_temp_path {path}/scgi;
  client_max_body_size 0;
  client_body_buffer_size 2m;
  keepalive_requests 1000000000;
  keepalive_timeout 1h;
{http}}}
"
    );
    let file = folder.join("nginx.conf");
    fs::write(&file, config).expect("a configuration of nginx");
    let mut nginx = Command::new("nginx");
    nginx.arg("-p").arg(folder).arg("-c").arg(file);
    nginx
}

/// A server in this process, on a thread of its own.
fn grpc() -> SocketAddr {
    let (tell, told) = mpsc::channel();
    let serve = move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        runtime.expect("a runtime").block_on(async {
            let socket = TcpListener::bind("127.0.0.1:0").expect("a free port");
            socket.set_nonblocking(true).expect("a socket");
            tell.send(socket.local_addr().expect("an address"))
                .expect("somebody who waits");
            let socket = tokio::net::TcpListener::from_std(socket).expect("a socket");
            axum::serve(socket, Router::new().fallback(call)).await
        })
    };
    std::thread::Builder::new()
        .name("grpc".to_owned())
        .spawn(serve)
        .expect("a thread");
    told.recv().expect("an address")
}

async fn call(request: Request) -> Response<Body> {
    let is_export = request.uri().path().ends_with("/Export");
    let mut body = request.into_body();
    while let Some(Ok(_)) = body.frame().await {}
    let message = if is_export { EMPTY } else { MESSAGE };
    let trailers = HeaderMap::from_iter([(
        header::HeaderName::from_static("grpc-status"),
        HeaderValue::from_static("0"),
    )]);
    let body =
        Full::new(bytes::Bytes::from_static(message)).with_trailers(async { Some(Ok::<_, Infallible>(trailers)) });
    let mut response = Response::new(Body::new(body));
    let content_type = HeaderValue::from_static("application/grpc");
    response.headers_mut().insert(header::CONTENT_TYPE, content_type);
    response
}
