//! Rounds: each proxy in turn under the same load, again and again, so that what the machine does meanwhile meets all.

use std::time::Duration;

use crate::contender::Contender;
use crate::load::{Load, Ran};
use crate::machine::busy_on_the_measured_core;
use crate::table::Spread;

/// Other work on the proxies' core, as a share of a round, from which on a round is told as disturbed.
const DISTURBED: f64 = 0.03;

/// How often and how long.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Plan {
    pub(crate) rounds: usize,
    pub(crate) time: Duration,
}

/// What the rounds say of one proxy.
#[derive(Debug, Default)]
pub(crate) struct Series {
    /// Microseconds of CPU for each request, a figure for each round.
    pub(crate) cost: Vec<f64>,
    /// Requests per second.
    pub(crate) rate: Vec<f64>,
    /// The 99th percentile of the time of a request, in milliseconds, of loads with a rate.
    pub(crate) p99: Vec<f64>,
    pub(crate) answered: u64,
    pub(crate) failed: u64,
    pub(crate) disturbed: usize,
}

/// Measures these proxies under this load.
pub(crate) async fn rounds(contenders: &[Contender], load: &Load, plan: &Plan) -> Vec<Series> {
    let mut all: Vec<Series> = contenders.iter().map(|_| Series::default()).collect();
    for contender in contenders {
        let ran = load.run(contender.address, Duration::from_secs(1));
        assert!(ran.answered > 0, "{} answers nothing: {ran:?}", contender.name);
        contender.rests().await;
    }
    for round in 0..plan.rounds {
        // Nobody is always the one behind the same other.
        for place in 0..contenders.len() {
            let index = (place + round) % contenders.len();
            let (Some(contender), Some(series)) = (contenders.get(index), all.get_mut(index)) else {
                continue;
            };
            measure(contender, load, plan, series).await;
        }
    }
    all
}

async fn measure(contender: &Contender, load: &Load, plan: &Plan, series: &mut Series) {
    let (cpu, busy) = (contender.cpu(), busy_on_the_measured_core());
    let ran = load.run(contender.address, plan.time);
    // What a request costs after its answer is part of its cost.
    contender.rests().await;
    let cpu = (contender.cpu() - cpu).as_secs_f64();
    let busy = (busy_on_the_measured_core() - busy).as_secs_f64();
    series.take(&ran, cpu);
    series.disturbed += usize::from(busy - cpu > DISTURBED * busy + 0.02);
}

impl Series {
    fn take(&mut self, ran: &Ran, cpu: f64) {
        #[expect(clippy::cast_precision_loss, reason = "far less than 2^52 requests")]
        let answered = ran.answered as f64;
        self.cost.push(cpu * 1e6 / answered.max(1.0));
        self.rate.push(answered / ran.seconds);
        if !ran.times.is_empty() {
            self.p99.push(ran.quantile(0.99));
        }
        self.answered += ran.answered;
        self.failed += ran.failed;
    }
}

/// The cost of the one by that of the other, round by round.
pub(crate) fn ratio(one: &Series, to: &Series) -> Spread {
    Spread::of(one.cost.iter().zip(&to.cost).map(|(one, to)| one / to))
}
