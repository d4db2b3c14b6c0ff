//! What `diff` says that the next reset would erase, on real btrfs: beside the next reset itself, and
//! the fast way beside the walk of everything.

use std::cell::RefCell;
use std::collections::BTreeSet;
use std::path::Path;

use crate::common::changes::{Noise, clear, shuffle};
use crate::common::{is_own_process, made_up};
use anyhow::{Result, ensure};
use darlings::act::check::Check;
use darlings::ask::diff::{self, Change, DiffEntry, Done};
use darlings::cmdline::{Asked, CommandLine};
use darlings::config::{Config, Strategy};
use darlings::engine::report::Ending;
use darlings::generations::Access;
use darlings::tree::Difference;
use darlings::volume::Options;
use darlings_testkit::attributes::Attribute;
use darlings_testkit::generate::{self, Case};
use darlings_testkit::loopfs::{Filesystem, LoopFs};
use darlings_testkit::model::Rule;
use darlings_testkit::{Compare, Flags, RelPath, Tree, capability, capture, skip_unless};
use proptest::prelude::any;
use proptest::test_runner::TestCaseError;

/// Cases of a run that nobody told how many; `DARLINGS_CASES` does.
const CASES: u32 = 60;

/// One difference, without what cannot be seen in two trees.
type Line = (RelPath, Change, BTreeSet<Difference>);

fn config(fs: &LoopFs, strategy: Strategy, without_blank: bool, rules: &[Rule]) -> Result<Config> {
    let rules = made_up::configurable(rules);
    made_up::config("/mnt/volume", fs.device(), strategy, without_blank, &rules)
}

fn reset(config: &Config) -> Result<bool> {
    let options = Options { dry_run: false, threads: 2, asked: Asked::Reset, root_subvolid: None };
    let check = Check::of(config, &CommandLine::parse(b""), "");
    let ended = darlings::engine::reset::reset(config, options);
    ensure!(check.ready == (ended.report.outcome == Ending::Reset), "{check}\n{:?}", ended.error);
    match ended.report.outcome {
        Ending::Reset => Ok(true),
        Ending::Failed => Ok(false),
        outcome => anyhow::bail!("{outcome:?}: {:?}", ended.error),
    }
}

fn rel(path: &Path) -> Result<RelPath> {
    use std::os::unix::ffi::OsStrExt as _;
    RelPath::normalise(path.as_os_str().as_bytes()).map_err(|why| anyhow::anyhow!("{why}"))
}

/// What `diff` says, sorted.
fn told(config: &Config, full: bool) -> Result<(Vec<Line>, Done)> {
    let volume = &config.volumes[0];
    let mut store = darlings::volume::store(volume, Access::ReadOnly)?;
    let mut lines = Vec::new();
    let options = diff::DiffOptions { full, ..diff::DiffOptions::default() };
    let done = diff::next_reset(store.as_mut(), volume, options, &mut |entry: &DiffEntry<'_>| {
        lines.push((rel(entry.path)?, entry.change, entry.aspects.iter().copied().collect()));
        Ok(())
    });
    store.close()?;
    lines.sort();
    Ok((lines, done?))
}

/// The same from two trees: before the next reset, and after it.
fn seen(before: &Tree, after: &Tree) -> Vec<Line> {
    let mut lines: std::collections::BTreeMap<RelPath, (Change, BTreeSet<Difference>)> =
        std::collections::BTreeMap::new();
    for difference in before.diff_with(after, &Compare::default()) {
        let aspect = match difference.attribute {
            Attribute::Existence => {
                let gone = after.get(&difference.path).is_none();
                let change = if gone { Change::New } else { Change::Removed };
                lines.insert(difference.path, (change, BTreeSet::new()));
                continue;
            }
            Attribute::ModificationTime
            | Attribute::AccessTime
            | Attribute::HardLinks
            | Attribute::Holes
            | Attribute::Project => continue,
            Attribute::Type => Difference::Kind,
            Attribute::Bytes => Difference::Content,
            Attribute::SymlinkTarget => Difference::Target,
            Attribute::DeviceNumber => Difference::Device,
            Attribute::Owner | Attribute::Group => Difference::Owner,
            Attribute::Mode => Difference::Mode,
            attribute if !Flags::of(attribute).is_empty() => Difference::Flags,
            _ => Difference::Attributes,
        };
        let entry = lines.entry(difference.path).or_insert((Change::Changed, BTreeSet::new()));
        entry.1.insert(aspect);
    }
    lines
        .into_iter()
        .map(|(path, (change, mut aspects))| {
            if aspects.contains(&Difference::Kind) {
                aspects = BTreeSet::from([Difference::Kind]);
            }
            (path, change, aspects)
        })
        .collect()
}

/// Whether two reports of differences are the same, and if not, what each has alone.
fn ensure_same(what: &str, one: &[Line], other: &[Line]) -> Result<()> {
    let (one, other): (BTreeSet<_>, BTreeSet<_>) = (one.iter().collect(), other.iter().collect());
    let only: Vec<_> = one.difference(&other).collect();
    let lacks: Vec<_> = other.difference(&one).collect();
    ensure!(
        only.is_empty() && lacks.is_empty(),
        "{what}: only the first {only:?}, only the second {lacks:?}"
    );
    Ok(())
}

/// What becomes of a live tree that looks as if a reset had made it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Replaced {
    /// It is the one.
    Not,
    /// It is, but the tool's own files were written anew from a copy.
    OwnCopiedBack,
    /// It was copied, with all attributes.
    Copied,
    /// It was sent, and received in its place.
    Received,
    /// A snapshot took its place.
    Snapshot,
}

impl Replaced {
    const ALL: [Self; 5] =
        [Self::Not, Self::OwnCopiedBack, Self::Copied, Self::Received, Self::Snapshot];

    /// Does it to `@`.
    fn act(self, fs: &LoopFs) -> Result<()> {
        let at = |name: &str| fs.path().join(name);
        let script = match self {
            Self::Not => return Ok(()),
            // Everything that was changed before is older than what lies there now.
            Self::OwnCopiedBack => {
                "mkdir copy; mv @/.darlings/{manifest,generation} copy; sync -f .; \
                 cp copy/* @/.darlings/; rm -r copy"
            }
            Self::Copied => {
                "btrfs -q subvolume create new; cp -a --reflink=auto @/. new/; mv @ @old; mv new @"
            }
            Self::Received => {
                "mkdir in; btrfs -q subvolume snapshot -r @ send; btrfs -q send send | btrfs -q receive \
                 in; mv @ @old; btrfs -q property set -f -ts in/send ro false; mv in/send @; \
                 btrfs -q subvolume delete send; rmdir in"
            }
            Self::Snapshot => "mv @ @old; btrfs -q subvolume snapshot @old @",
        };
        let mut shell = std::process::Command::new("bash");
        let script = format!("set -euo pipefail; chattr -ia @; {script}; sync -f .");
        shell.current_dir(at("")).args(["-c", &script]);
        darlings_testkit::loopfs::run(&mut shell).map(drop)
    }
}

/// What became of the cases.
#[derive(Debug, Default)]
struct Tally {
    compared: u32,
    refused: u32,
    fast: u32,
    differences: usize,
    replaced: BTreeSet<String>,
    looked_at_fast: u64,
    looked_at_full: u64,
}

fn check(fs: &LoopFs, strategy: Strategy, case: &Case, seed: u64, tally: &mut Tally) -> Result<()> {
    let top = std::fs::File::open(fs.path())?;
    for (name, tree) in [("@", &case.previous), ("@blank", &case.blank)] {
        darlings_btrfs::create_subvolume(&top, name.as_ref())?;
        generate::plant(&fs.path().join(name), tree)?;
    }
    let live = fs.path().join("@");
    let before = config(fs, strategy, case.without_blank, &case.rules)?;
    if !reset(&before)? {
        tally.refused += 1;
        return Ok(());
    }
    let mut noise = Noise(seed);
    shuffle(&live, &mut noise, 12)?;
    let replaced = Replaced::ALL[noise.below(Replaced::ALL.len())];
    replaced.act(fs).map_err(|why| why.context(format!("{replaced:?}")))?;
    // Sometimes the configuration changes too.
    let mut rules = case.rules.clone();
    if noise.below(3) == 0 {
        rules.retain(|_| noise.below(2) == 0);
    }
    if noise.below(4) == 0 && !case.without_blank {
        shuffle(&fs.path().join("@blank"), &mut noise, 3)?;
    }
    let now = config(fs, strategy, case.without_blank, &rules)?;
    let Ok((full, looked_full)) = told(&now, true) else {
        ensure!(!reset(&now)?, "a reset is possible where diff is not");
        tally.refused += 1;
        return Ok(());
    };
    let (fast, looked) = told(&now, false)?;
    let lists = |config: &Config| config.volumes[0].rules.lists();
    let known = matches!(replaced, Replaced::Not | Replaced::OwnCopiedBack)
        && !case.without_blank
        && lists(&before) == lists(&now);
    ensure!(!looked_full.fast && looked.fast == known, "{replaced:?}: {looked:?}");
    ensure_same(&format!("{replaced:?}: fast and full"), &fast, &full)?;
    let seen_before = capture(&live)?;
    if !reset(&now)? {
        tally.refused += 1;
        return Ok(());
    }
    ensure_same("told and done", &full, &seen(&seen_before, &capture(&live)?))?;
    tally.compared += 1;
    tally.replaced.insert(format!("{replaced:?}"));
    tally.fast += u32::from(looked.fast);
    tally.differences += full.len();
    tally.looked_at_fast += looked.entries;
    tally.looked_at_full += looked_full.entries;
    Ok(())
}

#[test]
fn what_is_told_is_what_the_next_reset_does_and_the_fast_way_tells_the_same() -> Result<()> {
    skip_unless!(capability::root_and_btrfs(), Ok(()));
    if !is_own_process(
        "diff::what_is_told_is_what_the_next_reset_does_and_the_fast_way_tells_the_same",
    )? {
        return Ok(());
    }
    darlings::fs::process::prepare()?;
    let mut runner = generate::runner(CASES)?;
    let cases = runner.config().cases;
    let fs = LoopFs::new(Filesystem::Btrfs)?;
    let tally = RefCell::new(Tally::default());
    let outcome = runner.run(&(generate::case(), any::<u64>()), |(case, seed)| {
        for strategy in [Strategy::Rollback, Strategy::Carry] {
            let checked = check(&fs, strategy, &case, seed, &mut tally.borrow_mut());
            let cleared = clear(&fs);
            checked
                .and(cleared)
                .map_err(|why| TestCaseError::fail(format!("{strategy:?}: {why:#}")))?;
        }
        Ok(())
    });
    eprintln!("{cases} cases: {:?}", tally.borrow());
    outcome.map_err(|why| anyhow::anyhow!("{why}"))?;
    fs.close()?;
    let tally = tally.into_inner();
    let dull = tally.compared == 0
        || tally.fast == 0
        || tally.differences == 0
        || tally.replaced.len() < Replaced::ALL.len();
    assert!(cases < CASES || !dull, "{tally:?}");
    Ok(())
}
