//! The results of the benchmarks, by set.

use anyhow::{Context as _, Result, ensure};
use serde::Deserialize;

/// A line of the results.
#[derive(Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
enum Line {
    Machine(Machine),
    Measured(Cell),
    LeftOut(Cell),
    Outcome(Cell),
}

/// Where something was measured, and how the run was asked for.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Machine {
    /// `host` or `guest`.
    pub(crate) name: String,
    pub(crate) asked: String,
    pub(crate) day: String,
    pub(crate) facts: Vec<String>,
    pub(crate) versions: Vec<String>,
}

/// What is known of one contestant in one row of a set.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Cell {
    set: String,
    /// The row: a number of things, or a name.
    pub(crate) at: String,
    pub(crate) contestant: String,
    /// In the unit of the set. Less is better.
    #[serde(default)]
    values: Vec<f64>,
    /// Why it was not measured.
    pub(crate) why: Option<String>,
    /// What it did, where the question is whether it works.
    pub(crate) said: Option<String>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Unit {
    Seconds,
    Milliseconds,
    Bytes,
}

/// A comparison: rows of one kind, and the contestants in each.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Set {
    pub(crate) name: String,
    /// What a row is a number of.
    pub(crate) row: String,
    /// What is compared.
    pub(crate) what: String,
    pub(crate) unit: Unit,
    /// Names in the results, and labels on the page. Ratios are to the first.
    contestants: Vec<(String, String)>,
    #[serde(skip)]
    pub(crate) cells: Vec<Cell>,
}

/// All that was measured.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Results {
    #[serde(rename = "set")]
    pub(crate) sets: Vec<Set>,
    #[serde(skip)]
    pub(crate) machines: Vec<Machine>,
}

impl Results {
    /// The sets, without any results yet.
    pub(crate) fn new(sets: &str) -> Result<Self> {
        toml::from_str(sets).context("cannot use the list of sets")
    }

    /// Adds a file of results. A line that belongs to no set or contestant is an error: the page would
    /// leave it out without a word.
    pub(crate) fn add(&mut self, text: &str) -> Result<()> {
        for (index, line) in text.lines().enumerate() {
            let number = index + 1;
            let told = || format!("line {number} is not a result: {line}");
            let cell = match serde_json::from_str(line).with_context(told)? {
                Line::Machine(machine) => {
                    self.machines.push(machine);
                    continue;
                }
                Line::Measured(cell) => {
                    let fine = cell.values.iter().all(|value| value.is_finite());
                    ensure!(
                        fine && !cell.values.is_empty(),
                        "line {number} has no numbers: {line}"
                    );
                    cell
                }
                Line::LeftOut(cell) | Line::Outcome(cell) => cell,
            };
            let Cell { set, contestant, .. } = &cell;
            let known = self.sets.iter_mut().find(|known| {
                known.name == *set && known.contestants.iter().any(|(name, _)| name == contestant)
            });
            let unknown =
                || format!("line {number}: the page has no {contestant:?} in a set {set:?}");
            known.with_context(unknown)?.cells.push(cell);
        }
        Ok(())
    }

    pub(crate) fn set(&self, name: &str) -> Result<&Set> {
        let set = self.sets.iter().find(|set| set.name == name);
        set.with_context(|| format!("there is no set {name:?}"))
    }
}

impl Set {
    /// The rows, in the order in which they came.
    pub(crate) fn rows(&self) -> Vec<&str> {
        unique(self.cells.iter().map(|cell| &*cell.at))
    }

    /// Name and label of each that was measured or left out anywhere.
    pub(crate) fn contestants(&self) -> Vec<(&str, &str)> {
        let takes_part = |name: &str| self.cells.iter().any(|cell| cell.contestant == name);
        let all = self.contestants.iter().map(|(name, label)| (&**name, &**label));
        all.filter(|(name, _)| takes_part(name)).collect()
    }

    /// The cells of a contestant in a row.
    pub(crate) fn cells_of(&self, at: &str, contestant: &str) -> impl Iterator<Item = &Cell> {
        self.cells.iter().filter(move |cell| cell.at == at && cell.contestant == contestant)
    }

    pub(crate) fn summary(&self, at: &str, contestant: &str) -> Option<Summary> {
        Summary::of(self.cells_of(at, contestant).flat_map(|cell| cell.values.clone()).collect())
    }

    /// The median of a contestant as a multiple of the first one's. Of nothing there is no multiple.
    pub(crate) fn ratio(&self, at: &str, contestant: &str) -> Option<f64> {
        let first = self.summary(at, &self.contestants.first()?.0)?.median;
        (first > 0.0).then_some(self.summary(at, contestant)?.median / first)
    }

    /// How the page calls a row.
    pub(crate) fn row_label(&self, at: &str) -> String {
        if at.parse::<u64>().is_ok() {
            let row = if at == "1" { self.row.replace("paths", "path") } else { self.row.clone() };
            format!("{} {row}", grouped(at))
        } else {
            at.to_owned()
        }
    }
}

/// Each item once, in the order in which they came.
pub(crate) fn unique<T: PartialEq>(items: impl IntoIterator<Item = T>) -> Vec<T> {
    let mut seen = Vec::new();
    for item in items {
        if !seen.contains(&item) {
            seen.push(item);
        }
    }
    seen
}

/// The median and the spread of a few values.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Summary {
    pub(crate) least: f64,
    pub(crate) median: f64,
    pub(crate) most: f64,
    pub(crate) count: usize,
}

impl Summary {
    fn of(mut values: Vec<f64>) -> Option<Self> {
        values.sort_by(f64::total_cmp);
        let (least, most, count) = (*values.first()?, *values.last()?, values.len());
        let median = f64::midpoint(values[(count - 1) / 2], values[count / 2]);
        Some(Self { least, median, most, count })
    }
}

/// A number with three figures or so: `0.083`, `1.25`, `13.1`, `1,234`.
pub(crate) fn figure(value: f64) -> String {
    match value {
        value if value < 1.0 => format!("{value:.3}"),
        value if value < 10.0 => format!("{value:.2}"),
        value if value < 100.0 => format!("{value:.1}"),
        value => grouped(&format!("{value:.0}")),
    }
}

/// A ratio: two decimals below ten, so that one is `1.00`.
pub(crate) fn ratio(value: f64) -> String {
    if value < 10.0 { format!("{value:.2}") } else { figure(value) }
}

/// Bytes in the unit that suits them.
pub(crate) fn bytes(value: f64) -> String {
    if value.abs() < 1024.0 {
        return format!("{value:.0} B");
    }
    let mut value = value / 1024.0;
    for unit in ["KiB", "MiB"] {
        if value.abs() < 1024.0 {
            return format!("{value:.1} {unit}");
        }
        value /= 1024.0;
    }
    format!("{value:.1} GiB")
}

/// Digits in groups of three.
pub(crate) fn grouped(digits: &str) -> String {
    let mut text = String::new();
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::{Results, Summary, bytes, figure, grouped, ratio};

    const SETS: &str = "[[set]]\nname = \"kept\"\nrow = \"files\"\nwhat = \"a reset\"\nunit = \"seconds\"\ncontestants = [[\"cp\", \"`cp`\"]]\n";

    #[test]
    fn a_summary_has_the_middle_value_and_both_ends() {
        let summary = Summary { least: 1.0, median: 3.0, most: 9.0, count: 3 };
        assert_eq!(Summary::of(vec![9.0, 1.0, 3.0]), Some(summary));
        let summary = Summary { least: 1.0, median: 2.5, most: 9.0, count: 4 };
        assert_eq!(Summary::of(vec![9.0, 1.0, 3.0, 2.0]), Some(summary));
        assert_eq!(Summary::of(vec![]), None);
    }

    #[test]
    fn numbers_are_written_with_as_many_figures_as_they_are_worth() {
        assert_eq!(
            [0.0834, 1.254, 13.09, 127.4, 1_234_567.0].map(figure),
            ["0.083", "1.25", "13.1", "127", "1,234,567"]
        );
        assert_eq!([1.0, 0.451, 81.23].map(ratio), ["1.00", "0.45", "81.2"]);
        assert_eq!(
            [0.0, 1023.0, 1536.0, 4_613_734.0, 5_368_709_120.0].map(bytes),
            ["0 B", "1023 B", "1.5 KiB", "4.4 MiB", "5.0 GiB"]
        );
        assert_eq!(["1", "1000", "1000000"].map(grouped), ["1", "1,000", "1,000,000"]);
    }

    #[test]
    fn a_line_that_the_page_cannot_show_is_named() {
        for (line, named) in [
            (r#"{"kind":"guessed"}"#, "line 1 is not a result: {\"kind\":\"guessed\"}"),
            (
                r#"{"kind":"measured","set":"kept","at":"1","contestant":"cp","values":[]}"#,
                "line 1 has no numbers: {\"kind\":\"measured\",\"set\":\"kept\",\"at\":\"1\",\
                 \"contestant\":\"cp\",\"values\":[]}",
            ),
            (
                r#"{"kind":"measured","set":"kept","at":"1","contestant":"dd","values":[1]}"#,
                "line 1: the page has no \"dd\" in a set \"kept\"",
            ),
        ] {
            let said = Results::new(SETS).and_then(|mut results| results.add(line));
            assert_eq!(said.map_err(|why| why.to_string()), Err(named.to_owned()));
        }
    }
}
