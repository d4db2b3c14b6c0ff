//! What a volume remembers in `.darlings`: the number of its last reset, what was persisted then,
//! when it was, and in which boot.

use std::path::PathBuf;

use anyhow::Context as _;
use rustix::fs::StatxTimestamp;
use serde::{Deserialize, Serialize};
use tracing::warn;

use crate::own::Own;
use crate::tree::{self, Settled};

use crate::fs::Dir;
use crate::rules::{OWN_DIRECTORY, Rules};

/// The file with the number of the reset.
const GENERATION: &str = "generation";

/// The file with the [`Manifest`].
const MANIFEST: &str = "manifest";

/// What was persisted at a reset, so that the next one sees what is no longer declared.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Manifest {
    /// Format of this file.
    pub version: u32,
    /// Number of the reset that wrote it.
    pub generation: u64,
    /// Persisted paths below the volume's root.
    pub persisted: Vec<PathBuf>,
    /// Excluded paths below the volume's root.
    pub excluded: Vec<PathBuf>,
    /// The boot in which the reset ran, which is the one that this tree lives in: the kernel's
    /// `boot_id`. Manifests of the first versions lack it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub boot: Option<String>,
    /// When the reset ran, in seconds since 1970, by the clock of the initrd, which may lie.
    /// Manifests of the first versions lack it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub time: Option<u64>,
    /// The generation that this tree was restored from, if it was not a reset that made it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub restored: Option<u64>,
    /// Which system the volume belongs to, where its generations say that too: on btrfs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub system: Option<String>,
    /// Whether the tree is what it was before, and the run only kept a copy of it.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub snapshot: bool,
    /// The digest of the configuration that the run went by; see [`crate::ask::drift`]. Manifests of earlier
    /// versions lack it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub configuration: Option<String>,
}

/// Where the kernel says which boot this is (`random(4)`).
const BOOT_ID: &str = "/proc/sys/kernel/random/boot_id";

/// This boot, as the kernel names it.
pub fn boot_id() -> anyhow::Result<String> {
    let boot = std::fs::read_to_string(BOOT_ID)
        .with_context(|| format!("cannot read {BOOT_ID}, which names this boot"))?;
    Ok(boot.trim_end().to_owned())
}

impl Manifest {
    /// The manifest of a reset that runs now.
    pub fn new(generation: u64, rules: &Rules) -> anyhow::Result<Self> {
        let (persisted, excluded) = rules.lists();
        Ok(Self {
            version: VERSION,
            generation,
            persisted,
            excluded,
            boot: Some(boot_id()?),
            time: now(),
            restored: None,
            system: None,
            snapshot: false,
            configuration: rules.configuration().map(str::to_owned),
        })
    }

    /// The manifest of the tree that a restore of generation `of` makes, whose own manifest is
    /// `before`: what it says was persisted stays, so that the next reset sees what is no longer
    /// declared.
    pub fn of_restored(
        generation: u64,
        of: u64,
        before: Option<Self>,
        rules: &Rules,
    ) -> anyhow::Result<Self> {
        Ok(Self { restored: Some(of), ..Self::counted(generation, before, rules)? })
    }

    /// The manifest of a tree that stays as it is with a new number.
    fn counted(generation: u64, before: Option<Self>, rules: &Rules) -> anyhow::Result<Self> {
        let new = Self::new(generation, rules)?;
        Ok(match before {
            Some(Self { persisted, excluded, system, .. }) => {
                Self { persisted, excluded, system, ..new }
            }
            None => new,
        })
    }

    /// The restore that made the tree, if it was one.
    #[must_use]
    pub fn restore(&self) -> Option<Restore> {
        Some(Restore { of: self.restored?, boot: self.boot.clone() })
    }
}

/// The restore that made the live volume at `root`, if it was one. Where nobody can read that, it was
/// none: a damaged manifest must not keep a machine from being reset.
#[must_use]
pub fn restore_of(root: &Dir) -> Option<Restore> {
    manifest_or_warn(root)?.restore()
}

/// What the last reset of the tree at `root` wrote down, where only a time or another detail is wanted
/// of it. One that cannot be read is a warning: it must keep nothing from getting done.
pub(crate) fn manifest_or_warn(root: &Dir) -> Option<Manifest> {
    manifest(root).unwrap_or_else(|error| {
        warn!("{error:#}");
        None
    })
}

/// The restore that made a live volume.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Restore {
    /// The generation that it made the volume from.
    pub of: u64,
    /// The boot in which it ran.
    pub boot: Option<String>,
}

/// The newest format of the manifest that this version knows.
const VERSION: u32 = 1;

/// A newer version wrote it.
#[derive(Debug)]
pub struct Newer {
    what: String,
    version: u32,
    known: u32,
}

impl std::fmt::Display for Newer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { what, version, known } = self;
        write!(
            f,
            "{what} has format {version}, which a newer darlings has written, and this one knows none \
             above {known}: put the newer one into the initrd, or boot the one that has it"
        )
    }
}

impl std::error::Error for Newer {}

/// Reads something that this tool has written down in a format that has a number. One that a newer
/// version wrote is refused rather than read as far as it is understood.
///
/// # Errors
/// It is `damaged`, in those words, or newer than `known`; `what` names it.
pub fn parse<T: serde::de::DeserializeOwned>(
    text: &[u8],
    known: u32,
    what: &str,
    damaged: impl Fn() -> String,
) -> anyhow::Result<T> {
    #[derive(Deserialize)]
    struct Format {
        version: u32,
    }
    let Format { version } = serde_json::from_slice(text).with_context(&damaged)?;
    anyhow::ensure!(version <= known, Newer { what: what.to_owned(), version, known });
    serde_json::from_slice(text).with_context(damaged)
}

/// Makes `number` the number of the tree at `root`, which is live and stays as it is: the generation
/// with that number is a copy of it, and no other may get the number.
pub fn count(root: &Dir, number: u64, rules: &Rules) -> anyhow::Result<()> {
    if root.open_dir_optional(OWN_DIRECTORY)?.is_none() {
        // Making it must leave no trace in the root.
        let was = Settled::look(root).context("cannot look at the root")?;
        let made = tree::unseal(root)
            .context("cannot clear the flags of the root")
            .and_then(|_| Own::ensure(root));
        let settled = was.settle(root).context("cannot set the times and flags of the root");
        match (made, settled) {
            (Err(error), Err(left)) => return Err(error.context(format!("and then: {left:#}"))),
            (made, settled) => made.and(settled)?,
        }
    }
    let manifest = Manifest::counted(number, known_manifest(root, |_| ())?, rules)?;
    write(root, &Manifest { snapshot: true, ..manifest })
}

/// Seconds since 1970 by this machine's clock; `None` where that is before 1970.
#[must_use]
pub fn now() -> Option<u64> {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    since.map_or(None, |since| Some(since.as_secs()))
}

/// Writes both files into the own directory of the tree at `root`, durably, over those of the reset
/// before.
pub fn write(root: &Dir, manifest: &Manifest) -> anyhow::Result<()> {
    let own = Own::ensure(root)?;
    let text = serde_json::to_string_pretty(manifest).context("BUG: the manifest is not JSON")?;
    own.write_durably(MANIFEST, (text + "\n").as_bytes())?;
    own.write_durably(GENERATION, format!("{}\n", manifest.generation).as_bytes())
}

/// Puts back what [`write()`] replaced, when the reset is undone.
pub fn restore(root: &Dir, before: Option<&Manifest>) -> anyhow::Result<()> {
    if let Some(before) = before {
        return write(root, before);
    }
    let own = Own::of(root)?;
    own.remove_file(MANIFEST)?;
    own.remove_file(GENERATION).map(drop)
}

/// The number of the last reset of the tree at `root`; 0 when it was never reset, or when nothing
/// there says it any more: the next number is above all that are in use anyway.
///
/// A directory that is not root's says nothing: whoever owns the volume's root can put one there.
pub fn generation(root: &Dir) -> anyhow::Result<u64> {
    Ok(counter(root)?.unwrap_or(0))
}

/// The same; `None` where the counter and the manifest are damaged.
pub fn counter(root: &Dir) -> anyhow::Result<Option<u64>> {
    let Some(text) = read(root, GENERATION)? else { return Ok(Some(0)) };
    let text = String::from_utf8_lossy(&text);
    match text.trim().parse() {
        Ok(number) if number < u64::MAX => Ok(Some(number)),
        _ => Ok(known_manifest(root, |_| ())?.map(|manifest| manifest.generation)),
    }
}

/// [`manifest()`], where one that is damaged counts as none: that must not keep a machine from being
/// reset. It goes to `damaged`.
///
/// # Errors
/// It is there and cannot be read, or is that of a newer version.
pub fn known_manifest(
    root: &Dir,
    damaged: impl FnOnce(&anyhow::Error),
) -> anyhow::Result<Option<Manifest>> {
    match manifest(root) {
        Err(error) if error.root_cause().is::<serde_json::Error>() => {
            damaged(&error);
            Ok(None)
        }
        read => read,
    }
}

/// What the last reset of the tree at `root` wrote down; `None` when it was never reset.
///
/// # Errors
/// The file is there and cannot be read, or is no manifest.
pub fn manifest(root: &Dir) -> anyhow::Result<Option<Manifest>> {
    let Some(text) = read(root, MANIFEST)? else { return Ok(None) };
    parse_manifest(&text, &format!("{OWN_DIRECTORY}/manifest")).map(Some)
}

/// Reads a manifest that lies at `what`.
///
/// # Errors
/// It is none, or that of a newer version.
pub fn parse_manifest(text: &[u8], what: &str) -> anyhow::Result<Manifest> {
    parse(text, VERSION, what, || {
        format!("{what} is damaged: nothing is known of what was persisted at that reset")
    })
}

/// When both files in the tree at `root` were written, by the clock of the reset; `None` where there is
/// neither.
pub fn written(root: &Dir) -> anyhow::Result<Option<Moment>> {
    let Some(own) = Own::open(root)? else { return Ok(None) };
    let both = [own.status_optional(MANIFEST)?, own.status_optional(GENERATION)?];
    Ok(both.into_iter().flatten().map(|status| moment(status.stx_mtime)).min())
}

/// Seconds since 1970, and nanoseconds.
pub type Moment = (i64, u32);

/// A time of a file.
#[must_use]
pub fn moment(time: StatxTimestamp) -> Moment {
    (time.tv_sec, time.tv_nsec)
}

fn read(root: &Dir, name: &str) -> anyhow::Result<Option<Vec<u8>>> {
    Own::open(root)?.map_or(Ok(None), |own| own.read_optional(name))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]

    use super::*;

    #[test]
    fn a_manifest_of_the_first_versions_is_read_and_written_without_boot_and_time() {
        let text = r#"{"version":1,"generation":3,"persisted":["a"],"excluded":[]}"#;
        let manifest: Manifest = serde_json::from_str(text).unwrap();
        let expected = Manifest {
            version: 1,
            generation: 3,
            persisted: vec!["a".into()],
            excluded: Vec::new(),
            boot: None,
            time: None,
            restored: None,
            system: None,
            snapshot: false,
            configuration: None,
        };
        assert_eq!(manifest, expected);
        assert_eq!(serde_json::to_string(&manifest).unwrap(), text);
    }

    #[test]
    fn a_manifest_of_a_newer_version_is_refused_whatever_else_is_in_it() {
        let text = r#"{"version":2,"generation":"a word","persisted":7}"#;
        let error = parse_manifest(text.as_bytes(), ".darlings/manifest").unwrap_err();
        assert_eq!(
            format!("{error:#}"),
            ".darlings/manifest has format 2, which a newer darlings has written, and this one knows \
             none above 1: put the newer one into the initrd, or boot the one that has it"
        );
        let error = parse_manifest(br#"{"generation":1}"#, "it").unwrap_err();
        assert_eq!(
            format!("{error:#}"),
            "it is damaged: nothing is known of what was persisted at that reset: missing field `version` at line 1 column 16"
        );
    }

    #[test]
    fn a_manifest_says_which_boot_it_is_and_when() {
        let before = now();
        let manifest = Manifest::new(7, &Rules::default()).unwrap();
        let boot = std::fs::read_to_string(BOOT_ID).unwrap();
        assert_eq!(manifest.boot.as_deref(), Some(boot.trim_end()));
        assert!(before <= manifest.time && manifest.time <= now(), "{manifest:?}");
    }
}
