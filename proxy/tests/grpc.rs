//! gRPC by tonic on both sides, over h2c and over TLS.

#![expect(
    clippy::unwrap_used,
    reason = "a test stops at the first thing that is not as it expects"
)]

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use axum::Router;
use futures_util::{Stream, StreamExt, stream};
use testbed::{Authority, Sidelog, SidelogCommand, TlsDoor, Upstream, wait};
use tokio::sync::mpsc;
use tonic::client;
use tonic::server::{Grpc, StreamingService};
use tonic::transport::{Certificate, Channel, ClientTlsConfig, Endpoint};
use tonic::{Code, Request, Response, Status, Streaming};
use tonic_prost::ProstCodec;

/// Longer than the timeouts that the proxy is given.
const IDLE: Duration = Duration::from_millis(1500);

/// What the service saw.
#[derive(Debug, Default)]
struct Seen {
    /// Calls that are held.
    held: AtomicUsize,
    /// Those of them that were given up.
    given_up: AtomicUsize,
    /// Calls with a deadline.
    deadlines: AtomicUsize,
}

/// A call; what it does is in its path.
struct Call {
    path: String,
    seen: Arc<Seen>,
}

type Answers = Pin<Box<dyn Stream<Item = Result<String, Status>> + Send>>;

impl StreamingService<String> for Call {
    type Response = String;
    type ResponseStream = Answers;
    type Future = Pin<Box<dyn Future<Output = Result<Response<Answers>, Status>> + Send>>;

    fn call(&mut self, request: Request<Streaming<String>>) -> Self::Future {
        let (path, seen) = (self.path.clone(), Arc::clone(&self.seen));
        if request.metadata().contains_key("grpc-timeout") {
            seen.deadlines.fetch_add(1, Ordering::AcqRel);
        }
        Box::pin(async move { answer(&path, request.into_inner(), seen).await.map(Response::new) })
    }
}

async fn answer(path: &str, asked: Streaming<String>, seen: Arc<Seen>) -> Result<Answers, Status> {
    match path {
        "/test.Echo/Echo" => Ok(Box::pin(asked)),
        "/test.Echo/Join" => {
            let all: Vec<_> = asked.map(|one| one.unwrap()).collect().await;
            Ok(Box::pin(stream::iter([Ok(all.join("+"))])))
        }
        "/test.Echo/Fail" => {
            let answers = [Ok("one".to_owned()), Err(Status::aborted("midway"))];
            Ok(Box::pin(stream::iter(answers)))
        }
        "/test.Echo/Hold" => {
            seen.held.fetch_add(1, Ordering::AcqRel);
            let held = Held(seen);
            Ok(Box::pin(stream::once(async move {
                let _held = held;
                std::future::pending().await
            })))
        }
        "/test.Echo/Late" => {
            let _held = Held(seen);
            std::future::pending().await
        }
        _ => Err(Status::not_found("no such method")),
    }
}

struct Held(Arc<Seen>);

impl Drop for Held {
    fn drop(&mut self) {
        self.0.given_up.fetch_add(1, Ordering::AcqRel);
    }
}

fn service() -> (Upstream, Arc<Seen>) {
    let seen = Arc::<Seen>::default();
    let of_calls = Arc::clone(&seen);
    let router = Router::new().fallback(async move |request: axum::extract::Request| {
        let call = Call {
            path: request.uri().path().to_owned(),
            seen: of_calls,
        };
        Grpc::new(ProstCodec::<String, String>::default())
            .streaming(call, request)
            .await
    });
    (Upstream::serving(router), seen)
}

/// The proxy, with timeouts that nothing of gRPC may run into.
fn proxy(upstream: &str) -> SidelogCommand {
    Sidelog::proxy()
        .env("UPSTREAM_URL", upstream)
        .env("SIDELOG_TRACES__ENABLED", "false")
        .env("SIDELOG_LIMITS__UPSTREAM_READ_TIMEOUT", "400ms")
        .env("SIDELOG_LIMITS__DOWNSTREAM_READ_TIMEOUT", "400ms")
        .env("SIDELOG_LIMITS__DOWNSTREAM_IDLE_TIMEOUT", "1s")
        .env("SIDELOG_LIMITS__UPSTREAM_IDLE_TIMEOUT", "400ms")
}

fn by_tls(command: SidelogCommand, authority: &Authority) -> SidelogCommand {
    let files = authority.sign("listener", &["localhost"]);
    command
        .env("SIDELOG_LISTENERS__0__TLS__CERT_FILE", files.cert.display())
        .env("SIDELOG_LISTENERS__0__TLS__KEY_FILE", files.key.display())
}

async fn channel(proxy: &Sidelog, authority: Option<&Authority>) -> Channel {
    let endpoint = match authority {
        None => Endpoint::from_shared(proxy.url()).unwrap(),
        Some(authority) => {
            let ca = Certificate::from_pem(std::fs::read(authority.ca()).unwrap());
            let tls = ClientTlsConfig::new().ca_certificate(ca).domain_name("localhost");
            let url = proxy.url().replace("http:", "https:");
            Endpoint::from_shared(url).unwrap().tls_config(tls).unwrap()
        }
    };
    endpoint.connect().await.unwrap()
}

type Answer = Result<Response<Streaming<String>>, Status>;

/// Calls a method with a stream of messages.
async fn call(
    channel: &Channel,
    method: &str,
    request: Request<impl Stream<Item = String> + Send + 'static>,
) -> Answer {
    let mut grpc = client::Grpc::new(channel.clone());
    grpc.ready().await.unwrap();
    let path = format!("/test.Echo/{method}").parse().unwrap();
    grpc.streaming(request, path, ProstCodec::<String, String>::default())
        .await
}

fn says(messages: &[&str]) -> Request<impl Stream<Item = String> + Send + 'static> {
    let messages: Vec<_> = messages.iter().map(|message| (*message).to_owned()).collect();
    Request::new(stream::iter(messages))
}

/// A stream that says what is sent by the sender, for as long as that is there.
fn open() -> (
    mpsc::Sender<String>,
    Request<impl Stream<Item = String> + Send + 'static>,
) {
    let (say, said) = mpsc::channel(1);
    let said = stream::unfold(said, async |mut said: mpsc::Receiver<String>| {
        Some((said.recv().await?, said))
    });
    (say, Request::new(said))
}

async fn everything_passes(channel: &Channel, seen: &Seen) {
    // Unary: a message each way.
    let mut grpc = client::Grpc::new(channel.clone());
    grpc.ready().await.unwrap();
    let codec = ProstCodec::<String, String>::default();
    let echo = "/test.Echo/Echo".parse().unwrap();
    let answer = grpc.unary(Request::new("hello".to_owned()), echo, codec).await.unwrap();
    assert_eq!(answer.into_inner(), "hello");

    // A stream of the client's, and one of the server's.
    let mut joined = call(channel, "Join", says(&["a", "b", "c"]))
        .await
        .unwrap()
        .into_inner();
    assert_eq!(joined.message().await.unwrap().as_deref(), Some("a+b+c"));
    let mut echoed = call(channel, "Echo", says(&["a", "b"])).await.unwrap().into_inner();
    assert_eq!(echoed.message().await.unwrap().as_deref(), Some("a"));
    assert_eq!(echoed.message().await.unwrap().as_deref(), Some("b"));
    assert_eq!(echoed.message().await.unwrap(), None);
    let trailers = echoed.trailers().await.unwrap().unwrap();
    assert_eq!(trailers.get("grpc-status").map(AsRef::as_ref), Some(&b"0"[..]));

    // Both at once, in turn, and silent for longer than any timeout.
    let (say, said) = open();
    say.send("one".to_owned()).await.unwrap();
    let mut both = call(channel, "Echo", said).await.unwrap().into_inner();
    assert_eq!(both.message().await.unwrap().as_deref(), Some("one"));
    tokio::time::sleep(IDLE).await;
    say.send("two".to_owned()).await.unwrap();
    assert_eq!(both.message().await.unwrap().as_deref(), Some("two"));
    drop(say);
    assert_eq!(both.message().await.unwrap(), None);

    // A status in the head (trailers-only), and one in the trailers.
    let refused = call(channel, "Missing", says(&["a"])).await.unwrap_err();
    assert_eq!((refused.code(), refused.message()), (Code::NotFound, "no such method"));
    let mut failing = call(channel, "Fail", says(&[])).await.unwrap().into_inner();
    assert_eq!(failing.message().await.unwrap().as_deref(), Some("one"));
    let failed = failing.message().await.unwrap_err();
    assert_eq!((failed.code(), failed.message()), (Code::Aborted, "midway"));

    // A call that is given up, and one whose deadline passes: the service learns of both.
    let given_up = call(channel, "Hold", says(&["a"])).await.unwrap();
    assert_eq!(seen.held.load(Ordering::Acquire), 1);
    drop(given_up);
    wait::until("the service sees that the call was given up", async || {
        seen.given_up.load(Ordering::Acquire) == 1
    })
    .await;
    let mut late = says(&["a"]);
    late.set_timeout(Duration::from_millis(300));
    let late = call(channel, "Late", late).await.unwrap_err();
    assert!(
        matches!(late.code(), Code::DeadlineExceeded | Code::Cancelled),
        "{late:?}"
    );
    assert_eq!(seen.deadlines.load(Ordering::Acquire), 1);
    wait::until("the service sees that the deadline has passed", async || {
        seen.given_up.load(Ordering::Acquire) == 2
    })
    .await;
}

#[tokio::test]
async fn everything_of_grpc_passes_by_h2c() {
    let (upstream, seen) = service();
    let proxy = proxy(&upstream.url()).start().await;
    everything_passes(&channel(&proxy, None).await, &seen).await;
}

#[tokio::test]
async fn everything_of_grpc_passes_by_tls_to_h2c() {
    let (authority, (upstream, seen)) = (Authority::new(), service());
    let proxy = by_tls(proxy(&upstream.url()), &authority)
        .env("SIDELOG_LISTENERS__0__UPSTREAM_PROTOCOL", "h2")
        .start()
        .await;
    everything_passes(&channel(&proxy, Some(&authority)).await, &seen).await;
}

#[tokio::test]
async fn everything_of_grpc_passes_by_tls_on_both_sides() {
    let (authority, (upstream, seen)) = (Authority::new(), service());
    let files = authority.sign("door", &["127.0.0.1"]);
    let door = TlsDoor::open_speaking(upstream.address(), &files.cert, &files.key, None, &["h2"]);
    let proxy = by_tls(proxy(&format!("https://{}", door.address())), &authority)
        .env("SIDELOG_LISTENERS__0__TLS__CA", authority.ca().display())
        .start()
        .await;
    everything_passes(&channel(&proxy, Some(&authority)).await, &seen).await;
}
