//! What commands have in common: what those do first that look at a running machine, and how all of
//! them print and end.

use std::io::{ErrorKind, Write as _};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::Context as _;

use crate::config::{self, Config, ConfigError};
use crate::names::shown;
use crate::paint::Paint;
pub(super) use crate::text::json;
use crate::{ask::lookup, fs::process};

/// The exit code of what cannot be done as it was asked for.
const WRONG_USE: u8 = 2;

/// Something was asked for that cannot be: the words say what to do.
#[derive(Debug)]
pub(super) struct WrongUse(pub(super) String);

impl std::fmt::Display for WrongUse {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for WrongUse {}

/// What every command takes.
#[derive(Debug, clap::Args)]
pub(super) struct Common {
    /// The configuration file
    #[arg(long, value_name = "FILE", default_value = config::DEFAULT_PATH)]
    pub(super) config: PathBuf,
    /// Print JSON
    #[arg(long)]
    pub(super) json: bool,
}

impl Common {
    /// [`ready`] with this configuration.
    pub(super) fn ready(&self, command: &str) -> anyhow::Result<Config> {
        ready(&self.config, command)
    }

    /// Prints the result of a command: as JSON where that was asked for, else in words.
    pub(super) fn print(
        &self,
        result: &impl serde::Serialize,
        words: impl FnOnce(Paint) -> String,
    ) -> anyhow::Result<()> {
        print(&if self.json { json(result)? } else { words(Paint::for_output(&std::io::stdout())) })
    }
}

/// Reads the configuration, and sees that the caller may look at the volumes.
pub(super) fn ready(file: &Path, command: &str) -> anyhow::Result<Config> {
    let config = Config::read(file).map_err(|error| {
        if is_absent(&error) { not_a_machine(file).into() } else { anyhow::Error::from(error) }
    })?;
    if !rustix::process::geteuid().is_root() {
        return Err(WrongUse(format!(
            "only root may look into the volumes and their generations; run `sudo darlings {command}`"
        ))
        .into());
    }
    process::enter_mount_namespace().map_err(|error| {
        WrongUse(format!(
            "{error:#}; it needs CAP_SYS_ADMIN, which root in a container usually lacks: run it on \
             the machine itself"
        ))
    })?;
    Ok(config)
}

fn is_absent(error: &ConfigError) -> bool {
    let source = std::error::Error::source(error);
    let source = source.and_then(|source| source.downcast_ref::<std::io::Error>());
    source.is_some_and(|source| source.kind() == ErrorKind::NotFound)
}

fn not_a_machine(file: &Path) -> WrongUse {
    WrongUse(format!(
        "there is no {}, so darlings resets nothing on this machine; name the configuration with \
         --config FILE, or write one (see the README)",
        shown(&file)
    ))
}

/// The path that a person gave, absolute and normal.
pub(super) fn absolute(path: &Path) -> anyhow::Result<PathBuf> {
    let from = if path.is_absolute() {
        PathBuf::from("/")
    } else {
        std::env::current_dir().context(
            "the working directory is gone, so a relative path means nothing; give an absolute one",
        )?
    };
    Ok(crate::text::absolute(&from, path))
}

/// Prints what a command found out.
pub(super) fn print(text: &str) -> anyhow::Result<()> {
    match std::io::stdout().lock().write_all(text.as_bytes()) {
        // Whoever reads has seen enough.
        Err(error) if error.kind() == ErrorKind::BrokenPipe => Ok(()),
        result => result.context("cannot print the result"),
    }
}

/// How many threads bring files over: as many as were asked for, or as many as is usual.
pub(super) fn threads(asked: Option<u16>) -> usize {
    asked.map_or_else(crate::fs::process::usual_threads, usize::from)
}

/// The exit code of a command that has done its work and found that all is well, or that it is not.
pub(super) fn well(is_well: bool) -> ExitCode {
    if is_well { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// Says why a command failed, and with which exit code it ends.
pub(super) fn ended(result: anyhow::Result<ExitCode>) -> ExitCode {
    result.unwrap_or_else(|error| {
        tracing::error!("{error:#}");
        code(&error)
    })
}

/// The exit code of a command that failed.
pub(super) fn code(error: &anyhow::Error) -> ExitCode {
    if error.is::<WrongUse>() { ExitCode::from(WRONG_USE) } else { ExitCode::FAILURE }
}

/// Warns where the answer rests on a configuration that the last reset did not go by.
pub(super) fn warn_of_drift(mount_point: &Path, drift: anyhow::Result<Option<String>>) {
    match drift {
        Ok(None) => {}
        Ok(Some(words)) => tracing::warn!("{}: {words}", shown(mount_point)),
        Err(error) => tracing::warn!("{}: {error:#}", shown(mount_point)),
    }
}

/// Where the volumes are mounted, in words.
pub(super) fn mount_points(config: &Config) -> String {
    let points: Vec<String> = config.volumes.iter().map(|it| shown(&it.mount_point)).collect();
    points.join(", ")
}

/// Finds the volume of a path, which must be on one that is reset; else `consequence` is told.
pub(super) fn place(
    config: &Config,
    path: &Path,
    consequence: &str,
) -> anyhow::Result<lookup::Place> {
    let found = lookup::place(config, path)?;
    let Some(place) = found else {
        return Err(WrongUse(format!(
            "{} is on no volume that is reset, so {consequence}; those that are reset are mounted \
             at {}",
            shown(path),
            mount_points(config)
        ))
        .into());
    };
    match &place.over {
        Some(over) => Err(WrongUse(format!(
            "{} is not on the volume {}: something else is mounted at {}, which is not reset, so \
             {consequence}",
            shown(path),
            shown(&config.volumes[place.volume].mount_point),
            shown(over)
        ))
        .into()),
        None => Ok(place),
    }
}
