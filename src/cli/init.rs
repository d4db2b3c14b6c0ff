//! `darlings init`.

use std::io::Write as _;
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Context as _;

use crate::config::{self, Config};
use crate::init::{self, Options};
use crate::{process, restore};

#[derive(Debug, clap::Args)]
pub(super) struct Arguments {
    /// The configuration
    #[arg(long, value_name = "FILE", default_value = config::DEFAULT_PATH)]
    config: PathBuf,
    /// Take the system as it is now for the blank, not an empty one
    #[arg(long)]
    from_live: bool,
    /// Say what would be made and change nothing
    #[arg(long)]
    dry_run: bool,
}

pub(super) fn run(arguments: &Arguments) -> ExitCode {
    match init(arguments) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            tracing::error!("{error:#}");
            ExitCode::FAILURE
        }
    }
}

fn init(arguments: &Arguments) -> anyhow::Result<()> {
    let config = Config::read(&arguments.config)?;
    process::enter_mount_namespace()?;
    restore::prepare_process()?;
    let options = Options { dry_run: arguments.dry_run, from_live: arguments.from_live };
    let mut out = std::io::stdout().lock();
    for volume in &config.volumes {
        let made = init::init(volume, options)?;
        let text = init::in_words(volume, &made, options);
        out.write_all(text.as_bytes()).context("cannot print what was made")?;
    }
    Ok(())
}
