//! The page of the benchmarks, its plots and the README's figures, made from saved results and from
//! nothing else: made again, they are the same.

mod page;
mod plot;
mod results;

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};
use results::Results;

#[derive(Debug, clap::Args)]
pub(crate) struct Arguments {
    /// Results, one JSON object a line; may be repeated
    #[arg(long, required = true)]
    results: Vec<PathBuf>,
    /// The README, whose figures are replaced
    #[arg(long, default_value = "README.md")]
    readme: PathBuf,
    /// Where the page goes; the plots go into the directory beside it that has its name
    #[arg(long, default_value = "docs/benchmarks.md")]
    page: PathBuf,
    /// The words of the page
    #[arg(long, default_value = "docs/benchmarks/template.md")]
    template: PathBuf,
    /// The sets and their contestants
    #[arg(long, default_value = "docs/benchmarks/sets.toml")]
    sets: PathBuf,
    /// The contestants' scripts, which the page shows
    #[arg(long, default_value = "bench/peers")]
    scripts: PathBuf,
}

/// Writes the page, the plots it shows, and the README. Nothing is written unless all of it can be made.
pub(crate) fn make(arguments: &Arguments) -> Result<()> {
    let Arguments { results: files, readme, page, template, sets, scripts } = arguments;
    let mut results = Results::new(&read(sets)?)?;
    for file in files {
        let told = || format!("cannot use {}", file.display());
        results.add(&read(file)?).with_context(told)?;
    }
    let script = |name: &str| read(&scripts.join(name));
    let text = page::page(&read(template)?, &results, script)?;
    let new_readme = page::readme(&read(readme)?, &results)?;
    let mut drawn = Vec::new();
    for set in &results.sets {
        // Only what the page shows.
        if text.contains(&format!("/{}.svg)", set.name)) {
            drawn.extend(plot::svg(set)?.map(|svg| (format!("{}.svg", set.name), svg)));
        }
    }
    let plots = page.with_extension("");
    fs::create_dir_all(&plots).with_context(|| format!("cannot make {}", plots.display()))?;
    for (name, svg) in drawn {
        write(&plots.join(name), &svg)?;
    }
    write(page, &text)?;
    write(readme, &new_readme)
}

fn read(file: &Path) -> Result<String> {
    fs::read_to_string(file).with_context(|| format!("cannot read {}", file.display()))
}

fn write(file: &Path, text: &str) -> Result<()> {
    fs::write(file, text).with_context(|| format!("cannot write {}", file.display()))
}
