//! One line of the results, and reading a file of them.

use std::io::Write as _;
use std::path::Path;

use anyhow::{Context as _, Result};
use serde::{Deserialize, Serialize};

/// A line of the results.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case", deny_unknown_fields)]
pub enum Line {
    /// Where what follows was measured.
    Machine(Machine),
    /// One contestant's values in one row of a set.
    Measured(Measured),
    /// A contestant that was not measured in a row of a set.
    LeftOut(LeftOut),
    /// What a contestant did where the question is whether it works.
    Outcome(Outcome),
}

/// The machine, the versions, and how the run was asked for.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Machine {
    /// `host` or `guest`: which sets were measured there.
    pub name: String,
    /// The words after `script/bench`.
    pub asked: String,
    /// The day, as `2026-11-24`.
    pub day: String,
    /// What the machine is: kernel, processors, memory, what the filesystems lie on.
    pub facts: Vec<String>,
    /// The programs and their versions.
    pub versions: Vec<String>,
}

/// Values of one contestant, in the order in which they were taken.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Measured {
    /// The set, such as `kept`.
    pub set: String,
    /// The row: a number of things, or a name.
    pub at: String,
    /// Who.
    pub contestant: String,
    /// One value a round. Less is better, whatever the unit of the set is.
    pub values: Vec<f64>,
}

/// What was not measured, and why.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LeftOut {
    /// The set.
    pub set: String,
    /// The row.
    pub at: String,
    /// Who.
    pub contestant: String,
    /// A clause that says why.
    pub why: String,
}

/// What happened.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Outcome {
    /// The set.
    pub set: String,
    /// The row.
    pub at: String,
    /// Who.
    pub contestant: String,
    /// In words, with the kernel's own where it refused.
    pub said: String,
}

impl Line {
    /// Adds the line to a file, which is made when it is absent.
    pub fn append(&self, file: &Path) -> Result<()> {
        let told = || format!("cannot write results to {}", file.display());
        let mut text = serde_json::to_string(self).with_context(told)?;
        text.push('\n');
        let mut open =
            std::fs::File::options().append(true).create(true).open(file).with_context(told)?;
        open.write_all(text.as_bytes()).with_context(told)
    }
}

/// Reads results; a line that is none is an error that names it.
pub fn parse(text: &str) -> Result<Vec<Line>> {
    text.lines()
        .enumerate()
        .map(|(index, line)| {
            serde_json::from_str(line)
                .with_context(|| format!("line {} of the results is not one: {line}", index + 1))
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::{LeftOut, Line, Measured, parse};

    #[test]
    fn what_was_written_is_read_again() -> anyhow::Result<()> {
        let dir = tempfile::tempdir()?;
        let file = dir.path().join("results.jsonl");
        let lines = [
            Line::Measured(Measured {
                set: "kept".into(),
                at: "1000".into(),
                contestant: "carry".into(),
                values: vec![0.5, 0.25],
            }),
            Line::LeftOut(LeftOut {
                set: "kept".into(),
                at: "1000".into(),
                contestant: "rsync".into(),
                why: "it is too slow".into(),
            }),
        ];
        for line in &lines {
            line.append(&file)?;
        }
        let text = std::fs::read_to_string(&file)?;
        assert_eq!(
            text,
            "{\"kind\":\"measured\",\"set\":\"kept\",\"at\":\"1000\",\"contestant\":\"carry\",\
             \"values\":[0.5,0.25]}\n{\"kind\":\"left_out\",\"set\":\"kept\",\"at\":\"1000\",\
             \"contestant\":\"rsync\",\"why\":\"it is too slow\"}\n"
        );
        assert_eq!(parse(&text)?, lines);
        Ok(())
    }

    #[test]
    fn a_line_that_is_no_result_is_named() {
        let why = parse("{\"kind\":\"guessed\"}\n").map_err(|why| why.to_string());
        assert_eq!(why, Err("line 1 of the results is not one: {\"kind\":\"guessed\"}".to_owned()));
    }
}
