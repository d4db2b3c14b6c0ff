//! The page and the README's figures, in Markdown.

use anyhow::{Context as _, Result, bail};

use super::plot;
use super::results::{Machine, Results, Set, Summary, Unit, bytes, figure, ratio, unique};

/// Sets whose ratios the README shows.
const README: [&str; 4] = ["kept", "big", "erased", "declared"];
/// Between these lines of the README.
const BEGIN: &str = "<!-- made by script/bench -->";
const END: &str = "<!-- until here -->";
/// What stands where nothing was measured.
const NOTHING: &str = "–";

/// The template with each line `{{WHAT NAME}}` replaced. `script` gives the text of a contestant's script.
pub(crate) fn page(
    template: &str,
    results: &Results,
    script: impl Fn(&str) -> Result<String>,
) -> Result<String> {
    let mut text = String::new();
    for line in template.lines() {
        let inside = line.strip_prefix("{{").and_then(|line| line.strip_suffix("}}"));
        match inside.map(|inside| inside.split_once(' ').unwrap_or((inside, ""))) {
            None => text.extend([line, "\n"]),
            Some(("set", name)) => text += &section(results.set(name)?),
            Some(("plot", name)) => text += &image(results.set(name)?, "benchmarks/"),
            Some(("machine", name)) => text += &machine(name, &results.machines),
            Some(("script", name)) => {
                let script = script(name)?;
                text.extend(["```sh\n", script.trim_start_matches("#!/bin/bash\n"), "```\n"]);
            }
            Some(_) => bail!("the template has {line}, which means nothing"),
        }
    }
    Ok(text)
}

fn image(set: &Set, directory: &str) -> String {
    let Set { name, what, row, .. } = set;
    if plot::series(set).is_empty() {
        return String::new();
    }
    format!("![Time of {what} against the number of {row}]({directory}{name}.svg)\n")
}

/// A run may have been made in parts: what they have in common is said once.
fn machine(name: &str, machines: &[Machine]) -> String {
    let machines = || machines.iter().filter(|machine| machine.name == name);
    let runs = unique(machines().map(|machine| (&machine.day, &machine.asked)));
    if runs.is_empty() {
        return "Left out of this run.\n".to_owned();
    }
    let run = |(day, asked): &(&String, &String)| {
        let parts = machines().filter(|part| part.day == **day && part.asked == **asked);
        let facts = unique(parts.flat_map(|part| part.facts.iter().chain(&part.versions)));
        let facts: Vec<String> = facts.iter().map(|fact| format!("- {fact}\n")).collect();
        format!("Measured on {day} by `{asked}`.\n\n{}", facts.concat())
    };
    runs.iter().map(run).collect::<Vec<_>>().join("\n")
}

/// A table with a cell of each row and contestant.
fn table<'a>(
    first: &str,
    contestants: &[(&str, &str)],
    rows: impl IntoIterator<Item = (&'a Set, &'a str)>,
    cell: impl Fn(&Set, &str, &str) -> Option<String>,
) -> String {
    let labels: Vec<&str> = contestants.iter().map(|(_, label)| *label).collect();
    let (labels, line) = (labels.join(" | "), "---:|".repeat(labels.len()));
    let mut text = format!("| {first} | {labels} |\n|---|{line}\n");
    for (set, at) in rows {
        text.extend([format!("| {} |", set.row_label(at))]);
        for (name, _) in contestants {
            text.extend([format!(
                " {} |",
                cell(set, at, name).unwrap_or_else(|| NOTHING.to_owned())
            )]);
        }
        text.push('\n');
    }
    text
}

/// A set: ratios, who is ahead, the values with their spread, what was left out.
fn section(set: &Set) -> String {
    let contestants = set.contestants();
    let table = |first: &str, cell: &dyn Fn(&Set, &str, &str) -> Option<String>| {
        table(first, &contestants, set.rows().into_iter().map(|at| (set, at)), cell)
    };
    if contestants.is_empty() {
        return "Not measured in this run.\n".to_owned();
    }
    if set.cells.iter().any(|cell| cell.said.is_some()) {
        return table(&set.row, &|set, at, name| {
            set.cells_of(at, name).find_map(|cell| cell.said.clone())
        });
    }
    let mut text = String::new();
    if contestants.len() > 1 {
        text += &table(&format!("{}: ratios", set.what), &ratio_of);
        text.extend([format!("\n{}\n\n", ahead(set))]);
    }
    let unit = match set.unit {
        Unit::Seconds => "seconds",
        Unit::Milliseconds => "milliseconds",
        Unit::Bytes => "size",
    };
    text += &table(&format!("{}: {unit}", set.what), &|set, at, name| {
        set.summary(at, name).map(|summary| value(set.unit, &summary))
    });
    let mut left_out = String::new();
    for cell in &set.cells {
        let label = contestants.iter().find(|(name, _)| *name == cell.contestant);
        if let (Some(why), Some((_, label))) = (&cell.why, label) {
            left_out.extend([format!("- {label} for {}: {why}\n", set.row_label(&cell.at))]);
        }
    }
    if !left_out.is_empty() {
        text.extend([format!("\nLeft out:\n\n{left_out}")]);
    }
    text
}

fn ratio_of(set: &Set, at: &str, contestant: &str) -> Option<String> {
    set.ratio(at, contestant).map(ratio)
}

/// The median, and in brackets the least and the most, and how many.
fn value(unit: Unit, summary: &Summary) -> String {
    let written = if unit == Unit::Bytes { bytes } else { figure };
    let &Summary { least, median, most, count } = summary;
    if count == 1 {
        return written(median);
    }
    format!("{} ({}–{}, {count}×)", written(median), written(least), written(most))
}

/// Who needed less than the first, and whether the spread allows to say so.
fn ahead(set: &Set) -> String {
    let contestants = set.contestants();
    let (base, first) = contestants[0];
    let (mut clear, mut doubtful) = (Vec::new(), Vec::new());
    for &(name, label) in &contestants[1..] {
        for at in set.rows() {
            let (Some(ours), Some(theirs)) = (set.summary(at, base), set.summary(at, name)) else {
                continue;
            };
            let less = ratio(theirs.median / ours.median);
            if theirs.median >= ours.median || less == "1.00" {
                continue;
            }
            let said = format!("{label} for {} ({less})", set.row_label(at));
            if theirs.most < ours.least { clear.push(said) } else { doubtful.push(said) }
        }
    }
    let mut said = if clear.is_empty() {
        "None of the others is ahead of the first column by more than the spread.".to_owned()
    } else {
        format!("**Ahead of {first}:** {}.", clear.join("; "))
    };
    if !doubtful.is_empty() {
        said.extend([format!(" Ahead by less than the spread: {}.", doubtful.join("; "))]);
    }
    said
}

/// The README with what is between its two marks replaced: the plot of the first set, and of each set the
/// last row in which the most took part.
pub(crate) fn readme(old: &str, results: &Results) -> Result<String> {
    let marked = || format!("the README lacks the lines {BEGIN} and {END}, in this order");
    let (before, rest) = old.split_once(BEGIN).with_context(marked)?;
    let (_, after) = rest.split_once(END).with_context(marked)?;
    let sets = README.map(|name| results.set(name)).into_iter().collect::<Result<Vec<_>>>()?;
    let contestants = unique(sets.iter().flat_map(|set| set.contestants()));
    let rows = sets.iter().filter_map(|set| {
        let took_part =
            |at: &str| contestants.iter().filter(|(name, _)| set.ratio(at, name).is_some()).count();
        Some((*set, set.rows().into_iter().max_by_key(|at| took_part(at))?))
    });
    let first = "time of a reset on btrfs, relative to `carry`";
    let table = table(first, &contestants, rows, ratio_of);
    let image = image(sets[0], "docs/benchmarks/");
    Ok(format!("{before}{BEGIN}\n{image}\n{table}{END}{after}"))
}

#[cfg(test)]
mod tests;
