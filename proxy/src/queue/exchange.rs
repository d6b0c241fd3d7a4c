//! One exchange as one flat run of bytes: what the request path writes and the shipping thread reads.
//!
//! Layout, little endian: total length (`u32`), fixed fields, then ten runs, each preceded by its
//! length (`u32`): error type, tracestate, method, target, authority, request fields, response fields, gRPC's message,
//! request body, response body. Nothing in it points anywhere, so that writing it is a copy and dropping it
//! frees nothing that another thread allocated.
//!
//! Invariants:
//! - `decode` gives back what `encode` wrote (`what_is_written_is_read_back`).
//! - `decode` never panics, whatever the bytes (`arbitrary_bytes_never_panic`).

use std::net::{IpAddr, Ipv6Addr, SocketAddr};

use sidelog_record::{End, Omitted};

use super::feed::Parts;
use super::grpc::Grpc;

/// What one exchange was, from the request's first byte to the answer's last.
#[derive(Clone, Debug, PartialEq)]
pub struct Exchange<'a> {
    /// The generation of the configuration the exchange was served under.
    pub generation: u32,
    /// Index of its listener in that configuration.
    pub listener: u16,
    /// Index of its route in that configuration, if one matched.
    pub route: Option<u32>,
    /// Whether a record is to be made of it.
    pub record: bool,
    /// Start, in nanoseconds since the Unix epoch.
    pub started: u64,
    /// Nanoseconds from start to end, by the monotonic clock.
    pub duration: u64,
    /// Nanoseconds from start to the first byte of the answer.
    pub first_byte: Option<u64>,
    /// How it ended.
    pub end: End,
    /// `error.type`, empty when there is none.
    pub error_type: &'a str,
    /// The trace it belongs to.
    pub trace: TraceContext,
    /// The well-formed `tracestate` that came with the request; empty when there was none.
    pub trace_state: &'a [u8],
    /// The peer that sent the request.
    pub client: Option<SocketAddr>,
    /// The client's address as trusted proxies told it.
    pub forwarded_for: Option<IpAddr>,
    /// The upstream's address of the last attempt.
    pub upstream: Option<SocketAddr>,
    /// Attempts to reach the upstream.
    pub attempts: u32,
    /// The code of the first close frame, if a WebSocket was closed by one.
    pub close_code: Option<u16>,
    /// The request.
    pub request: Request<'a>,
    /// The answer.
    pub response: Response<'a>,
}

/// The ids an exchange carries, W3C Trace Context.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct TraceContext {
    /// Trace id; all zero when there is none (mode `ignore` and no header).
    pub trace_id: [u8; 16],
    /// The proxy's own span (in mode `ignore`: the span that the request named).
    pub span_id: [u8; 8],
    /// The caller's span, if it continued a trace.
    pub parent_id: Option<[u8; 8]>,
    /// Trace flags as sent on: bit 0 sampled, bit 1 random.
    pub flags: u8,
    /// Whether a span is to be made.
    pub span: bool,
    /// In mode `restart`: the trace and span the request came with.
    pub link: Option<([u8; 16], [u8; 8])>,
}

/// HTTP version of the request, as the client sent it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Version {
    /// HTTP/1.0
    Http10,
    /// HTTP/1.1
    Http11,
    /// HTTP/2
    Http2,
}

impl Version {
    /// `network.protocol.version`: `1.0`, `1.1` or `2`.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Http10 => "1.0",
            Self::Http11 => "1.1",
            Self::Http2 => "2",
        }
    }
}

/// The request half.
#[derive(Clone, Debug, PartialEq)]
pub struct Request<'a> {
    /// HTTP version.
    pub version: Version,
    /// Method, as sent.
    pub method: &'a [u8],
    /// Request target, as sent: path and query, not decoded.
    pub target: &'a [u8],
    /// `:authority` or the `Host` field.
    pub authority: &'a [u8],
    /// Header fields.
    pub fields: Fields<'a>,
    /// Body.
    pub body: Body<'a>,
}

/// The answer half.
#[derive(Clone, Debug, PartialEq)]
pub struct Response<'a> {
    /// Status code sent to the client, if any.
    pub status: Option<u16>,
    /// What gRPC says, if the call was by gRPC.
    pub grpc: Option<Grpc>,
    /// `grpc-message`, as it came; empty when there was none.
    pub grpc_message: &'a [u8],
    /// Header fields.
    pub fields: Fields<'a>,
    /// Body.
    pub body: Body<'a>,
}

/// What was copied of a body.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Body<'a> {
    /// Its true size in bytes, as it passed.
    pub size: u64,
    /// Its first bytes; of a feed that is longer, behind them its last ones.
    pub bytes: &'a [u8],
    /// How many of `bytes` are its first.
    pub head: usize,
    /// What it consists of, if that was counted.
    pub parts: Option<Parts>,
    /// Why nothing was copied, if that is so.
    pub omitted: Option<Omitted>,
}

/// Header fields in the order they came: `u16` name length, `u32` value length, name, value.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Fields<'a>(pub &'a [u8]);

impl<'a> Fields<'a> {
    /// Appends one field to `out`. A field that no HTTP parser lets through (a name over 64 KiB) is cut.
    pub fn push(out: &mut Vec<u8>, name: &[u8], value: &[u8]) {
        let name = name.get(..usize::from(u16::MAX)).unwrap_or(name);
        let name_len = u16::try_from(name.len()).unwrap_or(u16::MAX);
        out.extend_from_slice(&name_len.to_le_bytes());
        out.extend_from_slice(&length(value).to_le_bytes());
        out.extend_from_slice(name);
        out.extend_from_slice(value);
    }

    /// Names and values, in order. Stops at the first field that is cut short.
    pub fn iter(self) -> impl Iterator<Item = (&'a [u8], &'a [u8])> {
        let mut reader = Reader(self.0);
        std::iter::from_fn(move || {
            let name_len = reader.u16()?;
            let value_len = reader.u32()?;
            Some((reader.take(name_len.into())?, reader.take(value_len as usize)?))
        })
    }

    /// The value of the first field called `name` (lower case).
    pub fn get(self, name: &str) -> Option<&'a [u8]> {
        self.iter()
            .find(|(n, _)| n.eq_ignore_ascii_case(name.as_bytes()))
            .map(|(_, value)| value)
    }
}

const FLAG_RECORD: u8 = 1;
const FLAG_SPAN: u8 = 2;
const FLAG_PARENT: u8 = 4;
const FLAG_LINK: u8 = 8;
const ADDRESS: usize = 1 + 2 + 16;
const TRACE: usize = 16 + 8 + 8 + 1 + 16 + 8;
/// Size, reason, bytes of the head, kind and number of parts.
const BODY: usize = 8 + 1 + 4 + 1 + 8;
const RUNS: usize = 10;
/// Total length, fixed fields and the lengths of the runs.
const FIXED: usize = 4 + 4 + 2 + 4 + 1 + 3 * 8 + 1 + 1 + 2 + 2 + TRACE + 3 * ADDRESS + 2 * 4 + 2 * BODY + RUNS * 4;
const NONE: u64 = u64::MAX;
/// In the place of a close code, which has two bytes.
const NO_CLOSE: u32 = u32::MAX;
/// In the place of a gRPC status: no call by gRPC, and one without a status.
const NO_GRPC: u16 = u16::MAX;
const NO_GRPC_STATUS: u16 = u16::MAX - 1;

impl<'a> Exchange<'a> {
    /// Bytes that [`Self::encode`] will append.
    pub fn encoded_len(&self) -> usize {
        FIXED + self.runs().iter().map(|run| run.len()).sum::<usize>()
    }

    /// `client.address`: what trusted proxies say, else the peer.
    pub fn client_address(&self) -> Option<IpAddr> {
        let peer = self.client.map(|peer| peer.ip().to_canonical());
        self.forwarded_for.or(peer)
    }

    /// The same exchange without its bodies, which are then said to be left out for want of memory.
    #[must_use]
    pub fn without_bodies(&self) -> Self {
        let mut lean = self.clone();
        for body in [&mut lean.request.body, &mut lean.response.body] {
            if !body.bytes.is_empty() {
                body.bytes = &[];
                body.omitted = Some(Omitted::Budget);
            }
        }
        lean
    }

    /// Appends the exchange to `out`, in the layout above.
    pub fn encode(&self, out: &mut Vec<u8>) {
        let total = u32::try_from(self.encoded_len()).unwrap_or(u32::MAX);
        out.extend_from_slice(&total.to_le_bytes());
        out.extend_from_slice(&self.generation.to_le_bytes());
        out.extend_from_slice(&self.listener.to_le_bytes());
        out.extend_from_slice(&self.route.unwrap_or(u32::MAX).to_le_bytes());
        out.push(self.flags());
        out.extend_from_slice(&self.started.to_le_bytes());
        out.extend_from_slice(&self.duration.to_le_bytes());
        out.extend_from_slice(&self.first_byte.unwrap_or(NONE).to_le_bytes());
        out.push(self.end as u8);
        out.push(self.request.version as u8);
        out.extend_from_slice(&self.response.status.unwrap_or(0).to_le_bytes());
        let grpc = self.response.grpc.map(|grpc| grpc.status.unwrap_or(NO_GRPC_STATUS));
        out.extend_from_slice(&grpc.unwrap_or(NO_GRPC).to_le_bytes());
        self.encode_trace(out);
        encode_address(out, self.client);
        encode_address(out, self.forwarded_for.map(|address| SocketAddr::new(address, 0)));
        encode_address(out, self.upstream);
        out.extend_from_slice(&self.attempts.to_le_bytes());
        let close_code = self.close_code.map_or(NO_CLOSE, u32::from);
        out.extend_from_slice(&close_code.to_le_bytes());
        for body in [&self.request.body, &self.response.body] {
            body.encode(out);
        }
        for run in self.runs() {
            out.extend_from_slice(&length(run).to_le_bytes());
            out.extend_from_slice(run);
        }
    }

    /// Reads one exchange from the front of `bytes`, and the rest. `None` when the bytes are not an exchange.
    pub fn decode(bytes: &'a [u8]) -> Option<(Self, &'a [u8])> {
        let total = Reader(bytes).u32()? as usize;
        let (mine, rest) = bytes.split_at_checked(total)?;
        let mut r = Reader(mine.get(4..)?);
        let generation = r.u32()?;
        let listener = r.u16()?;
        let route = Some(r.u32()?).filter(|route| *route != u32::MAX);
        let flags = r.u8()?;
        let started = r.u64()?;
        let duration = r.u64()?;
        let first_byte = Some(r.u64()?).filter(|at| *at != NONE);
        let end = *End::ALL.get(usize::from(r.u8()?))?;
        let version = version_from(r.u8()?)?;
        let status = Some(r.u16()?).filter(|status| *status != 0);
        let grpc = grpc_from(r.u16()?);
        let trace = decode_trace(&mut r, flags)?;
        let client = decode_address(&mut r)?;
        let forwarded_for = decode_address(&mut r)?.map(|address| address.ip());
        let upstream = decode_address(&mut r)?;
        let attempts = r.u32()?;
        let close_code = u16::try_from(r.u32()?).ok();
        let (mut request_body, mut response_body) = (decode_body(&mut r)?, decode_body(&mut r)?);
        let error_type = std::str::from_utf8(r.run()?).ok()?;
        let trace_state = r.run()?;
        let (method, target, authority) = (r.run()?, r.run()?, r.run()?);
        let (request_fields, response_fields) = (Fields(r.run()?), Fields(r.run()?));
        let grpc_message = r.run()?;
        (request_body.bytes, response_body.bytes) = (r.run()?, r.run()?);
        let exchange = Self {
            generation,
            listener,
            route,
            record: flags & FLAG_RECORD != 0,
            started,
            duration,
            first_byte,
            end,
            error_type,
            trace,
            trace_state,
            client,
            forwarded_for,
            upstream,
            attempts,
            close_code,
            request: Request {
                version,
                method,
                target,
                authority,
                fields: request_fields,
                body: request_body,
            },
            response: Response {
                status,
                grpc,
                grpc_message,
                fields: response_fields,
                body: response_body,
            },
        };
        Some((exchange, rest))
    }

    fn runs(&self) -> [&'a [u8]; RUNS] {
        [
            self.error_type.as_bytes(),
            self.trace_state,
            self.request.method,
            self.request.target,
            self.request.authority,
            self.request.fields.0,
            self.response.fields.0,
            self.response.grpc_message,
            self.request.body.bytes,
            self.response.body.bytes,
        ]
    }

    fn flags(&self) -> u8 {
        [
            (self.record, FLAG_RECORD),
            (self.trace.span, FLAG_SPAN),
            (self.trace.parent_id.is_some(), FLAG_PARENT),
            (self.trace.link.is_some(), FLAG_LINK),
        ]
        .iter()
        .filter(|(set, _)| *set)
        .fold(0, |flags, (_, bit)| flags | bit)
    }

    fn encode_trace(&self, out: &mut Vec<u8>) {
        let (link_trace, link_span) = self.trace.link.unwrap_or_default();
        out.extend_from_slice(&self.trace.trace_id);
        out.extend_from_slice(&self.trace.span_id);
        out.extend_from_slice(&self.trace.parent_id.unwrap_or_default());
        out.push(self.trace.flags);
        out.extend_from_slice(&link_trace);
        out.extend_from_slice(&link_span);
    }
}

impl Body<'_> {
    /// All but the bytes.
    fn encode(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(&self.size.to_le_bytes());
        out.push(self.omitted.map_or(0, |reason| reason as u8 + 1));
        out.extend_from_slice(&u32::try_from(self.head).unwrap_or(u32::MAX).to_le_bytes());
        let (kind, count) = Parts::code(self.parts);
        out.push(kind);
        out.extend_from_slice(&count.to_le_bytes());
    }
}

/// A body whose bytes are still to come.
fn decode_body<'a>(r: &mut Reader<'_>) -> Option<Body<'a>> {
    Some(Body {
        size: r.u64()?,
        omitted: omitted_from(r.u8()?),
        head: r.u32()? as usize,
        parts: Parts::of_code((r.u8()?, r.u64()?)),
        bytes: &[],
    })
}

fn decode_trace(r: &mut Reader<'_>, flags: u8) -> Option<TraceContext> {
    let trace_id = r.array()?;
    let span_id = r.array()?;
    let parent_id = r.array()?;
    let trace_flags = r.u8()?;
    let link = (r.array()?, r.array()?);
    Some(TraceContext {
        trace_id,
        span_id,
        parent_id: (flags & FLAG_PARENT != 0).then_some(parent_id),
        flags: trace_flags,
        span: flags & FLAG_SPAN != 0,
        link: (flags & FLAG_LINK != 0).then_some(link),
    })
}

fn grpc_from(status: u16) -> Option<Grpc> {
    let status = Some(status).filter(|status| *status != NO_GRPC)?;
    Some(Grpc {
        status: Some(status).filter(|status| *status != NO_GRPC_STATUS),
    })
}

/// A tag (0 none, 4, 6), the port, sixteen bytes of address.
fn encode_address(out: &mut Vec<u8>, address: Option<SocketAddr>) {
    let (tag, port, octets) = match address {
        None => (0, 0, [0; 16]),
        Some(SocketAddr::V4(v4)) => (4, v4.port(), v4.ip().to_ipv6_mapped().octets()),
        Some(SocketAddr::V6(v6)) => (6, v6.port(), v6.ip().octets()),
    };
    out.push(tag);
    out.extend_from_slice(&u16::to_le_bytes(port));
    out.extend_from_slice(&octets);
}

fn decode_address(r: &mut Reader<'_>) -> Option<Option<SocketAddr>> {
    let tag = r.u8()?;
    let port = r.u16()?;
    let v6 = Ipv6Addr::from(r.array::<16>()?);
    Some(match tag {
        0 => None,
        4 => Some(SocketAddr::new(IpAddr::V4(v6.to_ipv4_mapped()?), port)),
        _ => Some(SocketAddr::new(IpAddr::V6(v6), port)),
    })
}

/// 0 stands for none.
fn omitted_from(code: u8) -> Option<Omitted> {
    Omitted::ALL.get(usize::from(code).checked_sub(1)?).copied()
}

fn version_from(code: u8) -> Option<Version> {
    [Version::Http10, Version::Http11, Version::Http2]
        .into_iter()
        .find(|version| *version as u8 == code)
}

fn length(run: &[u8]) -> u32 {
    u32::try_from(run.len()).unwrap_or(u32::MAX)
}

/// Takes values off the front of a byte slice; `None` at its end.
struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    fn take(&mut self, n: usize) -> Option<&'a [u8]> {
        let (head, rest) = self.0.split_at_checked(n)?;
        self.0 = rest;
        Some(head)
    }

    fn run(&mut self) -> Option<&'a [u8]> {
        let n = self.u32()? as usize;
        self.take(n)
    }

    fn array<const N: usize>(&mut self) -> Option<[u8; N]> {
        let (head, rest) = self.0.split_first_chunk::<N>()?;
        self.0 = rest;
        Some(*head)
    }

    fn u8(&mut self) -> Option<u8> {
        self.array::<1>().map(|[byte]| byte)
    }

    fn u16(&mut self) -> Option<u16> {
        self.array().map(u16::from_le_bytes)
    }

    fn u32(&mut self) -> Option<u32> {
        self.array().map(u32::from_le_bytes)
    }

    fn u64(&mut self) -> Option<u64> {
        self.array().map(u64::from_le_bytes)
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use std::sync::{Arc, LazyLock};

    use super::*;
    use crate::generation::Generation;
    use crate::settings::Settings;
    use proptest::prelude::*;

    /// The one that exchanges of tests are under.
    pub(crate) static GENERATION: LazyLock<Arc<Generation>> =
        LazyLock::new(|| Arc::new(Generation::new(1, Settings::default())));

    /// A small exchange with `body` in both directions.
    pub(crate) fn exchange(body: &[u8]) -> Exchange<'_> {
        let body = Body {
            size: body.len() as u64,
            bytes: body,
            head: body.len(),
            parts: None,
            omitted: None,
        };
        Exchange {
            generation: 1,
            listener: 0,
            route: None,
            record: true,
            started: 1_700_000_000_000_000_000,
            duration: 1_500_000,
            first_byte: Some(1_000_000),
            end: End::Complete,
            error_type: "",
            trace: TraceContext {
                trace_id: [7; 16],
                span_id: [8; 8],
                span: true,
                flags: 3,
                ..Default::default()
            },
            trace_state: b"",
            client: Some(SocketAddr::from(([127, 0, 0, 1], 40_000))),
            forwarded_for: None,
            upstream: Some(SocketAddr::from(([127, 0, 0, 1], 9_000))),
            attempts: 1,
            close_code: None,
            request: Request {
                version: Version::Http11,
                method: b"POST",
                target: b"/api/v1/users?page=2",
                authority: b"example.test",
                fields: Fields::default(),
                body: body.clone(),
            },
            response: Response {
                status: Some(201),
                grpc: None,
                grpc_message: b"",
                fields: Fields::default(),
                body,
            },
        }
    }

    fn address() -> impl Strategy<Value = Option<SocketAddr>> {
        prop_oneof![
            Just(None),
            any::<([u8; 4], u16)>().prop_map(|(ip, port)| Some(SocketAddr::from((ip, port)))),
            any::<([u16; 8], u16)>().prop_map(|(ip, port)| Some(SocketAddr::from((ip, port)))),
        ]
    }

    proptest! {
        #[test]
        fn what_is_written_is_read_back(
            head in any::<(u32, u16, bool, u64, u64, u32)>(),
            options in (proptest::option::of(0..u32::MAX), proptest::option::of(0..u64::MAX), proptest::option::of(100_u16..600)),
            ids in any::<([u8; 16], [u8; 8], Option<[u8; 8]>, u8, bool, Option<([u8; 16], [u8; 8])>)>(),
            addresses in (address(), address(), address()),
            runs in proptest::collection::vec(proptest::collection::vec(any::<u8>(), 0..200), 9),
            end in proptest::sample::select(End::ALL.to_vec()),
            omitted in proptest::option::of(proptest::sample::select(Omitted::ALL.to_vec())),
            grpc in proptest::option::of(proptest::option::of(0..17_u16)),
            close_code in any::<Option<u16>>(),
            parts in proptest::option::of((0..3, any::<u64>()).prop_map(|(kind, count)| match kind {
                0 => Parts::Events(count),
                1 => Parts::Messages(count),
                _ => Parts::Frames(count),
            })),
        ) {
            let mut written = exchange(&runs[0]);
            (written.generation, written.listener, written.record, written.started, written.duration, written.attempts) = head;
            (written.route, written.first_byte, written.response.status) = options;
            let (trace_id, span_id, parent_id, flags, span, link) = ids;
            written.trace = TraceContext { trace_id, span_id, parent_id, flags, span, link };
            (written.client, written.upstream, written.forwarded_for) =
                (addresses.0, addresses.1, addresses.2.map(|address| address.ip()));
            written.end = end;
            written.response.grpc = grpc.map(|status| Grpc { status });
            written.close_code = close_code;
            written.response.body = Body { size: 9, bytes: &runs[1], head: runs[1].len() / 2, parts, omitted };
            written.response.grpc_message = &runs[8];
            (written.request.method, written.request.target, written.request.authority) = (&runs[2], &runs[3], &runs[4]);
            (written.request.fields, written.response.fields) = (Fields(&runs[5]), Fields(&runs[6]));
            written.trace_state = &runs[7];
            let mut bytes = Vec::new();
            written.encode(&mut bytes);
            prop_assert_eq!(bytes.len(), written.encoded_len());
            bytes.extend_from_slice(b"next");
            let (read, rest) = Exchange::decode(&bytes).unwrap();
            prop_assert_eq!(read, written);
            prop_assert_eq!(rest, b"next");
        }

        #[test]
        fn arbitrary_bytes_never_panic(mut bytes in proptest::collection::vec(any::<u8>(), 0..600), honest_length in any::<bool>()) {
            if honest_length && bytes.len() >= 4 {
                let len = u32::try_from(bytes.len()).unwrap().to_le_bytes();
                bytes[..4].copy_from_slice(&len);
            }
            if let Some((exchange, _)) = Exchange::decode(&bytes) {
                exchange.request.fields.iter().for_each(drop);
            }
        }

        #[test]
        fn fields_keep_their_order_and_bytes(fields in proptest::collection::vec(("[a-z-]{1,20}", proptest::collection::vec(any::<u8>(), 0..100)), 0..20)) {
            let mut run = Vec::new();
            for (name, value) in &fields {
                Fields::push(&mut run, name.as_bytes(), value);
            }
            let read: Vec<_> = Fields(&run).iter().map(|(n, v)| (String::from_utf8(n.to_vec()).unwrap(), v.to_vec())).collect();
            prop_assert_eq!(read, fields);
        }
    }
}
