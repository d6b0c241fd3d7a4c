//! What is counted of every exchange, recorded or not, dropped or not: by route, method, status class and end.
//!
//! A route's series are found once, when its generation is compiled, and counted into by index.
//!
//! Invariants:
//! - Counting an exchange takes no lock and hashes nothing; it allocates once for a route's method that was never seen
//!   (`benches/metrics.rs`: under 0.3 µs).
//! - The labels are of closed sets: routes of the configuration or [`OTHER_ROUTE`], [`METHODS`], [`CLASSES`] and the ends
//!   (`what_is_not_known_is_one_label`).
//! - Generations with the same route count into the same series; a route that no generation in use has is gone
//!   (`a_route_is_counted_on_over_generations_and_forgotten_with_the_last`).

use std::array;
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock, Weak};

use parking_lot::Mutex;
use sidelog_record::End;

use super::histogram::{Bounds, Exemplar, ExemplarCell, Histogram, SECOND};
use crate::queue::exchange::Exchange;

/// The label of exchanges that no route of the configuration serves.
pub const OTHER_ROUTE: &str = "other";
/// The methods that are told apart; all others are the last one (OpenTelemetry's semantic conventions).
pub const METHODS: [&str; 11] = [
    "GET", "POST", "PUT", "PATCH", "DELETE", "HEAD", "OPTIONS", "QUERY", "CONNECT", "TRACE", "_OTHER",
];
/// The classes of status codes; the last one is of clients that were sent none.
pub const CLASSES: [&str; 6] = ["1xx", "2xx", "3xx", "4xx", "5xx", "none"];

const ENDS: usize = End::ALL.len();
const MILLISECOND: u64 = SECOND / 1_000;
const MICROSECOND: u64 = SECOND / 1_000_000;

/// Buckets of how long an exchange took.
pub static DURATIONS: Bounds<15> = [
    MILLISECOND,
    2_500 * MICROSECOND,
    5 * MILLISECOND,
    10 * MILLISECOND,
    25 * MILLISECOND,
    50 * MILLISECOND,
    100 * MILLISECOND,
    250 * MILLISECOND,
    500 * MILLISECOND,
    SECOND,
    2_500 * MILLISECOND,
    5 * SECOND,
    10 * SECOND,
    30 * SECOND,
    120 * SECOND,
];
/// Buckets of what the proxy adds to it.
pub static OVERHEADS: Bounds<10> = [
    25 * MICROSECOND,
    50 * MICROSECOND,
    100 * MICROSECOND,
    250 * MICROSECOND,
    500 * MICROSECOND,
    MILLISECOND,
    5 * MILLISECOND,
    25 * MILLISECOND,
    100 * MILLISECOND,
    SECOND,
];

/// Counts of all exchanges of the process.
#[derive(Debug)]
pub struct Exchanges {
    /// By route; whoever serves it keeps the series.
    routes: Mutex<BTreeMap<Box<str>, Weak<Series>>>,
    other: Arc<Series>,
    overhead: Histogram<{ OVERHEADS.len() }>,
    open: AtomicU64,
}

impl Default for Exchanges {
    fn default() -> Self {
        Self {
            routes: Mutex::default(),
            other: Arc::new(Series::new(OTHER_ROUTE)),
            overhead: Histogram::new(&OVERHEADS),
            open: AtomicU64::new(0),
        }
    }
}

impl Exchanges {
    /// The series for routes with these paths, in their order. Routes with the same path share theirs.
    pub fn routes<'p>(self: &Arc<Self>, paths: impl Iterator<Item = &'p str>) -> RouteSeries {
        let mut known = self.routes.lock();
        known.retain(|_, series| series.strong_count() > 0);
        let routes = paths.map(|path| {
            let series = known.get(path).and_then(Weak::upgrade);
            series.unwrap_or_else(|| {
                let series = Arc::new(Series::new(path));
                known.insert(path.into(), Arc::downgrade(&series));
                series
            })
        });
        RouteSeries {
            routes: routes.collect(),
            exchanges: Arc::clone(self),
        }
    }

    /// The series of all routes in use, by path, and of the rest.
    pub fn series(&self) -> Vec<Arc<Series>> {
        let known = self.routes.lock();
        let mut series: Vec<_> = known.values().filter_map(Weak::upgrade).collect();
        series.push(Arc::clone(&self.other));
        series
    }

    /// Exchanges that have begun and not ended.
    pub fn open(&self) -> u64 {
        self.open.load(Ordering::Relaxed)
    }

    /// What the proxy added to whole answers.
    pub fn overhead(&self) -> &Histogram<{ OVERHEADS.len() }> {
        &self.overhead
    }
}

/// The series that a generation's routes count into.
#[derive(Debug)]
pub struct RouteSeries {
    routes: Box<[Arc<Series>]>,
    exchanges: Arc<Exchanges>,
}

impl RouteSeries {
    /// An exchange begins.
    pub fn began(&self) {
        self.exchanges.open.fetch_add(1, Ordering::Relaxed);
    }

    /// An exchange ended, of which the upstream took `upstream` nanoseconds, if it was asked.
    pub fn ended(&self, exchange: &Exchange<'_>, upstream: Option<u64>) {
        self.exchanges.open.fetch_sub(1, Ordering::Relaxed);
        let route = exchange.route.and_then(|route| self.routes.get(route as usize));
        route.unwrap_or(&self.exchanges.other).count(exchange, upstream);
        if let Some(upstream) = upstream.filter(|_| exchange.end == End::Complete) {
            self.exchanges
                .overhead
                .observe(exchange.duration.saturating_sub(upstream));
        }
    }
}

/// Counts of a route's exchanges.
#[derive(Debug)]
pub struct Series {
    route: Box<str>,
    methods: [OnceLock<Box<ByOutcome>>; METHODS.len()],
    durations: Histogram<{ DURATIONS.len() }>,
    upstream: AtomicU64,
    request_bytes: AtomicU64,
    response_bytes: AtomicU64,
    exemplars: [ExemplarCell; DURATIONS.len() + 1],
}

/// Counts of a method's exchanges, by status class and end.
type ByOutcome = [[AtomicU64; ENDS]; CLASSES.len()];

/// One count of exchanges, with what they have in common.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Counted {
    /// Of [`METHODS`].
    pub method: &'static str,
    /// Of [`CLASSES`].
    pub class: &'static str,
    /// How they ended.
    pub end: End,
    /// How many.
    pub count: u64,
}

impl Series {
    fn new(route: &str) -> Self {
        Self {
            route: route.into(),
            methods: array::from_fn(|_| OnceLock::new()),
            durations: Histogram::new(&DURATIONS),
            upstream: AtomicU64::new(0),
            request_bytes: AtomicU64::new(0),
            response_bytes: AtomicU64::new(0),
            exemplars: array::from_fn(|_| ExemplarCell::default()),
        }
    }

    fn count(&self, exchange: &Exchange<'_>, upstream: Option<u64>) {
        let class = class(exchange.response.status);
        let outcomes = self
            .methods
            .get(method(exchange.request.method))
            .map(|method| method.get_or_init(Box::default));
        let count = outcomes.and_then(|outcomes| outcomes.get(class)?.get(exchange.end as usize));
        if let Some(count) = count {
            count.fetch_add(1, Ordering::Relaxed);
        }
        let bucket = self.durations.observe(exchange.duration);
        for (sum, value) in [
            (&self.upstream, upstream.unwrap_or_default()),
            (&self.request_bytes, exchange.request.body.size),
            (&self.response_bytes, exchange.response.body.size),
        ] {
            if value > 0 {
                sum.fetch_add(value, Ordering::Relaxed);
            }
        }
        if exchange.trace.span
            && let Some(cell) = self.exemplars.get(bucket)
        {
            cell.put(Exemplar {
                trace_id: exchange.trace.trace_id,
                nanos: exchange.duration,
                at: exchange.started.saturating_add(exchange.duration),
            });
        }
    }

    /// The route's path, or [`OTHER_ROUTE`].
    pub fn route(&self) -> &str {
        &self.route
    }

    /// Every count that isn't zero.
    pub fn counts(&self) -> impl Iterator<Item = Counted> {
        let methods = METHODS.into_iter().zip(&self.methods);
        let seen = methods.filter_map(|(method, outcomes)| Some((method, outcomes.get()?)));
        let classes = seen.flat_map(|(method, outcomes)| {
            CLASSES
                .into_iter()
                .zip(outcomes.iter())
                .map(move |(class, ends)| (method, class, ends))
        });
        let all = classes.flat_map(|(method, class, ends)| {
            End::ALL.iter().zip(ends).map(move |(end, count)| Counted {
                method,
                class,
                end: *end,
                count: count.load(Ordering::Relaxed),
            })
        });
        all.filter(|counted| counted.count > 0)
    }

    /// How long they took.
    pub fn durations(&self) -> &Histogram<{ DURATIONS.len() }> {
        &self.durations
    }

    /// The last exemplar of each bucket of [`durations`](Self::durations).
    pub fn exemplars(&self) -> impl Iterator<Item = Option<Exemplar>> {
        self.exemplars.iter().map(ExemplarCell::get)
    }

    /// Nanoseconds that the upstream took.
    pub fn upstream(&self) -> u64 {
        self.upstream.load(Ordering::Relaxed)
    }

    /// Bytes of the requests' bodies, and of the answers'.
    pub fn bytes(&self) -> (u64, u64) {
        (
            self.request_bytes.load(Ordering::Relaxed),
            self.response_bytes.load(Ordering::Relaxed),
        )
    }
}

/// The place of a method in [`METHODS`].
fn method(name: &[u8]) -> usize {
    match name {
        b"GET" => 0,
        b"POST" => 1,
        b"PUT" => 2,
        b"PATCH" => 3,
        b"DELETE" => 4,
        b"HEAD" => 5,
        b"OPTIONS" => 6,
        b"QUERY" => 7,
        b"CONNECT" => 8,
        b"TRACE" => 9,
        _ => METHODS.len() - 1,
    }
}

/// The place of a status in [`CLASSES`].
fn class(status: Option<u16>) -> usize {
    let none = CLASSES.len() - 1;
    status.map_or(none, |status| usize::from(status / 100).wrapping_sub(1).min(none))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::queue::exchange::tests::exchange;

    fn counted(series: &Series) -> Vec<(&'static str, &'static str, &'static str, u64)> {
        let all = series.counts();
        all.map(|one| (one.method, one.class, one.end.as_str(), one.count))
            .collect()
    }

    #[test]
    fn each_method_has_the_place_of_its_name() {
        for (place, name) in METHODS.iter().enumerate() {
            assert_eq!(method(name.as_bytes()), place, "{name}");
        }
    }

    #[test]
    fn what_is_not_known_is_one_label() {
        let exchanges = Arc::new(Exchanges::default());
        let routes = exchanges.routes(["/a"].into_iter());
        let mut seen = exchange(b"{}");
        for (method, status, end) in [
            (&b"BREW"[..], Some(200), End::Complete),
            (b"get", Some(999), End::Complete),
            (b"BREW", Some(42), End::Complete),
            (b"GET", None, End::ClientGone),
        ] {
            (seen.route, seen.request.method, seen.response.status, seen.end) = (Some(7), method, status, end);
            routes.began();
            routes.ended(&seen, None);
        }
        let all = exchanges.series();
        assert_eq!(
            all.iter().map(|one| one.route()).collect::<Vec<_>>(),
            ["/a", OTHER_ROUTE]
        );
        assert_eq!(counted(&all[0]), []);
        assert_eq!(
            counted(&all[1]),
            [
                ("GET", "none", "client_gone", 1),
                ("_OTHER", "2xx", "complete", 1),
                ("_OTHER", "none", "complete", 2)
            ]
        );
        assert_eq!(exchanges.open(), 0);
    }

    #[test]
    fn a_route_is_counted_on_over_generations_and_forgotten_with_the_last() {
        let exchanges = Arc::new(Exchanges::default());
        let mut seen = exchange(b"{}");
        let first = exchanges.routes(["/a", "/b"].into_iter());
        let second = exchanges.routes(["/b", "/c", "/b"].into_iter());
        for (routes, route) in [(&first, 1), (&second, 0), (&second, 2), (&second, 1)] {
            seen.route = Some(route);
            routes.began();
            routes.ended(&seen, Some(1));
        }
        let told = |exchanges: &Exchanges| -> Vec<(String, u64)> {
            let series = exchanges.series();
            let count = |one: &Arc<Series>| one.counts().map(|counted| counted.count).sum();
            series.iter().map(|one| (one.route().to_owned(), count(one))).collect()
        };
        let pairs = |pairs: &[(&str, u64)]| -> Vec<(String, u64)> {
            pairs
                .iter()
                .map(|(route, count)| ((*route).to_owned(), *count))
                .collect()
        };
        assert_eq!(
            told(&exchanges),
            pairs(&[("/a", 0), ("/b", 3), ("/c", 1), (OTHER_ROUTE, 0)])
        );
        drop(first);
        assert_eq!(told(&exchanges), pairs(&[("/b", 3), ("/c", 1), (OTHER_ROUTE, 0)]));
    }

    #[test]
    fn what_the_upstream_did_not_take_the_proxy_added() {
        let exchanges = Arc::new(Exchanges::default());
        let routes = exchanges.routes(std::iter::empty());
        let mut seen = exchange(b"{}");
        (seen.route, seen.end, seen.duration) = (None, End::Complete, 1_000_000);
        routes.began();
        routes.ended(&seen, Some(970_000));
        // Of neither can it be said: one has no upstream, the other one's end was not the proxy's.
        routes.began();
        routes.ended(&seen, None);
        seen.end = End::ClientGone;
        routes.began();
        routes.ended(&seen, Some(1));
        let overhead = exchanges.overhead().read();
        assert_eq!(overhead.count(), 1);
        assert_eq!(overhead.buckets[1], (0.00005, 1));
        assert_eq!(exchanges.series()[0].upstream(), 970_001);
    }
}
