//! What is measured, and the lines that a measurement becomes.

use std::fs;
use std::io::Write as _;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, bail, ensure};
use serde_json::{Value, json};

/// Something that can be measured alone.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum Part {
    /// Resets on ZFS of many small files.
    ZfsKept,
    /// Resets on ZFS of big files.
    ZfsBig,
    /// Boots, and bind mounts by systemd.
    Boot,
}

impl Part {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::ZfsKept, Self::ZfsBig, Self::Boot];
}

/// What is measured and how often.
#[derive(Debug, Clone)]
pub struct Settings {
    /// What is measured at all.
    pub parts: Vec<Part>,
    /// Where lines are added.
    pub results: PathBuf,
    /// The words by which the run was asked for.
    pub asked: String,
    /// Numbers of small files on ZFS.
    pub files: Vec<u32>,
    /// Big files on ZFS.
    pub large: u32,
    /// Their size, in MiB.
    pub mebibytes: u32,
    /// Numbers of bind mounts by systemd.
    pub mounts: Vec<u32>,
    /// How often each contestant runs, and each machine is booted.
    pub rounds: u32,
}

/// The guest's lines, a result for each: values of the same contestant are put together by the report.
pub(super) fn lines(said: &str) -> Result<Vec<Value>> {
    let mut lines = Vec::new();
    for line in said.lines().filter(|line| !line.starts_with('#')) {
        let words: Vec<&str> = line.split('\t').collect();
        let [set, at, contestant, took] = words[..] else { bail!("the guest said {line:?}") };
        let took: f64 = took.parse().with_context(|| format!("the guest said {line:?}"))?;
        lines.push(measured(set, at, contestant, took));
    }
    ensure!(!lines.is_empty(), "the guest measured nothing");
    Ok(lines)
}

fn measured(set: &str, at: &str, contestant: &str, value: f64) -> Value {
    json!({
        "kind": "measured", "set": set, "at": at, "contestant": contestant, "values": [value],
    })
}

pub(super) fn append(file: &Path, lines: &[Value]) -> Result<()> {
    let told = || format!("cannot write results to {}", file.display());
    let mut open = fs::File::options().append(true).create(true).open(file).with_context(told)?;
    for line in lines {
        writeln!(open, "{line}").with_context(told)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::lines;

    #[test]
    fn what_a_guest_measured_becomes_lines_of_json() -> anyhow::Result<()> {
        let said = "#version Linux\n# filling\nzfs_kept\t3\tcarry\t2.5\nzfs_kept\t3\tcp\t8.0\n";
        let text: Vec<String> = lines(said)?.iter().map(ToString::to_string).collect();
        assert_eq!(
            text,
            [
                r#"{"at":"3","contestant":"carry","kind":"measured","set":"zfs_kept","values":[2.5]}"#,
                r#"{"at":"3","contestant":"cp","kind":"measured","set":"zfs_kept","values":[8.0]}"#,
            ]
        );
        Ok(())
    }

    #[test]
    fn what_is_no_measurement_is_an_error() {
        assert!(lines("cannot import tank\n").is_err());
        assert!(lines("# nothing\n").is_err());
    }
}
