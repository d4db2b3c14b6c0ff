//! `xtask`: makes what is generated for this project and is no part of its binary.

mod bench;

use anyhow::Result;
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
}

fn main() -> Result<()> {
    match Arguments::parse().command {
        Command::BenchPage(arguments) => bench::make(&arguments),
    }
}
