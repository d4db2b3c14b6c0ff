//! `darlings initrd-needs`: what makes the volumes reachable, for whoever makes an initrd by a script
//! (`dracut/90darlings`).

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use super::ready;
use crate::config::{self, Backing, Config};

#[derive(Debug, clap::Args)]
pub(super) struct Arguments {
    /// The configuration
    #[arg(long, value_name = "FILE", default_value = config::DEFAULT_PATH)]
    config: PathBuf,
}

pub(super) fn run(arguments: &Arguments) -> ExitCode {
    let tell = || -> anyhow::Result<ExitCode> {
        let config = Config::read(&arguments.config)?;
        ready::print(&needs(&config).into_iter().map(|need| need + "\n").collect::<String>())?;
        Ok(ExitCode::SUCCESS)
    };
    ready::ended(tell())
}

/// A word and its value for each, sorted.
fn needs(config: &Config) -> BTreeSet<String> {
    let mut needs = BTreeSet::new();
    let mut need = |word: &str, value: &Path| needs.insert(format!("{word} {}", value.display()));
    for volume in &config.volumes {
        match &volume.backing {
            Backing::Zfs(zfs) => need("dataset", Path::new(&zfs.dataset)),
            Backing::Btrfs(btrfs) => {
                need("device", &btrfs.device);
                need("subvolume", &btrfs.subvolume)
            }
            Backing::Dir(dir) => need("dir", &dir.path),
        };
    }
    needs
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]

    use super::*;

    #[test]
    fn whatever_way_toml_has_to_say_it_each_volume_tells_what_it_needs() {
        let text = "\
[[volume]]
mount_point = '/'
btrfs.device = '/dev/disk/by-label/my root'
btrfs.subvolume = \"@\"
btrfs.blank = 'empty'
[[volume]]
mount_point = \"/home\"
[volume.btrfs]
\"device\" = \"/dev/disk/by-label/my root\" # dataset = \"no/such\"
subvolume = '''@home'''
blank = \"@blank\"
[[volume]]
mount_point = \"/srv\"
[volume.dir]
path = '/sysroot/srv'
blank = \"empty\"
[[volume]]
mount_point = \"/var\"
zfs = { dataset = \"\\u0072pool/var\", blank = \"empty\" }
";
        let config = Config::from_bytes(Path::new("darlings.toml"), text.as_bytes()).unwrap();
        let needs: Vec<String> = needs(&config).into_iter().collect();
        assert_eq!(
            needs,
            [
                "dataset rpool/var",
                "device /dev/disk/by-label/my root",
                "dir /sysroot/srv",
                "subvolume @",
                "subvolume @home",
            ]
        );
    }
}
