//! The load: wrk and, for HTTP/2, h2load as fast as the proxy answers; [`paced`](crate::paced) at a fixed rate.

use std::fs;
use std::net::SocketAddr;
use std::process::Command;
use std::time::{Duration, Instant};

use tempfile::TempDir;

use crate::paced::{self, Pace};

/// Connections at once, unless a load says otherwise.
pub(crate) const CONNECTIONS: usize = 32;
/// A body to send, of about 1 KB.
pub(crate) const ORDER: &str = include_str!("order.json");

/// Stands in a body for a number, another one in each request.
pub(crate) const NUMBER: &str = "@number@";

/// Requests of one kind.
#[derive(Debug, Clone)]
pub(crate) struct Load {
    pub(crate) path: String,
    /// [`NUMBER`] is only for loads by HTTP/1.1 without a rate.
    pub(crate) body: Option<String>,
    pub(crate) headers: Vec<(String, String)>,
    pub(crate) protocol: Protocol,
    pub(crate) connections: usize,
    /// Requests a second of all connections together, by HTTP/1.1 only; as many as are answered where there is none.
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
        match (self.protocol, self.rate) {
            (Protocol::Http1, Some(rate)) => self.paced(rate, to, time),
            (Protocol::Http1, None) => self.wrk(to, time, &folder),
            (Protocol::Http2, _) => self.h2load(to, time, &folder),
        }
    }

    fn paced(&self, rate: u32, to: SocketAddr, time: Duration) -> Ran {
        let connections = u32::try_from(self.connections).expect("few connections");
        let step = Duration::from_secs(1) / rate;
        let pace = Pace {
            period: step * connections,
            step: if self.together { Duration::ZERO } else { step },
            time,
        };
        let begun = Instant::now();
        let mut outcome = paced::run(to, self.request(to).as_bytes(), self.connections, pace);
        outcome.times.sort_by(f64::total_cmp);
        Ran {
            answered: outcome.times.len() as u64,
            seconds: begun.elapsed().as_secs_f64(),
            failed: outcome.failed,
            times: outcome.times,
        }
    }

    /// By HTTP/1.1.
    fn request(&self, to: SocketAddr) -> String {
        let mut fields = vec![("host".to_owned(), to.to_string())];
        fields.extend(self.headers.clone());
        fields.extend(
            self.body
                .iter()
                .map(|body| ("content-length".to_owned(), body.len().to_string())),
        );
        let fields: String = fields
            .iter()
            .map(|(name, value)| format!("{name}: {value}\r\n"))
            .collect();
        let method = if self.body.is_some() { "POST" } else { "GET" };
        let body = self.body.as_deref().unwrap_or_default();
        format!("{method} {} HTTP/1.1\r\n{fields}\r\n{body}", self.path)
    }

    fn wrk(&self, to: SocketAddr, time: Duration, folder: &TempDir) -> Ran {
        let mut wrk = Command::new("wrk");
        wrk.args(["-t1", "--timeout", "10s", "-c", &self.connections.to_string()]);
        wrk.args(["-d", &format!("{}s", time.as_secs().max(1))]);
        for (name, value) in &self.headers {
            wrk.args(["-H", &format!("{name}: {value}")]);
        }
        if let Some(body) = &self.body {
            let (script, file) = (folder.path().join("post.lua"), folder.path().join("body"));
            fs::write(&file, body).expect("a body for wrk");
            // From a file, as Lua reads a line's end in its own long strings as `\n`, however it is written.
            let mut text = format!(
                "wrk.method = 'POST'\nwrk.body = io.open('{}', 'rb'):read('*a')\n",
                file.display()
            );
            if body.contains(NUMBER) {
                text.push_str(&format!(
                    "local number = 0
                    request = function()
                      number = number + 1
                      return wrk.format(nil, nil, nil, (wrk.body:gsub('{NUMBER}', string.format('%08d', number))))
                    end\n"
                ));
            }
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
        h2load.args(["-m", "8", "-c", &self.connections.to_string()]);
        h2load.args(["-D", &time.as_secs().max(1).to_string()]);
        for (name, value) in &self.headers {
            h2load.args(["-H", &format!("{name}: {value}")]);
        }
        if let Some(body) = &self.body {
            let file = folder.path().join("body");
            fs::write(&file, body).expect("a body for h2load");
            h2load.arg("-d").arg(file);
        }
        let begun = Instant::now();
        let output = output_of(h2load.arg(format!("http://{to}{}", self.path)));
        let seconds = begun.elapsed().as_secs_f64();
        let answered = number_before(&output, " 2xx").unwrap_or_else(|| panic!("h2load says something else: {output}"));
        let failed = [" failed", " 3xx", " 4xx", " 5xx"].map(|what| number_before(&output, what).unwrap_or(0));
        Ran {
            answered,
            seconds,
            failed: failed.iter().sum(),
            times: Vec::new(),
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
