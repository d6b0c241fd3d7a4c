//! Settings that change while the proxy runs: in force at once, whole or not at all, and never for half of an exchange.

#![expect(
    clippy::unwrap_used,
    reason = "a test stops at the first thing that is not as it expects"
)]

use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use reqwest::Client;
use serde_json::Value;
use tempfile::TempDir;
use testbed::{NatsServer, Sidelog, Upstream, http, wait};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

/// What every request sends.
const BODY: &str = r#"{"one":"1","two":"2"}"#;

/// A proxy with a settings file, between two upstreams and NATS.
struct Stand {
    folder: TempDir,
    nats: NatsServer,
    one: Upstream,
    two: Upstream,
    proxy: Sidelog,
}

impl Stand {
    /// `file` is where the proxy reads what `place` puts there.
    async fn start(file: &str, place: impl FnOnce(&Path, &Upstream, &Upstream)) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let (nats, one, two) = (NatsServer::start().await, Upstream::start(), Upstream::start());
        place(folder.path(), &one, &two);
        let proxy = Sidelog::proxy()
            .env("SIDELOG_CONFIG", folder.path().join(file).display())
            .env("NATS_URL", nats.url())
            .env("SIDELOG_TRACES__ENABLED", "false")
            .start()
            .await;
        Self {
            folder,
            nats,
            one,
            two,
            proxy,
        }
    }

    /// With the settings that send everything to the first upstream.
    async fn plain() -> Self {
        Self::start("proxy.toml", |folder, one, two| {
            fs::write(folder.join("proxy.toml"), first(one, two)).unwrap();
        })
        .await
    }

    fn file(&self) -> PathBuf {
        self.folder.path().join("proxy.toml")
    }

    fn first(&self) -> String {
        first(&self.one, &self.two)
    }

    fn second(&self) -> String {
        second(&self.one, &self.two)
    }

    /// Puts another file in the place of the one there is, as a whole.
    fn replace(&self, text: &str) {
        let next = self.folder.path().join("next.toml");
        fs::write(&next, text).unwrap();
        fs::rename(next, self.file()).unwrap();
    }

    async fn reloads(&self, result: &str) -> f64 {
        let label = format!("result=\"{result}\"");
        self.proxy.metric("sidelog_config_reloads_total", &label).await
    }

    /// Has the file replaced and read, which is to end so.
    async fn reload(&mut self, text: &str, result: &str) {
        let before = self.reloads(result).await;
        self.replace(text);
        self.proxy.hang_up();
        wait::until("the settings are reloaded", async || {
            self.reloads(result).await > before
        })
        .await;
    }

    async fn gauge(&self, name: &str) -> f64 {
        self.proxy.metric(&format!("sidelog_config_{name}"), "").await
    }

    async fn only_one_generation_is_in_use(&self) {
        wait::until("old generations are freed", async || {
            self.gauge("generations_in_use").await <= 1.0
        })
        .await;
    }

    /// Which upstream a request for `path` reached.
    async fn reaches(&self, path: &str) -> &'static str {
        let before = self.two.received().len();
        assert_eq!(post(&http::client(), &self.proxy, path).await, 200);
        if self.two.received().len() > before {
            "two"
        } else {
            "one"
        }
    }

    /// The records for which `wanted` says so, once there are so many.
    async fn records(&self, count: usize, wanted: impl Fn(&Value) -> bool) -> Vec<Value> {
        let context = self.nats.jetstream().await;
        let (mut records, mut next) = (Vec::new(), 1);
        wait::until("the records are in the stream", async || {
            let Ok(stream) = context.get_stream("logs").await else {
                return false;
            };
            while let Ok(message) = stream.get_raw_message(next).await {
                next += 1;
                let lines = sidelog_record::frame::lines(&message.payload);
                let all = lines.map(|line| serde_json::from_slice::<Value>(line).unwrap());
                records.extend(all.filter(&wanted));
            }
            records.len() >= count
        })
        .await;
        records
    }
}

/// Everything goes to the first upstream, by a route of its own, and `one` is secret.
fn first(one: &Upstream, _: &Upstream) -> String {
    let upstream = one.url();
    format!(
        "[redaction]\njson = [\"one\"]\n[[routes]]\npath = \"/{{first}}\"\nupstream = \"{upstream}\"\n\
         [limits]\nheader_fields_max = 100\n"
    )
}

/// Everything goes to the second upstream, by another route, and `two` is secret.
fn second(_: &Upstream, two: &Upstream) -> String {
    let upstream = two.url();
    format!(
        "[redaction]\njson = [\"two\"]\n[[routes]]\npath = \"/{{second}}\"\nupstream = \"{upstream}\"\n\
         [limits]\nheader_fields_max = 5\n"
    )
}

async fn post(client: &Client, proxy: &Sidelog, path: &str) -> u16 {
    let request = client
        .post(format!("{}{path}", proxy.url()))
        .header("content-type", "application/json");
    let answer = request.body(BODY).send().await.unwrap();
    let status = answer.status().as_u16();
    answer.bytes().await.unwrap();
    status
}

fn is_for(path: &'static str) -> impl Fn(&Value) -> bool {
    move |record| record["url.path"] == path
}

/// Checks that a record is of one generation: its route, its upstream and its redaction.
fn is_of_one_generation(record: &Value, stand: &Stand) {
    let (route, upstream, body) = match record["http.route"].as_str().unwrap() {
        "/{first}" => ("/{first}", stand.one.address(), r#"{"one":"REDACTED","two":"2"}"#),
        _ => ("/{second}", stand.two.address(), r#"{"one":"1","two":"REDACTED"}"#),
    };
    assert_eq!(record["http.route"], route);
    assert_eq!(record["upstream.address"], upstream.to_string(), "{record}");
    assert_eq!(record["http.request.body.content"], body, "{record}");
}

/// A request on a kept connection, with so many fields; the status of its answer.
async fn ask(client: &mut TcpStream, fields: usize) -> String {
    let more: String = (1..fields).map(|n| format!("x-{n}: 1\r\n")).collect();
    let request = format!("GET /kept HTTP/1.1\r\nhost: a.test\r\nx-answer-body: whole\r\n{more}\r\n");
    client.write_all(request.as_bytes()).await.unwrap();
    let mut answer = Vec::new();
    loop {
        let n = client.read_buf(&mut answer).await.unwrap();
        let text = String::from_utf8_lossy(&answer);
        if n == 0 || text.ends_with("whole") {
            return text.get(9..12).unwrap_or_default().to_owned();
        }
    }
}

#[tokio::test]
async fn what_is_reloaded_is_in_force_for_the_next_exchange() {
    let mut stand = Stand::plain().await;
    let mut kept = TcpStream::connect(stand.proxy.addresses()[0]).await.unwrap();
    assert_eq!(ask(&mut kept, 20).await, "200");
    assert_eq!(stand.reaches("/before").await, "one");

    stand.reload(&stand.second(), "applied").await;
    assert_eq!(
        ask(&mut kept, 20).await,
        "431",
        "on a connection that was open before, too"
    );
    assert_eq!(stand.reaches("/after").await, "two");

    let quiet = format!("{}[capture]\nenabled = false\n", stand.second());
    stand.reload(&quiet, "applied").await;
    assert_eq!(stand.reaches("/quiet").await, "two");
    stand.reload(&stand.first(), "applied").await;
    assert_eq!(stand.reaches("/last").await, "one");
    let posted = |record: &Value| record["http.request.method"] == "POST";
    for record in stand.records(3, posted).await {
        assert_ne!(record["url.path"], "/quiet");
        is_of_one_generation(&record, &stand);
    }
    assert_eq!(stand.gauge("generation").await, 4.0);
    stand.only_one_generation_is_in_use().await;
}

#[tokio::test]
async fn an_exchange_in_flight_ends_under_the_generation_it_began_under() {
    let mut stand = Stand::plain().await;
    let held = [http::client(), http::h2c_client()].map(|client| {
        let request = client
            .post(format!("{}/held", stand.proxy.url()))
            .header("content-type", "application/json")
            .header("x-answer-held", "1");
        tokio::spawn(request.body(BODY).send())
    });
    stand.one.holds(2).await;
    let silent = format!("{}[capture]\nenabled = false\n", stand.second());
    stand.reload(&silent, "applied").await;
    assert_eq!(stand.reaches("/meanwhile").await, "two");
    assert_eq!(stand.gauge("generations_in_use").await, 2.0);
    stand.one.release();
    for answer in held {
        assert_eq!(answer.await.unwrap().unwrap().status(), 200);
    }
    stand.only_one_generation_is_in_use().await;
    for record in stand.records(2, is_for("/held")).await {
        assert_eq!(record["http.route"], "/{first}");
        is_of_one_generation(&record, &stand);
    }
}

#[tokio::test]
async fn bad_settings_are_refused_and_named_and_the_old_ones_stay() {
    let small = "[queue]\nmax_bytes = \"300KiB\"\nbodies_max_bytes = \"200KiB\"\n";
    let mut stand = Stand::start("proxy.toml", |folder, one, two| {
        fs::write(folder.join("proxy.toml"), first(one, two) + small).unwrap();
    })
    .await;
    let good = stand.first() + small;
    let upstream = stand.two.url().replace("http:", "https:");
    let no_file =
        format!("[[routes]]\npath = \"/*\"\nupstream = \"{upstream}\"\nupstream_tls.ca_file = \"/nowhere.pem\"\n");
    for (bad, told) in [
        ("[capture\n", "proxy.toml:1: not TOML"),
        ("[capture]\nbod_max = \"1KiB\"\n", "proxy.toml:2: capture.bod_max: "),
        ("[limits]\nheader_max = \"1B\"\n", "proxy.toml:2: limits.header_max: "),
        (no_file.as_str(), "routes.0.upstream_tls.ca_file: "),
        // What would fit a queue that only a restart makes larger.
        ("[capture]\nbody_max = \"200KiB\"\n", "can't change without a restart"),
    ] {
        assert_eq!(stand.gauge("last_reload_successful").await, 1.0);
        stand.reload(bad, "refused").await;
        assert_eq!(stand.gauge("last_reload_successful").await, 0.0, "{bad}");
        let log = stand.proxy.output();
        let line = log.lines().rfind(|line| line.contains("settings refused"));
        assert!(line.is_some_and(|line| line.contains(told)), "{told}: {log}");
        assert_eq!(stand.reaches("/still").await, "one");
        stand.reload(&good, "applied").await;
    }
    assert_eq!(stand.gauge("last_reload_successful").await, 1.0);
    stand.only_one_generation_is_in_use().await;
}

#[tokio::test]
async fn a_changed_file_is_picked_up_also_behind_the_links_of_a_config_map() {
    let stand = Stand::start("proxy.toml", |folder, one, two| {
        for (name, text) in [("..1", first(one, two)), ("..2", second(one, two))] {
            fs::create_dir(folder.join(name)).unwrap();
            fs::write(folder.join(name).join("proxy.toml"), text).unwrap();
        }
        symlink("..1", folder.join("..data")).unwrap();
        symlink("..data/proxy.toml", folder.join("proxy.toml")).unwrap();
    })
    .await;
    assert_eq!(stand.reaches("/before").await, "one");
    let folder = stand.folder.path();
    symlink("..2", folder.join("..data_tmp")).unwrap();
    fs::rename(folder.join("..data_tmp"), folder.join("..data")).unwrap();
    wait::until("the link is followed", async || stand.reloads("applied").await >= 1.0).await;
    assert_eq!(stand.reaches("/after").await, "two");
    fs::write(folder.join("..2/proxy.toml"), stand.first()).unwrap();
    wait::until("the file is read again", async || stand.reloads("applied").await >= 2.0).await;
    assert_eq!(stand.reaches("/last").await, "one");
    assert_eq!(stand.reloads("refused").await, 0.0);
}

#[tokio::test]
async fn what_needs_a_restart_is_named_and_the_rest_is_applied() {
    let mut stand = Stand::plain().await;
    let text = format!(
        "{}[nats]\nstream = \"others\"\n[frame]\nlinger = \"50ms\"\n",
        stand.second()
    );
    stand.reload(&text, "applied").await;
    assert_eq!(stand.gauge("keys_waiting").await, 2.0);
    wait::until("it is told", async || {
        let log = stand.proxy.output();
        log.contains("restart to apply them") && log.contains("frame.linger, nats.stream")
    })
    .await;
    assert_eq!(stand.reaches("/after").await, "two");
    stand.reload(&stand.first(), "applied").await;
    assert_eq!(stand.gauge("keys_waiting").await, 0.0);
}

#[tokio::test]
async fn a_hang_up_without_a_file_ends_nothing() {
    let upstream = Upstream::start();
    let mut proxy = Sidelog::proxy()
        .env("UPSTREAM_URL", upstream.url())
        .env("NATS_URL", "nats://127.0.0.1:1")
        .start()
        .await;
    proxy.hang_up();
    wait::until("the settings are reloaded", async || {
        proxy.metric("sidelog_config_reloads_total", "applied").await >= 1.0
    })
    .await;
    assert_eq!(post(&http::client(), &proxy, "/").await, 200);
    proxy.terminate();
    assert!(proxy.exit_status(Duration::from_secs(25)).await.success());
}

/// Asks without a pause until `done`; every request is served. Gives back how many there were.
async fn load(client: Client, url: String, done: Arc<AtomicBool>) -> usize {
    let mut count = 0;
    while !done.load(Ordering::Acquire) {
        let request = client.post(&url).header("content-type", "application/json");
        let answer = request.body(BODY).header("x-answer-body", "-").send().await.unwrap();
        assert_eq!(answer.status(), 200);
        assert_eq!(answer.bytes().await.unwrap(), "-");
        count += 1;
    }
    count
}

fn open_files(proxy: &Sidelog) -> usize {
    fs::read_dir(format!("/proc/{}/fd", proxy.id())).unwrap().count()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_thousand_reloads_under_load_fail_no_request_and_leave_nothing_behind() {
    let mut stand = Stand::plain().await;
    let (first, second) = (stand.first(), stand.second().replace("header_fields_max = 5", ""));
    let done = Arc::<AtomicBool>::default();
    let url = format!("{}/loaded", stand.proxy.url());
    let clients = [http::client(), http::h2c_client()];
    let clients = clients.map(|client| tokio::spawn(load(client, url.clone(), Arc::clone(&done))));
    let mut early = (0, 0);
    for number in 1..=1_000 {
        stand
            .reload(if number % 2 == 0 { &first } else { &second }, "applied")
            .await;
        if number == 100 {
            early = (stand.proxy.resident_bytes(), open_files(&stand.proxy));
        }
    }
    let late = (stand.proxy.resident_bytes(), open_files(&stand.proxy));
    done.store(true, Ordering::Release);
    let mut count = 0;
    for client in clients {
        count += client.await.unwrap();
    }
    assert_eq!(stand.reloads("refused").await, 0.0);
    stand.only_one_generation_is_in_use().await;
    assert!(late.0 < early.0 + (16 << 20), "memory from {} to {}", early.0, late.0);
    assert!(late.1 <= early.1 + 8, "files from {} to {}", early.1, late.1);
    let records = stand.records(count, is_for("/loaded")).await;
    assert_eq!(records.len(), count);
    records.iter().for_each(|record| is_of_one_generation(record, &stand));
    let of_first = records
        .iter()
        .filter(|record| record["http.route"] == "/{first}")
        .count();
    assert!(of_first > 100 && count - of_first > 100, "{of_first} of {count}");
}
