//! `cargo xtask`: makes what is generated for darlings and is not part of its binary.

mod bench;
mod completions;
mod manual;
mod nixos_options;

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};
use clap::{Parser, Subcommand};

#[derive(Debug, Parser)]
#[command(version, about = "Makes what is generated for darlings")]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Make the page of the benchmarks, its plots and the README's figures from saved results
    BenchPage(bench::Arguments),
    /// Write the completions for bash (darlings.bash), zsh (_darlings) and fish (darlings.fish)
    Completions {
        /// The directory to write to, made when it is absent
        directory: PathBuf,
    },
    /// Write the manual pages: one for each command, darlings.toml(5) and darlings.nix(5)
    ///
    /// Their date is that of `SOURCE_DATE_EPOCH`, or of the last commit.
    Man {
        /// The directory to write to, made when it is absent
        directory: PathBuf,
    },
    /// Write the reference of the NixOS module's options, docs/nixos-options.md
    NixosOptions {
        /// The file to write
        file: PathBuf,
    },
}

fn main() -> Result<()> {
    match Arguments::parse().command {
        Command::BenchPage(arguments) => bench::make(&arguments),
        Command::Completions { directory } => write(&directory, completions::scripts()?),
        Command::Man { directory } => write(&directory, manual::pages(&manual::date()?)?),
        Command::NixosOptions { file } => fs::write(&file, nixos_options::page()?)
            .with_context(|| format!("cannot write {file:?}")),
    }
}

/// Writes files with these names and texts.
fn write(directory: &Path, files: Vec<(String, String)>) -> Result<()> {
    fs::create_dir_all(directory).with_context(|| format!("cannot make {directory:?}"))?;
    for (name, text) in files {
        let path = directory.join(name);
        fs::write(&path, text).with_context(|| format!("cannot write {path:?}"))?;
    }
    Ok(())
}
