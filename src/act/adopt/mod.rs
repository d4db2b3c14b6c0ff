//! Moving in: what is declared is brought from a store, as impermanence and preservation keep one,
//! to its own place in the volume. The store is only read.
//!
//! The store has everything at the same path below itself: `/persist/var/log` for `/var/log`. The
//! system may run on it: what is mounted over the volume is not looked at, and a directory or a file
//! that something is mounted on is filled below the mount.
//!
//! ```text
//! .darlings/adopt/          the copies, while they are made
//!                 0/log     each in a directory of its own
//!                 filling-0 the place of this one is a mount point, and is being filled
//!                 complete  all are complete and durable: what goes where
//! .darlings/adopted         the paths that were brought over
//! ```
//!
//! An interruption before `complete` loses copies, which are made again; after it, the next run goes
//! on with putting them in their places, each by a rename. A place that something has come to since then
//! is left alone, and the copy waits.

use std::fmt;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, ensure};

use crate::config::{self, Config};
use crate::fs::Dir;
use crate::generations::{Access, Store, close_after};
use crate::keep::carry::Journal;
use crate::keep::survey::{State, state_at};
use crate::names::shown;
use crate::own::Own;
use crate::rules::{Node, OWN_DIRECTORY, Rules, Verdict};
use crate::text::bytes_in_words;
use crate::tree::{self, BytesByRung};
use crate::volume;

pub mod json;
mod place;
mod record;

use place::{Put, in_the_store};
use record::{Adopted, Pending};

/// What is asked for.
#[derive(Debug, Clone)]
pub struct AdoptOptions {
    /// The store.
    pub from: PathBuf,
    /// Only look.
    pub dry_run: bool,
    /// Threads that copy.
    pub threads: usize,
}

/// What becomes of one declared path.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum AdoptFate {
    /// It is copied. Entries and bytes are known once it was.
    Adopt {
        /// Entries at and below it.
        entries: Option<u64>,
        /// Bytes of its regular files.
        bytes: Option<u64>,
    },
    /// An interrupted run had copied it; it is put in its place.
    Complete,
    /// It was brought over before.
    Already,
    /// The store does not have it.
    Absent,
    /// The store does not have it, and a link to its place there is removed: whoever writes to the
    /// path would make it in the store.
    Unlinked,
    /// Why it cannot be brought over.
    Blocked(String),
}

/// What becomes of the paths of one volume.
#[derive(Debug)]
pub struct Adoption {
    /// Where the running system mounts the volume.
    pub mount_point: PathBuf,
    /// Absolute, in the order of their depth and name.
    pub paths: Vec<(PathBuf, AdoptFate)>,
    /// By the way they came.
    pub bytes: BytesByRung,
}

impl Adoption {
    /// Whether some path stays behind in the store.
    #[must_use]
    pub fn is_blocked(&self) -> bool {
        self.paths.iter().any(|(_, fate)| matches!(fate, AdoptFate::Blocked(_)))
    }
}

/// Brings over what every volume of `config` declares, volume by volume.
///
/// # Errors
/// What failed. Volumes before it are done, and this one is as it was or is completed by the next run.
pub fn adopt(config: &Config, options: &AdoptOptions) -> anyhow::Result<Vec<Adoption>> {
    let from = Dir::open(&options.from).context("the store")?;
    for volume in &config.volumes {
        refuse_if_erased(volume, &from, options).with_context(|| shown(&volume.mount_point))?;
    }
    config
        .volumes
        .iter()
        .map(|volume| {
            let access = if options.dry_run { Access::ReadOnly } else { Access::Writable };
            with_volume(volume, access, |volume, store| in_volume(volume, store, &from, options))
                .with_context(|| shown(&volume.mount_point))
        })
        .collect()
}

/// The store must outlive the next reset: until somebody has seen that all is well, it is the backup.
fn refuse_if_erased(
    volume: &config::Volume,
    from: &Dir,
    options: &AdoptOptions,
) -> anyhow::Result<()> {
    let place = with_volume(volume, Access::ReadOnly, |volume, store| {
        volume::place_in(volume, &store.live()?, from)
    })?;
    let Some(place) = place else { return Ok(()) };
    ensure!(
        volume.rules.verdict(&place) == Verdict::Persisted,
        "the store {:?} lies on this volume and is not declared, so that the next reset would take it; \
         copy it to a file system that is not reset, or declare {:?} as well, and run this again",
        options.from,
        volume.mount_point.join(&place)
    );
    Ok(())
}

/// Opens a volume as the running system has it, and closes it whatever comes of that.
fn with_volume<T>(
    volume: &config::Volume,
    access: Access,
    work: impl FnOnce(&config::Volume, &mut dyn Store) -> anyhow::Result<T>,
) -> anyhow::Result<T> {
    let volume = volume::in_running_system(volume);
    let mut store = volume::store(&volume, access)?;
    close_after(work(&volume, store.as_mut()), store.as_mut())
}

fn in_volume(
    volume: &config::Volume,
    store: &mut dyn Store,
    from: &Dir,
    options: &AdoptOptions,
) -> anyhow::Result<Adoption> {
    if !options.dry_run {
        store.lock()?;
    }
    if let Some(unfinished) = store.unfinished()? {
        anyhow::bail!(
            "a reset was interrupted ({unfinished}); nothing is brought over before it is completed"
        );
    }
    let live = store.live()?;
    ensure!(
        Journal::read(&live)?.is_none(),
        "a reset was interrupted, and the next boot completes it; nothing is brought over before that"
    );
    // It goes with the descriptor.
    let lock = if options.dry_run { None } else { Some(Own::ensure(&live)?) };
    lock.as_ref().map_or(Ok(()), Own::lock)?;
    Adopter { volume, from, store: &options.from, live, options }.run()
}

/// Bringing over the paths of one volume.
struct Adopter<'a> {
    volume: &'a config::Volume,
    from: &'a Dir,
    store: &'a Path,
    live: Dir,
    options: &'a AdoptOptions,
}

impl Adopter<'_> {
    fn run(&self) -> anyhow::Result<Adoption> {
        let live = &self.live;
        let pending = record::pending(live)?;
        let adopted = record::adopted(live)?;
        let mut paths = Vec::new();
        // What is inside something that is excluded comes after what is around that.
        let mut persisted = self.volume.rules.persisted();
        persisted.sort_by(|one, other| (one.depth, &one.path).cmp(&(other.depth, &other.path)));
        for persisted in persisted {
            let full = self.volume.mount_point.join(&persisted.path);
            let fate = match pending.iter().find(|it| it.path == persisted.path) {
                Some(it) => place::look(live, self.from, self.store, it, &full).map(|put| {
                    self.blocked(it, &full, put).map_or(AdoptFate::Complete, AdoptFate::Blocked)
                }),
                None => self.fate(&persisted.path, &full, &adopted),
            };
            paths.push((full.clone(), fate.with_context(|| format!("cannot look at {full:?}"))?));
        }
        let mount_point = self.volume.mount_point.clone();
        let mut adoption = Adoption { mount_point, paths, bytes: BytesByRung::default() };
        if self.options.dry_run {
            return Ok(adoption);
        }
        let waiting = self.complete(&pending)?;
        let waiting = self.bring(&mut adoption, waiting)?;
        for (it, why) in waiting {
            let full = self.volume.mount_point.join(&it.path);
            match adoption.paths.iter_mut().find(|(path, _)| *path == full) {
                Some((_, fate)) => *fate = AdoptFate::Blocked(why),
                // It is not declared any more.
                None => adoption.paths.push((full, AdoptFate::Blocked(why))),
            }
        }
        for (full, fate) in &mut adoption.paths {
            if *fate == AdoptFate::Unlinked {
                self.unlink(full, fate, &adopted)
                    .with_context(|| format!("cannot remove the link {full:?}"))?;
            }
        }
        Ok(adoption)
    }

    /// Removes a link, if nothing came there or to the store while others were copied.
    fn unlink(&self, full: &Path, fate: &mut AdoptFate, adopted: &Adopted) -> anyhow::Result<()> {
        let path = self.below(full)?;
        match self.fate(path, full, adopted)? {
            AdoptFate::Unlinked => place::unlink(&self.live, path)?,
            AdoptFate::Absent => *fate = AdoptFate::Absent,
            _ => {
                *fate =
                    AdoptFate::Blocked("it came into being meanwhile; run this again".to_owned());
            }
        }
        Ok(())
    }

    fn fate(&self, path: &Path, full: &Path, adopted: &Adopted) -> anyhow::Result<AdoptFate> {
        let kind = match state_at(self.from, in_the_store(full))? {
            State::Absent => {
                let live = &self.live;
                let linked = place::is_link_into(live, path, full, self.from, self.store)?;
                return Ok(if linked { AdoptFate::Unlinked } else { AdoptFate::Absent });
            }
            State::Unreachable { ancestor, kind } => {
                let ancestor = self.store.join(ancestor);
                return Ok(AdoptFate::Blocked(format!(
                    "{ancestor:?} is a {kind}, which is not followed"
                )));
            }
            State::Present { kind } => kind,
        };
        let copied = AdoptFate::Adopt { entries: None, bytes: None };
        let there = match state_at(&self.live, path)? {
            State::Absent => return Ok(copied),
            State::Unreachable { ancestor, kind } => {
                let ancestor = self.volume.mount_point.join(ancestor);
                return Ok(AdoptFate::Blocked(format!(
                    "{ancestor:?} is a {kind}, which is not followed"
                )));
            }
            State::Present { kind } => kind,
        };
        let mounted = volume::is_mount_point(full)?;
        let live = &self.live;
        let stands_for_it = place::stands_for(live, path, full, self.from, self.store)?;
        // What something is mounted on stays what it is, and is filled.
        let can_be_filled = kind == there && place::can_fill(kind);
        Ok(match (stands_for_it, mounted) {
            (false, _) if adopted.holds(path) => AdoptFate::Already,
            (false, false) => AdoptFate::Blocked(format!(
                "a {there} with content of its own is there; move it away, or keep it and ignore the \
                 store's"
            )),
            (false, true) => AdoptFate::Blocked(format!(
                "a {there} with content of its own is hidden below what is mounted on it; after `mount \
                 --bind {} /mnt` it is {}: move it away, and run this again",
                shown(&self.volume.mount_point),
                shown(&Path::new("/mnt").join(path)),
            )),
            (true, true) if !can_be_filled => AdoptFate::Blocked(format!(
                "something is mounted on a {there}, and in the store is a {kind}; unmount it, and run \
                 this again"
            )),
            (true, _) => copied,
        })
    }

    /// A path of the running system below the volume's root.
    fn below<'p>(&self, full: &'p Path) -> anyhow::Result<&'p Path> {
        full.strip_prefix(&self.volume.mount_point).context("BUG: not below the mount point")
    }

    /// Puts copies in their places. Answers those that something is in the way of, which wait, and why.
    fn complete(&self, pending: &[Pending]) -> anyhow::Result<Vec<(Pending, String)>> {
        let live = &self.live;
        let (mut done, mut waiting) = (Vec::new(), Vec::new());
        for it in pending {
            let full = self.volume.mount_point.join(&it.path);
            let put = place::put(live, self.from, self.store, it, &full)
                .with_context(|| format!("cannot put {full:?} in its place"))?;
            match self.blocked(it, &full, put) {
                Some(why) => waiting.push((it.clone(), why)),
                None => done.push(it.clone()),
            }
        }
        if !done.is_empty() {
            // In their places for sure before the record says so, and before the slots are gone.
            live.sync_filesystem()?;
            record::add(live, &done)?;
        }
        let needed: Vec<Pending> = waiting.iter().map(|(it, _)| it.clone()).collect();
        record::clear(live, &needed)?;
        live.sync_filesystem()?;
        Ok(waiting)
    }

    /// Why a copy waits and what to do, if something is in its way.
    fn blocked(&self, it: &Pending, full: &Path, put: Put) -> Option<String> {
        let mount_point = &self.volume.mount_point;
        let work = mount_point.join(OWN_DIRECTORY).join("adopt");
        let copy = shown(&work.join(it.directory()));
        Some(match put {
            Put::InPlace => return None,
            Put::InTheWay { kind, hidden: false } => format!(
                "a {kind} with content of its own came there after it was copied; move it away and run \
                 this again, or remove the copy, {copy}, to keep what is there"
            ),
            Put::InTheWay { kind, hidden: true } => format!(
                "a {kind} with content of its own is hidden below what is mounted on it; after `mount \
                 --bind {} /mnt` it is {}: move it away and run this again, or remove the copy, {copy}, \
                 to keep what is there",
                shown(mount_point),
                shown(&Path::new("/mnt").join(&it.path)),
            ),
            Put::HalfThere => format!(
                "an interrupted run had put a part of it there, and the rest cannot follow; unmount what is \
                 mounted on {}, move it away if it is there, remove {}, and run this again",
                shown(full),
                shown(&work),
            ),
        })
    }

    /// Copies what is to be brought over, and puts it in its place. Answers what waits, with what has
    /// waited before.
    fn bring(
        &self,
        adoption: &mut Adoption,
        waiting: Vec<(Pending, String)>,
    ) -> anyhow::Result<Vec<(Pending, String)>> {
        let live = &self.live;
        let rules: &Rules = &self.volume.rules;
        let mut pending = Vec::new();
        let mut copies = Vec::new();
        let to_copy =
            adoption.paths.iter_mut().filter(|(_, fate)| matches!(fate, AdoptFate::Adopt { .. }));
        let mut fates = Vec::new();
        let taken = |number: &PathBuf| waiting.iter().any(|(it, _)| it.directory() == number);
        let mut numbers =
            (0..).map(|number: usize| PathBuf::from(number.to_string())).filter(|it| !taken(it));
        for (full, fate) in to_copy {
            let path = self.below(full)?;
            let name = path.file_name().context("BUG: a path without a name")?;
            let slot = numbers.next().context("BUG: no number is left")?.join(name);
            copies.push(tree::Copied {
                from: in_the_store(full).to_owned(),
                to: slot.clone(),
                rules: rules.at(path).map(Node::without_excluded),
            });
            pending.push(Pending { path: path.to_owned(), slot });
            fates.push(fate);
        }
        if pending.is_empty() {
            return Ok(waiting);
        }
        let work = record::make_work(live, &pending)?;
        let brought = tree::move_in(self.from, &work, &copies, self.options.threads)?;
        for ((fate, copied), it) in fates.into_iter().zip(&brought.copies).zip(&pending) {
            let nested =
                brought.nested.iter().find_map(|nested| nested.strip_prefix(&it.slot).ok());
            *fate = match nested {
                Some(below) => AdoptFate::Blocked(self.nested(&copied.path, below)),
                None => AdoptFate::Adopt { entries: copied.entries, bytes: copied.bytes },
            };
        }
        // Their copies are incomplete, and go with the slots.
        pending.retain(|it| !brought.nested.iter().any(|nested| nested.starts_with(&it.slot)));
        pending.extend(waiting.into_iter().map(|(it, _)| it));
        adoption.bytes = brought.bytes;
        live.sync_filesystem().context("cannot make the copies durable")?;
        record::write_pending(live, &pending)?;
        self.complete(&pending)
    }

    /// Why something that a subvolume or a mount lies in is not brought over.
    fn nested(&self, path: &Path, below: &Path) -> String {
        let inside = self.store.join(path);
        let nested = if below.as_os_str().is_empty() { inside } else { inside.join(below) };
        format!(
            "{nested:?} is a subvolume of its own, which is not copied with what is around it; make it an \
             ordinary directory (cp -a --reflink=auto), and run this again"
        )
    }
}

impl fmt::Display for AdoptFate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Adopt { entries: Some(entries), bytes: Some(bytes) } => {
                write!(f, "brought over: {entries} entries, {}", bytes_in_words(*bytes))
            }
            Self::Adopt { .. } => write!(f, "is brought over"),
            Self::Complete => {
                write!(f, "was copied by an interrupted run, and is put in its place")
            }
            Self::Already => write!(f, "was brought over before"),
            Self::Absent => write!(f, "is not in the store"),
            Self::Unlinked => {
                write!(f, "is not in the store, and the link to its place there is removed")
            }
            Self::Blocked(why) => write!(f, "cannot be brought over: {why}"),
        }
    }
}
