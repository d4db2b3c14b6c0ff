//! `darlings purge`.

use std::process::ExitCode;

use super::progress::Progress;
use super::ready::{self, Common};
use crate::act::purge::report::PurgeOutcome;
use crate::act::purge::{self, Options, Watch};
use crate::names::shown;
use crate::{fs::process, own::state};

#[derive(Debug, clap::Args)]
pub(super) struct Arguments {
    /// Print what would be removed and change nothing
    #[arg(long)]
    dry_run: bool,
    #[command(flatten)]
    common: Common,
}

pub(super) const EXIT_CODES: &str = "\
Exit codes:
  0   everything that was due is removed
  1   something could not be removed; the rest is removed
  2   usage error";

pub(super) fn run(arguments: &Arguments) -> ExitCode {
    ready::ended(purge(arguments))
}

fn purge(arguments: &Arguments) -> anyhow::Result<ExitCode> {
    let config = arguments.common.ready("purge")?;
    crate::fs::process::prepare()?;
    if let Err(error) = process::be_idle() {
        // It works all the same, and only others wait longer.
        tracing::warn!("{error:#}");
    }
    let options = Options { dry_run: arguments.dry_run, now: state::now() };
    let mut progress = Progress::new();
    let report = purge::purge(&config, options, &mut progress);
    progress.pause();
    // A person has read each thing as it went.
    arguments.common.print(&report, |_| String::new())?;
    Ok(ready::well(report.outcome == PurgeOutcome::Done))
}

impl Watch for Progress {
    fn removing(&mut self, name: &str, entries: u64) {
        self.show(|| match entries {
            0 => format!("removing {}", shown(&name)),
            _ => format!("removing {}: {entries} entries", shown(&name)),
        });
    }

    fn waiting(&mut self) {
        self.show(|| "waiting for the filesystem to free what was removed".to_owned());
    }

    fn pause(&mut self) {
        self.clear();
    }
}
