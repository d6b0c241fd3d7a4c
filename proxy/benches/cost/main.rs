//! What sidelog costs, beside its peers and a bare pingora, in one run: `make bench`.
//!
//! The proxy that is measured has a core for itself; load, upstream, nats-server and collector share the other. A round is a few
//! seconds of load on each proxy in turn. The cost of a request is the CPU time of the proxy's whole process, until all that
//! the load left is shipped, divided by the requests that were answered; the ratio to another proxy is taken round by
//! round. Records are kept whole: a record or span that was dropped, or a body left out, voids the figure.
//!
//! - `BENCH_ROUNDS=9`, `BENCH_SECONDS=3`: how many rounds, and how long each load.
//! - With the argument `scale` it says instead how the cost grows ([`scale`]): `make bench-scale`.
//! - With the argument `train` it measures nothing, and puts a proxy that takes notes for the compiler under all kinds of load
//!   ([`training`]): `make profile`.
//! - `BENCH_ONLY=get,memory`: parts of it, by the names in [`PARTS`].

#![expect(
    clippy::expect_used,
    clippy::panic,
    clippy::print_stdout,
    reason = "a measurement stops at the first thing that is not as it expects, and prints what it found"
)]

use std::env;
use std::time::Duration;

mod contender;
mod load;
mod machine;
mod paced;
mod parts;
mod rig;
mod rounds;
mod scale;
mod table;
mod training;

use rig::Rig;
use rounds::Plan;

/// The parts, in their order.
const PARTS: [&str; 9] = [
    "get", "post", "large", "anew", "h2c", "grpc", "latency", "memory", "idle",
];

fn main() {
    machine::stay_aside();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    runtime.expect("a runtime").block_on(run());
}

async fn run() {
    let plan = Plan {
        rounds: number("BENCH_ROUNDS", 9),
        time: Duration::from_secs(number("BENCH_SECONDS", 3)),
    };
    let only = env::var("BENCH_ONLY").unwrap_or_default();
    let only: Vec<&str> = only.split(',').filter(|part| !part.is_empty()).collect();
    if let Some(unknown) = only.iter().find(|part| !PARTS.contains(part)) {
        panic!(
            "BENCH_ONLY: there is no part {unknown}; the parts are {}",
            PARTS.join(",")
        );
    }
    let rig = Rig::start().await;
    let is_asked = |what: &str| env::args().any(|argument| argument == what);
    if is_asked("train") {
        return training::run(&rig, plan.time).await;
    }
    println!("{}", machine::describe());
    println!(
        "{} rounds of {} s, {} connections unless said otherwise; the proxy alone on core 0\n",
        plan.rounds,
        plan.time.as_secs(),
        load::CONNECTIONS
    );
    if is_asked("scale") {
        return scale::run(&rig, &plan).await;
    }
    let mut rows = Vec::new();
    for part in PARTS {
        if only.is_empty() || only.contains(&part) {
            rows.extend(parts::run(part, &rig, &plan).await);
        }
    }
    println!("{}", table::head());
    for row in rows {
        println!("{row}");
    }
}

fn number<T: std::str::FromStr>(name: &str, default: T) -> T {
    match env::var(name) {
        Ok(value) => value.parse().unwrap_or_else(|_| panic!("{name}={value} is no number")),
        Err(_) => default,
    }
}
