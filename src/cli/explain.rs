//! `darlings explain`.

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::process::ExitCode;

use super::ready::{self, Common};
use crate::{ask::explain, ask::history};

#[derive(Debug, clap::Args)]
pub(super) struct Arguments {
    /// The path, absolute or relative to the working directory
    path: PathBuf,
    #[command(flatten)]
    common: Common,
}

pub(super) const EXIT_CODES: &str = "\
Exit codes (if the path contains symlinks, those of the path they lead to):
  0   a reset leaves it as it is: it is persisted, or not touched
  1   failed
  2   usage error
  3   a reset changes or erases it";

const NOT_KEPT: u8 = 3;

pub(super) fn run(arguments: &Arguments) -> ExitCode {
    ready::ended(explain(arguments))
}

fn explain(arguments: &Arguments) -> anyhow::Result<ExitCode> {
    let path = ready::absolute(&arguments.path)?;
    let config = arguments.common.ready("explain")?;
    let mut volumes = history::read_only(&config);
    let explanation = explain::explain(&mut volumes, &arguments.common.config, &path);
    let explained = explanation.iter().flat_map(|it| &it.explained);
    let on: BTreeSet<_> =
        explained.filter_map(|it| it.volume.as_ref()).map(|it| &it.mount_point).collect();
    for (index, volume) in config.volumes.iter().enumerate() {
        if on.contains(&volume.mount_point) {
            ready::warn_of_drift(&volume.mount_point, volumes.drift(index));
        }
    }
    let explanation = volumes.close(explanation)?;
    arguments.common.print(&explanation, |paint| explanation.text(paint))?;
    let safe = explanation.explained.last().is_some_and(explain::Explained::is_safe);
    Ok(if safe { ExitCode::SUCCESS } else { ExitCode::from(NOT_KEPT) })
}
