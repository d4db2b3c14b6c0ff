//! What users can plant in what they own, or do to it while a reset runs: nothing outside the volume
//! is read or written, nothing hangs, nothing is lost, whatever the strategy.

use std::ffi::OsString;
use std::os::fd::{AsFd as _, OwnedFd};
use std::os::unix::ffi::OsStringExt as _;
use std::os::unix::fs::{MetadataExt as _, symlink};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};

use crate::common::{Machine, Ran, put};
use anyhow::{Context as _, Result, ensure};
use darlings_testkit::{Attribute, capability, fill, plant, skip_unless};
use rustix::fs::{CWD, FileType, RenameFlags, inotify, renameat_with};

const STRATEGIES: [&str; 2] = ["rollback", "carry"];

/// A tree outside of the volume that has something at the end of every path that a link could lead
/// to, and tells of every access.
struct Canary {
    path: PathBuf,
    watch: OwnedFd,
}

impl Canary {
    fn new(machine: &Machine) -> Result<Self> {
        let path = machine.beside("canary");
        let inside = [
            "mia/cache/deep/kept",
            "cache/deep/kept",
            "deep/kept",
            "kept",
            "spool/mia/box",
            "mia/box",
            "box",
        ];
        for inside in inside {
            put(&path, &format!("{inside}/file"), "of somebody else")?;
        }
        let watch = inotify::init(inotify::CreateFlags::NONBLOCK | inotify::CreateFlags::CLOEXEC)?;
        let mut directories = vec![path.clone()];
        while let Some(directory) = directories.pop() {
            inotify::add_watch(&watch, &directory, inotify::WatchFlags::ALL_EVENTS)?;
            for entry in std::fs::read_dir(&directory)? {
                let entry = entry?;
                if entry.file_type()?.is_dir() {
                    directories.push(entry.path());
                }
            }
        }
        let canary = Self { path, watch };
        // What planting the watches did themselves.
        canary.was_touched()?;
        Ok(canary)
    }

    /// Whether anything of it was opened, read, or changed since the last time.
    fn was_touched(&self) -> Result<bool> {
        let mut buffer = vec![0; 1 << 16];
        let mut touched = false;
        loop {
            match rustix::io::read(&self.watch, &mut buffer[..]) {
                Ok(_) => touched = true,
                Err(rustix::io::Errno::AGAIN) => return Ok(touched),
                Err(error) => return Err(error.into()),
            }
        }
    }

    /// That it would have told.
    fn close(self) -> Result<()> {
        ensure!(!self.was_touched()?, "something outside of the volume was touched");
        std::fs::read_to_string(self.path.join("kept/file"))?;
        ensure!(self.was_touched()?, "the canary is dead");
        Ok(())
    }
}

/// Runs `darlings WORD`, and kills it when it takes too long.
fn run(machine: &Machine, word: &str, seconds: u32) -> Result<Ran> {
    run_with(machine, word, seconds, Machine::ran)
}

fn run_with(
    machine: &Machine,
    word: &str,
    seconds: u32,
    ran: impl Fn(&Machine, &mut Command) -> Result<Ran>,
) -> Result<Ran> {
    let mut command = Command::new("timeout");
    command.args(["--signal=KILL", &seconds.to_string(), env!("CARGO_BIN_EXE_darlings"), word]);
    let config = machine.config_keeping("generations = 1");
    let arguments = machine.arguments(config)?;
    command.args(if word == "reset" { &arguments[..] } else { &arguments[..2] });
    let ran = ran(machine, command.env_remove("JOURNAL_STREAM"))?;
    ensure!(ran.code.is_some_and(|code| code != 137), "{word} hangs: {}", ran.stderr);
    Ok(ran)
}

fn run_well(machine: &Machine, word: &str, seconds: u32) -> Result<Ran> {
    let ran = run(machine, word, seconds)?;
    ensure!(ran.code == Some(0), "{word}: {:?} {}", ran.code, ran.stderr);
    Ok(ran)
}

fn machine(strategy: &str) -> Result<Machine> {
    let machine = Machine::new(
        |blank| put(blank, "etc/os-release", "of the blank"),
        |live| put(live, "keep/file", "kept"),
    )?;
    let mut machine = machine
        .persist("/keep", &[])
        .persist("/home/mia", &["cache"])
        .persist("/home/mia/cache/deep/kept", &[])
        .persist("/var/spool/mia/box", &[]);
    strategy.clone_into(&mut machine.strategy);
    Ok(machine)
}

fn remove(path: &Path) -> Result<()> {
    match std::fs::symlink_metadata(path) {
        Err(why) if why.kind() == std::io::ErrorKind::NotFound => Ok(()),
        Ok(found) if found.is_dir() => Ok(std::fs::remove_dir_all(path)?),
        _ => Ok(std::fs::remove_file(path)?),
    }
}

#[test]
fn links_at_every_level_of_a_kept_path_lead_nowhere() -> Result<()> {
    skip_unless!(capability::root_and_btrfs(), Ok(()));
    for strategy in STRATEGIES {
        let machine = machine(strategy)?;
        let canary = Canary::new(&machine)?;
        let outside = canary.path.display();
        let up = "../".repeat(12);
        let targets = [
            format!("{outside}"),
            format!("{up}{outside}"),
            format!("/proc/self/root{outside}"),
            "/proc/self/fd/3".to_owned(),
            "/dev/zero".to_owned(),
            ".".to_owned(),
        ];
        let levels = [
            "home",
            "home/mia",
            "home/mia/cache",
            "home/mia/cache/deep",
            "home/mia/cache/deep/kept",
            "home/mia/other",
            "var",
            "var/spool/mia",
            "var/spool/mia/box",
        ];
        for (level, target) in levels.iter().flat_map(|it| targets.iter().map(move |to| (it, to))) {
            let live = machine.volume.live();
            remove(&live.join("home"))?;
            remove(&live.join("var"))?;
            put(&live, "home/mia/cache/deep/kept/file", "kept")?;
            put(&live, "home/mia/cache/erased", "erased")?;
            put(&live, "var/spool/mia/box/file", "kept")?;
            put(&live, "erased", "erased")?;
            remove(&live.join(level))?;
            symlink(target, live.join(level))?;
            let context = || format!("{strategy}: {level} -> {target}");
            run_well(&machine, "reset", 60).with_context(context)?;
            ensure!(!canary.was_touched()?, "{}: something outside was touched", context());
            let live = machine.volume.live();
            ensure!(!live.join("erased").exists(), "{}: it was not reset", context());
            ensure!(std::fs::read_to_string(live.join("keep/file"))? == "kept", "{}", context());
            // What the link itself is not on the way to is kept.
            for kept in ["home/mia/cache/deep/kept", "var/spool/mia/box"] {
                if !kept.starts_with(level) {
                    let text = std::fs::read_to_string(live.join(kept).join("file"));
                    ensure!(text.is_ok_and(|text| text == "kept"), "{}: {kept} is lost", context());
                }
            }
        }
        run_well(&machine, "purge", 60)?;
        canary.close()?;
        machine.close()?;
    }
    Ok(())
}

#[test]
fn a_directory_that_is_swapped_for_a_link_while_a_reset_runs_leads_nowhere() -> Result<()> {
    skip_unless!(capability::root_and_btrfs(), Ok(()));
    for strategy in STRATEGIES {
        let machine = machine(strategy)?;
        let canary = Canary::new(&machine)?;
        let plant_it = || -> Result<()> {
            // Beside it, and then into its place: nobody swaps it while it is planted.
            let home = machine.volume.live().join("home");
            if home.join("mia").exists() {
                std::fs::rename(home.join("mia"), home.join("old"))?;
                remove(&home.join("old"))?;
            }
            for number in 0..40 {
                put(&home, &format!("new/dir/{number}/file"), "kept")?;
                put(&home, &format!("new/cache/deep/kept/{number}"), "kept")?;
            }
            symlink(&canary.path, home.join("new/link"))?;
            symlink(&canary.path, home.join("new/other"))?;
            Ok(std::fs::rename(home.join("new"), home.join("mia"))?)
        };
        let (stop, swaps) = (AtomicBool::new(false), std::sync::atomic::AtomicUsize::new(0));
        let mia = machine.volume.live().join("home/mia");
        let racer = || {
            while !stop.load(Ordering::Relaxed) {
                for (one, two) in [("dir", "link"), ("cache", "other")] {
                    let swapped = renameat_with(
                        CWD,
                        mia.join(one),
                        CWD,
                        mia.join(two),
                        RenameFlags::EXCHANGE,
                    );
                    // Between two resets there is nothing to be swapped.
                    swaps.fetch_add(usize::from(swapped.is_ok()), Ordering::Relaxed);
                }
            }
        };
        std::thread::scope(|scope| -> Result<()> {
            scope.spawn(racer);
            let race = || -> Result<()> {
                let mut hit = 0;
                for round in 0..12 {
                    plant_it()?;
                    let before = swaps.load(Ordering::Relaxed);
                    // Unforetold, because things change between the check and the reset.
                    let ran = run_with(&machine, "reset", 60, Machine::ran_unforetold)?;
                    // Whatever is swapped before and after it is no race.
                    let during = swaps.load(Ordering::Relaxed) - before;
                    hit += usize::from(during > 0);
                    // It may say that something changed under its hands, and change nothing.
                    ensure!(matches!(ran.code, Some(0 | 10)), "{:?}: {}", ran.code, ran.stderr);
                    ensure!(!canary.was_touched()?, "{strategy}, {round}: {}", ran.stderr);
                }
                eprintln!("{strategy}: something was swapped during {hit} of 12 resets");
                ensure!(hit > 6, "something was swapped during {hit} of 12 resets only");
                Ok(())
            };
            let result = race();
            stop.store(true, Ordering::Relaxed);
            result
        })?;
        let swaps = swaps.into_inner();
        ensure!(swaps > 100, "only {swaps} swaps");
        plant_it()?;
        run_well(&machine, "reset", 60)?;
        let live = machine.volume.live();
        assert_eq!(std::fs::read_dir(live.join("home/mia/dir"))?.count(), 40);
        assert_eq!(std::fs::read_dir(live.join("home/mia/cache/deep/kept"))?.count(), 40);
        assert_eq!(std::fs::read_to_string(live.join("keep/file"))?, "kept");
        run_well(&machine, "purge", 60)?;
        canary.close()?;
        machine.close()?;
    }
    Ok(())
}

/// So many names of 255 bytes, with every byte that a name can have.
fn long_names() -> Vec<OsString> {
    let bytes: Vec<u8> = (1..=255).filter(|byte| *byte != b'/').collect();
    let name = |from: usize| bytes.iter().cycle().skip(from).take(255).copied().collect();
    (0..40).map(|number| OsString::from_vec(name(number * 7))).collect()
}

/// The largest value of an extended attribute that the filesystem takes.
fn largest_xattr(path: &Path, name: &str) -> Result<usize> {
    let (mut fits, mut does_not) = (1, 65_537);
    while does_not - fits > 1 {
        let middle = usize::midpoint(fits, does_not);
        if plant::xattr(path, name, &vec![b'x'; middle]).is_ok() {
            fits = middle;
        } else {
            does_not = middle;
        }
    }
    plant::xattr(path, name, &vec![b'x'; fits])?;
    Ok(fits)
}

const TERABYTES: u64 = 4 << 40;

/// Everything that is hard to bring over or to remove.
fn hostile(at: &Path, secret: &Path, many: usize) -> Result<usize> {
    std::fs::create_dir_all(at.join("names"))?;
    std::fs::create_dir_all(at.join("many"))?;
    for name in long_names() {
        std::fs::write(at.join("names").join(name), "named")?;
    }
    for number in 0..many {
        std::fs::File::create(at.join("many").join(number.to_string()))?;
    }
    std::fs::hard_link(secret, at.join("secret"))?;
    put(at, "setuid", "of root")?;
    plant::mode(&at.join("setuid"), 0o6755)?;
    plant::node(&at.join("fifo"), FileType::Fifo, 0, 0)?;
    plant::node(&at.join("zero"), FileType::CharacterDevice, 1, 5)?;
    plant::sparse_file(&at.join("sparse"), TERABYTES, &[(TERABYTES - 3, b"end")])?;
    put(at, "xattr", "")?;
    let name = format!("user.{}", "n".repeat(250));
    let largest = largest_xattr(&at.join("xattr"), &name)?;
    put(at, "locked/immutable", "kept")?;
    put(at, "locked/append-only", "kept")?;
    plant::flag(&at.join("locked/immutable"), Attribute::Immutable)?;
    plant::flag(&at.join("locked/append-only"), Attribute::AppendOnly)?;
    plant::flag(&at.join("locked"), Attribute::Immutable)?;
    std::fs::create_dir(at.join("deep"))?;
    fill::deep(&at.join("deep"), 10_000, "d")?;
    Ok(largest)
}

fn check_hostile(at: &Path, many: usize, largest: usize) -> Result<()> {
    let mut names: Vec<_> = std::fs::read_dir(at.join("names"))?
        .map(|it| Ok(it?.file_name()))
        .collect::<Result<_>>()?;
    let mut expected = long_names();
    names.sort();
    expected.sort();
    assert_eq!(names, expected);
    assert_eq!(std::fs::read_dir(at.join("many"))?.count(), many);
    let secret = std::fs::metadata(at.join("secret"))?;
    assert_eq!((secret.uid(), secret.mode() & 0o7777), (2000, 0o600));
    assert_eq!(std::fs::read_to_string(at.join("secret"))?, "secret");
    assert_eq!(std::fs::metadata(at.join("setuid"))?.mode() & 0o7777, 0o6755);
    let kind = |name: &str| -> Result<FileType> {
        Ok(FileType::from_raw_mode(std::fs::symlink_metadata(at.join(name))?.mode()))
    };
    assert_eq!(kind("fifo")?, FileType::Fifo);
    assert_eq!(std::fs::metadata(at.join("zero"))?.rdev(), rustix::fs::makedev(1, 5));
    let sparse = std::fs::metadata(at.join("sparse"))?;
    assert_eq!(sparse.len(), TERABYTES);
    assert!(sparse.blocks() < 1000, "{} blocks", sparse.blocks());
    let mut end = [0; 4];
    let sparse = std::fs::File::open(at.join("sparse"))?;
    std::os::unix::fs::FileExt::read_exact_at(&sparse, &mut end, TERABYTES - 4)?;
    assert_eq!(&end, b"\0end");
    let mut value = vec![0; largest + 1];
    let name = format!("user.{}", "n".repeat(250));
    assert_eq!(rustix::fs::getxattr(at.join("xattr"), name.as_str(), &mut value[..])?, largest);
    assert!(value[..largest].iter().all(|byte| *byte == b'x'), "another value");
    for name in ["locked/immutable", "locked/append-only"] {
        assert_eq!(std::fs::read_to_string(at.join(name))?, "kept", "{name}");
    }
    for (name, attribute) in [
        ("locked", Attribute::Immutable),
        ("locked/immutable", Attribute::Immutable),
        ("locked/append-only", Attribute::AppendOnly),
    ] {
        let file = std::fs::File::open(at.join(name))?;
        let flags = darlings_testkit::Flags::read(file.as_fd())?.context("no flags")?;
        assert!(flags.attributes().any(|it| it == attribute), "{name} is not {attribute:?}");
    }
    let mut down = std::fs::File::open(at.join("deep"))?;
    let mut levels = 0;
    while let Ok(next) = rustix::fs::openat(
        &down,
        "d",
        rustix::fs::OFlags::DIRECTORY | rustix::fs::OFlags::CLOEXEC,
        rustix::fs::Mode::empty(),
    ) {
        down = next.into();
        levels += 1;
    }
    assert_eq!(levels, 10_000);
    Ok(())
}

/// So many entries in one directory: 100,000, or what `DARLINGS_MANY` says.
fn many() -> Result<usize> {
    match std::env::var("DARLINGS_MANY") {
        Ok(number) => number.parse().context("DARLINGS_MANY is no number"),
        Err(_) => Ok(100_000),
    }
}

#[test]
fn whatever_users_can_make_is_kept_exactly_and_removed_where_it_is_not_kept() -> Result<()> {
    skip_unless!(capability::root_and_btrfs(), Ok(()));
    for strategy in STRATEGIES {
        let machine = machine(strategy)?;
        let (live, many) = (machine.volume.live(), many()?);
        put(&live, "srv/secret", "secret")?;
        plant::owner(&live.join("srv/secret"), 2000, 2000)?;
        plant::mode(&live.join("srv/secret"), 0o600)?;
        let secret = live.join("srv/secret");
        let largest = hostile(&live.join("keep/hostile"), &secret, many)?;
        hostile(&live.join("clutter/hostile"), &secret, many / 10)?;
        let seconds = 600 + u32::try_from(many / 500)?;
        let began = std::time::Instant::now();
        run_well(&machine, "reset", seconds)?;
        let reset = began.elapsed();
        let live = machine.volume.live();
        check_hostile(&live.join("keep/hostile"), many, largest).context(strategy)?;
        assert!(!live.join("clutter").exists() && !live.join("srv").exists());
        // Nothing of it stays in the end: the trash, and the generation that has it, go.
        run_well(&machine, "reset", seconds)?;
        let began = std::time::Instant::now();
        run_well(&machine, "purge", seconds)?;
        eprintln!("{strategy}: {many} entries: reset in {reset:?}, purge in {:?}", began.elapsed());
        let trash = live.join(".darlings/trash");
        assert!(!trash.exists() || std::fs::read_dir(trash)?.next().is_none());
        assert_eq!(machine.kept()?, ["2"]);
        check_hostile(&machine.volume.live().join("keep/hostile"), many, largest)
            .context(strategy)?;
        machine.close()?;
    }
    Ok(())
}
