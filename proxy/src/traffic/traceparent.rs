//! `traceparent`: which trace a request belongs to, and who called.
//!
//! The parser is strict: a header that the specification does not allow starts a new trace, it is never
//! repaired (<https://www.w3.org/TR/trace-context-2/#traceparent-header>).
//!
//! Invariants:
//! - Exactly one well-formed `traceparent` continues a trace (`only_one_wellformed_traceparent_counts`).
//! - Of the flags, sampled and random are kept, others are cleared (`unknown_flags_are_cleared`).
//! - No bytes make the parser panic (`arbitrary_values_never_panic`, and `proxy/fuzz`).

/// `sampled`: the caller recorded this trace.
pub const SAMPLED: u8 = 0x01;
/// `random`: the trace id's last seven bytes are random.
pub const RANDOM: u8 = 0x02;

/// A well-formed `traceparent`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Traceparent {
    /// 16 bytes, not all zero.
    pub trace_id: [u8; 16],
    /// 8 bytes, not all zero.
    pub parent_id: [u8; 8],
    /// Sampled and random.
    pub flags: u8,
}

impl Traceparent {
    /// Reads one header value. `None` when it is not exactly what the specification allows.
    pub fn parse(value: &[u8]) -> Option<Self> {
        let (head, more) = value.split_at_checked(55)?;
        let version = hex::<1>(head.get(..2)?)?;
        match (version, more.first()) {
            ([0xff], _) | ([0], Some(_)) => return None,
            (_, None | Some(b'-')) => {}
            _ => return None,
        }
        if [2, 35, 52].iter().any(|at| head.get(*at) != Some(&b'-')) {
            return None;
        }
        let trace_id = hex(head.get(3..35)?)?;
        let parent_id = hex(head.get(36..52)?)?;
        let [flags] = hex(head.get(53..55)?)?;
        let valid = trace_id != [0; 16] && parent_id != [0; 8];
        valid.then_some(Self {
            trace_id,
            parent_id,
            flags: flags & (SAMPLED | RANDOM),
        })
    }

    /// The only one of several values. `None` when there is none, more than one, or it is malformed.
    pub fn only<'a>(mut values: impl Iterator<Item = &'a [u8]>) -> Option<Self> {
        let first = values.next()?;
        if values.next().is_some() {
            return None;
        }
        Self::parse(first)
    }

    /// The header value of version 00.
    pub fn header(trace_id: [u8; 16], span_id: [u8; 8], flags: u8) -> [u8; 55] {
        let mut out = *b"00-00000000000000000000000000000000-0000000000000000-00";
        write_hex(&mut out[3..35], &trace_id);
        write_hex(&mut out[36..52], &span_id);
        write_hex(&mut out[53..55], &[flags]);
        out
    }
}

/// Lower-case hex of exactly `N` bytes.
fn hex<const N: usize>(text: &[u8]) -> Option<[u8; N]> {
    fn digit(c: u8) -> Option<u8> {
        match c {
            b'0'..=b'9' => Some(c - b'0'),
            b'a'..=b'f' => Some(c - b'a' + 10),
            _ => None,
        }
    }
    let mut out = [0; N];
    let (pairs, rest) = text.as_chunks::<2>();
    if pairs.len() != N || !rest.is_empty() {
        return None;
    }
    for (byte, [high, low]) in out.iter_mut().zip(pairs) {
        *byte = digit(*high)? << 4 | digit(*low)?;
    }
    Some(out)
}

fn write_hex(out: &mut [u8], bytes: &[u8]) {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    for (pair, byte) in out.chunks_exact_mut(2).zip(bytes) {
        pair.copy_from_slice(&[DIGITS[usize::from(byte >> 4)], DIGITS[usize::from(byte & 15)]]);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const GOOD: &str = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";

    fn parse(value: &str) -> Option<Traceparent> {
        Traceparent::parse(value.as_bytes())
    }

    #[test]
    fn a_wellformed_traceparent_is_read() {
        let read = parse(GOOD).unwrap();
        assert_eq!(read.trace_id[..2], [0x0a, 0xf7]);
        assert_eq!(read.parent_id[..2], [0xb7, 0xad]);
        assert_eq!(read.flags, 1);
        assert_eq!(
            Traceparent::header(read.trace_id, read.parent_id, read.flags),
            *GOOD.as_bytes()
        );
    }

    #[test]
    fn malformed_traceparents_are_refused() {
        let cases = [
            "",
            "00",
            "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331",
            "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-1",
            "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01-",
            "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01-what",
            "ff-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
            "0-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
            "cc-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01.what",
            "00-00000000000000000000000000000000-b7ad6b7169203331-01",
            "00-0af7651916cd43dd8448eb211c80319c-0000000000000000-01",
            "00-0AF7651916CD43DD8448EB211C80319C-b7ad6b7169203331-01",
            "00-0af7651916cd43dd8448eb211c80319c-B7AD6B7169203331-01",
            "00-.af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
            "00-+af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
            "00_0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
            " 00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
            "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-0x",
        ];
        for case in cases {
            assert_eq!(parse(case), None, "{case:?} was taken");
        }
    }

    #[test]
    fn a_later_version_is_read_by_what_version_00_defines() {
        assert!(parse("cc-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01").is_some());
        assert!(parse("cc-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01-what-follows").is_some());
    }

    #[test]
    fn unknown_flags_are_cleared() {
        let read = parse("00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-ff").unwrap();
        assert_eq!(read.flags, SAMPLED | RANDOM);
    }

    #[test]
    fn only_one_wellformed_traceparent_counts() {
        let good = GOOD.as_bytes();
        assert!(Traceparent::only([good].into_iter()).is_some());
        assert!(Traceparent::only([good, good].into_iter()).is_none());
        assert!(Traceparent::only(std::iter::empty()).is_none());
    }

    proptest! {
        #[test]
        fn arbitrary_values_never_panic(value in proptest::collection::vec(any::<u8>(), 0..80)) {
            Traceparent::parse(&value);
        }

        #[test]
        fn what_is_written_is_read_back(trace in 1_u128.., span in 1_u64.., flags in 0_u8..4) {
            let (trace_id, parent_id) = (trace.to_be_bytes(), span.to_be_bytes());
            let header = Traceparent::header(trace_id, parent_id, flags);
            prop_assert_eq!(Traceparent::parse(&header), Some(Traceparent { trace_id, parent_id, flags }));
        }
    }
}
