//! `darlings suggest`.

use std::process::ExitCode;

use super::ready::{Common, ended};
use crate::ask::suggest::{self, Advice, Suggestions};
use crate::names::shown;
use crate::paint::Paint;

#[derive(Debug, clap::Args)]
pub(super) struct Arguments {
    /// Print options of the NixOS module instead of TOML
    #[arg(long, conflicts_with = "json")]
    nix: bool,
    /// Also name what is already kept, and what is best forgotten
    #[arg(long, conflicts_with = "json")]
    all: bool,
    #[command(flatten)]
    common: Common,
}

pub(super) const EXIT_CODES: &str = "\
Exit codes:
  0   the next reset erases nothing that you would miss
  1   a volume could not be read
  2   usage error
  3   the next reset erases something that you would miss";

const TO_ADD: u8 = 3;

pub(super) fn run(arguments: &Arguments) -> ExitCode {
    ended(suggest(arguments))
}

fn suggest(arguments: &Arguments) -> anyhow::Result<ExitCode> {
    let config = arguments.common.ready("suggest")?;
    let suggestions = Suggestions::of(&config)?;
    let lines = if arguments.nix { suggest::nix } else { suggest::toml };
    let text = lines(&suggestions, arguments.all);
    arguments.common.print(&suggestions, |paint| painted(&text, paint))?;
    for failed in &suggestions.errors {
        tracing::error!("{}: {}", shown(&failed.mount_point), failed.error);
    }
    if !suggestions.errors.is_empty() {
        return Ok(ExitCode::FAILURE);
    }
    if suggestions.erased(Advice::Keep).next().is_some() {
        return Ok(ExitCode::from(TO_ADD));
    }
    if text.is_empty() && !arguments.common.json {
        tracing::info!("no well-known state is on the volumes that are reset");
    }
    Ok(ExitCode::SUCCESS)
}

/// Lines to add stand out, and so do those that are commented out.
fn painted(text: &str, paint: Paint) -> String {
    let line = |line: &str| {
        let words = line.trim_start();
        let off = words.strip_prefix("# ");
        match off {
            Some(off) if off.starts_with("The next reset ") => paint.head(line),
            Some(off) if is_setting(off) => paint.careful(line),
            None if is_setting(words) => paint.good(line),
            _ => line.to_owned(),
        }
    };
    text.lines().map(|it| line(it) + "\n").collect()
}

/// Whether it is a line of TOML or Nix, and not about one.
fn is_setting(words: &str) -> bool {
    ["[[", "path = ", "\""].iter().any(|start| words.starts_with(start))
}
