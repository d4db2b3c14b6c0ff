//! Running `darlings adopt` on a machine whose store is the subvolume `@persist`.

use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use anyhow::Result;
use darlings_testkit::{Attribute, Compare, Tree, capture, difference};

use super::{Machine, Ran};

/// The store.
pub(crate) fn store(machine: &Machine) -> PathBuf {
    machine.at("@persist")
}

/// Adopts from it.
pub(crate) fn adopt(machine: &Machine, arguments: &[&str]) -> Result<Ran> {
    let mut command = machine.word("adopt", &machine.config())?;
    machine.ran(command.arg("--from").arg(store(machine)).args(arguments))
}

/// The lines about paths; how many bytes went which way depends on the store.
pub(crate) fn lines(ran: &Ran) -> Vec<&str> {
    ran.stdout.lines().filter(|line| line.starts_with('/')).collect()
}

/// What differs between two trees. Nobody can read a link without changing when it was last read.
pub(crate) fn differences(one: &Tree, other: &Tree) -> String {
    let compare = Compare::all().without(Attribute::AccessTime);
    difference::lines(&one.diff_with(other, &compare))
}

/// What was brought over, compared with the store.
pub(crate) fn is_brought(machine: &Machine, path: &str) -> Result<()> {
    let (from, to) = (store(machine).join(path), machine.volume.live().join(path));
    if from.is_dir() {
        let lines = differences(&capture(&to)?, &capture(&from)?);
        assert_eq!(lines, "", "{path}");
    } else {
        assert_eq!(std::fs::read(&to)?, std::fs::read(&from)?, "{path}");
        let of = |path: &Path| -> Result<_> {
            let found = std::fs::symlink_metadata(path)?;
            Ok((found.mode(), found.uid(), found.gid(), found.mtime(), found.mtime_nsec()))
        };
        assert_eq!(of(&to)?, of(&from)?, "{path}");
    }
    Ok(())
}
