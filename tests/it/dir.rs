//! Plain directories on ext4 and XFS: the same rules by the same moves, in place.

use crate::common::directory::{Ran, Volume, command, config_at, names, on_both, ran};
use crate::common::{put, quoted};
use anyhow::{Context as _, Result};
use darlings_testkit::loopfs::{Filesystem, LoopFs, Options, run};
use darlings_testkit::model::Rule;
use darlings_testkit::{Attribute, capability, capture, plant, project, remove, skip_unless};
use std::fs::Permissions;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::process::Command;

#[test]
fn a_directory_is_reset_by_moving_and_what_was_moved_aside_is_the_generation() -> Result<()> {
    skip_unless!(capability::root_and_ext4(), Ok(()));
    skip_unless!(capability::root_and_xfs(), Ok(()));
    on_both(|filesystem| {
        let volume = Volume::new(filesystem)?;
        let expected = volume.expected()?;
        volume.reset()?;
        let result = volume.tree()?;
        assert_eq!(result.diff_lines(&expected), "");
        assert_eq!(volume.leftovers()?, Vec::<String>::new());
        let generation = volume.live().join(".darlings/generations/1/root");
        let kept = capture(&generation)?;
        assert_eq!(
            kept.paths(),
            [
                ".",
                "etc",
                "etc/erased",
                "keep",
                "keep/below",
                "keep/below/.cache",
                "keep/below/.cache/erased",
                "locked-clutter",
                "locked-clutter/file",
            ]
        );
        assert!(
            kept.at("locked-clutter")
                .unwrap()
                .flags
                .attributes()
                .any(|it| it == Attribute::Immutable)
        );
        assert_eq!(std::fs::read_to_string(generation.join("etc/erased"))?, "erased");

        // Again: nothing is there to be erased.
        volume.reset()?;
        assert_eq!(volume.tree()?.diff_lines(&expected), "");
        let generations = volume.live().join(".darlings/generations");
        assert_eq!(names(&generations, &[])?, ["1", "2"]);
        volume.close()
    })
}

#[test]
fn what_is_mounted_in_the_trash_is_not_removed_with_it() -> Result<()> {
    skip_unless!(capability::root_and_ext4(), Ok(()));
    let volume = Volume::new(Filesystem::Ext4)?;
    volume.reset()?;
    let (data, inside) =
        (volume.fs.path().join("data"), volume.live().join(".darlings/trash/9/inside"));
    put(&data, "file", "of somebody")?;
    std::fs::create_dir_all(&inside)?;
    // Of the same filesystem, so that its number tells nothing.
    let mount = format!("mount --bind {} {}; exec \"$@\"", data.display(), inside.display());
    let purged = ran(volume.command(&["sh", "-ec", &mount, "sh"], &["purge"])?)?;
    assert_eq!(
        (purged.code, purged.stderr.as_str()),
        (
            Some(1),
            "error: /: cannot remove .darlings/trash/9: something is mounted in it; unmount that: cannot \
             open \"inside\": Invalid cross-device link (os error 18)\n"
        )
    );
    assert_eq!(std::fs::read_to_string(data.join("file"))?, "of somebody");
    assert_eq!(ran(volume.command(&[], &["purge"])?)?.code, Some(0));
    assert_eq!(names(&volume.live().join(".darlings/trash"), &[])?, Vec::<String>::new());
    volume.close()
}

/// Anybody can open `/` and lock it; `.darlings` is root's.
#[test]
fn a_lock_on_the_root_keeps_no_purge_away_and_one_on_the_tools_directory_every_run() -> Result<()> {
    skip_unless!(capability::root_and_ext4(), Ok(()));
    let volume = Volume::new(Filesystem::Ext4)?;
    volume.reset()?;
    let locked = |directory: &std::path::Path| -> Result<_> {
        let opened = std::fs::File::open(directory)?;
        rustix::fs::flock(&opened, rustix::fs::FlockOperation::NonBlockingLockExclusive)?;
        Ok(opened)
    };
    let run = |word: &str| -> Result<_> {
        let ran = ran(volume.command(&[], &[word])?)?;
        Ok((ran.code, ran.stderr))
    };
    let by_a_user = locked(&volume.live())?;
    assert_eq!(run("purge")?, (Some(0), String::new()));
    drop(by_a_user);
    let by_a_run = locked(&volume.live().join(".darlings"))?;
    let (code, told) = run("purge")?;
    assert_eq!(code, Some(1));
    assert!(
        told.contains("another run is at work in .darlings, a purge perhaps; wait for it"),
        "{told}"
    );
    let (code, told) = run("reset")?;
    assert_eq!(code, Some(10));
    assert!(
        told.contains(&format!("another run is at work in {:?}; wait", volume.live())),
        "{told}"
    );
    drop(by_a_run);
    volume.reset()?;
    volume.close()
}

/// A root to change to, with the programs of this machine and the binary, and `/sysroot` as an initrd
/// has it.
const IN_AN_INITRD: &str = r#"
    root=$1 device=$2 mounted=$3 binary=$4
    mount -t tmpfs none "$root"
    mkdir -p "$root"/{usr,proc,dev,run,tmp,etc,sysroot}
    for directory in bin sbin lib lib64; do ln -s "usr/$directory" "$root/$directory"; done
    mount --rbind /usr "$root/usr"
    mount --rbind /proc "$root/proc"
    mount --rbind /dev "$root/dev"
    cp "$binary" "$root/darlings"
    touch "$root/etc/initrd-release"
    cat >"$root/etc/darlings.toml"
    if [[ $mounted = yes ]]; then mount --bind "$device" "$root/sysroot"; fi
    chroot "$root" /darlings reset --cmdline /dev/null && status=0 || status=$?
    find "$root/sysroot" -mindepth 1 -maxdepth 1 -printf '%f\n'
    exit "$status"
"#;

#[test]
fn in_an_initrd_a_directory_that_is_not_mounted_yet_is_refused() -> Result<()> {
    skip_unless!(capability::root_and_ext4(), Ok(()));
    let fs = LoopFs::new(Filesystem::Ext4)?;
    put(fs.path(), "root/clutter", "erased")?;
    let scratch = tempfile::tempdir()?;
    let config = scratch.path().join("darlings.toml");
    std::fs::write(
        &config,
        "[[volume]]\nmount_point = \"/\"\ndir = { path = \"/sysroot\", blank = \"empty\" }\n",
    )?;
    let root = scratch.path().join("root");
    std::fs::create_dir(&root)?;
    let reset = |mounted: &str| -> Result<_> {
        let mut command = std::process::Command::new("unshare");
        command.args(["--mount", "bash", "-euc", IN_AN_INITRD, "bash"]);
        command.arg(&root).arg(fs.path().join("root")).arg(mounted);
        command.arg(env!("CARGO_BIN_EXE_darlings")).env_remove("JOURNAL_STREAM");
        let output = command.stdin(std::fs::File::open(&config)?).output()?;
        let text = |bytes| String::from_utf8(bytes);
        Ok((output.status.code(), text(output.stdout)?, text(output.stderr)?))
    };
    let told = ": /: nothing is mounted at \"/sysroot\" yet, so that \"/sysroot\" is the initrd's own; \
                let the reset run after sysroot.mount, as darlings-reset-dir.service does";
    let (code, left, said) = reset("no")?;
    assert_eq!((code, left.as_str()), (Some(10), ""), "{said}");
    assert!(said.contains(told), "{said}");
    let (code, left, said) = reset("yes")?;
    assert_eq!((code, left.as_str()), (Some(0), ".darlings\n"), "{said}");
    fs.close()
}

#[test]
fn a_directory_of_the_tools_name_that_is_not_roots_says_nothing_and_is_erased_like_others()
-> Result<()> {
    skip_unless!(capability::root_and_ext4(), Ok(()));
    let volume = Volume::new(Filesystem::Ext4)?;
    put(&volume.live(), ".darlings/reset/journal", "planted")?;
    put(&volume.live(), ".darlings/attic/1.json", "planted")?;
    plant::owner(&volume.live().join(".darlings"), 1000, 100)?;
    let expected = volume.expected()?;
    volume.reset()?;
    assert_eq!(volume.tree()?.diff_lines(&expected), "");
    assert_eq!(volume.leftovers()?, Vec::<String>::new());
    let aside = volume.live().join(".darlings/generations/1/root/.darlings~1/attic/1.json");
    assert_eq!(std::fs::read_to_string(aside)?, "planted");
    volume.close()
}

#[test]
fn a_full_filesystem_is_told_and_nothing_is_moved() -> Result<()> {
    skip_unless!(capability::root_and_ext4(), Ok(()));
    let volume = Volume::new(Filesystem::Ext4)?;
    std::fs::write(volume.fs.path().join("blank/large"), vec![7; 4 << 20])?;
    let filled = volume.fs.fill_up()?;
    let previous = volume.tree()?;
    let ran = volume.run(&[])?;
    assert_eq!(ran.code, Some(10), "{}", ran.stderr);
    assert!(ran.stderr.contains(": there is no room for a reset, with 0 B left"), "{}", ran.stderr);
    assert_eq!(volume.tree()?.diff_lines(&previous), "");
    std::fs::remove_file(filled)?;
    let expected = volume.expected()?;
    volume.reset()?;
    assert_eq!(volume.tree()?.diff_lines(&expected), "");
    volume.close()
}

#[test]
fn where_no_more_files_can_be_made_check_says_so_as_the_reset_does() -> Result<()> {
    skip_unless!(capability::root_and_ext4(), Ok(()));
    let volume = Volume::new(Filesystem::Ext4)?;
    let many = volume.fs.path().join("many");
    std::fs::create_dir(&many)?;
    for number in 0.. {
        match std::fs::File::create(many.join(format!("{number}"))) {
            Ok(_) => {}
            Err(error) if error.kind() == std::io::ErrorKind::StorageFull => break,
            Err(error) => return Err(error.into()),
        }
    }
    let previous = volume.tree()?;
    // It runs `check` first, and fails where the two disagree.
    let ran = volume.run(&[])?;
    assert_eq!(ran.code, Some(10), "{}", ran.stderr);
    let told = "there is no room for a reset, which needs 64 files and directories, and the \
                filesystem has room for 0: ";
    assert!(ran.stderr.contains(told), "{}", ran.stderr);
    assert_eq!(volume.tree()?.diff_lines(&previous), "");
    volume.close()
}

#[test]
fn generations_of_a_directory_are_listed_and_purged_like_others() -> Result<()> {
    skip_unless!(capability::root_and_ext4(), Ok(()));
    let volume = Volume::new(Filesystem::Ext4)?;
    for number in 1..=3 {
        put(&volume.live(), "clutter", &number.to_string())?;
        volume.reset()?;
    }
    let config = volume.fs.holder().join("keep.toml");
    let keep = "keep = { generations = 1 }";
    config_at(volume.fs.path(), &config, &volume.rules, keep)?;
    let listed = command(&[], &["generations", "--json"], &config).output()?;
    let listed: serde_json::Value = serde_json::from_slice(&listed.stdout)?;
    let found = listed["volumes"][0]["generations"].as_array().context("no list")?;
    let numbers: Vec<_> = found.iter().map(|it| it["number"].as_u64()).collect();
    assert_eq!(numbers, [1, 2, 3].map(Some));
    // What reset 1 ended was never made by a reset, so nobody knows its boot.
    assert_eq!(
        found.iter().map(|it| it["boot"].is_string()).collect::<Vec<_>>(),
        [false, true, true]
    );
    assert!(found.iter().all(|it| it["ended"].is_u64()), "{listed}");
    let before = volume.tree()?;
    let purged = ran(command(&[], &["purge"], &config))?;
    assert_eq!(purged.code, Some(0), "{}", purged.stderr);
    let generations = volume.live().join(".darlings/generations");
    assert_eq!(names(&generations, &[])?, ["3"]);
    assert_eq!(std::fs::read_to_string(generations.join("3/root/clutter"))?, "3");
    assert_eq!(volume.tree()?.diff_lines(&before), "");
    volume.close()
}

#[test]
fn a_directory_that_cannot_be_reset_is_named_with_what_to_do() -> Result<()> {
    skip_unless!(capability::root_and_ext4(), Ok(()));
    let mut volume = Volume::new(Filesystem::Ext4)?;
    let live = volume.live();
    let previous = volume.tree()?;
    let refused = |volume: &Volume, told: &str| -> Result<()> {
        let ran = volume.run(&[])?;
        assert_eq!(ran.code, Some(10));
        let last = ran.stderr.lines().last().context("nothing was said")?;
        assert_eq!(last, format!("error: no volume was reset; all are as they were: /: {told}"));
        Ok(())
    };
    volume.fs.remount_read_only()?;
    let told = format!("{live:?} is mounted read-only; mount it writable before the reset");
    refused(&volume, &told)?;
    volume.fs.remount_writable()?;
    let below = volume.fs.mount_at("mounted/live/etc", "")?;
    let told = format!(
        "something is mounted at {below:?}; a volume is reset before others are mounted on it: \
         unmount it, or let the reset run earlier"
    );
    refused(&volume, &told)?;
    volume.fs.remount_fresh()?;
    assert_eq!(volume.tree()?.diff_lines(&previous), "");
    std::fs::rename(volume.fs.path().join("blank"), volume.fs.path().join("elsewhere"))?;
    let blank = volume.fs.path().join("blank");
    refused(
        &volume,
        &format!("cannot open the directory {blank:?}: No such file or directory (os error 2)"),
    )?;
    assert_eq!(volume.tree()?.diff_lines(&previous), "");
    volume.close()
}

#[test]
fn acls_that_xfs_lists_under_two_names_are_no_obstacle() -> Result<()> {
    skip_unless!(capability::root_and_xfs(), Ok(()));
    let volume = Volume::new(Filesystem::Xfs)?;
    let acl = plant::example_acl(1000, 100);
    for path in ["live", "live/keep/below", "live/etc", "blank/etc", "blank/keep"] {
        let directory = volume.fs.path().join(path);
        plant::xattr(&directory, "system.posix_acl_access", &acl)?;
        plant::xattr(&directory, "system.posix_acl_default", &acl)?;
    }
    let expected = volume.expected()?;
    volume.reset()?;
    assert_eq!(volume.tree()?.diff_lines(&expected), "");
    volume.close()
}

#[test]
fn a_directory_above_what_is_kept_may_have_more_attributes_than_can_be_listed() -> Result<()> {
    skip_unless!(capability::root_and_xfs(), Ok(()));
    let mut volume = Volume::new(Filesystem::Xfs)?;
    let mia = volume.live().join("of/mia");
    put(&mia, "kept/file", "kept")?;
    put(&mia, "old/file", "kept until now")?;
    plant::owner(&mia, 1000, 100)?;
    std::fs::set_permissions(&mia, Permissions::from_mode(0o2770))?;
    let acl = plant::example_acl(1003, 1004);
    plant::xattr(&mia, "system.posix_acl_access", &acl)?;
    plant::xattr(&mia, "system.posix_acl_default", &acl)?;
    let names: Vec<String> = (0..400).map(|number| format!("user.{number:0200}")).collect();
    let fill = || names.iter().try_for_each(|name| plant::xattr(&mia, name, b"1"));
    let value = |path: &Path| rustix::fs::getxattr(path, names[399].as_str(), &mut [0; 8][..]);
    for path in ["/of/mia/kept", "/of/mia/old"] {
        volume.rules.push(Rule::new(path, &[]).map_err(anyhow::Error::msg)?);
    }
    let expected = volume.expected()?;
    fill()?;
    let told = "the directory of/mia has more extended attributes than the kernel lists (64 KiB of \
                names): it keeps its ACLs and security labels, and the rest stays with the previous \
                state\n";
    let ran = volume.run(&[])?;
    assert_eq!((ran.code, ran.stderr.matches(told).count()), (Some(0), 1), "{}", ran.stderr);
    let generation = volume.live().join(".darlings/generations/1/root/of/mia");
    assert_eq!((value(&mia), value(&generation)), (Err(rustix::io::Errno::NODATA), Ok(1)));
    // The model could not list them either.
    names.iter().try_for_each(|name| rustix::fs::removexattr(&generation, name.as_str()))?;
    assert_eq!(volume.tree()?.diff_lines(&expected), "");

    // What is no longer persisted goes to the attic, below a copy of the directory.
    fill()?;
    volume.rules.pop();
    let ran = volume.run(&[])?;
    assert_eq!((ran.code, ran.stderr.matches(told).count()), (Some(0), 2), "{}", ran.stderr);
    assert_eq!(std::fs::read_to_string(mia.join("kept/file"))?, "kept");
    let attic = volume.live().join(".darlings/attic");
    let found = std::fs::read_to_string(attic.join("2/of/mia/old/file"))?;
    assert_eq!(found, "kept until now");
    volume.close()
}

#[test]
fn directories_that_give_a_project_to_what_is_in_them_are_no_obstacle() -> Result<()> {
    skip_unless!(capability::root_and_xfs(), Ok(()));
    let mut volume = Volume::new(Filesystem::Xfs)?;
    let live = volume.live();
    put(&live, "of/mia/kept/file", "kept")?;
    put(&live, "of/mia/other", "of another project")?;
    for (path, id) in
        [("", 7), ("of", 7), ("of/mia", 42), ("of/mia/kept", 42), ("keep", 42), ("keep/below", 9)]
    {
        let directory = live.join(path);
        project::write(std::fs::File::open(&directory)?, id)?;
        plant::flag(&directory, Attribute::ProjectInherit)?;
    }
    for path in ["/of/mia/kept", "/of/mia/other"] {
        volume.rules.push(Rule::new(path, &[]).map_err(anyhow::Error::msg)?);
    }
    let blank = volume.fs.path().join("blank");
    darlings_testkit::remove::all(&blank)?;
    std::fs::create_dir(&blank)?;
    let expected = volume.expected()?;
    volume.reset()?;
    assert_eq!(volume.tree()?.diff_lines(&expected), "");
    volume.close()
}

#[test]
fn a_small_filesystem_is_enough_to_keep_large_files() -> Result<()> {
    skip_unless!(capability::root_and_ext4(), Ok(()));
    let fs = LoopFs::with(Options::new(Filesystem::Ext4).size(64 << 20))?;
    for name in ["blank", "live"] {
        std::fs::create_dir(fs.path().join(name))?;
    }
    // More than half of it: nothing could be copied.
    std::fs::write(fs.path().join("live/keep"), vec![1; 40 << 20])?;
    let rules = vec![Rule::new("/keep", &[]).map_err(anyhow::Error::msg)?];
    let volume = Volume { fs, rules };
    let expected = volume.expected()?;
    volume.reset()?;
    assert_eq!(volume.tree()?.diff_lines(&expected), "");
    volume.close()
}

/// A directory on a filesystem of its own, and a blank that is not on it.
struct Apart {
    fs: LoopFs,
    blank: std::path::PathBuf,
}

impl Apart {
    fn new(options: Options) -> Result<Self> {
        let fs = LoopFs::with(options)?;
        let blank = fs.holder().join("blank");
        std::fs::create_dir(&blank)?;
        put(fs.path(), "live/keep/file", "kept")?;
        put(fs.path(), "live/erased", "erased")?;
        Ok(Self { fs, blank })
    }

    fn run(&self, command_word: &str) -> Result<Ran> {
        let at = self.fs.holder().join("darlings.toml");
        let path = |path: &std::path::Path| quoted(&path.display().to_string());
        let (live, blank) = (path(&self.fs.path().join("live")), path(&self.blank));
        let config = format!(
            "[[volume]]\nmount_point = \"/\"\ndir = {{ path = {live}, blank = {blank} }}\n\
             [[persist]]\npath = \"/keep\"\n"
        );
        std::fs::write(&at, config)?;
        ran(command(&[], &[command_word], &at))
    }

    /// Bytes and entries that are free.
    fn free(&self) -> Result<(u64, u64)> {
        rustix::fs::syncfs(std::fs::File::open(self.fs.path())?)?;
        let is = rustix::fs::statvfs(self.fs.path())?;
        Ok((is.f_bavail * is.f_frsize, is.f_ffree))
    }

    /// That a reset is refused by `check` and fails, leaves what was free, and can be followed by others.
    fn fails_and_leaves_nothing(&self) -> Result<()> {
        let before = (self.free()?, capture(&self.fs.path().join("live"))?);
        assert_eq!(self.run("check")?.code, Some(1));
        let failed = self.run("reset")?;
        assert_eq!(failed.code, Some(10), "{}", failed.stderr);
        assert!(failed.stderr.contains("No space left on device"), "{}", failed.stderr);
        let live = self.fs.path().join("live");
        assert_eq!(capture(&live)?.diff_lines(&before.1), "");
        let after = self.free()?;
        // The tool's own directory may be new.
        let lost = (before.0.0.saturating_sub(after.0), before.0.1.saturating_sub(after.1));
        assert_eq!((lost.0 > 64 << 10, lost.1 > 1), (false, false), "{lost:?}");
        assert_eq!(names(&live.join(".darlings"), &[])?, [""; 0]);
        let purge = self.run("purge")?;
        assert_eq!(purge.code, Some(0), "{}", purge.stderr);
        Ok(())
    }

    fn succeeds(self) -> Result<()> {
        let check = self.run("check")?;
        assert_eq!(check.code, Some(0), "{}", check.stderr);
        let reset = self.run("reset")?;
        assert_eq!(reset.code, Some(0), "{}", reset.stderr);
        let live = self.fs.path().join("live");
        assert_eq!(std::fs::read_to_string(live.join("keep/file"))?, "kept");
        assert!(!live.join("erased").exists());
        self.fs.close()
    }
}

#[test]
fn a_blank_that_does_not_fit_leaves_nothing_and_check_has_said_so() -> Result<()> {
    skip_unless!(capability::root_and_ext4(), Ok(()));
    skip_unless!(capability::root_and_xfs(), Ok(()));
    on_both(|filesystem| {
        let mut options = Options::new(filesystem);
        if filesystem == Filesystem::Ext4 {
            // Nothing that root alone may take: the estimate leaves that.
            options.mkfs.extend(["-m", "0"].map(str::to_owned));
        }
        let volume = Apart::new(options)?;
        let content = vec![7; 32 << 20];
        std::fs::write(volume.blank.join("large"), &content)?;
        std::fs::hard_link(volume.blank.join("large"), volume.blank.join("again"))?;
        // What is persisted is not laid, and neither are holes.
        std::fs::create_dir(volume.blank.join("keep"))?;
        std::fs::write(volume.blank.join("keep/not-laid"), &content)?;
        let sparse = std::fs::File::create(volume.blank.join("sparse"))?;
        sparse.set_len(1 << 40)?;
        let ballast = std::fs::File::create(volume.fs.path().join("ballast"))?;
        let all_but = |left: u64| -> Result<()> {
            let (length, more) = (ballast.metadata()?.len(), volume.free()?.0 - left);
            let flags = rustix::fs::FallocateFlags::empty();
            Ok(rustix::fs::fallocate(&ballast, flags, length, more)?)
        };
        all_but(40 << 20)?;
        assert_eq!(volume.run("check")?.code, Some(0));
        all_but(24 << 20)?;
        volume.fails_and_leaves_nothing()?;
        ballast.set_len(0)?;
        drop(ballast);
        volume.succeeds()
    })
}

#[test]
fn a_blank_with_more_files_than_the_filesystem_can_hold_leaves_nothing() -> Result<()> {
    skip_unless!(capability::root_and_ext4(), Ok(()));
    let mut options = Options::new(Filesystem::Ext4);
    options.mkfs.extend(["-N".to_owned(), "512".to_owned()]);
    let volume = Apart::new(options)?;
    for number in 0..1024 {
        put(&volume.blank, &format!("many/{number}"), "")?;
    }
    volume.fails_and_leaves_nothing()?;
    std::fs::remove_dir_all(volume.blank.join("many"))?;
    volume.succeeds()
}

#[test]
fn on_btrfs_read_only_subvolumes_move_and_out_of_a_subvolume_nothing_does() -> Result<()> {
    skip_unless!(capability::root_and_btrfs(), Ok(()));
    let fs = LoopFs::new(Filesystem::Btrfs)?;
    let (live, top) = (fs.path().join("live"), fs.path());
    std::fs::create_dir(top.join("blank"))?;
    std::fs::create_dir(&live)?;
    let rule = |path| Rule::new(path, &[]).map_err(anyhow::Error::msg);
    let rules = [rule("/single")?, rule("/home/mia/.local/share")?];
    let config = config_at(top, &fs.holder().join("darlings.toml"), &rules, "")?;
    for path in ["single", "junk", "home"] {
        let parent = std::fs::File::open(&live)?;
        darlings_btrfs::create_subvolume(&parent, path.as_ref())?;
        put(&live, &format!("{path}/file"), path)?;
    }
    let set = |path: &str, read_only| -> Result<()> {
        Ok(darlings_btrfs::set_read_only(std::fs::File::open(live.join(path))?, read_only)?)
    };
    set("single", true)?;
    set("junk", true)?;
    put(&live, "home/mia/.local/share/file", "kept")?;
    let before = capture(&live)?;
    let told = ran(command(&[], &["reset"], &config))?;
    assert_eq!(told.code, Some(10), "{}", told.stderr);
    let why = "no volume was reset; all are as they were: /: home/mia/.local/share lies in the \
               subvolume home, out of which and into which nothing can be moved; ";
    assert!(told.stderr.contains(why), "{}", told.stderr);
    assert_eq!(capture(&live)?.diff_lines(&before), "");

    // Where nothing in it is kept it goes with the generation.
    std::fs::rename(live.join("home/mia"), live.join("home/elsewhere"))?;
    let told = ran(command(&[], &["reset"], &config))?;
    assert_eq!(told.code, Some(0), "{}", told.stderr);
    let generation = live.join(".darlings/generations/1/root");
    for (path, place) in [("single", &live), ("junk", &generation)] {
        assert_eq!(std::fs::read_to_string(place.join(path).join("file"))?, path);
        assert!(darlings_btrfs::is_read_only(std::fs::File::open(place.join(path))?)?, "{path}");
    }
    assert!(generation.join("home/elsewhere").exists());
    fs.close()
}

#[test]
fn on_btrfs_a_users_subvolume_above_a_persisted_path_is_kept_as_a_whole() -> Result<()> {
    skip_unless!(capability::root_and_btrfs(), Ok(()));
    let fs = LoopFs::new(Filesystem::Btrfs)?;
    let (live, top) = (fs.path().join("live"), fs.path());
    std::fs::create_dir(top.join("blank"))?;
    std::fs::create_dir(&live)?;
    let rule =
        |path: &str, excluded: &[&str]| Rule::new(path, excluded).map_err(anyhow::Error::msg);
    let (share, docs) = ("/home/mia/.local/share", rule("/home/mia/docs", &["cache"])?);
    let old = rule("/home/mia/old/inner", &[])?;
    let at = fs.holder().join("darlings.toml");
    put(&live, "home/mia/.local/share/file", "kept")?;
    put(&live, "home/mia/docs/file", "kept")?;
    put(&live, "home/mia/old/inner/file", "no longer persisted")?;
    let config = config_at(top, &at, &[rule(share, &[])?, docs.clone(), old], "")?;
    assert_eq!(ran(command(&[], &["reset"], &config))?.code, Some(0));
    // What mia could do by herself.
    for path in ["home/mia/.local", "home/mia/docs", "home/mia/old"] {
        std::fs::rename(live.join(path), live.join("aside"))?;
        let at = live.join(path);
        let parent = std::fs::File::open(at.parent().unwrap())?;
        darlings_btrfs::create_subvolume(&parent, at.file_name().unwrap())?;
        run(Command::new("cp").args(["-aT", "--reflink"]).arg(live.join("aside")).arg(&at))?;
        std::fs::remove_dir_all(live.join("aside"))?;
        plant::owner(&at, 1000, 1000)?;
    }
    plant::owner(&live.join("home/mia"), 1000, 1000)?;
    put(&live, "home/mia/.local/bin/tool", "kept along")?;
    put(&live, "home/mia/docs/cache/page", "kept along")?;
    put(&live, "home/mia/junk", "erased")?;
    let config = config_at(top, &at, &[rule(share, &[])?, docs], "")?;
    let whole = |path: &str| {
        format!(
            "/home/mia/{path} is kept as a whole, and not only what is persisted in it: it is a subvolume, \
             and nothing can be moved out of it; persist it, or put a plain directory in its place"
        )
    };
    let left = "/home/mia/old/inner is no longer persisted. It goes with the generation and not to the \
                attic, since nothing can be moved out of the subvolume that it lies in";
    let explained = ran(command(&[], &["explain", "/home/mia/.local/bin"], &config))?;
    let rule =
        "rule         /home/mia/.local is kept as a whole: a reset cannot reach what is in it\n";
    assert!(explained.stdout.contains(rule), "{}", explained.stdout);
    let diff = ran(command(&[], &["diff", "--flat"], &config))?;
    assert!(diff.stdout.contains("/home/mia/junk"), "{}", diff.stdout);
    assert!(!diff.stdout.contains("tool") && !diff.stdout.contains("page"), "{}", diff.stdout);
    for told in [whole(".local"), whole("docs")] {
        assert!(diff.stderr.contains(&told), "{}", diff.stderr);
    }
    let check = ran(command(&[], &["check", "--fstab", "/dev/null"], &config))?;
    assert_eq!(check.code, Some(0), "{}{}", check.stdout, check.stderr);
    for told in [whole(".local"), whole("docs"), left.to_owned()] {
        assert!(check.stdout.contains(&told), "{told}\n{}", check.stdout);
    }
    for number in 2..=3 {
        let told = ran(command(&[], &["reset"], &config))?;
        assert_eq!(told.code, Some(0), "{}", told.stderr);
        assert!(told.stderr.contains(&whole(".local")), "{}", told.stderr);
        assert_eq!(told.stderr.contains(left), number == 2, "{}", told.stderr);
        let text = |path: &str| std::fs::read_to_string(live.join("home/mia").join(path));
        for (path, what) in [
            (".local/share/file", "kept"),
            ("docs/file", "kept"),
            (".local/bin/tool", "kept along"),
            ("docs/cache/page", "kept along"),
        ] {
            assert_eq!(text(path)?, what, "{path} after reset {number}");
        }
        assert!(!live.join("home/mia/junk").exists() && !live.join("home/mia/old").exists());
    }
    let generation = live.join(".darlings/generations/2/root/home/mia/old/inner/file");
    assert_eq!(std::fs::read_to_string(generation)?, "no longer persisted");
    fs.close()
}

#[test]
fn a_volume_that_its_owner_has_made_read_only_is_reset_and_purged() -> Result<()> {
    skip_unless!(capability::root_and_btrfs(), Ok(()));
    let fs = LoopFs::new(Filesystem::Btrfs)?;
    let (live, top) = (fs.path().join("live"), fs.path());
    std::fs::create_dir(top.join("blank"))?;
    darlings_btrfs::create_subvolume(std::fs::File::open(top)?, "live".as_ref())?;
    for path in [&live, &top.join("blank")] {
        plant::owner(path, 1000, 1000)?;
    }
    put(&live, "docs/file", "kept")?;
    put(&live, "junk/file", "erased")?;
    let rule = Rule::new("/docs", &[]).map_err(anyhow::Error::msg)?;
    let keep = "keep = { generations = 1 }";
    let config = config_at(top, &fs.holder().join("darlings.toml"), &[rule], keep)?;
    let open = || std::fs::File::open(&live);
    let go = |wrapper: &[&str], arguments: &[&str]| ran(command(wrapper, arguments, &config));

    darlings_btrfs::set_read_only(open()?, true)?;
    let before = capture(&live)?;
    // One that fails after the first change leaves all as it was.
    let strace = ["strace", "-f", "-o", "/dev/null", "-e", "inject=syncfs:error=EIO:when=1"];
    let failed = go(&strace, &["reset"])?;
    assert_eq!(failed.code, Some(10), "{}", failed.stderr);
    assert!(failed.stderr.contains("all are as they were"), "{}", failed.stderr);
    assert!(darlings_btrfs::is_read_only(open()?)?, "{}", failed.stderr);
    assert_eq!(capture(&live)?.diff_lines(&before), "");
    for number in 1..=3 {
        darlings_btrfs::set_read_only(open()?, true)?;
        let check = go(&[], &["check", "--fstab", "/dev/null"])?;
        assert_eq!(check.code, Some(0), "{}{}", check.stdout, check.stderr);
        let reset = go(&[], &["reset"])?;
        assert_eq!(reset.code, Some(0), "reset {number}: {}", reset.stderr);
        assert!(!darlings_btrfs::is_read_only(open()?)?, "reset {number}");
        assert_eq!(std::fs::read_to_string(live.join("docs/file"))?, "kept");
        assert!(!live.join("junk").exists(), "reset {number}");
        put(&live, "junk/file", "erased")?;
    }
    darlings_btrfs::set_read_only(open()?, true)?;
    let purge = go(&[], &["purge"])?;
    assert_eq!(purge.code, Some(0), "{}{}", purge.stdout, purge.stderr);
    assert!(darlings_btrfs::is_read_only(open()?)?, "the purge has left it writable");
    assert_eq!(names(&live.join(".darlings/generations"), &[])?, ["3"]);
    fs.close()
}

#[test]
fn a_counter_or_a_manifest_of_a_directory_that_is_damaged_is_made_anew() -> Result<()> {
    skip_unless!(capability::root_and_ext4(), Ok(()));
    // After two resets, of which the second has put something into the attic.
    let (volume, _) = Volume::experienced(Filesystem::Ext4)?;
    let own = volume.live().join(".darlings");
    let mut number = 2;
    for files in [&["generation"][..], &["manifest"], &["generation", "manifest"]] {
        for damaged in ["", "\0\0\0\0", "{\"version\":1,\"gener"] {
            for file in files {
                std::fs::write(own.join(file), damaged)?;
            }
            volume.reset().with_context(|| format!("{files:?}: {damaged:?}"))?;
            number += 1;
            let counter = std::fs::read_to_string(own.join("generation"))?;
            assert_eq!(counter, format!("{number}\n"));
            assert_eq!(std::fs::read_to_string(volume.live().join("keep/file"))?, "kept");
            // What comes back from the attic is back, and nothing was put there wrongly.
            assert_eq!(names(&own.join("attic"), &["3", "3.json"])?, ["2", "2.json"]);
        }
    }
    let expected: Vec<_> = (1..=number).map(|number| number.to_string()).collect();
    let mut kept = names(&own.join("generations"), &[])?;
    kept.sort_by_key(|name| name.parse::<u64>().unwrap());
    assert_eq!(kept, expected);
    // No generation is left to tell.
    remove::all(&own.join("generations"))?;
    std::fs::write(own.join("attic/20.json"), std::fs::read(own.join("attic/2.json"))?)?;
    for file in ["generation", "manifest"] {
        std::fs::write(own.join(file), "")?;
    }
    volume.reset()?;
    assert_eq!(std::fs::read_to_string(own.join("generation"))?, "21\n");
    volume.close()
}

/// In a mount namespace where each access counts, and where nobody else looks.
#[test]
fn what_a_reset_or_a_command_reads_has_the_access_time_that_it_had() -> Result<()> {
    skip_unless!(capability::root_and_ext4(), Ok(()));
    skip_unless!(capability::root_and_xfs(), Ok(()));
    on_both(|filesystem| {
        let (volume, expected) = Volume::experienced(filesystem)?;
        let top = volume.fs.path();
        let script = "mount -o remount,bind,strictatime \"$0\"; exec \"$@\"";
        let counting = ["sh", "-ec", script, top.to_str().unwrap()];
        let before = capture(top)?;
        for (arguments, code) in [
            (&["check"][..], 0),
            (&["diff"], 1),
            (&["explain", "/keep/file"], 0),
            (&["generations"], 0),
            (&["history", "/keep/file"], 0),
            (&["purge", "--dry-run"], 0),
            (&["reset", "--dry-run"], 0),
            (&["status"], 0),
            (&["suggest"], 0),
        ] {
            let output = volume.command(&counting, arguments)?.output()?;
            assert_eq!(output.status.code(), Some(code), "{arguments:?}: {output:?}");
            assert_eq!(capture(top)?.diff_lines(&before), "", "{arguments:?}");
        }
        let ran = volume.run(&counting)?;
        assert_eq!(ran.code, Some(0), "{}", ran.stderr);
        assert_eq!(volume.tree()?.diff_lines(&expected), "");
        volume.fs.close()
    })
}
