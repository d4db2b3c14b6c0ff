//! What a reset does with a path, and why.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use anyhow::Context as _;
use serde::Serialize;

use crate::ask::history::{self, PathHistory, Version};
use crate::ask::lookup::{self, Found, Link, Place, Volumes};
use crate::config::{self, Backing, Strategy};
use crate::fs::Dir;
use crate::fs::reserved::Reserved;
use crate::generations::Store;
use crate::keep::attic::{self, ATTIC, Attic};
use crate::keep::survey::Surveyed;
use crate::keep::survey::survey;
use crate::own::state;
use crate::rules::{OWN_DIRECTORY, Verdict};
use crate::text::shown_path;
use crate::text::shown_path_if_any;
use crate::volume;

mod text;

/// The answer of `darlings explain`.
#[derive(Debug, Serialize)]
pub struct Explanation {
    /// Format; a new field does not change it.
    pub version: u32,
    /// The path that was asked for, absolute and normal.
    #[serde(serialize_with = "shown_path")]
    pub path: PathBuf,
    /// The symbolic links on it, which a reset does not follow.
    pub links: Vec<Link>,
    /// What the path is mounted from, where that is on a volume that is reset.
    #[serde(serialize_with = "shown_path_if_any")]
    pub mounted_from: Option<PathBuf>,
    /// The path, and then what it stands for, if there are links; then what it is mounted from.
    pub explained: Vec<Explained>,
}

/// What a reset does with one path.
#[derive(Debug, Serialize)]
pub struct Explained {
    /// Absolute and normal.
    #[serde(serialize_with = "shown_path")]
    pub path: PathBuf,
    /// What the configuration makes of it.
    pub verdict: Decision,
    /// What the next reset will do with it.
    pub next_reset: Next,
    /// The line of the configuration that decides.
    pub rule: Option<Rule>,
    /// The directory in which it lies that is kept as a whole, although no line says so.
    #[serde(serialize_with = "shown_path_if_any")]
    pub kept_with: Option<PathBuf>,
    /// Kept paths below it, if it leads to some.
    pub leads_to: Vec<Rule>,
    /// The volume, where the path is on one that is reset.
    pub volume: Option<OnVolume>,
    /// What is mounted over it.
    #[serde(serialize_with = "shown_path_if_any")]
    pub mounted_over: Option<PathBuf>,
    /// Why the next reset would be refused.
    pub refused: Option<String>,
}

/// What is known of a path on a volume that is reset.
#[derive(Debug, Serialize)]
pub struct OnVolume {
    /// Where it is mounted.
    #[serde(serialize_with = "shown_path")]
    pub mount_point: PathBuf,
    /// The dataset, the subvolume with its device, or the directory.
    pub name: String,
    /// What is at the path now.
    pub now: Found,
    /// What the blank has there.
    pub blank: Found,
    /// The number of the generation that the next reset will make of what is live; `None` where it
    /// keeps none, or one that does not hold the path.
    pub next_generation: Option<u64>,
    /// The versions in the generations.
    pub generations: Vec<Version>,
    /// Generations that do not hold the path because it was kept.
    pub not_held: Vec<u64>,
    /// The subvolume or filesystem nested in the volume that holds the path.
    #[serde(serialize_with = "shown_path_if_any")]
    pub nested_in: Option<PathBuf>,
    /// The resets that have put the path into the attic, the newest first.
    pub attic: Vec<u64>,
}

/// A line of the configuration.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Rule {
    /// The configuration.
    #[serde(serialize_with = "shown_path")]
    pub file: PathBuf,
    /// The line, from 1.
    pub line: usize,
    /// The path that it declares or excludes, absolute.
    #[serde(serialize_with = "shown_path")]
    pub path: PathBuf,
    /// Whether it excludes it.
    pub excludes: bool,
}

/// What the configuration makes of a path.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Decision {
    /// It is at or below a declared path.
    Kept,
    /// It is a directory above one.
    LeadsToKept,
    /// Neither.
    NotKept,
    /// It is the tool's own, or the filesystem's.
    Reserved,
    /// Something else is mounted there.
    MountedOver,
    /// It is on no volume that is reset.
    OnNoVolume,
}

/// What the next reset will do with a path.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Next {
    /// It stays as it is, or absent.
    Keep,
    /// It comes back from the attic.
    ReturnFromAttic,
    /// It is declared, and lies behind something that is not followed: it goes.
    NotFollowed,
    /// It was declared at the last reset and goes to the attic.
    PutIntoAttic,
    /// The directory stays; what is in it and not kept does not.
    Thin,
    /// It is erased.
    Erase,
    /// What the blank has takes its place.
    Replace,
    /// It is what the blank has, and stays so.
    SameAsBlank,
    /// It is absent, and what the blank has will be there.
    Bring,
    /// Nothing is there, and nothing will be.
    Nothing,
    /// No reset touches it.
    Untouched,
}

impl Explained {
    /// Whether a reset leaves at the path what is there.
    #[must_use]
    pub fn is_safe(&self) -> bool {
        match self.next_reset {
            Next::Keep | Next::ReturnFromAttic => true,
            // A reset that is refused leaves everything for once.
            Next::Untouched => self.refused.is_none() || self.verdict == Decision::Kept,
            _ => false,
        }
    }
}

/// Explains `path`, absolute and normal; `file` is the configuration.
pub fn explain(volumes: &mut Volumes<'_>, file: &Path, path: &Path) -> anyhow::Result<Explanation> {
    let (links, resolved) = lookup::resolve(volumes, path)?;
    let mut explained = vec![one(volumes, file, path)?];
    if !links.is_empty() {
        explained.push(one(volumes, file, &resolved)?);
    }
    let mut mounted_from = None;
    if let Some(Place { volume, over: Some(over), .. }) =
        lookup::place(volumes.config(), &resolved)?
    {
        let mounts = volume::mounted_from_within(&volumes.config().volumes[volume])?;
        mounted_from = mounts.into_iter().find(|it| it.mount_point == over).map(|it| it.backing);
    }
    if let Some(backing) = &mounted_from {
        explained.push(one(volumes, file, backing)?);
    }
    Ok(Explanation { version: 1, path: path.to_owned(), links, mounted_from, explained })
}

fn one(volumes: &mut Volumes<'_>, file: &Path, path: &Path) -> anyhow::Result<Explained> {
    let mut explained = Explained {
        path: path.to_owned(),
        verdict: Decision::OnNoVolume,
        next_reset: Next::Untouched,
        rule: None,
        kept_with: None,
        leads_to: Vec::new(),
        volume: None,
        mounted_over: None,
        refused: None,
    };
    let Some(place) = lookup::place(volumes.config(), path)? else { return Ok(explained) };
    if place.over.is_some() {
        explained.verdict = Decision::MountedOver;
        explained.mounted_over = place.over;
        return Ok(explained);
    }
    let PathHistory { versions, not_held, nested_in, ended, .. } =
        history::of_path(volumes, path, &place)?;
    let configured = &volumes.config().volumes[place.volume];
    let store = volumes.store(place.volume)?;
    let live = store.live()?;
    let blank = store.blank()?;
    let (volume, closed) = volume::with_rules_for(configured, &live)?;
    explained.add_rules(&volume, &place.below, file);
    let kept_with = closed.iter().find(|it| place.below.starts_with(&it.path));
    explained.kept_with = kept_with.map(|it| volume.mount_point.join(&it.path));
    let is_reserved = is_reserved(&live, &place.below)?;
    if is_reserved {
        explained.verdict = Decision::Reserved;
        explained.rule = None;
    }
    let (now, generations) = split(versions, &ended)?;
    let mut on = OnVolume {
        mount_point: volume.mount_point.clone(),
        name: volume::in_words(configured),
        now,
        blank: match &blank {
            Some(blank) => lookup::find(blank, &place.below)?,
            None => Found::Absent,
        },
        next_generation: next_generation(configured, store, &live, explained.verdict)?,
        generations,
        not_held,
        nested_in,
        attic: in_attic(&live, &place.below)?,
    };
    if place.below.as_os_str().is_empty() {
        on.attic.clear();
    }
    if !is_reserved {
        let blank = blank.as_ref();
        match plan_attic(&volume, &live, blank) {
            Ok((surveyed, attic)) => {
                let next = Deciding { place: &place, on: &on, surveyed: &surveyed, attic: &attic };
                explained.next_reset = next.decide(explained.verdict, &live, blank)?;
            }
            Err(error) => {
                explained.refused = Some(format!("{error:#}"));
                explained.next_reset = Next::Untouched;
            }
        }
    }
    explained.volume = Some(on);
    Ok(explained)
}

impl Explained {
    fn add_rules(&mut self, volume: &config::Volume, below: &Path, file: &Path) {
        let rule = |(path, line): (&Path, &crate::rules::Line)| Rule {
            file: file.to_owned(),
            line: line.number,
            path: volume.mount_point.join(path),
            excludes: line.excludes,
        };
        self.rule = volume.rules.decided_by(below).map(rule);
        self.verdict = match volume.rules.verdict(below) {
            Verdict::Persisted => Decision::Kept,
            Verdict::Connector => Decision::LeadsToKept,
            // The root itself always stays.
            Verdict::Blank if below.as_os_str().is_empty() => Decision::LeadsToKept,
            Verdict::Blank => Decision::NotKept,
        };
        if self.verdict == Decision::LeadsToKept {
            self.leads_to = volume.rules.declared_below(below).map(rule).collect();
        }
    }
}

fn is_reserved(live: &Dir, below: &Path) -> anyhow::Result<bool> {
    let reserved = Reserved::of(live).context("cannot look at the root")?;
    let Some(first) = below.iter().next() else { return Ok(false) };
    Ok(reserved.holds(first))
}

fn split(
    mut versions: Vec<Version>,
    ended: &BTreeMap<u64, u64>,
) -> anyhow::Result<(Found, Vec<Version>)> {
    anyhow::ensure!(!versions.is_empty(), "BUG: what is live is no version");
    let mut now = versions.remove(0);
    let found = now.found.clone();
    if !now.same_in.is_empty() {
        // Of those that have what is live, the newest speaks for all.
        let newest = now.same_in.remove(0);
        versions.insert(
            0,
            Version { generation: Some(newest), ended: ended.get(&newest).copied(), ..now },
        );
    }
    Ok((found, versions))
}

/// The number that the next reset has, if its generation will hold what is erased.
fn next_generation(
    volume: &config::Volume,
    store: &mut dyn Store,
    live: &Dir,
    verdict: Decision,
) -> anyhow::Result<Option<u64>> {
    let none = match (&volume.backing, volume.strategy) {
        (Backing::Zfs(_), Strategy::Rollback) => true,
        _ => !store.holds_persisted() && verdict == Decision::Kept,
    };
    if none { Ok(None) } else { Ok(Some(state::generation(live)? + 1)) }
}

fn in_attic(live: &Dir, below: &Path) -> anyhow::Result<Vec<u64>> {
    let home = Path::new(OWN_DIRECTORY).join(ATTIC);
    let mut found = Vec::new();
    for (number, _) in attic::lists(live)? {
        let stored = home.join(number.to_string()).join(below);
        if lookup::find(live, &stored)?.entry().is_some() {
            found.push(number);
        }
    }
    Ok(found)
}

fn plan_attic(
    volume: &config::Volume,
    live: &Dir,
    blank: Option<&Dir>,
) -> anyhow::Result<(Vec<Surveyed>, Attic)> {
    let mut surveyed = survey(&volume.rules, live, blank)?;
    let attic = attic::look(&volume.rules, live, &mut surveyed)?;
    Ok((surveyed, attic))
}

struct Deciding<'a> {
    place: &'a Place,
    on: &'a OnVolume,
    surveyed: &'a [Surveyed],
    attic: &'a Attic,
}

impl Deciding<'_> {
    fn decide(&self, verdict: Decision, live: &Dir, blank: Option<&Dir>) -> anyhow::Result<Next> {
        let path = &self.place.below;
        let now = self.on.now.entry();
        if verdict == Decision::Kept {
            let comes_back =
                self.surveyed.iter().any(|it| it.from.is_some() && path.starts_with(&it.path))
                    || self.attic.inside.iter().any(|it| path.starts_with(&it.path));
            return Ok(match (now, &self.on.now) {
                (None, _) if comes_back => Next::ReturnFromAttic,
                (None, Found::Unreachable { .. }) => Next::NotFollowed,
                _ => Next::Keep,
            });
        }
        if now.is_some() && self.attic.stores.iter().any(|store| path.starts_with(store)) {
            return Ok(Next::PutIntoAttic);
        }
        if verdict == Decision::LeadsToKept {
            return Ok(match (now.is_some(), self.on.blank.entry().is_some()) {
                (true, _) => Next::Thin,
                (false, true) => Next::Bring,
                (false, false) => Next::Nothing,
            });
        }
        Ok(match (now, self.on.blank.entry(), blank) {
            (Some(_), Some(_), Some(blank)) => {
                if history::differ(path, live, blank)? {
                    Next::Replace
                } else {
                    Next::SameAsBlank
                }
            }
            (Some(_), _, _) => Next::Erase,
            (None, Some(_), _) => Next::Bring,
            (None, None, _) => Next::Nothing,
        })
    }
}
