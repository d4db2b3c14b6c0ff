//! The page and the README's figures, in Markdown, from the results and a template.

use std::fmt::Write as _;

use anyhow::{Context as _, Result, bail};
use darlings_bench::record::{Line, Machine};
use darlings_bench::statistics::{Summary, bytes, figure, ratio};

use crate::catalogue::{self, Unit};
use crate::plot;
use crate::results::Results;

/// Sets whose ratios the README shows.
const README: [&str; 4] = ["kept", "big", "erased", "declared"];
/// Between these lines of the README.
const BEGIN: &str = "<!-- made by script/bench -->";
const END: &str = "<!-- until here -->";

/// The contestants' scripts, which the page shows as they ran.
const SCRIPTS: [(&str, &str); 4] = [
    ("cp", include_str!("../../peers/cp")),
    ("rsync", include_str!("../../peers/rsync")),
    ("wipe", include_str!("../../peers/wipe")),
    ("bind", include_str!("../../peers/bind")),
];

/// The template with each line `{{WHAT NAME}}` replaced.
pub(crate) fn page(template: &str, lines: &[Line]) -> Result<String> {
    let mut text = String::new();
    for line in template.lines() {
        let Some(inside) = line.strip_prefix("{{").and_then(|line| line.strip_suffix("}}")) else {
            text.push_str(line);
            text.push('\n');
            continue;
        };
        let (what, name) = inside.split_once(' ').unwrap_or((inside, ""));
        match what {
            "set" => text.push_str(&section(&results(name, lines)?)?),
            "plot" => text.push_str(&image(&results(name, lines)?, "benchmarks/")),
            "machine" => text.push_str(&machine(name, lines)?),
            "script" => text.push_str(&script(name)?),
            _ => bail!("the template has {line}, which means nothing"),
        }
    }
    Ok(text)
}

fn results<'a>(name: &str, lines: &'a [Line]) -> Result<Results<'a>> {
    let set = catalogue::find(name).with_context(|| format!("there is no set {name:?}"))?;
    Ok(Results::new(set, lines))
}

fn image(results: &Results<'_>, directory: &str) -> String {
    if plot::points(results).is_empty() {
        return String::new();
    }
    let set = results.set;
    format!(
        "![Time of {} against the number of {}]({directory}{}.svg)\n",
        set.what, set.row, set.name
    )
}

fn machine(name: &str, lines: &[Line]) -> Result<String> {
    let machines: Vec<&Machine> = lines
        .iter()
        .filter_map(|line| match line {
            Line::Machine(machine) if machine.name == name => Some(machine),
            _ => None,
        })
        .collect();
    let mut text = String::new();
    // A run may have been made in parts: what they have in common is said once.
    let mut runs: Vec<((&str, &str), Vec<&str>)> = Vec::new();
    for Machine { asked, day, facts, versions, .. } in machines {
        let run = (day.as_str(), asked.as_str());
        let index = runs.iter().position(|(known, _)| *known == run).unwrap_or_else(|| {
            runs.push((run, Vec::new()));
            runs.len() - 1
        });
        let told = &mut runs[index].1;
        for line in facts.iter().chain(versions) {
            if !told.contains(&line.as_str()) {
                told.push(line);
            }
        }
    }
    for ((day, asked), told) in runs {
        if !text.is_empty() {
            text.push('\n');
        }
        writeln!(text, "Measured on {day} by `{asked}`.\n")?;
        for line in told {
            writeln!(text, "- {line}")?;
        }
    }
    if text.is_empty() {
        text.push_str("Left out of this run.\n");
    }
    Ok(text)
}

fn script(name: &str) -> Result<String> {
    let (_, script) = SCRIPTS
        .iter()
        .find(|(known, _)| *known == name)
        .with_context(|| format!("there is no script {name:?}"))?;
    Ok(format!("```sh\n{}```\n", script.trim_start_matches("#!/bin/bash\n")))
}

/// A set: ratios, who is ahead, the values with their spread, what was left out.
fn section(results: &Results<'_>) -> Result<String> {
    let contestants = results.contestants();
    if contestants.is_empty() {
        return Ok("Not measured in this run.\n".to_owned());
    }
    let mut text = String::new();
    if results.outcomes().next().is_some() {
        outcomes(&mut text, results)?;
        return Ok(text);
    }
    let set = results.set;
    let (_, first) = contestants[0];
    let labels: Vec<&str> = contestants.iter().map(|(_, label)| *label).collect();
    if contestants.len() > 1 {
        head(&mut text, &format!("{}: ratios", set.what), &labels)?;
        for at in results.rows() {
            write!(text, "| {} |", results.row(at))?;
            for (name, _) in &contestants {
                let cell = results.ratio(at, name).map_or("–".to_owned(), ratio);
                write!(text, " {cell} |")?;
            }
            text.push('\n');
        }
        writeln!(text, "\n{}\n", ahead(results, first))?;
    }
    head(&mut text, &format!("{}: {}", set.what, unit(set.unit)), &labels)?;
    for at in results.rows() {
        write!(text, "| {} |", results.row(at))?;
        for (name, _) in &contestants {
            let cell = results.summary(at, name);
            write!(text, " {} |", cell.map_or("–".to_owned(), |cell| value(set.unit, &cell)))?;
        }
        text.push('\n');
    }
    left_out(&mut text, results)?;
    Ok(text)
}

fn head(text: &mut String, first: &str, labels: &[&str]) -> Result<()> {
    writeln!(text, "| {first} | {} |", labels.join(" | "))?;
    writeln!(text, "|---|{}", "---:|".repeat(labels.len()))?;
    Ok(())
}

fn unit(unit: Unit) -> &'static str {
    match unit {
        Unit::Seconds => "seconds",
        Unit::Milliseconds => "milliseconds",
        Unit::Bytes => "size",
    }
}

/// The median, and in brackets the least and the most, and how many.
fn value(unit: Unit, summary: &Summary) -> String {
    let written = match unit {
        Unit::Seconds | Unit::Milliseconds => figure,
        Unit::Bytes => bytes,
    };
    let &Summary { least, median, most, count } = summary;
    if count == 1 {
        return written(median);
    }
    format!("{} ({}–{}, {count}×)", written(median), written(least), written(most))
}

/// Who needed less than the first, and whether the spread allows to say so.
fn ahead(results: &Results<'_>, first: &str) -> String {
    let (mut clear, mut doubtful) = (Vec::new(), Vec::new());
    let base = results.contestants()[0].0;
    for (name, label) in results.contestants().into_iter().skip(1) {
        for at in results.rows() {
            let (Some(ours), Some(theirs)) = (results.summary(at, base), results.summary(at, name))
            else {
                continue;
            };
            let less = ratio(theirs.median / ours.median);
            if theirs.median >= ours.median || less == "1.00" {
                continue;
            }
            let said = format!("{label} at {} ({less})", results.row(at));
            if theirs.most < ours.least { clear.push(said) } else { doubtful.push(said) }
        }
    }
    let mut said = if clear.is_empty() {
        format!("Nobody is ahead of {first} by more than the spread.")
    } else {
        format!("**Ahead of {first}:** {}.", clear.join("; "))
    };
    if !doubtful.is_empty() {
        said.push_str(" Ahead by less than the spread: ");
        said.push_str(&doubtful.join("; "));
        said.push('.');
    }
    said
}

fn outcomes(text: &mut String, results: &Results<'_>) -> Result<()> {
    let labels: Vec<&str> = results.contestants().iter().map(|(_, label)| *label).collect();
    head(text, results.set.row, &labels)?;
    for at in results.rows() {
        write!(text, "| {at} |")?;
        for (name, _) in results.contestants() {
            let said = results
                .outcomes()
                .find(|outcome| outcome.at == at && outcome.contestant == name)
                .map_or("–", |outcome| outcome.said.as_str());
            write!(text, " {said} |")?;
        }
        text.push('\n');
    }
    left_out(text, results)
}

fn left_out(text: &mut String, results: &Results<'_>) -> Result<()> {
    let mut said: Vec<String> = Vec::new();
    for left in results.left_out() {
        let label = results.set.label(&left.contestant).unwrap_or(&left.contestant);
        said.push(format!("- {label} at {}: {}", results.row(&left.at), left.why));
    }
    if !said.is_empty() {
        writeln!(text, "\nLeft out:\n\n{}", said.join("\n"))?;
    }
    Ok(())
}

/// The README with what is between its two marks replaced by the figure and the table.
pub(crate) fn readme(old: &str, lines: &[Line]) -> Result<String> {
    let marked = || format!("the README lacks the lines {BEGIN} and {END}, in this order");
    let (before, rest) = old.split_once(BEGIN).with_context(marked)?;
    let (_, after) = rest.split_once(END).with_context(marked)?;
    let mut text = format!("{before}{BEGIN}\n");
    text.push_str(&image(&results("kept", lines)?, "docs/benchmarks/"));
    text.push('\n');
    text.push_str(&best_rows(lines)?);
    write!(text, "{END}{after}")?;
    Ok(text)
}

/// Of each set the last row in which the most took part.
fn best_rows(lines: &[Line]) -> Result<String> {
    let all = README.map(|name| results(name, lines)).into_iter().collect::<Result<Vec<_>>>()?;
    let mut columns: Vec<(&str, &str)> = Vec::new();
    for column in all.iter().flat_map(Results::contestants) {
        if !columns.contains(&column) {
            columns.push(column);
        }
    }
    let labels: Vec<&str> = columns.iter().map(|(_, label)| *label).collect();
    let mut text = String::new();
    head(&mut text, "a reset on btrfs takes so many times as long", &labels)?;
    for results in &all {
        let took_part =
            |at: &str| columns.iter().filter(|(name, _)| results.ratio(at, name).is_some()).count();
        let Some(at) = results.rows().into_iter().max_by_key(|at| took_part(at)) else { continue };
        write!(text, "| {} |", results.row(at))?;
        for (name, _) in &columns {
            let cell = results.ratio(at, name).map_or("–".to_owned(), ratio);
            write!(text, " {cell} |")?;
        }
        text.push('\n');
    }
    Ok(text)
}

#[cfg(test)]
mod tests;
