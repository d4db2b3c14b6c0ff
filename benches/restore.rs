//! A whole reset beside `cp --reflink=always -a` and `rsync -aAXH` of the same persisted set, each
//! from the call to durable, on one loop-mounted btrfs in one run.
//!
//! ```text
//! cargo bench --bench restore                      the figures of docs/benchmarks.md
//! cargo bench --bench restore -- --files 10000 --large-mib 50 --rounds 1
//! ```
//!
//! Every measurement starts from a filesystem that was just mounted, with cold caches. The tools
//! take turns, so that what else the machine does meets all of them. Times are medians.

#![allow(clippy::expect_used, reason = "a benchmark that cannot go on stops")]

use std::path::Path;
use std::process::Command;
use std::time::Instant;

use anyhow::{Context as _, Result, ensure};
use darlings_testkit::fill::many_small;
use darlings_testkit::loopfs::{BtrfsVolume, Filesystem, LoopFs, Options, run};
use darlings_testkit::{capability, skip_unless};

/// What is measured and how often.
struct Settings {
    files: usize,
    large_files: usize,
    large_mib: u64,
    rounds: usize,
    threads: Vec<String>,
}

impl Settings {
    fn from_arguments() -> Result<Self> {
        let mut settings = Self {
            files: 100_000,
            large_files: 20,
            large_mib: 500,
            rounds: 3,
            threads: Vec::new(),
        };
        let mut arguments = std::env::args().skip(1).filter(|argument| argument != "--bench");
        while let Some(name) = arguments.next() {
            let value = arguments.next().with_context(|| format!("{name} wants a value"))?;
            match name.as_str() {
                "--files" => settings.files = value.parse()?,
                "--large-files" => settings.large_files = value.parse()?,
                "--large-mib" => settings.large_mib = value.parse()?,
                "--rounds" => settings.rounds = value.parse()?,
                "--threads" => settings.threads.push(value),
                _ => anyhow::bail!("unknown argument {name}"),
            }
        }
        Ok(settings)
    }
}

/// One contestant and its seconds, a round each.
struct Measured {
    name: String,
    seconds: Vec<f64>,
    peak_memory: Option<u64>,
}

impl Measured {
    fn new(name: impl Into<String>) -> Self {
        Self { name: name.into(), seconds: Vec::new(), peak_memory: None }
    }

    fn median(&self) -> f64 {
        let mut sorted = self.seconds.clone();
        sorted.sort_by(f64::total_cmp);
        sorted[sorted.len() / 2]
    }
}

fn main() -> Result<()> {
    skip_unless!(capability::root_and_btrfs(), Ok(()));
    let settings = Settings::from_arguments()?;
    println!("{}", machine()?);
    let small = measure(&settings, &format!("{} small files", settings.files), |root| {
        many_small(&root.join("var/lib"), settings.files)
    })?;
    let large = format!("{} files of {} MiB", settings.large_files, settings.large_mib);
    let large = measure(&settings, &large, |root| {
        large_files(root, settings.large_files, settings.large_mib << 20)
    })?;
    let tenth = format!("{} files of {} MiB", settings.large_files, settings.large_mib / 10);
    let tenth = measure(&settings, &tenth, |root| {
        large_files(root, settings.large_files, (settings.large_mib << 20) / 10)
    })?;
    println!(
        "big files: ten times the size takes {:.2} times as long",
        large[0].median() / tenth[0].median()
    );
    drop(small);
    Ok(())
}

fn machine() -> Result<String> {
    let kernel = std::fs::read_to_string("/proc/sys/kernel/osrelease")?;
    let load = std::fs::read_to_string("/proc/loadavg")?;
    Ok(format!(
        "Linux {}, {} processors, load {} at the start; {}; {}",
        kernel.trim(),
        std::thread::available_parallelism()?,
        load.split(' ').next().unwrap_or("?"),
        first_line("cp", "--version")?,
        first_line("rsync", "--version")?,
    ))
}

fn first_line(program: &str, argument: &str) -> Result<String> {
    let text = run(Command::new(program).arg(argument))?;
    Ok(text.lines().next().unwrap_or_default().to_owned())
}

fn large_files(root: &Path, count: usize, bytes: u64) -> Result<()> {
    use std::io::Write as _;
    let directory = root.join("var/lib");
    std::fs::create_dir_all(&directory)?;
    // Data that does not compress and is not all the same.
    let mut block = vec![0; 1 << 20];
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    for eight in block.chunks_exact_mut(8) {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        eight.copy_from_slice(&state.to_le_bytes());
    }
    for number in 0..count {
        let mut file = std::fs::File::create(directory.join(format!("large-{number}")))?;
        let mut left = bytes;
        while left > 0 {
            let piece = left.min(block.len() as u64);
            file.write_all(&block[..usize::try_from(piece)?])?;
            left -= piece;
        }
    }
    Ok(())
}

/// Measures all contestants on a filesystem filled by `fill`, and prints a table.
fn measure(
    settings: &Settings,
    what: &str,
    fill: impl FnOnce(&Path) -> Result<()>,
) -> Result<Vec<Measured>> {
    eprintln!("filling: {what}");
    let options = Options::new(Filesystem::Btrfs).size(40 << 30).mount("noatime");
    let mut volume =
        BtrfsVolume::with(options, |root| Ok(std::fs::create_dir(root.join("var"))?), fill)?;
    let config = volume.fs.holder().join("darlings.toml");
    std::fs::write(
        &config,
        format!(
            "[[volume]]\nmount_point = \"/\"\nbtrfs = {{ device = {:?}, subvolume = \"@\", blank = \
             \"@blank\" }}\n[[persist]]\npath = \"/var/lib\"\n",
            volume.fs.device()
        ),
    )?;
    let mut ours = vec![Measured::new("darlings reset")];
    ours.extend(
        settings
            .threads
            .iter()
            .map(|threads| Measured::new(format!("darlings, {threads} threads"))),
    );
    let mut cp = Measured::new("cp --reflink=always -a, syncfs");
    let mut rsync = Measured::new("rsync -aAXH, syncfs");
    for round in 0..settings.rounds {
        eprintln!("{what}: round {} of {}", round + 1, settings.rounds);
        for (index, measured) in ours.iter_mut().enumerate() {
            let threads = index.checked_sub(1).map(|index| settings.threads[index].as_str());
            reset(&mut volume.fs, &config, threads, measured)?;
        }
        copy(&mut volume, &mut cp, &["cp", "--reflink=always", "-a", "SOURCE", "TARGET"])?;
        copy(&mut volume, &mut rsync, &["rsync", "-aAXH", "SOURCE/", "TARGET/"])?;
    }
    volume.close()?;
    ours.push(cp);
    ours.push(rsync);
    print(what, &ours);
    Ok(ours)
}

/// From the call to durable, as a unit in the initrd would have it: the filesystem is not mounted.
fn reset(
    fs: &mut LoopFs,
    config: &Path,
    threads: Option<&str>,
    measured: &mut Measured,
) -> Result<()> {
    fs.unmount()?;
    drop_caches()?;
    let report = fs.holder().join("report.json");
    let mut command = Command::new(env!("CARGO_BIN_EXE_darlings"));
    command.args(["reset", "--config"]).arg(config).arg("--report").arg(&report);
    if let Some(threads) = threads {
        command.args(["--threads", threads]);
    }
    let start = Instant::now();
    run(&mut command)?;
    measured.seconds.push(start.elapsed().as_secs_f64());
    let report: serde_json::Value = serde_json::from_str(&std::fs::read_to_string(&report)?)?;
    ensure!(report["outcome"] == "reset", "the reset did not end well: {report}");
    measured.peak_memory = report["peak_memory_bytes"].as_u64();
    fs.remount_fresh()
}

/// The persisted set into a new snapshot of the blank, and durable. Making the snapshot is not
/// counted for the others.
fn copy(volume: &mut BtrfsVolume, measured: &mut Measured, words: &[&str]) -> Result<()> {
    volume.fs.remount_fresh()?;
    drop_caches()?;
    let target = volume.snapshot("@blank", "copy", false)?;
    let (from, to) = (volume.live().join("var/lib"), target.join("var/lib"));
    let mut command = Command::new(words[0]);
    for word in &words[1..] {
        command.arg(
            word.replace("SOURCE", from.to_str().expect("UTF-8"))
                .replace("TARGET", to.to_str().expect("UTF-8")),
        );
    }
    let start = Instant::now();
    run(&mut command)?;
    run(Command::new("sync").arg("--file-system").arg(&target))?;
    measured.seconds.push(start.elapsed().as_secs_f64());
    run(Command::new("btrfs").args(["subvolume", "delete"]).arg(&target))?;
    run(Command::new("btrfs").args(["subvolume", "sync"]).arg(volume.fs.path()))?;
    Ok(())
}

fn drop_caches() -> Result<()> {
    run(&mut Command::new("sync"))?;
    std::fs::write("/proc/sys/vm/drop_caches", "3").context("cannot drop the caches")
}

fn print(what: &str, all: &[Measured]) {
    println!("\n| {what} | ratio to darlings | median s | all s | peak memory |");
    println!("|---|---|---|---|---|");
    let ours = all[0].median();
    for measured in all {
        let seconds: Vec<String> =
            measured.seconds.iter().map(|seconds| format!("{seconds:.2}")).collect();
        #[expect(clippy::cast_precision_loss, reason = "one decimal is shown")]
        let memory = measured.peak_memory.map_or("-".to_owned(), |bytes| {
            format!("{:.1} MiB", bytes as f64 / f64::from(1 << 20))
        });
        println!(
            "| {} | {:.2} | {:.2} | {} | {memory} |",
            measured.name,
            measured.median() / ours,
            measured.median(),
            seconds.join(", "),
        );
    }
}
