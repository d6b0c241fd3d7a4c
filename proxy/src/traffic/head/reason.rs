//! Why a request is refused, and with which status.

/// Why a request is refused. Closed set: the record's `error.type`, and the metric's `reason`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reason {
    /// It isn't a request line (RFC 9112, 3).
    RequestLine,
    /// It is the beginning of TLS.
    Tls,
    /// The version is one that isn't spoken here (RFC 9110, 2.5).
    Version,
    /// The method is longer than any (RFC 9110, 9.1).
    Method,
    /// `CONNECT`: this is no tunnel (RFC 9110, 9.3.6).
    Connect,
    /// The target has none of the forms it may have (RFC 9112, 3.2).
    Target,
    /// The target is longer than `limits.target_max`.
    TargetTooLong,
    /// A line ends with a bare LF, or a bare CR stands in it (RFC 9112, 2.2).
    LineEnd,
    /// A line continues the one before it (RFC 9112, 5.2).
    Fold,
    /// The name of a field isn't one, or a blank stands before its colon (RFC 9112, 5.1).
    FieldName,
    /// A field's value has a control character (RFC 9110, 5.5).
    FieldValue,
    /// The head is longer than `limits.header_max`.
    HeaderTooLarge,
    /// The head has more fields than `limits.header_fields_max`.
    HeaderCount,
    /// `Host` is missing, repeated, or not a host; or the target names another (RFC 9112, 3.2).
    Host,
    /// `Content-Length` isn't one number (RFC 9110, 8.6).
    Length,
    /// Both `Content-Length` and `Transfer-Encoding` (RFC 9112, 6.1).
    BothLengths,
    /// `Transfer-Encoding` that isn't one `chunked` (RFC 9112, 6.1).
    TransferCoding,
    /// A transfer coding that isn't spoken here (RFC 9112, 6.1).
    UnknownCoding,
    /// A chunk that isn't one (RFC 9112, 7.1).
    Chunk,
    /// A client of HTTP/2 broke its protocol (RFC 9113, 5.4).
    Http2,
}

impl Reason {
    /// All reasons, in the order of their metrics.
    pub const ALL: [Self; 20] = [
        Self::RequestLine,
        Self::Tls,
        Self::Version,
        Self::Method,
        Self::Connect,
        Self::Target,
        Self::TargetTooLong,
        Self::LineEnd,
        Self::Fold,
        Self::FieldName,
        Self::FieldValue,
        Self::HeaderTooLarge,
        Self::HeaderCount,
        Self::Host,
        Self::Length,
        Self::BothLengths,
        Self::TransferCoding,
        Self::UnknownCoding,
        Self::Chunk,
        Self::Http2,
    ];

    /// What records and metrics call it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::RequestLine => "request_line",
            Self::Tls => "tls",
            Self::Version => "version",
            Self::Method => "method",
            Self::Connect => "connect",
            Self::Target => "target",
            Self::TargetTooLong => "target_too_long",
            Self::LineEnd => "line_end",
            Self::Fold => "line_fold",
            Self::FieldName => "field_name",
            Self::FieldValue => "field_value",
            Self::HeaderTooLarge => "header_too_large",
            Self::HeaderCount => "header_count",
            Self::Host => "host",
            Self::Length => "content_length",
            Self::BothLengths => "both_lengths",
            Self::TransferCoding => "transfer_encoding",
            Self::UnknownCoding => "unknown_coding",
            Self::Chunk => "chunk",
            Self::Http2 => "http2",
        }
    }

    /// The status that it is answered with.
    pub fn status(self) -> u16 {
        match self {
            Self::Version => 505,
            Self::Method | Self::UnknownCoding => 501,
            Self::Connect => 405,
            Self::TargetTooLong => 414,
            Self::HeaderTooLarge | Self::HeaderCount => 431,
            _ => 400,
        }
    }
}
