//! `report`: makes the page, the plots and the README's figures from saved results, and from nothing
//! else.

mod catalogue;
mod page;
mod plot;
mod results;

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};
use clap::Parser;
use darlings_bench::record;

/// Makes the page of the benchmarks from saved results.
#[derive(Debug, Parser)]
#[command(version)]
struct Arguments {
    /// Results, one JSON object a line; may be repeated
    #[arg(long, required = true)]
    results: Vec<PathBuf>,
    /// The words of the page
    #[arg(long, default_value = "docs/benchmarks/template.md")]
    template: PathBuf,
    /// Where the page goes
    #[arg(long, default_value = "docs/benchmarks.md")]
    page: PathBuf,
    /// Where the plots go
    #[arg(long, default_value = "docs/benchmarks")]
    plots: PathBuf,
    /// The README, whose figures are replaced
    #[arg(long, default_value = "README.md")]
    readme: PathBuf,
}

fn main() -> Result<()> {
    let Arguments { results, template, page, plots, readme } = Arguments::parse();
    let mut lines = Vec::new();
    for file in &results {
        let read = record::parse(&read(file)?);
        lines.extend(read.with_context(|| format!("cannot use {}", file.display()))?);
    }
    results::check(&lines)?;
    // Everything is made before anything is written.
    let text = page::page(&read(&template)?, &lines)?;
    let new_readme = page::readme(&read(&readme)?, &lines)?;
    let mut drawn = Vec::new();
    for set in catalogue::SETS {
        let svg = plot::svg(&results::Results::new(set, &lines))?;
        drawn.push((plots.join(format!("{}.svg", set.name)), svg));
    }
    fs::create_dir_all(&plots).with_context(|| format!("cannot make {}", plots.display()))?;
    for (file, svg) in drawn {
        match svg {
            // Only what the page shows.
            Some(svg) if text.contains(&format!("{}.svg)", stem(&file))) => write(&file, &svg)?,
            _ => remove(&file)?,
        }
    }
    write(&page, &text)?;
    write(&readme, &new_readme)
}

fn stem(file: &Path) -> String {
    file.file_stem().unwrap_or_default().to_string_lossy().into_owned()
}

fn read(file: &Path) -> Result<String> {
    fs::read_to_string(file).with_context(|| format!("cannot read {}", file.display()))
}

fn write(file: &Path, text: &str) -> Result<()> {
    fs::write(file, text).with_context(|| format!("cannot write {}", file.display()))
}

/// A plot of an older page that this one does not have.
fn remove(file: &Path) -> Result<()> {
    match fs::remove_file(file) {
        Err(why) if why.kind() != std::io::ErrorKind::NotFound => {
            Err(why).with_context(|| format!("cannot remove {}", file.display()))
        }
        _ => Ok(()),
    }
}
