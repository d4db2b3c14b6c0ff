//! Every kind of entry and every attribute comes back as it was, by the real binary on real btrfs.

use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::common::{Machine, is_own_process, put, subvolumes_of};
use anyhow::Result;
use darlings_testkit::fill::{self, Wanted};
use darlings_testkit::loopfs::{Filesystem, LoopFs, run};
use darlings_testkit::model::{self, Rule};
use darlings_testkit::plant::{self, AclLine, acl};
use darlings_testkit::tree::Kind;
use darlings_testkit::{
    Attribute, Compare, Flags, RelPath, Tree, capability, capture, skip_unless,
};
use rustix::fs::OFlags;

/// Fills a new directory with everything; btrfs refuses nothing.
fn everything_in(dir: &Path) -> Result<()> {
    std::fs::create_dir_all(dir)?;
    assert_eq!(fill::everything(dir)?, []);
    Ok(())
}

#[test]
fn everything_below_a_persisted_path_comes_back_exactly_and_everything_else_is_the_blank()
-> Result<()> {
    skip_unless!(capability::root_and_btrfs(), Ok(()));
    let machine = Machine::new(
        |blank| everything_in(&blank.join("outside")),
        |live| {
            everything_in(&live.join("keep"))?;
            darlings_testkit::remove::all(&live.join("outside/types"))?;
            darlings_testkit::remove::all(&live.join("outside/locked"))?;
            put(live, "outside/modes/new", "new")?;
            everything_in(&live.join("erased"))
        },
    )?
    .persist("/keep", &[]);
    machine.reset_and_compare()?;
    machine.close()
}

/// A directory that passes on all it can: a default ACL, its group, and flags.
fn generous(dir: &Path, flag: Attribute) -> Result<()> {
    std::fs::create_dir(dir)?;
    plant::owner(dir, 1000, 100)?;
    plant::mode(dir, 0o2775)?;
    plant::xattr(dir, "system.posix_acl_default", &plant::example_acl(1003, 1004))?;
    plant::xattr(dir, "user.of", b"the connector")?;
    Ok(plant::flags(dir, Flags::of(flag))?)
}

#[test]
fn nothing_is_inherited_from_a_connector_by_what_comes_back_into_it() -> Result<()> {
    skip_unless!(capability::root_and_btrfs(), Ok(()));
    let machine = Machine::new(
        |blank| {
            generous(&blank.join("nocow"), Attribute::NoCow)?;
            generous(&blank.join("compress"), Attribute::Compress)
        },
        |live| {
            generous(&live.join("nodump"), Attribute::NoDump)?;
            for connector in ["nocow", "compress", "nodump"] {
                // Made elsewhere, so that nothing is inherited here either.
                everything_in(&live.join("made"))?;
                std::fs::rename(live.join("made"), live.join(connector).join("keep"))?;
            }
            Ok(())
        },
    )?
    .persist("/nocow/keep", &[])
    .persist("/compress/keep", &[])
    .persist("/nodump/keep", &[]);
    machine.reset_and_compare()?;
    machine.close()
}

#[test]
fn a_single_entry_of_each_kind_is_persisted_by_its_own_path_in_a_connector_that_passes_things_on()
-> Result<()> {
    const SUBTREES: [&str; 5] = ["types", "modes", "flags", "times", "xattrs"];
    skip_unless!(capability::root_and_btrfs(), Ok(()));
    let mut machine = Machine::new(
        |blank| generous(&blank.join("srv"), Attribute::NoCow),
        |live| {
            everything_in(&live.join("made"))?;
            let only_files = acl_without_named_user();
            for subtree in SUBTREES {
                for entry in std::fs::read_dir(live.join("made").join(subtree))? {
                    let entry = entry?;
                    let name = format!("{subtree}-{}", entry.file_name().display());
                    std::fs::rename(entry.path(), live.join("srv").join(name))?;
                }
            }
            put(live, "acl", "a mask that is less than the group may")?;
            plant::xattr(&live.join("acl"), "system.posix_acl_access", &only_files)?;
            std::fs::rename(live.join("acl"), live.join("srv/acl"))?;
            Ok(())
        },
    )?;
    let names: Vec<String> = std::fs::read_dir(machine.at("@/srv"))?
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    assert!(names.len() > 40, "{names:?}");
    for name in names {
        machine = machine.persist(&format!("/srv/{name}"), &[]);
    }
    machine.reset_and_compare()?;
    machine.close()
}

fn acl_without_named_user() -> Vec<u8> {
    let lines: [AclLine; 5] = [
        (acl::USER_OBJ, 6, acl::NOBODY),
        (acl::GROUP_OBJ, 7, acl::NOBODY),
        (acl::GROUP, 7, 4242),
        (acl::MASK, 1, acl::NOBODY),
        (acl::OTHER, 0, acl::NOBODY),
    ];
    plant::acl_bytes(&lines)
}

#[test]
fn what_is_no_file_keeps_setuid_and_setgid_of_another_owner() -> Result<()> {
    use rustix::fs::FileType;
    skip_unless!(capability::root_and_btrfs(), Ok(()));
    let machine = Machine::new(
        |_| Ok(()),
        |live| {
            std::fs::create_dir(live.join("keep"))?;
            for (name, kind) in [
                ("fifo", FileType::Fifo),
                ("socket", FileType::Socket),
                ("device", FileType::CharacterDevice),
            ] {
                let at = live.join("keep").join(name);
                plant::node(&at, kind, 1, 3)?;
                plant::owner(&at, 1000, 100)?;
                plant::mode(&at, 0o6751)?;
            }
            Ok(())
        },
    )?
    .persist("/keep", &[]);
    machine.reset_and_compare()?;
    let result = capture(&machine.volume.live())?;
    let mode = |path: &str| result.at(path).unwrap().mode;
    assert_eq!(["keep/fifo", "keep/socket", "keep/device"].map(mode), [0o6751; 3]);
    machine.close()
}

#[test]
fn a_compression_property_and_its_flag_come_back_together() -> Result<()> {
    skip_unless!(capability::root_and_btrfs(), Ok(()));
    let machine = Machine::new(
        |_| Ok(()),
        |live| {
            std::fs::create_dir(live.join("keep"))?;
            for (name, value) in [("zstd", "zstd"), ("lzo", "lzo"), ("none", "none")] {
                let file = live.join("keep").join(name);
                std::fs::write(&file, "compressible ".repeat(20_000))?;
                plant::xattr(&file, "btrfs.compression", value.as_bytes())?;
                let directory = live.join("keep").join(format!("{name}-directory"));
                std::fs::create_dir(&directory)?;
                plant::xattr(&directory, "btrfs.compression", value.as_bytes())?;
                std::fs::write(directory.join("inherits"), "x")?;
            }
            Ok(())
        },
    )?
    .persist("/keep", &[]);
    machine.reset_and_compare()?;
    machine.close()
}

#[test]
fn a_compression_property_of_what_is_immutable_comes_back_as_it_was() -> Result<()> {
    use darlings_testkit::project::make_immutable;
    skip_unless!(capability::root_and_btrfs(), Ok(()));
    let sealed = |dir: &Path| -> Result<()> {
        std::fs::create_dir(dir)?;
        for value in ["zstd", "lzo", "none"] {
            let (file, below) = (dir.join(value), dir.join(format!("{value}-directory")));
            std::fs::write(&file, "compressible ".repeat(20_000))?;
            std::fs::create_dir(&below)?;
            std::fs::hard_link(&file, below.join("again"))?;
            for path in [&file, &below] {
                plant::xattr(path, "btrfs.compression", value.as_bytes())?;
                make_immutable(plant::open(path, OFlags::RDONLY)?)?;
            }
        }
        Ok(())
    };
    // And a connector, from which the immutable flag is taken while something is put into it.
    let connector = |dir: &Path| -> Result<()> {
        std::fs::create_dir(dir)?;
        plant::xattr(dir, "btrfs.compression", b"zstd")?;
        Ok(make_immutable(plant::open(dir, OFlags::RDONLY)?)?)
    };
    let machine = Machine::new(
        |blank| connector(&blank.join("connector")),
        |live| {
            sealed(&live.join("keep"))?;
            darlings_testkit::remove::all(&live.join("connector"))?;
            put(live, "connector/keep", "kept")
        },
    )?
    .persist("/keep", &[])
    .persist("/connector/keep", &[]);
    machine.reset_and_compare()?;
    let result = capture(&machine.volume.live())?;
    let kind = |path: &str| {
        let entry = result.at(path).unwrap();
        let value = entry.xattrs.iter().find(|(name, _)| name.as_bytes() == b"btrfs.compression");
        value.map(|(_, value)| value.as_bytes().to_vec()).unwrap()
    };
    assert_eq!(
        ["keep/zstd", "keep/lzo-directory", "keep/none", "connector"].map(kind),
        [&b"zstd"[..], b"lzo", b"none", b"zstd"]
    );
    machine.close()
}

#[test]
fn hard_links_across_persisted_paths_stay_one_file_and_those_to_the_rest_are_cut() -> Result<()> {
    skip_unless!(capability::root_and_btrfs(), Ok(()));
    let machine = Machine::new(
        |_| Ok(()),
        |live| {
            for name in ["a", "b", "outside"] {
                std::fs::create_dir(live.join(name))?;
            }
            let link = |from: &str, to: &str| std::fs::hard_link(live.join(from), live.join(to));
            put(live, "a/both", "in a and b")?;
            link("a/both", "b/both")?;
            put(live, "a/three", "in a, b and outside")?;
            link("a/three", "b/three")?;
            link("a/three", "outside/three")?;
            put(live, "a/cut", "in a and outside")?;
            link("a/cut", "outside/cut")?;
            put(live, "a/sealed", "immutable, in a and b")?;
            link("a/sealed", "b/sealed")?;
            plant::flag(&live.join("a/sealed"), Attribute::Immutable)?;
            put(live, "a/sealed-cut", "append-only, in a and outside")?;
            link("a/sealed-cut", "outside/sealed-cut")?;
            plant::flag(&live.join("a/sealed-cut"), Attribute::AppendOnly)?;
            put(live, "a/excluded/keep", "in an excluded part of a, and in b")?;
            link("a/excluded/keep", "b/from-the-excluded-part")?;
            put(live, "single", "a file of its own path")?;
            link("single", "b/single")?;
            Ok(())
        },
    )?
    .persist("/a", &["excluded"])
    .persist("/a/excluded/keep", &[])
    .persist("/b", &[])
    .persist("/single", &[]);
    machine.reset_and_compare()?;
    let result = capture(&machine.volume.live())?;
    let count = |path: &str| result.at(path).unwrap().links.as_ref().map(|links| links.count);
    assert_eq!(
        ["a/both", "b/three", "a/cut", "b/sealed", "a/sealed-cut", "single", "a/excluded/keep"]
            .map(count),
        [Some(2), Some(2), None, Some(2), None, Some(2), Some(2)]
    );
    machine.close()
}

/// Where nested subvolumes are in the test below, and whether each is kept.
const NESTED: [(&str, bool); 8] = [
    ("@/keep/writable", true),
    ("@/keep/writable/inner", true),
    ("@/keep/deep/below/read-only", true),
    ("@/single", true),
    ("@/keep/excluded/gone", false),
    ("@/gone", false),
    ("@/gone/inner", false),
    ("@/var/gone", false),
];

#[test]
fn nested_subvolumes_below_persisted_paths_stay_the_same_subvolumes_and_others_go_with_the_generation()
-> Result<()> {
    skip_unless!(capability::root_and_btrfs(), Ok(()));
    let machine = Machine::new(|blank| Ok(std::fs::create_dir(blank.join("var"))?), |_| Ok(()))?
        .persist("/keep", &["excluded"])
        .persist("/single", &[]);
    for directory in ["@/keep/deep/below", "@/keep/excluded"] {
        std::fs::create_dir_all(machine.at(directory))?;
    }
    for (path, _) in NESTED {
        let at = machine.volume.make_subvolume(path)?;
        put(&at, "content", path)?;
    }
    let read_only = machine.at("@/keep/deep/below/read-only");
    plant::times(&read_only, time(1_222_222_222), time(1_333_333_333))?;
    run(Command::new("btrfs")
        .args(["property", "set", "-ts"])
        .arg(&read_only)
        .args(["ro", "true"]))?;
    for directory in ["@/keep", "@/keep/deep/below", "@/keep/deep"] {
        plant::times(&machine.at(directory), time(1_000_000_000), time(1_100_000_000))?;
    }
    let trees = |place: &dyn Fn(&str) -> String| -> Result<Vec<(String, Tree)>> {
        let list = NESTED.iter().map(|(path, _)| (*path).to_owned());
        list.map(|path| Ok((path.clone(), capture(&machine.at(&place(&path)))?))).collect()
    };
    let before = trees(&|path| path.to_owned())?;
    let ids = subvolumes_of(machine.volume.fs.path(), &[])?;
    let previous = capture(&machine.volume.live())?;
    let expected = machine.expected()?.tree;

    let ran = machine.reset_well()?;

    let result = capture(&machine.volume.live())?;
    assert_eq!(result.diff_lines(&expected), "");
    let generation = ran.generation()?;
    assert_eq!(generation, "@darlings/root/1");
    let place = |path: &str| {
        let kept = NESTED.iter().any(|(nested, kept)| *nested == path && *kept);
        if kept { path.to_owned() } else { path.replacen('@', &generation, 1) }
    };
    for ((path, was), (_, is)) in before.iter().zip(trees(&place)?) {
        assert_eq!(is.diff_lines(was), "", "{path}");
    }
    let ids_now = subvolumes_of(machine.volume.fs.path(), &[])?;
    for (path, _) in NESTED {
        assert_eq!(ids_now.get(&place(path)), ids.get(path), "{path}");
    }
    let mut read_only: Vec<String> =
        subvolumes_of(machine.volume.fs.path(), &["-r"])?.into_keys().collect();
    read_only.sort();
    assert_eq!(read_only, ["@/keep/deep/below/read-only", "@blank", "@darlings/root/1"]);

    // The generation is the previous state without what was moved out of it.
    let kept = capture(&machine.at(&generation))?;
    let mut without = previous;
    for moved in ["keep/writable", "keep/deep/below/read-only", "single"] {
        without.entries.remove(&RelPath::normalise(moved).unwrap());
    }
    assert_eq!(kept.diff_lines(&without), "");

    let report = ran.report.unwrap();
    let mut leaving: Vec<&str> = report["volumes"][0]["leaving"]
        .as_array()
        .unwrap()
        .iter()
        .map(|path| path.as_str().unwrap())
        .collect();
    leaving.sort_unstable();
    assert_eq!(leaving, ["/gone", "/gone/inner", "/keep/excluded/gone", "/var/gone"]);
    for path in leaving {
        let line = format!(
            "warning: {path} is a subvolume below no persisted path: it goes with the generation\n"
        );
        assert!(ran.stderr.contains(&line), "{}", ran.stderr);
    }
    machine.close()
}

const fn time(seconds: i64) -> darlings_testkit::Time {
    darlings_testkit::Time { seconds, nanoseconds: 123_456_789 }
}

#[test]
fn a_subvolume_nested_in_the_blank_leaves_its_stub_as_an_empty_directory() -> Result<()> {
    skip_unless!(capability::root_and_btrfs(), Ok(()));
    let machine =
        Machine::new(|_| Ok(()), |live| put(live, "keep/file", "kept"))?.persist("/keep", &[]);
    // The stub is what a snapshot shows of a subvolume that was nested in its source.
    machine.volume.make_subvolume("@/keep/was-nested")?;
    machine.volume.snapshot("@", "@copy", false)?;
    run(Command::new("btrfs").args(["subvolume", "delete"]).arg(machine.at("@/keep/was-nested")))?;
    run(Command::new("btrfs").args(["subvolume", "delete"]).arg(machine.at("@")))?;
    std::fs::rename(machine.at("@copy"), machine.at("@"))?;
    let kind = |path: &str| {
        Ok::<_, anyhow::Error>(
            capture(&machine.volume.live())?.at(path).map(|entry| entry.kind.clone()),
        )
    };
    assert_eq!(kind("keep/was-nested")?, Some(Kind::SubvolumeStub));
    machine.reset_well()?;
    // What is moved stays what it was; it looks like an empty directory either way.
    let now = if machine.strategy == "carry" { Kind::SubvolumeStub } else { Kind::Directory };
    assert_eq!(kind("keep/was-nested")?, Some(now));
    assert_eq!(std::fs::read_dir(machine.at("@/keep/was-nested"))?.count(), 0);
    assert_eq!(std::fs::read_to_string(machine.at("@/keep/file"))?, "kept");
    machine.close()
}

#[test]
fn a_thousand_levels_and_a_directory_of_thousands_come_back_with_one_thread_and_with_many()
-> Result<()> {
    skip_unless!(capability::root_and_btrfs(), Ok(()));
    for threads in ["1", "7"] {
        let machine = Machine::new(
            |_| Ok(()),
            |live| {
                std::fs::create_dir(live.join("keep"))?;
                std::fs::create_dir(live.join("keep/deep"))?;
                fill::deep(&live.join("keep/deep"), 2000, "down")?;
                fill::many_small(&live.join("keep"), 3000)
            },
        )?
        .persist("/keep", &[]);
        let expected = machine.expected()?.tree;
        let ran = machine.run(machine.config(), &["--threads", threads])?;
        assert_eq!(ran.code, Some(0), "{}", ran.stderr);
        assert_eq!(capture(&machine.volume.live())?.diff_lines(&expected), "", "{threads} threads");
        machine.close()?;
    }
    Ok(())
}

/// Restores from one directory to another, as a filesystem's own part would, and compares.
/// Gives the bytes by the rung that brought them.
fn restored_by_the_library(
    blank: &Path,
    previous: &Path,
    target: &Path,
) -> Result<darlings::tree::BytesByRung> {
    let mut rules = darlings::rules::Rules::default();
    rules.declare(Path::new("keep"), &[PathBuf::from("sparse/only-a-hole")]).unwrap();
    rules.finish();
    let expected = model::expected(
        &capture(blank)?,
        &capture(previous)?,
        &[Rule::new("keep", &["sparse/only-a-hole"]).unwrap()],
    )?;
    darlings::fs::process::prepare()?;
    let open = |path: &Path| darlings::fs::Dir::open(path);
    let (blank, previous, tree) = (open(blank)?, open(previous)?, open(target)?);
    let surveyed = darlings::keep::survey::survey(&rules, &previous, Some(&blank))?;
    let trees =
        darlings::keep::trees::Trees { previous: &previous, blank: Some(&blank), target: &tree };
    let outcome = darlings::keep::copy_in::copy_in(
        &trees,
        &rules,
        &surveyed,
        &darlings::keep::attic::Attic::default(),
        1,
        3,
    )?;
    assert_eq!(capture(target)?.diff_lines(&expected.tree), "");
    Ok(outcome.bytes)
}

fn size_of_files(tree: &Tree, but: &str) -> u64 {
    let mut seen = std::collections::BTreeSet::new();
    let sizes = tree.entries.iter().map(|(path, entry)| match &entry.kind {
        _ if path == &RelPath::normalise(but).unwrap() => 0,
        Kind::File { size, .. } => match &entry.links {
            Some(links) if !seen.insert(links.group.clone()) => 0,
            _ => *size,
        },
        _ => 0,
    });
    sizes.sum()
}

/// Makes `blank`, `previous` and `target` in directories of filesystems.
fn three_trees(blank_and_target: &LoopFs, previous: &LoopFs) -> Result<[PathBuf; 3]> {
    let three = [
        blank_and_target.path().join("blank"),
        previous.path().join("previous"),
        blank_and_target.path().join("target"),
    ];
    for dir in &three {
        std::fs::create_dir(dir)?;
        plant::times(dir, time(1_000), time(2_000))?;
    }
    Ok(three)
}

#[test]
fn between_two_btrfs_everything_is_copied_and_holes_stay_holes() -> Result<()> {
    skip_unless!(capability::root_and_btrfs(), Ok(()));
    if !is_own_process(
        "every_attribute::between_two_btrfs_everything_is_copied_and_holes_stay_holes",
    )? {
        return Ok(());
    }
    let (here, there) = (LoopFs::new(Filesystem::Btrfs)?, LoopFs::new(Filesystem::Btrfs)?);
    let [blank, previous, target] = three_trees(&here, &there)?;
    everything_in(&previous.join("keep"))?;
    let size = size_of_files(&capture(&previous)?, "keep/sparse/only-a-hole");
    // What is preallocated and not written reads as zeros; only a reflink keeps the allocation.
    let bytes = restored_by_the_library(&blank, &previous, &target)?;
    assert_eq!((bytes.reflinked, bytes.copy_file_range, bytes.copied), (0, 0, size));
    here.close()?;
    there.close()
}

#[test]
fn on_ext4_everything_that_it_has_comes_over_by_copy_file_range() -> Result<()> {
    skip_unless!(capability::root_and_ext4(), Ok(()));
    if !is_own_process(
        "every_attribute::on_ext4_everything_that_it_has_comes_over_by_copy_file_range",
    )? {
        return Ok(());
    }
    let fs = LoopFs::new(Filesystem::Ext4)?;
    let [blank, previous, target] = three_trees(&fs, &fs)?;
    std::fs::create_dir(previous.join("keep"))?;
    fill::everything_but(&previous.join("keep"), &Wanted::default())?;
    let size = size_of_files(&capture(&previous)?, "keep/sparse/only-a-hole");
    let bytes = restored_by_the_library(&blank, &previous, &target)?;
    assert_eq!((bytes.reflinked, bytes.copied), (0, 0));
    assert_eq!(bytes.copy_file_range, size);
    fs.close()
}

#[test]
fn the_tools_own_directory_is_for_root_alone_and_holds_what_the_next_run_needs() -> Result<()> {
    skip_unless!(capability::root_and_btrfs(), Ok(()));
    let machine = Machine::new(generous_root, |live| put(live, "keep/file", "kept"))?
        .persist("/keep", &["cache"]);
    machine.reset_and_compare()?;
    let own = capture(&machine.at("@/.darlings"))?;
    assert_eq!(own.paths(), [".", "generation", "manifest"]);
    let all = own.entries.values();
    let found: Vec<_> = all.map(|it| (it.owner, it.group, it.mode, it.xattrs.len())).collect();
    assert_eq!(found, [(0, 0, 0o700, 0), (0, 0, 0o600, 0), (0, 0, 0o600, 0)]);
    assert_eq!(std::fs::read_to_string(machine.at("@/.darlings/generation"))?, "1\n");
    let mut manifest: serde_json::Value =
        serde_json::from_slice(&std::fs::read(machine.at("@/.darlings/manifest"))?)?;
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH)?.as_secs();
    let time = manifest["time"].take().as_u64().expect("no time");
    assert!((now - 60..=now).contains(&time), "{time} is not about now, {now}");
    // Which system the volume belongs to is drawn by lot, and recorded beside the generations too.
    let system = manifest["system"].take();
    let system = system.as_str().expect("no system");
    let record = std::fs::read_to_string(machine.at("@darlings/root/.darlings/record"))?;
    assert!(record.contains(&format!("\"{system}\"")), "{system}: {record}");
    // What it is of is tested with `drift`.
    let digest = manifest["configuration"].take();
    assert_eq!(digest.as_str().map(str::len), Some(16), "{digest}");
    assert_eq!(
        manifest,
        serde_json::json!({
            "version": 1,
            "generation": 1,
            "persisted": ["keep"],
            "excluded": ["keep/cache"],
            "boot": std::fs::read_to_string("/proc/sys/kernel/random/boot_id")?.trim_end(),
            "time": null,
            "system": null,
            "configuration": null,
        })
    );
    assert_eq!(std::fs::metadata(machine.at("@"))?.mode() & 0o7777, 0o2775);
    machine.close()
}

/// A root directory that would pass things on to what is made in it.
fn generous_root(root: &Path) -> Result<()> {
    plant::owner(root, 1000, 100)?;
    plant::mode(root, 0o2775)?;
    plant::xattr(root, "system.posix_acl_default", &plant::example_acl(1003, 1004))?;
    Ok(plant::flags(root, Flags::of(Attribute::NoDump))?)
}

#[test]
fn the_comparison_leaves_out_the_tools_own_directory_and_nothing_else() {
    let own: Vec<RelPath> = Compare::default().leave_out;
    assert_eq!(own, [RelPath::normalise(".darlings").unwrap()]);
    assert_eq!(Compare::default().without.len(), 0);
}
