//! `darlings diff`.

use std::io::{BufWriter, ErrorKind, Write};
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::{Context as _, bail};
use serde::Serialize;

use super::progress::Progress;
use super::ready::{self, Common, WrongUse};
use crate::ask::diff::views::{Flat, Grouped, Json, Style, Tree, View};
use crate::ask::diff::{self, DiffEntry, DiffOptions, Done, Owners, Totals, Watch};
use crate::ask::drift;
use crate::cmdline::Which;
use crate::config::{self, Config};
use crate::generations::{Access, Detail, Generation, Store, choose, close_after};
use crate::names::shown;
use crate::own::state;
use crate::paint::Paint;
use crate::rules::{Rules, Verdict};
use crate::volume;

#[derive(Debug, clap::Args)]
#[expect(clippy::struct_excessive_bools, reason = "each is a switch of the command line")]
pub(super) struct Arguments {
    /// Show only what is at or below this path
    path: Option<PathBuf>,
    /// Print a tree; entirely new directories are summed up, unless you add --all
    #[arg(long, conflicts_with_all = ["flat", "json"])]
    tree: bool,
    /// Print a line for each entry
    #[arg(long, conflicts_with = "json")]
    flat: bool,
    /// Also show what the system recreates by itself
    #[arg(long)]
    all: bool,
    /// Compare this generation, including persisted paths, with the present state
    #[arg(long, value_name = "N")]
    since: Option<u64>,
    /// Compare with this generation instead of the present state
    #[arg(long, value_name = "M", requires = "since")]
    until: Option<u64>,
    /// Compare everything, even if the filesystem records what has changed
    #[arg(long, alias = "no-fast")]
    full: bool,
    #[command(flatten)]
    common: Common,
}

pub(super) const EXIT_CODES: &str = "\
Exit codes:
  0   the next reset would erase nothing; with --since, nothing differs
  1   the next reset would erase or revert something, bring it back or move it
      to the attic; with --since, something differs
  2   usage error, or failed";

const TROUBLE: u8 = 2;

pub(super) fn run(arguments: &Arguments) -> ExitCode {
    match compare(arguments) {
        Ok(Ended { failed: true, .. }) => ExitCode::from(TROUBLE),
        Ok(Ended { anything: true, .. }) => ExitCode::FAILURE,
        Ok(_) => ExitCode::SUCCESS,
        // Whoever reads has seen enough; there was something to see.
        Err(error) if is_broken_pipe(&error) => ExitCode::FAILURE,
        Err(error) => {
            tracing::error!("{error:#}");
            ExitCode::from(TROUBLE)
        }
    }
}

fn is_broken_pipe(error: &anyhow::Error) -> bool {
    let io = error.chain().filter_map(|cause| cause.downcast_ref::<std::io::Error>());
    io.into_iter().any(|error| error.kind() == ErrorKind::BrokenPipe)
}

#[derive(Default)]
struct Ended {
    failed: bool,
    anything: bool,
}

fn compare(arguments: &Arguments) -> anyhow::Result<Ended> {
    let config = arguments.common.ready("diff")?;
    let target = Target::of(&config, arguments)?;
    let owners = Owners::read()?;
    let mut out = BufWriter::new(std::io::stdout().lock());
    let ended = target.tell(arguments, &owners, &mut out)?;
    out.flush().context("cannot print what differs")?;
    Ok(ended)
}

/// The volumes to compare, and the path below the root of the one.
struct Target<'c> {
    volumes: Vec<&'c config::Volume>,
    only: PathBuf,
}

impl<'c> Target<'c> {
    fn of(config: &'c Config, arguments: &Arguments) -> anyhow::Result<Self> {
        let Some(path) = &arguments.path else {
            let volumes: Vec<_> = config.volumes.iter().collect();
            if arguments.since.is_some() && volumes.len() > 1 {
                bail!(WrongUse(format!(
                    "each volume has generations of its own; name a path on the one that you mean: {}",
                    ready::mount_points(config)
                )));
            }
            return Ok(Self { volumes, only: PathBuf::new() });
        };
        let path = ready::absolute(path)?;
        let place = ready::place(config, &path, "nothing of it is ever erased")?;
        Ok(Self { volumes: vec![&config.volumes[place.volume]], only: place.below })
    }

    fn tell(
        &self,
        arguments: &Arguments,
        owners: &Owners,
        out: &mut dyn Write,
    ) -> anyhow::Result<Ended> {
        let mut all = Ended::default();
        if arguments.common.json {
            write!(out, "{{ \"version\": 1, \"volumes\": [")?;
        }
        for (index, volume) in self.volumes.iter().enumerate() {
            if arguments.common.json {
                let comma = if index > 0 { "," } else { "" };
                let mount_point = serde_json::to_string(&volume.mount_point.to_string_lossy())?;
                write!(out, "{comma}\n  {{ \"mount_point\": {mount_point}, \"entries\": [")?;
            } else if index > 0 {
                writeln!(out)?;
            }
            let mut told = Told::default();
            let result = self.volume(volume, arguments, owners, &mut told, out);
            let error = match result {
                Err(error) if is_broken_pipe(&error) => return Err(error),
                result => result.err().map(|error| format!("{error:#}")),
            };
            all.anything |= !told.totals.is_nothing();
            all.failed |= error.is_some();
            if arguments.common.json {
                let tail = Tail::new(&told, error.as_deref());
                let tail = serde_json::to_string(&tail).context("BUG: the totals are not JSON")?;
                write!(out, "\n  ], {}", &tail[1..])?;
            } else if let Some(error) = error {
                out.flush().context("cannot print what differs")?;
                tracing::error!("{}: {error}", shown(&volume.mount_point));
            }
        }
        if arguments.common.json {
            writeln!(out, "\n] }}")?;
        }
        Ok(all)
    }

    fn volume(
        &self,
        volume: &config::Volume,
        arguments: &Arguments,
        owners: &Owners,
        told: &mut Told,
        out: &mut dyn Write,
    ) -> anyhow::Result<()> {
        let mut store = volume::store(volume, Access::ReadOnly)?;
        let result = self.stored(store.as_mut(), volume, arguments, owners, told, out);
        close_after(result, store.as_mut())
    }

    fn stored(
        &self,
        store: &mut dyn Store,
        volume: &config::Volume,
        arguments: &Arguments,
        owners: &Owners,
        told: &mut Told,
        out: &mut dyn Write,
    ) -> anyhow::Result<()> {
        if arguments.since.is_none() {
            let live = store.live()?;
            let manifest = state::manifest(&live);
            let drift = manifest.map(|manifest| drift::note(volume, manifest.as_ref()));
            ready::warn_of_drift(&volume.mount_point, drift);
        }
        let style = Style {
            mount_point: &volume.mount_point,
            owners,
            paint: Paint::for_output(&std::io::stdout()),
            generations: arguments.since.is_some(),
            all: arguments.all,
        };
        let mut view: Box<dyn View + '_> = if arguments.common.json {
            Box::new(Json::new(&style, out))
        } else if arguments.flat {
            Box::new(Flat::new(&style, out))
        } else if arguments.tree {
            Box::new(Tree::new(&style, out, &self.only))
        } else {
            Box::new(Grouped::new(&style, out))
        };
        let options = DiffOptions { only: Some(&self.only), full: arguments.full };
        let (older, newer) = generations(store, arguments)?;
        let prints = arguments.common.json || arguments.flat || arguments.tree;
        let progress = Progress::new();
        let mut watcher = Watcher { view: view.as_mut(), told, progress, prints };
        let done = match &older {
            Some(older) => {
                diff::between(store, volume, (older, newer.as_ref()), options, &mut watcher)
            }
            None => diff::next_reset(store, volume, options, &mut watcher),
        };
        watcher.progress.clear();
        let done = done?;
        told.done = done;
        told.older = older.map(|generation| generation.number);
        told.newer = newer.map(|generation| generation.number);
        if !done.found {
            bail!(
                "there is nothing at {}, neither now nor in what it is compared with; symbolic links on \
                 the way are not followed",
                shown(&diff::in_running_system(&volume.mount_point, &self.only))
            );
        }
        view.finish(&told.totals)?;
        drop(view);
        if !arguments.common.json && arguments.since.is_none() {
            self.say_if_kept(&volume.rules, out)?;
        }
        Ok(())
    }

    fn say_if_kept(&self, rules: &Rules, out: &mut dyn Write) -> anyhow::Result<()> {
        if rules.verdict(&self.only) == Verdict::Persisted {
            writeln!(out, "  it is at or below a persisted path, and is kept")
                .context("cannot print what differs")?;
        }
        Ok(())
    }
}

/// The generations that are asked for.
fn generations(
    store: &mut dyn Store,
    arguments: &Arguments,
) -> anyhow::Result<(Option<Generation>, Option<Generation>)> {
    if arguments.since.is_none() {
        return Ok((None, None));
    }
    let all = store.look(Detail::Retention)?.generations;
    let find = |number: u64| -> anyhow::Result<Option<Generation>> {
        let numbers = all.iter().map(|generation| generation.number).collect();
        let number = choose(Which::Number(number), numbers)?;
        Ok(all.iter().find(|generation| generation.number == number).cloned())
    };
    let (older, newer) = (arguments.since.map(find), arguments.until.map(find));
    Ok((older.transpose()?.flatten(), newer.transpose()?.flatten()))
}

/// What was told of one volume.
#[derive(Default)]
struct Told {
    totals: Totals,
    done: Done,
    older: Option<u64>,
    newer: Option<u64>,
}

/// What comes after the entries of a volume in JSON.
#[derive(Serialize)]
struct Tail<'a> {
    older: Option<u64>,
    newer: Option<u64>,
    totals: &'a Totals,
    fast: bool,
    looked_at: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    peak_memory_bytes: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<&'a str>,
}

impl<'a> Tail<'a> {
    fn new(told: &'a Told, error: Option<&'a str>) -> Self {
        Self {
            older: told.older,
            newer: told.newer,
            totals: &told.totals,
            fast: told.done.fast,
            looked_at: told.done.entries,
            peak_memory_bytes: crate::engine::report::peak_memory(),
            error,
        }
    }
}

struct Watcher<'w> {
    view: &'w mut dyn View,
    told: &'w mut Told,
    progress: Progress,
    /// Whether entries are printed as they come.
    prints: bool,
}

impl Watch for Watcher<'_> {
    fn see(&mut self, entry: &DiffEntry<'_>) -> anyhow::Result<()> {
        self.told.totals.add(entry);
        if self.prints {
            self.progress.clear();
        }
        self.view.see(entry)
    }

    fn progress(&mut self, done: &Done) {
        self.progress.show(|| format!("comparing: {} entries", done.entries));
    }
}
