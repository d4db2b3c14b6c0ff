//! Which path comes from where: the rules of section 2, one by one, by the real binary on real
//! btrfs. Each result is compared as a whole with the independent model, and where a person would
//! look, with what is written here.

use std::os::unix::fs::symlink;
use std::path::Path;

use crate::common::{Machine, marked, put, quoted};
use anyhow::Result;
use darlings_testkit::{Attribute, capability, capture, plant, skip_unless};

#[test]
fn a_connector_is_as_in_the_blank_where_the_blank_has_it_and_as_before_where_not() -> Result<()> {
    skip_unless!(capability::root_and_btrfs(), Ok(()));
    let machine = Machine::new(
        |blank| {
            marked(blank, "both/below", 1001)?;
            marked(blank, "both", 1002)
        },
        |live| {
            put(live, "both/below/more/keep", "kept")?;
            put(live, "both/below/more/erased", "erased")?;
            marked(live, "both/below/more", 2001)?;
            marked(live, "both/below", 2002)?;
            marked(live, "both", 2003)?;
            put(live, "live/below/keep", "kept")?;
            marked(live, "live/below", 2004)?;
            marked(live, "live", 2005)
        },
    )?
    .persist("/both/below/more/keep", &[])
    .persist("/live/below/keep", &[]);
    machine.reset_and_compare()?;
    let result = capture(&machine.volume.live())?;
    let owner = |path: &str| result.at(path).map(|entry| entry.owner);
    assert_eq!(
        ["both", "both/below", "both/below/more", "live", "live/below"].map(owner),
        [1002, 1001, 2001, 2005, 2004].map(Some)
    );
    assert_eq!(owner("both/below/more/erased"), None);
    machine.close()
}

#[test]
fn what_is_absent_before_is_absent_after_even_where_the_blank_has_it() -> Result<()> {
    skip_unless!(capability::root_and_btrfs(), Ok(()));
    let machine = Machine::new(
        |blank| {
            put(blank, "file", "of the blank")?;
            put(blank, "directory/file", "of the blank")?;
            put(blank, "above/directory/file", "of the blank")?;
            put(blank, "kept/gone", "of the blank")?;
            put(blank, "stays", "of the blank")
        },
        |live| {
            std::fs::remove_file(live.join("file"))?;
            std::fs::remove_dir_all(live.join("directory"))?;
            std::fs::remove_dir_all(live.join("above"))?;
            std::fs::remove_file(live.join("kept/gone"))?;
            std::fs::remove_file(live.join("stays"))?;
            std::fs::create_dir_all(live.join("only/here"))?;
            Ok(())
        },
    )?
    .persist("/file", &[])
    .persist("/directory", &[])
    .persist("/above/directory", &[])
    .persist("/kept", &[])
    .persist("/nowhere/at/all", &[])
    .persist("/only/here/nothing", &[]);
    machine.reset_and_compare()?;
    let result = capture(&machine.volume.live())?;
    assert_eq!(
        result.paths(),
        [
            ".",
            ".darlings",
            ".darlings/generation",
            ".darlings/manifest",
            "above",
            "kept",
            "only",
            "only/here",
            "stays"
        ]
    );
    machine.close()
}

#[test]
fn an_excluded_path_is_as_in_the_blank_and_a_persisted_one_inside_it_is_kept() -> Result<()> {
    skip_unless!(capability::root_and_btrfs(), Ok(()));
    let machine = Machine::new(
        |blank| {
            put(blank, "home/mia/.cache/of-the-blank", "of the blank")?;
            put(blank, "home/mia/.cache/nix/deeper/of-the-blank", "of the blank")?;
            marked(blank, "home/mia/.cache/nix", 1001)?;
            marked(blank, "home/mia/.cache", 1002)?;
            put(blank, "home/mia/erased", "of the blank")
        },
        |live| {
            put(live, "home/mia/.cache/erased", "erased")?;
            put(live, "home/mia/.cache/nix/keep/file", "kept")?;
            put(live, "home/mia/.cache/nix/keep/not/erased", "erased")?;
            put(live, "home/mia/.cache/nix/keep/not/but/this", "kept")?;
            marked(live, "home/mia/.cache/nix", 2001)?;
            put(live, "home/mia/scratch/erased", "erased")?;
            put(live, "home/mia/scratch/deep/down/keep", "kept")?;
            marked(live, "home/mia/scratch/deep/down", 2002)?;
            marked(live, "home/mia/scratch/deep", 2003)?;
            marked(live, "home/mia/scratch", 2004)?;
            put(live, "home/mia/notes", "kept")?;
            marked(live, "home/mia", 2005)
        },
    )?
    .persist("/home/mia", &[".cache", "scratch", "never/was"])
    .persist("/home/mia/.cache/nix/keep", &["not"])
    .persist("/home/mia/.cache/nix/keep/not/but/this", &[])
    .persist("/home/mia/scratch/deep/down/keep", &[])
    .persist("/home/mia/notes", &[]);
    machine.reset_and_compare()?;
    for (path, expected) in [
        ("home/mia/.cache/of-the-blank", Some("of the blank")),
        ("home/mia/.cache/nix/deeper/of-the-blank", Some("of the blank")),
        ("home/mia/.cache/erased", None),
        ("home/mia/.cache/nix/keep/file", Some("kept")),
        ("home/mia/.cache/nix/keep/not/erased", None),
        ("home/mia/.cache/nix/keep/not/but/this", Some("kept")),
        ("home/mia/scratch/erased", None),
        ("home/mia/scratch/deep/down/keep", Some("kept")),
        ("home/mia/notes", Some("kept")),
    ] {
        assert_eq!(machine.text(path)?.as_deref(), expected, "{path}");
    }
    let result = capture(&machine.volume.live())?;
    let owner = |path: &str| result.at(path).unwrap().owner;
    let of_blank = ["home/mia/.cache", "home/mia/.cache/nix"].map(owner);
    assert_eq!(of_blank, [1002, 1001]);
    let of_before = ["home/mia", "home/mia/scratch", "home/mia/scratch/deep"].map(owner);
    assert_eq!(of_before, [2005, 2004, 2003]);
    machine.close()
}

#[test]
fn an_excluded_path_may_be_anything_in_the_blank_and_anything_before() -> Result<()> {
    const KINDS: [&str; 5] = ["absent", "file", "directory", "symlink", "immutable"];
    skip_unless!(capability::root_and_btrfs(), Ok(()));
    let make = |root: &Path, path: &str, kind: &str| -> Result<()> {
        let at = root.join(path);
        match kind {
            "file" => put(root, path, &root.display().to_string())?,
            "directory" => put(root, &format!("{path}/file"), "in a directory")?,
            "symlink" => symlink("/nowhere", at)?,
            "immutable" => {
                put(root, &format!("{path}/file"), "in an immutable directory")?;
                plant::flag(&at.join("file"), Attribute::Immutable)?;
                plant::flag(&at, Attribute::Immutable)?;
            }
            _ => {}
        }
        Ok(())
    };
    let every = |side: usize, root: &Path| -> Result<()> {
        for kinds in KINDS.iter().flat_map(|one| KINDS.iter().map(move |two| [one, two])) {
            let name = format!("keep/{}-{}", kinds[0], kinds[1]);
            make(root, &name, kinds[side])?;
        }
        Ok(())
    };
    let machine = Machine::new(
        |_| Ok(()),
        |live| {
            std::fs::create_dir(live.join("keep"))?;
            every(1, live)
        },
    )?;
    // Not a copy of one another: what is in the blank was never in the live subvolume.
    let fresh = machine.volume.make_subvolume("@other")?;
    std::fs::create_dir(fresh.join("keep"))?;
    every(0, &fresh)?;
    let mut machine = machine;
    machine.blank = "@other".to_owned();
    let names: Vec<String> =
        KINDS.iter().flat_map(|one| KINDS.iter().map(move |two| format!("{one}-{two}"))).collect();
    let excludes: Vec<&str> = names.iter().map(String::as_str).collect();
    machine.persist("/keep", &excludes).reset_and_compare().map(drop)
}

#[test]
fn the_spelling_of_a_declared_path_does_not_matter() -> Result<()> {
    skip_unless!(capability::root_and_btrfs(), Ok(()));
    for spelled in ["/var/log", "/var/log/", "//var///log//", "/./var/./log/."] {
        let machine = Machine::new(
            |_| Ok(()),
            |live| {
                put(live, "var/log/journal", "kept")?;
                put(live, "var/log/cache/erased", "erased")?;
                put(live, "var/erased", "erased")
            },
        )?
        .persist("/var/log", &["cache"]);
        let expected = machine.expected()?.tree;
        let config = machine.config().replace(&quoted("/var/log"), &quoted(spelled));
        let config = config.replace("[\"cache\"]", "[\"./cache//\"]");
        let ran = machine.run(config, &[])?;
        assert_eq!(ran.code, Some(0), "{}", ran.stderr);
        assert_eq!(capture(&machine.volume.live())?.diff_lines(&expected), "", "{spelled}");
        assert_eq!(machine.text("var/log/journal")?.as_deref(), Some("kept"));
        machine.close()?;
    }
    Ok(())
}

#[test]
fn an_ancestor_that_is_a_symlink_is_reported_and_not_followed_and_the_rest_goes_on() -> Result<()> {
    const LINKS: [(&str, &str); 5] = [
        ("to-root", "/"),
        ("to-parent", ".."),
        ("to-sibling", "real"),
        ("to-volume", "../../@other"),
        ("dangling", "nowhere"),
    ];
    skip_unless!(capability::root_and_btrfs(), Ok(()));
    let mut machine = Machine::new(
        |_| Ok(()),
        |live| {
            put(live, "home/real/keep", "behind a link")?;
            put(live, "home/ordinary", "kept")?;
            for (name, target) in LINKS {
                symlink(target, live.join("home").join(name))?;
            }
            Ok(())
        },
    )?
    .persist("/home/ordinary", &[]);
    let other = machine.volume.make_subvolume("@other")?;
    put(&other, "keep", "of another volume")?;
    put(machine.volume.fs.path(), "keep", "of the top level")?;
    let before = capture(&other)?;
    for (name, _) in LINKS {
        machine = machine.persist(&format!("/home/{name}/keep"), &[]);
    }
    let expected = machine.expected()?;
    assert_eq!(expected.left_behind.len(), LINKS.len());
    let ran = machine.reset_and_compare()?;
    assert_eq!(machine.text("home/ordinary")?.as_deref(), Some("kept"));
    assert_eq!(machine.text("home/real/keep")?, None);
    assert_eq!(capture(&other)?.diff_lines(&before), "");
    assert_eq!(std::fs::read_to_string(machine.at("keep"))?, "of the top level");
    let report = ran.report.as_ref().unwrap();
    for (name, _) in LINKS {
        let line = format!(
            "/home/{name}/keep is not brought over: /home/{name} is a symbolic link, which is not \
             followed; declare the path that it stands for"
        );
        let warnings = report["volumes"][0]["warnings"].as_array().unwrap();
        assert!(warnings.contains(&line.clone().into()), "{warnings:?}");
        assert!(ran.stderr.contains(&format!("warning: /: {line}\n")), "{}", ran.stderr);
    }
    machine.close()
}

#[test]
fn an_ancestor_that_is_a_file_or_a_fifo_is_reported_and_left_to_the_generation() -> Result<()> {
    skip_unless!(capability::root_and_btrfs(), Ok(()));
    let machine = Machine::new(
        |blank| {
            put(blank, "a-fifo/of-the-blank", "of the blank")?;
            put(blank, "a-fifo/keep/of-the-blank", "of the blank")
        },
        |live| {
            put(live, "a-file", "a file")?;
            std::fs::remove_dir_all(live.join("a-fifo"))?;
            Ok(plant::node(&live.join("a-fifo"), rustix::fs::FileType::Fifo, 0, 0)?)
        },
    )?
    .persist("/a-file/below", &[])
    .persist("/a-fifo/keep/below", &[]);
    let ran = machine.reset_and_compare()?;
    let report = ran.report.unwrap();
    assert_eq!(
        report["volumes"][0]["paths"],
        serde_json::json!([
            {"path": "a-fifo/keep/below", "state": "unreachable", "ancestor": "a-fifo", "kind": "fifo"},
            {"path": "a-file/below", "state": "unreachable", "ancestor": "a-file", "kind": "file"},
        ])
    );
    assert_eq!(machine.text("a-fifo/of-the-blank")?.as_deref(), Some("of the blank"));
    machine.close()
}

#[test]
fn a_persisted_path_that_is_a_symlink_is_kept_as_a_symlink() -> Result<()> {
    skip_unless!(capability::root_and_btrfs(), Ok(()));
    let machine = Machine::new(
        |blank| put(blank, "etc/localtime", "a file in the blank"),
        |live| {
            std::fs::remove_file(live.join("etc/localtime"))?;
            Ok(symlink("/usr/share/zoneinfo/UTC", live.join("etc/localtime"))?)
        },
    )?
    .persist("/etc/localtime", &["below"]);
    machine.reset_and_compare()?;
    let target = std::fs::read_link(machine.at("@/etc/localtime"))?;
    assert_eq!(target, Path::new("/usr/share/zoneinfo/UTC"));
    machine.close()
}

#[test]
fn a_persisted_path_may_be_of_another_kind_than_in_the_blank_and_the_blanks_may_be_locked()
-> Result<()> {
    skip_unless!(capability::root_and_btrfs(), Ok(()));
    let locked = |path: &Path| plant::flag(path, Attribute::Immutable);
    let machine = Machine::new(
        |_| Ok(()),
        |live| {
            put(live, "file-now", "a file now")?;
            put(live, "directory-now/file", "a directory now")?;
            symlink("/nowhere", live.join("symlink-now"))?;
            put(live, "with-exclude/skip/erased", "erased")?;
            put(live, "with-exclude/deeper/down/skip/erased", "erased")?;
            put(live, "with-exclude/file", "kept")?;
            put(live, "connector/keep", "kept")
        },
    )?;
    let fresh = machine.volume.make_subvolume("@other")?;
    put(&fresh, "file-now/deep/below/file", "a directory in the blank")?;
    put(&fresh, "directory-now", "a file in the blank")?;
    put(&fresh, "symlink-now/file", "a directory in the blank")?;
    put(&fresh, "with-exclude/skip/of-the-blank", "of the blank")?;
    put(&fresh, "with-exclude/file", "of the blank")?;
    put(&fresh, "with-exclude/deeper/down/skip/of-the-blank", "of the blank")?;
    put(&fresh, "connector/keep", "of the blank")?;
    put(&fresh, "connector/other", "of the blank")?;
    for path in [
        "with-exclude/deeper/down/skip",
        "with-exclude/deeper/down",
        "with-exclude/deeper",
        "file-now/deep/below/file",
        "file-now/deep/below",
        "file-now",
        "directory-now",
        "symlink-now/file",
        "symlink-now",
        "with-exclude/skip/of-the-blank",
        "with-exclude/skip",
        "with-exclude/file",
        "with-exclude",
        "connector/keep",
        "connector/other",
        "connector",
    ] {
        locked(&fresh.join(path))?;
    }
    let mut machine = machine
        .persist("/file-now", &[])
        .persist("/directory-now", &[])
        .persist("/symlink-now", &[])
        .persist("/with-exclude", &["skip", "deeper/down/skip"])
        .persist("/connector/keep", &[]);
    machine.blank = "@other".to_owned();
    machine.reset_and_compare()?;
    assert_eq!(machine.text("with-exclude/skip/of-the-blank")?.as_deref(), Some("of the blank"));
    let result = capture(&machine.volume.live())?;
    let flags = |path: &str| result.at(path).unwrap().flags.to_string();
    assert_eq!(flags("connector"), "immutable");
    assert_eq!(flags("with-exclude/skip"), "immutable");
    assert_eq!(flags("connector/keep"), "");
    machine.close()
}
