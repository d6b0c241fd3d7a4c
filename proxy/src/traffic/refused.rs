//! The record of a request that was refused before it was one.

use std::net::SocketAddr;
use std::sync::Arc;

use http::HeaderMap;
use rand::Rng;
use sidelog_record::End;

use super::capture::{Capture, Recorder, RequestHead};
use super::trace::{self, Sampling};
use crate::generation::Generation;
use crate::queue::exchange::Version;
use crate::settings::TraceMode;

/// A request that was refused, as far as it could be read.
#[derive(Debug)]
pub struct Refused<'a> {
    /// Its method.
    pub method: &'a [u8],
    /// Its target.
    pub target: &'a [u8],
    /// The host it was for, if it said so.
    pub host: &'a [u8],
    /// Who sent it.
    pub client: Option<SocketAddr>,
    /// It came by HTTP/2.
    pub is_h2: bool,
    /// The record's `error.type`.
    pub reason: &'static str,
    /// The answer's status.
    pub status: u16,
}

/// Who is told of what was refused. The accept layer's tests have one that forgets.
pub trait Witness: Send + Sync {
    /// It was refused, by the limits of `generation`.
    fn refused(&self, request: &Refused<'_>, generation: &Arc<Generation>);
}

/// Records what one listener refuses. Nothing but the request line is recorded of it, in no trace but its own.
#[derive(Debug)]
pub struct Front {
    recorder: Arc<Recorder>,
    index: u16,
}

impl Front {
    /// That of the listener with this index.
    pub fn new(recorder: &Arc<Recorder>, index: u16) -> Self {
        Self {
            recorder: Arc::clone(recorder),
            index,
        }
    }
}

impl Witness for Front {
    fn refused(&self, request: &Refused<'_>, generation: &Arc<Generation>) {
        let path = request.target.split(|byte| *byte == b'?').next().unwrap_or_default();
        let method = String::from_utf8_lossy(request.method);
        let route = generation.router().find(&method, request.host, path);
        let traces = &generation.settings.traces;
        let mode = if traces.propagate {
            TraceMode::Restart
        } else {
            TraceMode::Ignore
        };
        let sampling = Sampling {
            parent_based: traces.parent_based,
            share: traces.sample,
        };
        let decision = trace::decide(mode, None, sampling, &mut || rand::rng().next_u64());
        let head = RequestHead {
            version: if request.is_h2 { Version::Http2 } else { Version::Http11 },
            method: request.method,
            target: request.target,
            authority: request.host,
            trace_state: &[],
            fields: &HeaderMap::new(),
            client: request.client,
            forwarded_for: None,
        };
        let generation = Arc::clone(generation);
        let mut capture = Capture::new(&self.recorder, generation, self.index, route, decision.context, &head);
        capture.ended(End::Rejected, request.reason, Some(request.status));
    }
}
