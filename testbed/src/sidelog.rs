//! Our own binaries, as an operator runs them: environment in, exit status and log lines out.

use std::{fs, net::SocketAddr, process::ExitStatus, time::Duration};

use rustix::process::Signal;
use tempfile::TempDir;

use crate::{
    http,
    process::{Process, command},
    tools::own,
    wait::{PATIENCE, obtain, until},
};

/// One of our programs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Program {
    /// `sidelog-proxy`.
    Proxy,
    /// `sidelog-consumer`.
    Consumer,
    /// `example-upstream`.
    ExampleUpstream,
}

/// What to run: a program, its arguments, and its whole environment.
#[derive(Debug)]
pub struct SidelogCommand {
    program: Program,
    arguments: Vec<String>,
    environment: Vec<(String, String)>,
}

/// A program that runs.
#[derive(Debug)]
pub struct Sidelog {
    process: Process,
    addresses: Vec<SocketAddr>,
    admin: Option<SocketAddr>,
    http: reqwest::Client,
    folder: TempDir,
}

/// A program that ended by itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finished {
    /// Its exit status.
    pub code: Option<i32>,
    /// What it wrote, to stdout and stderr.
    pub output: String,
}

impl Program {
    const fn name(self) -> &'static str {
        match self {
            Self::Proxy => "sidelog-proxy",
            Self::Consumer => "sidelog-consumer",
            Self::ExampleUpstream => "example-upstream",
        }
    }

    /// The variables that make it listen at free ports of 127.0.0.1.
    const fn free_ports(self) -> &'static [(&'static str, &'static str)] {
        match self {
            Self::Proxy => &[("PORT", "0"), ("SIDELOG_ADMIN__ADDRESS", "127.0.0.1:0")],
            Self::Consumer => &[("SIDELOG_ADMIN__ADDRESS", "127.0.0.1:0")],
            Self::ExampleUpstream => &[("LISTEN", "127.0.0.1:0")],
        }
    }
}

impl SidelogCommand {
    /// Runs `program` at free ports, with nothing of the tests' environment. Its temporary folder is one of its own.
    #[must_use]
    pub fn new(program: Program) -> Self {
        let free_ports = program.free_ports().iter();
        Self {
            program,
            arguments: Vec::new(),
            environment: free_ports
                .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()))
                .collect(),
        }
    }

    /// Sets a variable; the last one of a name counts.
    #[must_use]
    pub fn env(mut self, name: &str, value: impl ToString) -> Self {
        self.environment.push((name.to_owned(), value.to_string()));
        self
    }

    /// Takes away a variable, also one of those that [`new`](Self::new) sets.
    #[must_use]
    pub fn without_env(mut self, name: &str) -> Self {
        self.environment.retain(|(known, _)| known != name);
        self
    }

    /// Adds an argument.
    #[must_use]
    pub fn arg(mut self, argument: impl ToString) -> Self {
        self.arguments.push(argument.to_string());
        self
    }

    /// Starts it, and waits until it has told its addresses and says that it is ready.
    ///
    /// # Panics
    /// When it isn't built, ends, or doesn't become ready.
    pub async fn start(self) -> Sidelog {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let mut process = self.launch(&folder);
        let (addresses, admin) = obtain("the program tells its addresses", async || {
            process.assert_running();
            addresses(self.program, &process.output())
        })
        .await;
        let mut sidelog = Sidelog {
            process,
            addresses,
            admin,
            http: http::client(),
            folder,
        };
        sidelog.ready().await;
        sidelog
    }

    /// Starts it, and waits until it ends by itself.
    ///
    /// # Panics
    /// When it isn't built, or doesn't end.
    pub async fn finish(self) -> Finished {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let mut process = self.launch(&folder);
        let status = process.end(PATIENCE).await;
        Finished {
            code: status.code(),
            output: process.output(),
        }
    }

    fn launch(&self, folder: &TempDir) -> Process {
        let temporary = folder.path().join("tmp");
        fs::create_dir(&temporary).expect("a folder in a temporary folder");
        let mut program = command(own(self.program.name()));
        program
            .current_dir(folder.path())
            .args(&self.arguments)
            .env("TMPDIR", temporary)
            .env("RUST_BACKTRACE", "1")
            .envs(self.environment.iter().map(|(name, value)| (name, value)));
        Process::start(self.program.name(), program, &folder.path().join("output"))
    }
}

impl Sidelog {
    /// The proxy on one listener at a free port.
    #[must_use]
    pub fn proxy() -> SidelogCommand {
        SidelogCommand::new(Program::Proxy)
    }

    /// The consumer.
    #[must_use]
    pub fn consumer() -> SidelogCommand {
        SidelogCommand::new(Program::Consumer)
    }

    /// The example service at a free port.
    #[must_use]
    pub fn example_upstream() -> SidelogCommand {
        SidelogCommand::new(Program::ExampleUpstream)
    }

    /// The addresses it listens at for traffic, in the order of its log.
    #[must_use]
    pub fn addresses(&self) -> &[SocketAddr] {
        &self.addresses
    }

    /// `http://127.0.0.1:<port>` of the first listener.
    ///
    /// # Panics
    /// For a program that has none.
    #[must_use]
    pub fn url(&self) -> String {
        let first = self.addresses.first().expect("a program that listens for traffic");
        format!("http://127.0.0.1:{}", first.port())
    }

    /// `http://127.0.0.1:<port>` of the admin endpoints.
    ///
    /// # Panics
    /// For a program that has none.
    #[must_use]
    pub fn admin_url(&self) -> String {
        let admin = self.admin.expect("a program with admin endpoints");
        format!("http://127.0.0.1:{}", admin.port())
    }

    /// The page `/metrics`.
    ///
    /// # Panics
    /// When it isn't answered.
    pub async fn metrics(&self) -> String {
        let answer = self.http.get(format!("{}/metrics", self.admin_url())).send().await;
        let answer = answer
            .and_then(reqwest::Response::error_for_status)
            .expect("the metrics");
        answer.text().await.expect("the whole of the metrics")
    }

    /// The sum of a metric's samples, over all its label sets that hold `labels` (`reason="queue"`, or nothing); 0 if there are
    /// none.
    ///
    /// # Panics
    /// When the metrics can't be read.
    pub async fn metric(&self, name: &str, labels: &str) -> f64 {
        sum(&self.metrics().await, name, labels)
    }

    /// Its process id.
    #[must_use]
    pub fn id(&self) -> u32 {
        self.process.id()
    }

    /// The bytes of memory it holds (`VmRSS`).
    ///
    /// # Panics
    /// When it has ended.
    #[must_use]
    pub fn resident_bytes(&self) -> u64 {
        let status = fs::read_to_string(format!("/proc/{}/status", self.id())).expect("the state of a process");
        let line = status
            .lines()
            .find_map(|line| line.strip_prefix("VmRSS:"))
            .expect("a running process");
        let kib: u64 = line.trim().trim_end_matches(" kB").parse().expect("a number of kB");
        kib * 1024
    }

    /// How often its threads have gone to sleep of their own accord so far.
    ///
    /// # Panics
    /// When it has ended.
    #[must_use]
    pub fn naps(&self) -> u64 {
        let threads = fs::read_dir(format!("/proc/{}/task", self.id())).expect("the threads of a process");
        // A thread may end meanwhile.
        let states = threads.filter_map(|thread| fs::read_to_string(thread.ok()?.path().join("status")).ok());
        let naps = states.filter_map(|state| {
            let count = state
                .lines()
                .find_map(|line| line.strip_prefix("voluntary_ctxt_switches:"))?;
            count.trim().parse::<u64>().ok()
        });
        naps.sum()
    }

    /// Its temporary folder (`TMPDIR`).
    #[must_use]
    pub fn temporary_folder(&self) -> std::path::PathBuf {
        self.folder.path().join("tmp")
    }

    /// What it wrote so far, to stdout and stderr.
    #[must_use]
    pub fn output(&self) -> String {
        self.process.output()
    }

    /// Sends SIGTERM.
    pub fn terminate(&mut self) {
        self.process.signal(Signal::TERM);
    }

    /// Sends SIGINT.
    pub fn interrupt(&mut self) {
        self.process.signal(Signal::INT);
    }

    /// Sends SIGHUP.
    pub fn hang_up(&mut self) {
        self.process.signal(Signal::HUP);
    }

    /// Ends it with SIGKILL.
    pub fn kill(&mut self) {
        self.process.kill();
    }

    /// Whether it still runs.
    pub fn is_running(&mut self) -> bool {
        self.process.ended().is_none()
    }

    /// Waits until it has ended.
    ///
    /// # Panics
    /// When that takes longer than `patience`.
    pub async fn exit_status(&mut self, patience: Duration) -> ExitStatus {
        self.process.end(patience).await
    }

    async fn ready(&mut self) {
        let Some(admin) = self.admin else { return };
        let url = format!("http://127.0.0.1:{}/readyz", admin.port());
        until("the program is ready", async || {
            self.process.assert_running();
            http::is_ok(&self.http, &url).await
        })
        .await;
    }
}

/// The addresses for traffic and for the admin endpoints, once the log tells all of them.
fn addresses(program: Program, log: &str) -> Option<(Vec<SocketAddr>, Option<SocketAddr>)> {
    let told = |message: &str, field: &str| -> Vec<SocketAddr> {
        let lines = log.lines().filter(|line| line.contains(message));
        lines.filter_map(|line| address_behind(line, field)).collect()
    };
    match program {
        Program::Proxy => {
            let admin = told(" admin listening", "address=").pop()?;
            let mut traffic = told(" listening", "address=");
            traffic.retain(|address| *address != admin);
            Some((traffic, Some(admin)))
        }
        Program::Consumer => Some((Vec::new(), Some(told(" started", "admin=").pop()?))),
        Program::ExampleUpstream => {
            let traffic = told("listening on ", "http://");
            (!traffic.is_empty()).then_some((traffic, None))
        }
    }
}

fn address_behind(line: &str, field: &str) -> Option<SocketAddr> {
    let (_, value) = line.split_once(field)?;
    value.split_whitespace().next()?.parse().ok()
}

fn sum(metrics: &str, name: &str, labels: &str) -> f64 {
    let samples = metrics.lines().filter_map(|line| {
        let rest = line.strip_prefix(name)?;
        let (set, value) = rest.rsplit_once(' ')?;
        let is_of_name = set.is_empty() || set.starts_with('{');
        (is_of_name && set.contains(labels)).then(|| value.parse::<f64>().ok())?
    });
    samples.sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_proxy_has_told_its_addresses_when_it_has_told_the_admin_one() {
        let listening = "2026-01-31T12:00:00Z  INFO sidelog_proxy: listening address=127.0.0.1:4001\n";
        assert_eq!(addresses(Program::Proxy, listening), None);
        let log =
            format!("{listening}2026-01-31T12:00:00Z  INFO sidelog_proxy: admin listening address=127.0.0.1:4002\n");
        let (traffic, admin) = addresses(Program::Proxy, &log).unwrap();
        assert_eq!(traffic, ["127.0.0.1:4001".parse().unwrap()]);
        assert_eq!(admin, Some("127.0.0.1:4002".parse().unwrap()));
    }

    #[test]
    fn the_samples_of_one_metric_are_added_up() {
        let metrics =
            "# TYPE a counter\na_total{reason=\"x\"} 2\na_total{reason=\"y\"} 3\na_total_more 9\nb 7\n# EOF\n";
        for (name, labels, expected) in [
            ("a_total", "", 5.0),
            ("a_total", "reason=\"y\"", 3.0),
            ("b", "", 7.0),
            ("c", "", 0.0),
        ] {
            assert!(
                (sum(metrics, name, labels) - expected).abs() < f64::EPSILON,
                "{name} {labels}"
            );
        }
    }
}
