//! How the cost of a request grows with what a deployment has more of: `make bench-scale`.
//!
//! Each figure is the median of the rounds, of sidelog with everything recorded, beside the first of its line.

use std::fs;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};

use tempfile::TempDir;

use crate::contender::{Contender, Sidelog};
use crate::load::Load;
use crate::parts;
use crate::rig::{BODIES, Rig};
use crate::rounds::{Plan, rounds};
use crate::table::Spread;

/// Measures every dimension, and prints a table for each.
pub(crate) async fn run(rig: &Rig, plan: &Plan) {
    let get = Load::get("/1k");
    let settings = |name: &str, value: usize| vec![(name.to_owned(), value.to_string())];

    let mut table = Table::new("threads that serve, on one core");
    for threads in [1, 2] {
        let contender = start(rig, settings("SIDELOG_RUNTIME__THREADS", threads)).await;
        table.add(&threads.to_string(), contender, &get, plan).await;
    }
    let mut table = Table::new("connections that ask");
    for connections in [1, 10, 100, 1_000] {
        let load = Load {
            connections,
            ..get.clone()
        };
        table
            .add(&connections.to_string(), start(rig, Vec::new()).await, &load, plan)
            .await;
    }
    let mut table = Table::new("idle connections beside 32 that ask");
    for idle in [0, 1_000, 9_000] {
        let contender = start(rig, settings("SIDELOG_LIMITS__CONNECTIONS_MAX", 20_000)).await;
        let idle: Vec<TcpStream> = (0..idle).map(|_| one_that_stays(contender.address)).collect();
        table.add(&idle.len().to_string(), contender, &get, plan).await;
    }
    let mut table = Table::new("bytes of the answer's body, another one each time");
    for (name, bytes) in BODIES {
        let load = Load::get(&format!("/{name}-anew"));
        table
            .add(&bytes.to_string(), start(rig, Vec::new()).await, &load, plan)
            .await;
    }
    let mut table = Table::new("header fields of the request");
    for fields in [5, 20, 50, 100] {
        let headers = (0..fields).map(|number| (format!("x-field-{number}"), format!("value-{number}-0123456789")));
        let load = Load {
            headers: headers.collect(),
            ..get.clone()
        };
        table
            .add(&fields.to_string(), start(rig, Vec::new()).await, &load, plan)
            .await;
    }
    with_files(rig, plan).await;
}

/// What is set in a file: routes, and rules of redaction.
async fn with_files(rig: &Rig, plan: &Plan) {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let mut table = Table::new("routes");
    for routes in [1, 100, 10_000] {
        let route = |number| format!("[[routes]]\npath = \"/api/v{number}/users/{{id}}\"\n");
        let file: String = (0..routes).map(route).collect();
        let contender = start(rig, configured(&folder, &file)).await;
        table.add(&routes.to_string(), contender, &Load::get("/1k"), plan).await;
    }
    let mut table = Table::new("rules of redaction, POST of 1 KB, another one each time");
    for rules in [0, 20, 200] {
        let names: Vec<String> = (0..rules).map(|number| format!("\"internal_{number}\"")).collect();
        let file = format!("[redaction]\njson = [{}]\n", names.join(", "));
        let contender = start(rig, configured(&folder, &file)).await;
        table
            .add(&rules.to_string(), contender, &parts::post_anew(), plan)
            .await;
    }
}

fn configured(folder: &TempDir, text: &str) -> Vec<(String, String)> {
    let file = folder.path().join("proxy.toml");
    fs::write(&file, text).expect("a configuration");
    vec![("SIDELOG_CONFIG".to_owned(), file.display().to_string())]
}

async fn start(rig: &Rig, settings: Vec<(String, String)>) -> Contender {
    let what = Sidelog {
        name: "sidelog",
        spans: 1.0,
        healthy: true,
        settings,
    };
    Contender::sidelog(rig, rig.upstream, &what).await
}

/// A connection that had a request, and has none now.
fn one_that_stays(address: SocketAddr) -> TcpStream {
    let mut connection = TcpStream::connect(address).expect("a connection");
    let request = b"GET /0 HTTP/1.1\r\nhost: a.test\r\n\r\n";
    connection.write_all(request).expect("a request");
    let mut answer = [0; 1024];
    let read = connection.read(&mut answer).expect("an answer");
    assert!(
        answer
            .get(..read)
            .is_some_and(|answer| answer.starts_with(b"HTTP/1.1 200"))
    );
    connection
}

/// One dimension, printed as it is measured.
struct Table {
    first: Option<f64>,
}

impl Table {
    fn new(what: &str) -> Self {
        println!(
            "{what:<40} {:>12} {:>10} {:>22} {:>10}",
            "CPU µs each", "to first", "lowest to highest", "requests/s"
        );
        Self { first: None }
    }

    async fn add(&mut self, value: &str, contender: Contender, load: &Load, plan: &Plan) {
        let all = rounds(&[contender], load, plan).await;
        let [series] = &all[..] else { return };
        assert_eq!(series.failed, 0, "{value}: requests failed");
        let (cost, rate) = (Spread::of(series.cost.clone()), Spread::of(series.rate.clone()));
        let first = *self.first.get_or_insert(cost.median);
        println!(
            "{value:>40} {:>12.1} {:>10.2} {:>22} {:>10.0}",
            cost.median,
            cost.median / first,
            format!("{:.1} to {:.1}", cost.lowest, cost.highest),
            rate.median,
        );
    }
}
