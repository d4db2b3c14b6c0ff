//! `darlings diff` by the real binary on real btrfs.

use std::ffi::OsStr;
use std::fs::File;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::{chown, symlink};
use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::process::Command;

use crate::common::cmdline::{asked, well};
use crate::common::{Machine, Ran, put};
use anyhow::Result;
use darlings_testkit::loopfs::run;
use darlings_testkit::{capability, skip_unless};
use serde_json::{Value, json};

impl Machine {
    fn diff(&self, arguments: &[&str]) -> Result<Ran> {
        self.ran(self.word("diff", &self.config())?.args(arguments))
    }

    /// Change and path of each entry, and the whole of the volume.
    fn entries(&self, arguments: &[&str]) -> Result<(Vec<String>, Value)> {
        let ran = self.diff(&[&["--json"], arguments].concat())?;
        let mut warned = ran.stderr.lines().filter(|line| !line.contains("not the one that reset"));
        assert_eq!(warned.next(), None, "{}", ran.stdout);
        let told: Value = serde_json::from_str(&ran.stdout)?;
        assert_eq!(told["version"], 1);
        let volume = told["volumes"][0].clone();
        let entries = volume["entries"].as_array().unwrap().iter();
        let line = |entry: &Value| {
            let word = |key: &str| entry[key].as_str().unwrap().to_owned();
            format!("{} {}", word("change"), word("path"))
        };
        let lines: Vec<String> = entries.map(line).collect();
        assert_eq!(ran.code, Some(i32::from(!lines.is_empty())), "{lines:?}");
        Ok((lines, volume))
    }
}

/// `/keep` and `/home/mia/projects` are kept; it was reset once and then used.
fn used() -> Result<Machine> {
    let blank = |root: &Path| {
        put(root, "etc/hosts", "localhost\n")?;
        put(root, "etc/fstab", "nothing\n")?;
        put(root, "usr/share/doc", "words\n")?;
        Ok(std::fs::create_dir(root.join("home"))?)
    };
    let machine = Machine::new(blank, |root| put(root, "keep/kept", "kept"))?;
    let machine = machine.persist("/keep", &["cache"]).persist("/home/mia/projects", &[]);
    put(&machine.volume.live(), "home/mia/projects/main.rs", "fn main() {}")?;
    machine.reset_well()?;
    Ok(machine)
}

fn use_it(root: &Path) -> Result<()> {
    put(root, "keep/more", "kept too")?;
    put(root, "keep/cache/page", "12345")?;
    put(root, "home/mia/notes.txt", "0123456789")?;
    put(root, "home/mia/.cache/a/1", "x")?;
    put(root, "home/mia/.cache/a/2", "x")?;
    for path in ["home/mia/notes.txt", "home/mia/.cache", "home/mia/.cache/a/1"] {
        chown(root.join(path), Some(12_345), Some(100))?;
    }
    put(root, "etc/hosts", "localhost and more\n")?;
    std::fs::remove_file(root.join("usr/share/doc"))?;
    std::fs::create_dir(root.join("empty"))?;
    std::fs::create_dir(root.join("proc"))?;
    symlink("/nix/store/abc/bin/sh", root.join("etc/sh"))?;
    symlink("/elsewhere", root.join("etc/link"))?;
    std::os::unix::net::UnixListener::bind(root.join("etc/socket"))?;
    Ok(())
}

#[test]
fn right_after_a_reset_nothing_would_be_erased() -> Result<()> {
    skip_unless!(capability::root_and_btrfs(), Ok(()));
    let machine = used()?;
    for view in [&[][..], &["--flat"], &["--tree"]] {
        let ran = machine.diff(view)?;
        assert_eq!((ran.code, ran.stderr.as_str()), (Some(0), ""));
        assert_eq!(ran.stdout, "/: the next reset erases nothing\n");
    }
    machine.close()
}

#[test]
fn what_would_be_erased_is_shown_as_the_lines_that_matter() -> Result<()> {
    skip_unless!(capability::root_and_btrfs(), Ok(()));
    let machine = used()?;
    use_it(&machine.volume.live())?;
    let before = machine.whole()?;
    let ran = machine.diff(&[])?;
    assert_eq!((ran.code, ran.stderr.as_str()), (Some(1), ""));
    assert_eq!(
        ran.stdout,
        "\
/: the next reset erases 5 files (27 B), reverts 1, brings back 1
  left out, since the system makes them again (--all shows them): \
1 link into the Nix store or /etc/static, 1 socket, 1 empty directory, 1 mount point
  Files of users
    10 B  1 file  12345  /home/mia/notes.txt
     1 B  1 file  12345  /home/mia/.cache/a/1
  Files of the system
    19 B  1 file  root  /etc/hosts  (changed)
    10 B  1 file  root  /etc/link
     5 B  1 file  root  /keep/cache/page
     1 B  1 file  root  /home/mia/.cache/a/2
  Comes back
    6 B  1 file  root  /usr/share/doc
"
    );
    assert_eq!(machine.whole()?.differences(&before), "");
    machine.close()
}

#[test]
fn every_entry_has_a_line_or_a_place_in_a_tree() -> Result<()> {
    skip_unless!(capability::root_and_btrfs(), Ok(()));
    let machine = used()?;
    let live = machine.volume.live();
    use_it(&live)?;
    std::fs::write(live.join(OsStr::from_bytes(b"etc/odd\n\xff")), "")?;
    std::fs::set_permissions(
        live.join("usr"),
        std::os::unix::fs::PermissionsExt::from_mode(0o700),
    )?;
    let end = "\
/: the next reset erases 6 files (27 B), reverts 2, brings back 1
  left out, since the system makes them again (--all shows them): \
1 link into the Nix store or /etc/static, 1 socket, 1 empty directory, 1 mount point
";
    let ran = machine.diff(&["--flat"])?;
    assert_eq!((ran.code, ran.stderr.as_str()), (Some(1), ""));
    let lines = "\
~       19 B  root      /etc/hosts  (content)
-       10 B  root      /etc/link
-        0 B  root      \"/etc/odd\\n\\xFF\"
-        1 B  12345     /home/mia/.cache/a/1
-        1 B  root      /home/mia/.cache/a/2
-       10 B  12345     /home/mia/notes.txt
-        5 B  root      /keep/cache/page
~        0 B  root      /usr/  (mode)
+        6 B  root      /usr/share/doc
";
    assert_eq!(ran.stdout, format!("{lines}{end}"));
    let ran = machine.diff(&["--tree"])?;
    assert_eq!((ran.code, ran.stderr.as_str()), (Some(1), ""));
    let lines = "    etc/
~     hosts  19 B  (content)
-     link  10 B
-     \"odd\\n\\xFF\"  0 B
    home/
      mia/
-       .cache/  2 files, 2 B
-       notes.txt  10 B
    keep/
-     cache/  1 file, 5 B
~   usr/  (mode)
      share/
+       doc  6 B
";
    assert_eq!(ran.stdout, format!("{lines}{end}"));
    machine.close()
}

#[test]
fn json_says_everything_of_an_entry_and_what_was_left_out() -> Result<()> {
    skip_unless!(capability::root_and_btrfs(), Ok(()));
    let machine = used()?;
    let live = machine.volume.live();
    use_it(&live)?;
    std::fs::write(live.join(OsStr::from_bytes(b"etc/odd\xff")), "")?;
    let (_, mut volume) = machine.entries(&["/etc"])?;
    for entry in volume["entries"].as_array_mut().unwrap() {
        assert!(entry["modified"].take().as_i64().unwrap() > 1_600_000_000);
    }
    for key in ["looked_at", "peak_memory_bytes"] {
        assert!(volume[key].take().as_u64().unwrap() > 0, "{key}");
    }
    let entry = |path: &str, kind: &str, bytes: u64, mode: &str| {
        json!({"path": path, "change": "new", "fate": "erased", "kind": kind, "bytes": bytes,
               "uid": 0, "gid": 0, "owner": "root", "mode": mode, "modified": null})
    };
    let mut hosts = entry("/etc/hosts", "file", 19, "0644");
    hosts["change"] = "changed".into();
    hosts["aspects"] = json!(["content"]);
    let mut odd = entry("/etc/odd\u{fffd}", "file", 0, "0644");
    odd["path_bytes"] = json!(b"/etc/odd\xff");
    let amount = |files: u64, bytes: u64| json!({"files": files, "directories": 0, "bytes": bytes});
    assert_eq!(
        volume,
        json!({
            "mount_point": "/",
            "entries": [hosts, entry("/etc/link", "symlink", 10, "0777"), odd],
            "older": null,
            "newer": null,
            "totals": {
                "new": amount(2, 10),
                "changed": amount(1, 19),
                "removed": amount(0, 0),
                "attic": amount(0, 0),
                "managed": {"nix_link": 1, "socket": 1, "empty_directory": 0, "mount_point": 0},
            },
            "fast": true,
            "looked_at": null,
            "peak_memory_bytes": null,
        })
    );
    let (lines, volume) = machine.entries(&["--all", "/etc"])?;
    assert_eq!(
        lines,
        [
            "changed /etc/hosts",
            "new /etc/link",
            "new /etc/odd\u{fffd}",
            "new /etc/sh",
            "new /etc/socket"
        ]
    );
    let managed: Vec<&Value> =
        volume["entries"].as_array().unwrap().iter().map(|entry| &entry["managed"]).collect();
    assert_eq!(managed[3..], [&json!("nix_link"), &json!("socket")]);
    machine.close()
}

#[test]
fn a_path_that_is_no_longer_declared_goes_to_the_attic() -> Result<()> {
    skip_unless!(capability::root_and_btrfs(), Ok(()));
    let mut machine = used()?;
    machine.rules.retain(|rule| rule.path.as_bytes() != b"keep");
    let ran = machine.diff(&[])?;
    assert_eq!(ran.code, Some(1));
    let warned = "warning: /: the configuration on the disk is not the one that reset 1 went by; ";
    assert!(ran.stderr.starts_with(warned) && ran.stderr.lines().count() == 1, "{}", ran.stderr);
    assert_eq!(
        ran.stdout,
        "\
/: the next reset puts 2 in the attic
  Goes to the attic, because it is no longer persisted
    4 B  1 file  root  /keep/kept
"
    );
    let (_, volume) = machine.entries(&[])?;
    let fates: Vec<&Value> =
        volume["entries"].as_array().unwrap().iter().map(|entry| &entry["fate"]).collect();
    assert_eq!(fates, ["attic", "attic"]);
    machine.close()
}

#[test]
fn wrong_use_says_what_to_do() -> Result<()> {
    skip_unless!(capability::root_and_btrfs(), Ok(()));
    let machine = used()?;
    let config = machine.config().replace("mount_point = \"/\"", "mount_point = \"/proc\"");
    let config = config.replace("path = \"/", "path = \"/proc/");
    let with = |config: &str, arguments: &[&str]| -> Result<(Option<i32>, String)> {
        let ran = machine.ran(machine.word("diff", config)?.args(arguments))?;
        assert_eq!(ran.stdout, "");
        Ok((ran.code, ran.stderr))
    };
    let said = |arguments: &[&str]| with(&machine.config(), arguments);
    let told = |result: (Option<i32>, String), words: &str| {
        assert_eq!(result.0, Some(2), "{}", result.1);
        assert!(result.1.contains(words), "{}", result.1);
    };
    told(said(&["/no/such/path"])?, "there is nothing at /no/such/path, neither now nor");
    told(said(&["/proc/version"])?, "something else is mounted at /proc, which is not reset");
    told(with(&config, &["/etc"])?, "is on no volume that is reset, so nothing");
    told(said(&["--since", "7"])?, "there is no generation 7; there is 1");
    told(said(&["--until", "7"])?, "--since <N>");
    let missing = machine.ran(Command::new(env!("CARGO_BIN_EXE_darlings")).args([
        "diff",
        "--config",
        "/no/such/file",
    ]))?;
    told((missing.code, missing.stderr), "name the configuration with --config FILE");
    let mut command = machine.word("diff", &machine.config())?;
    let nobody = machine.ran(command.uid(65_534).gid(65_534))?;
    told((nobody.code, nobody.stderr), "run `sudo darlings diff`");
    machine.close()
}

#[test]
fn a_path_narrows_it_down_and_a_kept_one_says_so() -> Result<()> {
    skip_unless!(capability::root_and_btrfs(), Ok(()));
    let machine = used()?;
    use_it(&machine.volume.live())?;
    let (lines, _) = machine.entries(&["/home/mia/.cache/a"])?;
    let below = ["new /home/mia/.cache/a", "new /home/mia/.cache/a/1", "new /home/mia/.cache/a/2"];
    assert_eq!(lines, below);
    assert_eq!(machine.entries(&["/usr/share/doc"])?.0, ["removed /usr/share/doc"]);
    assert_eq!(machine.entries(&["/keep"])?.0, ["new /keep/cache", "new /keep/cache/page"]);
    assert_eq!(machine.entries(&["/keep/cache/page"])?.0, ["new /keep/cache/page"]);
    assert_eq!(machine.entries(&["/etc/fstab"])?.0, [""; 0]);
    let ran = machine.diff(&["/home/mia/projects"])?;
    assert_eq!((ran.code, ran.stderr.as_str()), (Some(0), ""));
    assert_eq!(
        ran.stdout,
        "/: the next reset erases nothing\n  it is at or below a persisted path, and is kept\n"
    );
    machine.close()
}

#[test]
fn generations_are_compared_with_kept_paths_and_the_fast_way_tells_the_same() -> Result<()> {
    skip_unless!(capability::root_and_btrfs(), Ok(()));
    for strategy in ["carry", "rollback"] {
        let mut machine = used()?;
        strategy.clone_into(&mut machine.strategy);
        let live = machine.volume.live();
        machine.reset_well()?;
        put(&live, "keep/second", "2")?;
        put(&live, "gone", "2")?;
        machine.volume.make_subvolume("@/keep/nested")?;
        put(&live, "keep/nested/in it", "1")?;
        machine.reset_well()?;
        put(&live, "keep/second", "3")?;
        put(&live, "keep/nested/in it", "2")?;
        std::fs::rename(live.join("keep/kept"), live.join("keep/renamed"))?;
        machine.reset_well()?;
        let both = |arguments: &[&str]| -> Result<Vec<String>> {
            let (lines, volume) = machine.entries(arguments)?;
            assert_eq!(volume["fast"], strategy == "carry");
            let (full, _) = machine.entries(&[arguments, &["--full"]].concat())?;
            assert_eq!(lines, full, "{strategy} {arguments:?}");
            Ok(lines)
        };
        assert_eq!(both(&["--since", "4"])?, ["new /keep/nested", "new /keep/nested/in it"]);
        assert_eq!(
            both(&["--since", "3"])?,
            [
                "new /keep/nested",
                "new /keep/nested/in it",
                "new /keep/renamed",
                "changed /keep/second",
                "removed /keep/kept",
                "removed /gone",
            ]
        );
        assert_eq!(both(&["--since", "2", "--until", "3"])?, ["new /gone", "new /keep/second"]);
        let ran = machine.diff(&["--since", "2", "--until", "3"])?;
        assert_eq!(ran.stdout.lines().next(), Some("/: 2 files (2 B) new"));
        machine.close()?;
    }
    Ok(())
}

/// The records of the filesystem must not say less than there is.
#[test]
fn a_change_is_found_whatever_was_done_to_the_manifest_meanwhile() -> Result<()> {
    skip_unless!(capability::root_and_btrfs(), Ok(()));
    for strategy in ["carry", "rollback"] {
        let mut machine = used()?;
        strategy.clone_into(&mut machine.strategy);
        machine.reset_well()?;
        let live = machine.volume.live();
        put(&live, "usr/share/doc", "other\n")?;
        machine.volume.fs.remount_fresh()?;
        // Somebody reads them, which sets the time of access.
        for name in ["manifest", "generation"] {
            let file = live.join(".darlings").join(name);
            run(Command::new("touch").args(["-a", "-d", "yesterday"]).arg(file))?;
        }
        assert_eq!(machine.entries(&[])?.0, ["changed /usr/share/doc"], "{strategy}");
        // Somebody writes it anew.
        let text = std::fs::read(live.join(".darlings/manifest"))?;
        std::fs::remove_file(live.join(".darlings/manifest"))?;
        std::fs::write(live.join(".darlings/manifest"), text)?;
        let (lines, volume) = machine.entries(&[])?;
        assert_eq!((lines, &volume["fast"]), (vec!["changed /usr/share/doc".into()], &json!(true)));
        machine.close()?;
    }
    Ok(())
}

#[test]
fn only_what_was_changed_since_the_reset_is_looked_at() -> Result<()> {
    skip_unless!(capability::root_and_btrfs(), Ok(()));
    for strategy in ["carry", "rollback"] {
        let blank = |root: &Path| {
            for number in 0..500 {
                put(root, &format!("usr/{}/{number}", number % 20), "of the blank")?;
            }
            Ok(())
        };
        let mut machine = Machine::new(blank, |_| Ok(()))?.persist("/keep", &[]);
        strategy.clone_into(&mut machine.strategy);
        machine.reset_well()?;
        put(&machine.volume.live(), "usr/7/new", "new")?;
        let (lines, volume) = machine.entries(&[])?;
        assert_eq!((lines, &volume["fast"]), (vec!["new /usr/7/new".into()], &json!(true)));
        // The new file and the two directories above it.
        assert_eq!(volume["looked_at"], 3, "{strategy}");
        let (lines, volume) = machine.entries(&["--full"])?;
        assert_eq!((lines, &volume["fast"]), (vec!["new /usr/7/new".into()], &json!(false)));
        assert!(volume["looked_at"].as_u64().unwrap() > 500);
        machine.close()?;
    }
    Ok(())
}

#[test]
fn another_blank_or_a_tree_that_no_reset_made_is_looked_at_as_a_whole() -> Result<()> {
    skip_unless!(capability::root_and_btrfs(), Ok(()));
    let machine = used()?;
    put(&machine.volume.live(), "etc/made", "before the snapshot")?;
    // The manifest is written, and the volume stays what it was.
    well(asked(&machine, "darlings=snapshot")?, "snapshot", "snapshot")?;
    let (lines, volume) = machine.entries(&[])?;
    assert_eq!((lines, &volume["fast"]), (vec!["new /etc/made".into()], &json!(true)));
    // A generation was not made from the blank, whatever is in it.
    put(&machine.volume.live(), "etc/made", "after the snapshot")?;
    well(asked(&machine, "darlings=restore:previous")?, "restored", "restore:previous")?;
    let (lines, volume) = machine.entries(&[])?;
    assert_eq!((lines, &volume["fast"]), (vec!["new /etc/made".into()], &json!(false)));
    machine.reset_well()?;
    assert_eq!(machine.entries(&[])?.0, [""; 0]);

    machine.volume.snapshot("@blank", "@new-blank", false)?;
    put(&machine.at("@new-blank"), "usr/share/doc", "newer words\n")?;
    let config = machine.config().replace("@blank", "@new-blank");
    let ran = machine.ran(machine.word("diff", &config)?.args(["--json"]))?;
    let told: Value = serde_json::from_str(&ran.stdout)?;
    assert_eq!(told["volumes"][0]["entries"][0]["path"], "/usr/share/doc");
    assert_eq!(told["volumes"][0]["fast"], false);

    // The same one, changed in place.
    machine.read_only("@blank", false)?;
    put(&machine.at("@blank"), "usr/share/doc", "newer words\n")?;
    machine.read_only("@blank", true)?;
    let (lines, volume) = machine.entries(&[])?;
    assert_eq!((lines, &volume["fast"]), (vec!["changed /usr/share/doc".into()], &json!(true)));

    // Again, to as many bytes and with the time set back.
    machine.reset_well()?;
    assert_eq!(machine.entries(&[])?.0, [""; 0]);
    machine.read_only("@blank", false)?;
    let path = machine.at("@blank").join("usr/share/doc");
    let time = std::fs::metadata(&path)?.modified()?;
    std::fs::write(&path, "other words\n")?;
    File::options().write(true).open(&path)?.set_modified(time)?;
    machine.read_only("@blank", true)?;
    assert_eq!(machine.entries(&[])?.0, ["changed /usr/share/doc"]);
    machine.close()
}

#[test]
fn what_the_blank_has_comes_back_once_its_absence_is_no_longer_kept() -> Result<()> {
    skip_unless!(capability::root_and_btrfs(), Ok(()));
    let machine = Machine::new(|root| put(root, "etc/hosts", "blank"), |_| Ok(()))?;
    std::fs::remove_dir_all(machine.volume.live().join("etc"))?;
    std::fs::create_dir(machine.volume.live().join("etc"))?;
    let without = machine.config();
    let machine = machine.persist("/etc/hosts", &[]);
    machine.reset_well()?;
    assert!(!machine.volume.live().join("etc/hosts").exists());
    assert_eq!(machine.entries(&[])?.0, [""; 0]);

    let ran = machine.ran(machine.word("diff", &without)?.args(["--json"]))?;
    let told: Value = serde_json::from_str(&ran.stdout)?;
    let volume = &told["volumes"][0];
    let entry = &volume["entries"][0];
    assert_eq!((&volume["fast"], &entry["path"]), (&json!(false), &json!("/etc/hosts")));
    assert_eq!(entry["change"], "removed");
    assert_eq!(volume["entries"].as_array().unwrap().len(), 1);
    machine.close()
}

#[test]
fn a_tree_deeper_than_what_is_held_open_is_read_to_its_end() -> Result<()> {
    skip_unless!(capability::root_and_btrfs(), Ok(()));
    let machine = used()?;
    let mut at = machine.volume.live();
    let mut expected = Vec::new();
    let mut path = String::new();
    for level in 0..100 {
        at.push("d");
        path.push_str("/d");
        std::fs::create_dir(&at)?;
        // Before and after the directory, in the order of names.
        for name in ["a", "z"] {
            std::fs::write(at.join(name), format!("{level}"))?;
            expected.push(format!("new {path}/{name}"));
        }
        expected.push(format!("new {path}"));
    }
    let (mut lines, _) = machine.entries(&[])?;
    let after = lines.iter().rposition(|line| line.ends_with("/d/a")).unwrap();
    assert_eq!(lines[after + 1..].len(), 100);
    lines.sort();
    expected.sort();
    assert_eq!(lines, expected);
    machine.close()
}
