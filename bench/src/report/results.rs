//! The lines of one set, found by row and contestant.

use anyhow::{Result, ensure};
use darlings_bench::record::{LeftOut, Line, Outcome};
use darlings_bench::statistics::{Summary, grouped};

use crate::catalogue::{self, Set};

/// What was measured of a set.
pub(crate) struct Results<'a> {
    pub(crate) set: &'static Set,
    lines: Vec<&'a Line>,
}

/// Every line must belong to a set and a contestant that the page knows: what it left out by
/// mistake would be missed by nobody.
pub(crate) fn check(lines: &[Line]) -> Result<()> {
    for line in lines {
        let Some((set, contestant)) = belongs(line) else { continue };
        let known = catalogue::find(set).is_some_and(|set| set.label(contestant).is_some());
        ensure!(known, "the results have {contestant:?} in the set {set:?}, which the page lacks");
        if let Line::Measured(measured) = line {
            let fine = measured.values.iter().all(|value| value.is_finite());
            ensure!(
                fine && !measured.values.is_empty(),
                "the results have no numbers for {contestant:?} in the set {set:?}"
            );
        }
    }
    Ok(())
}

fn belongs(line: &Line) -> Option<(&str, &str)> {
    match line {
        Line::Machine(_) => None,
        Line::Measured(line) => Some((&line.set, &line.contestant)),
        Line::LeftOut(line) => Some((&line.set, &line.contestant)),
        Line::Outcome(line) => Some((&line.set, &line.contestant)),
    }
}

fn row(line: &Line) -> &str {
    match line {
        Line::Machine(_) => "",
        Line::Measured(line) => &line.at,
        Line::LeftOut(line) => &line.at,
        Line::Outcome(line) => &line.at,
    }
}

impl<'a> Results<'a> {
    pub(crate) fn new(set: &'static Set, lines: &'a [Line]) -> Self {
        let lines = lines
            .iter()
            .filter(|line| belongs(line).is_some_and(|(name, _)| name == set.name))
            .collect();
        Self { set, lines }
    }

    /// The rows, in the order in which they came.
    pub(crate) fn rows(&self) -> Vec<&'a str> {
        let mut rows = Vec::new();
        for line in &self.lines {
            if !rows.contains(&row(line)) {
                rows.push(row(line));
            }
        }
        rows
    }

    /// Who was measured or left out anywhere, in the catalogue's order.
    pub(crate) fn contestants(&self) -> Vec<(&'static str, &'static str)> {
        let takes_part = |name: &str| {
            self.lines.iter().any(|line| belongs(line).is_some_and(|(_, found)| found == name))
        };
        self.set.contestants.iter().copied().filter(|(name, _)| takes_part(name)).collect()
    }

    /// All values of a contestant in a row.
    pub(crate) fn summary(&self, at: &str, contestant: &str) -> Option<Summary> {
        let values: Vec<f64> = self
            .lines
            .iter()
            .filter_map(|line| match line {
                Line::Measured(line) if line.at == at && line.contestant == contestant => {
                    Some(&line.values)
                }
                _ => None,
            })
            .flatten()
            .copied()
            .collect();
        Summary::of(&values)
    }

    /// The median of a contestant as a multiple of the first one's.
    pub(crate) fn ratio(&self, at: &str, contestant: &str) -> Option<f64> {
        let first = self.summary(at, self.set.contestants.first()?.0)?.median;
        // Nothing is not a multiple of anything: processor time has steps.
        (first > 0.0).then_some(self.summary(at, contestant)?.median / first)
    }

    /// How the page calls a row.
    pub(crate) fn row(&self, at: &str) -> String {
        if at.parse::<u64>().is_ok() {
            format!("{} {}", grouped(at), self.set.row)
        } else {
            at.to_owned()
        }
    }

    pub(crate) fn left_out(&self) -> impl Iterator<Item = &'a LeftOut> {
        self.lines.iter().filter_map(|line| match line {
            Line::LeftOut(line) => Some(line),
            _ => None,
        })
    }

    pub(crate) fn outcomes(&self) -> impl Iterator<Item = &'a Outcome> {
        self.lines.iter().filter_map(|line| match line {
            Line::Outcome(line) => Some(line),
            _ => None,
        })
    }
}
