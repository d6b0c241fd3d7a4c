//! Figures: each with its spread, and each target with what was measured.

use std::fmt;

/// What is to be attained; less is better.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Target {
    pub(crate) what: &'static str,
    pub(crate) must: f64,
    pub(crate) aim: f64,
    pub(crate) unit: Unit,
}

/// What a figure is of.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Unit {
    /// One cost by another.
    Ratio,
    /// The difference of two ratios.
    Difference,
    Milliseconds,
    Megabytes,
    /// Of a core.
    Percent,
}

/// The figures of all rounds.
#[derive(Debug, Clone)]
pub(crate) struct Spread {
    pub(crate) median: f64,
    pub(crate) lowest: f64,
    pub(crate) highest: f64,
}

/// A target and what was measured.
#[derive(Debug)]
pub(crate) struct Row {
    pub(crate) target: Target,
    pub(crate) measured: Spread,
    /// What makes the figure void: a record that was not kept, other work on the proxy's core.
    pub(crate) flaws: Vec<String>,
}

impl Spread {
    /// Of these figures, of which there is one at least.
    pub(crate) fn of(figures: impl IntoIterator<Item = f64>) -> Self {
        let mut figures: Vec<f64> = figures.into_iter().collect();
        figures.sort_by(f64::total_cmp);
        let at = |place: usize| *figures.get(place).expect("a figure");
        let (middle, last) = (figures.len() / 2, figures.len().saturating_sub(1));
        let median = if figures.len().is_multiple_of(2) {
            f64::midpoint(at(middle.saturating_sub(1)), at(middle))
        } else {
            at(middle)
        };
        Self {
            median,
            lowest: at(0),
            highest: at(last),
        }
    }
}

impl Unit {
    fn show(self, value: f64) -> String {
        match self {
            Self::Ratio => format!("{value:.2}"),
            Self::Difference => format!("{value:+.2}"),
            Self::Milliseconds => format!("{value:.2} ms"),
            Self::Megabytes => format!("{value:.0} MB"),
            Self::Percent => format!("{value:.3} %"),
        }
    }
}

impl fmt::Display for Row {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            target,
            measured,
            flaws,
        } = self;
        let show = |value| target.unit.show(value);
        let holds = match measured.median {
            median if median <= target.aim => "the aim, too",
            median if median <= target.must => "yes",
            _ => "NO",
        };
        write!(
            f,
            "| {:<64} | {:>7} | {:>7} | {:>8} | {:>20} | {holds:<12} |",
            target.what,
            show(target.must),
            show(target.aim),
            show(measured.median),
            format!("{} to {}", show(measured.lowest), show(measured.highest)),
        )?;
        flaws.iter().try_for_each(|flaw| write!(f, "\n    VOID: {flaw}"))
    }
}

/// The heads of the columns.
pub(crate) fn head() -> String {
    format!(
        "| {:<64} | {:>7} | {:>7} | {:>8} | {:>20} | {:<12} |\n|{}|{}|{}|{}|{}|{}|",
        "what",
        "must",
        "aim",
        "measured",
        "lowest to highest",
        "holds",
        "-".repeat(66),
        "-".repeat(9),
        "-".repeat(9),
        "-".repeat(10),
        "-".repeat(22),
        "-".repeat(14),
    )
}
