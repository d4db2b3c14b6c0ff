//! fstab(5): a btrfs that is mounted by the number of its subvolume, and subvolumes that a reset takes away.

use std::path::PathBuf;

use crate::config::{self, Backing};
use crate::fs::Dir;
use crate::fs::octal::unescape;
use crate::names::shown;
use crate::rules::Verdict;

/// The btrfs mounts of an fstab: where, and by which options.
fn mounts(fstab: &str) -> impl Iterator<Item = (PathBuf, &str)> {
    let lines = fstab.lines().filter(|line| !line.trim_start().starts_with('#'));
    lines.filter_map(|line| {
        let mut fields = line.split_ascii_whitespace();
        let mount_point = unescape(fields.nth(1)?.as_bytes());
        let (kind, options) = (fields.next()?, fields.next()?);
        (kind == "btrfs").then_some((mount_point, options))
    })
}

/// What is wrong with how the volume is mounted, if something is. A reset gives the name of a subvolume
/// to another one, so that a number stands for the old tree, or fits the name no more.
pub(super) fn by_number(volume: &config::Volume, fstab: &str) -> Option<String> {
    let Backing::Btrfs(btrfs) = &volume.backing else { return None };
    let (_, options) = mounts(fstab).find(|(mount_point, _)| *mount_point == volume.mount_point)?;
    let number = options.split(',').find(|option| option.starts_with("subvolid="))?;
    Some(format!(
        "{} is mounted by {number} (fstab), which after a reset is the old tree, or no mount at all; \
         write subvol={} alone",
        shown(&volume.mount_point),
        shown(&btrfs.subvolume)
    ))
}

/// The mounts of subvolumes that lie in the volume and go with the generation: they fail after a reset.
pub(super) fn nested(
    volume: &config::Volume,
    fstab: &str,
    live: &Dir,
) -> anyhow::Result<Vec<String>> {
    let Backing::Btrfs(btrfs) = &volume.backing else { return Ok(Vec::new()) };
    let mut problems = Vec::new();
    for (mount_point, options) in mounts(fstab) {
        let named = options.split(',').find_map(|option| option.strip_prefix("subvol="));
        let subvolume = unescape(named.unwrap_or_default().trim_start_matches('/').as_bytes());
        let Ok(below) = subvolume.strip_prefix(&btrfs.subvolume) else { continue };
        if below.as_os_str().is_empty()
            || volume.rules.verdict(below) == Verdict::Persisted
            || live.glance(below)?.is_none()
        {
            continue;
        }
        problems.push(format!(
            "{} is mounted from the subvolume {} (fstab), which lies in {} and goes with the generation, so \
             that the mount fails after a reset; move it out of {}, or persist {}",
            shown(&mount_point),
            shown(&subvolume),
            shown(&btrfs.subvolume),
            shown(&btrfs.subvolume),
            shown(&volume.mount_point.join(below))
        ));
    }
    Ok(problems)
}

#[cfg(test)]
mod tests {
    use super::by_number;
    use crate::config::{self, Backing, Btrfs, Strategy};

    #[test]
    fn a_number_is_found_in_the_options_of_this_mount_point_alone() {
        let volume = config::Volume {
            mount_point: "/home of mia".into(),
            backing: Backing::Btrfs(Btrfs {
                device: "/dev/vda".into(),
                subvolume: "@home".into(),
                blank: None,
                generations: "@darlings/home".into(),
            }),
            strategy: Strategy::Carry,
            keep: None,
            rules: crate::rules::Rules::default(),
        };
        let found = |fstab: &str| by_number(&volume, fstab);
        let expected = "/home of mia is mounted by subvolid=257 (fstab), which after a reset is the old \
                        tree, or no mount at all; write subvol=@home alone";
        let line = r"UUID=1-2 /home\040of\040mia btrfs rw,subvolid=257,subvol=/@home 0 0";
        assert_eq!(found(line).as_deref(), Some(expected));
        assert_eq!(
            found(&format!("# fstab\n\nUUID=1-2 / btrfs subvolid=5\n{line}\n")).as_deref(),
            Some(expected)
        );
        assert_eq!(found(&format!("#{line}")), None);
        assert_eq!(found(&line.replace("subvolid=257,", "")), None);
        assert_eq!(found(&line.replace("btrfs", "ext4")), None);
        assert_eq!(found("UUID=1-2 / btrfs subvolid=257 0 0"), None);
        assert_eq!(found("short"), None);
    }
}
