//! `darlings generations`.

use std::process::ExitCode;

use super::ready::{self, Common};
use crate::generations::listing::Listing;

#[derive(Debug, clap::Args)]
pub(super) struct Arguments {
    #[command(flatten)]
    common: Common,
}

pub(super) const EXIT_CODES: &str = "\
Exit codes:
  0   all are listed
  1   failed, or a volume could not be read
  2   usage error";

pub(super) fn run(arguments: &Arguments) -> ExitCode {
    ready::ended(list(arguments))
}

fn list(arguments: &Arguments) -> anyhow::Result<ExitCode> {
    let config = arguments.common.ready("generations")?;
    let listing = Listing::of(&config);
    arguments.common.print(&listing, |_| listing.to_string())?;
    Ok(ready::well(listing.is_complete()))
}
