//! Bringing a path back from a generation or from the attic, with everything that it had.
//!
//! ```text
//! DIRECTORY/.darlings-recover-4711/     beside the target, root's alone
//!     recovering                        says whose it is, and what is about to be replaced
//!     brought/NAME                      what is being brought over; then it takes the target's name
//!                                       and what had that name lies here, until it is in the trash
//!     replaced                          what had that name, where names cannot be exchanged
//! ```
//!
//! The target is complete under its name or not there at all. What an interruption leaves has a name
//! of its own, and the next recovery into that directory removes it. What was replaced goes to the
//! trash then, if it is not there yet: see [`crate::own::trash`].

use std::path::{Path, PathBuf};

use anyhow::{Context as _, bail};
use serde::Serialize;

use crate::ask::lookup::Volumes;
use crate::fs::Dir;
use crate::fs::at;
use crate::generations::{self, Store};
use crate::names::{shown, toml, unnamable};
use crate::own::Own;
use crate::own::trash;
use crate::rules::{OWN_DIRECTORY, Verdict};
use crate::text::shown_path;
use crate::tree::{BytesByRung, Side, bring, differences};

mod choose;
mod holder;
mod request;
mod target;
mod text;

use choose::{Chosen, choose};
use holder::Holder;
pub use request::{From, Refused, Request, Source};
use target::Target;

/// What was recovered.
#[derive(Debug, Serialize)]
pub struct Recovered {
    /// Format; a new field does not change it.
    pub version: u32,
    /// How it ended.
    pub outcome: RecoverOutcome,
    /// The path.
    #[serde(serialize_with = "shown_path")]
    pub path: PathBuf,
    /// What it came from.
    pub from: Source,
    /// Where it is now.
    #[serde(serialize_with = "shown_path")]
    pub to: PathBuf,
    /// Whether it took the place of something.
    pub replaced: bool,
    /// Where that is, below the volume's root, for as long as generations are kept.
    pub replaced_is_in: Option<String>,
    /// Directories above it that were made after those of the source.
    pub made: Vec<String>,
    /// Entries, the path itself among them. `None` when nothing was done.
    pub entries: Option<u64>,
    /// Bytes of regular files by the way they came.
    pub bytes: BytesByRung,
    /// The lines that keep the target, where the next reset would erase it again.
    pub keep_with: Option<String>,
    /// What the owner should know.
    pub warnings: Vec<String>,
}

/// How a recovery ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum RecoverOutcome {
    /// It is back.
    Recovered,
    /// The target is already what the source has.
    AlreadyThere,
    /// It would be brought back, had changes been allowed.
    DryRun,
}

/// Recovers what is asked for. `progress` is told the entries and bytes so far, now and then.
///
/// # Errors
/// [`Refused`], and whatever failed; the target is then what it was.
pub fn recover(
    volumes: &mut Volumes<'_>,
    request: &Request<'_>,
    progress: &(dyn Fn(u64, u64) + Sync),
) -> anyhow::Result<Recovered> {
    let below = &request.place.below;
    let store = volumes.store(request.place.volume)?;
    let live = store.live()?;
    let _lock = check(store, &live, request)?;
    let chosen = choose(store, &live, request)?;
    let has_above = chosen.at == *below;
    let target = Target::find(volumes, request, has_above.then_some(&chosen.root))?;
    // Its trash takes what is replaced.
    let _lock_of_target = match &target.place {
        Some(place) if place.volume != request.place.volume => {
            let store = volumes.store(place.volume)?;
            let live = store.live()?;
            lock(store, &live, request)?
        }
        _ => None,
    };
    let mut recovered = Recovered {
        version: 1,
        outcome: RecoverOutcome::DryRun,
        path: request.path.to_owned(),
        from: chosen.source,
        to: target.path.clone(),
        replaced: target.exists,
        replaced_is_in: None,
        made: target.made(),
        entries: None,
        bytes: BytesByRung::default(),
        keep_with: None,
        warnings: Vec::new(),
    };
    if !request.dry_run {
        recovered.warnings.extend(holder::clean(&target)?);
    }
    recovered.warn_of_next_reset(volumes, &target, request.config);
    if target.exists {
        let one = Side { root: &chosen.root, path: &chosen.at };
        let name = Path::new(&target.name);
        let other = Side { root: &target.parent, path: name };
        if differences(one, other, &|_| false)?.is_empty() {
            recovered.outcome = RecoverOutcome::AlreadyThere;
            recovered.replaced = false;
            return Ok(recovered);
        }
        target.check_replaceable(volumes.config(), request.force, chosen.source)?;
    }
    if !request.dry_run {
        let holder = Holder::make(&target)?;
        carry_out(&chosen, &target, &holder, request, &mut recovered, progress)
            .map_err(|error| holder.give_up(&target, error))?;
        recovered.replaced_is_in = holder.finish(&target)?.map(trash::shown);
        recovered.outcome = RecoverOutcome::Recovered;
    }
    Ok(recovered)
}

/// Nothing may be recovered while a reset waits to be completed, and nobody may remove generations
/// while what is returned is open.
fn check(store: &mut dyn Store, live: &Dir, request: &Request<'_>) -> anyhow::Result<Own> {
    let below = &request.place.below;
    if below.as_os_str().is_empty() {
        return Err(Refused::Wrong(format!(
            "{} is the volume itself; boot with darlings=restore:N to bring all of it back",
            shown(request.path)
        ))
        .into());
    }
    if below.starts_with(OWN_DIRECTORY) {
        return Err(Refused::Wrong(format!(
            "{} is darlings' own; for what is in the attic or the trash give the path that it had, and \
             --from attic or --from trash",
            shown(request.path)
        ))
        .into());
    }
    lock(store, live, request)?.ok_or_else(|| {
        let words = "the volume was never reset, so there is nothing to recover";
        Refused::NotThere(words.to_owned()).into()
    })
}

/// Keeps resets and purges away from a volume while what is returned is open; `None` for one that was
/// never reset.
fn lock(store: &mut dyn Store, live: &Dir, request: &Request<'_>) -> anyhow::Result<Option<Own>> {
    let Some(own) = Own::open(live)? else { return Ok(None) };
    if let Some(why) = generations::unfinished(store, live)? {
        bail!(generations::interrupted_in_words(&why));
    }
    if !request.dry_run {
        store.lock()?;
        own.lock()?;
    }
    Ok(Some(own))
}

fn carry_out(
    chosen: &Chosen,
    target: &Target,
    holder: &Holder,
    request: &Request<'_>,
    recovered: &mut Recovered,
    progress: &(dyn Fn(u64, u64) + Sync),
) -> anyhow::Result<()> {
    let above: Vec<&Path> = target.above.iter().map(PathBuf::as_path).collect();
    let (root, from) = (&chosen.root, chosen.at.as_path());
    let brought = bring(root, from, &above, &holder.new, request.threads, progress)
        .with_context(|| format!("cannot bring it over from {}", chosen.source))?;
    recovered.entries = Some(brought.entries);
    recovered.bytes = brought.bytes;
    recovered.warnings.extend(brought.nested.iter().map(|nested| {
        format!(
            "{} is a subvolume of its own in {}, and only an empty directory stands for it",
            shown(nested),
            chosen.source
        )
    }));
    let name = match target.above.first() {
        Some(outermost) => outermost.as_path(),
        None => from,
    };
    let (_, name) = at::split(name).context("BUG: a path without a name")?;
    holder.commit(target, name)
}

impl Recovered {
    fn warn_of_next_reset(&mut self, volumes: &Volumes<'_>, target: &Target, config: &Path) {
        let Some(place) = &target.place else { return };
        let rules = &volumes.config().volumes[place.volume].rules;
        if rules.verdict(&place.below) == Verdict::Persisted {
            return;
        }
        let erased = format!("the next reset erases {} again", shown(&target.path));
        self.keep_with = toml(&target.path).map(|path| format!("[[persist]]\npath = {path}\n"));
        self.warnings.push(match &self.keep_with {
            Some(lines) => {
                format!("{erased}; to keep it, add to {}:\n{}", shown(config), lines.trim_end())
            }
            None => format!("{erased}; {}", unnamable(&target.path).unwrap_or_default()),
        });
    }
}

/// What a store must be opened for.
#[must_use]
pub fn access(dry_run: bool) -> generations::Access {
    if dry_run { generations::Access::ReadOnly } else { generations::Access::Writable }
}
