//! A small machine that a person would believe: somebody works on it, and it has been up a while.

use std::os::unix::fs::symlink;
use std::path::Path;

use anyhow::{Context as _, Result};

use crate::loopfs::Noise;
use crate::names::RelPath;
use crate::plant;
use crate::tree::Time;

/// Some day in June 2025; everything on the machine is older.
const NOW: i64 = 1_750_000_000;
const DAY: i64 = 86_400;
/// Mia, who works on the machine.
const MIA: u32 = 1000;
const USERS: u32 = 100;

/// Directories of a machine just installed: path, owner, mode.
const BLANK: [(&str, u32, u32); 17] = [
    ("bin", 0, 0o755),
    ("boot", 0, 0o755),
    ("dev", 0, 0o755),
    ("etc", 0, 0o755),
    ("home", 0, 0o755),
    ("home/mia", MIA, 0o700),
    ("proc", 0, 0o555),
    ("root", 0, 0o700),
    ("run", 0, 0o755),
    ("sys", 0, 0o555),
    ("tmp", 0, 0o1777),
    ("usr", 0, 0o755),
    ("var", 0, 0o755),
    ("var/cache", 0, 0o755),
    ("var/lib", 0, 0o755),
    ("var/log", 0, 0o755),
    ("var/tmp", 0, 0o1777),
];

/// What somebody wants to keep: path, owner, mode, days ago, what is in it.
const KEPT: [(&str, u32, u32, i64, &str); 22] = [
    ("etc/machine-id", 0, 0o444, 400, "5f3c9d0a7be14c5f8a1f0c6d2b7e4a90\n"),
    ("etc/adjtime", 0, 0o644, 9, "0.0 0 0.0\n0\nUTC\n"),
    ("etc/ssh/ssh_host_ed25519_key", 0, 0o600, 400, "(the private key of this machine)\n"),
    ("etc/ssh/ssh_host_ed25519_key.pub", 0, 0o644, 400, "ssh-ed25519 AAAAC3Nz root@attic\n"),
    (
        "etc/NetworkManager/system-connections/home.nmconnection",
        0,
        0o600,
        300,
        "[wifi]\nssid=home\n",
    ),
    ("var/lib/bluetooth/settings", 0, 0o600, 200, "[General]\nDiscoverable=false\n"),
    ("var/lib/postgresql/16/main/PG_VERSION", 71, 0o600, 250, "16\n"),
    ("var/lib/postgresql/16/main/global/pg_control", 71, 0o600, 1, "(the state of the cluster)\n"),
    ("var/lib/systemd/random-seed", 0, 0o600, 1, "(not very random)\n"),
    ("var/lib/systemd/timers/stamp-fstrim.timer", 0, 0o644, 6, ""),
    ("var/log/lastlog", 0, 0o664, 1, "mia pts/0\n"),
    ("var/log/auth.log", 0, 0o640, 0, "session opened for user mia\n"),
    ("home/mia/.bashrc", MIA, 0o644, 380, "export EDITOR=vim\n"),
    ("home/mia/.ssh/id_ed25519", MIA, 0o600, 390, "(the private key of mia)\n"),
    ("home/mia/.ssh/known_hosts", MIA, 0o644, 20, "forge.example ssh-ed25519 AAAA\n"),
    ("home/mia/documents/taxes 2024.ods", MIA, 0o600, 60, "(numbers)\n"),
    ("home/mia/documents/letter to grandmother.txt", MIA, 0o644, 33, "Dear grandmother,\n"),
    ("home/mia/projects/engine/Cargo.toml", MIA, 0o644, 12, "[package]\nname = \"engine\"\n"),
    ("home/mia/projects/engine/src/main.rs", MIA, 0o644, 2, "fn main() {}\n"),
    ("home/mia/projects/engine/run.sh", MIA, 0o755, 12, "#!/bin/sh\nexec cargo run\n"),
    ("home/mia/projects/poems/spring.md", MIA, 0o644, 70, "# Spring\n"),
    ("root/.ssh/authorized_keys", 0, 0o600, 390, "ssh-ed25519 AAAA mia\n"),
];

/// What nobody would miss: path, owner.
const CLUTTER: [(&str, u32); 14] = [
    ("etc/.pwd.lock", 0),
    ("etc/resolv.conf.bak", 0),
    ("etc/rc.local.old", 0),
    ("root/.bash_history", 0),
    ("root/.lesshst", 0),
    ("root/install.log", 0),
    ("tmp/vim-swap", MIA),
    ("var/cache/man/index.db", 0),
    ("var/crash/core.1234", 0),
    ("var/lib/forgotten-daemon/state", 0),
    ("var/tmp/build.log", MIA),
    ("home/mia/.local/share/recently-used.xbel", MIA),
    ("home/mia/.wget-hsts", MIA),
    ("home/mia/downloads/setup(1).exe", MIA),
];

/// The blank of the believable machine, in an existing directory: its directories and nothing else.
pub fn believable_blank(dir: &Path) -> Result<()> {
    for (path, owner, mode) in BLANK {
        directory(dir, path, owner, mode)?;
    }
    symlink("../usr/lib/os-release", dir.join("etc/os-release"))?;
    file(dir, "etc/hostname", 0, 0o644, 400, b"attic\n")?;
    for (path, _, _) in BLANK.iter().rev() {
        age(&dir.join(path), 400, 0)?;
    }
    Ok(())
}

/// A believable machine that has been used, in an existing directory that is empty or holds its
/// blank. The seed decides the size and age of logs and clutter.
pub fn believable_root(dir: &Path, seed: u64) -> Result<()> {
    if !dir.join("etc/hostname").exists() {
        believable_blank(dir)?;
    }
    let mut noise = Noise(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1);
    for (path, owner, mode, days, text) in KEPT {
        file(dir, path, owner, mode, days, text.as_bytes())?;
    }
    for name in ["system.journal", "user-1000.journal"] {
        let path = format!("var/log/journal/5f3c9d0a7be14c5f8a1f0c6d2b7e4a90/{name}");
        let length = 60_000 + below(&mut noise, 60_000);
        file(dir, &path, 0, 0o640, 0, &bytes(&mut noise, length))?;
    }
    for commit in 0..12 + below(&mut noise, 12) {
        let path = format!(
            "home/mia/projects/engine/.git/objects/{:02x}/{commit:038x}",
            noise.next() % 256
        );
        let length = 200 + below(&mut noise, 2000);
        file(dir, &path, MIA, 0o444, 20, &bytes(&mut noise, length))?;
    }
    for (path, owner) in CLUTTER {
        let (length, days) = (100 + below(&mut noise, 9000), below(&mut noise, 90));
        file(dir, path, owner, 0o644, i64::try_from(days)?, &bytes(&mut noise, length))?;
    }
    for number in 0..30 + below(&mut noise, 30) {
        let path = format!("home/mia/.cache/thumbnails/{:016x}.png", noise.next());
        file(dir, &path, MIA, 0o600, 5, &bytes(&mut noise, 500 + 10 * number))?;
    }
    symlink("/usr/share/zoneinfo/Europe/Berlin", dir.join("etc/localtime"))?;
    let capable = dir.join("home/mia/projects/engine/run.sh");
    plant::xattr(&capable, "user.comment", b"start me").context("user xattr")
}

fn below(noise: &mut Noise, limit: usize) -> usize {
    usize::try_from(noise.next() % limit as u64).unwrap_or(0)
}

fn bytes(noise: &mut Noise, length: usize) -> Vec<u8> {
    let mut bytes: Vec<u8> =
        (0..length.div_ceil(8)).flat_map(|_| noise.next().to_le_bytes()).collect();
    bytes.truncate(length);
    bytes
}

fn directory(dir: &Path, path: &str, owner: u32, mode: u32) -> Result<()> {
    let at = dir.join(path);
    let told = || format!("cannot make {}", at.display());
    std::fs::create_dir(&at).with_context(told)?;
    plant::owner(&at, owner, if owner == MIA { USERS } else { owner }).with_context(told)?;
    plant::mode(&at, mode).with_context(told)
}

fn file(dir: &Path, path: &str, owner: u32, mode: u32, days: i64, bytes: &[u8]) -> Result<()> {
    let relative = RelPath::normalise(path).map_err(anyhow::Error::msg)?;
    for above in relative.ancestors() {
        if !above.is_root() && !above.below(dir).exists() {
            directory(dir, &above.to_string(), owner, if owner == 0 { 0o755 } else { 0o700 })?;
        }
    }
    let at = dir.join(path);
    let told = || format!("cannot make {}", at.display());
    std::fs::write(&at, bytes).with_context(told)?;
    plant::owner(&at, owner, if owner == MIA { USERS } else { owner }).with_context(told)?;
    plant::mode(&at, mode).with_context(told)?;
    age(&at, days, path.len())
}

fn age(path: &Path, days: i64, salt: usize) -> Result<()> {
    let salt = u32::try_from(salt).unwrap_or(0);
    let nanoseconds = (salt * 7_919_317 + 123_456_789) % 1_000_000_000;
    let time = Time { seconds: NOW - days * DAY - i64::from(salt) * 61, nanoseconds };
    plant::times(path, time, time)
        .with_context(|| format!("cannot set the time of {}", path.display()))
}
