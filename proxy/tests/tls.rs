//! TLS listeners, as curl and openssl see them.

#![expect(
    clippy::unwrap_used,
    reason = "a test stops at the first thing that is not as it expects"
)]

use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;
use std::process::Output;
use std::time::Duration;

use serde_json::Value;
use testbed::{Authority, CertificateFiles, NatsServer, Sidelog, SidelogCommand, Upstream, wait};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::process::Command;

const SOON: Duration = Duration::from_secs(10);

/// The proxy with a TLS listener in front of `upstream`.
fn proxy(upstream: &str, certificate: &CertificateFiles) -> SidelogCommand {
    Sidelog::proxy()
        .env("UPSTREAM_URL", upstream)
        .env("SIDELOG_LISTENERS__0__TLS__CERT_FILE", certificate.cert.display())
        .env("SIDELOG_LISTENERS__0__TLS__KEY_FILE", certificate.key.display())
        .env("SIDELOG_LISTENERS__0__FORWARDED", "true")
        .env("SIDELOG_TRACES__ENABLED", "false")
}

fn https(proxy: &Sidelog) -> String {
    proxy.url().replace("http://", "https://")
}

async fn curl(arguments: &[&str]) -> Output {
    let curl = Command::new("curl").args(["-sS", "-m", "20"]).args(arguments).output();
    curl.await.unwrap()
}

/// What the upstream saw of a request by curl that trusts `authority`.
async fn seen(authority: &Authority, arguments: &[&str]) -> Value {
    let ca = authority.ca();
    let output = curl(&[&["--cacert", ca.to_str().unwrap()], arguments].concat()).await;
    assert!(output.status.success(), "{arguments:?}: {output:?}");
    serde_json::from_slice(&output.stdout).unwrap()
}

async fn without_request(proxy: &Sidelog, reason: &str) -> f64 {
    let reason = format!("reason=\"{reason}\"");
    proxy.metric("sidelog_heads_refused_total", &reason).await
}

#[tokio::test]
async fn alpn_settles_http2_and_http1_and_the_upstream_is_told_https() {
    let (authority, upstream) = (Authority::new(), Upstream::start());
    let certificate = authority.sign("server", &["localhost", "127.0.0.1"]);
    let proxy = proxy(&upstream.url(), &certificate).start().await;
    for (options, shown) in [
        (&["--http1.1"][..], "1.1"),
        (&["--http2"], "2"),
        (&["--tls-max", "1.2"], "2"),
    ] {
        let (ca, url) = (authority.ca(), https(&proxy));
        let arguments = ["--cacert", ca.to_str().unwrap(), "-w", "\n%{http_version}", &url];
        let output = curl(&[&arguments, options].concat()).await;
        let text = String::from_utf8(output.stdout).unwrap();
        let (body, version) = text.rsplit_once('\n').unwrap();
        assert_eq!(version, shown, "{options:?}");
        let seen: Value = serde_json::from_str(body).unwrap();
        assert_eq!(seen["headers"]["x-forwarded-proto"][0], "https", "{options:?}");
        assert_eq!(seen["version"], "HTTP/1.1", "{options:?}");
    }
    // curl offers by ALPN what it is told to speak.
    let seen = seen(&authority, &["--http1.0", &https(&proxy)]).await;
    assert_eq!(seen["method"], "GET");
}

#[tokio::test]
async fn records_say_https() {
    let (nats, authority, upstream) = (NatsServer::start().await, Authority::new(), Upstream::start());
    let certificate = authority.sign("server", &["127.0.0.1"]);
    let proxy = proxy(&upstream.url(), &certificate)
        .env("NATS_URL", nats.url())
        .start()
        .await;
    seen(&authority, &[&https(&proxy)]).await;
    let context = nats.jetstream().await;
    let record = wait::obtain("there is a record", async || {
        let message = context.get_stream("logs").await.ok()?.get_raw_message(1).await.ok()?;
        let line = sidelog_record::frame::lines(&message.payload).next()?;
        serde_json::from_slice::<Value>(line).ok()
    })
    .await;
    assert_eq!(record["url.scheme"], "https");
    assert_eq!(record["network.protocol.version"], "2");
}

#[tokio::test]
async fn clients_are_asked_for_a_certificate_where_set() {
    let (authority, other, upstream) = (Authority::new(), Authority::new(), Upstream::start());
    let certificate = authority.sign("server", &["127.0.0.1"]);
    let (good, bad) = (authority.sign("client", &["client"]), other.sign("client", &["client"]));
    for (client_auth, anonymous_passes) in [("required", false), ("optional", true)] {
        let proxy = proxy(&upstream.url(), &certificate)
            .env("SIDELOG_LISTENERS__0__TLS__CLIENT_CA_FILE", authority.ca().display())
            .env("SIDELOG_LISTENERS__0__TLS__CLIENT_AUTH", client_auth)
            .start()
            .await;
        let (ca, url) = (authority.ca(), https(&proxy));
        let by = async |arguments: &[&str]| {
            let arguments = [&["--cacert", ca.to_str().unwrap(), &url], arguments].concat();
            curl(&arguments).await.status.success()
        };
        let own = |files: &CertificateFiles| [files.cert.display().to_string(), files.key.display().to_string()];
        let [cert, key] = own(&good);
        assert!(by(&["--cert", &cert, "--key", &key]).await, "{client_auth}");
        let [cert, key] = own(&bad);
        assert!(!by(&["--cert", &cert, "--key", &key]).await, "{client_auth}");
        assert_eq!(by(&[]).await, anonymous_passes, "{client_auth}");
        let failed = if anonymous_passes { 1.0 } else { 2.0 };
        wait::until("failed handshakes are counted", async || {
            without_request(&proxy, "tls_handshake").await >= failed
        })
        .await;
        assert!(proxy.output().contains("TLS handshake failed"), "{}", proxy.output());
    }
}

/// The subject's names of the certificate that is shown, as openssl prints them.
async fn shown_names(proxy: &Sidelog) -> String {
    let address = proxy.url().replace("http://", "");
    let script =
        format!("openssl s_client -connect {address} </dev/null 2>/dev/null | openssl x509 -noout -ext subjectAltName");
    let output = Command::new("sh").args(["-c", &script]).output().await.unwrap();
    String::from_utf8(output.stdout).unwrap()
}

fn put(folder: &Path, files: &CertificateFiles) {
    fs::create_dir(folder).unwrap();
    fs::copy(&files.cert, folder.join("tls.crt")).unwrap();
    fs::copy(&files.key, folder.join("tls.key")).unwrap();
}

fn turn(link: &Path, target: &Path) {
    let new = link.with_file_name("turning");
    symlink(target, &new).unwrap();
    fs::rename(new, link).unwrap();
}

#[tokio::test]
async fn a_renewed_certificate_is_shown_and_open_connections_stay() {
    let (authority, upstream) = (Authority::new(), Upstream::start());
    // As Kubernetes lays a secret out: files are links into a folder that is a link.
    let secret = tempfile::tempdir().unwrap();
    let at = |name: &str| secret.path().join(name);
    put(&at("first"), &authority.sign("first", &["first.test", "127.0.0.1"]));
    put(&at("second"), &authority.sign("second", &["second.test", "127.0.0.1"]));
    turn(&at("..data"), &at("first"));
    symlink("..data/tls.crt", at("tls.crt")).unwrap();
    symlink("..data/tls.key", at("tls.key")).unwrap();
    let files = CertificateFiles {
        cert: at("tls.crt"),
        key: at("tls.key"),
    };
    let proxy = proxy(&upstream.url(), &files).start().await;
    let client = reqwest::Client::builder()
        .tls_certs_only([reqwest::Certificate::from_pem(&fs::read(authority.ca()).unwrap()).unwrap()])
        .timeout(SOON)
        .build()
        .unwrap();
    let held = client.get(https(&proxy)).header("x-answer-held", "1").send();
    let held = tokio::spawn(held);
    upstream.holds(1).await;
    assert!(shown_names(&proxy).await.contains("first.test"));

    turn(&at("..data"), &at("second"));
    wait::until("the new certificate is shown", async || {
        shown_names(&proxy).await.contains("second.test")
    })
    .await;
    upstream.release();
    assert_eq!(held.await.unwrap().unwrap().status(), 200);

    fs::write(
        at("second").join("tls.key"),
        "-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n",
    )
    .unwrap();
    wait::until("the bad key is named", async || {
        let output = proxy.output();
        output.contains("can't be used; the old ones stay in force") && output.contains("listeners.0.tls.key_file")
    })
    .await;
    assert!(shown_names(&proxy).await.contains("second.test"));
}

#[tokio::test]
async fn what_is_wrong_with_a_file_is_told_at_the_start_and_by_check() {
    let (one, other) = (Authority::new(), Authority::new());
    let (server, stranger) = (one.sign("server", &["a.test"]), other.sign("server", &["a.test"]));
    let with = |cert: &Path, key: &Path| CertificateFiles {
        cert: cert.to_owned(),
        key: key.to_owned(),
    };
    for (files, part) in [
        (
            with(Path::new("/missing.pem"), &server.key),
            "listeners.0.tls.cert_file: failed to read /missing.pem",
        ),
        (
            with(&server.key, &server.key),
            "listeners.0.tls.cert_file: there is no certificate (PEM) in ",
        ),
        (with(&server.cert, &stranger.key), "is not the key of "),
    ] {
        let started = proxy("http://127.0.0.1:1", &files).finish().await;
        assert!(started.code == Some(1) && started.output.contains(part), "{started:?}");
        let checked = proxy("http://127.0.0.1:1", &files).arg("check").finish().await;
        assert!(checked.code == Some(2) && checked.output.contains(part), "{checked:?}");
        assert_eq!(checked.output.lines().count(), 1, "{checked:?}");
    }
    let good = proxy("http://127.0.0.1:1", &server).arg("check").finish().await;
    assert_eq!(good.code, Some(0), "{good:?}");
}

#[tokio::test]
async fn http_on_a_tls_port_is_told_so_and_tls_on_a_cleartext_port_is_closed() {
    let (authority, upstream) = (Authority::new(), Upstream::start());
    let certificate = authority.sign("server", &["127.0.0.1"]);
    let secure = proxy(&upstream.url(), &certificate).start().await;
    let output = curl(&["-w", "%{http_code}", &secure.url()]).await;
    let text = String::from_utf8(output.stdout).unwrap();
    assert_eq!(text, "this port speaks TLS: write https://\r\n400");
    wait::until("it is counted", async || {
        without_request(&secure, "cleartext").await >= 1.0
    })
    .await;

    let clear = Sidelog::proxy()
        .env("UPSTREAM_URL", upstream.url())
        .env("SIDELOG_TRACES__ENABLED", "false")
        .start()
        .await;
    assert!(!curl(&[&https(&clear)]).await.status.success());
    wait::until("it is counted", async || without_request(&clear, "tls").await >= 1.0).await;
    assert!(upstream.received().is_empty());
}

#[tokio::test]
async fn who_agrees_on_http2_and_speaks_something_else_is_counted() {
    let (authority, upstream) = (Authority::new(), Upstream::start());
    let certificate = authority.sign("server", &["127.0.0.1"]);
    let proxy = proxy(&upstream.url(), &certificate).start().await;
    let address = proxy.url().replace("http://", "");
    let script = format!(
        "printf 'GET / HTTP/1.1\\r\\nHost: a\\r\\n\\r\\n' | openssl s_client -connect {address} -alpn h2 -quiet -no_ign_eof"
    );
    Command::new("sh").args(["-c", &script]).output().await.unwrap();
    wait::until("it is counted", async || without_request(&proxy, "http2").await >= 1.0).await;
    assert!(upstream.received().is_empty());
}

#[tokio::test]
async fn a_handshake_that_does_not_end_is_closed_after_the_header_timeout() {
    let (authority, upstream) = (Authority::new(), Upstream::start());
    let certificate = authority.sign("server", &["127.0.0.1"]);
    let proxy = proxy(&upstream.url(), &certificate)
        .env("SIDELOG_LIMITS__HEADER_TIMEOUT", "300ms")
        .start()
        .await;
    for sent in [&b""[..], b"\x16\x03\x01"] {
        let mut client = TcpStream::connect(proxy.addresses()[0]).await.unwrap();
        client.write_all(sent).await.unwrap();
        let closed = tokio::time::timeout(SOON, client.read(&mut [0; 64])).await.unwrap();
        assert!(matches!(closed, Ok(0) | Err(_)), "{closed:?}");
    }
    wait::until("they are counted", async || {
        without_request(&proxy, "timeout").await >= 2.0
    })
    .await;
    // A client that did its handshake and then says nothing is closed, too.
    let seen = seen(&authority, &[&https(&proxy)]).await;
    assert_eq!(seen["method"], "GET");
}

#[tokio::test]
async fn an_idle_tls_connection_does_not_hold_up_the_end() {
    let (authority, upstream) = (Authority::new(), Upstream::start());
    let certificate = authority.sign("server", &["127.0.0.1"]);
    let mut proxy = proxy(&upstream.url(), &certificate).start().await;
    let address = proxy.url().replace("http://", "");
    let mut silent = Command::new("openssl")
        .args(["s_client", "-connect", &address, "-quiet"])
        .stdin(std::process::Stdio::piped())
        .stderr(std::process::Stdio::null())
        .kill_on_drop(true)
        .spawn()
        .unwrap();
    wait::until("the connection is open", async || {
        proxy.metric("sidelog_connections_open", "").await >= 1.0
    })
    .await;
    proxy.terminate();
    assert!(proxy.exit_status(Duration::from_secs(5)).await.success());
    silent.kill().await.unwrap();
}
