//! What must fit together.

use std::net::{IpAddr, SocketAddr};

use sidelog_chassis::settings::{ByteSize, Misfit, Validate};
use sidelog_record::MAX_ENCODED;

use super::{Capture, KeepBodies, Settings, Upstream, UpstreamTls};

/// What a NATS server takes in a message by default (`max_payload`, 1 MiB), without the room for the headers of a frame.
const MAX_FRAME: ByteSize = ByteSize::kib(1020);
/// A frame below this would hold hardly a record.
const MIN_FRAME: ByteSize = ByteSize::kib(1);

impl Validate for Settings {
    fn validate(&self) -> Vec<Misfit> {
        let mut misfits = self.nats.validate();
        self.check_sizes(&mut misfits);
        self.check_addresses(&mut misfits);
        self.check_loops(&mut misfits);
        self.check_routes(&mut misfits);
        self.check_tls(&mut misfits);
        misfits.extend(self.traces.misfits());
        misfits
    }
}

impl Settings {
    /// The keys by which bodies are recorded with their secrets in them.
    pub fn unredacted(&self) -> Vec<String> {
        let everywhere =
            (!self.redaction.enabled && records_bodies(&self.capture)).then(|| "redaction.enabled".to_owned());
        let routes = self.routes.iter().enumerate().filter_map(|(index, route)| {
            let off = route.redaction.enabled == Some(false);
            (off && records_bodies(&self.capture.with(&route.capture)))
                .then(|| format!("routes.{index}.redaction.enabled"))
        });
        everywhere.into_iter().chain(routes).collect()
    }

    fn check_sizes(&self, misfits: &mut Vec<Misfit>) {
        let (queue, capture, frame) = (&self.queue, &self.capture, &self.frame);
        if queue.bodies_max_bytes > queue.max_bytes {
            misfits.push(Misfit::new(
                ["queue.bodies_max_bytes", "queue.max_bytes"],
                format!(
                    "queue.bodies_max_bytes ({}) is more than queue.max_bytes ({}), so that exchanges would be dropped before bodies are \
                     left out; lower the first or raise the second",
                    queue.bodies_max_bytes, queue.max_bytes
                ),
            ));
        }
        if frame.max_bytes < MIN_FRAME || frame.max_bytes > MAX_FRAME {
            misfits.push(Misfit::new(
                ["frame.max_bytes"],
                format!(
                    "{} is out of range; write {MIN_FRAME} to {MAX_FRAME}, NATS servers take messages of 1MiB",
                    frame.max_bytes
                ),
            ));
        }
        let spool = self.spool.max_bytes;
        if spool > ByteSize::new(0) && spool.bytes() < frame.max_bytes.bytes().saturating_mul(4) {
            misfits.push(Misfit::new(
                ["spool.max_bytes", "frame.max_bytes"],
                format!(
                    "spool.max_bytes ({spool}) is less than four times frame.max_bytes ({}); raise the first, lower the second, or write \
                     0 for no spool",
                    frame.max_bytes
                ),
            ));
        }
        let largest = ByteSize::new(MAX_ENCODED as u64);
        let routes = self.routes.iter().enumerate();
        let of_routes = routes
            .filter_map(|(index, route)| Some((format!("routes.{index}.capture.body_max"), route.capture.body_max?)));
        for (key, body_max) in std::iter::once(("capture.body_max".to_owned(), capture.body_max)).chain(of_routes) {
            if body_max > largest {
                let message =
                    format!("{body_max} is more than a record holds, {MAX_ENCODED} bytes in all; write 240KiB at most");
                misfits.push(Misfit::new([key], message));
            } else if body_max.bytes().saturating_mul(2) > queue.max_bytes.bytes() {
                let message = format!(
                    "two bodies of {key} ({body_max}) are more than queue.max_bytes ({}); lower the first or raise the second",
                    queue.max_bytes
                );
                misfits.push(Misfit::new([key, "queue.max_bytes".to_owned()], message));
            }
        }
    }

    fn check_addresses(&self, misfits: &mut Vec<Misfit>) {
        if self.listeners.is_empty() {
            misfits.push(Misfit::new(
                ["listeners"],
                "no listener; write one [[listeners]] with an address, or leave the key out",
            ));
        }
        let mut taken: Vec<(String, SocketAddr)> = Vec::new();
        let listeners = self.listeners.iter().enumerate();
        let of_listeners = listeners.map(|(index, listener)| (format!("listeners.{index}.address"), listener.address));
        for (key, address) in of_listeners.chain([("admin.address".to_owned(), self.admin.address)]) {
            if let Some((other, at)) = taken.iter().find(|(_, other)| collide(*other, address)) {
                let message = format!(
                    "{key} ({address}) and {other} ({at}) are in each other's way; give each a port of its own"
                );
                misfits.push(Misfit::new([key.clone(), other.clone()], message));
            }
            taken.push((key, address));
        }
    }

    /// A listener whose requests come back to a listener would call itself for ever.
    fn check_loops(&self, misfits: &mut Vec<Misfit>) {
        let listeners = self.listeners.iter().enumerate();
        let of_listeners = listeners.map(|(index, listener)| {
            let upstream = listener.upstream.clone().unwrap_or_default();
            (format!("listeners.{index}.upstream"), upstream)
        });
        let routes = self.routes.iter().enumerate();
        let of_routes =
            routes.filter_map(|(index, route)| Some((format!("routes.{index}.upstream"), route.upstream.clone()?)));
        for (key, upstream) in of_listeners.chain(of_routes) {
            let own = self
                .listeners
                .iter()
                .position(|listener| reaches(&upstream, listener.address));
            if let Some(index) = own {
                let address = format!("listeners.{index}.address");
                let message = format!(
                    "{key} ({upstream}) leads back to this proxy's own {address}; write the service's address, or listen at another port"
                );
                misfits.push(Misfit::new([key, address], message));
            }
        }
    }

    fn check_tls(&self, misfits: &mut Vec<Misfit>) {
        for (index, listener) in self.listeners.iter().enumerate() {
            misfits.extend(listener.tls.misfits(&format!("listeners.{index}.tls")));
            misfits.extend(
                listener
                    .upstream_tls
                    .misfits(&format!("listeners.{index}.upstream_tls")),
            );
            if listener.tls.ca.is_some() && listener.upstream_tls.ca_file.is_some() {
                misfits.push(Misfit::new(
                    [
                        format!("listeners.{index}.tls.ca"),
                        format!("listeners.{index}.upstream_tls.ca_file"),
                    ],
                    "both say who signs the upstream's certificate; keep one of them",
                ));
            }
        }
        for (index, route) in self.routes.iter().enumerate() {
            let key = format!("routes.{index}.upstream_tls");
            misfits.extend(route.upstream_tls.misfits(&key));
            let of_use = route.upstream.as_ref().is_some_and(Upstream::is_tls);
            if route.upstream_tls != UpstreamTls::default() && !of_use {
                misfits.push(Misfit::new(
                    [key],
                    format!("is of no use: routes.{index}.upstream is not https://; write it there, or take this out"),
                ));
            }
        }
    }

    fn check_routes(&self, misfits: &mut Vec<Misfit>) {
        for (index, route) in self.routes.iter().enumerate() {
            let earlier = self
                .routes
                .iter()
                .take(index)
                .position(|other| other.requests() == route.requests());
            if let Some(earlier) = earlier {
                misfits.push(Misfit::new(
                    [format!("routes.{index}"), format!("routes.{earlier}")],
                    format!(
                        "{:?} is there twice for the same methods and host; the second would never serve, remove one",
                        route.path
                    ),
                ));
            }
        }
    }
}

fn records_bodies(capture: &Capture) -> bool {
    capture.enabled && (capture.request_body || capture.response_body) && capture.keep_bodies != KeepBodies::Never
}

/// Whether only one of them can be bound.
fn collide(one: SocketAddr, other: SocketAddr) -> bool {
    let same_family = one.is_ipv4() == other.is_ipv4();
    let same_ip = one.ip() == other.ip() || same_family && (one.ip().is_unspecified() || other.ip().is_unspecified());
    one.port() == other.port() && one.port() != 0 && same_ip
}

/// Whether a request to `upstream` arrives at `address` on this machine, as far as the names tell.
fn reaches(upstream: &Upstream, address: SocketAddr) -> bool {
    let Some((host, port)) = upstream.endpoint() else {
        return false;
    };
    if port != address.port() {
        return false;
    }
    match host.parse::<IpAddr>() {
        Ok(ip) => ip == address.ip() || (ip.is_loopback() || ip.is_unspecified()) && address.ip().is_unspecified(),
        Err(_) => {
            let is_local = host.eq_ignore_ascii_case("localhost");
            is_local && (address.ip().is_loopback() || address.ip().is_unspecified())
        }
    }
}
