//! Bodies as their senders had them: content codings undone, bytes read by their charset.
//!
//! Invariants:
//! - At most the bytes that are recorded are made; never over 8 MiB, over a hundred times what came, or longer than 10 ms
//!   (`a_bomb_is_left_out`).
//! - What was cut gives what can be had of it, and says that it is cut (`a_cut_body_is_decoded_as_far_as_it_goes`).

use std::borrow::Cow;
use std::cell::Cell;
use std::io::{self, Read};
use std::time::Duration;

use encoding_rs::{DecoderResult, Encoding, UTF_8};
use rustix::time::{ClockId, clock_gettime};

use crate::queue::exchange::Fields;

/// Most bytes that are made of a body.
const MAX_BYTES: usize = 8 * 1024 * 1024;
/// Most bytes that are made of one that came.
const MAX_RATIO: usize = 100;
/// Longest time of this thread that a body may take. Not of the wall clock: on a busy machine no body is lost.
const MAX_TIME: Duration = Duration::from_millis(10);
/// Most codings one on top of the other.
const MAX_CODINGS: usize = 4;
/// What is asked of a decoder at once.
const STEP: usize = 16 * 1024;
/// What a decoder is given at once, so that little is counted as used that isn't.
const BITE: usize = 512;
/// The largest window of zstd that is taken (RFC 8878, 3.1.1.1.2), as a power of two.
const ZSTD_WINDOW_LOG: u32 = 23;

/// A body's bytes after its codings, or the beginning of them.
#[derive(Debug)]
pub struct Decoded<'b> {
    /// The bytes.
    pub bytes: Cow<'b, [u8]>,
    /// Whether more would follow.
    pub cut: bool,
}

/// Undoes the codings that the header fields name; at most `limit` bytes. `None` when that can't be done within the bounds.
pub fn content<'b>(bytes: &'b [u8], fields: Fields<'_>, limit: usize, cut: bool) -> Option<Decoded<'b>> {
    within(MAX_TIME, bytes, fields, limit, cut)
}

fn within<'b>(time: Duration, bytes: &'b [u8], fields: Fields<'_>, limit: usize, cut: bool) -> Option<Decoded<'b>> {
    let codings = codings(fields)?;
    if codings.is_empty() {
        let bytes = Cow::Borrowed(bytes);
        return Some(Decoded { bytes, cut });
    }
    let used = Cell::new(0);
    let mut reader: Box<dyn Read + '_> = Box::new(Bites {
        rest: bytes,
        used: &used,
    });
    for coding in codings.iter().rev() {
        reader = decoder(*coding, reader).ok()?;
    }
    let bounds = Bounds {
        bytes: limit.min(MAX_BYTES),
        until: thread_time() + time,
    };
    read(reader, &used, bytes.len(), &bounds, cut)
}

/// A content coding (RFC 9110, 8.4.1; RFC 7932; RFC 8878).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Coding {
    Gzip,
    Deflate,
    Brotli,
    Zstd,
}

/// The codings in the order they were done. `None` when one is unknown, or there are too many.
fn codings(fields: Fields<'_>) -> Option<Vec<Coding>> {
    let mut codings = Vec::new();
    let values = fields
        .iter()
        .filter(|(name, _)| name.eq_ignore_ascii_case(b"content-encoding"));
    for name in values.flat_map(|(_, value)| value.split(|byte| *byte == b',')) {
        let coding = match name.trim_ascii().to_ascii_lowercase().as_slice() {
            b"" | b"identity" => continue,
            b"gzip" | b"x-gzip" => Coding::Gzip,
            b"deflate" => Coding::Deflate,
            b"br" => Coding::Brotli,
            b"zstd" => Coding::Zstd,
            _ => return None,
        };
        codings.push(coding);
    }
    (codings.len() <= MAX_CODINGS).then_some(codings)
}

fn decoder<'r>(coding: Coding, mut reader: Box<dyn Read + 'r>) -> io::Result<Box<dyn Read + 'r>> {
    Ok(match coding {
        Coding::Gzip => Box::new(flate2::read::MultiGzDecoder::new(reader)),
        Coding::Brotli => Box::new(brotli::Decompressor::new(reader, BITE)),
        Coding::Zstd => {
            let mut decoder = zstd::Decoder::new(reader)?;
            decoder.window_log_max(ZSTD_WINDOW_LOG)?;
            Box::new(decoder)
        }
        Coding::Deflate => {
            // Named so is the zlib format (RFC 1950), but some send the bare one (RFC 1951).
            let mut head = Vec::new();
            reader.by_ref().take(2).read_to_end(&mut head)?;
            let zlib =
                matches!(*head, [cmf, flags] if cmf & 0x0f == 8 && u16::from_be_bytes([cmf, flags]).is_multiple_of(31));
            let whole = io::Cursor::new(head).chain(reader);
            if zlib {
                Box::new(flate2::read::ZlibDecoder::new(whole))
            } else {
                Box::new(flate2::read::DeflateDecoder::new(whole))
            }
        }
    })
}

/// What a body may take.
struct Bounds {
    bytes: usize,
    until: Duration,
}

/// The time that this thread has run.
fn thread_time() -> Duration {
    Duration::try_from(clock_gettime(ClockId::ThreadCPUTime)).unwrap_or_default()
}

fn read<'b>(
    mut reader: Box<dyn Read + '_>,
    used: &Cell<usize>,
    available: usize,
    bounds: &Bounds,
    mut cut: bool,
) -> Option<Decoded<'b>> {
    let mut out = Vec::new();
    let mut step = vec![0; STEP];
    loop {
        match reader.read(&mut step) {
            Ok(0) => break,
            Ok(n) => out.extend_from_slice(step.get(..n).unwrap_or_default()),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            // A decoder that wants more than there is: the body was cut, by us or by its sender.
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof || (cut && used.get() == available) => {
                cut = true;
                break;
            }
            Err(_) => return None,
        }
        if out.len() > MAX_RATIO * used.get() || thread_time() > bounds.until {
            return None;
        }
        if out.len() > bounds.bytes {
            out.truncate(bounds.bytes);
            cut = true;
            break;
        }
    }
    let bytes = Cow::Owned(out);
    Some(Decoded { bytes, cut })
}

/// Gives its bytes in small pieces, and counts them.
struct Bites<'b> {
    rest: &'b [u8],
    used: &'b Cell<usize>,
}

impl Read for Bites<'_> {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        let n = into.len().min(BITE).min(self.rest.len());
        let (bite, rest) = self.rest.split_at_checked(n).unwrap_or((self.rest, &[]));
        for (to, from) in into.iter_mut().zip(bite) {
            *to = *from;
        }
        self.rest = rest;
        self.used.set(self.used.get() + n);
        Ok(n)
    }
}

/// The bytes as text, by their byte order mark, the charset that the content type names, or UTF-8.
///
/// `None` when they aren't text in it. What is cut ends before a character that the cut went through.
pub fn text<'b>(bytes: &'b [u8], charset: Option<&[u8]>, cut: bool) -> Option<Cow<'b, str>> {
    let (encoding, bytes) = match (Encoding::for_bom(bytes), charset) {
        (Some((encoding, mark)), _) if encoding != UTF_8 => (encoding, bytes.get(mark..)?),
        (Some(_), _) | (None, None) => (UTF_8, bytes),
        (None, Some(label)) => (Encoding::for_label(label)?, bytes),
    };
    if encoding == UTF_8 {
        return utf8(bytes, cut).map(Cow::Borrowed);
    }
    let mut decoder = encoding.new_decoder_without_bom_handling();
    let mut text = String::with_capacity(decoder.max_utf8_buffer_length_without_replacement(bytes.len())?);
    match decoder.decode_to_string_without_replacement(bytes, &mut text, !cut) {
        (DecoderResult::InputEmpty, _) => Some(Cow::Owned(text)),
        (DecoderResult::OutputFull | DecoderResult::Malformed(..), _) => None,
    }
}

fn utf8(bytes: &[u8], cut: bool) -> Option<&str> {
    match simdutf8::compat::from_utf8(bytes) {
        Ok(text) => Some(text),
        Err(error) if cut && error.error_len().is_none() => std::str::from_utf8(bytes.get(..error.valid_up_to())?).ok(),
        Err(_) => None,
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::io::Write;

    /// The header fields of a body with these codings.
    pub(crate) fn fields(codings: &str) -> Vec<u8> {
        let mut fields = Vec::new();
        Fields::push(&mut fields, b"content-encoding", codings.as_bytes());
        fields
    }

    /// The bytes in one coding.
    pub(crate) fn encoded(coding: &str, bytes: &[u8]) -> Vec<u8> {
        let fast = flate2::Compression::fast();
        match coding {
            "gzip" => {
                let mut encoder = flate2::write::GzEncoder::new(Vec::new(), fast);
                encoder.write_all(bytes).unwrap();
                encoder.finish().unwrap()
            }
            "deflate" => {
                let mut encoder = flate2::write::ZlibEncoder::new(Vec::new(), fast);
                encoder.write_all(bytes).unwrap();
                encoder.finish().unwrap()
            }
            "bare deflate" => {
                let mut encoder = flate2::write::DeflateEncoder::new(Vec::new(), fast);
                encoder.write_all(bytes).unwrap();
                encoder.finish().unwrap()
            }
            "br" => {
                let mut out = Vec::new();
                let mut encoder = brotli::CompressorWriter::new(&mut out, 4096, 4, 20);
                encoder.write_all(bytes).unwrap();
                drop(encoder);
                out
            }
            "zstd" => zstd::encode_all(bytes, 1).unwrap(),
            other => panic!("{other} is no coding"),
        }
    }

    fn decoded(bytes: &[u8], codings: &str, limit: usize, cut: bool) -> Option<(Vec<u8>, bool)> {
        let fields = fields(codings);
        let decoded = within(Duration::from_secs(60), bytes, Fields(&fields), limit, cut)?;
        Some((decoded.bytes.into_owned(), decoded.cut))
    }

    /// Text that doesn't compress too well.
    fn prose(len: usize) -> Vec<u8> {
        let mut x = 1_u32;
        let letters = std::iter::repeat_with(|| {
            x = x.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            b'a' + u8::try_from(x >> 28).unwrap()
        });
        letters.take(len).collect()
    }

    const CODINGS: [(&str, &str); 5] = [
        ("gzip", "gzip"),
        ("x-gzip", "gzip"),
        ("br", "br"),
        ("zstd", "zstd"),
        ("Deflate", "deflate"),
    ];

    #[test]
    fn every_coding_is_undone() {
        let body = prose(50_000);
        for (name, coding) in CODINGS.into_iter().chain([("deflate", "bare deflate")]) {
            let sent = encoded(coding, &body);
            assert!(
                decoded(&sent, name, 100_000, false) == Some((body.clone(), false)),
                "{coding}"
            );
            assert_eq!(decoded(&sent, name, 777, false), Some((prose(777), true)), "{coding}");
            assert_eq!(
                decoded(&encoded(coding, b""), name, 9, false),
                Some((Vec::new(), false)),
                "{coding}"
            );
        }
        let twice = encoded("br", &encoded("gzip", &body));
        assert!(decoded(&twice, "gzip, br", 100_000, false) == Some((body, false)));
    }

    #[test]
    fn a_cut_body_is_decoded_as_far_as_it_goes() {
        let body = prose(400_000);
        for (name, coding) in CODINGS {
            let sent = encoded(coding, &body);
            let (front, cut) = decoded(&sent[..sent.len() / 2], name, 400_000, true).unwrap();
            assert!(cut && body.starts_with(&front), "{coding}");
            assert!(front.len() > 100_000, "{coding}: {}", front.len());
        }
    }

    #[test]
    fn a_bomb_is_left_out() {
        for (name, coding) in CODINGS {
            let sent = encoded(coding, &vec![b'a'; 10_000_000]);
            assert_eq!(decoded(&sent, name, 65_536, false), None, "{coding}");
        }
    }

    #[test]
    fn what_is_in_no_coding_that_is_known_is_left_out() {
        assert_eq!(decoded(b"abc", "compress", 9, false), None);
        assert_eq!(decoded(b"abc", "gzip,gzip,gzip,gzip,gzip", 9, false), None);
        for (name, _) in CODINGS {
            assert_eq!(
                decoded(b"this is no compressed body at all", name, 99, false),
                None,
                "{name}"
            );
        }
        assert_eq!(decoded(b"abc", "identity", 9, false), Some((b"abc".to_vec(), false)));
    }

    #[test]
    fn charsets_are_read() {
        let read = |bytes: &[u8], label: &str, cut| text(bytes, Some(label.as_bytes()), cut).map(Cow::into_owned);
        assert_eq!(read(b"caf\xe9", "iso-8859-1", false).as_deref(), Some("café"));
        assert_eq!(read(b"\x80", "windows-1252", false).as_deref(), Some("€"));
        assert_eq!(read(b"h\0i\0", "utf-16le", false).as_deref(), Some("hi"));
        assert_eq!(read(b"\xfe\xff\0h\0i", "utf-16", false).as_deref(), Some("hi"));
        assert_eq!(read(b"h\0i\0x", "utf-16le", true).as_deref(), Some("hi"));
        assert_eq!(read(b"h\0i\0x", "utf-16le", false), None);
        assert_eq!(read(b"abc", "no-such-charset", false), None);
        assert_eq!(
            text("grüße".as_bytes().get(..3).unwrap(), None, true).as_deref(),
            Some("gr")
        );
        assert_eq!(text(b"caf\xe9", None, false), None);
    }

    proptest! {
        #[test]
        fn arbitrary_bytes_are_decoded_or_refused_within_bounds(
            bytes in proptest::collection::vec(any::<u8>(), 0..300), name in "gzip|br|zstd|deflate|deflate, gzip", cut in any::<bool>(),
        ) {
            if let Some((out, _)) = decoded(&bytes, &name, 1_000, cut) {
                prop_assert!(out.len() <= 1_000);
            }
        }
    }
}
