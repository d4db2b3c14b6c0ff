//! What a user without privileges can do to what they own, made up from a seed and really done as uid
//! 1000: the thread that does it has no other credentials.

use std::ffi::{OsStr, OsString};
use std::os::fd::{AsFd as _, OwnedFd};
use std::os::unix::ffi::OsStringExt as _;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};
use darlings::fs::at;
use darlings_btrfs as btrfs;
use darlings_testkit::plant;
use rustix::fs::{
    AtFlags, FileType, IFlags, Mode, OFlags, Timespec, Timestamps, XattrFlags, ftruncate, futimens,
    ioctl_getflags, ioctl_setflags, linkat, mkdirat, mknodat, openat, renameat, symlinkat,
    unlinkat,
};
use rustix::io::Errno;
use rustix::process::{Gid, Uid};
use rustix::thread::{set_thread_groups, set_thread_res_gid, set_thread_res_uid};

use super::changes::Noise;
use super::encryption;

/// Who does it.
pub(crate) const USER: u32 = 1000;

/// Names of directories above persisted paths, which a user may use for anything, and names that mean
/// something to the tool elsewhere.
const KNOWN: [&str; 20] = [
    ".local",
    "share",
    "keyrings",
    "a",
    "b",
    "c",
    "docs",
    "mail",
    "cache",
    "inner",
    "file",
    ".darlings",
    "reset",
    "next",
    "ready-1",
    "attic",
    "home",
    "etc",
    "var",
    "srv",
];

/// Names in the tool's own directory.
const OWN: [&str; 8] =
    ["journal", "lock", "generations", "attic", "manifest", "trash", "moved-1", "gathered"];

/// What a user fills a quota with at most.
const FILL: usize = 8 << 20;

/// Deeds of one turn.
const DEEDS: usize = 24;

/// Subvolumes that are remembered, to be made read-only when all is done.
const REMEMBERED: usize = 200;

/// What a deed came to, for whoever reads it after a failure.
type Done = Result<String, Errno>;

/// What is there for the user to use.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Means {
    /// Subvolumes can be made.
    pub(crate) subvolumes: bool,
    /// Directories can be encrypted, with this key.
    pub(crate) key: Option<&'static [u8]>,
    /// The first of the directories is the root of the volume.
    pub(crate) root: bool,
    /// The first home has a quota.
    pub(crate) quota: bool,
}

/// A user at work.
pub(crate) struct User {
    noise: Noise,
    /// Directories that belong to the user, in directories that do not.
    homes: Vec<OwnedFd>,
    means: Means,
    /// The key that was loaded, as the kernel calls it.
    key: Option<String>,
    made: Vec<OwnedFd>,
    pub(crate) log: Vec<String>,
}

/// Does as uid 1000 whatever the seed says in these directories, and answers what was done.
pub(crate) fn acts(seed: u64, homes: Vec<OwnedFd>, means: Means) -> Result<Vec<String>> {
    as_user(move || {
        let (noise, made, log) = (Noise(seed), Vec::new(), Vec::new());
        let mut user = User { noise, homes, means, key: None, made, log };
        user.begin()?;
        for _ in 0..=user.noise.below(DEEDS) {
            user.deed();
        }
        user.seal();
        Ok(user.log)
    })
}

/// Does something as uid 1000.
pub(crate) fn as_user<T: Send + 'static>(
    act: impl FnOnce() -> Result<T> + Send + 'static,
) -> Result<T> {
    let act = move || -> Result<T> {
        let (uid, gid) = (Uid::from_raw(USER), Gid::from_raw(USER));
        set_thread_groups(&[])?;
        set_thread_res_gid(gid, gid, gid)?;
        set_thread_res_uid(uid, uid, uid)?;
        act()
    };
    std::thread::spawn(act).join().ok().context("the user panicked")?
}

fn open(parent: &OwnedFd, name: &OsStr) -> Result<OwnedFd, Errno> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    openat(parent, name, flags, Mode::empty())
}

fn create(parent: &OwnedFd, name: &OsStr) -> Result<OwnedFd, Errno> {
    let flags = OFlags::RDWR | OFlags::CREATE | OFlags::NOFOLLOW | OFlags::NONBLOCK;
    openat(parent, name, flags | OFlags::CLOEXEC, Mode::from_raw_mode(0o640))
}

fn errno(error: &btrfs::Error) -> Errno {
    error.errno().unwrap_or(Errno::INVAL)
}

fn shown(path: &Path) -> String {
    let text = path.to_string_lossy().escape_debug().to_string();
    if text.len() < 200 {
        text
    } else {
        format!("{}... ({} bytes)", cut(&text), path.as_os_str().len())
    }
}

fn cut(text: &str) -> String {
    text.chars().take(120).collect()
}

impl User {
    fn chance(&mut self, percent: usize) -> bool {
        self.noise.below(100) < percent
    }

    fn name(&mut self) -> OsString {
        match self.noise.below(10) {
            0 => {
                // Any byte but a slash and NUL, of any length that there is.
                let length = 1 + self.noise.below(255);
                let byte = |user: &mut Self| match u8::try_from(1 + user.noise.below(255)) {
                    Ok(byte) if byte != b'/' => byte,
                    _ => b'\n',
                };
                let bytes: Vec<u8> = (0..length).map(|_| byte(self)).collect();
                if bytes.iter().all(|it| *it == b'.') {
                    "dots".into()
                } else {
                    OsString::from_vec(bytes)
                }
            }
            1 => ["\u{1b}[31m", "a\nb = 1", "\u{202e}txt", "-rf", " ", "x~1", "#", "ünï"]
                [self.noise.below(8)]
            .into(),
            2..=4 => format!("n{}", self.noise.below(40)).into(),
            _ => KNOWN[self.noise.below(KNOWN.len())].into(),
        }
    }

    /// Some directory, and its path for the log.
    fn directory(&mut self) -> Result<(OwnedFd, PathBuf), Errno> {
        let home = self.noise.below(self.homes.len());
        let mut here = open(&self.homes[home], OsStr::new("."))?;
        let mut path = PathBuf::from(format!("~{home}"));
        while self.chance(75) {
            let names = at::names(here.as_fd()).map_err(|_| Errno::IO)?;
            if names.is_empty() {
                break;
            }
            let name = &names[self.noise.below(names.len())];
            if let Ok(below) = open(&here, at::os_name(name)) {
                path.push(at::os_name(name));
                here = below;
            }
        }
        Ok((here, path))
    }

    /// Some entry of a directory.
    fn entry(&mut self) -> Result<(OwnedFd, OsString, PathBuf), Errno> {
        let (directory, path) = self.directory()?;
        let names = at::names(directory.as_fd()).map_err(|_| Errno::IO)?;
        if names.is_empty() {
            return Err(Errno::NOENT);
        }
        let name = at::os_name(&names[self.noise.below(names.len())]).to_owned();
        let path = path.join(&name);
        Ok((directory, name, path))
    }

    /// What comes before everything else.
    fn begin(&mut self) -> Result<()> {
        if let Some(key) = self.means.key {
            self.key = Some(encryption::load(key, &self.homes[0])?);
        }
        if self.means.root {
            self.made.push(open(&self.homes[0], OsStr::new("."))?);
            if self.chance(50) {
                let done = self.own_directory();
                self.log.push(format!("{done:?}"));
            }
        }
        Ok(())
    }

    fn deed(&mut self) {
        let done = if self.means.root && self.chance(5) {
            self.own_directory()
        } else if self.means.quota && self.chance(5) {
            self.fill_up()
        } else if self.key.is_some() && self.chance(15) {
            self.a_closed_directory_above()
        } else if self.means.subvolumes && self.chance(40) {
            match self.noise.below(7) {
                0 | 1 => self.make_subvolume(),
                2 => self.snapshot(),
                3 => self.toggle_read_only(),
                4 | 5 => self.a_closed_directory_above(),
                _ => self.chain(),
            }
        } else {
            match self.noise.below(20) {
                0 | 1 => self.make_directory(),
                2 => self.write(),
                3 => self.hole(),
                4 => self.link(),
                5 => self.hard_link(),
                6 => self.node(),
                7 => self.mode(),
                8 => self.attributes(),
                9 => self.access_list(),
                10 | 11 => self.rename(),
                12 => self.flags(),
                13 => self.times(),
                14 => self.remove(),
                15 => self.deep(),
                16 => self.many(),
                17 => self.swap(),
                18 => self.project(),
                _ => self.path_again(),
            }
        };
        self.log.push(match done {
            Ok(done) => done,
            Err(error) => format!("(could not: {error})"),
        });
    }

    /// Fills what has a quota, and makes what was made read-only, some of it, from the inside out.
    fn seal(&mut self) {
        if self.means.quota && self.chance(60) {
            let done = self.fill_up();
            self.log.push(format!("{done:?}"));
        }
        while let Some(made) = self.made.pop() {
            if self.chance(30) {
                let done = btrfs::set_read_only(&made, true);
                self.log.push(format!("read-only {done:?}"));
            }
        }
    }

    fn remember(&mut self, subvolume: OwnedFd) {
        if self.made.len() < REMEMBERED {
            self.made.push(subvolume);
        }
    }

    fn subvolume_in(&mut self, parent: &OwnedFd, name: &OsStr) -> Result<OwnedFd, Errno> {
        btrfs::create_subvolume(parent, name).map_err(|error| errno(&error))?;
        let made = open(parent, name)?;
        self.remember(open(&made, OsStr::new("."))?);
        Ok(made)
    }

    fn make_subvolume(&mut self) -> Done {
        let ((parent, path), name) = (self.directory()?, self.name());
        let made = self.subvolume_in(&parent, &name)?;
        self.fill(&made)?;
        Ok(format!("subvolume {}", shown(&path.join(name))))
    }

    fn snapshot(&mut self) -> Done {
        let number = self.noise.below(self.made.len().max(1));
        let (parent, path) = self.directory()?;
        let name = self.name();
        let access =
            if self.chance(30) { btrfs::Access::ReadOnly } else { btrfs::Access::Writable };
        let source = self.made.get(number).ok_or(Errno::NOENT)?;
        btrfs::snapshot(source, &parent, &name, access).map_err(|error| errno(&error))?;
        self.remember(open(&parent, &name)?);
        Ok(format!("snapshot {} {access:?}", shown(&path.join(name))))
    }

    fn toggle_read_only(&mut self) -> Done {
        let number = self.noise.below(self.made.len().max(1));
        let subvolume = self.made.get(number).ok_or(Errno::NOENT)?;
        let is = btrfs::is_read_only(subvolume).map_err(|error| errno(&error))?;
        btrfs::set_read_only(subvolume, !is).map_err(|error| errno(&error))?;
        Ok(format!("read-only {}", !is))
    }

    /// A subvolume or, where there are none, an encrypted directory.
    fn closed_in(&mut self, parent: &OwnedFd, name: &OsStr) -> Result<OwnedFd, Errno> {
        let Some(key) = self.key.clone() else { return self.subvolume_in(parent, name) };
        mkdirat(parent, name, Mode::RWXU)?;
        let made = open(parent, name)?;
        // In one that is encrypted already, it is so by itself.
        let done = encryption::encrypt(&made, &key);
        self.log.push(format!("encrypted {done:?}"));
        Ok(made)
    }

    /// Puts a subvolume or an encrypted directory in the place of a directory on the way to a persisted
    /// path, the rest of the way into it, and such directories where the persisted path is.
    fn a_closed_directory_above(&mut self) -> Done {
        let ways: [&[&str]; 10] = [
            &[".local", "share", "keyrings"],
            &["a", "b", "c", "d"],
            &["mail", "cache", "inner"],
            &["docs", "n1"],
            &["file"],
            &["home", "mia", "docs"],
            &["home", "mia", "mail", "cache", "inner"],
            &["var", "spool", "mia"],
            &["srv", "box", "file"],
            &["etc", "machine-id"],
        ];
        let home = self.noise.below(self.homes.len());
        let of_root = self.means.root && home == 0;
        let way = ways[if of_root { 5 } else { 0 } + self.noise.below(5)];
        let mut here = open(&self.homes[home], OsStr::new("."))?;
        let first = self.noise.below(way.len());
        for (number, name) in way.iter().enumerate() {
            let name = OsStr::new(name);
            if number == first || (number > first && self.chance(40)) {
                let aside = self.name();
                // What cannot be moved aside is in the way, and making the subvolume says so.
                let moved = renameat(&here, name, &here, &aside);
                self.log.push(format!("aside {moved:?}"));
                here = self.closed_in(&here, name)?;
            } else {
                match mkdirat(&here, name, Mode::RWXU) {
                    Ok(()) | Err(Errno::EXIST) => {}
                    Err(error) => return Err(error),
                }
                here = open(&here, name)?;
            }
        }
        self.fill(&here)?;
        for number in 0..self.noise.below(3) {
            let nested = self.closed_in(&here, OsStr::new(&format!("s{number}")))?;
            self.fill(&nested)?;
        }
        Ok(format!("a closed directory at ~{home}/{} and below", way[..=first].join("/")))
    }

    /// Makes what has the name of the tool's own directory, in place of one that is there.
    fn own_directory(&mut self) -> Done {
        let root = open(&self.homes[0], OsStr::new("."))?;
        let (name, aside) = (OsStr::new(".darlings"), self.name());
        let moved = renameat(&root, name, &root, &aside);
        let kind = self.noise.below(5);
        match kind {
            0 => drop(create(&root, name)?),
            1 => symlinkat("..", &root, name)?,
            2 => mknodat(&root, name, FileType::Fifo, Mode::RWXU, 0)?,
            _ => {
                let own = if kind == 3 && self.means.subvolumes {
                    self.subvolume_in(&root, name)?
                } else {
                    mkdirat(&root, name, Mode::RWXU)?;
                    open(&root, name)?
                };
                for name in OWN {
                    match self.noise.below(5) {
                        0 => self.fill_named(&own, name)?,
                        1 => mkdirat(&own, name, Mode::RWXU)?,
                        2 => symlinkat("../home", &own, name)?,
                        3 if self.means.subvolumes => {
                            self.subvolume_in(&own, OsStr::new(name)).map(drop)?;
                        }
                        _ => {}
                    }
                }
            }
        }
        Ok(format!("own directory {kind}, moved {moved:?} to {}", shown(Path::new(&aside))))
    }

    /// Writes into the first home until its quota says no.
    fn fill_up(&mut self) -> Done {
        let home = &self.homes[usize::from(self.means.root)];
        let (parent, name) = (open(home, OsStr::new("."))?, self.name());
        let file = create(&parent, &name)?;
        let mut written = 0;
        while written < FILL {
            let bytes: Vec<u8> =
                (0..1 << 13).flat_map(|_| self.noise.below(usize::MAX).to_le_bytes()).collect();
            match rustix::io::write(&file, &bytes) {
                Ok(length) => written += length,
                Err(error) => {
                    self.log.push(format!("{error}"));
                    break;
                }
            }
        }
        Ok(format!("{written} bytes into {}", shown(Path::new(&name))))
    }

    /// Subvolumes in subvolumes, perhaps so deep that no path leads there.
    fn chain(&mut self) -> Done {
        let (mut here, path) = self.directory()?;
        let length = [1, 70, 250][self.noise.below(3)];
        let levels = 2 + self.noise.below(60);
        for level in 0..levels {
            let name = format!("{}{level:02}", "c".repeat(length));
            here = self.subvolume_in(&here, OsStr::new(&name))?;
        }
        self.fill(&here)?;
        Ok(format!("chain of {levels} with names of {} bytes in {}", length + 2, shown(&path)))
    }

    fn fill(&mut self, directory: &OwnedFd) -> Result<(), Errno> {
        self.fill_named(directory, "data")
    }

    fn fill_named(&mut self, directory: &OwnedFd, name: &str) -> Result<(), Errno> {
        let file = create(directory, OsStr::new(name))?;
        let text = self.noise.below(usize::MAX).to_string();
        rustix::io::write(&file, text.as_bytes()).map(drop)
    }

    fn make_directory(&mut self) -> Done {
        let ((parent, path), name) = (self.directory()?, self.name());
        mkdirat(&parent, &name, Mode::from_raw_mode(0o755))?;
        Ok(format!("directory {}", shown(&path.join(name))))
    }

    fn write(&mut self) -> Done {
        let ((parent, path), name) = (self.directory()?, self.name());
        let file = create(&parent, &name)?;
        let length = [0, 10, 4096, 70_000][self.noise.below(4)];
        let text: Vec<u8> = (0..length).map(|at| u8::try_from(at % 251).unwrap_or(0)).collect();
        rustix::io::write(&file, &text)?;
        Ok(format!("file {} of {length}", shown(&path.join(name))))
    }

    fn hole(&mut self) -> Done {
        let ((parent, path), name) = (self.directory()?, self.name());
        let file = create(&parent, &name)?;
        let length = [7 << 60, i64::MAX as u64, 1 << 40, 5000][self.noise.below(4)];
        ftruncate(&file, length)?;
        if self.chance(30) {
            rustix::io::pwrite(&file, b"end", length - 3)?;
        }
        Ok(format!("hole {} of {length}", shown(&path.join(name))))
    }

    fn link(&mut self) -> Done {
        let targets =
            ["/etc", "..", ".", "/proc/self/root", "loop", "docs", "../../etc/machine-id"];
        let ((parent, path), name) = (self.directory()?, self.name());
        let target = targets[self.noise.below(targets.len())];
        if self.chance(30) {
            let aside = self.name();
            renameat(&parent, &name, &parent, &aside)?;
        }
        symlinkat(target, &parent, &name)?;
        Ok(format!("link {} to {target}", shown(&path.join(name))))
    }

    fn hard_link(&mut self) -> Done {
        let (from, old, first) = self.entry()?;
        let (to, path) = self.directory()?;
        let name = self.name();
        linkat(&from, &old, &to, &name, AtFlags::empty())?;
        Ok(format!("hard link {} to {}", shown(&path.join(name)), shown(&first)))
    }

    fn node(&mut self) -> Done {
        let ((parent, path), name) = (self.directory()?, self.name());
        let kind = [FileType::Fifo, FileType::Socket][self.noise.below(2)];
        mknodat(&parent, &name, kind, Mode::from_raw_mode(0o644), 0)?;
        Ok(format!("{kind:?} {}", shown(&path.join(name))))
    }

    fn mode(&mut self) -> Done {
        let (parent, name, path) = self.entry()?;
        let modes = [0, 0o700, 0o777, 0o4755, 0o2770, 0o1777, 0o500, 0o644];
        let mode = modes[self.noise.below(modes.len())];
        let status = at::status(parent.as_fd(), &at::c_name(&name).map_err(|_| Errno::INVAL)?)?;
        if at::kind(&status) == FileType::Symlink {
            return Err(Errno::LOOP);
        }
        rustix::fs::chmodat(&parent, &name, Mode::from_raw_mode(mode), AtFlags::empty())?;
        Ok(format!("mode {mode:o} {}", shown(&path)))
    }

    /// Some file or directory, opened.
    fn opened(&mut self) -> Result<(OwnedFd, PathBuf), Errno> {
        let (parent, name, path) = self.entry()?;
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
        Ok((openat(&parent, &name, flags, Mode::empty())?, path))
    }

    fn attributes(&mut self) -> Done {
        let (file, path) = self.opened()?;
        let value = vec![7; [0, 20, 3000, 60_000][self.noise.below(4)]];
        let mut set = 0;
        for number in 0..=self.noise.below(30) {
            let name = format!("user.{number}.{}", "n".repeat(self.noise.below(200)));
            match rustix::fs::fsetxattr(&file, name.as_str(), &value, XattrFlags::empty()) {
                Ok(()) => set += 1,
                Err(_) => break,
            }
        }
        if self.chance(20) {
            let kinds: [&[u8]; 3] = [b"zstd", b"lzo", b"none"];
            let kind = kinds[self.noise.below(3)];
            rustix::fs::fsetxattr(&file, "btrfs.compression", kind, XattrFlags::empty())?;
        }
        Ok(format!("{set} attributes of {} bytes on {}", value.len(), shown(&path)))
    }

    fn access_list(&mut self) -> Done {
        let (file, path) = self.opened()?;
        let name = ["system.posix_acl_access", "system.posix_acl_default"][self.noise.below(2)];
        let list = plant::example_acl(5, 6);
        rustix::fs::fsetxattr(&file, name, &list, XattrFlags::empty())?;
        Ok(format!("{name} on {}", shown(&path)))
    }

    fn rename(&mut self) -> Done {
        let (from, old, first) = self.entry()?;
        let (to, path) = self.directory()?;
        let name = self.name();
        renameat(&from, &old, &to, &name)?;
        Ok(format!("rename {} to {}", shown(&first), shown(&path.join(name))))
    }

    fn flags(&mut self) -> Done {
        let (file, path) = self.opened()?;
        let all = [
            IFlags::NOCOW,
            IFlags::COMPRESSED,
            IFlags::NODUMP,
            IFlags::NOATIME,
            IFlags::SYNC,
            IFlags::DIRSYNC,
            IFlags::IMMUTABLE,
        ];
        let flag = all[self.noise.below(all.len())];
        ioctl_setflags(&file, ioctl_getflags(&file)? ^ flag)?;
        Ok(format!("{flag:?} on {}", shown(&path)))
    }

    fn times(&mut self) -> Done {
        let (file, path) = self.opened()?;
        let seconds = [-1, 0, 1 << 40, -(1 << 40), 4_000_000_000][self.noise.below(5)];
        let time = Timespec { tv_sec: seconds, tv_nsec: 999_999_999 };
        futimens(&file, &Timestamps { last_access: time, last_modification: time })?;
        Ok(format!("time {seconds} of {}", shown(&path)))
    }

    fn remove(&mut self) -> Done {
        let (parent, name, path) = self.entry()?;
        match unlinkat(&parent, &name, AtFlags::empty()) {
            Err(Errno::ISDIR) => unlinkat(&parent, &name, AtFlags::REMOVEDIR)?,
            removed => removed?,
        }
        Ok(format!("remove {}", shown(&path)))
    }

    fn deep(&mut self) -> Done {
        let (mut here, path) = self.directory()?;
        let name = "d".repeat([1, 250][self.noise.below(2)]);
        let levels = 1 + self.noise.below(60);
        for _ in 0..levels {
            mkdirat(&here, name.as_str(), Mode::from_raw_mode(0o755))?;
            here = open(&here, OsStr::new(&name))?;
        }
        self.fill(&here)?;
        Ok(format!("{levels} levels of {} bytes in {}", name.len(), shown(&path)))
    }

    fn many(&mut self) -> Done {
        let (parent, path) = self.directory()?;
        let count = self.noise.below(300);
        for number in 0..count {
            create(&parent, OsStr::new(&format!("many-{number}")))?;
        }
        Ok(format!("{count} files in {}", shown(&path)))
    }

    /// What looks like a swap file.
    fn swap(&mut self) -> Done {
        let ((parent, path), name) = (self.directory()?, self.name());
        let file = create(&parent, &name)?;
        if let Ok(flags) = ioctl_getflags(&file) {
            let set = ioctl_setflags(&file, flags | IFlags::NOCOW);
            self.log.push(format!("no copy on write {set:?}"));
        }
        rustix::io::write(&file, &vec![0; 1 << 16])?;
        rustix::io::pwrite(&file, b"SWAPSPACE2", 4086)?;
        Ok(format!("swap {}", shown(&path.join(name))))
    }

    fn project(&mut self) -> Done {
        let (file, path) = self.opened()?;
        let project = u32::try_from(self.noise.below(5)).unwrap_or(0);
        btrfs::set_project(&file, project)?;
        let inherit = IFlags::from_bits_retain(0x2000_0000);
        let set = ioctl_setflags(&file, ioctl_getflags(&file)? ^ inherit);
        Ok(format!("project {project} on {}, inherited {set:?}", shown(&path)))
    }

    /// Makes a persisted path again that was perhaps moved away.
    fn path_again(&mut self) -> Done {
        let way = [".local", "share", "keyrings"];
        let mut here = open(&self.homes[0], OsStr::new("."))?;
        for name in way {
            match mkdirat(&here, name, Mode::RWXU) {
                Ok(()) | Err(Errno::EXIST) => {}
                Err(error) => return Err(error),
            }
            here = open(&here, OsStr::new(name))?;
        }
        self.fill(&here)?;
        Ok(format!("made again {}", way.join("/")))
    }
}
