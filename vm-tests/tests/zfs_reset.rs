//! The reset of ZFS datasets by the real binary, on real pools, in guests.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test may stop at once")]

mod zfs;

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;

use anyhow::{Context as _, Result, ensure};
use darlings_testkit::fill::{self, Wanted};
use darlings_testkit::{RelPath, Tree, plant};
use zfs::{
    DATASET, MARK, Machine, POOL, Ran, STAGE, Whole, change, create_pool, create_pool_on, export,
    home_of, import, in_guest, noise, property, put, reset, reset_below, sh, tree,
};

// --- what comes back -----------------------------------------------------------------------

/// What ZFS cannot hold, whatever its properties: flags that it does not have.
const REFUSED_BY_ZFS: [&str; 11] = [
    "nocow file: Operation not supported (os error 95)",
    "compress file: Operation not supported (os error 95)",
    "nocompress file: Operation not supported (os error 95)",
    "noatime file: Operation not supported (os error 95)",
    "sync file: Operation not supported (os error 95)",
    "nocow directory: Operation not supported (os error 95)",
    "compress directory: Operation not supported (os error 95)",
    "nocompress directory: Operation not supported (os error 95)",
    "noatime directory: Operation not supported (os error 95)",
    "sync directory: Operation not supported (os error 95)",
    "dirsync directory: Operation not supported (os error 95)",
];

#[test]
fn every_attribute_survives_a_reset_and_a_second_one_changes_nothing() -> Result<()> {
    in_guest("every_attribute_survives_a_reset_and_a_second_one_changes_nothing", || {
        every_attribute_survives("xattr=sa")
    })
}

#[test]
fn every_attribute_survives_where_extended_attributes_are_directories() -> Result<()> {
    in_guest("every_attribute_survives_where_extended_attributes_are_directories", || {
        every_attribute_survives("xattr=dir")
    })
}

fn every_attribute_survives(xattr: &str) -> Result<()> {
    let mut refused = Vec::new();
    let machine = Machine::new(
        &["-O", xattr],
        |blank| {
            connector(&blank.join("srv"), "from the blank", 1000)?;
            put(blank, "srv/keep/stays-erased", "absent in the previous state")?;
            put(blank, "srv/keep/sparse/of-the-blank", "excluded")?;
            put(blank, "etc/motd", "of the blank")
        },
        |live| {
            // Changed below the blank's connector, and a connector that the blank lacks.
            plant::mode(&live.join("srv"), 0o700)?;
            plant::xattr(&live.join("srv"), "user.of", b"somebody since")?;
            connector(&live.join("var"), "from the previous state", 2000)?;
            darlings_testkit::remove::all(&live.join("srv/keep"))?;
            fs::create_dir(live.join("srv/keep"))?;
            let wanted = Wanted { deep_levels: 210, ..Wanted::default() };
            for refusal in fill::everything_but(&live.join("srv/keep"), &wanted)? {
                refused.push(refusal.to_string());
            }
            let huge = live.join("srv/keep/huge-xattr");
            fs::write(&huge, "more than a system attribute holds")?;
            plant::xattr(&huge, "user.huge", &[b'h'; 60_000])?;
            put(live, "var/keep/file", "kept")?;
            fs::hard_link(live.join("var/keep/file"), live.join("srv/keep/in-both"))?;
            fs::hard_link(live.join("var/keep/file"), live.join("outside"))?;
            put(live, "etc/motd", "changed")?;
            put(live, "etc/new", "new")
        },
    )?
    .persist("srv/keep", &["sparse"])
    .persist("var/keep", &[])
    .persist("never/made", &[]);
    assert_eq!(refused, REFUSED_BY_ZFS);

    let expected = machine.expected()?;
    let ran = reset(&machine.config(), &[])?.well()?;
    machine.must_be(&expected).with_context(|| ran.stderr.clone())?;
    let ran = reset(&machine.config(), &[])?.well()?;
    machine.must_be(&expected).with_context(|| ran.stderr.clone())?;

    let result = tree(DATASET)?;
    let of = |path: &str| result.at(path).and_then(|entry| entry.xattrs.values().next().cloned());
    assert_eq!(of("srv").unwrap().as_bytes(), b"from the blank");
    assert_eq!(of("var").unwrap().as_bytes(), b"from the previous state");
    let links = |path: &str| result.at(path).unwrap().links.as_ref().map(|links| links.count);
    assert_eq!([links("var/keep/file"), links("srv/keep/in-both")], [Some(2), Some(2)]);
    assert!(result.at("srv/keep/sparse/of-the-blank").is_some());
    assert!(result.at("srv/keep/sparse/only-a-hole").is_none());
    assert!(result.at("never").is_none());
    Ok(())
}

/// A directory that has all that a connector can have, and passes it on.
fn connector(path: &Path, says: &str, seconds: i64) -> Result<()> {
    fs::create_dir(path)?;
    plant::owner(path, 1000, 100)?;
    plant::mode(path, 0o2771)?;
    plant::xattr(path, "user.of", says.as_bytes())?;
    plant::xattr(path, "system.posix_acl_default", &plant::example_acl(1003, 1004))?;
    let time = |seconds| darlings_testkit::Time { seconds, nanoseconds: 123_456_789 };
    Ok(plant::times(path, time(seconds), time(seconds + 1))?)
}

// --- block cloning -------------------------------------------------------------------------

const MIB: u64 = 1 << 20;

/// Fills a file with data that does not compress.
fn large_file(path: &Path, mebibytes: u64) -> Result<()> {
    use std::io::Write as _;
    let block = noise(1, 1 << 20);
    let mut file = fs::File::create(path)?;
    for _ in 0..mebibytes {
        file.write_all(&block)?;
    }
    Ok(())
}

/// What was written to the guest's disk so far, in bytes.
fn written() -> Result<u64> {
    let stat = fs::read_to_string("/sys/block/vda/stat")?;
    let sectors: u64 = stat.split_whitespace().nth(6).context("no such field")?.parse()?;
    Ok(sectors * 512)
}

/// A dataset with one large file that is kept, on the guest's disk.
fn machine_with_a_large_file(mebibytes: u64, options: &[&str]) -> Result<Machine> {
    create_pool_on(POOL, "/dev/vda", options)?;
    let live = |live: &Path| {
        put(live, "erased", "erased")?;
        fs::create_dir(live.join("keep"))?;
        large_file(&live.join("keep/large"), mebibytes)
    };
    let machine = Machine::in_pool(DATASET, &[], |_| Ok(()), live)?.persist("keep", &[]);
    sh("zpool", &["sync", POOL])?;
    Ok(machine)
}

/// Resets, compares, and tells how many bytes were written to the disk for it.
fn bytes_written_by_a_reset(machine: &Machine) -> Result<u64> {
    let before = written()?;
    let ran = machine.reset_and_compare()?;
    sh("zpool", &["sync", POOL])?;
    let bytes = written()? - before;
    println!("{} KiB were written", bytes / 1024);
    let report = ran.report.context("no report")?;
    // Twice: into the stage and back.
    let size = 2 * kept_bytes(machine)?;
    assert_eq!(
        report["volumes"][0]["bytes"],
        serde_json::json!({ "reflinked": 0, "copy_file_range": size, "copied": 0 })
    );
    Ok(bytes)
}

fn kept_bytes(machine: &Machine) -> Result<u64> {
    let tree = tree(&machine.dataset)?;
    let entry = tree.at("keep/large").context("no large file")?;
    let darlings_testkit::Kind::File { size, .. } = entry.kind else { anyhow::bail!("no file") };
    Ok(size)
}

/// Runs a reset that is killed when it enters a system call for the `when`th time.
fn killed_at(machine: &Machine, call: &str, when: usize) -> Result<()> {
    let (trace, inject) =
        (format!("trace={call}"), format!("inject={call}:signal=SIGKILL:when={when}"));
    let strace = ["strace", "-f", "-qq", "-o", "/dev/null", "-e", &trace, "-e", &inject];
    let ran = reset_below(&strace, &machine.config(), &["--threads", "1"])?;
    ensure!(ran.report.is_none(), "it was not killed at {call} {when}:\n{}", ran.stderr);
    Ok(())
}

#[test]
fn kept_data_is_cloned_and_not_written_again() -> Result<()> {
    in_guest("kept_data_is_cloned_and_not_written_again", || {
        let machine = machine_with_a_large_file(100, &[])?;
        let bytes = bytes_written_by_a_reset(&machine)?;
        assert!(bytes < 10 * MIB, "{bytes} bytes were written to keep 100 MiB");

        // The second time that it unmounts something, the stage has been made durable.
        let expected = machine.expected()?;
        killed_at(&machine, "umount2", 2)?;
        sh("zfs", &["list", &format!("{STAGE}@darlings-2")])?;
        let cloned: u64 = sh("zpool", &["get", "-Hpo", "value", "bcloneused", POOL])?.parse()?;
        assert_eq!(cloned, 100 * MIB, "bcloneused while the stage exists");
        reset(&machine.config(), &[])?.well()?;
        machine.must_be(&expected)
    })
}

#[test]
fn where_blocks_cannot_be_cloned_they_are_copied_and_the_tree_is_the_same() -> Result<()> {
    in_guest("where_blocks_cannot_be_cloned_they_are_copied_and_the_tree_is_the_same", || {
        let machine = machine_with_a_large_file(30, &["-o", "feature@block_cloning=disabled"])?;
        let bytes = bytes_written_by_a_reset(&machine)?;
        assert!((60 * MIB..80 * MIB).contains(&bytes), "without the feature: {bytes}");
        sh("zpool", &["destroy", POOL])?;

        let machine = machine_with_a_large_file(30, &[])?;
        fs::write("/sys/module/zfs/parameters/zfs_bclone_enabled", "0")?;
        let bytes = bytes_written_by_a_reset(&machine)?;
        assert!((60 * MIB..80 * MIB).contains(&bytes), "with it switched off: {bytes}");
        Ok(())
    })
}

#[test]
fn an_encrypted_dataset_keeps_its_key_and_its_data_is_cloned() -> Result<()> {
    in_guest("an_encrypted_dataset_keeps_its_key_and_its_data_is_cloned", || {
        fs::write("/tmp/key", [7; 32])?;
        create_pool(POOL, 512, &[])?;
        sh("zfs", &["create", "-p", "tank/local"])?;
        let encrypted =
            ["-o", "encryption=on", "-o", "keyformat=raw", "-o", "keylocation=file:///tmp/key"];
        let live = |live: &Path| {
            fs::create_dir(live.join("keep"))?;
            large_file(&live.join("keep/large"), 8)
        };
        let machine =
            Machine::in_pool(DATASET, &encrypted, |blank| put(blank, "etc/motd", "hello"), live)?
                .persist("keep", &[]);
        sh("zpool", &["sync", POOL])?;
        let expected = machine.expected()?;

        killed_at(&machine, "umount2", 2)?;
        let cloned = sh("zpool", &["get", "-Hpo", "value", "bcloneused", POOL])?;
        assert_eq!(cloned.parse::<u64>()?, 8 * MIB, "bcloneused while the stage exists");
        assert_eq!(property(STAGE, "encryptionroot")?, DATASET);

        reset(&machine.config(), &[])?.well()?;
        machine.must_be(&expected)?;
        assert_eq!(property(DATASET, "encryptionroot")?, DATASET);
        assert_eq!(property(DATASET, "keystatus")?, "available");
        assert_eq!(property(DATASET, "keylocation")?, "file:///tmp/key");

        // Without its key nothing can be read, and nothing is changed.
        sh("zfs", &["unload-key", DATASET])?;
        let names = ["list", "-Hpr", "-t", "all", "-o", "name,guid", POOL];
        let before = sh("zfs", &names)?;
        let ran = reset(&machine.config(), &[])?;
        assert_eq!(ran.code, Some(10), "{}", ran.stderr);
        assert_eq!(sh("zfs", &names)?, before);
        assert_eq!(
            ran.stderr,
            "error: no volume was reset; all are as they were: /: cannot mount \
             tank/local/root@blank: cannot mount tank/local/root@blank: its encryption key is not \
             loaded; see `zfs load-key`\n"
        );
        sh("zfs", &["load-key", DATASET])?;
        machine.must_be(&expected)
    })
}

// --- interruptions -------------------------------------------------------------------------

/// A pool that is put back to what it was before each of many interruptions.
struct Golden {
    machine: Machine,
    previous: Tree,
    expected: Tree,
}

impl Golden {
    fn new() -> Result<Self> {
        create_pool(POOL, 96, &["-O", "acltype=posixacl", "-O", "xattr=sa"])?;
        let blank = |blank: &Path| {
            put(blank, "etc/motd", "of the blank")?;
            put(blank, "keep/excluded/of-the-blank", "of the blank")?;
            put(blank, "keep/gone", "not in the previous state")
        };
        let live = |live: &Path| {
            put(live, "etc/motd", "changed")?;
            put(live, "etc/new", "erased")?;
            fs::remove_file(live.join("keep/gone"))?;
            put(live, "keep/excluded/new", "erased")?;
            put(live, "keep/file", noise(2, 300_000))?;
            put(live, "keep/below/small", "small")?;
            symlink("file", live.join("keep/link"))?;
            plant::node(&live.join("keep/fifo"), rustix::fs::FileType::Fifo, 0, 0)?;
            plant::xattr(&live.join("keep/below"), "user.of", b"mia")?;
            plant::owner(&live.join("keep/below"), 1000, 100)?;
            put(live, "var/log/boots", "boot 1\n")?;
            fs::hard_link(live.join("keep/file"), live.join("var/log/hard"))?;
            let sealed = live.join("keep/below/sealed");
            fs::write(&sealed, "immutable")?;
            Ok(plant::flag(&sealed, darlings_testkit::Attribute::Immutable)?)
        };
        let machine = Machine::in_pool(DATASET, &[], blank, live)?
            .persist("keep", &["excluded"])
            .persist("var/log", &[]);
        let (previous, expected) = (tree(DATASET)?, machine.expected()?);
        let golden = Self { machine, previous, expected };
        export(POOL)?;
        sh("cp", &["--sparse=always", "/tmp/pools/tank/disk", "/tmp/golden"])?;
        golden.put_back()?;
        Ok(golden)
    }

    fn put_back(&self) -> Result<()> {
        if home_of(POOL).join("imported").exists() {
            patiently(|| export(POOL))?;
        }
        sh("cp", &["--sparse=always", "/tmp/golden", "/tmp/pools/tank/disk"])?;
        import(POOL, &[])?;
        Ok(fs::write(home_of(POOL).join("imported"), "")?)
    }

    /// The calls that a whole reset makes, in their order: name and arguments.
    fn calls(&self, which: &str) -> Result<Vec<String>> {
        self.put_back()?;
        let trace = format!("trace={which}");
        let strace = ["strace", "-f", "-qq", "-o", "/tmp/calls", "-e", &trace];
        reset_below(&strace, &self.machine.config(), &["--threads", "1"])?.well()?;
        self.machine.must_be(&self.expected)?;
        let text = fs::read_to_string("/tmp/calls")?;
        // A process id, then the call.
        let calls = text.lines().filter_map(|line| Some(line.split_once(' ')?.1.trim().to_owned()));
        Ok(calls.filter(|call| !call.starts_with(['+', '-'])).collect())
    }

    /// Kills a reset, looks, gives the pool back and takes it again, and resets once more.
    fn kill_and_reset(&self, call: &str, when: usize) -> Result<()> {
        self.put_back()?;
        killed_at(&self.machine, call, when)?;
        patiently(|| export(POOL))?;
        import(POOL, &[])?;
        self.nothing_is_lost()?;
        let ran = reset(&self.machine.config(), &[])?.well()?;
        self.machine.must_be(&self.expected).with_context(|| ran.stderr.clone())
    }

    /// I1 and I2: the dataset is the previous state, or the result, or marked; and then the stage,
    /// which the next run finds, has every persisted path complete.
    fn nothing_is_lost(&self) -> Result<()> {
        let live = tree(DATASET)?;
        if property(DATASET, MARK)? == "-" {
            let (to_previous, to_result) =
                (live.diff_lines(&self.previous), live.diff_lines(&self.expected));
            ensure!(
                to_previous.is_empty() || to_result.is_empty(),
                "without a mark, the dataset is neither the previous state:\n{to_previous}\nnor \
                 the result:\n{to_result}"
            );
            return Ok(());
        }
        let staged = tree(&format!("{STAGE}@darlings-1"))?;
        let kept = |tree: &Tree| -> BTreeMap<RelPath, _> {
            let below = ["keep", "var/log"].map(|path| RelPath::normalise(path).unwrap());
            let entries = tree.entries.iter().map(|(path, entry)| (path.clone(), entry.clone()));
            entries.filter(|(path, _)| below.iter().any(|top| path.is_at_or_below(top))).collect()
        };
        let only = |tree: &Tree| Tree { entries: kept(tree) };
        let lines = only(&staged).diff_lines(&only(&self.expected));
        ensure!(lines.is_empty(), "the stage has not all that is persisted:\n{lines}");
        Ok(())
    }
}

/// What a killed process had mounted goes a moment after it.
fn patiently(action: impl Fn() -> Result<()>) -> Result<()> {
    for _ in 0..50 {
        if action().is_ok() {
            return Ok(());
        }
        std::thread::sleep(std::time::Duration::from_millis(100));
    }
    action()
}

#[test]
fn a_reset_that_is_killed_before_any_call_to_zfs_is_completed_by_the_next() -> Result<()> {
    in_guest("a_reset_that_is_killed_before_any_call_to_zfs_is_completed_by_the_next", || {
        let golden = Golden::new()?;
        let calls = golden.calls("ioctl")?;
        // 0x5a is the Z of ZFS's own calls; the others are about files.
        let to_zfs: Vec<usize> =
            (1..=calls.len()).filter(|when| calls[when - 1].contains("0x5a, ")).collect();
        println!("{} calls to ZFS", to_zfs.len());
        assert!(to_zfs.len() > 20, "{calls:#?}");
        for when in to_zfs {
            golden.kill_and_reset("ioctl", when).with_context(|| format!("ioctl {when}"))?;
        }
        Ok(())
    })
}

/// What changes a tree, or mounts it.
const CHANGES: [&str; 17] = [
    "mount", "umount2", "mkdirat", "openat", "mknodat", "symlinkat", "linkat", "unlinkat",
    "renameat2", "ftruncate", "copy_file_range", "write", "fchown", "fchmod", "fsetxattr",
    "utimensat", "ioctl",
];

#[test]
fn a_reset_that_is_killed_while_it_changes_files_is_completed_by_the_next() -> Result<()> {
    in_guest("a_reset_that_is_killed_while_it_changes_files_is_completed_by_the_next", || {
        let golden = Golden::new()?;
        let calls = golden.calls(&CHANGES.join(","))?;
        for name in CHANGES {
            let count = calls.iter().filter(|call| call.starts_with(&format!("{name}("))).count();
            println!("{count} of {name}");
        }
        Ok(())
    })
}

// --- refusals ------------------------------------------------------------------------------

/// A small machine whose whole pool can be compared.
fn small_machine() -> Result<Machine> {
    let blank = |blank: &Path| put(blank, "etc/motd", "of the blank");
    let live = |live: &Path| {
        put(live, "etc/motd", "changed")?;
        put(live, "keep/file", "kept")
    };
    Ok(Machine::new(&[], blank, live)?.persist("keep", &[]))
}

/// Resets, which is refused with these words; nothing in the pool is changed.
fn refused(configuration: &str, words: &str) -> Result<()> {
    let before = Whole::of(POOL)?;
    let ran = reset(configuration, &[])?;
    assert_eq!((ran.code, ran.stderr.as_str()), (Some(10), words));
    let report = ran.report.context("no report")?;
    assert_eq!(report["outcome"], "failed");
    Whole::of(POOL)?.must_be(&before)
}

#[test]
fn what_is_missing_is_named_and_nothing_is_changed() -> Result<()> {
    in_guest("what_is_missing_is_named_and_nothing_is_changed", || {
        let machine = small_machine()?;
        let config = machine.config();

        let no_blank = config.replace("\"blank\"", "\"clean\"");
        refused(
            &no_blank,
            "error: no volume was reset; all are as they were: /: the blank snapshot \
             tank/local/root@clean is missing; its snapshots are blank\n",
        )?;
        let no_dataset = config.replace("local/root", "local/roof");
        refused(
            &no_dataset,
            "error: no volume was reset; all are as they were: /: there is no dataset \
             tank/local/roof; imported are: tank\n",
        )?;

        create_pool("other", 96, &[])?;
        let on_another = config.replace("tank/", "other/");
        refused(
            &on_another,
            "error: no volume was reset; all are as they were: /: there is no dataset \
             other/local/root; there is tank/local/root: correct the configuration\n",
        )?;
        export("other")?;
        refused(
            &on_another,
            "error: no volume was reset; all are as they were: /: the pool \"other\" is not \
             imported; there is tank/local/root: correct the configuration\n",
        )?;

        // A blank that is there, below the wrong name: a dataset and no snapshot.
        sh("zfs", &["create", "-o", "mountpoint=legacy", "tank/bare"])?;
        let bare = config.replace("tank/local/root", "tank/bare");
        refused(
            &bare,
            "error: no volume was reset; all are as they were: /: the blank snapshot \
             tank/bare@blank is missing; the dataset has no snapshots: take one of an empty root, \
             or name another dataset\n",
        )?;

        // All that is wrong is told at once.
        let second = "[[volume]]\nmount_point = \"/home\"\nzfs = { dataset = \"tank/home\", blank = \"b\" }\n";
        refused(
            &format!("{second}{no_blank}"),
            "error: no volume was reset; all are as they were: /home: there is no dataset \
             tank/home; imported are: tank\n/: the blank snapshot tank/local/root@clean is \
             missing; its snapshots are blank\n",
        )
    })
}

#[test]
fn a_dataset_that_is_in_use_or_read_only_is_refused() -> Result<()> {
    in_guest("a_dataset_that_is_in_use_or_read_only_is_refused", || {
        let machine = small_machine()?;
        let expected = machine.expected()?;
        sh("mount", &["-t", "zfs", DATASET, "/mnt"])?;
        refused(
            &machine.config(),
            "error: no volume was reset; all are as they were: /: the dataset tank/local/root is \
             mounted at \"/mnt\"; a volume is reset before it is mounted: unmount it, or reboot\n",
        )?;
        sh("umount", &["/mnt"])?;

        // In somebody else's mount namespace, where our list of mounts does not show it.
        let mut other = std::process::Command::new("unshare")
            .args(["--mount", "sh", "-c", "mount -t zfs tank/local/root /mnt && echo ready && read x"])
            .stdin(std::process::Stdio::piped())
            .stdout(std::process::Stdio::piped())
            .spawn()?;
        let mut ready = String::new();
        std::io::BufRead::read_line(
            &mut std::io::BufReader::new(other.stdout.take().unwrap()),
            &mut ready,
        )?;
        assert_eq!(ready, "ready\n");
        refused(
            &machine.config(),
            "error: no volume was reset; all are as they were: /: cannot roll tank/local/root \
             back: it is in use (mounted, or being sent or received)\n",
        )?;
        drop(other.stdin.take());
        other.wait()?;

        export(POOL)?;
        import(POOL, &["-o", "readonly=on"])?;
        refused(
            &machine.config(),
            "error: no volume was reset; all are as they were: /: cannot use tank: its pool is \
             imported read-only\n",
        )?;
        export(POOL)?;
        import(POOL, &[])?;
        reset(&machine.config(), &[])?.well()?;
        machine.must_be(&expected)
    })
}

#[test]
fn snapshots_that_are_not_ours_are_refused_unless_they_may_be_destroyed() -> Result<()> {
    in_guest("snapshots_that_are_not_ours_are_refused_unless_they_may_be_destroyed", || {
        let mut machine = small_machine()?;
        let expected = machine.expected()?;
        sh("zfs", &["bookmark", "tank/local/root@blank", "tank/local/root#of-the-blank"])?;
        sh("zfs", &["snapshot", "tank/local/root@mine"])?;
        sh("zfs", &["bookmark", "tank/local/root@mine", "tank/local/root#sent"])?;
        sh("zfs", &["snapshot", "tank/local/root@darlings-mine"])?;
        let words = "error: no volume was reset; all are as they were: /: tank/local/root@mine, \
                     tank/local/root@darlings-mine, tank/local/root#sent would be destroyed by a \
                     rollback to tank/local/root@blank, since ZFS destroys what is newer; destroy \
                     or send away what you do not need, or write newer_snapshots = \"destroy\"\n";
        refused(&machine.config(), words)?;

        machine.more = ", newer_snapshots = \"destroy\"".to_owned();
        sh("zfs", &["hold", "keep", "tank/local/root@mine"])?;
        refused(
            &machine.config(),
            "error: no volume was reset; all are as they were: /: cannot roll tank/local/root \
             back: tank/local/root@mine must be destroyed first and is held or mounted\n",
        )?;
        sh("zfs", &["release", "keep", "tank/local/root@mine"])?;
        sh("zfs", &["clone", "-o", "mountpoint=legacy", "tank/local/root@mine", "tank/clone"])?;
        refused(
            &machine.config(),
            "error: no volume was reset; all are as they were: /: cannot roll tank/local/root \
             back: tank/local/root@mine must be destroyed first and has clones\n",
        )?;
        sh("zfs", &["destroy", "tank/clone"])?;

        // Children and other datasets have snapshots of their own.
        sh("zfs", &["create", "-o", "mountpoint=legacy", "tank/local/root/child"])?;
        sh("zfs", &["snapshot", "tank/local/root/child@newer", "tank/local@newer"])?;
        let ran = reset(&machine.config(), &[])?.well()?;
        let plan = &ran.report.context("no report")?["volumes"][0]["steps"];
        let step = plan.as_array().unwrap().iter().find(|step| step["step"] == "roll_back");
        assert_eq!(
            step.unwrap()["destroys"],
            serde_json::json!([
                "tank/local/root@mine",
                "tank/local/root@darlings-mine",
                "tank/local/root#sent"
            ])
        );
        let names = sh("zfs", &["list", "-Hr", "-t", "all", "-o", "name", "tank/local"])?;
        let mut names: Vec<_> = names.lines().collect();
        names.sort_unstable();
        assert_eq!(
            names,
            [
                "tank/local",
                "tank/local/root",
                "tank/local/root#of-the-blank",
                "tank/local/root/child",
                "tank/local/root/child@newer",
                "tank/local/root@blank",
                "tank/local@newer",
            ]
        );
        assert_eq!(tree(DATASET)?.diff_lines(&expected), "");

        // Ours, of an earlier strategy, go without being asked, and are named; so does the number.
        machine.more.clear();
        sh("zfs", &["snapshot", "tank/local/root@darlings-41"])?;
        let ran = reset(&machine.config(), &[])?.well()?;
        assert_eq!(ran.report.context("no report")?["volumes"][0]["generation"], 42);
        assert_eq!(tree(DATASET)?.diff_lines(&expected), "");
        Ok(())
    })
}

#[test]
fn a_pool_without_room_for_the_stage_is_left_as_it_was() -> Result<()> {
    in_guest("a_pool_without_room_for_the_stage_is_left_as_it_was", || {
        create_pool(POOL, 128, &["-o", "feature@block_cloning=disabled"])?;
        let live = |live: &Path| {
            fs::create_dir(live.join("keep"))?;
            (0..6).try_for_each(|number| large_file(&live.join(format!("keep/{number}")), 10))
        };
        let machine = Machine::in_pool(DATASET, &[], |_| Ok(()), live)?.persist("keep", &[]);
        let before = Whole::of(POOL)?;
        let ran = reset(&machine.config(), &["--threads", "1"])?;
        println!("{}", ran.stderr);
        assert_eq!(ran.code, Some(10), "{}", ran.stderr);
        Whole::of(POOL)?.must_be(&before)?;
        Ok(())
    })
}

#[test]
fn a_mark_without_its_stage_and_a_blank_in_the_way_are_refused() -> Result<()> {
    in_guest("a_mark_without_its_stage_and_a_blank_in_the_way_are_refused", || {
        let machine = small_machine()?.persist("etc/motd/below", &[]);
        refused(
            &machine.config(),
            "error: no volume was reset; all are as they were: /: ?\n",
        )
    })
}
