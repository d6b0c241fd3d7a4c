//! A double of Loki's push endpoint, for the answers that a real store gives only when it is in trouble.
//!
//! Source: Loki's HTTP API (`POST /loki/api/v1/push`), `pkg/push/push.proto`, and the texts of
//! `pkg/validation/validate.go`. As in Loki, a 400 is a partial success: entries that break no rule are stored. And as in Loki, what
//! an ingester refuses of a push is told of the last stream in the push only (`pkg/ingester/instance.go`, `Push`): an answer of
//! 204 says nothing about the streams before it.

mod push;
mod rules;

use std::{collections::HashSet, net::SocketAddr, sync::Arc, time::Duration};

use axum::{
    Router,
    body::Body,
    extract::{DefaultBodyLimit, Request, State},
    http::{HeaderMap, HeaderValue, StatusCode, header::RETRY_AFTER},
    response::{IntoResponse, Response},
    routing::post,
};
use bytes::Bytes;
use http_body_util::BodyExt;
use parking_lot::Mutex;

use crate::{Port, hosted::Hosted, wait::until};

pub use push::Entry;
pub use rules::LokiLimits;

/// A Loki that stores what it is sent unless told otherwise, identical entries once.
#[derive(Debug)]
pub struct LokiDouble {
    hosted: Option<Hosted>,
    port: Port,
    state: Arc<Mutex<Loki>>,
}

/// What the double answers to a push.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Answer {
    /// 204, and the entries are stored.
    Store,
    /// 260: ingestion is blocked for the tenant; nothing is stored.
    Blocked,
    /// 400 with this text; nothing is stored. For a partial success see [`LokiDouble::refuse`].
    BadRequest(String),
    /// 413; nothing is stored.
    TooLarge,
    /// 429 with this many seconds as `Retry-After`, if any; nothing is stored.
    RateLimited(Option<u64>),
    /// Another status with a text; nothing is stored.
    Status(u16, String),
    /// The entries are stored, and then the answer is 500: what a proxy before Loki does that gives up too early.
    StoreAndFail,
    /// No answer at all; nothing is stored.
    Silence,
}

/// One push as it arrived.
#[derive(Debug, Clone)]
pub struct Push {
    /// Header fields.
    pub headers: HeaderMap,
    /// The entries in it.
    pub entries: Vec<Entry>,
    /// The size of its body on the wire.
    pub compressed_bytes: usize,
    /// The status it got; 0 while it has none.
    pub status: u16,
}

type Refusal = Box<dyn Fn(&Entry) -> Option<String> + Send>;
type StreamRule = Box<dyn Fn(&str) -> bool + Send>;

#[derive(Default)]
struct Loki {
    script: std::collections::VecDeque<Answer>,
    always: Option<Answer>,
    limits: Option<LokiLimits>,
    refuse: Option<Refusal>,
    rate_limited: Option<StreamRule>,
    failing: Option<StreamRule>,
    slow: Option<(StreamRule, Duration)>,
    max_body: Option<usize>,
    pushes: Vec<Push>,
    stored: Vec<Entry>,
    identities: HashSet<(String, u64, Bytes)>,
}

impl LokiDouble {
    /// Starts one that stores everything.
    ///
    /// # Panics
    /// When it can't listen.
    #[must_use]
    pub fn start() -> Self {
        let port = Port::reserve();
        let state = Arc::new(Mutex::new(Loki::default()));
        let hosted = Some(Hosted::start(port.address(), router(&state)));
        Self { hosted, port, state }
    }

    /// `127.0.0.1:<port>`.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.port.address()
    }

    /// `http://127.0.0.1:<port>/loki/api/v1/push`.
    #[must_use]
    pub fn push_url(&self) -> String {
        format!("http://{}/loki/api/v1/push", self.address())
    }

    /// Answers the next pushes so, one each; those after them as before.
    pub fn script(&self, answers: impl IntoIterator<Item = Answer>) {
        self.state.lock().script.extend(answers);
    }

    /// Answers every push for which no script is left so, until told otherwise.
    pub fn always(&self, answer: Answer) {
        self.state.lock().always = Some(answer);
    }

    /// Refuses, of every push that would be stored, the entries for which `rule` has a text: the others are stored, and the
    /// answer is 400 with the first text. Replaces the rule before.
    pub fn refuse(&self, rule: impl Fn(&Entry) -> Option<String> + Send + 'static) {
        self.state.lock().refuse = Some(Box::new(rule));
    }

    /// Answers 429 for the streams whose labels `rule` picks, as for one above its own rate, and stores nothing of them.
    /// Replaces the rule before.
    pub fn rate_limit(&self, rule: impl Fn(&str) -> bool + Send + 'static) {
        self.state.lock().rate_limited = Some(Box::new(rule));
    }

    /// Answers 500 to pushes that hold a stream whose labels `rule` picks, and stores nothing of them. Replaces the rule before.
    pub fn fail(&self, rule: impl Fn(&str) -> bool + Send + 'static) {
        self.state.lock().failing = Some(Box::new(rule));
    }

    /// Takes so long for pushes that hold a stream whose labels `rule` picks. Replaces the rule before.
    pub fn slow(&self, time: Duration, rule: impl Fn(&str) -> bool + Send + 'static) {
        self.state.lock().slow = Some((Box::new(rule), time));
    }

    /// Refuses entries as Loki does by these limits, with its texts.
    pub fn limit(&self, limits: LokiLimits) {
        self.state.lock().limits = Some(limits);
    }

    /// Answers 413 to bodies that are larger than this when they are decompressed.
    pub fn max_body(&self, bytes: usize) {
        self.state.lock().max_body = Some(bytes);
    }

    /// What is stored, in the order of arrival.
    #[must_use]
    pub fn stored(&self) -> Vec<Entry> {
        self.state.lock().stored.clone()
    }

    /// How many entries are stored.
    #[must_use]
    pub fn count(&self) -> usize {
        self.state.lock().stored.len()
    }

    /// The lines of what is stored, in the order of arrival.
    #[must_use]
    pub fn lines(&self) -> Vec<String> {
        let loki = self.state.lock();
        loki.stored.iter().map(Entry::text).collect()
    }

    /// What is stored, taken out: from now on it is as new, and remembers nothing.
    #[must_use]
    pub fn take(&self) -> Vec<Entry> {
        let mut loki = self.state.lock();
        loki.pushes.clear();
        loki.identities.clear();
        std::mem::take(&mut loki.stored)
    }

    /// Every push so far, refused ones too.
    #[must_use]
    pub fn pushes(&self) -> Vec<Push> {
        self.state.lock().pushes.clone()
    }

    /// Waits until at least so many entries are stored.
    ///
    /// # Panics
    /// When they don't come.
    pub async fn stores(&self, count: usize) {
        until("the double stores the entries", async || {
            self.state.lock().stored.len() >= count
        })
        .await;
    }

    /// Waits until at least so many pushes have come.
    ///
    /// # Panics
    /// When they don't come.
    pub async fn gets(&self, count: usize) {
        until("the double gets the pushes", async || {
            self.state.lock().pushes.len() >= count
        })
        .await;
    }

    /// Ends it, and every connection with it. What is stored stays.
    pub fn kill(&mut self) {
        self.hosted = None;
    }

    /// Starts it again at the same port.
    ///
    /// # Panics
    /// When it can't listen.
    pub fn restart(&mut self) {
        self.kill();
        self.hosted = Some(Hosted::start(self.port.address(), router(&self.state)));
    }
}

impl Loki {
    /// How long a push takes.
    fn time_of(&self, entries: &[Entry]) -> Duration {
        let slow = self.slow.as_ref();
        let slow = slow.filter(|(rule, _)| entries.iter().any(|entry| rule(&entry.labels)));
        slow.map_or(Duration::ZERO, |(_, time)| *time)
    }

    /// Decides about a push, and stores what is to be stored.
    fn judge(&mut self, entries: &[Entry], decompressed: usize) -> Answer {
        if self.max_body.is_some_and(|max| decompressed > max) {
            return Answer::TooLarge;
        }
        let fails = |entry: &Entry| self.failing.as_ref().is_some_and(|rule| rule(&entry.labels));
        if entries.iter().any(fails) {
            return Answer::Status(500, "at least 1 live replicas required, could only find 0\n".to_owned());
        }
        let answer = self.script.pop_front().or_else(|| self.always.clone());
        match answer.unwrap_or(Answer::Store) {
            Answer::Store => self.store(entries),
            Answer::StoreAndFail => {
                self.store(entries);
                Answer::StoreAndFail
            }
            answer => answer,
        }
    }

    /// Stores what breaks no rule. As in Loki, an ingester's refusal comes before a distributor's, and is that of the last
    /// stream.
    fn store(&mut self, entries: &[Entry]) -> Answer {
        let mut invalid = None;
        let mut of_last = None;
        for stream in entries.chunk_by(|left, right| left.labels == right.labels) {
            let mut valid = Vec::new();
            for entry in stream {
                match self.invalid(entry) {
                    Some(text) => drop(invalid.get_or_insert(text)),
                    None => valid.push(entry),
                }
            }
            if !valid.is_empty() {
                of_last = self.ingest(&valid);
            }
        }
        let invalid = invalid.map(Answer::BadRequest);
        of_last.or(invalid).unwrap_or(Answer::Store)
    }

    fn invalid(&self, entry: &Entry) -> Option<String> {
        let refused = self.refuse.as_ref().and_then(|rule| rule(entry));
        refused.or_else(|| self.limits.as_ref()?.invalid(entry))
    }

    /// What an ingester does with the entries of a stream; the answer is about those that it refuses.
    fn ingest(&mut self, entries: &[&Entry]) -> Option<Answer> {
        let first = entries.first()?;
        if self.rate_limited.as_ref().is_some_and(|rule| rule(&first.labels)) {
            let failed: Vec<_> = entries
                .iter()
                .map(|entry| (*entry, rules::rate_limited(entry)))
                .collect();
            return Some(Answer::Status(429, rules::ignored(&failed, entries.len())));
        }
        let mut failed = Vec::new();
        for entry in entries {
            if let Some(text) = self.limits.as_mut().and_then(|limits| limits.too_far_behind(entry)) {
                failed.push((*entry, text));
            } else if self.identities.insert(entry.identity()) {
                self.stored.push((*entry).clone());
            }
        }
        (!failed.is_empty()).then(|| Answer::BadRequest(rules::ignored(&failed, entries.len())))
    }
}

impl std::fmt::Debug for Loki {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Loki")
            .field("pushes", &self.pushes.len())
            .field("stored", &self.stored.len())
            .finish_non_exhaustive()
    }
}

fn router(state: &Arc<Mutex<Loki>>) -> Router {
    Router::new()
        .route("/loki/api/v1/push", post(take))
        .layer(DefaultBodyLimit::disable())
        .with_state(Arc::clone(state))
}

async fn take(State(state): State<Arc<Mutex<Loki>>>, request: Request) -> Response {
    let (head, body) = request.into_parts();
    let Ok(body) = body.collect().await else {
        return StatusCode::BAD_REQUEST.into_response();
    };
    let body = body.to_bytes();
    let (entries, decompressed) = match push::decode(&head.headers, &body) {
        Ok(decoded) => decoded,
        Err(text) => return (StatusCode::BAD_REQUEST, text).into_response(),
    };
    let time = state.lock().time_of(&entries);
    if !time.is_zero() {
        tokio::time::sleep(time).await;
    }
    let answer = {
        let mut loki = state.lock();
        let answer = loki.judge(&entries, decompressed);
        loki.pushes.push(Push {
            headers: head.headers,
            entries,
            compressed_bytes: body.len(),
            status: answer.status().as_u16(),
        });
        answer
    };
    if answer == Answer::Silence {
        tokio::time::sleep(Duration::MAX).await;
    }
    answer.into_response()
}

impl Answer {
    fn status(&self) -> StatusCode {
        let code = match self {
            Self::Store => 204,
            Self::Blocked => 260,
            Self::BadRequest(_) => 400,
            Self::TooLarge => 413,
            Self::RateLimited(_) => 429,
            Self::StoreAndFail => 500,
            Self::Status(code, _) => *code,
            Self::Silence => 503,
        };
        StatusCode::from_u16(code).expect("a status code")
    }

    fn text(&self) -> String {
        match self {
            Self::Store => String::new(),
            Self::Blocked => "ingestion blocked for user fake until '2099-01-01T00:00:00Z' with status code '260'\n".to_owned(),
            Self::BadRequest(text) | Self::Status(_, text) => text.clone(),
            Self::TooLarge => "request body too large\n".to_owned(),
            Self::RateLimited(_) => {
                "Ingestion rate limit exceeded for user fake (limit: 4194304 bytes/sec) while attempting to ingest '1' lines totaling '1' bytes, reduce log volume or contact your Loki administrator to see if the limit can be increased\n".to_owned()
            }
            Self::StoreAndFail => "context deadline exceeded\n".to_owned(),
            Self::Silence => "never sent\n".to_owned(),
        }
    }
}

impl IntoResponse for Answer {
    fn into_response(self) -> Response {
        let mut response = Response::new(Body::from(self.text()));
        *response.status_mut() = self.status();
        if let Self::RateLimited(Some(seconds)) = self {
            response.headers_mut().insert(RETRY_AFTER, HeaderValue::from(seconds));
        }
        response
    }
}

#[cfg(test)]
mod tests {
    use super::{push::tests::encode, *};
    use crate::http;

    fn entry(timestamp: u64) -> Entry {
        Entry {
            labels: "{service=\"api\"}".to_owned(),
            timestamp,
            line: format!("line {timestamp}").into(),
            metadata: Vec::new(),
        }
    }

    async fn push(loki: &LokiDouble, entries: &[Entry]) -> (u16, String) {
        let answer = http::client()
            .post(loki.push_url())
            .header("content-type", "application/x-protobuf")
            .body(encode(entries))
            .send()
            .await
            .unwrap();
        (answer.status().as_u16(), answer.text().await.unwrap())
    }

    #[tokio::test]
    async fn identical_entries_are_stored_once() {
        let loki = LokiDouble::start();
        assert_eq!(push(&loki, &[entry(1), entry(2)]).await.0, 204);
        assert_eq!(push(&loki, &[entry(2), entry(3)]).await.0, 204);
        assert_eq!(loki.lines(), ["line 1", "line 2", "line 3"]);
        assert_eq!(loki.pushes().len(), 2);
    }

    #[tokio::test]
    async fn the_script_is_answered_first_and_stores_nothing() {
        let loki = LokiDouble::start();
        loki.script([
            Answer::RateLimited(Some(7)),
            Answer::Blocked,
            Answer::Status(503, "away".to_owned()),
        ]);
        for status in [429, 260, 503, 204] {
            assert_eq!(push(&loki, &[entry(1)]).await.0, status);
            assert_eq!(loki.stored().len(), usize::from(status == 204));
        }
        let statuses: Vec<u16> = loki.pushes().iter().map(|push| push.status).collect();
        assert_eq!(statuses, [429, 260, 503, 204]);
    }

    #[tokio::test]
    async fn a_refused_entry_leaves_the_others_stored() {
        let loki = LokiDouble::start();
        loki.refuse(|entry| (entry.timestamp == 2).then(|| "too odd".to_owned()));
        let answer = push(&loki, &[entry(1), entry(2), entry(3)]).await;
        assert_eq!(answer, (400, "too odd".to_owned()));
        assert_eq!(loki.lines(), ["line 1", "line 3"]);
    }

    #[tokio::test]
    async fn a_stream_that_is_refused_is_told_of_only_when_it_is_the_last_of_the_push() {
        let loki = LokiDouble::start();
        loki.rate_limit(|labels| labels.contains("noisy"));
        let noisy = Entry {
            labels: "{service=\"noisy\"}".to_owned(),
            ..entry(1)
        };
        assert_eq!(push(&loki, &[noisy.clone(), entry(1)]).await.0, 204);
        assert_eq!(push(&loki, &[entry(2), noisy.clone()]).await.0, 429);
        let (status, text) = push(&loki, &[noisy]).await;
        assert!(
            status == 429 && text.contains("Per stream rate limit exceeded"),
            "{text}"
        );
        assert_eq!(loki.lines(), ["line 1", "line 2"]);
    }

    #[tokio::test]
    async fn a_body_that_is_too_large_is_answered_413() {
        let loki = LokiDouble::start();
        loki.max_body(60);
        assert_eq!(push(&loki, &[entry(1), entry(2)]).await.0, 413);
        assert_eq!(push(&loki, &[entry(1)]).await.0, 204);
    }

    #[tokio::test]
    async fn what_is_stored_survives_a_restart() {
        let mut loki = LokiDouble::start();
        push(&loki, &[entry(1)]).await;
        loki.kill();
        assert!(http::client().post(loki.push_url()).send().await.is_err());
        loki.restart();
        assert_eq!(push(&loki, &[entry(1)]).await.0, 204);
        assert_eq!(loki.stored().len(), 1);
    }
}
