//! Bad input: each a clear error that names the thing and what to do, a non-zero exit, and a
//! filesystem that is what it was.

use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::common::{Machine, Ran, put, quoted};
use anyhow::{Context as _, Result};
use darlings_testkit::loopfs::{Filesystem, LoopFs, Options, run, unmount};
use darlings_testkit::{Attribute, Flags, Foretold, capability, capture, plant, skip_unless};

/// Exit code of a failure after which the machine shall boot the previous state.
const BOOT_ANYWAY: i32 = 10;
/// Exit code of a failure after which it shall not.
const EMERGENCY: i32 = 1;

fn machine() -> Result<Machine> {
    let machine = Machine::new(
        |blank| put(blank, "etc/os-release", "of the blank"),
        |live| {
            put(live, "etc/erased", "erased")?;
            put(live, "keep/file", "kept")
        },
    )?;
    Ok(machine.persist("/keep", &[]))
}

/// The lines on standard error.
fn lines(ran: &Ran) -> Vec<&str> {
    ran.stderr.lines().collect()
}

/// Runs a machine with a configuration that must be refused before anything is done: once as it
/// is, once with `on_failure = "emergency"`. Gives the one line that it says.
fn refusal(machine: &Machine, config: &str) -> Result<String> {
    let before = machine.whole()?;
    let ran = machine.run(config, &[])?;
    assert_eq!(ran.code, Some(BOOT_ANYWAY), "{}", ran.stderr);
    assert_eq!(machine.whole()?.differences(&before), "");
    let emergency = machine.run(format!("on_failure = \"emergency\"\n{config}"), &[])?;
    assert_eq!(emergency.code, Some(EMERGENCY), "{}", emergency.stderr);
    assert_eq!(emergency.stderr, ran.stderr);
    assert_eq!(machine.whole()?.differences(&before), "");
    let report = ran.report.context("no report")?;
    assert_eq!(report["outcome"], "failed");
    let line = ran.stderr.lines().last().context("nothing was said")?;
    let error = line.strip_prefix("error: ").context("the last line is no error")?;
    assert_eq!(report["error"], error);
    let told = error.strip_prefix("no volume was reset; all are as they were: ");
    Ok(told.with_context(|| error.to_owned())?.to_owned())
}

#[test]
fn a_missing_blank_is_named_with_the_subvolumes_that_there_are() -> Result<()> {
    skip_unless!(capability::root_and_btrfs(), Ok(()));
    let mut machine = machine()?;
    machine.blank = "@blanc".to_owned();
    let told = refusal(&machine, &machine.config())?;
    let device = machine.volume.fs.device();
    assert_eq!(
        told,
        format!(
            "/: the blank subvolume \"@blanc\" is missing on {device:?}; there are \"@\", \
             \"@blank\". Make one with `darlings init`, or of the system as it is now with \
             `darlings init --from-live`"
        )
    );
    machine.close()
}

#[test]
fn a_missing_subvolume_is_named_with_those_that_there_are() -> Result<()> {
    skip_unless!(capability::root_and_btrfs(), Ok(()));
    let machine = machine()?;
    let config = machine.config().replace("subvolume = \"@\"", "subvolume = \"@root\"");
    let device = machine.volume.fs.device();
    assert_eq!(
        refusal(&machine, &config)?,
        format!("/: there is no subvolume \"@root\" on {device:?}; there are \"@\", \"@blank\"")
    );
    machine.close()
}

#[test]
fn a_plain_directory_is_neither_a_blank_nor_a_volume() -> Result<()> {
    skip_unless!(capability::root_and_btrfs(), Ok(()));
    let mut machine = machine()?;
    std::fs::create_dir(machine.at("directory"))?;
    machine.blank = "directory".to_owned();
    let device = machine.volume.fs.device().to_path_buf();
    let told = format!(
        "/: \"directory\" on {device:?} is a directory and no subvolume; give the path of a \
         subvolume"
    );
    assert_eq!(refusal(&machine, &machine.config())?, told);
    let config = machine.config().replace("subvolume = \"@\"", "subvolume = \"directory\"");
    assert_eq!(
        refusal(&machine, &config.replace("blank = \"directory\"", "blank = \"@blank\""))?,
        told
    );
    machine.close()
}

#[test]
fn a_subvolume_reached_through_a_symlink_is_not_taken() -> Result<()> {
    skip_unless!(capability::root_and_btrfs(), Ok(()));
    let machine = machine()?;
    symlink("@", machine.at("link"))?;
    let config = machine.config().replace("subvolume = \"@\"", "subvolume = \"link\"");
    let told = refusal(&machine, &config)?;
    let device = machine.volume.fs.device();
    assert_eq!(
        told,
        format!("/: there is no subvolume \"link\" on {device:?}; there are \"@\", \"@blank\"")
    );
    machine.close()
}

#[test]
fn a_device_that_is_missing_or_no_device_or_no_btrfs_is_named() -> Result<()> {
    skip_unless!(capability::root_and_btrfs(), Ok(()));
    skip_unless!(capability::root_and_ext4(), Ok(()));
    let machine = machine()?;
    let ext4 = LoopFs::new(Filesystem::Ext4)?;
    let ours = machine.volume.fs.device().display().to_string();
    for (device, why) in [
        (
            PathBuf::from("/dev/disk/by-label/missing"),
            "the device, or another one of the same filesystem, is missing: No such file or directory (os error 2)",
        ),
        (
            PathBuf::from("/dev/null"),
            "this is not a block device: Block device required (os error 15)",
        ),
        (
            ext4.device().to_path_buf(),
            "this is not a btrfs filesystem: Invalid argument (os error 22)",
        ),
    ] {
        let shown = device.display().to_string();
        let told = refusal(&machine, &machine.config().replace(&ours, &shown))?;
        assert_eq!(
            told,
            format!(
                "/: cannot open the btrfs filesystem on {shown:?}: mounting the top level of {shown:?}: {why}"
            )
        );
    }
    ext4.close()?;
    machine.close()
}

#[test]
fn a_volume_that_is_mounted_is_not_reset_wherever_and_whatever_part_of_it() -> Result<()> {
    skip_unless!(capability::root_and_btrfs(), Ok(()));
    for part in ["@", "@/keep/nested"] {
        let mut machine = machine()?;
        machine.volume.make_subvolume("@/keep/nested")?;
        let at = machine.volume.fs.mount_at("mounted here", &format!("subvol={part}"))?;
        assert_eq!(
            refusal(&machine, &machine.config())?,
            format!(
                "/: the subvolume \"@\" is mounted at {at:?}; a volume is reset before it is \
                 mounted: unmount it, or reboot"
            )
        );
        // A dry run only looks: it says what the boot would do.
        let ran = machine.run(machine.config(), &["--dry-run"])?;
        assert_eq!(ran.code, Some(0), "{}", ran.stderr);
        machine.close()?;
    }
    Ok(())
}

#[test]
fn a_bind_mount_of_a_part_of_the_volume_is_a_mount_of_it() -> Result<()> {
    skip_unless!(capability::root_and_btrfs(), Ok(()));
    let mut machine = machine()?;
    let at = machine.beside("bound");
    std::fs::create_dir(&at)?;
    run(Command::new("mount").arg("--bind").arg(machine.at("@/keep")).arg(&at))?;
    let told = refusal(&machine, &machine.config());
    unmount(&at)?;
    assert_eq!(
        told?,
        format!(
            "/: the subvolume \"@\" is mounted at {at:?}; a volume is reset before it is mounted: \
             unmount it, or reboot"
        )
    );
    // A mount of another subvolume of the filesystem is none of it.
    machine.volume.fs.mount_at("blank", "subvol=@blank")?;
    machine.reset_and_compare()?;
    machine.close()
}

#[test]
fn a_read_only_device_is_named() -> Result<()> {
    skip_unless!(capability::root_and_btrfs(), Ok(()));
    let mut machine = machine()?;
    let before = machine.whole()?;
    let device = machine.volume.fs.device().to_path_buf();
    machine.volume.fs.unmount()?;
    run(Command::new("blockdev").arg("--setro").arg(&device))?;
    let ran = machine.run(machine.config(), &[]);
    run(Command::new("blockdev").arg("--setrw").arg(&device))?;
    machine.volume.fs.mount_at("mounted", "")?;
    let ran = ran?;
    assert_eq!(machine.whole()?.differences(&before), "");
    assert_eq!(ran.code, Some(BOOT_ANYWAY));
    let device = device.display();
    assert_eq!(
        lines(&ran),
        [format!(
            "error: no volume was reset; all are as they were: /: cannot open the btrfs filesystem \
             on \"{device}\": mounting the top level of \"{device}\": it is read-only: \
             Permission denied (os error 13)"
        )]
    );
    machine.close()
}

#[test]
fn an_ancestor_that_is_no_directory_in_the_blank_is_named_and_nothing_is_changed() -> Result<()> {
    skip_unless!(capability::root_and_btrfs(), Ok(()));
    for (kind, word) in [("symlink", "symbolic link"), ("file", "file")] {
        let machine = Machine::new(
            |blank| match kind {
                "symlink" => Ok(symlink("/nowhere", blank.join("var"))?),
                _ => put(blank, "var", "a file"),
            },
            |live| {
                std::fs::remove_file(live.join("var"))?;
                put(live, "var/log/keep", "kept")
            },
        )?
        .persist("/var/log/keep", &[]);
        assert_eq!(
            refusal(&machine, &machine.config())?,
            format!(
                "/: the blank has a {word} at \"var\", where persisted paths need a directory; \
                 change the blank or the configuration"
            )
        );
        machine.close()?;
    }
    Ok(())
}

#[test]
fn a_swap_file_below_a_persisted_path_is_refused_with_the_advice_to_give_it_a_subvolume()
-> Result<()> {
    skip_unless!(capability::root_and_btrfs(), Ok(()));
    let machine = machine()?;
    let swap = machine.at("@/keep/swap");
    plant::file(&swap, &[], Flags::of(Attribute::NoCow))?;
    plant::mode(&swap, 0o600)?;
    std::fs::write(&swap, vec![0; 1 << 20])?;
    run(Command::new("mkswap").arg("-q").arg(&swap))?;
    let before = machine.whole()?;
    let ran = machine.run(machine.config(), &[])?;
    assert_eq!(ran.code, Some(BOOT_ANYWAY), "{}", ran.stderr);
    assert_eq!(machine.whole()?.differences(&before), "");
    let said = "error: no volume was reset; all are as they were: /: \"keep/swap\" is a swap file, \
                which cannot be activated once a generation shares its extents; give it a subvolume \
                of its own that is not reset";
    assert_eq!(lines(&ran), [said]);
    machine.close()
}

#[test]
fn a_full_disk_is_told_and_nothing_is_begun() -> Result<()> {
    skip_unless!(capability::root_and_btrfs(), Ok(()));
    // Metadata is what a reset needs; many files with extended attributes need more of it than is
    // left on a small filesystem.
    let options = Options::new(Filesystem::Btrfs).size(160 << 20);
    let mut machine = Machine::with(
        options,
        |_| Ok(()),
        |live| {
            for directory in 0..20 {
                let at = live.join(format!("keep/{directory}"));
                std::fs::create_dir_all(&at)?;
                for file in 0..200 {
                    let path = at.join(file.to_string());
                    std::fs::write(&path, "x".repeat(1500))?;
                    plant::xattr(&path, "user.large", &[b'x'; 2000])?;
                }
            }
            Ok(())
        },
    )?
    .persist("/keep", &[]);
    machine.volume.fs.remount_fresh()?;
    let filler = machine.volume.fs.fill_up()?;
    let before = machine.whole()?;
    let ran = machine.run(machine.config(), &[])?;
    assert_eq!(ran.code, Some(BOOT_ANYWAY), "{}", ran.stderr);
    assert_eq!(machine.whole()?.differences(&before), "");
    let said = "error: no volume was reset; all are as they were: /: there is no room for a reset, with \
                0 B left: remove what is not needed, `darlings purge` perhaps, or raise the quota";
    assert_eq!(lines(&ran), [said]);
    assert_eq!(ran.report.as_ref().unwrap()["outcome"], "failed");

    // With room it works at once.
    std::fs::remove_file(filler)?;
    // Data had taken all the room that metadata could have grown into, and keeps it a while.
    run(Command::new("truncate").args(["-s", "+256M"]).arg(machine.beside("image")))?;
    run(Command::new("losetup").arg("--set-capacity").arg(machine.volume.fs.device()))?;
    let top = machine.volume.fs.path();
    run(Command::new("btrfs").args(["filesystem", "resize", "max"]).arg(top))?;
    machine.reset_and_compare()?;
    machine.close()
}

#[test]
fn zfs_without_its_library_says_what_to_do() -> Result<()> {
    skip_unless!(capability::root(), Ok(()));
    let mut command = Command::new("strace");
    command.args(["-f", "-qqq", "-o", "/dev/null", "-e", "inject=openat:error=ENOENT"]);
    // Where the loader would find it, had this machine it.
    for place in ["/lib/x86_64-linux-gnu", "/usr/lib/x86_64-linux-gnu", "/lib", "/usr/lib"] {
        command.arg("-P").arg(Path::new(place).join("libnvpair.so.3"));
    }
    assert_eq!(
        said_of_zfs(command)?,
        "cannot open libnvpair.so.3: install the libraries of OpenZFS (2.1 or later; Debian: \
         libzfs4linux and libnvpair3linux, in an initrd also these), or put them on the binary's \
         RUNPATH: dlopen failed: libnvpair.so.3: cannot open shared object file: No such file or \
         directory"
    );
    Ok(())
}

#[test]
fn zfs_without_its_kernel_module_says_what_to_do() -> Result<()> {
    skip_unless!(capability::root(), Ok(()));
    if Path::new("/dev/zfs").exists() || !has_zfs_library()? {
        // Most machines that can do the rest lack the library, as a btrfs host may.
        capability::skipped_unless(
            "DARLINGS_REQUIRE_ZFS",
            "needs the ZFS library and no ZFS module",
        );
        return Ok(());
    }
    assert_eq!(
        said_of_zfs(Command::new("env"))?,
        "the zfs kernel module is not loaded (no /dev/zfs): run `modprobe zfs` first: No such file \
         or directory (os error 2)"
    );
    Ok(())
}

fn has_zfs_library() -> Result<bool> {
    let out = Command::new("ldconfig").arg("-p").output().context("ldconfig")?;
    Ok(String::from_utf8_lossy(&out.stdout).contains("libzfs_core.so.3"))
}

/// What a run with a ZFS volume says; `wrapper` is a command that takes the run as arguments.
fn said_of_zfs(mut wrapper: Command) -> Result<String> {
    let holder = tempfile::tempdir()?;
    let at = holder.path().join("darlings.toml");
    let config =
        "[[volume]]\nmount_point = \"/\"\nzfs = { dataset = \"rpool/root\", blank = \"blank\" }\n";
    std::fs::write(&at, config)?;
    wrapper.arg(env!("CARGO_BIN_EXE_darlings")).args(["reset", "--config"]).arg(&at);
    wrapper.arg("--report").arg(holder.path().join("report.json")).env_remove("JOURNAL_STREAM");
    let output = Foretold::output(&mut wrapper)?;
    let stderr = String::from_utf8(output.stderr)?;
    assert_eq!(output.status.code(), Some(BOOT_ANYWAY), "{stderr}");
    let last = stderr.lines().last().context("nothing was said")?;
    let told = last.strip_prefix("error: no volume was reset; all are as they were: /: ");
    Ok(told.with_context(|| stderr.clone())?.to_owned())
}

#[test]
fn without_root_it_says_so() -> Result<()> {
    skip_unless!(capability::root(), Ok(()));
    let holder = tempfile::tempdir()?;
    plant::mode(holder.path(), 0o755)?;
    let at = holder.path().join("darlings.toml");
    let config = "[[volume]]\nmount_point = \"/\"\nbtrfs = { device = \"/dev/nothing\", subvolume = \"@\", \
                  blank = \"@blank\" }\n";
    std::fs::write(&at, config)?;
    let binary = holder.path().join("darlings");
    std::fs::copy(env!("CARGO_BIN_EXE_darlings"), &binary)?;
    // What it is told elsewhere, if it cannot write its report, is not what this is about.
    let reports = holder.path().join("reports");
    std::fs::create_dir(&reports)?;
    plant::mode(&reports, 0o777)?;
    let mut command = Command::new("setpriv");
    command
        .args(["--reuid=65534", "--regid=65534", "--clear-groups", "--bounding-set=-all"])
        .arg(&binary)
        .args(["reset", "--config"])
        .arg(&at)
        .arg("--report")
        .arg(reports.join("report.json"))
        .env_remove("JOURNAL_STREAM");
    let output = Foretold::output(&mut command)?;
    assert_eq!(output.status.code(), Some(BOOT_ANYWAY));
    assert_eq!(
        String::from_utf8(output.stderr)?,
        "error: no volume was reset; all are as they were: cannot get a mount namespace; run as \
         root: Operation not permitted (os error 1)\n"
    );
    Ok(())
}

#[test]
fn several_wrong_volumes_are_all_named_in_one_run_and_none_is_reset() -> Result<()> {
    skip_unless!(capability::root_and_btrfs(), Ok(()));
    let machine = machine()?;
    let volume = |mount_point: &str, subvolume: &str| {
        format!(
            "[[volume]]\nmount_point = {}\nbtrfs = {{ device = {}, subvolume = {}, blank = \
             \"@blank\" }}\n",
            quoted(mount_point),
            quoted(&machine.volume.fs.device().display().to_string()),
            quoted(subvolume)
        )
    };
    let config = volume("/", "@") + &volume("/home", "@home") + &volume("/srv", "@srv");
    let device = machine.volume.fs.device();
    let before = machine.whole()?;
    let ran = machine.run(config, &[])?;
    assert_eq!(ran.code, Some(BOOT_ANYWAY));
    assert_eq!(machine.whole()?.differences(&before), "");
    let missing = |mount_point: &str, subvolume: &str| {
        format!(
            "{mount_point}: there is no subvolume {subvolume:?} on {device:?}; there are \"@\", \
             \"@blank\""
        )
    };
    assert_eq!(
        lines(&ran),
        [
            format!(
                "error: no volume was reset; all are as they were: {}",
                missing("/home", "@home")
            ),
            missing("/srv", "@srv"),
        ]
    );
    machine.close()
}

/// The steps that make the result.
fn made_by(strategy: &str) -> &'static [&'static str] {
    match strategy {
        "carry" => &[
            "copy @ as @darlings/root/.darlings/next",
            "lay the content of @blank beside the old one in the stage",
            "move the persisted paths to the new content in the stage, the rest aside",
        ],
        _ => &[
            "copy @blank as @darlings/root/.darlings/next",
            "copy the persisted paths from the previous state into the stage",
        ],
    }
}

#[test]
fn a_dry_run_changes_nothing_and_prints_the_steps_that_the_reset_then_does() -> Result<()> {
    skip_unless!(capability::root_and_btrfs(), Ok(()));
    let machine = machine()?.persist("/link/below", &[]).persist("/absent", &[]);
    symlink("keep", machine.at("@/link"))?;
    machine.volume.make_subvolume("@/keep/nested")?;
    machine.volume.make_subvolume("@/gone")?;
    machine.volume.set_default("@")?;
    // What an interrupted run left.
    std::fs::create_dir_all(machine.at("@darlings/root/.darlings"))?;
    machine.volume.snapshot("@blank", "@darlings/root/.darlings/next", false)?;
    let before = machine.whole()?;
    let dry = machine.run(machine.config(), &["--dry-run"])?;
    assert_eq!(dry.code, Some(0), "{}", dry.stderr);
    assert!(dry.report.is_none());
    assert_eq!(machine.whole()?.differences(&before), "");
    let device = machine.volume.fs.device().display();
    let mut steps = vec!["remove @darlings/root/.darlings/next, left by an interrupted run"];
    steps.extend(made_by(&machine.strategy));
    steps.extend([
        "record the reset and the persisted paths in the stage",
        "make it durable as @darlings/root/ready-1",
        "exchange @darlings/root/ready-1 with @",
        "move the nested subvolume keep/nested along",
        "make the live subvolume the default one",
        "set the attributes that the exchange has changed",
        "keep the previous state as @darlings/root/1",
    ]);
    let mut printed = format!("/ (btrfs subvolume @ on {device}), reset 1\n");
    printed += "  keep   /absent (not there)\n  keep   /keep (directory)\n";
    printed += "  leave  /link/below: /link is a symbolic link and is not followed\n";
    printed += "  erase  subvolume /gone, which goes with the generation\n";
    printed += "  note   /link/below is not brought over: /link is a symbolic link, which is not \
                followed; declare the path that it stands for\n";
    for (number, step) in (1..).zip(&steps) {
        printed.extend([format!("  {number:>3}. {step}\n")]);
    }
    printed += "  The previous state will be @darlings/root/1.\n";
    assert_eq!(dry.stdout, printed);

    let json = machine.run(machine.config(), &["--dry-run", "--json"])?;
    assert_eq!(machine.whole()?.differences(&before), "");
    let planned: serde_json::Value = serde_json::from_str(&json.stdout)?;
    assert_eq!(planned["outcome"], "dry_run");

    let ran = machine.reset_well()?;
    let report = ran.report.unwrap();
    assert_eq!(report["volumes"][0]["steps"], planned["volumes"][0]["steps"]);
    let told: Vec<String> = steps.iter().map(|step| format!("/: {step}")).collect();
    let said: Vec<&str> =
        ran.stderr.lines().filter(|line| told.iter().any(|step| step == line)).collect();
    assert_eq!(said, told);
    machine.close()
}

#[test]
fn a_dry_run_of_a_reset_that_cannot_be_says_why_and_ends_like_it() -> Result<()> {
    skip_unless!(capability::root_and_btrfs(), Ok(()));
    let mut machine = machine()?;
    machine.blank = "@blanc".to_owned();
    let before = machine.whole()?;
    let ran = machine.run(machine.config(), &["--dry-run"])?;
    assert_eq!(ran.code, Some(BOOT_ANYWAY));
    let device = machine.volume.fs.device();
    assert_eq!(
        lines(&ran),
        [format!(
            "error: a reset would not start: /: the blank subvolume \"@blanc\" is missing on \
             {device:?}; there are \"@\", \"@blank\". Make one with `darlings init`, or of the \
             system as it is now with `darlings init --from-live`"
        )]
    );
    assert_eq!(machine.whole()?.differences(&before), "");
    machine.close()
}

#[test]
fn the_previous_state_of_a_refused_reset_can_be_reset_once_the_reason_is_gone() -> Result<()> {
    skip_unless!(capability::root_and_btrfs(), Ok(()));
    let mut machine = machine()?;
    machine.blank = "@blanc".to_owned();
    refusal(&machine, &machine.config())?;
    machine.blank = "@blank".to_owned();
    let ran = machine.reset_and_compare()?;
    assert_eq!(ran.generation()?, "@darlings/root/1");
    assert_eq!(capture(&machine.volume.live())?.at("keep/file").map(|it| it.owner), Some(0));
    machine.close()
}
