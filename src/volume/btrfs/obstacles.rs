//! What forbids a reset, looked for before anything is done: in a running system `darlings check` finds
//! it by the same calls.

use std::path::Path;

use anyhow::{Context as _, bail, ensure};
use darlings_btrfs as fs;
use rustix::fs::FileType;

use super::facts::{Facts, moving};
use super::names::{NEXT, each_directory};
use super::naming::noted_seals;
use super::subvolume::Btrfs;
use super::swap;
use crate::config::Strategy;
use crate::fs::Dir;
use crate::fs::at;
use crate::generations::Space;
use crate::keep::attic::ATTIC;
use crate::names::shown;
use crate::rules::OWN_DIRECTORY;
use crate::text::bytes_in_words;
use crate::tree;
use crate::volume::{LEAST_ROOM, OnlyNow, Standing, ensure_copy_fits, ensure_room, mounts};

impl Btrfs {
    pub(super) fn check_not_mounted(&self) -> anyhow::Result<()> {
        let top = self.top.as_ref().context("BUG: the volume is used after it was closed")?;
        let device = top.device()?;
        let live = Path::new("/").join(&self.source.subvolume);
        let mounted = mounts::all()?.into_iter().find(|mount| {
            mount.device == device && !top.is(mount) && mount.root.starts_with(&live)
        });
        match mounted {
            Some(mount) if !self.options.passes_over(OnlyNow::Mounted) => bail!(
                "the subvolume {:?} is mounted at {:?}; a volume is reset before it is mounted: \
                 unmount it, or reboot",
                self.source.subvolume,
                mount.mount_point
            ),
            _ => Ok(()),
        }
    }

    /// A root that is mounted by number goes on to be the old tree, whatever has its name.
    pub(super) fn check_not_mounted_by_id(&self, id: u64) -> anyhow::Result<()> {
        if self.volume.mount_point != Path::new("/") {
            return Ok(());
        }
        let live = shown(&self.source.subvolume);
        match self.options.root_subvolid {
            Some(given) if given == id => bail!(
                "the kernel command line mounts the root by subvolid={id}, which would go on to be \
                 the old tree after the exchange; write rootflags=subvol={live}"
            ),
            // What was begun is completed whatever is booted.
            Some(given) if self.standing == Standing::Previous => bail!(
                "the kernel command line mounts the root by subvolid={given}, which is not the \
                 subvolume {live} that the configuration resets: nothing is reset while another \
                 root is booted; boot it by rootflags=subvol={live}"
            ),
            _ => Ok(()),
        }
    }

    /// A boot mounts the filesystem only with all its devices, and a reset writes to it.
    pub(super) fn check_devices(&self) -> anyhow::Result<()> {
        let Some(devices) = fs::Devices::of(self.top()?)? else { return Ok(()) };
        let device = &self.source.device;
        ensure!(
            devices.missing == 0,
            "{} of the {} devices of the filesystem on {device:?} are missing, and the next boot does not \
             mount it without them; attach them, or replace them (`btrfs replace`, `btrfs device remove \
             missing`)",
            devices.missing,
            devices.all
        );
        ensure!(
            devices.writable > 0,
            "the filesystem on {device:?} cannot be written: its device is read-only (`blockdev --setrw`), \
             or it is a seed"
        );
        Ok(())
    }

    /// Checks that generations can be made and named where the configuration wants them, and that the
    /// live subvolume can be exchanged where it is.
    pub(super) fn check_places(&self, home: Option<&Dir>, facts: &Facts) -> anyhow::Result<()> {
        if let Some((above, _)) = at::split(&self.source.subvolume) {
            self.check_can_change(&self.named(&self.source.subvolume)?.parent, above)?;
        }
        let device = &self.source.device;
        let (mut innermost, mut path) = (None, Path::new(""));
        let parts = each_directory(&self.source.generations);
        for part in &parts {
            let (parent, name) = self.top()?.open_parent(part)?;
            let status = parent.status_optional(&name)?;
            let Some(status) = status else { break };
            let kind = at::kind(&status);
            ensure!(
                kind == FileType::Directory,
                "{part:?} on {device:?} is a {}, so that no generations can be kept below it; move it \
                 away, or name another directory in `generations`",
                at::Kind::from(kind)
            );
            innermost = Some(parent.open_dir(&name)?);
            path = part;
        }
        let innermost = innermost.as_ref().map_or(self.top()?, |it| it);
        self.check_can_change(innermost, path)?;
        let Some(home) = home else { return Ok(()) };
        for name in facts.leftovers() {
            let status = home.status_at(name)?;
            let kind = at::kind(&status);
            ensure!(
                fs::entry_kind(status.stx_ino) == fs::EntryKind::SubvolumeRoot,
                "{:?} on {device:?} is a {}, which no reset left there, and a reset needs its name; move \
                 it away",
                self.source.generations.join(name),
                at::Kind::from(kind)
            );
            // After the exchange it is the previous state, and nothing is discarded.
            if name == NEXT || facts.interrupted().is_some() {
                continue;
            }
            // Should it be taken for a leftover by mistake, it is not deleted with what is kept.
            let root = home.open_dir(name)?;
            if let Some(nested) = fs::nested_subvolumes(&root)?.first() {
                bail!(
                    "{:?} on {device:?} is left of an interrupted run, and holds the subvolume {:?}, which \
                     is not deleted with it; move that away",
                    self.source.generations.join(name),
                    nested.path
                );
            }
        }
        for number in facts.unsealed() {
            noted_seals(home, number)?;
        }
        Ok(())
    }

    /// Checks that entries can be made and renamed in a directory. Ours is mounted read-only to look, so
    /// asking the kernel tells nothing.
    fn check_can_change(&self, directory: &Dir, path: &Path) -> anyhow::Result<()> {
        let device = &self.source.device;
        let path = Path::new("/").join(path);
        ensure!(
            !fs::subvolume_info(directory)?.read_only,
            "{path:?} on {device:?} is in a read-only subvolume, and a reset makes and renames subvolumes \
             there; make it writable (`btrfs property set -ts PATH ro false`), or name another place"
        );
        ensure!(
            tree::seals_of(directory)?.is_empty(),
            "{path:?} on {device:?} is immutable or append-only, and a reset makes and renames subvolumes \
             there; clear the flag (`chattr -i -a`), or name another place"
        );
        let id = fs::subvolume_id(directory)?;
        let holder = Path::new("/").join(fs::subvolume_path(self.top()?, id)?);
        let limits = fs::subvolume_limits(self.top()?, id)?;
        ensure_under(limits.into_iter().min(), &holder)
    }

    /// Checks that there is room, under quotas too.
    pub(super) fn check_room(&self, live: &Dir, blank: Option<&Dir>) -> anyhow::Result<()> {
        let top = self.top()?;
        ensure_room(Space::on(top)?.available)?;
        let (staged, copied, what) = match self.volume.strategy {
            Strategy::Carry => (Some(live), blank, "the blank"),
            Strategy::Rollback => (blank, Some(live), "what is kept"),
        };
        // What moves out of a subvolume that is at its limit moves all the same: see `journal`.
        if let Some(staged) = staged {
            let id = fs::subvolume_id(staged)?;
            let path = Path::new("/").join(fs::subvolume_path(top, id)?);
            ensure_under(fs::snapshot_limit(top, id)?, &path)?;
        }
        // Data is shared, so that a copy takes metadata alone. Most filesystems have room for all that
        // they have once more, which is soon known.
        if self.options.dry_run
            && let Some(metadata) = fs::Metadata::of(top)?
            && metadata.available < with_nodes(metadata.used)
        {
            let size = copied.map(|copied| fs::records_size(copied, metadata.available));
            let needed = with_nodes(size.transpose()?.unwrap_or(0));
            ensure_copy_fits(what, (needed, metadata.available), " of metadata")?;
        }
        Ok(())
    }

    /// A subvolume moves as it is, and only after everything else was put into its place.
    pub(super) fn check_attic(&self, facts: &Facts) -> anyhow::Result<()> {
        let attic = Path::new(OWN_DIRECTORY).join(ATTIC);
        ensure!(
            facts.looked.attic.stores.is_empty() || !facts.nested.contains(&attic),
            "{attic:?} in {:?} is a subvolume, into which nothing that is no longer persisted can be put; \
             put a directory in its place",
            self.source.subvolume
        );
        Ok(())
    }

    /// A swap file in a subvolume that moves along as a whole shares its extents with nothing.
    pub(super) fn check_swap(&self, previous: &Dir, facts: &Facts) -> anyhow::Result<()> {
        let moving = moving(&self.volume, facts);
        let moves = |path: &Path| moving.iter().any(|it| path.starts_with(&it.from));
        let rules = &self.volume.rules;
        if let Some(path) = swap::find(previous, rules, &facts.looked.paths, &moves)? {
            bail!(
                "{path:?} is a swap file, which cannot be activated once a generation shares its \
                 extents; give it a subvolume of its own that is not reset"
            );
        }
        Ok(())
    }
}

/// What so many bytes of records take once they are copied, with the nodes above them, and with what the
/// kernel reserves for an exchange and gives back (*measured*: a fifth, and 9 MiB).
fn with_nodes(records: u64) -> u64 {
    records.saturating_add(records / 4).saturating_add(16 << 20)
}

/// Checks that a limit on a subvolume leaves enough to write there.
fn ensure_under(limit: Option<fs::Limit>, subvolume: &Path) -> anyhow::Result<()> {
    let Some(limit) = limit else { return Ok(()) };
    ensure!(
        limit.left >= LEAST_ROOM,
        "there is no room for a reset in the subvolume {}: the quota group {}/{} leaves {} of its limit; \
         remove files there, or raise the limit (`btrfs qgroup limit`)",
        shown(&subvolume),
        limit.group.0,
        limit.group.1,
        bytes_in_words(limit.left)
    );
    Ok(())
}
