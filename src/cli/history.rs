//! `darlings history`.

use std::path::PathBuf;
use std::process::ExitCode;

use super::ready::{self, Common};
use crate::ask::history;
use crate::names::shown;

#[derive(Debug, clap::Args)]
pub(super) struct Arguments {
    /// List the versions of this path; without a path, list all generations
    path: Option<PathBuf>,
    #[command(flatten)]
    common: Common,
}

pub(super) const EXIT_CODES: &str = "\
Exit codes:
  0   all are listed
  1   failed, or a volume could not be read
  2   usage error
  3   the path does not exist, now or in any generation";

const NO_SUCH_PATH: u8 = 3;

pub(super) fn run(arguments: &Arguments) -> ExitCode {
    ready::ended(match &arguments.path {
        Some(path) => of_path(arguments, path),
        None => all(arguments),
    })
}

fn all(arguments: &Arguments) -> anyhow::Result<ExitCode> {
    let config = arguments.common.ready("history")?;
    let mut volumes = history::read_only(&config);
    let history = history::History::of(&mut volumes);
    let history = volumes.close(Ok(history))?;
    arguments.common.print(&history, |paint| history.text(paint))?;
    Ok(ready::well(history.is_complete()))
}

fn of_path(arguments: &Arguments, path: &std::path::Path) -> anyhow::Result<ExitCode> {
    let path = ready::absolute(path)?;
    let config = arguments.common.ready("history")?;
    let place = ready::place(&config, &path, "there are no generations of it")?;
    let mut volumes = history::read_only(&config);
    let history = history::of_path(&mut volumes, &path, &place);
    let history = volumes.close(history)?;
    if arguments.common.json || history.is_anywhere() || !history.not_held.is_empty() {
        arguments.common.print(&history, |paint| history.text(paint))?;
    }
    if history.is_anywhere() {
        return Ok(ExitCode::SUCCESS);
    }
    tracing::error!(
        "{} is not there, and in no generation of {}",
        shown(&path),
        shown(&history.mount_point)
    );
    Ok(ExitCode::from(NO_SUCH_PATH))
}
