//! OTLP over HTTP, protobuf: a POST for each batch.
//!
//! <https://opentelemetry.io/docs/specs/otlp/#otlphttp>

use std::fmt;
use std::io::Write;
use std::time::Duration;

use ::http::header::{CONTENT_ENCODING, CONTENT_TYPE, RETRY_AFTER};
use ::http::{HeaderMap, HeaderValue, Method, Request, Response, StatusCode, Uri};
use anyhow::{Context as _, ensure};
use async_trait::async_trait;
use bytes::{Bytes, BytesMut};
use flate2::write::GzEncoder;
use opentelemetry_http::{HttpClient, HttpError};
use prost::Message;
use reqwest::{Certificate, Identity};

use super::file::read;
use super::{Refusal, Retry, chain, one_line, taken};
use crate::settings::{Compression, Traces};
use crate::shipping::spans::{SpanDrop, Taken};

/// How much of an answer is read: enough for any reason.
const ANSWER_MAX: usize = 64 * 1024;

/// A client of one endpoint.
pub(super) struct Client {
    http: Box<dyn HttpClient>,
    url: Uri,
    headers: HeaderMap,
    gzip: bool,
}

impl Client {
    pub(super) fn new(traces: &Traces, mut headers: HeaderMap) -> anyhow::Result<Self> {
        let url = traces.url();
        let gzip = traces.compression == Compression::Gzip;
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/x-protobuf"));
        if gzip {
            headers.insert(CONTENT_ENCODING, HeaderValue::from_static("gzip"));
        }
        Ok(Self {
            http: Box::new(Reqwest::new(traces)?),
            url: url
                .parse()
                .with_context(|| format!("traces.endpoint: {url:?} is not a URL"))?,
            headers,
            gzip,
        })
    }

    /// Sends one request.
    pub(super) async fn send(&self, body: Bytes) -> Result<Taken, Refusal> {
        let mut request = Request::new(self.compressed(body));
        *request.method_mut() = Method::POST;
        *request.uri_mut() = self.url.clone();
        *request.headers_mut() = self.headers.clone();
        match self.http.send_bytes(request).await {
            Ok(answer) => judge(&answer),
            Err(error) => Err(Refusal {
                reason: SpanDrop::Unreachable,
                message: chain(error.as_ref()),
                retry: Retry::Soon,
            }),
        }
    }

    fn compressed(&self, body: Bytes) -> Bytes {
        if !self.gzip {
            return body;
        }
        let mut encoder = GzEncoder::new(Vec::with_capacity(body.len() / 4), flate2::Compression::fast());
        // Writing to a Vec can't fail.
        encoder
            .write_all(&body)
            .and_then(|()| encoder.finish())
            .unwrap_or_default()
            .into()
    }
}

impl fmt::Debug for Client {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Client").field("url", &self.url).finish_non_exhaustive()
    }
}

/// What an answer means ("OTLP/HTTP Response"): 2xx taken, 429, 502, 503 and 504 again, all others never.
fn judge(answer: &Response<Bytes>) -> Result<Taken, Refusal> {
    let status = answer.status();
    if status.is_success() {
        // An answer that is none of the protocol's is as good as an empty one.
        return Ok(Message::decode(answer.body().clone()).map(taken).unwrap_or_default());
    }
    let text = one_line(&String::from_utf8_lossy(answer.body()));
    let is_busy = matches!(
        status,
        StatusCode::TOO_MANY_REQUESTS
            | StatusCode::BAD_GATEWAY
            | StatusCode::SERVICE_UNAVAILABLE
            | StatusCode::GATEWAY_TIMEOUT
    );
    let (reason, retry) = if is_busy {
        let wait = answer.headers().get(RETRY_AFTER).and_then(retry_after);
        (SpanDrop::Busy, wait.map_or(Retry::Soon, Retry::After))
    } else {
        (SpanDrop::Refused, Retry::Never)
    };
    Err(Refusal {
        reason,
        message: format!("{status} {text}").trim_end().to_owned(),
        retry,
    })
}

/// `Retry-After` (RFC 9110, 10.2.3), in seconds. A date is as good as none: clocks differ, and we try again anyway.
fn retry_after(value: &HeaderValue) -> Option<Duration> {
    let seconds = value.to_str().ok()?.trim().parse().ok()?;
    Some(Duration::from_secs(seconds))
}

/// reqwest as OpenTelemetry's clients know it.
#[derive(Debug)]
struct Reqwest(reqwest::Client);

impl Reqwest {
    fn new(traces: &Traces) -> anyhow::Result<Self> {
        let builder = reqwest::Client::builder()
            .user_agent(concat!("sidelog-proxy/", env!("CARGO_PKG_VERSION")))
            .connect_timeout(traces.timeout)
            // A redirected POST would become a GET.
            .redirect(reqwest::redirect::Policy::none());
        let client = with_tls(builder, traces)?.build().context(
            "failed to set up HTTP for traces.endpoint; for https the system needs its CA certificates, or set traces.tls.ca_file",
        )?;
        Ok(Self(client))
    }
}

/// Own roots instead of the system's, and a certificate of our own. Without https no roots are loaded.
fn with_tls(builder: reqwest::ClientBuilder, traces: &Traces) -> anyhow::Result<reqwest::ClientBuilder> {
    let tls = &traces.tls;
    let mut builder = match &tls.ca_file {
        Some(path) => {
            let roots = Certificate::from_pem_bundle(&read("traces.tls.ca_file", path)?).unwrap_or_default();
            let shown = path.display();
            ensure!(
                !roots.is_empty(),
                "traces.tls.ca_file: there is no certificate (PEM) in {shown}"
            );
            builder.tls_certs_only(roots)
        }
        None if !traces.is_tls() => builder.tls_certs_only([]),
        None => builder,
    };
    if let (Some(cert), Some(key)) = (&tls.cert_file, &tls.key_file) {
        let mut pem = read("traces.tls.cert_file", cert)?;
        pem.push(b'\n');
        pem.extend(read("traces.tls.key_file", key)?);
        let identity = Identity::from_pem(&pem).with_context(|| super::unusable("traces.tls.cert_file"))?;
        builder = builder.identity(identity);
    }
    Ok(builder)
}

#[async_trait]
impl HttpClient for Reqwest {
    /// The answer's body is cut at [`ANSWER_MAX`].
    async fn send_bytes(&self, request: Request<Bytes>) -> Result<Response<Bytes>, HttpError> {
        let mut answer = self
            .0
            .execute(request.try_into()?)
            .await
            .map_err(reqwest::Error::without_url)?;
        let mut body = BytesMut::new();
        while body.len() < ANSWER_MAX
            && let Some(chunk) = answer.chunk().await.map_err(reqwest::Error::without_url)?
        {
            body.extend_from_slice(&chunk);
        }
        body.truncate(ANSWER_MAX);
        let mut response = Response::new(body.freeze());
        *response.status_mut() = answer.status();
        *response.headers_mut() = answer.headers().clone();
        Ok(response)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use opentelemetry_proto::tonic::collector::trace::v1::{ExportTracePartialSuccess, ExportTraceServiceResponse};

    fn answer(status: u16, body: impl Into<Bytes>) -> Response<Bytes> {
        Response::builder().status(status).body(body.into()).unwrap()
    }

    #[test]
    fn a_partial_success_is_taken_with_what_it_rejects() {
        let partial_success = Some(ExportTracePartialSuccess {
            rejected_spans: 3,
            error_message: "too\nold".to_owned(),
        });
        let body = ExportTraceServiceResponse { partial_success }.encode_to_vec();
        let taken = judge(&answer(200, body)).unwrap();
        assert_eq!((taken.rejected, taken.message.as_str()), (3, "too old"));
        assert_eq!(judge(&answer(200, "")).unwrap(), Taken::default());
        assert_eq!(judge(&answer(202, "{}")).unwrap(), Taken::default());
    }

    #[test]
    fn only_what_is_retryable_is_sent_again() {
        for status in [429, 502, 503, 504] {
            let refusal = judge(&answer(status, "")).unwrap_err();
            assert_eq!(
                (refusal.reason, refusal.retry),
                (SpanDrop::Busy, Retry::Soon),
                "{status}"
            );
        }
        for status in [302, 400, 401, 404, 413, 500, 501] {
            let refusal = judge(&answer(status, "no\n")).unwrap_err();
            assert_eq!(
                (refusal.reason, refusal.retry),
                (SpanDrop::Refused, Retry::Never),
                "{status}"
            );
            assert!(refusal.message.starts_with(&status.to_string()) && refusal.message.ends_with("no"));
        }
        let mut busy = answer(503, "");
        busy.headers_mut().insert(RETRY_AFTER, HeaderValue::from_static("7"));
        assert_eq!(judge(&busy).unwrap_err().retry, Retry::After(Duration::from_secs(7)));
        busy.headers_mut()
            .insert(RETRY_AFTER, HeaderValue::from_static("Wed, 21 Oct 2026 07:28:00 GMT"));
        assert_eq!(judge(&busy).unwrap_err().retry, Retry::Soon);
    }
}
