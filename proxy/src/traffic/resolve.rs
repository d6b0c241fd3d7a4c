//! Where an upstream is: a name's addresses, looked up again while traffic goes on.
//!
//! Invariants:
//! - A known name never makes a request wait: a stale answer serves while a new one is fetched
//!   (`a_name_that_has_moved_is_followed_and_nobody_waits_for_it`).
//! - A name that stops resolving keeps its last addresses (`a_name_that_stops_resolving_keeps_its_addresses`).
//! - What one generation knows of a name the next one knows, too (`a_name_in_use_has_one_resolver`).

use std::collections::HashMap;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

use arc_swap::ArcSwapOption;
use parking_lot::Mutex;

/// How long an answer is taken for fresh.
const FRESH: Duration = Duration::from_secs(5);

/// The resolvers in use, by name and port.
#[derive(Debug, Default)]
pub struct Resolvers {
    known: Mutex<HashMap<(String, u16), Weak<Resolver>>>,
}

impl Resolvers {
    /// That of an upstream, which keeps it for as long as it is to be known.
    pub fn of(&self, host: &str, port: u16) -> Arc<Resolver> {
        let place = (host.to_owned(), port);
        let mut known = self.known.lock();
        if let Some(resolver) = known.get(&place).and_then(Weak::upgrade) {
            return resolver;
        }
        known.retain(|_, resolver| resolver.strong_count() > 0);
        let resolver = Resolver::new(host, port);
        known.insert(place, Arc::downgrade(&resolver));
        resolver
    }
}

/// The addresses of one upstream.
#[derive(Debug)]
pub struct Resolver {
    host: String,
    port: u16,
    known: ArcSwapOption<Answer>,
    looking: AtomicBool,
}

#[derive(Debug)]
struct Answer {
    addresses: Vec<SocketAddr>,
    fetched: Option<Instant>,
}

impl Answer {
    fn pick(&self, attempt: u32) -> Option<SocketAddr> {
        let count = self.addresses.len().max(1);
        self.addresses.get(attempt as usize % count).copied()
    }

    fn stale(&self) -> bool {
        self.fetched.is_some_and(|fetched| fetched.elapsed() > FRESH)
    }
}

impl Resolver {
    /// For the host of an upstream, an IPv6 address without brackets. An address in digits is never looked up.
    pub fn new(host: &str, port: u16) -> Arc<Self> {
        let digits = host.parse::<IpAddr>();
        let known = digits.ok().map(|ip| {
            Arc::new(Answer {
                addresses: vec![SocketAddr::new(ip, port)],
                fetched: None,
            })
        });
        Arc::new(Self {
            host: host.to_owned(),
            port,
            known: ArcSwapOption::from(known),
            looking: AtomicBool::new(false),
        })
    }

    /// How many addresses are known; a connection that fails is worth as many attempts.
    pub fn count(&self) -> usize {
        self.known.load().as_ref().map_or(0, |answer| answer.addresses.len())
    }

    /// The address for the `attempt`-th try of an exchange, from 0.
    ///
    /// # Errors
    /// When the name has never resolved and doesn't now.
    pub async fn address(self: &Arc<Self>, attempt: u32) -> io::Result<SocketAddr> {
        let known = self
            .known
            .load()
            .as_ref()
            .map(|answer| (answer.pick(attempt), answer.stale()));
        let Some((Some(address), stale)) = known else {
            let answer = self.look_up().await?;
            return answer
                .pick(attempt)
                .ok_or_else(|| io::Error::other("the name has no address"));
        };
        if stale && !self.looking.swap(true, Ordering::AcqRel) {
            let this = Arc::clone(self);
            tokio::spawn(async move {
                if let Err(error) = this.look_up().await {
                    tracing::warn!(host = this.host, %error, "upstream name no longer resolves; its last addresses stay in use");
                    this.keep();
                }
                this.looking.store(false, Ordering::Release);
            });
        }
        Ok(address)
    }

    /// Takes the last answer for fresh again, so that a failing name is not asked for by every request.
    fn keep(&self) {
        let kept = self.known.load().as_ref().map(|answer| Answer {
            addresses: answer.addresses.clone(),
            fetched: Some(Instant::now()),
        });
        self.known.store(kept.map(Arc::new));
    }

    async fn look_up(&self) -> io::Result<Arc<Answer>> {
        let lookup = tokio::net::lookup_host((self.host.as_str(), self.port));
        let found = tokio::time::timeout(FRESH, lookup)
            .await
            .map_err(|_| io::Error::new(io::ErrorKind::TimedOut, "looking the name up took too long"))??;
        let mut addresses: Vec<SocketAddr> = found.collect();
        // Most services bind to IPv4 only; asking there first saves a refused connection each time.
        addresses.sort_by_key(SocketAddr::is_ipv6);
        addresses.dedup();
        let answer = Arc::new(Answer {
            addresses,
            fetched: Some(Instant::now()),
        });
        if !answer.addresses.is_empty() {
            self.known.store(Some(Arc::clone(&answer)));
        }
        Ok(answer)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn resolver(host: &str) -> Arc<Resolver> {
        Resolver::new(host, 9000)
    }

    #[test]
    fn a_name_in_use_has_one_resolver() {
        let resolvers = Resolvers::default();
        let first = resolvers.of("a.test", 1);
        assert!(Arc::ptr_eq(&first, &resolvers.of("a.test", 1)));
        let other = resolvers.of("a.test", 2);
        assert!(!Arc::ptr_eq(&first, &other));
        drop((first, other));
        let _last = resolvers.of("b.test", 1);
        assert_eq!(resolvers.known.lock().len(), 1, "those no longer in use are forgotten");
    }

    #[tokio::test]
    async fn digits_are_known_at_once() {
        assert_eq!(
            resolver("127.0.0.1").address(0).await.unwrap(),
            "127.0.0.1:9000".parse().unwrap()
        );
        assert_eq!(resolver("::1").address(3).await.unwrap(), "[::1]:9000".parse().unwrap());
    }

    #[tokio::test]
    async fn a_name_is_looked_up_and_its_addresses_are_tried_in_turn() {
        let resolver = resolver("localhost");
        let first = resolver.address(0).await.unwrap();
        assert!(first.ip().is_loopback());
        let count = u32::try_from(resolver.count()).unwrap();
        assert_eq!(resolver.address(count).await.unwrap(), first);
    }

    #[tokio::test]
    async fn a_name_that_never_resolved_is_an_error() {
        resolver("nowhere.invalid").address(0).await.unwrap_err();
    }

    /// A resolver that has known `192.0.2.1` for longer than answers are fresh.
    fn stale(host: &str) -> Arc<Resolver> {
        let resolver = resolver(host);
        let answer = Answer {
            addresses: vec!["192.0.2.1:9000".parse().unwrap()],
            fetched: Instant::now().checked_sub(2 * FRESH),
        };
        resolver.known.store(Some(Arc::new(answer)));
        resolver
    }

    async fn looked_up(resolver: &Resolver) {
        let looking = || resolver.looking.load(Ordering::Acquire);
        assert!(looking());
        while looking() {
            tokio::task::yield_now().await;
        }
    }

    #[tokio::test]
    async fn a_name_that_has_moved_is_followed_and_nobody_waits_for_it() {
        let resolver = stale("localhost");
        assert_eq!(resolver.address(0).await.unwrap().ip().to_string(), "192.0.2.1");
        looked_up(&resolver).await;
        assert!(resolver.address(0).await.unwrap().ip().is_loopback());
    }

    #[tokio::test]
    async fn a_name_that_stops_resolving_keeps_its_addresses() {
        let resolver = stale("nowhere.invalid");
        resolver.address(0).await.unwrap();
        looked_up(&resolver).await;
        assert_eq!(resolver.address(0).await.unwrap().ip().to_string(), "192.0.2.1");
        assert!(
            !resolver.looking.load(Ordering::Acquire),
            "it is not asked for by every request"
        );
    }
}
