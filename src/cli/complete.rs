//! `darlings complete`: the values that only this machine knows, for the shells' completions.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use rustix::fs::FileType;

use super::ready;
use crate::ask::lookup::{self, Volumes};
use crate::config::{self, Config};
use crate::fs::at;
use crate::generations::Detail;
use crate::generations::listing::utc;
use crate::{ask::history, rules::OWN_DIRECTORY};

#[derive(Debug, Clone, Copy, clap::ValueEnum)]
enum What {
    Generations,
    Volumes,
    Paths,
}

#[derive(Debug, clap::Args)]
pub(super) struct Arguments {
    what: What,
    /// What is typed so far
    #[arg(default_value = "")]
    typed: String,
    /// The configuration
    #[arg(long, value_name = "FILE", default_value = config::DEFAULT_PATH)]
    config: PathBuf,
}

/// Prints a value on each line, then a tab and what it stands for. A shell discards standard error:
/// a person who presses Tab wants values or silence.
pub(super) fn run(arguments: &Arguments) -> ExitCode {
    ready::ended(values(arguments).and_then(|values| {
        let lines = values.iter().map(|(value, about)| format!("{value}\t{about}\n"));
        ready::print(&lines.collect::<String>())?;
        Ok(ExitCode::SUCCESS)
    }))
}

fn values(arguments: &Arguments) -> anyhow::Result<Vec<(String, String)>> {
    let typed = &arguments.typed;
    let config = ready::ready(&arguments.config, "complete")?;
    let mut values = match arguments.what {
        What::Volumes => config.volumes.iter().map(volume).collect(),
        What::Generations => {
            let mut volumes = history::read_only(&config);
            let found = generations(&config, &mut volumes);
            volumes.close(found)?
        }
        What::Paths => {
            let mut volumes = history::read_only(&config);
            let found = paths(&config, &mut volumes, typed);
            volumes.close(found)?
        }
    };
    // What does not fit on a line, or is not typed so, cannot be offered.
    let offered = |value: &str| value.starts_with(typed) && !value.contains(char::is_control);
    values.retain(|(value, _)| offered(value));
    Ok(values)
}

fn volume(volume: &config::Volume) -> (String, String) {
    (volume.mount_point.to_string_lossy().into_owned(), "a volume".to_owned())
}

/// The generations of all volumes, the newest first.
fn generations(
    config: &Config,
    volumes: &mut Volumes<'_>,
) -> anyhow::Result<Vec<(String, String)>> {
    let mut found: BTreeMap<u64, Vec<String>> = BTreeMap::new();
    for (index, volume) in config.volumes.iter().enumerate() {
        let seen = volumes.store(index)?.look(Detail::Retention)?;
        for generation in seen.generations {
            let ended = generation.ended.map_or(String::new(), |it| format!(", {} UTC", utc(it)));
            let about = format!("{}{ended}", volume.mount_point.display());
            found.entry(generation.number).or_default().push(about);
        }
    }
    let found = found.into_iter().rev();
    Ok(found.map(|(number, about)| (number.to_string(), about.join("; "))).collect())
}

/// The names in the directory that is typed, in every generation of its volume: what is there now, the
/// shell knows itself.
fn paths(
    config: &Config,
    volumes: &mut Volumes<'_>,
    typed: &str,
) -> anyhow::Result<Vec<(String, String)>> {
    let (above, start) = typed.split_at(typed.rfind('/').map_or(0, |slash| slash + 1));
    let directory = ready::absolute(Path::new(above))?;
    let Some(place) = lookup::place(config, &directory)? else { return Ok(Vec::new()) };
    let store = volumes.store(place.volume)?;
    let mut found = BTreeMap::new();
    for generation in store.look(Detail::Retention)?.generations.iter().rev() {
        let tree = store.tree(generation)?;
        let Some(directory) = tree.open_dir_optional(&place.below)? else { continue };
        for name in directory.names()? {
            let Some(shown) = name.to_str() else { continue };
            let hidden = shown.starts_with('.') && !start.starts_with('.');
            if hidden || !shown.starts_with(start) || shown == OWN_DIRECTORY {
                continue;
            }
            let status = directory.status_at(&name)?;
            let slash = if at::kind(&status) == FileType::Directory { "/" } else { "" };
            let about = || format!("generation {}", generation.number);
            found.entry(format!("{above}{shown}{slash}")).or_insert_with(about);
        }
    }
    Ok(found.into_iter().collect())
}
