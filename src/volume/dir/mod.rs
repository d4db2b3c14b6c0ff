//! A plain directory on any filesystem: `carry` in place, with the journal that makes it complete
//! after a crash, and undone by the same moves backwards where it fails.
//!
//! ```text
//! /sysroot/                         the volume
//! /sysroot/.darlings/reset/         the work, while a reset is under way
//! /sysroot/.darlings/generations/7/ what reset 7 moved aside: a generation
//!     root/                         all but what is persisted, which was not copied
//!     manifest                      what the reset before it wrote
//! ```
//!
//! The filesystem must make renames durable in the order in which they were made, as ext4, XFS,
//! btrfs, bcachefs, F2FS do (tmpfs makes nothing durable at all).

use std::path::Path;

use anyhow::{Context as _, bail, ensure};
use darlings_btrfs as btrfs;
use rustix::fs::{StatVfsMountFlags, fstatvfs};

use super::mounts;
use super::{Looked, OnlyNow, OpenVolume, Options, Standing, ensure_room};
use crate::cmdline::Asked;
use crate::config;
use crate::engine::plan::{Does, Phase, Planned, VolumePlan};
use crate::fs::Dir;
use crate::generations::Space;
use crate::keep::carry::{self, GENERATIONS, Journal, Roots, Stage};
use crate::keep::copy_in::Outcome;
use crate::keep::room::Room;
use crate::keep::survey::keep_whole;
use crate::names::shown;
use crate::own::Own;
use crate::own::state::{self, Manifest};
use crate::rules::OWN_DIRECTORY;
use crate::text::exact_number;
use crate::tree::make_writable;

mod generations;
mod init;
mod step;
mod subvolumes;

pub(super) use generations::Generations;
pub(super) use init::init;
pub(super) use step::Step;

/// A plain directory that is reset.
pub(super) struct PlainDir {
    volume: config::Volume,
    source: config::PlainDirectory,
    options: Options,
    root: Dir,
    /// Of a volume that was reset before, its `.darlings`, locked: no purge works at the same time.
    own: Option<Own>,
    blank: Option<Dir>,
    steps: Vec<Step>,
    generation: u64,
    looked: Looked,
    journal: Option<Journal>,
    /// It has begun to lay the new content, which goes where the run fails.
    laid: bool,
    /// Its root is a subvolume of btrfs that its owner has made read-only; the result is not.
    was_read_only: bool,
    /// What the reset before wrote down, to be put back when this one is undone.
    before: Option<Manifest>,
    /// It completes a run that was interrupted, so nothing is undone.
    resumes: bool,
    standing: Standing,
}

/// In an initrd, `/sysroot` is an empty directory of the initrd's own until the root is mounted there. To
/// reset that would do nothing, and say that all is well.
fn refuse_bare_mount_point(path: &Path) -> anyhow::Result<()> {
    let sysroot = Path::new("/sysroot");
    let is_initrd = || Path::new("/etc/initrd-release").try_exists();
    if !path.starts_with(sysroot)
        || !is_initrd().context("cannot tell whether this is an initrd")?
    {
        return Ok(());
    }
    let is_mounted = mounts::all()?
        .iter()
        .any(|it| it.mount_point.starts_with(sysroot) && path.starts_with(&it.mount_point));
    ensure!(
        is_mounted,
        "nothing is mounted at {sysroot:?} yet, so that {path:?} is the initrd's own; let the reset run \
         after sysroot.mount, as darlings-reset-dir.service does"
    );
    Ok(())
}

impl PlainDir {
    pub(super) fn open(
        volume: &config::Volume,
        source: &config::PlainDirectory,
        options: Options,
    ) -> anyhow::Result<Self> {
        refuse_bare_mount_point(&source.path)?;
        Ok(Self {
            volume: volume.clone(),
            source: source.clone(),
            options,
            root: Dir::open_root(&source.path)?,
            own: None,
            blank: None,
            steps: Vec::new(),
            generation: 0,
            looked: Looked::default(),
            journal: None,
            laid: false,
            before: None,
            was_read_only: false,
            resumes: false,
            standing: Standing::Previous,
        })
    }

    fn check(&mut self) -> anyhow::Result<()> {
        let path = &self.source.path;
        let flags =
            fstatvfs(&self.root).with_context(|| format!("cannot look at {path:?}"))?.f_flag;
        ensure!(
            !flags.contains(StatVfsMountFlags::RDONLY),
            "{path:?} is mounted read-only; mount it writable before the reset"
        );
        let (mount, _) = mounts::holding(&self.root)?;
        ensure!(
            mount.kind != "overlay" || moves_directories(&mount)?,
            "{path:?} is on an overlay, which cannot move directories of its lower layers: mount it with \
             redirect_dir=on, or name the directory of its upper layer"
        );
        let below = |mount: &mounts::Mounted| {
            mount.mount_point != *path && mount.mount_point.starts_with(path)
        };
        if !self.options.passes_over(OnlyNow::MountedOn)
            && let Some(mount) = mounts::all()?.into_iter().find(below)
        {
            bail!(
                "something is mounted at {:?}; a volume is reset before others are mounted on it: \
                 unmount it, or let the reset run earlier",
                mount.mount_point
            );
        }
        if self.options.passes_over(OnlyNow::Locked) {
            return Ok(());
        }
        let wait = format!("another run is at work in {path:?}; wait for it");
        ensure!(self.root.try_lock()?, wait);
        if self.own.is_none()
            && let Some(own) = Own::open(&self.root)?
        {
            ensure!(own.try_lock()?, wait);
            self.own = Some(own);
        }
        Ok(())
    }

    /// The highest number of a generation that is there; 0 when there is none.
    fn highest(&self) -> anyhow::Result<u64> {
        let Some(own) = Own::open(&self.root)? else { return Ok(0) };
        let Some(directory) = own.open_dir_optional(GENERATIONS)? else { return Ok(0) };
        let names = directory.names()?;
        let numbers = names.iter().filter_map(|name| exact_number(name.to_str().unwrap_or("")));
        Ok(numbers.max().unwrap_or(0))
    }

    /// What an interrupted run has left. Whether the directory may be used is known before anything
    /// else can be wrong.
    fn look_for_unfinished(&mut self) -> anyhow::Result<Option<(Journal, Stage)>> {
        let found = Journal::read(&self.root);
        self.standing = Standing::of(&found);
        found
    }

    fn work_out(&mut self) -> anyhow::Result<VolumePlan<Step>> {
        let interrupted = self.look_for_unfinished()?.is_some();
        // Of the words of the kernel command line. A generation here lacks what is persisted, which
        // was never copied, so it cannot be restored as a whole.
        match self.options.asked {
            asked @ (Asked::Snapshot | Asked::Restore(_)) if !interrupted => bail!(
                "{:?} is a plain directory, which keeps only what a reset moves aside: {asked} cannot \
                 be done with it; take the word from the kernel command line, or write darlings=off",
                self.source.path
            ),
            Asked::Off if !interrupted => {
                let number = state::generation(&self.root)?;
                let shown = in_words(&self.source);
                return Ok(VolumePlan::nothing(&self.volume.mount_point, shown, number));
            }
            Asked::Reset | Asked::Off | Asked::Snapshot | Asked::Restore(_) => {}
        }
        self.check()?;
        // Once more, now that nobody else is at work.
        let found = self.look_for_unfinished()?;
        let stage = found.as_ref().map(|(_, stage)| *stage);
        self.resumes = stage.is_some();
        let root = &self.root;
        if let Some((journal, _)) = found {
            self.generation = journal.generation();
            self.journal = Some(journal);
        } else {
            self.blank = self.source.blank.as_deref().map(Dir::open_root).transpose()?;
            let blank = self.blank.as_ref();
            self.before = state::known_manifest(root, |_| ())?;
            let closed = keep_whole(&mut self.volume.rules, root)?;
            self.looked =
                Looked { closed, ..Looked::at(&self.volume, self.options.asked, root, blank)? };
            let highest = state::generation(root)?.max(self.highest()?);
            self.generation = highest.max(self.looked.attic.newest) + 1;
            ensure_room(Space::on(root)?.available)?;
            ensure_entries(root)?;
            subvolumes::leave(&self.volume.rules, root, &mut self.looked)?;
            if self.options.dry_run {
                // What a reset only tries, since it is an estimate: one that fails leaves nothing.
                self.looked.ensure_fits(&self.volume.rules, root, blank, false)?;
            }
        }
        Ok(plan(&self.volume, &self.source, self.generation, stage, &self.looked))
    }

    fn lay(&mut self) -> anyhow::Result<Outcome> {
        let root = &self.root;
        let roots = Roots { previous: root, blank: self.blank.as_ref(), root, undoable: true };
        self.laid = true;
        self.was_read_only = make_writable(root)?;
        let seen = self.looked.seen(&[]);
        let (rules, threads) = (&self.volume.rules, self.options.threads);
        let prepared = carry::prepare(roots, rules, seen, self.generation, threads)?;
        let outcome = Outcome::of_moved(&self.looked.paths, prepared.bytes);
        let journal = self.journal.insert(prepared.journal);
        // Everything that is laid must be durable before anything is moved.
        carry::note_manifest(root)?;
        root.sync_filesystem().context("cannot make the new content durable")?;
        journal.write(root)?;
        Ok(outcome)
    }

    fn carry(&mut self) -> anyhow::Result<()> {
        self.standing = Standing::Unfinished;
        let journal = self.journal.as_ref().context("BUG: nothing was laid")?;
        make_writable(&self.root)?;
        let run = if self.resumes { carry::Run::Resumed } else { carry::Run::First };
        let result = carry::forward(&self.root, journal, run);
        self.or_undo(result)
    }

    fn record(&mut self) -> anyhow::Result<()> {
        let journal = self.journal.as_ref().context("BUG: nothing was laid")?;
        let root = &self.root;
        let result = state::write(root, &journal.manifest)
            .and_then(|()| root.sync_filesystem().context("cannot make the result durable"))
            .and_then(|()| Journal::complete(root));
        self.or_undo(result)?;
        self.standing = Standing::Reset;
        Ok(())
    }

    fn keep_generation(&mut self) -> anyhow::Result<()> {
        let journal = self.journal.as_ref().context("BUG: nothing was laid")?;
        carry::finish(&self.root, journal, carry::Aside::Generation)?;
        self.root.sync_filesystem()?;
        self.journal = None;
        Ok(())
    }

    /// After a failure moves everything back; not so in a run that completes an interrupted one,
    /// since somebody may have used the machine in between.
    fn or_undo(&mut self, result: anyhow::Result<()>) -> anyhow::Result<()> {
        let Err(error) = result else { return Ok(()) };
        if self.resumes {
            return Err(error);
        }
        match self.undo() {
            Ok(()) => Err(error.context("everything was moved back")),
            Err(undo) => Err(error.context(format!("moving everything back failed too: {undo:#}"))),
        }
    }

    fn undo(&mut self) -> anyhow::Result<()> {
        if self.standing == Standing::Reset {
            return Ok(());
        }
        let root = &self.root;
        if self.standing == Standing::Unfinished {
            let Some(journal) = self.journal.as_ref().filter(|_| !self.resumes) else {
                return Ok(());
            };
            carry::backward(root, journal)?;
            state::restore(root, self.before.as_ref())?;
            root.sync_filesystem()?;
        } else if !self.laid {
            return Ok(());
        }
        carry::abandon(root, self.journal.as_ref())?;
        if self.was_read_only {
            btrfs::set_read_only(root, true)?;
        }
        root.sync_filesystem()?;
        self.standing = Standing::Previous;
        (self.journal, self.laid) = (None, false);
        Ok(())
    }
}

/// Checks that the few files and directories can be made that a reset works with.
fn ensure_entries(root: &Dir) -> anyhow::Result<()> {
    const LEAST: u64 = 64;
    let free = Room::free(&fstatvfs(root).context("cannot read how much is free")?).entries;
    ensure!(
        free >= LEAST,
        "there is no room for a reset, which needs {LEAST} files and directories, and the filesystem has \
         room for {free}: remove what is not needed, `darlings purge` perhaps"
    );
    Ok(())
}

/// Whether an overlay can move a directory that comes from a lower layer; without an option of its own
/// the module decides.
fn moves_directories(overlay: &mounts::Mounted) -> anyhow::Result<bool> {
    let own = overlay.options.split(',').find_map(|option| option.strip_prefix("redirect_dir="));
    if let Some(value) = own {
        return Ok(value == "on");
    }
    let default = Path::new("/sys/module/overlay/parameters/redirect_dir");
    let value =
        std::fs::read_to_string(default).with_context(|| format!("cannot read {default:?}"))?;
    Ok(value.trim() == "Y")
}

/// The directory, in words.
pub(super) fn in_words(source: &config::PlainDirectory) -> String {
    format!("directory {}", shown(&source.path))
}

/// Plans the reset of one directory. Pure.
pub(super) fn plan(
    volume: &config::Volume,
    source: &config::PlainDirectory,
    generation: u64,
    resumed: Option<Stage>,
    looked: &Looked,
) -> VolumePlan<Step> {
    let blank = source.blank.as_ref().map(|blank| blank.display().to_string());
    let mut steps = Vec::new();
    let mut add = |phase, step| steps.push(Planned { phase, step });
    if resumed.is_none() {
        add(Phase::Prepare, Step::Lay { blank });
    }
    if resumed != Some(Stage::Complete) {
        add(Phase::Commit, Step::Carry);
        add(Phase::Commit, Step::Record);
    }
    let previous = source.path.join(OWN_DIRECTORY).join(GENERATIONS).join(generation.to_string());
    let previous = previous.display().to_string();
    add(Phase::Finish, Step::KeepGeneration { name: previous.clone() });
    VolumePlan {
        mount_point: volume.mount_point.clone(),
        volume: in_words(source),
        does: Does::Reset,
        generation,
        previous_state: Some(previous),
        resumes: resumed.is_some(),
        paths: looked.paths.clone(),
        put_away: looked.put_away(&volume.mount_point),
        returned: looked.returned(&volume.mount_point),
        leaving: Vec::new(),
        warnings: looked.warnings(&volume.mount_point),
        steps,
        restore: None,
    }
}

impl OpenVolume for PlainDir {
    fn plan(&mut self) -> anyhow::Result<VolumePlan> {
        let (plan, steps) = self.work_out()?.described()?;
        self.steps = steps;
        Ok(plan)
    }

    fn execute(&mut self, step: usize) -> anyhow::Result<Option<Outcome>> {
        match self.steps.get(step).context("BUG: a step that was not planned")? {
            Step::Lay { .. } => return self.lay().map(Some),
            Step::Carry => self.carry()?,
            Step::Record => self.record()?,
            Step::KeepGeneration { .. } => self.keep_generation()?,
        }
        Ok(None)
    }

    fn abandon(&mut self) -> anyhow::Result<()> {
        self.undo()
    }

    fn standing(&self) -> Standing {
        self.standing
    }

    fn close(&mut self) -> anyhow::Result<()> {
        Ok(())
    }
}
