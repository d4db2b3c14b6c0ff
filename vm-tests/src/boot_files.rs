//! The kernel and the initrds: built once, kept outside the tree.
//!
//! `image/` holds the recipe. Each product is named by the hash of those files of
//! the recipe that it is made from, and is complete or absent: it is built under
//! another name and renamed. A lock lets two processes wait for one build.

use std::env;
use std::fs::{self, File};
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Instant;

use anyhow::{Context as _, Result, bail};
use rustix::fs::FlockOperation;
use sha2::{Digest as _, Sha256};

use crate::{Filesystem, program};

/// Where the recipe is.
const RECIPE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/image");
/// What the guests' Debian is made from: it takes minutes, so nothing else counts.
pub(crate) const DEBIAN: [&str; 2] = ["debian", "packages"];
/// What the kernel and the initrds are made from beside that.
const BOOT: [&str; 3] =
    ["kernel", "initrd", "initrd-files/etc/systemd/system/zfs-import-rpool.service"];
/// What starts a guest.
#[derive(Clone, Debug)]
pub struct BootFiles {
    /// The kernel, uncompressed.
    pub kernel: PathBuf,
    initrds: PathBuf,
}

impl BootFiles {
    /// The kernel and the initrds, built when they are not there yet.
    pub fn get() -> Result<Self> {
        let cache = Cache::open()?;
        let debian = cache.product("debian", &DEBIAN, "several minutes", |to| {
            recipe("debian", [to.join("tree").as_os_str()])
        })?;
        let tree = debian.join("tree");
        let made_from = [DEBIAN.as_slice(), &BOOT].concat();
        let boot = cache.product("boot", &made_from, "10 s", |to| {
            recipe("kernel", [tree.as_os_str(), to.join("kernel").as_os_str()])?;
            for filesystem in Filesystem::ALL {
                let name = filesystem.name();
                let initrd = to.join(format!("initrd-{name}"));
                recipe("initrd", [tree.as_os_str(), name.as_ref(), initrd.as_os_str()])?;
            }
            std::os::unix::fs::symlink(&tree, to.join("debian"))
                .context("cannot link the guests' Debian")
        })?;
        Ok(Self { kernel: boot.join("kernel"), initrds: boot })
    }

    /// The guests' Debian, as a tree. Not to be written to.
    pub(crate) fn debian(&self) -> PathBuf {
        self.initrds.join("debian")
    }

    /// The initrd that has a filesystem's module and tools.
    #[must_use]
    pub fn initrd(&self, filesystem: Filesystem) -> PathBuf {
        self.initrds.join(format!("initrd-{}", filesystem.name()))
    }
}

/// Runs a script of the recipe.
pub(crate) fn recipe<'a>(
    script: &str,
    arguments: impl IntoIterator<Item = &'a std::ffi::OsStr>,
) -> Result<()> {
    program::run(Command::new(recipe_path(script)).args(arguments)).map(drop)
}

/// Where a script of the recipe is.
pub(crate) fn recipe_path(script: &str) -> PathBuf {
    Path::new(RECIPE).join(script)
}

/// Where the products are kept.
pub(crate) struct Cache {
    directory: PathBuf,
}

impl Cache {
    pub(crate) fn open() -> Result<Self> {
        let parent = match (env::var_os("XDG_CACHE_HOME"), env::var_os("HOME")) {
            (Some(cache), _) if !cache.is_empty() => PathBuf::from(cache),
            (_, Some(home)) => PathBuf::from(home).join(".cache"),
            _ => bail!("neither XDG_CACHE_HOME nor HOME says where the images may be kept"),
        };
        let directory = parent.join("darlings-vm");
        fs::create_dir_all(&directory)
            .with_context(|| format!("cannot make {}", directory.display()))?;
        Ok(Self { directory })
    }

    /// The product's directory; `build` fills it when it does not exist.
    pub(crate) fn product(
        &self,
        name: &str,
        made_from: &[&str],
        takes: &str,
        build: impl FnOnce(&Path) -> Result<()>,
    ) -> Result<PathBuf> {
        let product = self.directory.join(format!("{name}-{}", hash(made_from)?));
        if product.exists() {
            return Ok(product);
        }
        let lock = self.directory.join(format!("{name}.lock"));
        let lock =
            File::create(&lock).with_context(|| format!("cannot make {}", lock.display()))?;
        rustix::fs::flock(&lock, FlockOperation::LockExclusive)
            .context("cannot lock the image cache")?;
        if product.exists() {
            return Ok(product);
        }

        let unfinished = self.directory.join(format!("{name}.unfinished"));
        // From a build that was killed: the lock says that nobody works on it.
        remove(&unfinished)?;
        fs::create_dir(&unfinished)
            .with_context(|| format!("cannot make {}", unfinished.display()))?;
        say(&format!("vm-tests: building {name} (takes {takes}, once)"));
        let started = Instant::now();
        let outcome = build(&unfinished).and_then(|()| {
            fs::rename(&unfinished, &product)
                .with_context(|| format!("cannot name {} when finished", unfinished.display()))
        });
        if let Err(error) = outcome {
            return Err(match remove(&unfinished) {
                Ok(()) => error,
                Err(second) => {
                    error.context(format!("and what was built so far stays: {second:#}"))
                }
            })
            .with_context(|| format!("cannot build the image's part {name}"));
        }
        say(&format!("vm-tests: built {name} in {:.0?}", started.elapsed()));
        Ok(product)
    }
}

/// Building takes minutes; a person must see that, so it goes past the test
/// harness, which would keep a line from `eprintln` until the end.
fn say(line: &str) {
    drop(writeln!(std::io::stderr(), "{line}"));
}

/// Never leaves the filesystem it starts on, whatever is mounted inside.
fn remove(directory: &Path) -> Result<()> {
    program::run(Command::new("rm").args(["-rf", "--one-file-system", "--"]).arg(directory))
        .map(drop)
}

fn hash(files: &[&str]) -> Result<String> {
    let mut hash = Sha256::new();
    for name in files {
        let path = Path::new(RECIPE).join(name);
        let content = fs::read(&path)
            .with_context(|| format!("cannot read the recipe {}", path.display()))?;
        hash.update(name.as_bytes());
        hash.update([0]);
        hash.update(content.len().to_le_bytes());
        hash.update(content);
    }
    Ok(format!("{:x}", hash.finalize()))
}
