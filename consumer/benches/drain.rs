//! What a record costs the consumer on its way from JetStream to Loki's protocol: CPU time of the whole process, and memory.
//!
//! `cargo bench -p sidelog-consumer --bench drain` runs a real nats-server, the consumer as it is shipped, and the double of
//! Loki in this process, which keeps what it gets. Records of 1.5 KB come in frames of 100.

#![expect(
    clippy::expect_used,
    clippy::print_stdout,
    reason = "a measurement stops at the first thing that is not as it needs it, and prints what it found"
)]

use std::fs;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use async_nats::jetstream::{self, Context};
use sidelog_record::{Level, Record};
use testbed::wait::obtain_within;
use testbed::{LokiDouble, NatsServer, Sidelog};

const RECORDS: usize = 100_000;
const FRAME: usize = 100;
const RECORD_BYTES: usize = 1500;
const ROUNDS: usize = 5;
const PATIENCE: Duration = Duration::from_secs(300);
/// What the kernel counts processor time in (`CLK_TCK`), on every Linux.
const TICKS: f64 = 100.0;

struct Round {
    cpu_us: f64,
    per_second: f64,
    peak_mib: f64,
}

fn main() {
    let runtime = tokio::runtime::Runtime::new().expect("a runtime");
    let mut rounds: Vec<_> = (0..ROUNDS).map(|_| runtime.block_on(round())).collect();
    rounds.sort_by(|left, right| left.cpu_us.total_cmp(&right.cpu_us));
    println!("{RECORDS} records of {RECORD_BYTES} bytes, JetStream to Loki's protocol, {ROUNDS} rounds");
    for round in &rounds {
        println!(
            "{:6.2} µs of CPU a record, {:8.0} records/s, at most {:5.1} MiB resident",
            round.cpu_us, round.per_second, round.peak_mib
        );
    }
    if let Some(median) = rounds.get(ROUNDS / 2) {
        println!("median {:.2} µs of CPU a record", median.cpu_us);
    }
}

async fn round() -> Round {
    let nats = NatsServer::start().await;
    let jetstream = nats.jetstream().await;
    publish(&jetstream).await;
    let loki = LokiDouble::start();
    let consumer = Sidelog::consumer()
        .env("NATS_URL", nats.url())
        .env("LOKI_URL", loki.push_url())
        .start()
        .await;
    let began = Instant::now();
    obtain_within(PATIENCE, "the backlog is drained", async || {
        (loki.count() >= RECORDS).then_some(())
    })
    .await;
    let took = began.elapsed();
    // From its first instruction, so that starting is in it.
    let cpu = processor_time(consumer.id());
    #[expect(clippy::cast_precision_loss, reason = "small numbers")]
    let records = RECORDS as f64;
    Round {
        cpu_us: cpu * 1e6 / records,
        per_second: records / took.as_secs_f64(),
        peak_mib: peak_memory(consumer.id()),
    }
}

async fn publish(jetstream: &Context) {
    let config = jetstream::stream::Config {
        name: "logs".to_owned(),
        subjects: vec!["logs.>".to_owned()],
        ..Default::default()
    };
    jetstream.create_stream(config).await.expect("a stream");
    let now = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .expect("a clock after 1970");
    let now = u64::try_from(now.as_nanos()).expect("a clock before 2554");
    let mut acknowledgements = Vec::new();
    for frame in 0..RECORDS / FRAME {
        let mut payload = Vec::with_capacity(FRAME * (RECORD_BYTES + 1));
        for number in frame * FRAME..(frame + 1) * FRAME {
            record(number, now, &mut payload);
        }
        let acknowledged = jetstream.publish("logs.api", payload.into()).await;
        acknowledgements.push(acknowledged.expect("a publish"));
    }
    for acknowledged in acknowledgements {
        acknowledged.await.expect("the stream's acknowledgement");
    }
}

/// A record as a proxy writes it, of [`RECORD_BYTES`].
fn record(number: usize, now: u64, payload: &mut Vec<u8>) {
    let before = payload.len();
    let observed_timestamp = now + number as u64;
    let mut record = Record {
        timestamp: observed_timestamp - 1_000_000,
        observed_timestamp,
        level: if number.is_multiple_of(20) {
            Level::Warn
        } else {
            Level::Info
        },
        service_name: "api-service".into(),
        environment: "production".into(),
        trace_id: Some([7; 16]),
        span_id: Some((number as u64).to_be_bytes()),
        method: "GET".into(),
        scheme: "http".into(),
        path: format!("/api/v1/users/{number}").into(),
        route: Some("/api/v1/users/{id}".into()),
        status: Some(200),
        duration: Duration::from_millis(1),
        ..Record::default()
    };
    record.encode(payload);
    let missing = (RECORD_BYTES - 1).saturating_sub(payload.len() - before);
    payload.truncate(before);
    record.query = Some("x".repeat(missing.saturating_sub(14)).into());
    record.encode(payload);
    if payload.last() != Some(&b'\n') {
        payload.push(b'\n');
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

fn peak_memory(id: u32) -> f64 {
    let status = fs::read_to_string(format!("/proc/{id}/status")).expect("a running process");
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    let kib = line.expect("a peak").trim().trim_end_matches(" kB");
    kib.parse::<f64>().expect("a number") / 1024.0
}
