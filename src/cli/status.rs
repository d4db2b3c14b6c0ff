//! `darlings status`.

use std::path::PathBuf;
use std::process::ExitCode;

use super::ready::{self, Common};
use crate::ask::status::{Boot, Status};
use crate::{ask::history, engine::report, own::state};

#[derive(Debug, clap::Args)]
pub(super) struct Arguments {
    /// Show the details even if all is well
    #[arg(long, short)]
    verbose: bool,
    /// The report of this boot's reset
    #[arg(long, value_name = "FILE", default_value = report::DEFAULT_PATH)]
    report: PathBuf,
    #[command(flatten)]
    common: Common,
}

pub(super) const EXIT_CODES: &str = "\
Exit codes:
  0   all is well
  1   something needs attention, or failed
  2   usage error";

pub(super) fn run(arguments: &Arguments) -> ExitCode {
    ready::ended(status(arguments))
}

fn status(arguments: &Arguments) -> anyhow::Result<ExitCode> {
    let config = arguments.common.ready("status")?;
    let boot = Boot::read(&arguments.report)?;
    let mut volumes = history::read_only(&config);
    let status = Status::of(&mut volumes, boot, state::now());
    let status = volumes.close(Ok(status))?;
    arguments.common.print(&status, |paint| status.text(paint, arguments.verbose))?;
    Ok(ready::well(status.well))
}
