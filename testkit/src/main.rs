//! `testkit`: what the test library does, as a command, for use inside virtual machines.

use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context as _, Result};
use clap::{Args, Parser, Subcommand, ValueEnum};
use darlings_testkit::{
    Attribute, Compare, RelPath, Tree, capture, difference, fill, model, remove,
};
use serde::de::DeserializeOwned;

#[derive(Parser)]
#[command(
    version,
    about = "Fills trees, writes them down, compares them, computes what a reset must leave"
)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Write down every entry and attribute below a directory
    Capture {
        dir: PathBuf,
        /// JSON for `diff` and `expected`, instead of a line for each entry
        #[arg(long)]
        json: bool,
        /// Write to a file instead of stdout
        #[arg(long)]
        output: Option<PathBuf>,
    },
    /// Compare two captured trees; exit status 1 when they differ
    Diff {
        left: PathBuf,
        right: PathBuf,
        #[command(flatten)]
        compare: CompareArgs,
    },
    /// Make a tree in an existing directory
    Fill {
        what: What,
        dir: PathBuf,
        /// The number of files for `many`, the seed for `believable` and `clutter`
        number: Option<u64>,
        /// `everything` without immutable and append-only entries
        #[arg(long)]
        unlocked: bool,
    },
    /// Print the configuration that goes with the cluttered root
    ClutterConfig {
        /// The line that says where the volume is, as in `dir = { path = "/x", blank = "empty" }`
        backing: String,
    },
    /// Compute what a reset must leave; prints the tree as JSON, and on stderr what is left behind
    Expected {
        blank: PathBuf,
        previous: PathBuf,
        /// A JSON list of `{"path": "/var/log", "exclude": ["old"]}`
        rules: PathBuf,
    },
    /// Make an SVG of what a terminal shows, from standard input to standard output
    Picture,
    /// Remove a directory with all in it, immutable entries included
    Remove { dir: PathBuf },
}

#[derive(Args)]
struct CompareArgs {
    /// Leave out access times
    #[arg(long)]
    ignore_atime: bool,
    /// Leave out a path and what is below it (`.darlings` always is)
    #[arg(long)]
    ignore: Vec<String>,
}

#[derive(Clone, Copy, ValueEnum)]
enum What {
    /// Every kind of entry and attribute; prints what the filesystem refused
    Everything,
    /// A believable small machine
    Believable,
    /// The blank that goes with it
    Blank,
    /// What a NixOS machine holds after a year; its blank is empty
    Clutter,
    /// Very many small files
    Many,
}

fn main() -> ExitCode {
    match run(Cli::parse().command) {
        Ok(code) => code,
        Err(why) => {
            eprintln!("testkit: {why:#}");
            ExitCode::from(2)
        }
    }
}

fn run(command: Command) -> Result<ExitCode> {
    match command {
        Command::Capture { dir, json, output } => {
            let tree = capture(&dir)?;
            let text =
                if json { serde_json::to_string_pretty(&tree)? + "\n" } else { listing(&tree)? };
            match output {
                Some(path) => {
                    std::fs::write(&path, text)
                        .with_context(|| format!("cannot write {}", path.display()))?;
                }
                None => std::io::stdout().write_all(text.as_bytes())?,
            }
        }
        Command::Diff { left, right, compare } => {
            let (left, right): (Tree, Tree) = (read(&left)?, read(&right)?);
            let found = left.diff_with(&right, &compare.compare()?);
            std::io::stdout().write_all(difference::lines(&found).as_bytes())?;
            return Ok(if found.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE });
        }
        Command::Fill { what, dir, number, unlocked } => make(what, &dir, number, unlocked)?,
        Command::ClutterConfig { backing } => print!("{}", fill::clutter_config(&backing)),
        Command::Expected { blank, previous, rules } => {
            let rules: Vec<model::Rule> = read(&rules)?;
            let expected = model::expected(&read(&blank)?, &read(&previous)?, &rules)?;
            for path in &expected.left_behind {
                eprintln!("left behind: {path}");
            }
            println!("{}", serde_json::to_string_pretty(&expected.tree)?);
        }
        Command::Picture => {
            let shown = std::io::read_to_string(std::io::stdin())?;
            // 100 columns, so that pictures of one page are equally wide.
            let picture = anstyle_svg::Term::new().min_width_px(840).render_svg(&shown);
            std::io::stdout().write_all(picture.as_bytes())?;
        }
        Command::Remove { dir } => remove::all(&dir)?,
    }
    Ok(ExitCode::SUCCESS)
}

fn make(what: What, dir: &Path, number: Option<u64>, unlocked: bool) -> Result<()> {
    match what {
        What::Everything => {
            let wanted = fill::Wanted { locked: !unlocked, ..fill::Wanted::default() };
            for refusal in fill::everything_but(dir, &wanted)? {
                println!("refused: {refusal}");
            }
            Ok(())
        }
        What::Believable => fill::believable_root(dir, number.unwrap_or(1)),
        What::Clutter => fill::clutter(dir, number.unwrap_or(1)),
        What::Blank => fill::believable_blank(dir),
        What::Many => fill::many_small(dir, usize::try_from(number.unwrap_or(100_000))?),
    }
}

impl CompareArgs {
    fn compare(self) -> Result<Compare> {
        let mut compare = Compare::default();
        if self.ignore_atime {
            compare = compare.without(Attribute::AccessTime);
        }
        for path in self.ignore {
            compare = compare.leaving_out(RelPath::normalise(path).map_err(anyhow::Error::msg)?);
        }
        Ok(compare)
    }
}

fn read<T: DeserializeOwned>(path: &Path) -> Result<T> {
    let text = std::fs::read(path).with_context(|| format!("cannot read {}", path.display()))?;
    serde_json::from_slice(&text)
        .with_context(|| format!("{} is not what was expected", path.display()))
}

fn listing(tree: &Tree) -> Result<String> {
    let line = |(path, entry)| Ok(format!("{path}: {}\n", serde_json::to_string(entry)?));
    tree.entries.iter().map(line).collect()
}
