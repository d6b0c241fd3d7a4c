//! The proxies that are measured, each a process on the proxies' core.

use std::cell::RefCell;
use std::fs::{self, File};
use std::net::{SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use tempfile::TempDir;
use testbed::{Port, http, wait::until};

use crate::machine::{CpuTime, first_line, on_the_measured_core};
use crate::rig::{Rig, nginx_with};

/// How long a process must have done next to nothing to be at rest.
const REST: Duration = Duration::from_millis(300);
/// Next to nothing: more than a thread takes that gets up each 10 ms, as pingora's does for its timers.
const NOTHING: Duration = Duration::from_millis(3);

/// A process that ends with its value.
#[derive(Debug)]
pub(crate) struct Running {
    child: Child,
}

/// A proxy that runs.
#[derive(Debug)]
pub(crate) struct Contender {
    pub(crate) name: &'static str,
    pub(crate) address: SocketAddr,
    pub(crate) version: String,
    running: Running,
    used: RefCell<CpuTime>,
    admin: Option<Port>,
    /// Kept for as long as it runs.
    ports: Vec<Port>,
    _folder: TempDir,
}

/// sidelog, and what differs from its defaults.
#[derive(Debug, Clone)]
pub(crate) struct Sidelog {
    pub(crate) name: &'static str,
    /// The share of spans.
    pub(crate) spans: f64,
    /// Whether nats-server and the collector are there.
    pub(crate) healthy: bool,
    /// Further variables.
    pub(crate) settings: Vec<(String, String)>,
}

impl Running {
    /// Starts a command with its output in a file `<name>.log` of the temporary folder.
    pub(crate) fn start(name: &str, command: &mut Command) -> Self {
        let log = std::env::temp_dir().join(format!("sidelog-cost-{name}.log"));
        let open = || File::create(&log).unwrap_or_else(|error| panic!("{}: {error}", log.display()));
        command.stdin(Stdio::null()).stdout(open()).stderr(open());
        let child = command.spawn().unwrap_or_else(|error| panic!("{command:?}: {error}"));
        Self { child }
    }

    /// Waits until it can be connected to.
    pub(crate) async fn answers_at(&self, address: SocketAddr) {
        until("a server of the rig answers", async || {
            TcpStream::connect(address).is_ok()
        })
        .await;
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // It fails for one that has ended.
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

impl Contender {
    /// Bare pingora.
    pub(crate) async fn bare(upstream: SocketAddr) -> Self {
        let start = |_: &Path, address: SocketAddr| {
            let mut bare = Command::new(built("bare/bare"));
            bare.args([address.to_string(), upstream.to_string()]);
            bare
        };
        Self::start("bare pingora", "0.9.1".to_owned(), start).await
    }

    /// Envoy without log and traces, where it is installed.
    pub(crate) async fn envoy(upstream: SocketAddr) -> Option<Self> {
        let envoy = Path::new(env!("CARGO_MANIFEST_DIR")).join("../.ci/bin/envoy");
        let found = envoy.exists().then_some(envoy)?;
        // `<path>  version: <commit>/<version>/…`
        let told = first_line(Command::new(&found).arg("--version"));
        let version = told
            .split("version: ")
            .nth(1)
            .and_then(|version| version.split('/').nth(1));
        let version = version.unwrap_or(&told).to_owned();
        let start = |folder: &Path, address: SocketAddr| {
            let config = folder.join("envoy.json");
            fs::write(&config, envoy_config(address, upstream)).expect("a configuration of Envoy");
            let mut envoy = Command::new(&found);
            envoy.args([
                "--concurrency",
                "1",
                "--disable-hot-restart",
                "--log-level",
                "warn",
                "-c",
            ]);
            envoy.arg(config);
            envoy
        };
        Some(Self::start("Envoy, plain", version, start).await)
    }

    /// nginx without a log.
    pub(crate) async fn nginx(upstream: SocketAddr) -> Self {
        let start = |folder: &Path, address: SocketAddr| {
            let http = format!(
                "  upstream service {{ server {upstream}; keepalive 128; keepalive_requests 1000000000; }}
  server {{
    listen {address};
    location / {{ proxy_pass http://service; proxy_http_version 1.1; proxy_set_header Connection \"\"; }}
  }}
"
            );
            nginx_with(folder, &http)
        };
        let version = first_line(Command::new("nginx").arg("-v"));
        Self::start("nginx, no log", version, start).await
    }

    /// HAProxy without a log, where it is installed.
    pub(crate) async fn haproxy(upstream: SocketAddr) -> Option<Self> {
        let version = first_line(Command::new("haproxy").arg("-v"));
        if version == "?" {
            return None;
        }
        let start = |folder: &Path, address: SocketAddr| {
            let config = folder.join("haproxy.cfg");
            let text = format!(
                "global\n  nbthread 1\ndefaults\n  mode http\n  http-reuse always\n  timeout connect 5s\n  timeout client 60s\n  \
                 timeout server 60s\nlisten cost\n  bind {address}\n  server service {upstream}\n"
            );
            fs::write(&config, text).expect("a configuration of HAProxy");
            let mut haproxy = Command::new("haproxy");
            haproxy.arg("-f").arg(config);
            haproxy
        };
        Some(Self::start("HAProxy, no log", version, start).await)
    }

    /// sidelog.
    pub(crate) async fn sidelog(rig: &Rig, upstream: SocketAddr, what: &Sidelog) -> Self {
        let (admin, nobody) = (Port::reserve(), Rig::nobody());
        let (nats, collector) = if what.healthy {
            (rig.nats.url(), format!("http://{}", rig.grpc))
        } else {
            let nobody = nobody.address();
            (format!("nats://{nobody}"), format!("http://{nobody}"))
        };
        let start = |folder: &Path, address: SocketAddr| {
            let other = std::env::var_os("SIDELOG_PROGRAMS").map(|folder| Path::new(&folder).join("sidelog-proxy"));
            let mut sidelog = Command::new(other.unwrap_or_else(|| built("release/sidelog-proxy")));
            sidelog
                .env_clear()
                .env("TMPDIR", folder)
                .env("PORT", address.port().to_string())
                .env("SIDELOG_ADMIN__ADDRESS", admin.address().to_string())
                .env("UPSTREAM_URL", format!("http://{upstream}"))
                .env("NATS_URL", nats)
                .env("SIDELOG_NATS__STREAM_MAX_BYTES", "64MiB")
                .env("SIDELOG_TRACES__ENDPOINT", collector)
                .env("SIDELOG_TRACES__PROTOCOL", "grpc")
                .env("SIDELOG_TRACES__SAMPLE", what.spans.to_string())
                .envs(what.settings.iter().map(|(name, value)| (name, value)));
            sidelog
        };
        let mut contender = Self::start(what.name, env!("CARGO_PKG_VERSION").to_owned(), start).await;
        contender.running.answers_at(admin.address()).await;
        contender.admin = Some(admin);
        contender.ports.push(nobody);
        contender
    }

    async fn start(name: &'static str, version: String, command: impl FnOnce(&Path, SocketAddr) -> Command) -> Self {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let port = Port::reserve();
        let mut command = command(folder.path(), port.address());
        let running = on_the_measured_core(|| Running::start(name, &mut command));
        running.answers_at(port.address()).await;
        Self {
            name,
            address: port.address(),
            version,
            running,
            used: RefCell::default(),
            admin: None,
            ports: vec![port],
            _folder: folder,
        }
    }

    /// Asks it to end, and waits until it has.
    pub(crate) fn end(mut self) {
        let child = &mut self.running.child;
        kill_process(Pid::from_child(child), Signal::TERM).expect("a running process");
        let status = child.wait().expect("a process of this one");
        assert!(status.success(), "{} ended with {status}", self.name);
    }

    /// The CPU time that it has used.
    pub(crate) fn cpu(&self) -> Duration {
        self.used.borrow_mut().of(self.id())
    }

    /// Its process id.
    pub(crate) fn id(&self) -> u32 {
        self.running.child.id()
    }

    /// Waits until it is at rest: what a load left is shipped.
    pub(crate) async fn rests(&self) {
        let mut before = (self.cpu(), Instant::now());
        until("a proxy comes to rest", async || {
            let (cpu, now) = (self.cpu(), Instant::now());
            if cpu - before.0 > NOTHING {
                before = (cpu, now);
            }
            now - before.1 > REST
        })
        .await;
    }

    /// The samples of a metric, each with its labels; none of a proxy without metrics.
    pub(crate) async fn metric(&self, name: &str) -> Vec<(String, f64)> {
        let Some(admin) = &self.admin else { return Vec::new() };
        let url = format!("http://{}/metrics", admin.address());
        let page = http::client().get(url).send().await.expect("the metrics");
        let page = page.text().await.expect("the metrics");
        let samples = page.lines().filter_map(|line| {
            let (labels, value) = line.strip_prefix(name)?.rsplit_once(' ')?;
            let is_of_name = labels.is_empty() || labels.starts_with('{');
            is_of_name.then(|| Some((labels.to_owned(), value.parse().ok()?)))?
        });
        samples.collect()
    }
}

/// A program of ours in a folder of the target folder.
fn built(name: &str) -> PathBuf {
    let bench = std::env::current_exe().expect("the bench's own path");
    // target/<profile>/deps/cost-<hash>
    let target = bench.ancestors().nth(3).expect("a bench lies in target/<profile>/deps");
    let path = target.join(name);
    assert!(path.exists(), "{} is missing: run `make bench`", path.display());
    path
}

fn envoy_config(address: SocketAddr, upstream: SocketAddr) -> String {
    let at = |address: SocketAddr| serde_json::json!({"socket_address": {"address": address.ip().to_string(), "port_value": address.port()}});
    let router = "type.googleapis.com/envoy.extensions.filters.http.router.v3.Router";
    let manager =
        "type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager";
    serde_json::json!({"static_resources": {
        "listeners": [{
            "address": at(address),
            "filter_chains": [{"filters": [{
                "name": "http",
                "typed_config": {
                    "@type": manager,
                    "stat_prefix": "cost",
                    "http_filters": [{"name": "router", "typed_config": {"@type": router}}],
                    "route_config": {"virtual_hosts": [{
                        "name": "all",
                        "domains": ["*"],
                        "routes": [{"match": {"prefix": "/"}, "route": {"cluster": "service"}}],
                    }]},
                },
            }]}],
        }],
        "clusters": [{
            "name": "service",
            "type": "STATIC",
            "load_assignment": {
                "cluster_name": "service",
                "endpoints": [{"lb_endpoints": [{"endpoint": {"address": at(upstream)}}]}],
            },
        }],
    }})
    .to_string()
}
