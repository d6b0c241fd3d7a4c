//! VictoriaLogs: a store that takes Loki's push protocol.

use rustix::process::Signal;
use serde_json::Value;
use tempfile::TempDir;

use crate::{
    Port, http,
    process::{Process, command},
    tools::tool,
    wait::{PATIENCE, until},
};

/// A VictoriaLogs that keeps its port and its storage when it is started again.
///
/// It answers 204 before entries are on disk: one that is killed loses what it took in the last second.
#[derive(Debug)]
pub struct VictoriaLogs {
    process: Process,
    port: Port,
    http: reqwest::Client,
    folder: TempDir,
}

impl VictoriaLogs {
    /// Starts one, empty.
    ///
    /// # Panics
    /// When it doesn't start.
    pub async fn start() -> Self {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let port = Port::reserve();
        let mut store = Self {
            process: launch(&folder, &port),
            port,
            http: http::client(),
            folder,
        };
        store.ready().await;
        store
    }

    /// Where it takes pushes as Loki does, keeping each line as it is.
    #[must_use]
    pub fn push_url(&self) -> String {
        self.url("/insert/loki/api/v1/push?disable_message_parsing=1")
    }

    /// The entries that a LogsQL query finds, each an object of strings: `_time`, `_msg` (the line), `_stream`, labels and
    /// metadata. What was answered with 204 before is found.
    ///
    /// # Panics
    /// When the store doesn't answer.
    pub async fn query(&self, logsql: &str) -> Vec<Value> {
        let flush = self.url("/internal/force_flush");
        let flushed = http::is_ok(&self.http, &flush).await;
        assert!(flushed, "{flush} is not answered");
        let answer = self
            .http
            .post(self.url("/select/logsql/query"))
            .header("content-type", "application/x-www-form-urlencoded")
            .body(format!("query={}", percent_encoded(logsql)))
            .send()
            .await
            .expect("an answer of VictoriaLogs");
        let status = answer.status();
        let text = answer.text().await.expect("the rest of the answer");
        assert_eq!(status, reqwest::StatusCode::OK, "{logsql}: {text}");
        text.lines()
            .map(|line| serde_json::from_str(line).unwrap_or_else(|error| panic!("{error}: {line}")))
            .collect()
    }

    /// The lines (`_msg`) that a LogsQL query finds.
    ///
    /// # Panics
    /// When the store doesn't answer.
    pub async fn lines(&self, logsql: &str) -> Vec<String> {
        self.query(logsql)
            .await
            .iter()
            .map(|entry| entry["_msg"].as_str().unwrap_or_default().to_owned())
            .collect()
    }

    /// How many entries it holds in all.
    ///
    /// # Panics
    /// When the store doesn't answer.
    pub async fn count(&self) -> usize {
        let answer = self.query("* | stats count() entries").await;
        answer
            .first()
            .and_then(|entry| entry["entries"].as_str()?.parse().ok())
            .unwrap_or_else(|| panic!("no count: {answer:?}"))
    }

    /// Ends it with SIGKILL.
    pub fn kill(&mut self) {
        self.process.kill();
    }

    /// Ends it with SIGTERM, when all it took is on disk, and waits for the end.
    ///
    /// # Panics
    /// When it doesn't end.
    pub async fn stop(&mut self) {
        self.process.signal(Signal::TERM);
        self.process.end(PATIENCE).await;
    }

    /// Starts it again at the same port, with the same storage; kills it before if it runs.
    ///
    /// # Panics
    /// When it doesn't start.
    pub async fn restart(&mut self) {
        self.process.kill();
        self.process = launch(&self.folder, &self.port);
        self.ready().await;
    }

    /// Stops it in mid-air (SIGSTOP): connections stay open, and nobody answers.
    pub fn freeze(&mut self) {
        self.process.freeze();
    }

    /// Lets it go on after [`freeze`](Self::freeze).
    pub fn thaw(&mut self) {
        self.process.signal(Signal::CONT);
    }

    fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.port.address())
    }

    async fn ready(&mut self) {
        let url = self.url("/health");
        until("VictoriaLogs is healthy", async || {
            self.process.assert_running();
            http::is_ok(&self.http, &url).await
        })
        .await;
    }
}

fn launch(folder: &TempDir, port: &Port) -> Process {
    let mut store = command(tool("victoria-logs"));
    store
        .arg(format!("-httpListenAddr={}", port.address()))
        .arg(format!("-storageDataPath={}", folder.path().join("storage").display()))
        .args(["-retentionPeriod=100y", "-futureRetention=100y"])
        .args(["-inmemoryDataFlushInterval=1s", "-memory.allowedBytes=256MB"]);
    Process::start("victoria-logs", store, &folder.path().join("output"))
}

/// A form value (`application/x-www-form-urlencoded`).
fn percent_encoded(text: &str) -> String {
    text.bytes()
        .map(|byte| match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' => char::from(byte).to_string(),
            _ => format!("%{byte:02X}"),
        })
        .collect()
}
