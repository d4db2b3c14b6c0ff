//! What `darlings check` calls not ready is what a reset refuses, in the same words and with nothing
//! changed; and what it calls ready is reset. Each situation is one that once was told apart.

use std::os::unix::fs::symlink;
use std::path::Path;
use std::process::Command;

use crate::common::{self, Machine, put};
use anyhow::{Context as _, Result, ensure};
use darlings_testkit::loopfs::{Filesystem, LoopFs, Options, run, unmount};
use darlings_testkit::{Attribute, Flags, capability, plant, skip_unless};
use rustix::fs::FallocateFlags;
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
    assert_eq!(refused(machine, config)?, told);
    assert_eq!(machine.whole()?.differences(&before), "");
    Ok(())
}

/// The one problem that the check finds, and for which the reset does not begin.
fn refused(machine: &Machine, config: &str) -> Result<String> {
    let found = problems(machine, config)?;
    let [problem] = found.as_slice() else { anyhow::bail!("{found:?}") };
    let ran = machine.run(config, &[])?;
    assert_eq!(ran.code, Some(10), "{}", ran.stderr);
    assert_eq!(
        ran.stderr,
        format!("error: no volume was reset; all are as they were: /: {problem}\n")
    );
    Ok(problem.clone())
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
        let name = ".darlings/next";
        for kind in ["directory", "file"] {
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
                .with_context(|| format!("{strategy}, {kind}"))?;
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

/// Writes small files until no more can be written there.
fn fill(directory: &Path) -> Result<()> {
    std::fs::create_dir_all(directory)?;
    for size in [64 << 10, 4 << 10, 0] {
        for number in 0.. {
            let file = directory.join(format!("{size}-{number}"));
            match std::fs::write(file, vec![7_u8; size]) {
                Ok(()) => ensure!(number < 1 << 16, "nothing limits it"),
                Err(error) => {
                    let full = [rustix::io::Errno::NOSPC, rustix::io::Errno::DQUOT];
                    let full = full.map(rustix::io::Errno::raw_os_error).map(Some);
                    ensure!(full.contains(&error.raw_os_error()), "{error}");
                    break;
                }
            }
        }
        rustix::fs::syncfs(std::fs::File::open(directory)?)?;
    }
    Ok(())
}

/// Has quotas count, and limits a group. Answers the id of the subvolume at `path`.
fn limit(machine: &Machine, group: &str, path: &str, bytes: &str) -> Result<u64> {
    let top = machine.volume.fs.path();
    run(Command::new("btrfs").args(["quota", "enable"]).arg(top))?;
    run(Command::new("btrfs").args(["quota", "rescan", "-w"]).arg(top))?;
    let id = machine.volume.subvolume_id(path)?;
    if group.starts_with('0') {
        run(Command::new("btrfs").args(["qgroup", "limit", bytes, &format!("0/{id}")]).arg(top))?;
    } else {
        run(Command::new("btrfs").args(["qgroup", "create", group]).arg(top))?;
        let assign = ["qgroup", "assign", &format!("0/{id}"), group];
        // It warns that it counts anew.
        run(Command::new("btrfs").args(assign).arg(top))?;
        run(Command::new("btrfs").args(["quota", "rescan", "-w"]).arg(top))?;
        run(Command::new("btrfs").args(["qgroup", "limit", bytes, group]).arg(top))?;
    }
    Ok(id)
}

/// The largest that a group may become.
fn limited_to(machine: &Machine, group: &str) -> Result<String> {
    let mut show = Command::new("btrfs");
    show.args(["qgroup", "show", "-r", "--raw"]).arg(machine.volume.fs.path());
    let groups = run(&mut show)?;
    let line = groups.lines().find(|line| line.split_whitespace().next() == Some(group));
    Ok(line.and_then(|line| line.split_whitespace().nth(3)).context(groups.clone())?.to_owned())
}

#[test]
fn a_quota_that_leaves_no_room_for_a_reset_is_known_before_it_begins() -> Result<()> {
    skip_unless!(capability::root_and_btrfs(), Ok(()));
    for (strategy, limited, group, nested, refused) in [
        // The stage is a snapshot of it, and inherits the limit.
        ("carry", "@", "0", false, true),
        // From there a nested subvolume is moved, with the limit lifted.
        ("rollback", "@", "0", true, false),
        ("rollback", "@", "0", false, false),
        ("carry", "@/srv", "0", true, false),
        ("rollback", "@/srv", "0", true, false),
        ("carry", "@/srv", "0", false, false),
        // What it belongs to limits it alone, and no snapshot of it.
        ("carry", "@", "1/5", true, false),
        ("carry", "@", "1/5", false, false),
        ("rollback", "@blank", "0", false, true),
        // Where the generations are made.
        ("carry", "home", "0", false, true),
        ("rollback", "home", "0", false, true),
    ] {
        let context = || format!("{strategy}, {limited}, {group}, {nested}");
        let machine = machine(strategy)?.persist("/srv/git", &[]);
        machine.volume.make_subvolume("home")?;
        machine.volume.make_subvolume("@/srv")?;
        std::fs::create_dir(machine.at("@/srv/git"))?;
        let holder = if limited == "@/srv" { "srv/git" } else { "keep" };
        if nested {
            machine.volume.make_subvolume(&format!("@/{holder}/nested"))?;
            put(&machine.volume.live(), &format!("{holder}/nested/file"), "kept")?;
        }
        let config = with_generations(&machine, "home/generations");
        let id = limit(&machine, group, limited, "2M").with_context(context)?;
        let group = if group == "0" { format!("0/{id}") } else { group.to_owned() };
        if limited == "@blank" {
            set_read_only(&machine.at("@blank"), false)?;
        }
        fill(&machine.at(limited).join("fill")).with_context(context)?;
        if limited == "@blank" {
            set_read_only(&machine.at("@blank"), true)?;
        }
        if refused {
            let problem = self::refused(&machine, &config).with_context(context)?;
            let begin = format!(
                "there is no room for a reset in the subvolume /{limited}: the quota group {group} leaves "
            );
            let end =
                " of its limit; remove files there, or raise the limit (`btrfs qgroup limit`)";
            assert!(
                problem.starts_with(&begin) && problem.ends_with(end),
                "{}: {problem}",
                context()
            );
        } else {
            both_do(&machine, &config).with_context(context)?;
            if nested {
                let file = format!("{holder}/nested/file");
                assert_eq!(machine.text(&file)?.as_deref(), Some("kept"), "{}", context());
            }
            assert_eq!(limited_to(&machine, &group)?, "2097152", "{}", context());
        }
        machine.close()?;
    }
    Ok(())
}

#[test]
fn metadata_that_is_full_while_data_is_not_is_known_before_a_reset_begins() -> Result<()> {
    skip_unless!(capability::root_and_btrfs(), Ok(()));
    for strategy in STRATEGIES {
        for (files, refused) in [(2_000, false), (20_000, true)] {
            let options = Options::new(Filesystem::Btrfs).size(300 << 20);
            let machine = machine_with(options, strategy)?;
            let many = |below: &Path| -> Result<()> {
                for number in 0..files {
                    let directory = below.join(format!("many/{}", number / 200));
                    if number % 200 == 0 {
                        std::fs::create_dir_all(&directory)?;
                    }
                    std::fs::File::create(directory.join(number.to_string()))?;
                }
                Ok(())
            };
            if strategy == "carry" {
                set_read_only(&machine.at("@blank"), false)?;
                many(&machine.at("@blank"))?;
                set_read_only(&machine.at("@blank"), true)?;
            } else {
                many(&machine.at("@/keep"))?;
            }
            // Data takes all that metadata could grow into, and then leaves room for data alone.
            let filler = std::fs::File::create(machine.at("filler"))?;
            let mut taken = 0;
            let allocate =
                |at| rustix::fs::fallocate(&filler, FallocateFlags::empty(), at, 4 << 20);
            while allocate(taken).is_ok() {
                taken += 4 << 20;
            }
            filler.set_len(taken - (16 << 20))?;
            drop(filler);
            run(Command::new("btrfs").args(["filesystem", "sync"]).arg(machine.volume.fs.path()))?;
            let config = machine.config();
            if refused {
                let found = problems(&machine, &config)?;
                let [problem] = found.as_slice() else { anyhow::bail!("{found:?}") };
                let copied = if strategy == "carry" { "the blank" } else { "what is kept" };
                let start = format!("{copied} does not fit beside what is there: it takes about 2");
                assert!(problem.starts_with(&start), "{problem}");
                assert!(problem.contains(" of metadata, and 1"), "{problem}");
                // It is an estimate, so that a reset tries.
                let ran = machine.run(&config, &[])?;
                assert_eq!(ran.code, Some(10), "{}", ran.stderr);
                assert!(ran.stderr.ends_with("No space left on device (os error 28)\n"));
                assert_eq!(machine.text("etc/erased")?.as_deref(), Some("erased"));
                assert!(!machine.at("@darlings").exists());
            } else {
                both_do(&machine, &config).with_context(|| format!("{strategy}, {files}"))?;
            }
            machine.close()?;
        }
    }
    Ok(())
}

#[test]
fn a_directory_on_an_overlay_is_reset_only_where_the_overlay_moves_directories() -> Result<()> {
    skip_unless!(capability::root_and_ext4(), Ok(()));
    let fs = LoopFs::new(Filesystem::Ext4)?;
    for (options, refused) in [("redirect_dir=off", true), ("redirect_dir=on", false)] {
        let at = |name: &str| fs.path().join(name);
        for directory in ["blank", "lower/live", "upper", "work", "merged"] {
            std::fs::create_dir_all(at(directory))?;
        }
        put(&at("lower/live"), "keep/file", "kept")?;
        put(&at("lower/live"), "erased/file", "erased")?;
        let overlay = format!(
            "lowerdir={},upperdir={},workdir={},{options}",
            at("lower").display(),
            at("upper").display(),
            at("work").display()
        );
        run(Command::new("mount")
            .args(["-t", "overlay", "none", "-o", &overlay])
            .arg(at("merged")))?;
        let live = at("merged/live");
        let path = |path: &Path| common::quoted(&path.display().to_string());
        let config = format!(
            "[[volume]]\nmount_point = \"/\"\ndir = {{ path = {}, blank = {} }}\n[[persist]]\npath = \
             \"/keep\"\n",
            path(&live),
            path(&at("blank"))
        );
        let file = fs.holder().join("darlings.toml");
        std::fs::write(&file, config)?;
        let ran = common::directory::ran(common::directory::command(&[], &["reset"], &file));
        let (kept, erased) = (live.join("keep/file").exists(), live.join("erased").exists());
        darlings_testkit::remove::contents(&at("merged/live"))?;
        unmount(&at("merged"))?;
        darlings_testkit::remove::contents(fs.path())?;
        let ran = ran?;
        assert_eq!((kept, erased), (true, refused), "{}", ran.stderr);
        assert_eq!(ran.code, Some(if refused { 10 } else { 0 }), "{}", ran.stderr);
        if refused {
            let told = format!(
                "error: no volume was reset; all are as they were: /: {live:?} is on an overlay, which \
                 cannot move directories of its lower layers: mount it with redirect_dir=on, or name the \
                 directory of its upper layer\n"
            );
            assert_eq!(ran.stderr, told);
        }
    }
    fs.close()
}
