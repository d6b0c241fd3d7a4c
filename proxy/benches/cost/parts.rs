//! The parts of the measurement: who is measured under which load, and against which target.

use crate::contender::{Contender, Sidelog};
use crate::load::{Load, NUMBER, ORDER, Protocol};
use crate::machine::peak_memory_of;
use crate::rig::Rig;
use crate::rounds::{Plan, Series, ratio, rounds};
use crate::table::{Row, Spread, Target, Unit};

const GET: Target = target("GET 1 KB, all records, 100 % of the spans, to bare", 1.20, 1.12);
const GET_FEW_SPANS: Target = target("GET 1 KB, all records, 1 % of the spans, to bare", 1.13, 1.06);
const AWAY: Target = Target {
    unit: Unit::Difference,
    ..target("NATS and collector away, spool turning over, over healthy", 0.1, 0.0)
};
const ENVOY: Target = target("GET 1 KB, full capture, to Envoy without log and traces", 0.85, 0.70);
const POST: Target = target("POST 1 KB, answered 1 KB, 100 % of the spans, to bare", 1.25, 1.15);
const LARGE: Target = target("GET 64 KB recorded whole, 1,500 requests/s, to bare", 1.6, 1.4);
const GET_ANEW: Target = target("GET 1 KB, another answer each time, to bare", 1.20, 1.12);
const POST_ANEW: Target = target("POST 1 KB, another body and answer each time, to bare", 1.25, 1.15);
const LARGE_ANEW: Target = target("GET 64 KB, another answer each time, 1,500/s, to bare", 1.6, 1.4);
const H2C: Target = target("GET 1 KB by h2c, full capture, to bare", 1.25, 1.15);
const GRPC: Target = target("gRPC unary, full capture, to bare", 1.25, 1.15);
const LATENCY: Target = Target {
    unit: Unit::Milliseconds,
    ..target("p99 added at 2,000 requests/s, over bare", 0.3, 0.1)
};
const MEMORY: Target = Target {
    unit: Unit::Megabytes,
    ..target("peak memory, 1,000 connections, 1,000 POST/s of 1 KB", 40.0, 25.0)
};
const IDLE: Target = Target {
    unit: Unit::Percent,
    ..target("CPU of an idle proxy, of a core", 0.1, 0.02)
};

const fn target(what: &'static str, must: f64, aim: f64) -> Target {
    Target {
        what,
        must,
        aim,
        unit: Unit::Ratio,
    }
}

/// Measures a part, and prints the figures behind its rows.
pub(crate) async fn run(part: &str, rig: &Rig, plan: &Plan) -> Vec<Row> {
    match part {
        "get" => get(rig, plan).await,
        "post" => versus_bare(POST, rig, rig.upstream, &Load::post("/1k", ORDER), plan).await,
        "large" => versus_bare(LARGE, rig, rig.upstream, &large("/64k"), plan).await,
        "anew" => anew(rig, plan).await,
        "h2c" => versus_bare(H2C, rig, rig.upstream_h2, &by_http2(Load::get("/1k")), plan).await,
        "grpc" => versus_bare(GRPC, rig, rig.grpc, &grpc(), plan).await,
        "latency" => latency(rig, plan).await,
        "memory" => memory(rig, plan).await,
        "idle" => idle(rig, plan).await,
        _ => Vec::new(),
    }
}

/// Full capture: everything by default.
pub(crate) fn full() -> Sidelog {
    Sidelog {
        name: "sidelog",
        spans: 1.0,
        healthy: true,
        settings: Vec::new(),
    }
}

async fn get(rig: &Rig, plan: &Plan) -> Vec<Row> {
    let few_spans = Sidelog {
        name: "sidelog, 1 % spans",
        spans: 0.01,
        ..full()
    };
    let away = Sidelog {
        name: "sidelog, NATS and collector away",
        healthy: false,
        settings: vec![("SIDELOG_SPOOL__MAX_BYTES".to_owned(), "32MiB".to_owned())],
        ..full()
    };
    let mut contenders = vec![
        Contender::bare(rig.upstream).await,
        Contender::sidelog(rig, rig.upstream, &full()).await,
        Contender::sidelog(rig, rig.upstream, &few_spans).await,
        Contender::sidelog(rig, rig.upstream, &away).await,
        Contender::nginx(rig.upstream).await,
    ];
    let envoy = Contender::envoy(rig.upstream).await;
    let place_of_envoy = envoy.is_some().then_some(contenders.len());
    let haproxy = Contender::haproxy(rig.upstream).await;
    for (name, there) in [("Envoy", envoy.is_some()), ("HAProxy", haproxy.is_some())] {
        if !there {
            println!("LEFT OUT: {name} is not installed; .ci/install bench says why\n");
        }
    }
    contenders.extend(envoy);
    contenders.extend(haproxy);
    let all = rounds(&contenders, &Load::get("/1k"), plan).await;
    print("GET 1 KB", &contenders, &all);
    let [bare, healthy, few, away, ..] = &all[..] else {
        return Vec::new();
    };
    let mut rows = vec![
        row(GET, ratio(healthy, bare), flaws(&contenders[1], healthy).await),
        row(GET_FEW_SPANS, ratio(few, bare), flaws(&contenders[2], few).await),
        row(
            AWAY,
            away_over_healthy(away, healthy, bare),
            turns_over(&contenders[3], away).await,
        ),
    ];
    if let Some(envoy) = place_of_envoy.and_then(|place| all.get(place)) {
        rows.push(row(ENVOY, ratio(healthy, envoy), flaws(&contenders[1], healthy).await));
    }
    rows
}

fn away_over_healthy(away: &Series, healthy: &Series, bare: &Series) -> Spread {
    let pairs = away.cost.iter().zip(&healthy.cost).zip(&bare.cost);
    Spread::of(pairs.map(|((away, healthy), bare)| (away - healthy) / bare))
}

async fn versus_bare(target: Target, rig: &Rig, upstream: std::net::SocketAddr, load: &Load, plan: &Plan) -> Vec<Row> {
    let contenders = [
        Contender::bare(upstream).await,
        Contender::sidelog(rig, upstream, &full()).await,
    ];
    let all = rounds(&contenders, load, plan).await;
    print(target.what, &contenders, &all);
    let [bare, sidelog] = &all[..] else { return Vec::new() };
    vec![row(target, ratio(sidelog, bare), flaws(&contenders[1], sidelog).await)]
}

/// The same where no body came before.
async fn anew(rig: &Rig, plan: &Plan) -> Vec<Row> {
    let mut rows = Vec::new();
    for (target, load) in [
        (GET_ANEW, Load::get("/1k-anew")),
        (POST_ANEW, post_anew()),
        (LARGE_ANEW, large("/64k-anew")),
    ] {
        rows.extend(versus_bare(target, rig, rig.upstream, &load, plan).await);
    }
    rows
}

pub(crate) fn post_anew() -> Load {
    Load::post("/1k-anew", &ORDER.replacen("SKU-1014", NUMBER, 1))
}

pub(crate) fn by_http2(load: Load) -> Load {
    Load {
        protocol: Protocol::Http2,
        connections: 8,
        ..load
    }
}

/// As many as can all be recorded whole: at as many as a core carries, their bodies are left out in the end.
pub(crate) fn large(path: &str) -> Load {
    Load {
        rate: Some(1_500),
        ..Load::get(path)
    }
}

pub(crate) fn grpc() -> Load {
    let message = "\0\0\0\0\x20\n\x1ea question to a gRPC service, 3";
    Load {
        headers: [("content-type", "application/grpc"), ("te", "trailers")]
            .map(|(name, value)| (name.to_owned(), value.to_owned()))
            .to_vec(),
        ..by_http2(Load::post("/shop.Orders/Get", message))
    }
}

async fn latency(rig: &Rig, plan: &Plan) -> Vec<Row> {
    let contenders = [
        Contender::bare(rig.upstream).await,
        Contender::sidelog(rig, rig.upstream, &full()).await,
    ];
    let load = Load {
        rate: Some(2_000),
        ..Load::get("/1k")
    };
    let all = rounds(&contenders, &load, plan).await;
    print(LATENCY.what, &contenders, &all);
    let [bare, sidelog] = &all[..] else { return Vec::new() };
    let added = Spread::of(sidelog.p99.iter().zip(&bare.p99).map(|(sidelog, bare)| sidelog - bare));
    vec![row(LATENCY, added, flaws(&contenders[1], sidelog).await)]
}

async fn memory(rig: &Rig, plan: &Plan) -> Vec<Row> {
    let load = Load {
        rate: Some(1_000),
        connections: 1_000,
        ..Load::post("/1k", ORDER)
    };
    let mut peaks = Vec::new();
    let mut found = Vec::new();
    for _ in 0..plan.rounds.div_ceil(3) {
        peaks.push(peak(rig, &load, plan, &mut found).await);
    }
    let together = Load { together: true, ..load };
    let most = peak(rig, &together, plan, &mut found).await;
    println!(
        "{}\n  {most:.0} MB when all of them ask at the same instant, once a second\n",
        MEMORY.what
    );
    vec![row(MEMORY, Spread::of(peaks), found)]
}

/// The most memory that sidelog holds under a load, in megabytes.
async fn peak(rig: &Rig, load: &Load, plan: &Plan, found: &mut Vec<String>) -> f64 {
    let contender = Contender::sidelog(rig, rig.upstream, &full()).await;
    let ran = load.run(contender.address, plan.time * 5);
    contender.rests().await;
    #[expect(clippy::cast_precision_loss, reason = "memory of a machine")]
    let peak = peak_memory_of(contender.id()) as f64 / 1e6;
    let series = Series {
        failed: ran.failed,
        ..Series::default()
    };
    found.extend(flaws(&contender, &series).await);
    peak
}

async fn idle(rig: &Rig, plan: &Plan) -> Vec<Row> {
    let contender = Contender::sidelog(rig, rig.upstream, &full()).await;
    contender.rests().await;
    let mut shares = Vec::new();
    for _ in 0..plan.rounds.div_ceil(3) {
        let (before, time) = (contender.cpu(), plan.time * 5);
        tokio::time::sleep(time).await;
        shares.push((contender.cpu() - before).as_secs_f64() / time.as_secs_f64() * 100.0);
    }
    vec![row(IDLE, Spread::of(shares), Vec::new())]
}

fn row(target: Target, measured: Spread, flaws: Vec<String>) -> Row {
    Row {
        target,
        measured,
        flaws,
    }
}

/// What makes the figures of a healthy sidelog void.
async fn flaws(contender: &Contender, series: &Series) -> Vec<String> {
    let mut flaws = load_flaws(contender, series);
    for lost_name in [
        "sidelog_records_dropped_total",
        "sidelog_bodies_omitted_total",
        "sidelog_spans_dropped_total",
    ] {
        let samples = contender.metric(lost_name).await;
        // By default no record holds a body of gRPC.
        let kept = samples.iter().filter(|(labels, _)| !labels.contains("content_type"));
        let lost = kept.filter(|(_, count)| *count > 0.0);
        flaws.extend(lost.map(|(labels, count)| format!("{}: {count} of {lost_name}{labels}", contender.name)));
    }
    flaws
}

/// What makes the figures of one whose NATS is away void: a spool that never filled.
async fn turns_over(contender: &Contender, series: &Series) -> Vec<String> {
    let mut flaws = load_flaws(contender, series);
    let gone = contender.metric("sidelog_records_dropped_total").await;
    if gone.iter().all(|(_, count)| *count == 0.0) {
        flaws.push(format!("{}: the spool was never full", contender.name));
    }
    flaws
}

fn load_flaws(contender: &Contender, series: &Series) -> Vec<String> {
    let mut flaws = Vec::new();
    if series.failed > 0 {
        flaws.push(format!("{}: {} requests failed", contender.name, series.failed));
    }
    if series.disturbed * 3 > series.cost.len() {
        let (disturbed, rounds) = (series.disturbed, series.cost.len());
        flaws.push(format!(
            "{}: other work on its core in {disturbed} of {rounds} rounds",
            contender.name
        ));
    }
    flaws
}

/// The absolute figures; those of another run differ, the ratios hold.
fn print(what: &str, contenders: &[Contender], all: &[Series]) {
    println!("{what}");
    println!(
        "  {:<34} {:>10} {:>12} {:>18} {:>8}",
        "", "requests/s", "CPU µs each", "lowest to highest", "peak MB"
    );
    for (contender, series) in contenders.iter().zip(all) {
        let (cost, rate) = (Spread::of(series.cost.clone()), Spread::of(series.rate.clone()));
        println!(
            "  {:<34} {:>10.0} {:>12.2} {:>18} {:>8.0}   {}",
            contender.name,
            rate.median,
            cost.median,
            format!("{:.2} to {:.2}", cost.lowest, cost.highest),
            {
                #[expect(clippy::cast_precision_loss, reason = "memory of a machine")]
                let bytes = peak_memory_of(contender.id()) as f64;
                bytes / 1e6
            },
            contender.version,
        );
        if !series.p99.is_empty() {
            println!("  {:<34} p99 {:.3} ms", "", Spread::of(series.p99.clone()).median);
        }
    }
    println!();
}
