//! nats-server with JetStream.

use std::fs;

use rustix::process::Signal;
use tempfile::TempDir;

use crate::{
    Port, http,
    process::{Process, command},
    tools::tool,
    wait::{PATIENCE, until},
};

/// A nats-server with JetStream on a file store, which keeps its ports and its store when it is started again.
#[derive(Debug)]
pub struct NatsServer {
    process: Process,
    client_port: Port,
    monitoring_port: Port,
    http: reqwest::Client,
    folder: TempDir,
}

impl NatsServer {
    /// Starts a server that anyone may use.
    ///
    /// # Panics
    /// When it doesn't start.
    pub async fn start() -> Self {
        Self::with_config("").await
    }

    /// Starts a server whose configuration is ours followed by `config` (nats-server's own syntax): accounts,
    /// `authorization`, `tls`, `max_payload`, limits. A key that ours has too replaces it.
    ///
    /// # Panics
    /// When it doesn't start.
    pub async fn with_config(config: &str) -> Self {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let (client_port, monitoring_port) = (Port::reserve(), Port::reserve());
        write_config(&folder, &client_port, &monitoring_port, config);
        let mut server = Self {
            process: launch(&folder),
            client_port,
            monitoring_port,
            http: http::client(),
            folder,
        };
        server.ready().await;
        server
    }

    /// Has another configuration behind ours from the next [`restart`](Self::restart) on.
    ///
    /// # Panics
    /// When it can't be written.
    pub fn configure(&mut self, config: &str) {
        write_config(&self.folder, &self.client_port, &self.monitoring_port, config);
    }

    /// `nats://127.0.0.1:<port>`.
    #[must_use]
    pub fn url(&self) -> String {
        format!("nats://{}", self.client_port.address())
    }

    /// A client without credentials.
    ///
    /// # Panics
    /// When it can't connect.
    pub async fn client(&self) -> async_nats::Client {
        async_nats::connect(self.url()).await.expect("a NATS client")
    }

    /// JetStream by a client without credentials.
    ///
    /// # Panics
    /// When it can't connect.
    pub async fn jetstream(&self) -> async_nats::jetstream::Context {
        async_nats::jetstream::new(self.client().await)
    }

    /// A monitoring page, such as `/connz` or `/jsz?streams=true`.
    ///
    /// # Panics
    /// When the server doesn't answer.
    pub async fn monitoring(&self, page: &str) -> serde_json::Value {
        http::json(&self.http, &self.monitoring_url(page)).await
    }

    /// Ends it with SIGKILL.
    pub fn kill(&mut self) {
        self.process.kill();
    }

    /// Ends it with SIGTERM, in order, and waits for the end.
    ///
    /// # Panics
    /// When it doesn't end.
    pub async fn stop(&mut self) {
        self.process.signal(Signal::TERM);
        self.process.end(PATIENCE).await;
    }

    /// Starts it again at the same ports, with the same store; kills it before if it runs.
    ///
    /// # Panics
    /// When it doesn't start.
    pub async fn restart(&mut self) {
        self.process.kill();
        self.process = launch(&self.folder);
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

    /// Its process id.
    #[must_use]
    pub fn id(&self) -> u32 {
        self.process.id()
    }

    /// What it wrote so far.
    #[must_use]
    pub fn output(&self) -> String {
        self.process.output()
    }

    fn monitoring_url(&self, page: &str) -> String {
        format!("http://{}{page}", self.monitoring_port.address())
    }

    async fn ready(&mut self) {
        let url = self.monitoring_url("/healthz");
        until("nats-server is healthy", async || {
            self.process.assert_running();
            http::is_ok(&self.http, &url).await
        })
        .await;
    }
}

fn write_config(folder: &TempDir, client_port: &Port, monitoring_port: &Port, config: &str) {
    let text = format!(
        "listen: \"{}\"\nhttp: \"{}\"\njetstream {{\n  store_dir: \"{}\"\n  max_file_store: 1GB\n  max_memory_store: 256MB\n}}\n{config}\n",
        client_port.address(),
        monitoring_port.address(),
        folder.path().join("store").display(),
    );
    fs::write(folder.path().join("nats.conf"), text).expect("the configuration is written");
}

fn launch(folder: &TempDir) -> Process {
    let mut nats = command(tool("nats-server"));
    nats.arg("--config").arg(folder.path().join("nats.conf"));
    let output = folder.path().join("output");
    Process::start("nats-server", nats, &output)
}
