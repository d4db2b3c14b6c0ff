//! `darlings generations`.

use std::io::Write as _;
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Context as _;

use crate::config::{self, Config};
use crate::generations::listing::Listing;
use crate::process;

#[derive(Debug, clap::Args)]
pub(super) struct Arguments {
    /// The configuration
    #[arg(long, value_name = "FILE", default_value = config::DEFAULT_PATH)]
    config: PathBuf,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

pub(super) fn run(arguments: &Arguments) -> ExitCode {
    match list(arguments) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            tracing::error!("{error:#}");
            ExitCode::FAILURE
        }
    }
}

/// Answers whether every volume could be looked at.
fn list(arguments: &Arguments) -> anyhow::Result<bool> {
    let config = Config::read(&arguments.config)?;
    process::enter_mount_namespace()?;
    let listing = Listing::of(&config);
    let text = if arguments.json { listing.json()? } else { listing.to_string() };
    std::io::stdout().lock().write_all(text.as_bytes()).context("cannot print the generations")?;
    Ok(listing.is_complete())
}
