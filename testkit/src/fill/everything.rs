//! At least one of every kind of entry and of every attribute.

use std::ffi::OsStr;
use std::fmt;
use std::io;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};
use rustix::fs::{FileType, OFlags};
use rustix::io::Errno;

use crate::attributes::Attribute;
use crate::flags::Flags;
use crate::plant;
use crate::project;
use crate::tree::Time;

/// Something that the filesystem (or the want of a privilege) refused to make.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Refusal {
    /// What was tried.
    pub what: &'static str,
    /// What the kernel said, as an errno.
    pub errno: i32,
}

impl fmt::Display for Refusal {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{}: {}", self.what, Errno::from_raw_os_error(self.errno))
    }
}

/// What [`everything_but`] is to make beside the rest.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Wanted {
    /// Levels of the deep directory; the default makes a path of more than 4096 bytes.
    pub deep_levels: usize,
    /// Whether to make immutable and append-only entries, which nothing but
    /// [`remove`](crate::remove) takes away again.
    pub locked: bool,
    /// A project id to give to a file; btrfs has none.
    pub project: Option<u32>,
}

impl Default for Wanted {
    fn default() -> Self {
        Self { deep_levels: 320, locked: true, project: None }
    }
}

/// Makes a tree with everything in an existing directory, and says what was refused. On btrfs, as
/// root, that is nothing.
pub fn everything(dir: &Path) -> Result<Vec<Refusal>> {
    everything_but(dir, &Wanted::default())
}

/// Makes a tree with everything but what is not wanted, and says what was refused.
pub fn everything_but(dir: &Path, wanted: &Wanted) -> Result<Vec<Refusal>> {
    let mut filler = Filler { dir: dir.to_path_buf(), refused: Vec::new() };
    filler.types()?;
    filler.names()?;
    filler.ownership_and_modes()?;
    filler.xattrs()?;
    filler.acls()?;
    filler.hard_links()?;
    filler.sparse()?;
    filler.flags()?;
    filler.times()?;
    if wanted.deep_levels > 0 {
        super::deep(&filler.directory("deep")?, wanted.deep_levels, "level-of-a-deep-path")?;
    }
    if let Some(id) = wanted.project {
        let path = filler.file("in-a-project")?;
        filler
            .attempt("project", || Ok(project::write(plant::open(&path, OFlags::RDONLY)?, id)?))?;
    }
    if wanted.locked {
        filler.locked()?;
    }
    Ok(filler.refused)
}

struct Filler {
    dir: PathBuf,
    refused: Vec<Refusal>,
}

impl Filler {
    fn at(&self, path: impl AsRef<OsStr>) -> PathBuf {
        self.dir.join(Path::new(path.as_ref()))
    }

    fn directory(&self, path: &str) -> Result<PathBuf> {
        let path = self.at(path);
        std::fs::create_dir(&path).with_context(|| format!("cannot make {}", path.display()))?;
        Ok(path)
    }

    fn file(&self, path: impl AsRef<OsStr>) -> Result<PathBuf> {
        let path = self.at(path);
        let text = format!("this is {}\n", path.file_name().unwrap_or_default().display());
        std::fs::write(&path, text).with_context(|| format!("cannot write {}", path.display()))?;
        Ok(path)
    }

    /// Tries something that a filesystem may refuse; any other error is one.
    fn attempt(&mut self, what: &'static str, step: impl FnOnce() -> io::Result<()>) -> Result<()> {
        let Err(why) = step() else { return Ok(()) };
        let errno = Errno::from_io_error(&why);
        match errno {
            Some(
                Errno::PERM
                | Errno::ACCESS
                | Errno::OPNOTSUPP
                | Errno::INVAL
                | Errno::NOTTY
                | Errno::NAMETOOLONG
                | Errno::NOSPC
                | Errno::TOOBIG
                | Errno::OVERFLOW
                | Errno::RANGE,
            ) => {
                self.refused
                    .extend(errno.map(|errno| Refusal { what, errno: errno.raw_os_error() }));
                Ok(())
            }
            _ => Err(why).context(what),
        }
    }

    fn types(&mut self) -> Result<()> {
        let dir = self.directory("types")?;
        std::fs::write(dir.join("empty"), "")?;
        let odd: Vec<u8> = (0..12_345_u32).map(|number| (number % 251) as u8).collect();
        std::fs::write(dir.join("odd-size"), odd)?;
        let large: Vec<u8> = (0..1_500_001_u32).map(|number| (number / 7 % 253) as u8).collect();
        std::fs::write(dir.join("larger"), large)?;
        std::fs::create_dir(dir.join("empty-directory"))?;
        symlink("/etc/nowhere/at/all", dir.join("symlink-dangling"))?;
        symlink("odd-size", dir.join("symlink-relative"))?;
        symlink("/", dir.join("symlink-absolute"))?;
        symlink(OsStr::from_bytes(b"../\xff\n"), dir.join("symlink-odd"))?;
        let long = "long/".repeat(819);
        self.attempt("symlink of 4095 bytes", || symlink(&long, dir.join("symlink-long")))?;
        self.attempt("fifo", || plant::node(&dir.join("fifo"), FileType::Fifo, 0, 0))?;
        self.attempt("socket", || plant::node(&dir.join("socket"), FileType::Socket, 0, 0))?;
        self.attempt("character device", || {
            plant::node(&dir.join("character-device"), FileType::CharacterDevice, 1, 3)
        })?;
        self.attempt("block device", || {
            plant::node(&dir.join("block-device"), FileType::BlockDevice, 259, 65_537)
        })
    }

    fn names(&mut self) -> Result<()> {
        let dir = self.directory("names")?;
        let longest = "n".repeat(255);
        let names: [(&'static str, &[u8]); 8] = [
            ("name with a newline", b"new\nline"),
            ("name that is no UTF-8", b"not \xff\xfe utf-8"),
            ("name of 255 bytes", longest.as_bytes()),
            ("name with a leading dash", b"-rf"),
            ("name with spaces and quotes", b" ' \" $(x) \\ "),
            ("name with a glob", b"*"),
            ("name of dots", b"..."),
            ("name with umlauts", "gr\u{fc}n".as_bytes()),
        ];
        for (what, name) in names {
            let path = dir.join(OsStr::from_bytes(name));
            self.attempt(what, || std::fs::write(&path, what))?;
        }
        Ok(())
    }

    fn ownership_and_modes(&mut self) -> Result<()> {
        self.directory("modes")?;
        let owned = self.file("modes/owned")?;
        self.attempt("owner and group", || plant::owner(&owned, 1000, 100))?;
        let large = self.file("modes/owned-by-a-large-id")?;
        self.attempt("owner and group", || plant::owner(&large, 3_000_000_001, 3_000_000_002))?;
        let link = self.at("modes/owned-symlink");
        symlink("owned", &link)?;
        self.attempt("owner of a symlink", || plant::owner(&link, 1000, 100))?;
        let setuid = self.file("modes/setuid")?;
        self.attempt("setuid", || plant::mode(&setuid, 0o4755))?;
        let setuid = self.file("modes/setuid-of-another")?;
        self.attempt("setuid", || {
            plant::owner(&setuid, 1000, 100).and_then(|()| plant::mode(&setuid, 0o6751))
        })?;
        let setgid = self.directory("modes/setgid")?;
        self.attempt("setgid", || {
            plant::owner(&setgid, 0, 100).and_then(|()| plant::mode(&setgid, 0o2775))
        })?;
        let sticky = self.directory("modes/sticky")?;
        self.attempt("sticky", || plant::mode(&sticky, 0o1777))?;
        let secret = self.file("modes/no-permission")?;
        self.attempt("mode 0000", || plant::mode(&secret, 0))?;
        let closed = self.directory("modes/closed")?;
        self.file("modes/closed/inside")?;
        self.attempt("directory of mode 0000", || plant::mode(&closed, 0))
    }

    fn xattrs(&mut self) -> Result<()> {
        self.directory("xattrs")?;
        let file = self.file("xattrs/file")?;
        let directory = self.directory("xattrs/directory")?;
        let link = self.at("xattrs/symlink");
        symlink("file", &link)?;
        for path in [&file, &directory] {
            self.attempt("user xattr", || plant::xattr(path, "user.color", b"red\0\xff"))?;
            self.attempt("empty user xattr", || plant::xattr(path, "user.empty", b""))?;
            self.attempt("trusted xattr", || plant::xattr(path, "trusted.keep", b"yes"))?;
            self.attempt("security label", || plant::xattr(path, "security.selinux", LABEL))?;
        }
        self.attempt("large user xattr", || plant::xattr(&file, "user.large", &[b'x'; 3000]))?;
        self.attempt("trusted xattr of a symlink", || {
            plant::xattr(&link, "trusted.keep", b"link")
        })?;
        self.attempt("security label of a symlink", || {
            plant::xattr(&link, "security.selinux", LABEL)
        })?;
        for (what, name, kind) in [
            ("trusted xattr of a fifo", "fifo", FileType::Fifo),
            ("trusted xattr of a socket", "socket", FileType::Socket),
            ("trusted xattr of a character device", "character-device", FileType::CharacterDevice),
            ("trusted xattr of a block device", "block-device", FileType::BlockDevice),
        ] {
            let path = self.at("xattrs").join(name);
            self.attempt(what, || {
                plant::node(&path, kind, 1, 7)?;
                plant::xattr(&path, "trusted.keep", name.as_bytes())
            })?;
        }
        let capable = self.file("xattrs/capable")?;
        self.attempt("file capability", || {
            plant::owner(&capable, 1000, 100)?;
            plant::mode(&capable, 0o755)?;
            plant::xattr(&capable, "security.capability", &plant::file_capability(13))
        })
    }

    fn acls(&mut self) -> Result<()> {
        self.directory("acls")?;
        let file = self.file("acls/file")?;
        self.attempt("access ACL", || {
            plant::xattr(&file, "system.posix_acl_access", &plant::example_acl(1001, 1002))
        })?;
        let directory = self.directory("acls/directory")?;
        self.attempt("default ACL", || {
            plant::xattr(&directory, "system.posix_acl_access", &plant::example_acl(1003, 1004))?;
            plant::xattr(&directory, "system.posix_acl_default", &plant::example_acl(1005, 1006))
        })?;
        self.file("acls/directory/inherits")?;
        self.directory("acls/directory/inherits-too")?;
        let only = self.directory("acls/only-default")?;
        self.attempt("default ACL", || {
            plant::xattr(&only, "system.posix_acl_default", &plant::example_acl(1007, 1008))
        })
    }

    fn hard_links(&mut self) -> Result<()> {
        self.directory("links")?;
        self.directory("links/elsewhere")?;
        let first = self.file("links/first")?;
        let (second, third) = (self.at("links/second"), self.at("links/elsewhere/third"));
        self.attempt("hard link", || std::fs::hard_link(&first, second))?;
        self.attempt("hard link across directories", || std::fs::hard_link(&first, third))?;
        let (link, again) = (self.at("links/symlink"), self.at("links/symlink-again"));
        symlink("first", &link)?;
        self.attempt("hard link of a symlink", || std::fs::hard_link(&link, again))?;
        let (fifo, again) = (self.at("links/fifo"), self.at("links/elsewhere/fifo-again"));
        self.attempt("hard link of a fifo", || {
            plant::node(&fifo, FileType::Fifo, 0, 0)?;
            std::fs::hard_link(&fifo, again)
        })
    }

    fn sparse(&mut self) -> Result<()> {
        const PIECE: u64 = 256 * 1024;
        let dir = self.directory("sparse")?;
        let block = [b's'; 4096];
        plant::sparse_file(&dir.join("hole-at-the-start"), PIECE + 4096, &[(PIECE, &block)])?;
        plant::sparse_file(
            &dir.join("hole-in-the-middle"),
            PIECE + 4096,
            &[(0, &block), (PIECE, &block)],
        )?;
        plant::sparse_file(&dir.join("hole-at-the-end"), PIECE + 1234, &[(0, &block)])?;
        plant::sparse_file(&dir.join("only-a-hole"), (8 << 20) + 1, &[])?;
        let offsets = [2 * PIECE, 5 * PIECE, 9 * PIECE];
        plant::sparse_file(
            &dir.join("several-holes"),
            12 * PIECE,
            &offsets.map(|at| (at, &block[..])),
        )?;
        plant::sparse_file(&dir.join("zeros-that-are-data"), PIECE, &[(0, &vec![0; 65536])])?;
        self.attempt("preallocated file", || {
            plant::preallocated_file(&dir.join("preallocated"), PIECE)
        })
    }

    fn flags(&mut self) -> Result<()> {
        self.directory("flags")?;
        for (what, attribute, on_file) in [
            ("nocow file", Attribute::NoCow, true),
            ("compress file", Attribute::Compress, true),
            ("nocompress file", Attribute::NoCompress, true),
            ("nodump file", Attribute::NoDump, true),
            ("noatime file", Attribute::NoAccessTime, true),
            ("sync file", Attribute::Synchronous, true),
            ("nocow directory", Attribute::NoCow, false),
            ("compress directory", Attribute::Compress, false),
            ("nocompress directory", Attribute::NoCompress, false),
            ("nodump directory", Attribute::NoDump, false),
            ("noatime directory", Attribute::NoAccessTime, false),
            ("sync directory", Attribute::Synchronous, false),
            ("dirsync directory", Attribute::SynchronousDirectory, false),
        ] {
            let path = self.at("flags").join(what.replace(' ', "-"));
            self.attempt(what, || {
                if on_file {
                    plant::file(&path, &what.as_bytes().repeat(3000), Flags::of(attribute))?;
                    plant::flags(&path, Flags::of(attribute))
                } else {
                    std::fs::create_dir(&path)?;
                    plant::flags(&path, Flags::of(attribute))?;
                    std::fs::write(path.join("inherits"), what.repeat(1000))
                }
            })?;
        }
        Ok(())
    }

    fn times(&mut self) -> Result<()> {
        self.directory("times")?;
        let at = |seconds, nanoseconds| Time { seconds, nanoseconds };
        for (what, name, mtime) in [
            ("time in the past", "times/past", at(981_173_106, 123_456_789)),
            ("time before 1970", "times/before-1970", at(-86_401, 999_999_999)),
            ("time after 2038", "times/after-2038", at(4_102_444_800, 1)),
            ("time zero", "times/zero", at(0, 0)),
        ] {
            let path = self.file(name)?;
            self.attempt(what, || plant::times(&path, at(mtime.seconds + 1, 987_654_321), mtime))?;
        }
        for (what, name, kind) in [
            ("time of a fifo", "fifo", FileType::Fifo),
            ("time of a socket", "socket", FileType::Socket),
            ("time of a device", "device", FileType::CharacterDevice),
        ] {
            let path = self.at("times").join(name);
            self.attempt(what, || {
                plant::node(&path, kind, 1, 5)?;
                plant::times(&path, at(1_000_000_001, 5), at(1_000_000_002, 7))
            })?;
        }
        let link = self.at("times/symlink");
        symlink("past", &link)?;
        self.attempt("time of a symlink", || {
            plant::times(&link, at(1_111_111_111, 3), at(1_222_222_222, 33))
        })?;
        let dir = self.directory("times/directory")?;
        self.file("times/directory/made-before-the-time-was-set")?;
        self.attempt("time of a directory", || {
            plant::times(&dir, at(1_333_333_333, 31), at(1_444_444_444, 41))
        })
    }

    /// Last, because nothing can be done to these afterwards.
    fn locked(&mut self) -> Result<()> {
        self.directory("locked")?;
        for (what, attribute) in
            [("immutable", Attribute::Immutable), ("append-only", Attribute::AppendOnly)]
        {
            let file = self.file(format!("locked/{what}-file"))?;
            let empty = self.directory(&format!("locked/{what}-empty-directory"))?;
            let full = self.directory(&format!("locked/{what}-directory"))?;
            self.directory(&format!("locked/{what}-directory/below"))?;
            self.file(format!("locked/{what}-directory/below/file"))?;
            let both = self.file(format!("locked/{what}-directory/{what}-file"))?;
            for path in [&both, &file, &empty, &full] {
                self.attempt(what, || plant::flag(path, attribute))?;
            }
        }
        Ok(())
    }
}

const LABEL: &[u8] = b"system_u:object_r:etc_t:s0\0";
