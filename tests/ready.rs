//! What `darlings check` calls not ready is what a reset refuses, in the same words and with nothing
//! changed; and what it calls ready is reset. Each situation is one that once was told apart.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test may stop at once")]

mod common;

use std::os::unix::fs::symlink;
use std::path::Path;
use std::process::Command;

use anyhow::{Context as _, Result, ensure};
use common::{Machine, put};
use darlings_testkit::loopfs::{Filesystem, Options, run};
use darlings_testkit::{Attribute, Flags, capability, plant, skip_unless};
use serde_json::Value;

const STRATEGIES: [&str; 2] = ["rollback", "carry"];

fn machine(strategy: &str) -> Result<Machine> {
    machine_with(Options::new(Filesystem::Btrfs), strategy)
}

fn machine_with(options: Options, strategy: &str) -> Result<Machine> {
    let machine = Machine::with(
        options,
        |blank| put(blank, "etc/os-release", "of the blank"),
        |live| {
            put(live, "keep/file", "kept")?;
            put(live, "etc/erased", "erased")
        },
    )?;
    let mut machine = machine.persist("/keep", &[]);
    strategy.clone_into(&mut machine.strategy);
    Ok(machine)
}

/// The problems that `check` finds.
fn problems(machine: &Machine, config: &str) -> Result<Vec<String>> {
    let at = machine.beside("check.toml");
    std::fs::write(&at, config)?;
    let output = Command::new(env!("CARGO_BIN_EXE_darlings"))
        .args(["check", "--json", "--cmdline", "/dev/null", "--fstab", "/dev/null", "--config"])
        .arg(&at)
        .env_remove("JOURNAL_STREAM")
        .output()?;
    let found: Value = serde_json::from_slice(&output.stdout)?;
    let problems = found["volumes"][0]["problems"].as_array().context("no problems")?;
    assert_eq!(output.status.code(), Some(i32::from(!problems.is_empty())), "{found:#}");
    problems.iter().map(|it| Ok(it.as_str().context("no text")?.to_owned())).collect()
}

/// Demands that the check and the reset say this, and that nothing is changed. `DEVICE` stands for the
/// device.
fn both_refuse(machine: &Machine, config: &str, told: &str) -> Result<()> {
    let told = told.replace("DEVICE", &machine.volume.fs.device().display().to_string());
    let before = machine.whole()?;
    assert_eq!(problems(machine, config)?, [told.as_str()]);
    let ran = machine.run(config, &[])?;
    assert_eq!(ran.code, Some(10), "{}", ran.stderr);
    let last = ran.stderr.lines().last().context("nothing was said")?;
    assert_eq!(last, format!("error: no volume was reset; all are as they were: /: {told}"));
    assert_eq!(machine.whole()?.differences(&before), "");
    Ok(())
}

/// Demands that the check finds no problem, and that the reset is done.
fn both_do(machine: &Machine, config: &str) -> Result<()> {
    assert_eq!(problems(machine, config)?, Vec::<String>::new());
    let ran = machine.run(config, &[])?;
    ensure!(ran.code == Some(0), "{:?}: {}", ran.code, ran.stderr);
    assert_eq!(machine.text("keep/file")?.as_deref(), Some("kept"));
    assert_eq!(machine.text("etc/erased")?, None);
    Ok(())
}

/// The configuration with generations in another place.
fn with_generations(machine: &Machine, place: &str) -> String {
    machine.config().replace(", blank", &format!(", generations = \"{place}\", blank"))
}

fn set_read_only(at: &Path, value: bool) -> Result<()> {
    let value = value.to_string();
    run(Command::new("btrfs").args(["property", "set", "-ts"]).arg(at).args(["ro", &value]))?;
    Ok(())
}

#[test]
fn generations_cannot_be_kept_where_no_directory_can_be_made() -> Result<()> {
    skip_unless!(capability::root_and_btrfs(), Ok(()));
    let no_directory = |path: &str, kind: &str| {
        format!(
            "\"{path}\" on \"DEVICE\" is a {kind}, so that no generations can be kept below it; move it \
             away, or name another directory in `generations`"
        )
    };
    let read_only = |path: &str| {
        format!(
            "\"/{path}\" on \"DEVICE\" is in a read-only subvolume, and a reset makes and renames \
             subvolumes there; make it writable (`btrfs property set -ts PATH ro false`), or name another \
             place"
        )
    };
    let immutable = |path: &str| {
        format!(
            "\"/{path}\" on \"DEVICE\" is immutable or append-only, and a reset makes and renames \
             subvolumes there; clear the flag (`chattr -i -a`), or name another place"
        )
    };
    for strategy in STRATEGIES {
        let machine = machine(strategy)?;
        put(machine.volume.fs.path(), "file", "somebody's")?;
        symlink("place", machine.at("link"))?;
        std::fs::create_dir(machine.at("place"))?;
        std::fs::create_dir(machine.at("locked"))?;
        plant::flag(&machine.at("locked"), Attribute::Immutable)?;
        let sealed = machine.volume.make_subvolume("sealed")?;
        std::fs::create_dir(sealed.join("inner"))?;
        set_read_only(&sealed, true)?;
        for (place, told) in [
            ("file", no_directory("file", "file")),
            ("file/below/it", no_directory("file", "file")),
            ("link", no_directory("link", "symbolic link")),
            ("link/below", no_directory("link", "symbolic link")),
            ("sealed", read_only("sealed")),
            ("sealed/inner", read_only("sealed/inner")),
            ("sealed/new/place", read_only("sealed")),
            ("locked", immutable("locked")),
            ("locked/new", immutable("locked")),
        ] {
            both_refuse(&machine, &with_generations(&machine, place), &told)
                .with_context(|| format!("{strategy}, {place}"))?;
        }
        both_do(&machine, &with_generations(&machine, "place/new/deep"))?;
        plant::flags(&machine.at("locked"), Flags::default())?;
        machine.close()?;
    }
    Ok(())
}

#[test]
fn what_is_in_the_way_of_a_name_that_a_reset_needs_is_not_removed() -> Result<()> {
    skip_unless!(capability::root_and_btrfs(), Ok(()));
    for strategy in STRATEGIES {
        let machine = machine(strategy)?;
        machine.reset_well()?;
        for (name, kind) in [("next", "directory"), ("next", "file"), ("ready-7", "directory")] {
            let at = machine.at(&format!("@darlings/root/{name}"));
            if kind == "file" {
                std::fs::write(&at, "")?;
            } else {
                std::fs::create_dir(&at)?;
            }
            let told = format!(
                "\"@darlings/root/{name}\" on \"DEVICE\" is a {kind}, which no reset left there, and a \
                 reset needs its name; move it away"
            );
            both_refuse(&machine, &machine.config(), &told)
                .with_context(|| format!("{strategy}, {name}"))?;
            if kind == "file" { std::fs::remove_file(&at)? } else { std::fs::remove_dir(&at)? }
        }
        both_do(&machine, &machine.config())?;
        machine.close()?;
    }
    Ok(())
}

#[test]
fn the_live_subvolume_cannot_be_exchanged_where_nothing_can_be_renamed() -> Result<()> {
    skip_unless!(capability::root_and_btrfs(), Ok(()));
    for strategy in STRATEGIES {
        let machine = machine(strategy)?;
        let systems = machine.volume.make_subvolume("systems")?;
        std::fs::rename(machine.volume.live(), systems.join("live"))?;
        let config = machine.config().replace("\"@\"", "\"systems/live\"");
        set_read_only(&systems, true)?;
        let told = "\"/systems\" on \"DEVICE\" is in a read-only subvolume, and a reset makes and renames \
                    subvolumes there; make it writable (`btrfs property set -ts PATH ro false`), or name \
                    another place";
        both_refuse(&machine, &config, told).context(strategy)?;
        set_read_only(&systems, false)?;
        plant::flag(&systems, Attribute::Immutable)?;
        let told = "\"/systems\" on \"DEVICE\" is immutable or append-only, and a reset makes and renames \
                    subvolumes there; clear the flag (`chattr -i -a`), or name another place";
        both_refuse(&machine, &config, told).context(strategy)?;
        plant::flags(&systems, Flags::default())?;
        machine.close()?;
    }
    Ok(())
}

/// A file that could be activated with swapon(8).
fn swap_file(at: &Path) -> Result<()> {
    plant::file(at, &[], Flags::of(Attribute::NoCow))?;
    plant::mode(at, 0o600)?;
    std::fs::write(at, vec![0; 1 << 20])?;
    run(Command::new("mkswap").arg("-q").arg(at)).map(drop)
}

#[test]
fn a_swap_file_is_refused_unless_it_moves_with_its_subvolume() -> Result<()> {
    skip_unless!(capability::root_and_btrfs(), Ok(()));
    let told = |path: &str| {
        format!(
            "\"{path}\" is a swap file, which cannot be activated once a generation shares its extents; \
             give it a subvolume of its own that is not reset"
        )
    };
    for strategy in STRATEGIES {
        for (declared, nested, at, refused) in [
            ("/swapfile", "", "swapfile", true),
            ("/swap", "", "swap/file", true),
            ("/swap/file", "swap", "swap/file", true),
            ("/swap", "swap", "swap/file", false),
            ("/keep", "", "swapfile", false),
            ("/keep", "keep/swap", "keep/swap/file", false),
        ] {
            let mut machine = machine(strategy)?;
            if declared != "/keep" {
                machine = machine.persist(declared, &[]);
            }
            if nested.is_empty() {
                std::fs::create_dir_all(machine.at("@").join(at).parent().unwrap())?;
            } else {
                machine.volume.make_subvolume(&format!("@/{nested}"))?;
            }
            swap_file(&machine.at("@").join(at))?;
            let context = || format!("{strategy}, {declared}, {nested}, {at}");
            if refused {
                both_refuse(&machine, &machine.config(), &told(at)).with_context(context)?;
            } else {
                both_do(&machine, &machine.config()).with_context(context)?;
            }
            machine.close()?;
        }
    }
    Ok(())
}

/// Runs something while the filesystem is mounted by nobody but us.
fn unmounted<T>(machine: &mut Machine, act: impl FnOnce(&Machine) -> Result<T>) -> Result<T> {
    machine.volume.fs.unmount()?;
    let done = act(machine);
    machine.volume.fs.mount_at("mounted", "subvolid=5")?;
    done
}

#[test]
fn what_cannot_be_written_is_not_reset() -> Result<()> {
    skip_unless!(capability::root_and_btrfs(), Ok(()));
    for strategy in STRATEGIES {
        let mut machine = machine(strategy)?;
        let (before, config) = (machine.whole()?, machine.config());
        let device = machine.volume.fs.device().to_path_buf();
        let told = format!(
            "the filesystem on {device:?} cannot be written: its device is read-only (`blockdev --setrw`), \
             or it is a seed"
        );
        let found = unmounted(&mut machine, |machine| {
            run(Command::new("blockdev").arg("--setro").arg(&device))?;
            let found = problems(machine, &config);
            let ran = machine.run(&config, &[]);
            run(Command::new("blockdev").arg("--setrw").arg(&device))?;
            assert_eq!(ran?.code, Some(10));
            found
        })?;
        assert_eq!(found, [told.as_str()]);
        let found = unmounted(&mut machine, |machine| {
            run(Command::new("btrfstune").args(["-S", "1"]).arg(&device))?;
            let found = problems(machine, &config);
            let ran = machine.run(&config, &[]);
            run(Command::new("btrfstune").args(["-f", "-S", "0"]).arg(&device))?;
            assert_eq!(ran?.code, Some(10));
            found
        })?;
        assert_eq!(found, [told.as_str()]);
        assert_eq!(machine.whole()?.differences(&before), "");
        // Where it is only mounted read-only, a reset mounts it otherwise.
        run(Command::new("mount").args(["-o", "remount,ro"]).arg(machine.volume.fs.path()))?;
        let done = both_do(&machine, &config);
        run(Command::new("mount").args(["-o", "remount,rw"]).arg(machine.volume.fs.path()))?;
        done?;
        machine.close()?;
    }
    Ok(())
}

#[test]
fn a_filesystem_that_lacks_a_device_is_not_reset_since_the_next_boot_does_not_mount_it()
-> Result<()> {
    skip_unless!(capability::root_and_btrfs(), Ok(()));
    for strategy in STRATEGIES {
        let mut machine = machine(strategy)?;
        let second = machine.beside("second");
        std::fs::File::create(&second)?.set_len(512 << 20)?;
        let attached = run(Command::new("losetup").args(["--find", "--show"]).arg(&second))?;
        let attached = attached.trim();
        let top = machine.volume.fs.path().to_path_buf();
        run(Command::new("btrfs").args(["device", "add", "-f", attached]).arg(&top))?;
        let raid1 = ["balance", "start", "-f", "-dconvert=raid1", "-mconvert=raid1"];
        run(Command::new("btrfs").args(raid1).arg(&top))?;
        machine.volume.fs.unmount()?;
        run(Command::new("losetup").args(["--detach", attached]))?;
        run(Command::new("btrfs").args(["device", "scan", "--forget"]))?;
        machine.volume.fs.mount_at("mounted", "subvolid=5,degraded")?;
        let told = "1 of the 2 devices of the filesystem on \"DEVICE\" are missing, and the next boot does \
                    not mount it without them; attach them, or replace them (`btrfs replace`, `btrfs device \
                    remove missing`)";
        both_refuse(&machine, &machine.config(), told).context(strategy)?;
        machine.close()?;
    }
    Ok(())
}
