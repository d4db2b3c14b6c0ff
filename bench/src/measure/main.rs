//! `measure`: this project beside what people use instead, on the same trees, in one run, on btrfs in a
//! loop device. Adds lines to a file of results; `script/bench` calls it.
//!
//! What takes part in a reset starts with a filesystem that is not mounted and with cold caches, and is
//! timed from the call until everything is durable. Contestants take turns, so that what else the
//! machine does meets all of them.

mod contest;
mod life;
mod machine;
mod paths;
mod resets;
mod size;
mod space;
mod stage;
mod watch;

use std::path::PathBuf;
use std::time::{Duration, Instant};

use anyhow::Result;
use clap::{Parser, ValueEnum};
use darlings_testkit::capability;

/// Measures darlings beside other tools, on btrfs, as root.
#[derive(Debug, Parser)]
#[command(version)]
struct Arguments {
    /// How much is measured
    #[arg(long, value_enum, default_value = "full")]
    how: How,
    /// The binary of darlings
    #[arg(long, value_name = "FILE")]
    darlings: PathBuf,
    /// Where lines are added; its directory is where the filesystems' images lie
    #[arg(long, value_name = "FILE")]
    results: PathBuf,
    /// Where the images lie
    #[arg(long, value_name = "DIR")]
    scratch: PathBuf,
    /// The words by which the run was asked for
    #[arg(long, default_value = "measure")]
    asked: String,
    /// Leave out what would not be done within so many seconds
    #[arg(long, value_name = "SECONDS")]
    limit: Option<u64>,
    /// Only these parts; all by default
    #[arg(long = "only", value_enum)]
    parts: Vec<Part>,
}

/// How much is measured.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum How {
    /// Hours.
    Full,
    /// Minutes.
    Quick,
    /// Seconds, for a test: the figures say nothing.
    Tiny,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Part {
    Files,
    Big,
    Declared,
    Space,
    Life,
    Size,
}

/// What is measured and how often.
struct Settings {
    darlings: PathBuf,
    results: PathBuf,
    scratch: PathBuf,
    rounds: usize,
    /// How long one contestant may take for all rounds of a row. What would take longer, by what it took
    /// in the row before, is left out.
    patience: Duration,
    /// When all must be done.
    end: Option<Instant>,
    /// Numbers of small files.
    files: &'static [u64],
    /// Of the purge, which takes what was erased away: no more than this many.
    purged: u64,
    /// GB of big files.
    big: &'static [u64],
    /// What may be copied in full at most, in GB.
    copied: u64,
    /// Numbers of declared paths.
    declared: &'static [u64],
    /// Files of the comparison of space.
    space: u64,
    /// The level of zstd.
    compression: u32,
    life: life::Amounts,
}

impl Settings {
    fn new(arguments: &Arguments) -> Self {
        let (darlings, results) = (arguments.darlings.clone(), arguments.results.clone());
        let scratch = arguments.scratch.clone();
        let end = arguments.limit.map(|seconds| Instant::now() + Duration::from_secs(seconds));
        match arguments.how {
            How::Full => Self {
                darlings,
                results,
                scratch,
                rounds: 5,
                end,
                patience: Duration::from_secs(1800),
                files: &[1000, 10_000, 100_000, 1_000_000],
                purged: 1_000_000,
                big: &[1, 10, 100],
                copied: 10,
                declared: &[1, 10, 100, 1000],
                space: 100_000,
                compression: 19,
                life: life::Amounts {
                    random_mib: 64,
                    sequential_mib: 1024,
                    renames: 100_000,
                    replacements: 1000,
                },
            },
            How::Quick => Self {
                darlings,
                results,
                scratch,
                rounds: 5,
                end,
                patience: Duration::from_secs(60),
                files: &[1000, 10_000, 100_000, 1_000_000],
                purged: 10_000,
                big: &[1, 10, 100],
                copied: 1,
                declared: &[1, 10, 100, 1000],
                space: 2000,
                compression: 19,
                life: life::Amounts {
                    random_mib: 4,
                    sequential_mib: 128,
                    renames: 10_000,
                    replacements: 100,
                },
            },
            How::Tiny => Self {
                darlings,
                results,
                scratch,
                rounds: 1,
                end,
                patience: Duration::from_secs(60),
                files: &[20, 40],
                purged: 40,
                big: &[1, 2],
                copied: 0,
                declared: &[1, 2],
                space: 20,
                compression: 1,
                life: life::Amounts {
                    random_mib: 1,
                    sequential_mib: 1,
                    renames: 20,
                    replacements: 2,
                },
            },
        }
    }
}

impl Settings {
    /// The rounds, none of which begins once the run was to end.
    fn rounds(&self) -> impl Iterator<Item = usize> {
        (0..self.rounds).take_while(|_| !self.lacks(f64::MIN_POSITIVE))
    }

    /// Whether so many seconds more would be too many.
    fn lacks(&self, seconds: f64) -> bool {
        self.end.is_some_and(|end| {
            end.saturating_duration_since(Instant::now()).as_secs_f64() < seconds
        })
    }
}

fn main() -> Result<()> {
    let arguments = Arguments::parse();
    capability::root_and_btrfs()
        .map_err(|why| anyhow::anyhow!("nothing can be measured: {why}"))?;
    let settings = Settings::new(&arguments);
    machine::describe(&settings, &arguments.asked)?.append(&settings.results)?;
    let wanted = |part| arguments.parts.is_empty() || arguments.parts.contains(&part);
    if wanted(Part::Size) {
        size::measure(&settings)?;
    }
    if wanted(Part::Life) {
        life::measure(&settings)?;
    }
    if wanted(Part::Declared) {
        paths::measure(&settings)?;
    }
    if wanted(Part::Big) {
        resets::big(&settings)?;
    }
    if wanted(Part::Space) {
        space::measure(&settings)?;
    }
    if wanted(Part::Files) {
        resets::files(&settings)?;
    }
    Ok(())
}
