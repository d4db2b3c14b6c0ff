//! `darlings generations`.

use std::path::PathBuf;
use std::process::ExitCode;

use super::ready;
use crate::config;
use crate::generations::listing::Listing;

#[derive(Debug, clap::Args)]
pub(super) struct Arguments {
    /// The configuration
    #[arg(long, value_name = "FILE", default_value = config::DEFAULT_PATH)]
    config: PathBuf,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

pub(super) const EXIT_CODES: &str = "\
Exit codes:
  0   listed
  1   failed, or a volume could not be looked at
  2   wrong use";

pub(super) fn run(arguments: &Arguments) -> ExitCode {
    ready::ended(list(arguments))
}

fn list(arguments: &Arguments) -> anyhow::Result<ExitCode> {
    let config = ready::ready(&arguments.config, "generations")?;
    let listing = Listing::of(&config);
    ready::print(&if arguments.json { listing.json()? } else { listing.to_string() })?;
    Ok(ready::well(listing.is_complete()))
}
