//! W3C Trace Context, level 2: what a request's headers say, and what goes on to the upstream.
//!
//! The parser is strict: a header that the specification does not allow starts a new trace, it is never
//! repaired (<https://www.w3.org/TR/trace-context-2/#traceparent-header>).
//!
//! Invariants:
//! - Exactly one well-formed `traceparent` continues a trace (`only_one_wellformed_traceparent_counts`).
//! - Of the flags, sampled and random are kept, others are cleared (`unknown_flags_are_cleared`).
//! - The decision to sample a new trace depends on its id alone (`sampling_follows_the_trace_id`).

use crate::queue::exchange::TraceContext;
use crate::settings::TraceMode;

/// `sampled`: the caller recorded this trace.
const SAMPLED: u8 = 0x01;
/// `random`: the trace id's last seven bytes are random.
const RANDOM: u8 = 0x02;

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

/// Which traces are sampled.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Sampling {
    /// Whether a trace that came is sampled as it was.
    pub parent_based: bool,
    /// The share of the others that is sampled, 0 to 1.
    pub share: f64,
}

/// What is decided for one exchange.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Decision {
    /// The ids that the record and the span carry.
    pub context: TraceContext,
    /// Whether the upstream is sent a `traceparent` of ours.
    pub send: bool,
    /// Whether the request's `tracestate` goes on.
    pub keep_state: bool,
}

/// Decides by the listener's mode, what came, and which traces are sampled.
pub fn decide(
    mode: TraceMode,
    came: Option<Traceparent>,
    sampling: Sampling,
    ids: &mut impl FnMut() -> u64,
) -> Decision {
    let share = sampling.share;
    match (mode, came) {
        (TraceMode::Ignore, came) => Decision {
            context: as_seen(came),
            send: false,
            keep_state: true,
        },
        (TraceMode::Continue, Some(came)) => {
            let span = if sampling.parent_based {
                came.flags & SAMPLED != 0
            } else {
                sampled(came.trace_id, share)
            };
            let context = TraceContext {
                trace_id: came.trace_id,
                span_id: span_id(ids),
                parent_id: Some(came.parent_id),
                flags: (came.flags & !SAMPLED) | u8::from(span),
                span,
                link: None,
            };
            Decision {
                context,
                send: true,
                keep_state: true,
            }
        }
        (TraceMode::Continue, None) => Decision {
            context: root(share, ids),
            send: true,
            keep_state: false,
        },
        (TraceMode::Restart, came) => {
            let link = came.map(|came| (came.trace_id, came.parent_id));
            Decision {
                context: TraceContext {
                    link,
                    ..root(share, ids)
                },
                send: true,
                keep_state: false,
            }
        }
    }
}

fn as_seen(came: Option<Traceparent>) -> TraceContext {
    came.map_or_else(TraceContext::default, |came| TraceContext {
        trace_id: came.trace_id,
        span_id: came.parent_id,
        flags: came.flags,
        ..TraceContext::default()
    })
}

fn root(share: f64, ids: &mut impl FnMut() -> u64) -> TraceContext {
    let trace_id = loop {
        let id = (u128::from(ids()) << 64 | u128::from(ids())).to_be_bytes();
        if id != [0; 16] {
            break id;
        }
    };
    let sampled = sampled(trace_id, share);
    let flags = if sampled { SAMPLED | RANDOM } else { RANDOM };
    TraceContext {
        trace_id,
        span_id: span_id(ids),
        flags,
        span: sampled,
        ..TraceContext::default()
    }
}

fn span_id(ids: &mut impl FnMut() -> u64) -> [u8; 8] {
    loop {
        let id = ids().to_be_bytes();
        if id != [0; 8] {
            return id;
        }
    }
}

/// Whether the trace is among `share` of all traces, by its 56 random bits.
fn sampled(trace_id: [u8; 16], share: f64) -> bool {
    const ALL: f64 = (1_u64 << 56) as f64;
    let [.., a, b, c, d, e, f, g] = trace_id;
    let random = u64::from_be_bytes([0, a, b, c, d, e, f, g]);
    random < (share * ALL) as u64
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

    const ALL: Sampling = Sampling {
        parent_based: true,
        share: 1.0,
    };
    const NONE: Sampling = Sampling { share: 0.0, ..ALL };
    const GOOD: &str = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";

    fn parse(value: &str) -> Option<Traceparent> {
        Traceparent::parse(value.as_bytes())
    }

    fn counter() -> impl FnMut() -> u64 {
        let mut n = 0_u64;
        move || {
            n += 1;
            n
        }
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

    #[test]
    fn continue_keeps_the_trace_and_names_the_caller_as_parent() {
        let came = parse(GOOD).unwrap();
        let decision = decide(TraceMode::Continue, Some(came), NONE, &mut counter());
        assert_eq!(decision.context.trace_id, came.trace_id);
        assert_eq!(decision.context.parent_id, Some(came.parent_id));
        assert_ne!(decision.context.span_id, came.parent_id);
        assert!(decision.context.span && decision.send && decision.keep_state);
    }

    #[test]
    fn without_a_trace_one_starts_and_no_state_goes_on() {
        let decision = decide(TraceMode::Continue, None, ALL, &mut counter());
        assert_eq!(decision.context.parent_id, None);
        assert_eq!(decision.context.flags, SAMPLED | RANDOM);
        assert!(decision.context.span && decision.send && !decision.keep_state);
    }

    #[test]
    fn restart_starts_a_trace_and_links_the_old_one() {
        let came = parse(GOOD).unwrap();
        let decision = decide(TraceMode::Restart, Some(came), ALL, &mut counter());
        assert_ne!(decision.context.trace_id, came.trace_id);
        assert_eq!(decision.context.link, Some((came.trace_id, came.parent_id)));
        assert!(!decision.keep_state);
    }

    #[test]
    fn ignore_carries_the_ids_it_saw_and_sends_nothing() {
        let came = parse(GOOD).unwrap();
        let decision = decide(TraceMode::Ignore, Some(came), ALL, &mut counter());
        assert_eq!(decision.context.trace_id, came.trace_id);
        assert!(!decision.context.span && !decision.send && decision.keep_state);
    }

    #[test]
    fn without_its_parent_a_trace_is_sampled_by_its_id_and_the_flag_says_so() {
        let alone = |share| Sampling {
            parent_based: false,
            share,
        };
        for (came, sampling, expected) in [
            ("00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-03", alone(0.0), 2),
            ("00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-00", alone(1.0), 1),
            ("00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-00", ALL, 0),
        ] {
            let context = decide(TraceMode::Continue, parse(came), sampling, &mut counter()).context;
            assert_eq!(
                (context.flags, context.span),
                (expected, expected & SAMPLED != 0),
                "{came}"
            );
        }
    }

    #[test]
    fn sampling_follows_the_trace_id() {
        let mut low = [0xff; 16];
        low[9..].copy_from_slice(&[0x3f, 0, 0, 0, 0, 0, 0]);
        assert!(sampled(low, 0.25));
        low[9] = 0x40;
        assert!(!sampled(low, 0.25));
        assert!(sampled([0xff; 16], 1.0));
        assert!(!sampled([0x00; 16], 0.0));
    }

    proptest! {
        #[test]
        fn a_larger_share_takes_every_trace_of_a_smaller_one(id in any::<[u8; 16]>(), one in 0.0..=1.0_f64, other in 0.0..=1.0_f64) {
            let (small, large) = if one < other { (one, other) } else { (other, one) };
            prop_assert!(!sampled(id, small) || sampled(id, large));
        }

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
