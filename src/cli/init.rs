//! `darlings init`.

use std::process::ExitCode;

use super::ready::{self, Common};
use crate::act::init::{self, InitReport, InitializedVolume};
use crate::volume::InitOptions;

#[derive(Debug, clap::Args)]
pub(super) struct Arguments {
    /// Make the blank from the system as it is now, instead of an empty one
    #[arg(long)]
    from_live: bool,
    /// Take over the generations directory, with its content, from a system that no longer exists
    #[arg(long)]
    take_over: bool,
    /// Print what would be created and change nothing
    #[arg(long)]
    dry_run: bool,
    #[command(flatten)]
    common: Common,
}

pub(super) const EXIT_CODES: &str = "\
Exit codes:
  0   nothing is missing any more; with --dry-run, what is missing is listed
  1   failed; whatever was already created stays
  2   usage error";

pub(super) fn run(arguments: &Arguments) -> ExitCode {
    ready::ended(init(arguments))
}

fn init(arguments: &Arguments) -> anyhow::Result<ExitCode> {
    let config = arguments.common.ready("init")?;
    crate::fs::process::prepare()?;
    let Arguments { dry_run, from_live, take_over, .. } = *arguments;
    let options = InitOptions { dry_run, from_live, take_over };
    let mut report = InitReport { version: 1, dry_run: options.dry_run, volumes: Vec::new() };
    for volume in &config.volumes {
        let made = init::init(volume, options)?;
        if !arguments.common.json {
            ready::print(&init::in_words(volume, &made, options))?;
        }
        let mount_point = volume.mount_point.clone();
        report.volumes.push(InitializedVolume { mount_point, made });
    }
    if arguments.common.json {
        ready::print(&ready::json(&report)?)?;
    }
    Ok(ExitCode::SUCCESS)
}
