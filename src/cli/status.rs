//! `darlings status`.

use std::path::PathBuf;
use std::process::ExitCode;

use super::ready;
use crate::ask::status::{Boot, Status};
use crate::paint::Paint;
use crate::{ask::history, config, engine::report, own::state};

#[derive(Debug, clap::Args)]
pub(super) struct Arguments {
    /// Tell everything, even when all is well
    #[arg(long, short)]
    verbose: bool,
    /// The configuration
    #[arg(long, value_name = "FILE", default_value = config::DEFAULT_PATH)]
    config: PathBuf,
    /// The report of this boot's reset
    #[arg(long, value_name = "FILE", default_value = report::DEFAULT_PATH)]
    report: PathBuf,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

pub(super) const EXIT_CODES: &str = "\
Exit codes:
  0   all is well
  1   something needs attention, or failed
  2   wrong use";

pub(super) fn run(arguments: &Arguments) -> ExitCode {
    ready::ended(status(arguments))
}

fn status(arguments: &Arguments) -> anyhow::Result<ExitCode> {
    let config = ready::ready(&arguments.config, "status")?;
    let boot = Boot::read(&arguments.report)?;
    let mut volumes = history::read_only(&config);
    let status = Status::of(&mut volumes, boot, state::now());
    let status = volumes.close(Ok(status))?;
    ready::print(&if arguments.json {
        ready::json(&status)?
    } else {
        status.text(Paint::for_output(&std::io::stdout()), arguments.verbose)
    })?;
    Ok(ready::well(status.well))
}
