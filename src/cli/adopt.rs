//! `darlings adopt`.

use std::fmt::Write as _;
use std::io::Write as _;
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Context as _;

use crate::adopt::{self, Adoption, Options};
use crate::config::{self, Config};
use crate::plan::shown;
use crate::report::bytes_in_words;
use crate::{process, restore};

#[derive(Debug, clap::Args)]
pub(super) struct Arguments {
    /// The configuration
    #[arg(long, value_name = "FILE", default_value = config::DEFAULT_PATH)]
    config: PathBuf,
    /// The store, as in /persist
    #[arg(long, value_name = "DIR")]
    from: PathBuf,
    /// Say what would be brought over and change nothing
    #[arg(long)]
    dry_run: bool,
    /// Threads that copy; by default one for each processor, up to 4
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=64))]
    threads: Option<u16>,
}

pub(super) const EXIT_CODES: &str = "\
Exit codes:
  0   what is declared and in the store is in its place
  1   something is not; the rest is, and the store is as it was
  2   wrong use of the command line";

pub(super) fn run(arguments: &Arguments) -> ExitCode {
    match adopt(arguments) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            tracing::error!("{error:#}");
            ExitCode::FAILURE
        }
    }
}

/// Answers whether nothing stays behind.
fn adopt(arguments: &Arguments) -> anyhow::Result<bool> {
    let config = Config::read(&arguments.config)?;
    process::enter_mount_namespace()?;
    restore::prepare_process()?;
    let processors = std::thread::available_parallelism().map_or(1, usize::from);
    let options = Options {
        from: arguments.from.clone(),
        dry_run: arguments.dry_run,
        threads: arguments.threads.map_or(processors.min(4), usize::from),
    };
    let adoptions = adopt::adopt(&config, &options)?;
    let text = in_words(&adoptions).context("cannot tell what was done")?;
    std::io::stdout().lock().write_all(text.as_bytes()).context("cannot print what was done")?;
    Ok(!adoptions.iter().any(Adoption::is_blocked))
}

fn in_words(adoptions: &[Adoption]) -> Result<String, std::fmt::Error> {
    let mut text = String::new();
    for (path, fate) in adoptions.iter().flat_map(|adoption| &adoption.paths) {
        writeln!(text, "{}: {fate}", shown(path))?;
    }
    let bytes = adoptions.iter().map(|adoption| adoption.bytes);
    let (mut reflinked, mut by_filesystem, mut copied) = (0, 0, 0);
    for bytes in bytes {
        reflinked += bytes.reflinked;
        by_filesystem += bytes.copy_file_range;
        copied += bytes.copied;
    }
    let ways = [
        (reflinked, "reflinked"),
        (by_filesystem, "handed to the filesystem to clone or copy"),
        (copied, "copied"),
    ];
    for (bytes, how) in ways.into_iter().filter(|(bytes, _)| *bytes > 0) {
        writeln!(text, "{} {how}", bytes_in_words(bytes))?;
    }
    Ok(text)
}
