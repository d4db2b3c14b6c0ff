//! Entries for a person, as lines, as a tree or in groups; and for a program, as JSON. Each view takes
//! entries as they come and holds no more of them than it must.

use std::io::Write;
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};

use anyhow::Context as _;
use serde::Serialize;

use super::entry::in_running_system;
use super::entry::{Change, DiffEntry, DiffKind, Fate, Managed};
use super::group::{Groups, Line};
use super::totals::Amount;
use super::totals::{Totals, counted};
use super::words::{Owners, is_person};
use crate::names::shown;
use crate::paint::Paint;
use crate::text::bytes_in_words;
use crate::tree::Difference;

/// How many lines of what would vanish or be reverted are shown in groups.
const LINES: usize = 10;

/// How many of what goes to the attic, and of what comes back.
const FEWER: usize = 3;

/// What all views of one volume need.
#[derive(Debug)]
pub struct Style<'a> {
    /// Where the volume is mounted.
    pub mount_point: &'a Path,
    /// Names of users.
    pub owners: &'a Owners,
    /// Colours.
    pub paint: Paint,
    /// Whether two generations are compared, and no reset is foretold.
    pub generations: bool,
    /// Whether what the system manages itself is shown too.
    pub all: bool,
}

impl Style<'_> {
    fn path(&self, path: &Path) -> String {
        shown(&in_running_system(self.mount_point, path))
    }

    fn mark(&self, entry: &DiffEntry<'_>) -> String {
        let (new, removed) = if self.generations { ("+", "-") } else { ("-", "+") };
        match (entry.fate, entry.change) {
            (Fate::Attic, _) => self.paint.head("a"),
            (_, Change::New) => self.paint.bad(new),
            (_, Change::Changed) => self.paint.careful("~"),
            (_, Change::Removed) => self.paint.good(removed),
        }
    }

    fn shows(&self, entry: &DiffEntry<'_>) -> bool {
        if entry.managed.is_some() {
            return self.all;
        }
        // A directory that is not changed itself is told by what is in it.
        self.all || !entry.kind.holds_entries() || entry.change == Change::Changed
    }
}

/// A way to show entries.
pub trait View {
    /// One more entry.
    fn see(&mut self, entry: &DiffEntry<'_>) -> anyhow::Result<()>;

    /// That was all.
    fn finish(&mut self, totals: &Totals) -> anyhow::Result<()>;
}

const PRINTING: &str = "cannot print what differs";

/// Why and how, behind the path.
fn note(entry: &DiffEntry<'_>) -> String {
    let aspects = entry.aspects.iter().map(|aspect| aspect.word());
    let words: Vec<&str> = aspects.chain(entry.managed.map(Managed::word)).collect();
    if words.is_empty() { String::new() } else { format!("  ({})", words.join(", ")) }
}

/// A line for each entry.
pub struct Flat<'a> {
    style: &'a Style<'a>,
    out: &'a mut dyn Write,
}

impl<'a> Flat<'a> {
    /// Prints to `out`.
    pub fn new(style: &'a Style<'a>, out: &'a mut dyn Write) -> Self {
        Self { style, out }
    }
}

impl View for Flat<'_> {
    fn see(&mut self, entry: &DiffEntry<'_>) -> anyhow::Result<()> {
        if !self.style.shows(entry) {
            return Ok(());
        }
        let (mark, path) = (self.style.mark(entry), self.style.path(entry.path));
        let slash = if entry.kind.holds_entries() && !path.ends_with('/') { "/" } else { "" };
        let (bytes, owner) = (bytes_in_words(entry.bytes), self.style.owners.name(entry.uid));
        writeln!(self.out, "{mark} {bytes:>10}  {owner:<8}  {path}{slash}{}", note(entry))
            .context(PRINTING)
    }

    fn finish(&mut self, totals: &Totals) -> anyhow::Result<()> {
        writeln!(self.out, "{}", summary(self.style, totals)).context(PRINTING)
    }
}

/// Entries below their directories. What is in a directory that is new as a whole is summed up.
pub struct Tree<'a> {
    style: &'a Style<'a>,
    out: &'a mut dyn Write,
    /// Below which new directories are summed up.
    only: &'a Path,
    /// The directory whose line was printed last, or that of the entry that was.
    printed: PathBuf,
    summed: Option<(PathBuf, String, Amount)>,
}

impl<'a> Tree<'a> {
    /// Prints to `out`. New directories below `only` are summed up.
    pub fn new(style: &'a Style<'a>, out: &'a mut dyn Write, only: &'a Path) -> Self {
        Self { style, out, only, printed: PathBuf::new(), summed: None }
    }

    fn indent(path: &Path) -> String {
        "  ".repeat(path.iter().count())
    }

    fn line(&mut self, path: &Path, mark: &str, text: &str) -> anyhow::Result<()> {
        let above = path.parent().unwrap_or(Path::new(""));
        let mut directories: Vec<&Path> = above.ancestors().collect();
        directories.reverse();
        for directory in directories {
            if directory.as_os_str().is_empty() || self.printed.starts_with(directory) {
                continue;
            }
            let name = shown(Path::new(directory.file_name().unwrap_or_default()));
            writeln!(self.out, "  {}{name}/", Self::indent(directory)).context(PRINTING)?;
        }
        path.clone_into(&mut self.printed);
        let name = match path.file_name() {
            Some(name) => shown(Path::new(name)),
            None => shown(self.style.mount_point),
        };
        writeln!(self.out, "{mark} {}{name}{text}", Self::indent(path)).context(PRINTING)
    }

    fn close_summed(&mut self) -> anyhow::Result<()> {
        let Some((path, mark, amount)) = self.summed.take() else { return Ok(()) };
        if amount.files == 0 {
            return Ok(());
        }
        let files = counted(amount.files, "file", "files");
        self.line(&path, &mark, &format!("/  {files}, {}", bytes_in_words(amount.bytes)))
    }
}

impl View for Tree<'_> {
    fn see(&mut self, entry: &DiffEntry<'_>) -> anyhow::Result<()> {
        if let Some((path, _, amount)) = &mut self.summed {
            if entry.path.starts_with(&*path) {
                if entry.managed.is_none() {
                    amount.add(entry);
                }
                return Ok(());
            }
            self.close_summed()?;
        }
        let whole = entry.kind.holds_entries() && entry.change != Change::Changed;
        let below = entry.path.starts_with(self.only) && entry.path != self.only;
        if whole && below && !self.style.all {
            self.summed = Some((entry.path.to_owned(), self.style.mark(entry), Amount::default()));
            return Ok(());
        }
        if !self.style.shows(entry) {
            return Ok(());
        }
        let mark = self.style.mark(entry);
        let size = match entry.kind {
            DiffKind::Directory | DiffKind::Subvolume => "/".to_owned(),
            _ => format!("  {}", bytes_in_words(entry.bytes)),
        };
        self.line(entry.path, &mark, &format!("{size}{}", note(entry)))
    }

    fn finish(&mut self, totals: &Totals) -> anyhow::Result<()> {
        self.close_summed()?;
        writeln!(self.out, "{}", summary(self.style, totals)).context(PRINTING)
    }
}

/// The lines that matter.
pub struct Grouped<'a> {
    style: &'a Style<'a>,
    out: &'a mut dyn Write,
    users: Groups,
    system: Groups,
    attic: Groups,
    removed: Groups,
}

impl<'a> Grouped<'a> {
    /// Prints to `out`, when everything was seen.
    pub fn new(style: &'a Style<'a>, out: &'a mut dyn Write) -> Self {
        let groups = Groups::default;
        let (users, system, attic, removed) = (groups(), groups(), groups(), groups());
        Self { style, out, users, system, attic, removed }
    }

    fn section(&mut self, head: &str, lines: &[Line]) -> anyhow::Result<()> {
        if lines.is_empty() {
            return Ok(());
        }
        let head = self.style.paint.head(head);
        writeln!(self.out, "  {head}").context(PRINTING)?;
        let rows: Vec<[String; 3]> = lines.iter().map(|line| self.columns(line)).collect();
        let width = |of: usize| rows.iter().map(|row| row[of].chars().count()).max().unwrap_or(0);
        let (bytes, counts, owners) = (width(0), width(1), width(2));
        for (line, [size, count, owner]) in lines.iter().zip(&rows) {
            let path = self.style.path(&line.path);
            let more = if line.is_rest && line.tally.files > 0 { "  (the rest of it)" } else { "" };
            let all = line.tally.files + line.tally.directories;
            let changed = match line.tally.changed {
                0 => String::new(),
                changed if changed == all => "  (changed)".to_owned(),
                changed => format!("  ({changed} of them changed)"),
            };
            writeln!(
                self.out,
                "    {size:>bytes$}  {count:>counts$}  {owner:<owners$}  {path}{more}{changed}"
            )
            .context(PRINTING)?;
        }
        Ok(())
    }

    /// Size, number and owner.
    fn columns(&self, line: &Line) -> [String; 3] {
        let tally = &line.tally;
        let count = match (tally.files, tally.directories) {
            (0, directories) => counted(directories, "directory", "directories"),
            (files, _) => counted(files, "file", "files"),
        };
        let owner = match tally.owner {
            Some(_) if tally.owners => "several".to_owned(),
            Some(owner) => self.style.owners.name(owner),
            None => "-".to_owned(),
        };
        [bytes_in_words(tally.bytes), count, owner]
    }
}

impl View for Grouped<'_> {
    fn see(&mut self, entry: &DiffEntry<'_>) -> anyhow::Result<()> {
        if entry.managed.is_some() && !self.style.all {
            return Ok(());
        }
        let group = match (entry.fate, entry.change) {
            (Fate::Attic, _) => &mut self.attic,
            (_, Change::Removed) => &mut self.removed,
            _ if is_person(entry.uid) => &mut self.users,
            _ => &mut self.system,
        };
        group.add(entry);
        Ok(())
    }

    fn finish(&mut self, totals: &Totals) -> anyhow::Result<()> {
        for group in [&mut self.users, &mut self.system, &mut self.attic, &mut self.removed] {
            group.finish();
        }
        writeln!(self.out, "{}", summary(self.style, totals)).context(PRINTING)?;
        let of_system = self.system.lines(LINES / 2);
        let of_users = self.users.lines(LINES - of_system.len());
        let of_system = self.system.lines(LINES - of_users.len());
        let gone = if self.style.generations { "Gone" } else { "Comes back" };
        let (attic, removed) = (self.attic.lines(FEWER), self.removed.lines(FEWER));
        self.section("Files of users", &of_users)?;
        self.section("Files of the system", &of_system)?;
        self.section("Goes to the attic, because it is no longer persisted", &attic)?;
        self.section(gone, &removed)
    }
}

/// How much there is, in a line or two.
fn summary(style: &Style<'_>, totals: &Totals) -> String {
    let new = match totals.new {
        Amount { files: 0, directories: 0, .. } => None,
        Amount { files: 0, directories, .. } => {
            Some(counted(directories, "directory", "directories"))
        }
        Amount { files, bytes, .. } => {
            Some(format!("{} ({})", counted(files, "file", "files"), bytes_in_words(bytes)))
        }
    };
    let some = |amount: &Amount| {
        let entries = amount.files + amount.directories;
        (entries > 0).then(|| entries.to_string())
    };
    let (changed, removed) = (some(&totals.changed), some(&totals.removed));
    let with = |before: &str, words: Option<String>, after: &str| {
        words.map(|words| format!("{before}{words}{after}"))
    };
    let words = if style.generations {
        [with("", new, " new"), with("", changed, " changed"), with("", removed, " gone"), None]
    } else {
        [
            with("erases ", new, ""),
            with("reverts ", changed, ""),
            with("brings back ", removed, ""),
            with("puts ", some(&totals.attic), " in the attic"),
        ]
    };
    let words: Vec<String> = words.into_iter().flatten().collect();
    let what = match (style.generations, words.is_empty()) {
        (true, true) => "nothing differs".to_owned(),
        (true, false) => words.join(", "),
        (false, true) => "the next reset erases nothing".to_owned(),
        (false, false) => format!("the next reset {}", words.join(", ")),
    };
    let mut text = format!("{}: {what}", shown(style.mount_point));
    let managed = totals.managed.in_words();
    if !managed.is_empty() && !style.all {
        text.push_str("\n  left out, since the system makes them again (--all shows them): ");
        text.push_str(&managed);
    }
    text
}

/// One volume's entries as JSON: see `docs/json.md`.
pub struct Json<'a> {
    style: &'a Style<'a>,
    out: &'a mut dyn Write,
    any: bool,
}

#[derive(Serialize)]
struct JsonEntry<'a> {
    path: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    path_bytes: Option<&'a [u8]>,
    change: Change,
    #[serde(skip_serializing_if = "Option::is_none")]
    fate: Option<Fate>,
    kind: DiffKind,
    #[serde(skip_serializing_if = "<[_]>::is_empty")]
    aspects: &'a [Difference],
    bytes: u64,
    uid: u32,
    gid: u32,
    owner: String,
    mode: String,
    modified: i64,
    #[serde(skip_serializing_if = "Option::is_none")]
    managed: Option<Managed>,
}

impl<'a> Json<'a> {
    /// Writes to `out`, within an array of entries.
    pub fn new(style: &'a Style<'a>, out: &'a mut dyn Write) -> Self {
        Self { style, out, any: false }
    }
}

impl View for Json<'_> {
    fn see(&mut self, entry: &DiffEntry<'_>) -> anyhow::Result<()> {
        if entry.managed.is_some() && !self.style.all {
            return Ok(());
        }
        let path = in_running_system(self.style.mount_point, entry.path);
        let json = JsonEntry {
            path: path.to_string_lossy().into_owned(),
            path_bytes: path.to_str().is_none().then(|| path.as_os_str().as_bytes()),
            change: entry.change,
            fate: (!self.style.generations).then_some(entry.fate),
            kind: entry.kind,
            aspects: entry.aspects,
            bytes: entry.bytes,
            uid: entry.uid,
            gid: entry.gid,
            owner: self.style.owners.name(entry.uid),
            mode: format!("{:04o}", entry.mode),
            modified: entry.modified,
            managed: entry.managed,
        };
        let text = serde_json::to_string(&json).context("BUG: the entry is not JSON")?;
        let before = if self.any { ",\n" } else { "\n" };
        self.any = true;
        write!(self.out, "{before}    {text}").context(PRINTING)
    }

    fn finish(&mut self, _: &Totals) -> anyhow::Result<()> {
        Ok(())
    }
}
