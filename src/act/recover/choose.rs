//! Which tree a path is recovered from.

use std::path::PathBuf;

use anyhow::Context as _;

use super::request::{From, Refused, Request, Source};
use crate::cmdline::Which;
use crate::fs::Dir;
use crate::generations::{self, Detail, Store};
use crate::keep::attic;
use crate::names::shown;
use crate::{ask::history, ask::lookup, own::trash};

/// A tree that has the path.
pub(super) struct Chosen {
    pub(super) source: Source,
    pub(super) root: Dir,
    /// Where the tree has it: at its own place, but in the trash.
    pub(super) at: PathBuf,
}

/// Chooses the tree that the path is recovered from.
///
/// # Errors
/// [`Refused::NotThere`], and what cannot be looked at.
pub(super) fn choose(
    store: &mut dyn Store,
    live: &Dir,
    request: &Request<'_>,
) -> anyhow::Result<Chosen> {
    let not_there = |words: String| anyhow::Error::from(Refused::NotThere(words));
    match request.from {
        From::Generation(number) => {
            let generations = store.look(Detail::Retention)?.generations;
            let numbers = generations.iter().map(|it| it.number).collect();
            generations::choose(Which::Number(number), numbers)
                .map_err(|error| not_there(format!("{error:#}")))?;
            let generation = generations.iter().find(|it| it.number == number);
            let generation = generation.context("BUG: the generation is not there")?;
            let root = store.tree(generation)?;
            let found = lookup::find(&root, &request.place.below)?;
            if found.entry().is_none() {
                return Err(not_there(format!(
                    "{} is not in generation {number}: {found}; `darlings history {}` lists those \
                     that have it",
                    shown(request.path),
                    shown(request.path)
                )));
            }
            Ok(Chosen { source: Source::Generation(number), root, at: request.place.below.clone() })
        }
        From::Attic(wanted) => of_attic(live, request, wanted)?.ok_or_else(|| {
            let which = wanted.map_or(String::new(), |number| format!(" of reset {number}"));
            not_there(format!("{} is not in the attic{which}", shown(request.path)))
        }),
        From::Trash(wanted) => of_trash(store, live, request, wanted)?.ok_or_else(|| {
            let which = wanted.map_or(String::new(), |number| format!(" as replaced-{number}"));
            not_there(format!("{} is not in the trash{which}", shown(request.path)))
        }),
        From::Newest => newest(store, live, request),
    }
}

fn newest(store: &mut dyn Store, live: &Dir, request: &Request<'_>) -> anyhow::Result<Chosen> {
    let below = &request.place.below;
    let is_live = lookup::find(live, below)?.entry().is_some();
    let generations = store.look(Detail::Retention)?.generations;
    let mut same = None;
    for generation in generations.iter().rev() {
        let root = store.tree(generation)?;
        if lookup::find(&root, below)?.entry().is_none() {
            continue;
        }
        let source = Source::Generation(generation.number);
        let chosen = Chosen { source, root, at: below.clone() };
        // At another place, what is live does not matter.
        let wanted =
            request.to.is_some() || !is_live || history::differ(below, live, &chosen.root)?;
        if wanted {
            return Ok(chosen);
        }
        same.get_or_insert(chosen);
    }
    if let Some(same) = same {
        return Ok(same);
    }
    if let Some(chosen) = of_attic(live, request, None)? {
        return Ok(chosen);
    }
    let kept = if store.holds_persisted() {
        ""
    } else {
        "; what was kept is in no generation of a plain directory"
    };
    let path = shown(request.path);
    let words = match generations.len() {
        0 => format!("there is no generation, and {path} is not in the attic{kept}"),
        1 => format!("{path} is neither in the only generation nor in the attic{kept}"),
        more => format!("{path} is in none of the {more} generations, nor in the attic{kept}"),
    };
    Err(Refused::NotThere(words).into())
}

fn of_attic(
    live: &Dir,
    request: &Request<'_>,
    wanted: Option<u64>,
) -> anyhow::Result<Option<Chosen>> {
    for (number, _) in attic::lists(live)? {
        if wanted.is_some_and(|wanted| wanted != number) {
            continue;
        }
        let Some(root) = live.open_dir_optional(attic::place(number))? else { continue };
        if lookup::find(&root, &request.place.below)?.entry().is_some() {
            let at = request.place.below.clone();
            return Ok(Some(Chosen { source: Source::Attic(number), root, at }));
        }
    }
    Ok(None)
}

/// In the trash of what is live, and then in that of each generation, the newest first: a reset that
/// copies what is persisted leaves the trash to the generation.
fn of_trash(
    store: &mut dyn Store,
    live: &Dir,
    request: &Request<'_>,
    wanted: Option<u64>,
) -> anyhow::Result<Option<Chosen>> {
    if let Some(found) = in_trash(live, request, wanted)? {
        return Ok(Some(found));
    }
    for generation in store.look(Detail::Retention)?.generations.iter().rev() {
        if let Some(found) = in_trash(&store.tree(generation)?, request, wanted)? {
            return Ok(Some(found));
        }
    }
    Ok(None)
}

fn in_trash(
    tree: &Dir,
    request: &Request<'_>,
    wanted: Option<u64>,
) -> anyhow::Result<Option<Chosen>> {
    let Some(root) = trash::open(tree)? else { return Ok(None) };
    for (number, replaced) in trash::look(tree)?.replaced.into_iter().rev() {
        if wanted.is_some_and(|wanted| wanted != number) {
            continue;
        }
        let Ok(inside) = request.place.below.strip_prefix(replaced.path()) else { continue };
        let mut at = PathBuf::from(trash::replaced_name(number));
        at.extend(inside);
        if lookup::find(&root, &at)?.entry().is_some() {
            return Ok(Some(Chosen { source: Source::Trash(number), root, at }));
        }
    }
    Ok(None)
}
