//! Whether the root that is booted is the one that is reset.

use std::path::Path;

use crate::cmdline::CommandLine;
use crate::config;

/// Why nothing is reset although the configuration says so: the root that the kernel command line
/// boots is another one than the volume at `/`, a snapshot chosen in the boot menu perhaps. A reset
/// would erase what nobody looks at, and file it away by the number of a boot that it had no part in.
#[must_use]
pub fn boots_another(volume: &config::Volume, line: &CommandLine) -> Option<String> {
    if volume.mount_point != Path::new("/") {
        return None;
    }
    let (booted, reset) = match &volume.backing {
        config::Backing::Btrfs(source) => {
            let booted = line.root_subvolume().filter(|booted| *booted != source.subvolume)?;
            (format!("the subvolume {booted:?}"), format!("{:?}", source.subvolume))
        }
        config::Backing::Zfs(source) => {
            let booted = line.root_dataset().filter(|booted| *booted != source.dataset)?;
            (format!("the dataset {booted:?}"), format!("{:?}", source.dataset))
        }
        config::Backing::Dir(_) => return None,
    };
    Some(format!(
        "the kernel command line boots {booted}, and the configuration resets {reset}: nothing is \
         reset while another root is booted; boot {reset}, or name what is booted in the configuration"
    ))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]

    use super::*;

    #[test]
    fn another_root_is_booted_where_the_line_names_another_one_than_the_volume_at_the_root() {
        let volumes = |of: &str| {
            let text = format!("[[volume]]\nmount_point = {of}\n");
            config::Config::from_bytes(Path::new("it"), text.as_bytes()).unwrap().volumes
        };
        let zfs = "zfs = { dataset = \"rpool/root\", blank = \"blank\" }";
        let btrfs = "btrfs = { device = \"/dev/x\", subvolume = \"/@\", blank = \"empty\" }";
        let root = |backing: &str| format!("\"/\"\n{backing}");
        let words = |booted: &str, reset: &str| {
            Some(format!(
                "the kernel command line boots {booted}, and the configuration resets \"{reset}\": \
                 nothing is reset while another root is booted; boot \"{reset}\", or name what is \
                 booted in the configuration"
            ))
        };
        for (of, line, expected) in [
            (root(zfs), "root=zfs:rpool/root", None),
            (root(zfs), "root=/dev/vda", None),
            (root(zfs), "rootflags=subvol=@", None),
            (root(zfs), "root=ZFS=rpool/old", words("the dataset \"rpool/old\"", "rpool/root")),
            (root(zfs), "zfs=rpool/root@1", words("the dataset \"rpool/root@1\"", "rpool/root")),
            (root(btrfs), "rootflags=subvol=@", None),
            (root(btrfs), "root=zfs:rpool/root", None),
            (root(btrfs), "rootflags=subvol=/@b", words("the subvolume \"@b\"", "@")),
            (format!("\"/home\"\n{btrfs}"), "rootflags=subvol=@b", None),
        ] {
            let line = CommandLine::parse(line.as_bytes());
            assert_eq!(boots_another(&volumes(&of)[0], &line), expected, "{of} {line:?}");
        }
    }
}
