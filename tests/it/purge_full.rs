//! A purge on a filesystem that has no room for anything new, which is where it is needed.

use std::path::Path;

use crate::common::looking::Directory;
use crate::common::purge::machine_after;
use crate::common::{self, Machine, put};
use anyhow::{Context as _, Result, ensure};
use darlings_testkit::loopfs::{Filesystem, LoopFs, Options};
use darlings_testkit::{capability, skip_unless};
use rustix::io::Errno;

/// Fills a filesystem with data, and then with whatever still finds room without any.
fn fill_up(fs: &LoopFs) -> Result<()> {
    fs.fill_up()?;
    let many = fs.path().join("many");
    let mut made = 0;
    // A symbolic link that is so long lies in the metadata of btrfs and in a block elsewhere.
    let target = "x".repeat(1000);
    let link = |path: &Path| std::os::unix::fs::symlink(&target, path);
    let directory = |path: &Path| std::fs::create_dir(path);
    for make in [&link as &dyn Fn(&Path) -> std::io::Result<()>, &directory] {
        let mut refused = 0;
        while refused < 20 {
            match make(&many.join(made.to_string())) {
                Ok(()) => {}
                Err(error) if Errno::from_io_error(&error) == Some(Errno::NOSPC) => {
                    refused += 1;
                    // What is reserved for others comes back.
                    rustix::fs::syncfs(std::fs::File::open(&many)?)?;
                }
                Err(error) => return Err(error).context("cannot fill up"),
            }
            made += 1;
        }
    }
    let new = std::fs::create_dir(fs.path().join("new"));
    ensure!(new.is_err(), "there is room after {made}");
    Ok(())
}

/// Generations 1 to 4 of a directory, and something old in the attic.
fn directory(options: Options) -> Result<Directory> {
    let rules = "keep = { generations = 1, days = 30 }\n[[persist]]\npath = \"/keep\"\n";
    let directory = Directory::on(LoopFs::with(options)?, rules, |_| Ok(()))?;
    let live = directory.live();
    std::fs::create_dir(directory.fs.path().join("many"))?;
    put(&live, "keep/file", "kept")?;
    for number in 1..=4 {
        put(&live, &format!("of/{number}"), &"goes".repeat(10_000))?;
        directory.reset()?;
    }
    put(&live.join(".darlings/attic/1"), "old", "goes")?;
    put(
        &live.join(".darlings/attic"),
        "1.json",
        r#"{"version":1,"time":1767225600,"paths":["old"]}"#,
    )?;
    Ok(directory)
}

/// What a purge of it removes, and that it does.
fn purge(directory: &Directory) -> Result<()> {
    let said = directory.say(&["purge"])?;
    let generation = |number| {
        format!(
            "/: removed the generation TOP/live/.darlings/generations/{number}: more are there than \
             `keep.generations`\n"
        )
    };
    let mut expected: String = [1, 2, 3].map(generation).concat();
    expected.push_str("/: removed from the attic .darlings/attic/1: older than `keep.days`\n");
    said.is(0, "", &expected);
    let own = directory.live().join(".darlings");
    let names = |name: &str| common::directory::names(&own.join(name), &[]);
    assert_eq!((names("generations")?, names("attic")?), (vec!["4".to_owned()], Vec::new()));
    assert_eq!(std::fs::read_to_string(directory.live().join("keep/file"))?, "kept");
    Ok(())
}

fn on_full(options: Options) -> Result<()> {
    let filesystem = options.filesystem;
    let directory = directory(options)?;
    fill_up(&directory.fs)?;
    purge(&directory).with_context(|| format!("on {filesystem}"))?;
    directory.close()
}

#[test]
fn a_directory_on_a_full_filesystem_is_purged() -> Result<()> {
    skip_unless!(capability::root_and_ext4(), Ok(()));
    skip_unless!(capability::root_and_xfs(), Ok(()));
    skip_unless!(capability::root_and_btrfs(), Ok(()));
    on_full(Options::new(Filesystem::Ext4).size(64 << 20))?;
    on_full(Options::new(Filesystem::Xfs).size(300 << 20))?;
    on_full(Options::new(Filesystem::Btrfs).size(256 << 20))
}

#[test]
fn a_directory_on_a_filesystem_without_inodes_is_purged() -> Result<()> {
    skip_unless!(capability::root_and_ext4(), Ok(()));
    let mut options = Options::new(Filesystem::Ext4).size(64 << 20);
    options.mkfs.extend(["-N".to_owned(), "256".to_owned()]);
    let directory = directory(options)?;
    let many = directory.fs.path().join("many");
    let mut made = 0;
    while std::fs::write(many.join(made.to_string()), "").is_ok() {
        made += 1;
    }
    ensure!(made < 300, "{made}");
    purge(&directory)?;
    directory.close()
}

/// Of `machine_after(4)`, on a small btrfs, each generation with subvolumes nested in it.
fn machine() -> Result<Machine> {
    let options = Options::new(Filesystem::Btrfs).size(256 << 20).mount("subvolid=5");
    let mut machine = Machine::with(options, |_| Ok(()), |_| Ok(()))?.persist("/keep", &[]);
    "rollback".clone_into(&mut machine.strategy);
    std::fs::create_dir(machine.at("many"))?;
    let live = machine.volume.live();
    put(&live, "keep/file", "kept")?;
    for number in 1..=4 {
        put(&live, &format!("of/{number}"), &"goes".repeat(10_000))?;
        for path in ["@/srv", "@/srv/a"] {
            put(&machine.volume.make_subvolume(path)?, "file", "gone")?;
        }
        machine.read_only("@/srv", true)?;
        machine.reset_well()?;
    }
    put(&live, ".darlings/trash/4/file", "goes")?;
    Ok(machine)
}

#[test]
fn generations_on_a_btrfs_without_room_for_metadata_are_purged() -> Result<()> {
    skip_unless!(capability::root_and_btrfs(), Ok(()));
    let machine = machine()?;
    fill_up(&machine.volume.fs)?;
    let marked = std::fs::write(machine.at("@darlings/root/removing-1"), "");
    assert!(marked.is_err(), "there is room for the mark");
    let ran = machine.purge("generations = 1", &[])?;
    assert_eq!(ran.code, Some(0), "{}", ran.stderr);
    assert_eq!(machine.kept()?, ["4"]);
    let left =
        ["@", "@blank", "@darlings/root/4", "@darlings/root/4/srv", "@darlings/root/4/srv/a"];
    assert_eq!(machine.volume.subvolumes()?, left);
    assert!(!machine.volume.live().join(".darlings/trash/4").exists());
    machine.close()
}

/// What cannot be removed is said as such, and not that nothing is left.
#[test]
fn that_nothing_is_left_is_not_said_where_it_could_not_be_removed() -> Result<()> {
    skip_unless!(capability::root_and_btrfs(), Ok(()));
    let machine = machine_after(5)?;
    machine.volume.set_default("@darlings/root/2")?;
    let ran = machine.purge("min_free = \"99%\"", &[])?;
    assert_eq!(ran.code, Some(1), "{}", ran.stderr);
    assert_eq!(machine.kept()?, ["2", "3", "4", "5"]);
    let last = ran.stderr.lines().last().unwrap_or("");
    let words = "less than the 506.9 MiB that `keep.min_free` wants, and what may go for it could not be \
                 removed";
    assert!(last.ends_with(words), "{}", ran.stderr);
    machine.close()
}

#[test]
fn a_removal_that_was_interrupted_goes_on() -> Result<()> {
    skip_unless!(capability::root_and_ext4(), Ok(()));
    let directory = directory(Options::new(Filesystem::Ext4))?;
    let own = directory.live().join(".darlings");
    let renamed = |from: &str, to: &str| std::fs::rename(own.join(from), own.join(to));
    renamed("generations/2", "generations/removing-2")?;
    renamed("attic/1", "attic/removing-1")?;
    let listed = directory.say(&["generations"])?;
    assert!(
        listed.stdout.contains("  being removed: TOP/live/.darlings/generations/2\n"),
        "{listed:?}"
    );
    let said = directory.say(&["purge"])?;
    assert_eq!(said.code, Some(0), "{said:?}");
    let begun = "its removal was begun earlier\n";
    for words in [
        format!("/: removed the generation TOP/live/.darlings/generations/2: {begun}"),
        format!("/: removed from the attic .darlings/attic/1: {begun}"),
    ] {
        assert!(said.stderr.contains(&words), "{said:?}");
    }
    assert_eq!(common::directory::names(&own.join("generations"), &[])?, ["4"]);
    assert_eq!(common::directory::names(&own.join("attic"), &[])?, [""; 0]);
    directory.close()
}
