//! What a scrape of `/metrics` is answered with: the form that the scraper asks for, and who writes it.
//!
//! Invariant: who asks for nothing, or for something else, gets the Prometheus text format
//! (`the_form_is_what_the_scraper_likes_best`).

use std::fmt;

use prometheus_client::encoding::{prometheus_text, text};
use prometheus_client::registry::Registry;

/// A form of the metrics.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    /// The Prometheus text format, version 0.0.4.
    Text,
    /// OpenMetrics 1.0.0, which alone has exemplars.
    OpenMetrics,
}

impl Format {
    /// The form for a request with this `Accept` field (RFC 9110, 12.5.1).
    #[must_use]
    pub fn accepted(accept: Option<&str>) -> Self {
        let best = |essence: &str| -> f32 {
            let ranges = accept.unwrap_or_default().split(',').filter_map(range);
            ranges
                .filter(|(name, _)| name.eq_ignore_ascii_case(essence))
                .map(|(_, quality)| quality)
                .fold(0.0, f32::max)
        };
        let open_metrics = best("application/openmetrics-text");
        if open_metrics > 0.0 && open_metrics >= best("text/plain") {
            Self::OpenMetrics
        } else {
            Self::Text
        }
    }

    /// Its `Content-Type`.
    #[must_use]
    pub const fn content_type(self) -> &'static str {
        match self {
            Self::Text => prometheus_text::CONTENT_TYPE,
            Self::OpenMetrics => "application/openmetrics-text; version=1.0.0; charset=utf-8",
        }
    }
}

/// A media range and its quality; `None` for a version of OpenMetrics or of the text format that isn't ours.
fn range(text: &str) -> Option<(&str, f32)> {
    let mut parts = text.split(';').map(str::trim);
    let essence = parts.next()?;
    let mut quality = 1.0;
    for part in parts {
        match part.split_once('=') {
            Some((name, value)) if name.eq_ignore_ascii_case("q") => quality = value.parse().unwrap_or(0.0),
            Some((name, value)) if name.eq_ignore_ascii_case("version") => {
                let version = value.trim_matches('"');
                matches!(version, "1.0.0" | "0.0.1" | "0.0.4").then_some(())?;
            }
            _ => {}
        }
    }
    Some((essence, quality))
}

/// Who has metrics to write.
pub trait Scrape: Send + Sync + 'static {
    /// Appends all of them, whole as the form has it.
    ///
    /// # Errors
    ///
    /// A metric can't be encoded.
    fn write(&self, out: &mut String, format: Format) -> fmt::Result;
}

impl Scrape for Registry {
    fn write(&self, out: &mut String, format: Format) -> fmt::Result {
        match format {
            Format::Text => prometheus_text::encode(out, self),
            Format::OpenMetrics => text::encode(out, self),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_form_is_what_the_scraper_likes_best() {
        const PROMETHEUS_3: &str = "application/openmetrics-text;version=1.0.0;escaping=allow-utf-8;q=0.5,\
             application/openmetrics-text;version=0.0.1;q=0.4,text/plain;version=1.0.0;escaping=allow-utf-8;q=0.3,\
             text/plain;version=0.0.4;q=0.2,*/*;q=0.1";
        for (accept, expected) in [
            (None, Format::Text),
            (Some("*/*"), Format::Text),
            (Some("text/html"), Format::Text),
            (Some(PROMETHEUS_3), Format::OpenMetrics),
            (Some("Application/OpenMetrics-Text"), Format::OpenMetrics),
            (
                Some("application/openmetrics-text; version=\"1.0.0\""),
                Format::OpenMetrics,
            ),
            (Some("application/openmetrics-text; version=2.0.0"), Format::Text),
            (Some("application/openmetrics-text;q=0"), Format::Text),
            (
                Some("application/openmetrics-text;q=0.2, text/plain;q=0.9"),
                Format::Text,
            ),
        ] {
            assert_eq!(Format::accepted(accept), expected, "{accept:?}");
        }
    }
}
