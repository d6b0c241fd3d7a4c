//! OTLP over gRPC: one unary call for each batch.
//!
//! <https://opentelemetry.io/docs/specs/otlp/#otlpgrpc>

use ::http::HeaderMap;
use ::http::uri::PathAndQuery;
use anyhow::Context as _;
use bytes::{BufMut, Bytes};
use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceResponse;
use prost::Message;
use tonic::client::Grpc;
use tonic::codec::{Codec, CompressionEncoding, DecodeBuf, Decoder, EncodeBuf, Encoder};
use tonic::metadata::MetadataMap;
use tonic::transport::{Certificate, Channel, ClientTlsConfig, Endpoint, Identity};
use tonic::{Code, Extensions, Request, Status};
use tonic_types::StatusExt;

use super::file::read;
use super::{Refusal, Retry, chain, one_line, taken};
use crate::settings::{Compression, Traces};
use crate::shipping::spans::{SpanDrop, Taken};

/// `opentelemetry/proto/collector/trace/v1/trace_service.proto`
const METHOD: &str = "/opentelemetry.proto.collector.trace.v1.TraceService/Export";

/// A client of one endpoint.
#[derive(Debug)]
pub(super) struct Client {
    grpc: Grpc<Channel>,
    metadata: MetadataMap,
}

impl Client {
    /// Connects when first used; call it inside a runtime.
    pub(super) fn new(traces: &Traces, headers: HeaderMap) -> anyhow::Result<Self> {
        let url = traces.url();
        let mut endpoint = Endpoint::from_shared(url.clone())
            .with_context(|| format!("traces.endpoint: {url:?} is not a URL"))?
            .user_agent(concat!("sidelog-proxy/", env!("CARGO_PKG_VERSION")))?
            .connect_timeout(traces.timeout);
        if traces.is_tls() {
            endpoint = endpoint
                .tls_config(tls(traces)?)
                .with_context(|| super::unusable("traces.tls"))?;
        }
        let mut grpc = Grpc::new(endpoint.connect_lazy());
        if traces.compression == Compression::Gzip {
            grpc = grpc
                .send_compressed(CompressionEncoding::Gzip)
                .accept_compressed(CompressionEncoding::Gzip);
        }
        Ok(Self {
            grpc,
            metadata: MetadataMap::from_headers(headers),
        })
    }

    /// Sends one request.
    pub(super) async fn send(&self, body: Bytes) -> Result<Taken, Refusal> {
        let mut grpc = self.grpc.clone();
        if let Err(error) = grpc.ready().await {
            return Err(unreachable(&error));
        }
        let request = Request::from_parts(self.metadata.clone(), Extensions::default(), body);
        let answer = grpc.unary(request, PathAndQuery::from_static(METHOD), Encoded).await;
        answer
            .map(|answer| taken(answer.into_inner()))
            .map_err(|status| judge(&status))
    }
}

/// Own roots instead of the system's, and a certificate of our own.
fn tls(traces: &Traces) -> anyhow::Result<ClientTlsConfig> {
    let tls = &traces.tls;
    let mut config = match &tls.ca_file {
        Some(path) => ClientTlsConfig::new().ca_certificate(Certificate::from_pem(read("traces.tls.ca_file", path)?)),
        None => ClientTlsConfig::new().with_native_roots(),
    };
    if let (Some(cert), Some(key)) = (&tls.cert_file, &tls.key_file) {
        let cert = read("traces.tls.cert_file", cert)?;
        config = config.identity(Identity::from_pem(cert, read("traces.tls.key_file", key)?));
    }
    Ok(config)
}

fn unreachable(error: &tonic::transport::Error) -> Refusal {
    Refusal {
        reason: SpanDrop::Unreachable,
        message: chain(error),
        retry: Retry::Soon,
    }
}

/// What a status means ("OTLP/gRPC Response"): which are sent again, and when.
fn judge(status: &Status) -> Refusal {
    let source = std::error::Error::source(status).and_then(|source| source.downcast_ref::<tonic::transport::Error>());
    if let Some(error) = source {
        return unreachable(error);
    }
    let asked = status.get_details_retry_info().and_then(|info| info.retry_delay);
    let (reason, retry) = match (status.code(), asked) {
        (Code::ResourceExhausted | Code::Unavailable, Some(wait)) => (SpanDrop::Busy, Retry::After(wait)),
        (Code::DeadlineExceeded, _) => (SpanDrop::Timeout, Retry::Soon),
        (Code::Cancelled | Code::Aborted | Code::OutOfRange | Code::Unavailable | Code::DataLoss, _) => {
            (SpanDrop::Busy, Retry::Soon)
        }
        _ => (SpanDrop::Refused, Retry::Never),
    };
    Refusal {
        reason,
        message: format!("{:?} {}", status.code(), one_line(status.message()))
            .trim_end()
            .to_owned(),
        retry,
    }
}

/// Requests are encoded already; answers are decoded.
#[derive(Debug, Clone, Copy)]
struct Encoded;

impl Codec for Encoded {
    type Encode = Bytes;
    type Decode = ExportTraceServiceResponse;
    type Encoder = Self;
    type Decoder = Self;

    fn encoder(&mut self) -> Self {
        *self
    }

    fn decoder(&mut self) -> Self {
        *self
    }
}

impl Encoder for Encoded {
    type Item = Bytes;
    type Error = Status;

    fn encode(&mut self, body: Bytes, buffer: &mut EncodeBuf<'_>) -> Result<(), Status> {
        buffer.reserve(body.len());
        buffer.put(body);
        Ok(())
    }
}

impl Decoder for Encoded {
    type Item = ExportTraceServiceResponse;
    type Error = Status;

    fn decode(&mut self, buffer: &mut DecodeBuf<'_>) -> Result<Option<Self::Item>, Status> {
        // An answer that is none of the protocol's is as good as an empty one.
        Ok(Some(Message::decode(buffer).unwrap_or_default()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;
    use tonic_types::ErrorDetails;

    #[test]
    fn only_what_is_retryable_is_sent_again() {
        for code in (0..17).map(Code::from_i32).filter(|code| *code != Code::Ok) {
            let refusal = judge(&Status::new(code, "told"));
            let expected = match code {
                Code::Cancelled | Code::Aborted | Code::OutOfRange | Code::Unavailable | Code::DataLoss => {
                    (SpanDrop::Busy, Retry::Soon)
                }
                Code::DeadlineExceeded => (SpanDrop::Timeout, Retry::Soon),
                _ => (SpanDrop::Refused, Retry::Never),
            };
            assert_eq!((refusal.reason, refusal.retry), expected, "{code:?}");
            assert_eq!(refusal.message, format!("{code:?} told"));
        }
    }

    #[test]
    fn a_collector_that_asks_to_be_spared_is_spared_as_long() {
        let wait = Duration::from_secs(3);
        let details = ErrorDetails::with_retry_info(Some(wait));
        for code in [Code::ResourceExhausted, Code::Unavailable] {
            let refusal = judge(&Status::with_error_details(code, "slower", details.clone()));
            assert_eq!((refusal.reason, refusal.retry), (SpanDrop::Busy, Retry::After(wait)));
        }
    }
}
