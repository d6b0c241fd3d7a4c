//! A trace collector that answers as it is told, by OTLP/HTTP and OTLP/gRPC at one port, and remembers what it got.

use std::{convert::Infallible, sync::Arc};

use axum::{
    Router,
    body::Body,
    extract::{DefaultBodyLimit, Request, State},
    http::{HeaderMap, HeaderValue, StatusCode, header},
    response::{IntoResponse, Response},
};
use bytes::{BufMut, Bytes, BytesMut};
use http_body_util::{BodyExt, Full};
use parking_lot::Mutex;
use prost::Message;

use crate::Upstream;

/// A collector that takes everything until it is told otherwise.
#[derive(Debug)]
pub struct OtlpDouble {
    upstream: Upstream,
    memory: Arc<Memory>,
}

/// How a request is answered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum OtlpAnswer {
    /// It is taken whole.
    Take,
    /// It is taken but for so many spans, and this is said.
    TakePart(i64, &'static str),
    /// By HTTP this status and by gRPC this code, and that it may be sent again after so many seconds.
    Refuse {
        /// By HTTP.
        status: u16,
        /// By gRPC.
        code: u16,
        /// `Retry-After`.
        retry_after: Option<u32>,
    },
    /// Never.
    Hang,
}

/// A request as it came.
#[derive(Debug, Clone)]
pub struct OtlpRequest {
    /// Path and query.
    pub path: String,
    /// Header fields.
    pub headers: HeaderMap,
    /// The body without gRPC's framing, compressed as it came.
    pub body: Bytes,
}

#[derive(Debug)]
struct Memory {
    received: Mutex<Vec<OtlpRequest>>,
    /// The answers to come; the last one stays.
    answers: Mutex<Vec<OtlpAnswer>>,
}

/// `ExportTraceServiceResponse`
#[derive(Clone, PartialEq, Message)]
struct Answered {
    #[prost(message, optional, tag = "1")]
    partial_success: Option<PartialSuccess>,
}

#[derive(Clone, PartialEq, Message)]
struct PartialSuccess {
    #[prost(int64, tag = "1")]
    rejected_spans: i64,
    #[prost(string, tag = "2")]
    error_message: String,
}

impl OtlpDouble {
    /// Starts one.
    ///
    /// # Panics
    /// When it can't listen.
    #[must_use]
    pub fn start() -> Self {
        let memory = Arc::new(Memory {
            received: Mutex::default(),
            answers: Mutex::new(vec![OtlpAnswer::Take]),
        });
        let router = Router::new()
            .fallback(export)
            .layer(DefaultBodyLimit::disable())
            .with_state(Arc::clone(&memory));
        let upstream = Upstream::serving(router);
        Self { upstream, memory }
    }

    /// `http://127.0.0.1:<port>`.
    #[must_use]
    pub fn url(&self) -> String {
        self.upstream.url()
    }

    /// Answers like this from now on: in this order, and then always as the last.
    ///
    /// # Panics
    /// Without an answer.
    pub fn answer(&self, answers: impl Into<Vec<OtlpAnswer>>) {
        let answers = answers.into();
        assert!(!answers.is_empty(), "no answer is no way to answer");
        *self.memory.answers.lock() = answers;
    }

    /// Every request so far.
    #[must_use]
    pub fn received(&self) -> Vec<OtlpRequest> {
        self.memory.received.lock().clone()
    }
}

async fn export(State(memory): State<Arc<Memory>>, request: Request) -> Response {
    let (head, body) = request.into_parts();
    let Ok(body) = body.collect().await else {
        return StatusCode::BAD_REQUEST.into_response();
    };
    let body = body.to_bytes();
    let content_type = head.headers.get(header::CONTENT_TYPE);
    let is_grpc = content_type.is_some_and(|value| value == "application/grpc");
    // A byte that says whether it is compressed, and the length in four.
    let framing = if is_grpc { 5.min(body.len()) } else { 0 };
    memory.received.lock().push(OtlpRequest {
        path: head.uri.to_string(),
        headers: head.headers,
        body: body.slice(framing..),
    });
    let answer = {
        let mut answers = memory.answers.lock();
        if answers.len() > 1 {
            answers.remove(0)
        } else {
            answers[0].clone()
        }
    };
    match answer {
        OtlpAnswer::Hang => std::future::pending().await,
        OtlpAnswer::Take => taken(Answered::default(), is_grpc),
        OtlpAnswer::TakePart(rejected_spans, message) => {
            let partial_success = Some(PartialSuccess {
                rejected_spans,
                error_message: message.to_owned(),
            });
            taken(Answered { partial_success }, is_grpc)
        }
        OtlpAnswer::Refuse { code, .. } if is_grpc => {
            let headers = [("content-type", "application/grpc"), ("grpc-message", "no")];
            (headers, [("grpc-status", code.to_string())]).into_response()
        }
        OtlpAnswer::Refuse {
            status, retry_after, ..
        } => {
            let mut response = (StatusCode::from_u16(status).expect("a status"), "no\n").into_response();
            if let Some(seconds) = retry_after {
                response
                    .headers_mut()
                    .insert(header::RETRY_AFTER, HeaderValue::from(seconds));
            }
            response
        }
    }
}

fn taken(answer: Answered, is_grpc: bool) -> Response {
    let message = answer.encode_to_vec();
    if !is_grpc {
        return ([(header::CONTENT_TYPE, "application/x-protobuf")], message).into_response();
    }
    let mut framed = BytesMut::new();
    framed.put_u8(0);
    framed.put_u32(u32::try_from(message.len()).expect("a short message"));
    framed.put_slice(&message);
    let trailers = HeaderMap::from_iter([("grpc-status".parse().expect("a name"), HeaderValue::from_static("0"))]);
    let body = Full::new(framed.freeze()).with_trailers(async { Some(Ok::<_, Infallible>(trailers)) });
    let mut response = Response::new(Body::new(body));
    let content_type = HeaderValue::from_static("application/grpc");
    response.headers_mut().insert(header::CONTENT_TYPE, content_type);
    response
}
