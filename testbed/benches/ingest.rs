//! What JetStream takes: frames a second into a stream on disk, on one server and on three, and what of the processor that costs.
//!
//! `cargo bench -p testbed --bench ingest`. One connection, a window of 64 acknowledgements, as a proxy has. Servers and client share
//! the machine, so three servers on it are slower than on three machines; the processor's time is what to reckon with.

#![expect(
    clippy::expect_used,
    clippy::print_stdout,
    reason = "a measurement stops at the first thing that is not as it needs it, and prints what it found"
)]

use std::fs;
use std::time::Instant;

use async_nats::jetstream::stream::{Config, DiscardPolicy};
use async_nats::jetstream::{self, Context};
use bytes::Bytes;
use futures_util::StreamExt;
use testbed::{NatsCluster, NatsServer, wait};

const MIB: usize = 1024 * 1024;
/// Bytes that are published for each line of the table.
const TOTAL: usize = 256 * MIB;
const WINDOW: usize = 64;
/// What the kernel counts processor time in (`CLK_TCK`), on every Linux.
const TICKS: f64 = 100.0;
/// Frames whose ids a server remembers.
const REMEMBERED: usize = 300_000;
/// What a proxy of little and of much traffic sends.
const FRAMES: [usize; 4] = [2 * 1024, 24 * 1024, 96 * 1024, 256 * 1024];

#[tokio::main(flavor = "current_thread")]
async fn main() {
    println!("| stream on | frame | frames/s | MiB/s | CPU of all servers a frame | a MiB |");
    println!("|---|---|---|---|---|---|");
    let server = NatsServer::start().await;
    for bytes in FRAMES {
        measure("1 server", 1, &server.jetstream().await, &[server.id()], bytes).await;
    }
    let (with_ids, without) = (remembered(true).await, remembered(false).await);
    println!(
        "the duplicate window takes {} bytes of memory a frame\n",
        with_ids.saturating_sub(without) / REMEMBERED as u64
    );
    drop(server);
    let cluster = NatsCluster::start().await;
    for bytes in FRAMES {
        measure("3 servers", 3, &cluster.jetstream().await, &cluster.ids(), bytes).await;
    }
}

async fn measure(on: &str, num_replicas: usize, jetstream: &Context, servers: &[u32], bytes: usize) {
    let name = format!("frames_{bytes}");
    make_stream(jetstream, &name, num_replicas).await;
    let payload = Bytes::from(vec![b'x'; bytes]);
    let count = (TOTAL / bytes).min(20_000);
    let cpu = || servers.iter().map(|id| processor_time(*id)).sum::<f64>();
    let (began, before) = (Instant::now(), cpu());
    let acknowledged = futures_util::stream::iter(0..count).map(async |number| {
        let mut headers = async_nats::HeaderMap::new();
        headers.insert("Nats-Msg-Id", number.to_string());
        let sent = jetstream
            .publish_with_headers(name.clone(), headers, payload.clone())
            .await;
        sent.expect("a publish").await.expect("the stream's acknowledgement");
    });
    acknowledged.buffer_unordered(WINDOW).for_each(async |()| ()).await;
    let (took, used) = (began.elapsed().as_secs_f64(), cpu() - before);
    #[expect(clippy::cast_precision_loss, reason = "small numbers")]
    let (frames, mib) = (count as f64, (count * bytes) as f64 / MIB as f64);
    println!(
        "| {on} | {} KiB | {:.0} | {:.0} | {:.0} µs | {:.1} ms |",
        bytes / 1024,
        frames / took,
        mib / took,
        used * 1e6 / frames,
        used * 1e3 / mib
    );
    jetstream.delete_stream(name).await.expect("the stream is deleted");
}

/// The memory of a server that has taken so many small frames.
async fn remembered(with_ids: bool) -> u64 {
    let server = NatsServer::start().await;
    let jetstream = server.jetstream().await;
    make_stream(&jetstream, "small", 1).await;
    let acknowledged = futures_util::stream::iter(0..REMEMBERED).map(async |number| {
        let mut headers = async_nats::HeaderMap::new();
        // As long as a proxy's: the UUID of its start, and a number.
        let name = if with_ids { "Nats-Msg-Id" } else { "Other-Name" };
        headers.insert(name, format!("{number:032}-{number:06}"));
        let sent = jetstream
            .publish_with_headers("small", headers, Bytes::from_static(b"x"))
            .await;
        sent.expect("a publish").await.expect("the stream's acknowledgement");
    });
    acknowledged.buffer_unordered(WINDOW).for_each(async |()| ()).await;
    memory(server.id())
}

/// Bytes of memory that a process holds (`VmRSS`).
fn memory(id: u32) -> u64 {
    let status = fs::read_to_string(format!("/proc/{id}/status")).expect("a running server");
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let kib = line.expect("its memory").trim().trim_end_matches(" kB");
    kib.parse::<u64>().expect("a number") * 1024
}

/// The nodes of a cluster have to find each other first.
async fn make_stream(jetstream: &Context, name: &str, num_replicas: usize) {
    let config = Config {
        name: name.to_owned(),
        subjects: vec![name.to_owned()],
        storage: jetstream::stream::StorageType::File,
        discard: DiscardPolicy::Old,
        max_bytes: i64::try_from(TOTAL).expect("a size"),
        num_replicas,
        ..Config::default()
    };
    wait::until("the stream is there", async || {
        jetstream.create_stream(config.clone()).await.is_ok()
    })
    .await;
}

/// Seconds of the processor that a process has had.
fn processor_time(id: u32) -> f64 {
    let stat = fs::read_to_string(format!("/proc/{id}/stat")).expect("a running server");
    let (_, fields) = stat.rsplit_once(')').expect("the state of a process");
    let ticks = fields.split_whitespace().skip(11).take(2);
    ticks.map(|ticks| ticks.parse::<f64>().expect("a number")).sum::<f64>() / TICKS
}
