//! What becomes of a request's trace: it goes on, or another one is begun, sampled or not.
//!
//! Invariants:
//! - A listener's mode alone decides whether what came is trusted.
//! - The decision to sample a new trace depends on its id alone (`sampling_follows_the_trace_id`).

use super::traceparent::{RANDOM, SAMPLED, Traceparent};
use crate::queue::exchange::TraceContext;
use crate::settings::TraceMode;

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
    }
}
