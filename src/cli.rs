//! The command line: clap's types become a request, and how it ended becomes an exit code.

use std::io::Write as _;
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Context as _;
use clap::{Parser, Subcommand};

use crate::config::{self, Config, OnFailure};
use crate::report::{self, Ending, Report};
use crate::reset::{self, Ended};
use crate::volume::Options;
use crate::{journal, namespace, restore};

/// Erases a machine's state at every boot and keeps what its owner declared.
#[derive(Debug, Parser)]
#[command(version, arg_required_else_help = true)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Reset every configured volume to its blank and put the persisted paths back
    ///
    /// Runs in the initrd, before the volumes are mounted. Running it again is harmless, and
    /// after an interruption it completes or undoes what was begun.
    #[command(after_help = EXIT_CODES)]
    Reset(ResetArguments),
}

const EXIT_CODES: &str = "\
Exit codes:
  0   done
  1   failed: do not boot (on_failure = \"emergency\", or a volume is not complete)
  2   wrong use of the command line
  10  failed: every volume is complete, boot it (on_failure = \"boot\")";

#[derive(Debug, clap::Args)]
struct ResetArguments {
    /// The configuration
    #[arg(long, value_name = "FILE", default_value = config::DEFAULT_PATH)]
    config: PathBuf,
    /// Print what would be done and change nothing
    #[arg(long)]
    dry_run: bool,
    /// Print the report, or with --dry-run the plan, as JSON
    #[arg(long)]
    json: bool,
    /// Where the report is written
    #[arg(long, value_name = "FILE", default_value = report::DEFAULT_PATH)]
    report: PathBuf,
    /// Threads that bring persisted paths over; by default one for each processor, up to 4
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=64))]
    threads: Option<u16>,
}

/// A reset failed while every volume is complete, and the configuration says to boot.
const BOOT_ANYWAY: u8 = 10;

/// Runs the command line. The only place that prints.
#[must_use]
pub fn main() -> ExitCode {
    journal::start();
    let Cli { command: Command::Reset(arguments) } = Cli::parse();
    // Nobody knows what a bug left half done, so the machine stops, with words.
    std::panic::catch_unwind(|| reset(&arguments)).unwrap_or_else(|_| {
        tracing::error!(
            "darlings stopped on a bug of its own (see above); running it again completes or \
             undoes what was begun"
        );
        ExitCode::FAILURE
    })
}

fn reset(arguments: &ResetArguments) -> ExitCode {
    // When nobody can read what was wanted, the default is to boot.
    let mut on_failure = OnFailure::default();
    let report = match run(arguments, &mut on_failure) {
        Ok(ended) => {
            reset::tell(&ended);
            ended.report
        }
        Err(error) => {
            let error = error.context("no volume was reset; all are as they were");
            tracing::error!("{error:#}");
            Report::refused(format!("{error:#}"))
        }
    };
    // The reset is over; what cannot be told about it does not change how it ended.
    if let Err(error) = publish(arguments, &report) {
        tracing::warn!("{error:#}");
    }
    match (report.outcome, on_failure) {
        (Ending::Reset | Ending::DryRun, _) => ExitCode::SUCCESS,
        (Ending::Failed, OnFailure::Boot) => ExitCode::from(BOOT_ANYWAY),
        (Ending::Failed, OnFailure::Emergency) | (Ending::Unfinished, _) => ExitCode::FAILURE,
    }
}

fn run(arguments: &ResetArguments, on_failure: &mut OnFailure) -> anyhow::Result<Ended> {
    let config = Config::read(&arguments.config)?;
    *on_failure = config.on_failure;
    namespace::enter()?;
    restore::prepare_process()?;
    let processors = std::thread::available_parallelism().map_or(1, usize::from);
    let options = Options {
        dry_run: arguments.dry_run,
        threads: arguments.threads.map_or(processors.min(4), usize::from),
    };
    Ok(reset::reset(&config, options))
}

fn publish(arguments: &ResetArguments, report: &Report) -> anyhow::Result<()> {
    let mut out = std::io::stdout().lock();
    if arguments.json {
        out.write_all(report.json()?.as_bytes()).context("cannot print the report")?;
    } else if arguments.dry_run {
        for volume in &report.volumes {
            write!(out, "{}", volume.plan).context("cannot print the plan")?;
        }
    }
    if arguments.dry_run { Ok(()) } else { report.write(&arguments.report) }
}
