//! Letters on their way into the dead letter stream.
//!
//! Invariants:
//! - A line is settled only after the dead letter stream has it.
//! - Setting lines aside holds up no push: a dead letter stream that is denied holds the messages with bad lines and no others
//!   (`a_dead_letter_stream_that_is_denied_holds_the_messages_with_bad_lines_and_no_others`).

use std::collections::VecDeque;
use std::sync::Arc;

use tokio::task::JoinSet;

use super::{DeadLetters, Letter};
use crate::ledger::Ledger;

/// Letters that are published at a time.
const AT_ONCE: usize = 16;

/// Letters that wait or are being published. Their lines are part of messages whose bytes are reserved.
#[derive(Debug)]
pub(crate) struct Letters {
    dead_letters: Arc<DeadLetters>,
    ledger: Arc<Ledger>,
    waiting: VecDeque<Letter>,
    waiting_bytes: usize,
    running: JoinSet<()>,
}

impl Letters {
    pub(crate) fn new(dead_letters: DeadLetters, ledger: Arc<Ledger>) -> Self {
        Self {
            dead_letters: Arc::new(dead_letters),
            ledger,
            waiting: VecDeque::new(),
            waiting_bytes: 0,
            running: JoinSet::new(),
        }
    }

    pub(crate) fn extend(&mut self, letters: impl IntoIterator<Item = Letter>) {
        for letter in letters {
            self.waiting_bytes += letter.line.len();
            self.waiting.push_back(letter);
        }
    }

    /// None waits and none is under way.
    pub(crate) fn is_empty(&self) -> bool {
        self.waiting.is_empty() && self.running.is_empty()
    }

    /// Bytes of the lines that wait.
    pub(crate) fn waiting_bytes(&self) -> usize {
        self.waiting_bytes
    }

    /// Publishes letters until one has been dealt with. Cancel safe.
    pub(crate) async fn work(&mut self) {
        while self.running.len() < AT_ONCE
            && let Some(letter) = self.waiting.pop_front()
        {
            self.waiting_bytes -= letter.line.len();
            let dead_letters = Arc::clone(&self.dead_letters);
            let held = Held {
                ledger: Arc::clone(&self.ledger),
                letter,
            };
            self.running.spawn(async move {
                dead_letters.set_aside(&held.letter).await;
                held.ledger.settle(&held.letter.delivery).await;
            });
        }
        if let Some(Err(error)) = self.running.join_next().await {
            tracing::error!(%error, "setting a line aside broke down; its message is delivered again after ack_wait");
        }
    }
}

/// Lets the message of a letter go when the work on it breaks down; one that is settled stays so.
struct Held {
    ledger: Arc<Ledger>,
    letter: Letter,
}

impl Drop for Held {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.ledger.abandon(&self.letter.delivery);
        }
    }
}
