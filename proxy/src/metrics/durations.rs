//! The histogram of durations by route, as text in both forms.
//!
//! Written here because prometheus-client has no way to encode an exemplar that it doesn't keep itself, behind a lock that
//! the request path would have to take.
//!
//! Invariants:
//! - Only OpenMetrics has exemplars, and an exemplar lies in its bucket (`an_exemplar_stands_behind_its_bucket`).
//! - Routes without exchanges are left out.

use std::fmt::{self, Write};
use std::sync::Arc;
use std::time::Duration;

use sidelog_chassis::scrape::Format;

use super::exchanges::{DURATIONS, Series};
use super::histogram::{Exemplar, seconds};

/// Appends the family `name`, whole.
///
/// # Errors
/// Never: a string takes all that is written to it.
pub fn write(out: &mut String, format: Format, name: &str, help: &str, series: &[Arc<Series>]) -> fmt::Result {
    writeln!(out, "# HELP {name} {help}\n# TYPE {name} histogram")?;
    let finite = DURATIONS.iter().map(|bound| bound_text(seconds(*bound), format));
    let bounds: Vec<String> = finite.chain(["+Inf".to_owned()]).collect();
    for one in series {
        let reading = one.durations().read();
        let route = escaped(one.route());
        let mut count = 0;
        let buckets = bounds.iter().zip(&reading.buckets).zip(one.exemplars());
        if reading.count() == 0 {
            continue;
        }
        for ((bound, (_, in_bucket)), exemplar) in buckets {
            count += in_bucket;
            write!(out, "{name}_bucket{{route=\"{route}\",le=\"{bound}\"}} {count}")?;
            // One that was put after its bucket was read is told by the next scrape.
            if let Some(exemplar) = exemplar.filter(|_| format == Format::OpenMetrics && *in_bucket > 0) {
                write_exemplar(out, &exemplar)?;
            }
            out.push('\n');
        }
        let sum = reading.sum;
        writeln!(
            out,
            "{name}_count{{route=\"{route}\"}} {count}\n{name}_sum{{route=\"{route}\"}} {sum:?}"
        )?;
    }
    Ok(())
}

/// OpenMetrics has `1.0` where the Prometheus format has `1`.
fn bound_text(bound: f64, format: Format) -> String {
    match format {
        Format::Text => format!("{bound}"),
        Format::OpenMetrics => format!("{bound:?}"),
    }
}

fn write_exemplar(out: &mut String, exemplar: &Exemplar) -> fmt::Result {
    let trace_id = u128::from_be_bytes(exemplar.trace_id);
    let (took, at) = (seconds(exemplar.nanos), Duration::from_nanos(exemplar.at));
    let (second, millis) = (at.as_secs(), at.subsec_millis());
    write!(out, " # {{trace_id=\"{trace_id:032x}\"}} {took:?} {second}.{millis:03}")
}

/// A label's value between its quotes.
fn escaped(value: &str) -> String {
    value.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n")
}

#[cfg(test)]
mod tests {
    use super::super::exchanges::Exchanges;
    use super::*;
    use crate::queue::exchange::tests::exchange;

    fn text(format: Format) -> String {
        let exchanges = Arc::new(Exchanges::default());
        let routes = exchanges.routes(["/a\"b", "/never"].into_iter());
        let mut seen = exchange(b"{}");
        seen.route = Some(0);
        seen.trace.trace_id = [0xab; 16];
        seen.started = 1_700_000_000_000_000_000;
        for (duration, span) in [(1_000_000, true), (1_500_000, false), (500_000_000_000, false)] {
            (seen.duration, seen.trace.span) = (duration, span);
            routes.began();
            routes.ended(&seen, None);
        }
        let mut out = String::new();
        write(&mut out, format, "d", "Help", &exchanges.series()).unwrap();
        out
    }

    #[test]
    fn an_exemplar_stands_behind_its_bucket() {
        let out = text(Format::OpenMetrics);
        let id = "ab".repeat(16);
        let expected = format!(
            "d_bucket{{route=\"/a\\\"b\",le=\"0.001\"}} 1 # {{trace_id=\"{id}\"}} 0.001 1700000000.001\n\
             d_bucket{{route=\"/a\\\"b\",le=\"0.0025\"}} 2\n"
        );
        assert!(
            out.starts_with(&format!("# HELP d Help\n# TYPE d histogram\n{expected}")),
            "{out}"
        );
        assert!(out.contains("le=\"1.0\"} 2\n"), "{out}");
        assert!(
            out.ends_with("le=\"+Inf\"} 3\nd_count{route=\"/a\\\"b\"} 3\nd_sum{route=\"/a\\\"b\"} 500.0025\n"),
            "{out}"
        );
    }

    #[test]
    fn the_text_format_has_no_exemplars() {
        let out = text(Format::Text);
        assert!(!out.contains("trace_id") && out.contains("le=\"1\"} 2\n"), "{out}");
    }
}
