//! The load: wrk as fast as the proxy answers, h2load at a fixed rate and for HTTP/2.

use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use tempfile::TempDir;

/// Connections at once, unless a load says otherwise.
pub(crate) const CONNECTIONS: usize = 32;
/// A body to send, of about 1 KB.
pub(crate) const ORDER: &str = include_str!("order.json");

/// Requests of one kind.
#[derive(Debug, Clone)]
pub(crate) struct Load {
    pub(crate) path: String,
    pub(crate) body: Option<String>,
    pub(crate) headers: Vec<(String, String)>,
    pub(crate) protocol: Protocol,
    pub(crate) connections: usize,
    /// Requests a second of all connections together; as many as are answered where there is none.
    pub(crate) rate: Option<u32>,
    /// With a rate: all connections ask at the same instant, instead of one after the other.
    pub(crate) together: bool,
}

/// What is spoken, with the proxy and behind it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Protocol {
    /// HTTP/1.1.
    Http1,
    /// HTTP/2 without TLS, eight requests at once on each connection.
    Http2,
}

/// What came of a load.
#[derive(Debug)]
pub(crate) struct Ran {
    pub(crate) answered: u64,
    pub(crate) seconds: f64,
    /// Requests that failed, or were not answered 2xx.
    pub(crate) failed: u64,
    /// The time of each request, in seconds, sorted; only of loads with a rate.
    pub(crate) times: Vec<f64>,
}

impl Load {
    /// GETs of `path` by HTTP/1.1.
    pub(crate) fn get(path: &str) -> Self {
        Self {
            path: path.to_owned(),
            body: None,
            headers: Vec::new(),
            protocol: Protocol::Http1,
            connections: CONNECTIONS,
            rate: None,
            together: false,
        }
    }

    /// POSTs of this JSON.
    pub(crate) fn post(path: &str, body: &str) -> Self {
        Self {
            body: Some(body.to_owned()),
            headers: vec![("content-type".to_owned(), "application/json".to_owned())],
            ..Self::get(path)
        }
    }

    /// Sends it to this address for so long, and waits for the end.
    pub(crate) fn run(&self, to: SocketAddr, time: Duration) -> Ran {
        let folder = tempfile::tempdir().expect("a temporary folder");
        if self.protocol == Protocol::Http1 && self.rate.is_none() {
            self.wrk(to, time, &folder)
        } else {
            self.h2load(to, time, &folder)
        }
    }

    fn wrk(&self, to: SocketAddr, time: Duration, folder: &TempDir) -> Ran {
        let mut wrk = Command::new("wrk");
        wrk.args(["-t1", "--timeout", "10s", "-c", &self.connections.to_string()]);
        wrk.args(["-d", &format!("{}s", time.as_secs().max(1))]);
        for (name, value) in &self.headers {
            wrk.args(["-H", &format!("{name}: {value}")]);
        }
        if let Some(body) = &self.body {
            let script = folder.path().join("post.lua");
            let text = format!("wrk.method = 'POST'\nwrk.body = [==[{body}]==]\n");
            fs::write(&script, text).expect("a script for wrk");
            wrk.arg("-s").arg(script);
        }
        let output = output_of(wrk.arg(format!("http://{to}{}", self.path)));
        let (answered, seconds) = number_before(&output, " requests in ")
            .zip(between(&output, " requests in ", ", ").and_then(seconds))
            .unwrap_or_else(|| panic!("wrk says something else: {output}"));
        let refused = between(&output, "Non-2xx or 3xx responses: ", "\n").and_then(|value| value.parse().ok());
        let broken: u64 = between(&output, "Socket errors: ", "\n").map_or(0, |errors| {
            let counts = errors.split([' ', ',']).filter_map(|word| word.parse::<u64>().ok());
            counts.sum()
        });
        Ran {
            answered,
            seconds,
            failed: refused.unwrap_or(0) + broken,
            times: Vec::new(),
        }
    }

    fn h2load(&self, to: SocketAddr, time: Duration, folder: &TempDir) -> Ran {
        let mut h2load = Command::new("h2load");
        h2load.args(["-c", &self.connections.to_string()]);
        let seconds = time.as_secs().max(1);
        match self.rate {
            // A connection each millisecond: who begins together asks together.
            Some(rate) if !self.together => {
                h2load.args(["-r", "1", "--rate-period", "1ms"]);
                h2load.args(["-n", &(u64::from(rate) * seconds).to_string(), "-N", "10s"]);
            }
            _ => {
                h2load.args(["-D", &seconds.to_string()]);
            }
        }
        match self.protocol {
            Protocol::Http1 => h2load.arg("--h1"),
            Protocol::Http2 => h2load.args(["-m", if self.rate.is_some() { "1" } else { "8" }]),
        };
        for (name, value) in &self.headers {
            h2load.args(["-H", &format!("{name}: {value}")]);
        }
        if let Some(body) = &self.body {
            let file = folder.path().join("body");
            fs::write(&file, body).expect("a body for h2load");
            h2load.arg("-d").arg(file);
        }
        let times = self.rate.map(|rate| {
            let log = folder.path().join("times");
            let connections = u32::try_from(self.connections).expect("few connections");
            h2load.args(["--rps", &(f64::from(rate) / f64::from(connections)).to_string()]);
            h2load.arg("--log-file").arg(&log);
            log
        });
        let begun = Instant::now();
        let output = output_of(h2load.arg(format!("http://{to}{}", self.path)));
        let seconds = begun.elapsed().as_secs_f64();
        let answered = number_before(&output, " 2xx").unwrap_or_else(|| panic!("h2load says something else: {output}"));
        let failed = [" failed", " 3xx", " 4xx", " 5xx"].map(|what| number_before(&output, what).unwrap_or(0));
        Ran {
            answered,
            seconds,
            failed: failed.iter().sum(),
            times: times.map(times_in).unwrap_or_default(),
        }
    }
}

impl Ran {
    /// The time that this share of the requests stayed below, in milliseconds.
    pub(crate) fn quantile(&self, share: f64) -> f64 {
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_precision_loss,
            clippy::cast_sign_loss,
            reason = "a place in a list"
        )]
        let place = (self.times.len() as f64 * share) as usize;
        let time = self.times.get(place.min(self.times.len().saturating_sub(1)));
        time.expect("a load with a rate") * 1e3
    }
}

/// The third column of h2load's log: microseconds.
fn times_in(log: PathBuf) -> Vec<f64> {
    let log = read(&log);
    let micros = log
        .lines()
        .filter_map(|line| line.split('\t').nth(2)?.parse::<f64>().ok());
    let mut times: Vec<f64> = micros.map(|micros| micros / 1e6).collect();
    times.sort_by(f64::total_cmp);
    times
}

fn read(path: &Path) -> String {
    fs::read_to_string(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

fn output_of(command: &mut Command) -> String {
    let output = command.output().unwrap_or_else(|error| panic!("{command:?}: {error}"));
    let text = String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned();
    assert!(output.status.success(), "{command:?}: {text}");
    text
}

fn between<'a>(text: &'a str, before: &str, after: &str) -> Option<&'a str> {
    let (_, rest) = text.split_once(before)?;
    Some(rest.split_once(after)?.0)
}

fn number_before(text: &str, word: &str) -> Option<u64> {
    let (before, _) = text.split_once(word)?;
    before.rsplit([' ', '\n', ',']).next()?.parse().ok()
}

/// `3.00s`, `1.01m`.
fn seconds(text: &str) -> Option<f64> {
    let (number, unit) = [("ms", 1e-3), ("s", 1.0), ("m", 60.0)]
        .iter()
        .find_map(|(suffix, unit)| Some((text.strip_suffix(suffix)?, unit)))?;
    Some(number.parse::<f64>().ok()? * unit)
}
