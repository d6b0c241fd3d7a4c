//! One generation of the configuration, compiled: what both sides ask of it, exchange by exchange.
//!
//! Every exchange carries the number of the generation it was served under, so that the shipping side
//! judges it by the same rules.

use std::sync::Arc;

pub mod policy;

use crate::metrics::exchanges::{Exchanges, RouteSeries};
use crate::settings::{Direction, Listener, Settings};
use policy::Policy;

/// The configuration that exchanges are served and recorded under.
#[derive(Debug)]
pub struct Generation {
    /// Counts from 1.
    pub number: u32,
    /// The settings it was made from.
    pub settings: Settings,
    default: Policy,
    routes: Vec<Policy>,
    series: RouteSeries,
}

impl Generation {
    /// Compiles `settings`; what is counted of its exchanges is told to nobody.
    pub fn new(number: u32, settings: Settings) -> Self {
        Self::counted(number, settings, &Arc::default())
    }

    /// Compiles `settings`; its exchanges are counted with those of the generations before.
    pub fn counted(number: u32, settings: Settings, exchanges: &Arc<Exchanges>) -> Self {
        let default = Policy::new(settings.capture.clone(), settings.redaction.enabled);
        let routes = settings
            .routes
            .iter()
            .map(|route| {
                let redact = route.redaction.enabled.unwrap_or(settings.redaction.enabled);
                Policy::new(settings.capture.with(&route.capture), redact)
            })
            .collect();
        let series = exchanges.routes(settings.routes.iter().map(|route| route.path.as_str()));
        Self {
            number,
            settings,
            default,
            routes,
            series,
        }
    }

    /// What is recorded on a route; without one, the default.
    pub fn policy(&self, route: Option<u32>) -> &Policy {
        route
            .and_then(|index| self.routes.get(index as usize))
            .unwrap_or(&self.default)
    }

    /// `https` or `http`: what a listener's clients speak.
    pub fn scheme(&self, listener: u16) -> &'static str {
        let listener = self.settings.listeners.get(usize::from(listener));
        listener.map_or("http", Listener::scheme)
    }

    /// `unix:/path`, where that is the upstream of a listener's requests on a route.
    pub fn socket(&self, listener: u16, route: Option<u32>) -> Option<String> {
        let route = route.and_then(|route| self.settings.routes.get(route as usize)?.upstream.as_ref());
        let upstream = match route {
            Some(upstream) => upstream,
            None => self.settings.listeners.get(usize::from(listener))?.upstream.as_ref()?,
        };
        upstream.endpoint().is_none().then(|| upstream.to_string())
    }

    /// Whose calls a listener carries.
    pub fn direction(&self, listener: u16) -> Direction {
        let listener = self.settings.listeners.get(usize::from(listener));
        listener.map(|listener| listener.direction).unwrap_or_default()
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
}
