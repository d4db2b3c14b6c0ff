//! `darlings diff` beside `rsync -naxi --delete` of the same two trees, and beside its own walk of
//! everything: many files as the blank has them, outside of what is kept, and a few that were changed.
//!
//! ```text
//! cargo bench --bench diff                  the figures of docs/benchmarks/other.md
//! cargo bench --bench diff -- --files 100000 --rounds 1 --strategy rollback
//! ```
//!
//! Every measurement starts from a filesystem that was just mounted, with cold caches. Times are medians.

mod support;

use std::path::Path;
use std::process::Command;
use std::time::Instant;

use anyhow::{Context as _, Result, ensure};
use darlings_testkit::fill::many_small;
use darlings_testkit::loopfs::{BtrfsVolume, Filesystem, Options, run};
use darlings_testkit::{capability, skip_unless};
use support::{Measured, drop_caches, machine, print};

/// What is measured and how often.
struct Settings {
    /// Files that the blank has too.
    files: usize,
    /// Of these, how many are changed; and as many are new.
    changed: usize,
    rounds: usize,
    /// How the volume was reset before.
    strategy: String,
}

impl Settings {
    fn from_arguments() -> Result<Self> {
        let strategy = "carry".to_owned();
        let mut settings = Self { files: 1_000_000, changed: 50, rounds: 3, strategy };
        let mut arguments = std::env::args().skip(1).filter(|argument| argument != "--bench");
        while let Some(name) = arguments.next() {
            let value = arguments.next().with_context(|| format!("{name} wants a value"))?;
            match name.as_str() {
                "--files" => settings.files = value.parse()?,
                "--changed" => settings.changed = value.parse()?,
                "--rounds" => settings.rounds = value.parse()?,
                "--strategy" => settings.strategy = value,
                _ => anyhow::bail!("unknown argument {name}"),
            }
        }
        Ok(settings)
    }
}

fn main() -> Result<()> {
    skip_unless!(capability::root_and_btrfs(), Ok(()));
    let settings = Settings::from_arguments()?;
    println!("{}", machine()?);
    let what = format!(
        "{} files as in the blank, {} changed and {} new, after a {}",
        settings.files, settings.changed, settings.changed, settings.strategy
    );
    eprintln!("filling: {what}");
    let options = Options::new(Filesystem::Btrfs).size(40 << 30);
    let fill = |root: &Path| {
        std::fs::create_dir(root.join("usr"))?;
        many_small(&root.join("usr"), settings.files)
    };
    let mut volume = BtrfsVolume::with(options, fill, |_| Ok(()))?;
    let config = volume.fs.holder().join("darlings.toml");
    let text = format!(
        "[[volume]]\nmount_point = \"/\"\nstrategy = {:?}\nbtrfs = {{ device = {:?}, subvolume = \
         \"@\", blank = \"@blank\" }}\n[[persist]]\npath = \"/var/lib\"\n",
        settings.strategy,
        volume.fs.device()
    );
    std::fs::write(&config, text)?;
    eprintln!("resetting");
    let mut reset = Measured::new("darlings reset");
    support::reset(&mut volume.fs, &config, &mut reset)?;
    darlings("purge", &config, &[], Some(0))?;
    change(&volume.live(), settings.changed)?;

    let mut all = [
        Measured::new("darlings diff"),
        Measured::new("rsync -naxi --delete"),
        Measured::new("darlings diff, looking at everything"),
    ];
    for round in 0..settings.rounds {
        eprintln!("round {} of {}", round + 1, settings.rounds);
        diff(&mut volume, &config, &settings, &[], &mut all[0])?;
        rsync(&mut volume, &settings, &mut all[1])?;
        diff(&mut volume, &config, &settings, &["--no-fast"], &mut all[2])?;
    }
    volume.close()?;
    print(&what, &all);
    Ok(())
}

/// One file in each of so many directories gets more content, and one comes in.
fn change(live: &Path, changed: usize) -> Result<()> {
    use std::io::Write as _;
    let mut directories = Vec::new();
    for entry in std::fs::read_dir(live.join("usr"))? {
        directories.push(entry?.path());
    }
    directories.sort();
    for number in 0..changed {
        let directory = &directories[number * directories.len() / changed];
        let first = std::fs::read_dir(directory)?.next().context("an empty directory")??.path();
        std::fs::File::options().append(true).open(first)?.write_all(b"more")?;
        std::fs::write(directory.join(format!("new {number}")), "new")?;
    }
    Ok(())
}

fn darlings(word: &str, config: &Path, arguments: &[&str], code: Option<i32>) -> Result<String> {
    let mut command = Command::new(env!("CARGO_BIN_EXE_darlings"));
    let output = command.arg(word).arg("--config").arg(config).args(arguments).output()?;
    let told = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.code() == code, "{word}: {}: {told}", output.status);
    Ok(String::from_utf8(output.stdout)?)
}

fn diff(
    volume: &mut BtrfsVolume,
    config: &Path,
    settings: &Settings,
    arguments: &[&str],
    measured: &mut Measured,
) -> Result<()> {
    volume.fs.remount_fresh()?;
    drop_caches()?;
    let start = Instant::now();
    let told = darlings("diff", config, &[arguments, &["--json"]].concat(), Some(1))?;
    measured.seconds.push(start.elapsed().as_secs_f64());
    let told: serde_json::Value = serde_json::from_str(&told)?;
    let told = &told["volumes"][0];
    measured.peak_memory = told["peak_memory_bytes"].as_u64();
    let entries = told["entries"].as_array().context("no entries")?.len();
    ensure!(entries == 2 * settings.changed, "{entries} differences: {}", told["totals"]);
    ensure!(told["fast"] == arguments.is_empty(), "fast: {}", told["fast"]);
    Ok(())
}

fn rsync(volume: &mut BtrfsVolume, settings: &Settings, measured: &mut Measured) -> Result<()> {
    volume.fs.remount_fresh()?;
    drop_caches()?;
    let (blank, live) = (volume.blank().join("usr/"), volume.live().join("usr/"));
    let start = Instant::now();
    let told = run(Command::new("rsync").args(["-naxi", "--delete"]).arg(blank).arg(live))?;
    measured.seconds.push(start.elapsed().as_secs_f64());
    // Directories in which something is new have another time, and count too.
    let files = told.lines().filter(|line| !line.starts_with(".d")).count();
    ensure!(files == 2 * settings.changed, "{files} differences");
    Ok(())
}
