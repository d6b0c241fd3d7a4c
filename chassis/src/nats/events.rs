//! What happens to the connection, told to the log: each change once, in plain words.

use std::collections::BTreeSet;
use std::sync::{Mutex, PoisonError};

use async_nats::{ClientError, Event, ServerError};
use tokio::sync::watch;

/// Refused subjects that are remembered, so that each is told once.
const MAX_REFUSED: usize = 64;

/// The subjects that the server didn't let us publish to.
pub(super) type Refused = watch::Sender<BTreeSet<String>>;

/// Tells the log what happens to the connection: each change once, in plain words.
pub(super) struct Teller {
    servers: String,
    up: watch::Sender<bool>,
    refused: Refused,
    /// The trouble told last; the same trouble again is not told again.
    trouble: Mutex<Option<String>>,
}

impl Teller {
    pub(super) fn new(servers: String, up: watch::Sender<bool>, refused: Refused) -> Self {
        Self {
            servers,
            up,
            refused,
            trouble: Mutex::new(None),
        }
    }

    pub(super) fn tell(&self, event: &Event) {
        match event {
            Event::Connected => {
                self.refused.send_modify(BTreeSet::clear);
                self.forget_trouble();
                self.up.send_replace(true);
                tracing::info!(servers = self.servers, "connected to NATS");
            }
            Event::Disconnected => {
                self.up.send_replace(false);
                tracing::warn!(servers = self.servers, "lost the connection to NATS, connecting again");
            }
            Event::LameDuckMode => tracing::info!("the NATS server is about to stop, another one will be taken"),
            Event::SlowConsumer(subscription) => {
                tracing::warn!(subscription, "a NATS subscription is read too slowly and lost messages");
            }
            Event::ServerError(error) => self.server_error(error),
            Event::ClientError(error) => self.client_error(error),
            Event::Draining => {}
            Event::Closed => {
                self.up.send_replace(false);
                tracing::debug!("closed the connection to NATS");
            }
        }
    }

    fn server_error(&self, error: &ServerError) {
        let text = error.to_string();
        let Some(subject) = refused_subject(&text) else {
            if self.is_new_trouble(&text) {
                tracing::warn!(error = text, "the NATS server reports an error");
            }
            return;
        };
        let mut is_new = false;
        self.refused.send_if_modified(|refused| {
            is_new = refused.len() < MAX_REFUSED && refused.insert(subject.to_owned());
            is_new
        });
        // What the JetStream API refuses is told by whoever asked for it.
        if is_new && !subject.starts_with("$JS.API.") {
            tracing::error!(
                subject,
                "NATS doesn't let us publish there; grant the user that permission"
            );
        }
    }

    fn client_error(&self, error: &ClientError) {
        let text = error.to_string();
        let text = text.strip_prefix("nats: ").unwrap_or(&text);
        if !self.is_new_trouble(text) {
            return;
        }
        if text.contains("authorization violation") || text.contains("signing nonce") {
            tracing::error!(
                servers = self.servers,
                "NATS refuses our credentials; check nats.url, nats.creds_file, nats.nkey_file, nats.token_file or \
                 nats.user and nats.password_file"
            );
        } else {
            tracing::warn!(servers = self.servers, error = text, "NATS can't be reached, trying on");
        }
    }

    fn is_new_trouble(&self, text: &str) -> bool {
        let mut trouble = self.trouble.lock().unwrap_or_else(PoisonError::into_inner);
        if trouble.as_deref() == Some(text) {
            return false;
        }
        *trouble = Some(text.to_owned());
        true
    }

    fn forget_trouble(&self) {
        *self.trouble.lock().unwrap_or_else(PoisonError::into_inner) = None;
    }
}

/// The subject in `Permissions Violation for Publish to "logs.a"`.
fn refused_subject(text: &str) -> Option<&str> {
    let (_, quoted) = text.split_once("Permissions Violation for Publish to \"")?;
    quoted.split('"').next()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_refused_subject_is_read_from_the_servers_words() {
        let text = "nats: Permissions Violation for Publish to \"$JS.API.STREAM.CREATE.logs\"";
        assert_eq!(refused_subject(text), Some("$JS.API.STREAM.CREATE.logs"));
        assert_eq!(
            refused_subject("nats: Permissions Violation for Subscription to \"a\""),
            None
        );
    }
}
