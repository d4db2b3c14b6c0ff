//! Whether the configuration on the disk is the one that the last reset went by. The initrd has a copy, which
//! is as old as the initrd: until that is rebuilt, what a person reads on the disk is not what decides.
//!
//! Every run writes a digest of its configuration into the manifest. It is made of what was parsed, so
//! that a comment changes nothing, and of that only what a reset goes by: not `keep`, which a purge reads
//! from the disk.

use std::path::{Path, PathBuf};

use crate::config;
use crate::names::shown;
use crate::own::state::Manifest;
use crate::rules::{Rules, Verdict};

/// So many paths are named, and the rest counted.
const NAMED: usize = 5;

/// How an initrd is rebuilt, by a file that a machine has which does it so.
const REBUILD: [(&str, &str); 5] = [
    ("etc/NIXOS", "run `nixos-rebuild boot`"),
    ("usr/bin/dracut", "run `dracut -f`"),
    ("usr/sbin/dracut", "run `dracut -f`"),
    ("usr/bin/mkinitcpio", "run `mkinitcpio -P`"),
    ("usr/sbin/update-initramfs", "run `update-initramfs -u`"),
];

/// What to say of a volume whose last run, which left this manifest, went by another configuration than the
/// one on the disk. Nothing of a volume that was never reset.
#[must_use]
pub fn note(volume: &config::Volume, manifest: Option<&Manifest>) -> Option<String> {
    words(volume, manifest?, rebuild(Path::new("/")))
}

fn words(volume: &config::Volume, then: &Manifest, rebuild: &str) -> Option<String> {
    let now = &volume.rules;
    let known = Rules::from_lists(&then.persisted, &then.excluded);
    match (&then.configuration, now.configuration()) {
        (Some(then), Some(now)) if then == now => return None,
        (Some(_), Some(_)) => {}
        // Earlier versions wrote the lists alone, and after anything but a reset those of another run.
        _ if then.snapshot || then.restored.is_some() || known.same_lists(now) => return None,
        _ => {}
    }
    let persisted = now.persisted().into_iter().map(|it| it.path);
    // What was left out of a persisted path, and is not now, is new as well.
    let candidates = persisted.chain(then.excluded.iter().cloned());
    let is_new = |path: &PathBuf| {
        now.verdict(path) == Verdict::Persisted && known.verdict(path) != Verdict::Persisted
    };
    let new: Vec<String> =
        candidates.filter(is_new).map(|path| shown(&volume.mount_point.join(path))).collect();
    let lacks = match new.len() {
        0 => String::new(),
        count if count > NAMED => {
            format!(", which does not keep {}, and {} more", new[..NAMED].join(", "), count - NAMED)
        }
        _ => format!(", which does not keep {}", new.join(", ")),
    };
    Some(format!(
        "the configuration on the disk is not the one that reset {} went by; unless the initrd was rebuilt \
         since, the next reset goes by the older one{lacks}: {rebuild}",
        then.generation
    ))
}

/// What to type to rebuild the initrd, on the machine whose root this is.
fn rebuild(root: &Path) -> &'static str {
    // Where that cannot be seen, the general words are right as well.
    let found = REBUILD.iter().find(|(file, _)| root.join(file).exists());
    found.map_or("rebuild it", |(_, words)| *words)
}

#[cfg(test)]
mod tests;
