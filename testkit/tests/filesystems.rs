//! Capturing, filling and removing on real filesystems.

use std::collections::BTreeSet;
use std::os::unix::ffi::OsStrExt as _;
use std::path::Path;

use anyhow::{Context as _, Result};
use darlings_testkit::fill::{self, Wanted};
use darlings_testkit::loopfs::{BtrfsVolume, Filesystem, LoopFs, Options};
use darlings_testkit::{Attribute, Kind, RelPath, Tree, capability, capture, remove, skip_unless};

fn refusals(filesystem: Filesystem, project: Option<u32>) -> Result<Vec<String>> {
    let fs = LoopFs::new(filesystem)?;
    let dir = fs.path().join("everything");
    std::fs::create_dir(&dir)?;
    let refused = fill::everything_but(&dir, &Wanted { project, ..Wanted::default() })?;
    if project.is_some() {
        assert_eq!(capture(&dir)?.at("in-a-project").map(|entry| entry.project), project);
    }
    remove::all(&dir)?;
    fs.close()?;
    Ok(refused.iter().map(ToString::to_string).collect())
}

#[test]
fn btrfs_refuses_nothing() -> Result<()> {
    skip_unless!(capability::root_and_btrfs(), Ok(()));
    assert_eq!(refusals(Filesystem::Btrfs, None)?, Vec::<String>::new());
    Ok(())
}

#[test]
fn ext4_refuses_exactly_what_it_lacks() -> Result<()> {
    skip_unless!(capability::root_and_ext4(), Ok(()));
    assert_eq!(refusals(Filesystem::Ext4, None)?, EXT4);
    Ok(())
}

#[test]
fn xfs_refuses_exactly_what_it_lacks() -> Result<()> {
    skip_unless!(capability::root_and_xfs(), Ok(()));
    assert_eq!(refusals(Filesystem::Xfs, Some(77))?, XFS);
    Ok(())
}

const EXT4: [&str; 4] = [
    "nocow file: Operation not supported (os error 95)",
    "nocompress file: Operation not supported (os error 95)",
    "nocow directory: Operation not supported (os error 95)",
    "nocompress directory: Operation not supported (os error 95)",
];
const XFS: [&str; 8] = [
    "symlink of 4095 bytes: File name too long (os error 36)",
    "nocow file: Operation not supported (os error 95)",
    "compress file: Operation not supported (os error 95)",
    "nocompress file: Operation not supported (os error 95)",
    "nocow directory: Operation not supported (os error 95)",
    "compress directory: Operation not supported (os error 95)",
    "nocompress directory: Operation not supported (os error 95)",
    "dirsync directory: Operation not supported (os error 95)",
];

/// The attributes of which a tree holds something that a fresh file does not have by itself.
fn present(tree: &Tree) -> BTreeSet<Attribute> {
    let mut present =
        BTreeSet::from([Attribute::Existence, Attribute::ModificationTime, Attribute::AccessTime]);
    for entry in tree.entries.values() {
        present.extend(entry.xattrs.keys().map(|name| Attribute::of_xattr(name.as_bytes())));
        present.extend(entry.flags.attributes());
        present.extend((entry.owner != 0).then_some(Attribute::Owner));
        present.extend((entry.group != 0).then_some(Attribute::Group));
        present.extend((entry.mode & 0o7000 != 0).then_some(Attribute::Mode));
        present.extend(entry.links.as_ref().map(|_| Attribute::HardLinks));
        match &entry.kind {
            Kind::File { size, holes, .. } => {
                present.extend((*size > 0).then_some(Attribute::Bytes));
                present.extend((!holes.is_empty()).then_some(Attribute::Holes));
            }
            Kind::Symlink { .. } => _ = present.insert(Attribute::SymlinkTarget),
            Kind::BlockDevice { .. } => _ = present.insert(Attribute::DeviceNumber),
            Kind::Fifo => _ = present.insert(Attribute::Type),
            _ => {}
        }
    }
    present
}

#[test]
fn a_filled_tree_has_every_attribute_and_stays_the_same_when_it_is_read_again() -> Result<()> {
    skip_unless!(capability::root_and_btrfs(), Ok(()));
    let mut fs = LoopFs::new(Filesystem::Btrfs)?;
    fill::everything(fs.path())?;
    let first = capture(fs.path())?;
    let expected: BTreeSet<Attribute> = Attribute::ON_BTRFS.iter().copied().collect();
    assert_eq!(present(&first), expected);

    // Nothing the capture did shows, from the cache or from the disk.
    assert_eq!(first.diff_lines(&capture(fs.path())?), "");
    fs.remount_fresh()?;
    assert_eq!(first.diff_lines(&capture(fs.path())?), "");

    // And JSON loses nothing.
    let again: Tree = serde_json::from_str(&serde_json::to_string(&first)?)?;
    assert_eq!(first, again);
    fs.close()
}

#[test]
fn capture_sees_the_same_paths_as_walkdir() -> Result<()> {
    skip_unless!(capability::root(), Ok(()));
    let dir = tempfile::tempdir()?;
    fill::everything_but(dir.path(), &Wanted { deep_levels: 50, locked: false, project: None })?;
    let mut walked = BTreeSet::new();
    for entry in walkdir::WalkDir::new(dir.path()) {
        let entry = entry?;
        walked.insert(entry.path().strip_prefix(dir.path())?.as_os_str().as_bytes().to_vec());
    }
    let captured = capture(dir.path())?;
    let captured: BTreeSet<Vec<u8>> =
        captured.entries.keys().map(|path| path.as_bytes().to_vec()).collect();
    assert_eq!(captured, walked);
    Ok(())
}

#[test]
fn ten_thousand_levels_are_captured_compared_and_removed() -> Result<()> {
    let holder = tempfile::tempdir()?;
    let dir = holder.path().join("deep");
    std::fs::create_dir(&dir)?;
    fill::deep(&dir, 10_000, "d")?;
    let tree = capture(&dir)?;
    assert_eq!(tree.entries.len(), 10_002);
    let last = tree.entries.keys().map(RelPath::depth).max();
    assert_eq!(last, Some(10_001));
    assert_eq!(tree.diff_lines(&capture(&dir)?), "");
    remove::all(&dir)?;
    assert!(!dir.exists());
    Ok(holder.close()?)
}

#[test]
fn subvolumes_stubs_and_mounts_are_told_apart_and_not_entered() -> Result<()> {
    skip_unless!(capability::root_and_btrfs(), Ok(()));
    let volume = BtrfsVolume::new(|dir| Ok(std::fs::create_dir(dir.join("plain"))?), |_| Ok(()))?;
    volume.make_subvolume("@/nested")?;
    std::fs::write(volume.live().join("nested/file"), "")?;
    volume.snapshot("@", "@snapshot", false)?;
    let live = capture(&volume.live())?;
    let snapshot = capture(&volume.fs.path().join("@snapshot"))?;
    assert_eq!(live.diff_lines(&snapshot), "nested: type subvolume != subvolume stub\n");
    assert_eq!(live.entries.len(), 3);
    assert_eq!(volume.subvolumes()?, ["@", "@/nested", "@blank", "@snapshot"]);

    let at = volume.live().join("plain");
    rustix::mount::mount("none", &at, "tmpfs", rustix::mount::MountFlags::empty(), None)?;
    let kind = capture(&volume.live())?.at("plain").map(|entry| entry.kind.clone());
    let refused = remove::contents(&volume.live()).err().map(|why| format!("{why:#}"));
    rustix::mount::unmount(&at, rustix::mount::UnmountFlags::empty())?;
    assert_eq!(kind, Some(Kind::MountPoint));
    assert!(refused.is_some_and(|why| why.ends_with("plain is a mount point")));
    volume.close()
}

#[test]
fn a_loop_filesystem_leaves_nothing_behind() -> Result<()> {
    skip_unless!(capability::root_and_btrfs(), Ok(()));
    let fs = LoopFs::new(Filesystem::Btrfs)?;
    let (holder, device) = (fs.holder().to_path_buf(), fs.device().to_path_buf());
    let backing = Path::new("/sys/block")
        .join(device.file_name().context("no name")?)
        .join("loop/backing_file");
    let image = holder.join("image");
    assert_eq!(std::fs::read_to_string(&backing)?.trim_end(), image.to_string_lossy());
    fs.close()?;
    assert!(!holder.exists());
    // Another test may have taken the device meanwhile, but not for this image.
    let now = std::fs::read_to_string(&backing).unwrap_or_default();
    assert!(!now.contains(&*image.to_string_lossy()), "{now}");
    Ok(())
}

/// As a test leaves it that fails half way.
#[test]
fn a_loop_filesystem_that_is_dropped_takes_what_was_mounted_in_it_along() -> Result<()> {
    skip_unless!(capability::root_and_btrfs(), Ok(()));
    let fs = LoopFs::new(Filesystem::Btrfs)?;
    let holder = fs.holder().to_path_buf();
    let outer = fs.path().join("outer");
    for at in [outer.clone(), outer.join("inner"), outer.clone()] {
        std::fs::create_dir_all(&at)?;
        rustix::mount::mount("none", &at, "tmpfs", rustix::mount::MountFlags::empty(), None)?;
    }
    drop(fs);
    assert!(!holder.exists());
    let mounts = std::fs::read_to_string("/proc/self/mounts")?;
    assert!(!mounts.contains(&*holder.to_string_lossy()), "{mounts}");
    Ok(())
}

#[test]
fn a_filesystem_can_be_read_only_and_full() -> Result<()> {
    skip_unless!(capability::root_and_btrfs(), Ok(()));
    let fs = LoopFs::with(Options::new(Filesystem::Btrfs).size(128 << 20))?;
    let path = fs.path().join("file");
    fs.remount_read_only()?;
    let kind = |result: std::io::Result<()>| result.err().map(|why| why.kind());
    assert_eq!(kind(std::fs::write(&path, "")), Some(std::io::ErrorKind::ReadOnlyFilesystem));
    fs.remount_writable()?;
    assert_eq!(kind(std::fs::write(&path, "")), None);
    fs.fill_up()?;
    let more = std::fs::write(&path, vec![b'x'; 1 << 20])
        .and_then(|()| std::fs::File::open(&path)?.sync_all());
    assert_eq!(kind(more), Some(std::io::ErrorKind::StorageFull));
    fs.close()
}

#[test]
fn a_believable_machine_is_the_same_for_the_same_seed() -> Result<()> {
    skip_unless!(capability::root(), Ok(()));
    let (first, second, other) = (tempfile::tempdir()?, tempfile::tempdir()?, tempfile::tempdir()?);
    for (dir, seed) in [(&first, 1), (&second, 1), (&other, 2)] {
        fill::believable_root(dir.path(), seed)?;
    }
    let compare = darlings_testkit::Compare::default()
        .without(Attribute::AccessTime)
        .without(Attribute::ModificationTime);
    let tree = capture(first.path())?;
    assert_eq!(tree.diff_with(&capture(second.path())?, &compare), []);
    assert_ne!(tree.diff_with(&capture(other.path())?, &compare), []);
    Ok(())
}

#[test]
fn many_files_are_as_many_as_asked_for() -> Result<()> {
    let dir = tempfile::tempdir()?;
    fill::many_small(dir.path(), 2500)?;
    assert_eq!(capture(dir.path())?.entries.len(), 1 + 3 + 2500);
    Ok(())
}
