//! Directories that are encrypted with fscrypt, whose key is not loaded in an initrd: the kernel says of
//! every name in them that nothing is there.

use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::common::{directory, encryption, put, quoted};
use anyhow::{Result, ensure};
use darlings_testkit::loopfs::{Filesystem, LoopFs, Options, run};
use darlings_testkit::{plant, skip_unless};

/// A directory on an ext4 that can encrypt, with the key loaded.
struct Volume {
    fs: LoopFs,
    key: String,
}

impl Volume {
    fn new() -> Result<Self> {
        let mut options = Options::new(Filesystem::Ext4);
        options.mkfs.extend(["-O".to_owned(), "encrypt".to_owned()]);
        let fs = LoopFs::with(options)?;
        std::fs::create_dir(fs.path().join("live"))?;
        let mut volume = Self { fs, key: String::new() };
        volume.key = volume.load()?;
        Ok(volume)
    }

    fn live(&self) -> PathBuf {
        self.fs.path().join("live")
    }

    fn top(&self) -> Result<OwnedFd> {
        Ok(std::fs::File::open(self.fs.path())?.into())
    }

    /// Loads the key, and answers which one it is.
    fn load(&self) -> Result<String> {
        encryption::load(&encryption::KEY, &self.top()?)
    }

    /// Makes an encrypted directory.
    fn encrypt(&self, at: &Path) -> Result<()> {
        std::fs::create_dir_all(at)?;
        encryption::encrypt(&std::fs::File::open(at)?.into(), &self.key)
    }

    /// Takes the key away, as it is at the next boot.
    fn lock(&self) -> Result<()> {
        rustix::fs::syncfs(self.top()?)?;
        let said = encryption::unload(&self.key, &self.top()?)?;
        ensure!(!said.contains("still in use"), "{said}");
        Ok(())
    }

    /// Everything that is there; files in a locked directory cannot be opened.
    fn names(&self) -> Result<Vec<String>> {
        let all =
            run(Command::new("find").arg(self.fs.path()).args(["-printf", "%p %y %i %T@ %C@\n"]))?;
        let mut lines: Vec<_> = all.lines().map(str::to_owned).collect();
        lines.sort();
        Ok(lines)
    }

    fn run(&self, arguments: &[&str], path: &Path, persist: &str) -> Result<directory::Ran> {
        let at = self.fs.holder().join("darlings.toml");
        let path = quoted(&path.display().to_string());
        let head = "[[volume]]\nmount_point = \"/\"\nkeep = { generations = 1 }\n";
        let config = format!("{head}dir = {{ path = {path}, blank = \"empty\" }}\n{persist}");
        std::fs::write(&at, config)?;
        directory::ran(directory::command(&[], arguments, &at))
    }
}

fn persist(path: &str, exclude: &str) -> String {
    format!("[[persist]]\npath = \"{path}\"\nexclude = [{exclude}]\n")
}

#[test]
fn what_is_below_an_encrypted_directory_is_refused_whether_its_key_is_loaded_or_not() -> Result<()>
{
    skip_unless!(encryption::can_encrypt(), Ok(()));
    let volume = Volume::new()?;
    let live = volume.live();
    volume.encrypt(&live.join("home/mia"))?;
    volume.encrypt(&live.join("whole"))?;
    put(&live, "home/mia/work/thesis", "precious")?;
    put(&live, "whole/etc/id", "precious")?;
    put(&live, "etc/erased", "erased")?;
    let found = "above it is encrypted with fscrypt: without its key nothing in it is found, and a new \
                 directory in its place would not be encrypted; persist home/mia itself, without \
                 exclusions";
    let cases = [
        (live.clone(), persist("/home/mia/work", ""), format!("home/mia/work is persisted, and home/mia {found}")),
        (live.clone(), persist("/home/mia/never", ""), format!("home/mia/never is persisted, and home/mia {found}")),
        (live.clone(), persist("/home", "\"mia/.cache\""), format!("home/mia/.cache is excluded, and home/mia {found}")),
        (
            live.join("whole"),
            persist("/etc/id", ""),
            "the volume's root is encrypted with fscrypt, and without its key nothing in it is found; \
             reset a volume that is not inside an encrypted directory"
                .to_owned(),
        ),
    ];
    for is_locked in [false, true] {
        if is_locked {
            volume.lock()?;
            ensure!(!live.join("home/mia/work").exists(), "the key is still loaded");
        }
        let before = volume.names()?;
        for (path, persist, words) in &cases {
            let reset = volume.run(&["reset"], path, persist)?;
            assert_eq!(reset.code, Some(10), "{}", reset.stderr);
            let last = format!("error: no volume was reset; all are as they were: /: {words}");
            assert_eq!(reset.stderr.lines().last(), Some(last.as_str()));
            let check = volume.run(&["check"], path, persist)?;
            assert_eq!(check.code, Some(1), "{words}");
            assert_eq!(volume.names()?, before);
        }
    }
    volume.load()?;
    assert_eq!(std::fs::read_to_string(live.join("home/mia/work/thesis"))?, "precious");
    volume.fs.close()
}

#[test]
fn an_encrypted_directory_itself_is_kept_without_its_key_and_another_one_is_erased() -> Result<()> {
    skip_unless!(encryption::can_encrypt(), Ok(()));
    let volume = Volume::new()?;
    let live = volume.live();
    for home in ["home/mia", "home/zoe", "srv/locked"] {
        volume.encrypt(&live.join(home))?;
        put(&live, &format!("{home}/work/thesis"), "precious")?;
    }
    volume.lock()?;
    let list = persist("/home/mia", "") + &persist("/srv", "");
    let check = volume.run(&["check"], &live, &list)?;
    assert_eq!(check.code, Some(0), "{}", check.stderr);
    for number in 1..=3 {
        let reset = volume.run(&["reset"], &live, &list)?;
        assert_eq!(reset.code, Some(0), "reset {number}: {}", reset.stderr);
    }
    let purge = volume.run(&["purge"], &live, &list)?;
    assert_eq!(purge.code, Some(0), "{}", purge.stderr);
    assert!(!live.join(".darlings/generations/1").exists());
    assert!(!live.join("home/zoe").exists());
    volume.load()?;
    for home in ["home/mia", "srv/locked"] {
        let thesis = live.join(home).join("work/thesis");
        assert_eq!(std::fs::read_to_string(&thesis)?, "precious", "{home}");
        // What is made there is still encrypted.
        put(&live, &format!("{home}/new"), "encrypted")?;
        let policy = encryption::policy(&live.join(home).join("new"))?;
        assert!(policy.contains(&volume.key), "{home}: {policy}");
    }
    volume.fs.close()
}

#[test]
fn a_directory_that_a_user_has_encrypted_is_kept_as_a_whole_and_the_rest_is_reset() -> Result<()> {
    skip_unless!(encryption::can_encrypt(), Ok(()));
    let volume = Volume::new()?;
    let live = volume.live();
    volume.encrypt(&live.join("home/mia/.local"))?;
    volume.encrypt(&live.join("home/mia/docs"))?;
    put(&live, "home/mia/.local/share/keyrings/key", "precious")?;
    put(&live, "home/mia/.local/bin/tool", "kept along")?;
    put(&live, "home/mia/docs/cache/page", "kept along")?;
    for path in ["home/mia", "home/mia/.local", "home/mia/docs"] {
        plant::owner(&live.join(path), 1000, 1000)?;
    }
    volume.lock()?;
    let list =
        persist("/home/mia/.local/share/keyrings", "") + &persist("/home/mia/docs", "\"cache\"");
    let whole = |path: &str| {
        format!(
            "/home/mia/{path} is kept as a whole, and not only what is persisted in it: it is encrypted with \
             fscrypt, and a reset cannot see what is in it; persist it, or put a plain directory in its place"
        )
    };
    for number in 1..=3 {
        put(&live, "home/mia/erased", "erased")?;
        let check = volume.run(&["check", "--fstab", "/dev/null"], &live, &list)?;
        assert_eq!(check.code, Some(0), "{}{}", check.stdout, check.stderr);
        let reset = volume.run(&["reset"], &live, &list)?;
        assert_eq!(reset.code, Some(0), "reset {number}: {}", reset.stderr);
        for path in [".local", "docs"] {
            assert!(check.stdout.contains(&whole(path)), "{}", check.stdout);
            assert!(reset.stderr.contains(&whole(path)), "{}", reset.stderr);
        }
        assert!(!live.join("home/mia/erased").exists(), "it was not reset");
    }
    volume.load()?;
    for (path, what) in [
        (".local/share/keyrings/key", "precious"),
        (".local/bin/tool", "kept along"),
        ("docs/cache/page", "kept along"),
    ] {
        assert_eq!(std::fs::read_to_string(live.join("home/mia").join(path))?, what);
    }
    put(&live, "home/mia/.local/new", "encrypted")?;
    let policy = encryption::policy(&live.join("home/mia/.local/new"))?;
    assert!(policy.contains(&volume.key), "{policy}");
    volume.fs.close()
}
