//! Answers to clients of HTTP/1.0, which know no chunks: a body of no told length ends with its connection (RFC 9112, 6.3).
//!
//! pingora asks for chunks whatever the client speaks, for an upstream of HTTP/2 behind the last phase that sees the answer's head. A
//! module comes later. It takes the place of pingora's own, which would compress.

use std::any::Any;

use async_trait::async_trait;
use http::{Version, header};
use pingora::Result;
use pingora::http::{RequestHeader, ResponseHeader};
use pingora::modules::http::{HttpModule, HttpModuleBuilder, Module};

/// Makes the module of each request.
#[derive(Debug)]
pub struct NoChunks;

impl HttpModuleBuilder for NoChunks {
    fn init(&self) -> Module {
        Box::new(Answer { to_10: false })
    }
}

#[derive(Debug)]
struct Answer {
    to_10: bool,
}

#[async_trait]
impl HttpModule for Answer {
    async fn request_header_filter(&mut self, request: &mut RequestHeader) -> Result<()> {
        self.to_10 = request.version == Version::HTTP_10;
        Ok(())
    }

    async fn response_header_filter(&mut self, response: &mut ResponseHeader, _end_of_stream: bool) -> Result<()> {
        if self.to_10 {
            response.remove_header(&header::TRANSFER_ENCODING);
        }
        Ok(())
    }

    fn as_any(&self) -> &dyn Any {
        self
    }

    fn as_any_mut(&mut self) -> &mut dyn Any {
        self
    }
}
