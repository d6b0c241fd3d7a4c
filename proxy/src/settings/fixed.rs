//! The keys that are read once, at the start: a reload leaves them as they are, and names them.
//!
//! Invariants:
//! - A section is applied by a reload, or each of its keys stands here: a section or a key that is forgotten doesn't compile.

use sidelog_chassis::admin::AdminSettings;
use sidelog_chassis::logging::LogSettings;
use sidelog_chassis::nats::NatsSettings;

use super::{Frame, Publish, Queue, Runtime, Service, Settings, ShutdownSettings, Spool, Traces};

/// Gives every key of these sections the value that it has in `$running`; those that had another are pushed to `$told`. The
/// other sections are applied, but for what the code beside this takes care of.
macro_rules! keep {
    ($new:ident, $running:ident, $told:ident; $($section:ident: $type:ident { $($key:ident)* })*) => {
        let Self { routes: _, redaction: _, limits: _, capture: _, listeners: _, $($section: _),* } = $running;
        $(
            let $type { $($key),* } = &$running.$section;
            $(if $new.$section.$key != *$key {
                $new.$section.$key.clone_from($key);
                $told.push(concat!(stringify!($section), ".", stringify!($key)).to_owned());
            })*
        )*
    };
}

impl Settings {
    /// Takes from `running` what a reload can't change. Gives back the keys that would have changed.
    ///
    /// While the places where clients are served wait for a restart, so does everything else of the listeners: half of a
    /// listener would send its requests elsewhere.
    pub fn keep_fixed(&mut self, running: &Self) -> Vec<String> {
        let mut told = self.keep_listeners(running);
        keep! { self, running, told;
            service: Service { name version environment instance_id }
            queue: Queue { max_bytes bodies_max_bytes }
            frame: Frame { max_records max_bytes linger }
            publish: Publish { window ack_timeout }
            spool: Spool { directory max_bytes max_age replay_rate mode }
            nats: NatsSettings {
                url stream subject storage max_age stream_max_bytes stream_replicas creds_file nkey_file token_file user
                password_file wait_for_files tls
            }
            traces: Traces {
                enabled propagate parent_based sample endpoint insecure protocol headers headers_file compression timeout
                export_timeout queue_max batch_max linger attributes_max attribute_value_max links_max known_methods
                resource tls
            }
            admin: AdminSettings { address }
            shutdown: ShutdownSettings { delay deadline }
            log: LogSettings { level format }
            runtime: Runtime { threads }
        }
        if self.capture.memory_max != running.capture.memory_max {
            self.capture.memory_max = running.capture.memory_max;
            told.push("capture.memory_max".to_owned());
        }
        told
    }

    fn keep_listeners(&mut self, running: &Self) -> Vec<String> {
        let mut told = Vec::new();
        if self.listeners.len() != running.listeners.len() {
            told.push("listeners".to_owned());
        }
        for (index, (new, old)) in self.listeners.iter().zip(&running.listeners).enumerate() {
            for (key, is_same) in [("address", new.address == old.address), ("tls", new.tls == old.tls)] {
                if !is_same {
                    told.push(format!("listeners.{index}.{key}"));
                }
            }
        }
        if !told.is_empty() {
            self.listeners.clone_from(&running.listeners);
        }
        told
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::settings::{Listener, Route};

    #[test]
    fn what_is_read_at_the_start_stays_and_is_named_and_the_rest_changes() {
        let running = Settings::default();
        let mut new = Settings::default();
        new.nats.stream = "others".to_owned();
        new.traces.headers = "authorization=secret".parse().unwrap();
        new.capture.memory_max = sidelog_chassis::settings::ByteSize::mib(1);
        new.capture.sample = 0.5;
        new.limits.header_fields_max = 7;
        new.routes.push(Route::default());
        new.listeners[0].forwarded = true;
        let told = new.keep_fixed(&running);
        assert_eq!(told, ["nats.stream", "traces.headers", "capture.memory_max"]);
        assert_eq!(
            (&new.nats, &new.traces, new.capture.memory_max),
            (&running.nats, &running.traces, running.capture.memory_max)
        );
        assert_eq!(
            (new.capture.sample, new.limits.header_fields_max, new.routes.len()),
            (0.5, 7, 1)
        );
        assert!(new.listeners[0].forwarded);
        assert!(new.clone().keep_fixed(&new).is_empty());
    }

    #[test]
    fn a_listener_that_waits_keeps_all_of_itself() {
        let running = Settings::default();
        let mut moved = Settings::default();
        moved.listeners[0].address.set_port(1);
        moved.listeners[0].upstream = Some("http://a.test:1".parse().unwrap());
        let mut more = Settings::default();
        more.listeners.push(Listener::default());
        for (mut new, key) in [(moved, "listeners.0.address"), (more, "listeners")] {
            assert_eq!(new.keep_fixed(&running), [key]);
            assert_eq!(new.listeners, running.listeners);
        }
    }
}
