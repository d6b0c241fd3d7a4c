//! One generation of the configuration, compiled: what both sides ask of it, exchange by exchange.
//!
//! Invariants:
//! - Every exchange is under exactly one generation: it holds the one that was in force as its head came, and the queue
//!   holds that until the record is made (`tests/reload.rs`).
//! - A generation is freed with the last exchange under it (`traffic::capture`:
//!   `a_generation_is_freed_with_its_last_exchange`): no connection holds one while it waits for a request.

use std::sync::{Arc, LazyLock};

use arc_swap::ArcSwap;

pub mod policy;

use crate::metrics::exchanges::{Exchanges, RouteSeries};
use crate::settings::{Direction, Limits, Listener, Settings, Upstream};
use crate::shipping::redact::Rules;
use crate::traffic::peer::{Target, Upstreams};
use crate::traffic::resolve::Resolvers;
use crate::traffic::route::Router;
use crate::traffic::watched::Watch;
use policy::Policy;

/// The configuration that exchanges are served and recorded under.
#[derive(Debug)]
pub struct Generation {
    /// Counts from 1.
    pub number: u32,
    /// The settings it was made from.
    pub settings: Settings,
    /// Those of `settings`; connections keep them beyond the generation.
    pub limits: Arc<Limits>,
    default: Policy,
    routes: Vec<Policy>,
    router: Router,
    /// By listener.
    upstreams: Vec<Upstreams>,
    series: RouteSeries,
    _alive: Arc<()>,
}

impl Generation {
    /// Compiles `settings`, for what turns to no upstream; what is counted of its exchanges is told to nobody.
    pub fn new(number: u32, settings: Settings) -> Self {
        Self::of(number, settings, Vec::new(), &Lineage::default())
    }

    fn of(number: u32, settings: Settings, upstreams: Vec<Upstreams>, lineage: &Lineage) -> Self {
        let rules = Arc::new(Rules::new(&settings.redaction));
        let policy = |capture, redact: bool| Policy::new(capture, redact.then(|| Arc::clone(&rules)));
        let by_default = settings.redaction.enabled;
        let of_route = |route: &crate::settings::Route| {
            let redact = route.redaction.enabled.unwrap_or(by_default);
            policy(settings.capture.with(&route.capture), redact)
        };
        let paths = settings.routes.iter().map(|route| route.path.as_str());
        Self {
            number,
            limits: Arc::new(settings.limits.clone()),
            default: policy(settings.capture.clone(), by_default),
            routes: settings.routes.iter().map(of_route).collect(),
            router: Router::new(&settings.routes),
            upstreams,
            series: lineage.exchanges.routes(paths),
            _alive: Arc::clone(&lineage.alive),
            settings,
        }
    }

    /// What is recorded on a route; without one, the default.
    pub fn policy(&self, route: Option<u32>) -> &Policy {
        route
            .and_then(|index| self.routes.get(index as usize))
            .unwrap_or(&self.default)
    }

    /// Which route serves a request.
    pub fn router(&self) -> &Router {
        &self.router
    }

    /// Where a listener's requests go on a route.
    pub fn target(&self, listener: u16, route: Option<u32>) -> Option<&Target> {
        let upstreams = self.upstreams.get(usize::from(listener))?;
        Some(upstreams.target(route))
    }

    /// The settings of a listener.
    pub fn listener(&self, index: u16) -> &Listener {
        static UNKNOWN: LazyLock<Listener> = LazyLock::new(Listener::default);
        self.settings.listeners.get(usize::from(index)).unwrap_or(&UNKNOWN)
    }

    /// `https` or `http`: what a listener's clients ask by, or for the service's own calls, what is asked.
    pub fn scheme(&self, listener: u16, route: Option<u32>) -> &'static str {
        match self.direction(listener) {
            Direction::Inbound => self.listener(listener).scheme(),
            Direction::Outbound => self.upstream(listener, route).map_or("http", Upstream::scheme),
        }
    }

    /// `unix:/path`, where that is the upstream of a listener's requests on a route.
    pub fn socket(&self, listener: u16, route: Option<u32>) -> Option<String> {
        let upstream = self.upstream(listener, route)?;
        upstream.endpoint().is_none().then(|| upstream.to_string())
    }

    fn upstream(&self, listener: u16, route: Option<u32>) -> Option<&Upstream> {
        let route = route.and_then(|route| self.settings.routes.get(route as usize)?.upstream.as_ref());
        route.or(self.listener(listener).upstream.as_ref())
    }

    /// Whose calls a listener carries.
    pub fn direction(&self, listener: u16) -> Direction {
        self.listener(listener).direction
    }

    /// Where its exchanges are counted.
    pub fn series(&self) -> &RouteSeries {
        &self.series
    }

    /// The path of a route as configured: `http.route`.
    pub fn route_path(&self, route: Option<u32>) -> Option<&str> {
        self.settings
            .routes
            .get(route? as usize)
            .map(|route| route.path.as_str())
    }
}

/// What passes from one generation to the next.
#[derive(Debug, Default)]
struct Lineage {
    exchanges: Arc<Exchanges>,
    watch: Arc<Watch>,
    resolvers: Resolvers,
    /// Each generation has a share in it.
    alive: Arc<()>,
}

impl Lineage {
    fn compile(&self, number: u32, settings: Settings) -> anyhow::Result<Generation> {
        let listeners = settings.listeners.iter().enumerate();
        let upstreams = listeners
            .map(|(index, listener)| Upstreams::load(&settings, index, listener, &self.watch, &self.resolvers))
            .collect::<anyhow::Result<_>>()?;
        Ok(Generation::of(number, settings, upstreams, self))
    }
}

/// The generation in force, and how the next one comes after it.
#[derive(Debug)]
pub struct Generations {
    in_force: ArcSwap<Generation>,
    lineage: Lineage,
}

impl Generations {
    /// The first one.
    ///
    /// # Errors
    /// When a file that the settings of an upstream name can't be used; the message names it and its key.
    pub fn begin(settings: Settings) -> anyhow::Result<Self> {
        let lineage = Lineage::default();
        let first = lineage.compile(1, settings)?;
        Ok(Self {
            in_force: ArcSwap::from_pointee(first),
            lineage,
        })
    }

    /// Puts the next one in force; who has the one before keeps it.
    ///
    /// # Errors
    /// As [`begin`](Self::begin); then nothing has changed.
    pub fn succeed(&self, settings: Settings) -> anyhow::Result<()> {
        let before = self.in_force();
        let mut next = self.lineage.compile(before.number.wrapping_add(1), settings)?;
        if next.limits == before.limits {
            next.limits = Arc::clone(&before.limits);
        }
        self.in_force.store(Arc::new(next));
        Ok(())
    }

    /// The one in force now. An exchange asks once.
    pub fn in_force(&self) -> Arc<Generation> {
        self.in_force.load_full()
    }

    /// How many there are: the one in force, and those before it that exchanges are still under.
    pub fn in_use(&self) -> usize {
        Arc::strong_count(&self.lineage.alive) - 1
    }

    /// Where the exchanges of all of them are counted.
    pub fn exchanges(&self) -> &Arc<Exchanges> {
        &self.lineage.exchanges
    }

    /// The files that the settings name, followed.
    pub fn watch(&self) -> &Arc<Watch> {
        &self.lineage.watch
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_route_changes_only_what_it_names() {
        let mut settings = Settings::default();
        let mut route = crate::settings::Route {
            path: "/quiet".to_owned(),
            ..Default::default()
        };
        route.capture.response_body = Some(false);
        settings.routes = vec![route];
        let generation = Generation::new(1, settings);
        assert!(!generation.policy(Some(0)).response_body());
        assert!(generation.policy(Some(0)).request_body());
        assert!(generation.policy(None).response_body());
        assert_eq!(generation.route_path(Some(0)), Some("/quiet"));
        assert_eq!(generation.route_path(None), None);
    }

    #[test]
    fn limits_that_stay_the_same_are_shared() {
        let generations = Generations::begin(Settings::default()).unwrap();
        let first = generations.in_force();
        generations.succeed(Settings::default()).unwrap();
        assert!(Arc::ptr_eq(&first.limits, &generations.in_force().limits));
        assert_eq!((first.number, generations.in_force().number), (1, 2));
        let mut settings = Settings::default();
        settings.limits.header_fields_max = 7;
        generations.succeed(settings).unwrap();
        assert_eq!(generations.in_force().limits.header_fields_max, 7);
    }

    #[test]
    fn what_can_t_be_compiled_changes_nothing() {
        let generations = Generations::begin(Settings::default()).unwrap();
        let mut settings = Settings::default();
        settings.listeners[0].upstream = Some("https://a.test".parse().unwrap());
        settings.listeners[0].upstream_tls.ca_file = Some("/nowhere/ca.pem".into());
        let error = generations.succeed(settings).unwrap_err();
        assert!(format!("{error:#}").contains("/nowhere/ca.pem"), "{error:#}");
        assert_eq!((generations.in_force().number, generations.in_use()), (1, 1));
    }
}
