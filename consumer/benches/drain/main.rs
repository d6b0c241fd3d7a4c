//! What a record costs the consumer on its way from JetStream to Loki's protocol, end to end: a million records of 1.5 KB.
//!
//! `make bench-consumer` runs the consumer as it is shipped, with its defaults, alone on the first core; a real nats-server
//! and a store of Loki's protocol that keeps nothing share the others. The stream is filled once, in frames of 64 as a proxy
//! sends them; each round reads all of it by a durable of its own. CPU is that of the consumer's process from its first
//! instruction to its last acknowledgement; memory is the most that was resident (`VmHWM`).

#![expect(
    clippy::expect_used,
    clippy::print_stdout,
    reason = "a measurement stops at the first thing that is not as it needs it, and prints what it found"
)]

mod records;
mod sieve;

use std::fs;
use std::time::{Duration, Instant};

use async_nats::jetstream::{self, Context};
use futures_util::StreamExt;
use rustix::thread::{CpuSet, sched_getaffinity, sched_setaffinity};
use testbed::wait::obtain_within;
use testbed::{NatsServer, Sidelog};

use records::{FRAME, RECORD_BYTES};
use sieve::Sieve;

const RECORDS: usize = 1_000_000;
const ROUNDS: usize = 5;
const PATIENCE: Duration = Duration::from_secs(120);
/// What the kernel counts processor time in (`CLK_TCK`), on every Linux.
const TICKS: f64 = 100.0;
/// Publishes that the server hasn't confirmed yet.
const UNCONFIRMED: usize = 64;

/// What is to be kept: name, unit, must and aim.
const TARGETS: [(&str, &str, f64, f64); 2] = [("CPU per record", "µs", 2.5, 1.5), ("memory at most", "MB", 80.0, 40.0)];

struct Round {
    cpu_us: f64,
    peak_mb: f64,
    per_second: f64,
    sent: f64,
}

fn main() {
    let cores = Cores::find();
    cores.rest.take();
    // One thread, so that what it starts runs on the cores that it is on.
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let rounds = runtime.expect("a runtime").block_on(measure(&cores));
    print(&rounds);
}

async fn measure(cores: &Cores) -> Vec<Round> {
    let store = tempfile::tempdir().expect("a temporary folder");
    let nats = NatsServer::with_config(&format!(
        "jetstream {{ store_dir: \"{}\", max_file_store: 8GB }}",
        store.path().display()
    ))
    .await;
    let jetstream = nats.jetstream().await;
    fill(&jetstream).await;
    let count = std::env::var("DRAIN_ROUNDS").map_or(ROUNDS, |rounds| rounds.parse().expect("a number of rounds"));
    let mut rounds = Vec::new();
    for number in 1..=count.max(1) {
        rounds.push(round(number, cores, &nats, &jetstream).await);
    }
    rounds
}

async fn fill(jetstream: &Context) {
    let config = jetstream::stream::Config {
        name: "logs".to_owned(),
        subjects: vec!["logs.>".to_owned()],
        ..Default::default()
    };
    jetstream.create_stream(config).await.expect("a stream");
    let confirmations = futures_util::stream::iter(records::frames(RECORDS))
        .then(|frame| jetstream.publish("logs.api-service", frame.into()))
        .map(|sent| async { sent.expect("a publish").await.expect("the stream's acknowledgement") });
    confirmations.buffered(UNCONFIRMED).for_each(async |_| ()).await;
}

async fn round(number: usize, cores: &Cores, nats: &NatsServer, jetstream: &Context) -> Round {
    let durable = format!("round-{number}");
    let sieve = Sieve::start();
    cores.first.take();
    let began = Instant::now();
    let mut consumer = Sidelog::consumer()
        .env("NATS_URL", nats.url())
        .env("LOKI_URL", sieve.push_url())
        .env("SIDELOG_SOURCE__DURABLE", &durable)
        .start()
        .await;
    cores.rest.take();
    obtain_within(PATIENCE, "the stream is drained", async || {
        let durable: jetstream::consumer::PullConsumer =
            jetstream.get_consumer_from_stream(&durable, "logs").await.ok()?;
        let info = durable.cached_info();
        (info.num_pending == 0 && info.num_ack_pending == 0).then_some(())
    })
    .await;
    let took = began.elapsed();
    let cpu = processor_time(consumer.id());
    let stored = consumer.metric("sidelog_records_stored_total", "").await;
    #[expect(clippy::cast_precision_loss, reason = "small numbers")]
    let (records, sent) = (RECORDS as f64, sieve.bytes() as f64);
    assert!((stored - records).abs() < 0.5, "{stored} records were stored");
    let peak_mb = peak_memory(consumer.id());
    // One that counts for `make profile` writes down what it counted when it ends.
    consumer.terminate();
    let status = consumer.exit_status(PATIENCE).await;
    assert!(status.success(), "the consumer ended with {status}");
    Round {
        cpu_us: cpu * 1e6 / records,
        peak_mb,
        per_second: records / took.as_secs_f64(),
        sent: sent / records,
    }
}

fn print(rounds: &[Round]) {
    let processor = line_of("/proc/cpuinfo", "model name").unwrap_or_default();
    let kernel = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    println!(
        "{RECORDS} records of {RECORD_BYTES} bytes in frames of {FRAME}, {} rounds, the consumer alone on one core",
        rounds.len()
    );
    println!("{}, Linux {}", processor.trim(), kernel.trim());
    println!("\n| what | must | aim | median | least to most | holds |\n|---|---|---|---|---|---|");
    for (target, of) in TARGETS.into_iter().zip([cpu_us as fn(&Round) -> f64, peak_mb]) {
        let (name, unit, must, aim) = target;
        let (least, median, most) = spread(rounds, of);
        let holds = match median {
            median if median <= aim => "yes, the aim too",
            median if median <= must => "yes",
            _ => "no",
        };
        println!("| {name} | {must} {unit} | {aim} {unit} | {median:.2} {unit} | {least:.2} to {most:.2} | {holds} |");
    }
    for (name, of) in [
        ("records a second", per_second as fn(&Round) -> f64),
        ("bytes sent per record", sent),
    ] {
        let (least, median, most) = spread(rounds, of);
        println!("| {name} | | | {median:.0} | {least:.0} to {most:.0} | |");
    }
}

fn cpu_us(round: &Round) -> f64 {
    round.cpu_us
}

fn peak_mb(round: &Round) -> f64 {
    round.peak_mb
}

fn per_second(round: &Round) -> f64 {
    round.per_second
}

fn sent(round: &Round) -> f64 {
    round.sent
}

/// Least, median and most.
fn spread(rounds: &[Round], of: fn(&Round) -> f64) -> (f64, f64, f64) {
    let mut values: Vec<_> = rounds.iter().map(of).collect();
    values.sort_by(f64::total_cmp);
    let at = |index: usize| values.get(index).copied().expect("a round");
    (at(0), at(values.len() / 2), at(values.len() - 1))
}

/// The core of the consumer, and those of everything else.
struct Cores {
    first: Affinity,
    rest: Affinity,
}

struct Affinity(CpuSet);

impl Cores {
    fn find() -> Self {
        let all = sched_getaffinity(None).expect("the cores of this process");
        let mut cores = (0..CpuSet::MAX_CPU).filter(|core| all.is_set(*core));
        let (mut first, mut rest) = (CpuSet::new(), CpuSet::new());
        first.set(cores.next().expect("a core"));
        cores.for_each(|core| rest.set(core));
        if rest.count() == 0 {
            println!("there is one core only, which the consumer shares with the servers");
            rest = first;
        }
        Self {
            first: Affinity(first),
            rest: Affinity(rest),
        }
    }
}

impl Affinity {
    /// What this thread starts from now on runs there.
    fn take(&self) {
        sched_setaffinity(None, &self.0).expect("to choose a core");
    }
}

/// Seconds of processor time of a process, its threads included.
fn processor_time(id: u32) -> f64 {
    let stat = fs::read_to_string(format!("/proc/{id}/stat")).expect("a running process");
    let (_, fields) = stat.rsplit_once(") ").expect("a name in parentheses");
    // utime and stime are fields 14 and 15; the state behind the name is field 3.
    let ticks = fields.split(' ').skip(11).take(2);
    ticks.map(|ticks| ticks.parse::<f64>().expect("a number")).sum::<f64>() / TICKS
}

/// The most bytes that were resident, in MB.
fn peak_memory(id: u32) -> f64 {
    let peak = line_of(&format!("/proc/{id}/status"), "VmHWM").expect("a running process");
    let kib: f64 = peak.trim().trim_end_matches(" kB").parse().expect("a number");
    kib * 1024.0 / 1e6
}

/// What stands behind the colon of the first line that begins with `name`.
fn line_of(path: &str, name: &str) -> Option<String> {
    let text = fs::read_to_string(path).ok()?;
    let line = text.lines().find(|line| line.starts_with(name))?;
    line.split_once(':').map(|(_, value)| value.to_owned())
}
