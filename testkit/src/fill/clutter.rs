//! A root that nobody has tidied up for a year: what a NixOS machine holds, in [`LIST`].

use std::collections::BTreeMap;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result, bail, ensure};
use rustix::fs::FileType;

use crate::attributes::Attribute;
use crate::loopfs::{Noise, run};
use crate::plant;
use crate::tree::Time;

/// What is made; the format is told at its beginning.
const LIST: &str = include_str!("clutter.list");

/// A morning in November 2026; everything on the machine is older.
const NOW: i64 = 1_795_500_000;
const DAY: i64 = 86_400;
const HOUR: i64 = 3600;

/// The id of the machine, as its journal has it.
const MACHINE_ID: &str = "8f0c2a3d5b6e4f7188aa42d1c0ffee42";

/// What the owner of the machine has thought of so far: paths, and what is left out below them. The
/// rest is clutter, or will be missed.
pub const CLUTTER_KEPT: [(&str, &[&str]); 8] = [
    ("/etc/machine-id", &[]),
    ("/etc/ssh/ssh_host_ed25519_key", &[]),
    ("/etc/ssh/ssh_host_ed25519_key.pub", &[]),
    ("/home/mia/documents", &[]),
    ("/home/mia/pictures", &[]),
    ("/home/mia/projects", &["engine/target", "site/node_modules"]),
    ("/var/lib/nixos", &[]),
    ("/var/log", &[]),
];

/// The configuration of a machine with that root. `backing` is the line that says where the volume is:
/// `btrfs = { ... }`, `zfs = { ... }` or `dir = { ... }`.
#[must_use]
pub fn clutter_config(backing: &str) -> String {
    let persist = CLUTTER_KEPT.map(|(path, excluded)| {
        let exclude = match excluded {
            [] => String::new(),
            _ => format!("exclude = {excluded:?}\n"),
        };
        format!("\n[[persist]]\npath = \"{path}\"\n{exclude}")
    });
    format!("[[volume]]\nmount_point = \"/\"\n{backing}\n{}", persist.concat())
}

/// One line of the list.
#[derive(Debug)]
struct Line<'l> {
    kind: char,
    count: u32,
    owner: (u32, u32),
    mode: u32,
    days: i64,
    size: usize,
    path: &'l str,
    target: &'l str,
}

/// A cluttered root, in an existing directory that is empty, or that holds what a reset has left or
/// an earlier call made: then it is as if the machine had been used on. The seed decides about
/// content and about random names. Two calls with the same seed make the same tree.
pub fn clutter(dir: &Path, seed: u64) -> Result<()> {
    let mut filling = Filling {
        dir,
        noise: Noise(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1),
        directories: BTreeMap::new(),
        subvolumes: rustix::fs::statfs(dir)?.f_type == BTRFS,
    };
    for (number, text) in LIST.lines().enumerate() {
        if text.is_empty() || text.starts_with('#') {
            continue;
        }
        let line = parse(text).with_context(|| format!("clutter.list:{}: {text}", number + 1))?;
        for copy in 1..=line.count {
            filling.make(&line, copy)?;
        }
    }
    filling.date_directories()
}

/// `BTRFS_SUPER_MAGIC` of linux/magic.h.
const BTRFS: i64 = 0x9123_683e;

fn parse(text: &str) -> Result<Line<'_>> {
    let mut fields = text.split_whitespace();
    let mut field = |name| fields.next().with_context(|| format!("no {name}"));
    let (kind, count) = match field("kind")?.split_once('*') {
        Some((kind, count)) => (kind, count.parse()?),
        None => (text.get(..1).unwrap_or_default(), 1),
    };
    let kind = kind.parse()?;
    let owner = owner(field("owner")?)?;
    let mode = u32::from_str_radix(field("mode")?, 8)?;
    let days = field("days")?.parse()?;
    let size = size(field("size")?)?;
    let path = field("path")?;
    let target = match (fields.next(), fields.next()) {
        (Some("->"), Some(target)) => target,
        (None, None) => "",
        _ => bail!("more than a path"),
    };
    ensure!(fields.next().is_none(), "more than a target");
    Ok(Line { kind, count, owner, mode, days, size, path, target })
}

/// Ids as NixOS gives them out.
fn owner(text: &str) -> Result<(u32, u32)> {
    Ok(match text {
        "root" => (0, 0),
        "mia" => (1000, 100),
        "tom" => (1001, 100),
        "nginx" => (60, 60),
        "postgres" => (71, 71),
        "gdm" => (132, 132),
        "grafana" => (196, 196),
        "jellyfin" => (994, 994),
        "acme" => (999, 60),
        _ => {
            let (owner, group) = text.split_once(':').context("nobody by that name")?;
            (owner.parse()?, group.parse()?)
        }
    })
}

fn size(text: &str) -> Result<usize> {
    let (digits, unit) = match text.strip_suffix('k') {
        Some(digits) => (digits, 1 << 10),
        None => text.strip_suffix('m').map_or((text, 1), |digits| (digits, 1 << 20)),
    };
    Ok(digits.parse::<usize>()? * unit)
}

struct Filling<'d> {
    dir: &'d Path,
    noise: Noise,
    /// Those that were made, and how old each is; what comes into them later would make them young.
    directories: BTreeMap<PathBuf, i64>,
    subvolumes: bool,
}

impl Filling<'_> {
    fn make(&mut self, line: &Line<'_>, copy: u32) -> Result<()> {
        let path = self.spell(line.path, copy);
        let at = self.dir.join(&path);
        // Of several, each is a little younger than the one before.
        let seconds = line.days * DAY * i64::from(line.count - copy + 1) / i64::from(line.count);
        let time = NOW - seconds - self.below(HOUR);
        self.one(line, copy, &at, time).with_context(|| format!("cannot make {}", at.display()))
    }

    fn one(&mut self, line: &Line<'_>, copy: u32, at: &Path, time: i64) -> Result<()> {
        let parent = at.parent().context("no directory above it")?.to_owned();
        self.directories_to(&parent, line, time)?;
        let there = std::fs::symlink_metadata(at).is_ok();
        match line.kind {
            'f' => {
                let bytes = self.content(line.size);
                std::fs::write(at, bytes)?;
            }
            'l' => {
                let target = self.spell(line.target, copy);
                if there {
                    std::fs::remove_file(at)?;
                }
                symlink(target, at)?;
            }
            's' | 'p' if !there => {
                let kind = if line.kind == 's' { FileType::Socket } else { FileType::Fifo };
                plant::node(at, kind, 0, 0)?;
            }
            'v' if !there && self.subvolumes => {
                run(Command::new("btrfs").args(["-q", "subvolume", "create"]).arg(at))?;
            }
            // An immutable one takes no attribute again.
            'i' if there => return Ok(()),
            'd' | 'i' | 'v' if !there => std::fs::create_dir(at)?,
            'd' | 's' | 'p' | 'v' => {}
            _ => bail!("{:?} is no kind of entry", line.kind),
        }
        plant::owner(at, line.owner.0, line.owner.1)?;
        if line.kind != 'l' {
            plant::mode(at, line.mode)?;
        }
        if matches!(line.kind, 'd' | 'v') {
            self.directories.insert(at.to_owned(), time);
        } else {
            date(at, time)?;
        }
        if line.kind == 'i' {
            plant::flag(at, Attribute::Immutable)?;
        }
        Ok(())
    }

    /// Makes the directories on the way, which belong to whoever owns what is in them.
    fn directories_to(&mut self, parent: &Path, line: &Line<'_>, time: i64) -> Result<()> {
        let missing = parent.ancestors().take_while(|above| !above.exists());
        let missing: Vec<PathBuf> = missing.map(Path::to_owned).collect();
        for above in missing.into_iter().rev() {
            std::fs::create_dir(&above)?;
            plant::owner(&above, line.owner.0, line.owner.1)?;
            let secret = line.mode.trailing_zeros() >= 6 && line.owner.0 != 0;
            plant::mode(&above, if secret { 0o700 } else { 0o755 })?;
            self.directories.insert(above, time);
        }
        // One that was there gets a name more, and would be of today.
        if !self.directories.contains_key(parent) {
            self.directories.insert(parent.to_owned(), time);
        }
        Ok(())
    }

    fn date_directories(self) -> Result<()> {
        for (path, time) in self.directories.into_iter().rev() {
            date(&path, time)?;
        }
        Ok(())
    }

    /// Lines of a log, so that it looks like something and compresses a little, and noise below.
    fn content(&mut self, size: usize) -> Vec<u8> {
        let words = ["started", "stopped", "said something", "has changed", "is fine"];
        let mut bytes = Vec::with_capacity(size + 64);
        while bytes.len() < size.min(512) {
            let word = words[usize::try_from(self.below(5)).unwrap_or(0)];
            bytes.extend(
                format!("{} {:08x} {word}\n", self.below(DAY), self.noise.next() >> 32).bytes(),
            );
        }
        while bytes.len() < size {
            bytes.extend(self.noise.next().to_le_bytes());
        }
        bytes.truncate(size);
        bytes
    }

    /// Fills in what stands in braces.
    fn spell(&mut self, pattern: &str, copy: u32) -> String {
        let mut text = String::new();
        let mut rest = pattern;
        while let Some((before, after)) = rest.split_once('{') {
            let Some((word, after)) = after.split_once('}') else { break };
            text.push_str(before);
            match word {
                "n" => text.push_str(&copy.to_string()),
                "x" => text += &self.digits(8),
                "X" => text += &self.digits(40),
                "nix" => {
                    let letter = |number: i64| {
                        let letters = b"0123456789abcdfghijklmnpqrsvwxyz";
                        char::from(letters[usize::try_from(number).unwrap_or(0)])
                    };
                    text.extend((0..32).map(|_| letter(self.below(32))));
                }
                "id" => text.push_str(MACHINE_ID),
                _ => unreachable!("BUG: {{{word}}} in {pattern}"),
            }
            rest = after;
        }
        text + rest
    }

    /// Hexadecimal ones.
    fn digits(&mut self, count: u32) -> String {
        let digit = |number: i64| char::from_digit(u32::try_from(number).unwrap_or(0), 16);
        (0..count).filter_map(|_| digit(self.below(16))).collect()
    }

    fn below(&mut self, limit: i64) -> i64 {
        i64::try_from(self.noise.next() % limit.unsigned_abs()).unwrap_or(0)
    }
}

fn date(path: &Path, seconds: i64) -> Result<()> {
    let time = Time { seconds, nanoseconds: 0 };
    plant::times(path, time, time).with_context(|| format!("the time of {}", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_line_of_the_list_is_understood_and_no_path_is_made_twice() -> Result<()> {
        let mut paths = std::collections::BTreeSet::new();
        let mut entries = 0;
        for text in LIST.lines().filter(|text| !text.is_empty() && !text.starts_with('#')) {
            let line = parse(text).with_context(|| text.to_owned())?;
            assert!(line.count == 1 || line.path.contains('{'), "all copies are one: {text}");
            assert!(!line.path.starts_with('/'), "{text}");
            assert_eq!(line.kind == 'l', !line.target.is_empty(), "{text}");
            assert!(paths.insert(line.path), "twice: {text}");
            entries += line.count;
        }
        assert!(entries > 4000, "{entries}");
        Ok(())
    }
}
