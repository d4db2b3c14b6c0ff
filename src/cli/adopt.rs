//! `darlings adopt`.

use std::path::PathBuf;
use std::process::ExitCode;

use super::ready::{self, Common};
use crate::act::adopt::json::AdoptReport;
use crate::act::adopt::{self, AdoptOptions, Adoption};
use crate::engine::report::ways_in_words;
use crate::names::shown;
use crate::tree::BytesByRung;

#[derive(Debug, clap::Args)]
pub(super) struct Arguments {
    /// The store, for example /persist
    #[arg(long, value_name = "DIR")]
    from: PathBuf,
    /// Print what would be copied and change nothing
    #[arg(long)]
    dry_run: bool,
    /// Threads that copy; by default two for each processor, up to 4
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=64))]
    threads: Option<u16>,
    #[command(flatten)]
    common: Common,
}

pub(super) const EXIT_CODES: &str = "\
Exit codes:
  0   every persisted path in the store is in its place
  1   some paths are not; the others are, and the store is unchanged
  2   usage error";

pub(super) fn run(arguments: &Arguments) -> ExitCode {
    ready::ended(adopt(arguments))
}

fn adopt(arguments: &Arguments) -> anyhow::Result<ExitCode> {
    let config = arguments.common.ready("adopt")?;
    crate::fs::process::prepare()?;
    let options = AdoptOptions {
        from: arguments.from.clone(),
        dry_run: arguments.dry_run,
        threads: ready::threads(arguments.threads),
    };
    let adoptions = adopt::adopt(&config, &options)?;
    let report = AdoptReport::of(&adoptions, arguments.dry_run);
    arguments.common.print(&report, |_| in_words(&adoptions))?;
    Ok(ready::well(!adoptions.iter().any(Adoption::is_blocked)))
}

fn in_words(adoptions: &[Adoption]) -> String {
    let mut bytes = BytesByRung::default();
    for adoption in adoptions {
        bytes += adoption.bytes;
    }
    let paths = adoptions.iter().flat_map(|adoption| &adoption.paths);
    let paths = paths.map(|(path, fate)| format!("{}: {fate}\n", shown(path)));
    paths.chain(ways_in_words(bytes).into_iter().map(|way| way + "\n")).collect()
}
