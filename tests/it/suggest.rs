//! `darlings suggest` by the real binary, on btrfs and in a plain directory.

use std::collections::BTreeMap;
use std::os::unix::fs::symlink;
use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::process::{Command, Stdio};

use crate::common::{Machine, Ran, put};
use anyhow::{Context as _, Result};
use darlings_testkit::loopfs::run;
use darlings_testkit::{capability, fill, remove, skip_unless};
use serde_json::{Value, json};

fn suggest(config: &Path, arguments: &[&str]) -> Result<Ran> {
    let mut command = Command::new(env!("CARGO_BIN_EXE_darlings"));
    command.args(["suggest", "--config"]).arg(config).args(arguments);
    ran(&mut command)
}

fn ran(command: &mut Command) -> Result<Ran> {
    let output = command.stdin(Stdio::null()).env_remove("JOURNAL_STREAM").output()?;
    Ok(Ran {
        code: output.status.code(),
        stdout: String::from_utf8(output.stdout)?,
        stderr: String::from_utf8(output.stderr)?,
        report: None,
    })
}

/// What was found: path, and what is asked of it.
fn found(json: &str, key: &str) -> Result<BTreeMap<String, Value>> {
    let answer: Value = serde_json::from_str(json)?;
    let found = answer["found"].as_array().context("nothing was found")?;
    Ok(found.iter().map(|it| (it["path"].as_str().unwrap().to_owned(), it[key].clone())).collect())
}

fn states<'s>(states: &[(&'s str, &'s str)]) -> BTreeMap<String, Value> {
    states.iter().map(|(path, state)| ((*path).to_owned(), json!(state))).collect()
}

/// A machine of a plain directory, which looks as if it had been reset once.
fn directory(at: &Path, persist: &str) -> Result<std::path::PathBuf> {
    let root = at.join("root");
    std::fs::create_dir_all(root.join(".darlings"))?;
    let config = at.join("darlings.toml");
    let volume = "[[volume]]\nmount_point = \"/\"\n";
    let path = root.display();
    let dir = format!("dir = {{ path = \"{path}\", blank = \"empty\" }}\n");
    std::fs::write(&config, format!("{volume}{dir}{persist}"))?;
    Ok(config)
}

#[test]
fn what_is_kept_is_told_apart_from_what_is_erased() -> Result<()> {
    skip_unless!(capability::root_and_btrfs(), Ok(()));
    let machine = Machine::new(
        |blank| {
            put(blank, "etc/adjtime", "0.0 0 0.0\n")?;
            put(blank, "etc/hostname", "blank\n")
        },
        |live| {
            put(live, "etc/hostname", "edited\n")?;
            put(live, "etc/machine-id", "8f0c\n")?;
            put(live, "etc/ssh/ssh_host_rsa_key", "secret\n")?;
            put(live, "etc/ssh/ssh_host_rsa_key.pub", "public\n")?;
            put(live, "etc/ssh/sshd_config", "what a program brings\n")?;
            put(live, "var/lib/docker/volumes/v/data", "12345")?;
            put(live, "var/lib/docker/image/layer", "123")?;
            put(live, "home/mia/.ssh/id", "secret\n")?;
            put(live, "home/mia/.mozilla/places", "x")?;
            put(live, "home/mia/.cache/thumbnail", "x")?;
            put(live, "home/.hidden/.ssh/id", "nobody's home\n")?;
            put(live, "somewhere/.ssh/id", "of nobody\n")
        },
    )?;
    let machine = machine
        .persist("etc/machine-id", &[])
        .persist("var/lib/docker/volumes", &[])
        .persist("home/mia", &[".mozilla", ".cache"]);
    let config = machine.beside("darlings.toml");
    std::fs::write(&config, machine.config())?;
    let before = machine.whole()?;
    let answer = suggest(&config, &["--json"])?;
    assert_eq!((answer.code, answer.stderr.as_str()), (Some(3), ""));
    assert_eq!(
        found(&answer.stdout, "state")?,
        states(&[
            ("/etc/adjtime", "in_the_blank"),
            ("/etc/hostname", "not_kept"),
            ("/etc/machine-id", "kept"),
            ("/etc/ssh/ssh_host_rsa_key", "not_kept"),
            ("/etc/ssh/ssh_host_rsa_key.pub", "not_kept"),
            ("/home/mia/.cache", "excluded"),
            ("/home/mia/.mozilla", "excluded"),
            ("/home/mia/.ssh", "kept"),
            ("/var/lib/docker", "partly_kept"),
        ])
    );
    let answer: Value = serde_json::from_str(&answer.stdout)?;
    assert_eq!((&answer["version"], &answer["errors"]), (&json!(1), &json!([])));
    let found = answer["found"].as_array().unwrap();
    assert_eq!(
        found.last(),
        Some(&json!({
            "path": "/var/lib/docker",
            "what": "Docker: images, containers and volumes",
            "why": "volumes with their data are lost, and images are fetched again. Best on a \
                    volume of its own, or with its volumes/ alone kept",
            "advice": "ask",
            "state": "partly_kept",
            "kept_below": ["/var/lib/docker/volumes"],
            "kind": "directory",
            "files": 2,
            "bytes": 8,
            "at_least": false,
        }))
    );
    assert_eq!(machine.whole()?.differences(&before), "");
    machine.close()
}

#[test]
fn its_lines_can_be_appended_to_the_configuration_and_are_kept_then() -> Result<()> {
    skip_unless!(capability::root_and_btrfs(), Ok(()));
    let machine = Machine::new(
        |_| Ok(()),
        |live| {
            put(live, "etc/machine-id", "8f0c\n")?;
            put(live, "home/o\"dd\\name/.gnupg/key", "secret\n")?;
            put(live, "var/lib/docker/layer", "x")?;
            put(live, "var/lib/bluetooth/info", "paired\n")
        },
    )?;
    let config = machine.beside("darlings.toml");
    std::fs::write(&config, machine.config())?;
    let answer = suggest(&config, &[])?;
    assert_eq!((answer.code, answer.stderr.as_str()), (Some(3), ""));
    std::fs::write(&config, machine.config() + &answer.stdout)?;
    let after = suggest(&config, &["--json"])?;
    assert_eq!((after.code, after.stderr.as_str()), (Some(0), ""), "{}", answer.stdout);
    assert_eq!(
        found(&after.stdout, "state")?,
        states(&[
            ("/etc/machine-id", "kept"),
            ("/home/o\"dd\\name/.gnupg", "kept"),
            ("/var/lib/bluetooth", "kept"),
            ("/var/lib/docker", "not_kept"),
        ])
    );
    let text = std::fs::read_to_string(&config)?;
    let ran = machine.run(text, &[])?;
    assert_eq!(ran.code, Some(0), "{}", ran.stderr);
    let live = machine.volume.live();
    assert_eq!(std::fs::read_to_string(live.join("home/o\"dd\\name/.gnupg/key"))?, "secret\n");
    assert!(!live.join("var/lib/docker").exists());
    machine.close()
}

#[test]
fn what_the_system_makes_itself_and_what_is_not_the_volume_s_is_not_suggested() -> Result<()> {
    skip_unless!(capability::root(), Ok(()));
    let scratch = tempfile::tempdir()?;
    let config = directory(scratch.path(), "")?;
    let root = scratch.path().join("root");
    // Links of NixOS, empty directories, sockets; nothing that anybody would miss.
    std::fs::create_dir_all(root.join("etc/wireguard"))?;
    std::fs::create_dir_all(root.join("var/lib/bluetooth/cache"))?;
    symlink("/nix/store/abc-machine-id", root.join("etc/machine-id"))?;
    symlink("/etc/static/cups", root.join("etc/cups"))?;
    std::fs::create_dir_all(root.join("root/.gnupg"))?;
    std::os::unix::net::UnixListener::bind(root.join("root/.gnupg/S.gpg-agent"))?;
    // Elsewhere: a link on the way, and something mounted.
    put(&root, "data/homes/mia/.ssh/id", "secret\n")?;
    symlink("/data/homes", root.join("home"))?;
    std::fs::create_dir_all(root.join("var/lib/docker"))?;
    std::fs::create_dir_all(root.join("var/lib/libvirt/images"))?;
    std::fs::create_dir_all(root.join("var/log"))?;
    put(&root, "var/lib/libvirt/images/disk", "1234")?;
    std::fs::create_dir_all(root.join("var/spool/cron"))?;
    let mounts = ["var/lib/docker", "var/lib/libvirt/images", "var/log", "var/spool"];
    let mounts = mounts.map(|at| root.join(at));
    // In a namespace of its own, so that nothing is left mounted whatever happens.
    let script = r#"
        for at in "$2" "$3" "$4" "$5"; do
            mount -t tmpfs none "$at"
            mkdir "$at/cron"
            echo x >"$at/cron/file"
        done
        "$0" suggest --config "$1" --json
    "#;
    let mut command = Command::new("unshare");
    command.args(["--mount", "--propagation", "private", "sh", "-ec", script]);
    command.arg(env!("CARGO_BIN_EXE_darlings")).arg(&config).args(&mounts);
    let answer = ran(&mut command)?;
    assert_eq!((answer.code, answer.stderr.as_str()), (Some(0), ""), "{}", answer.stdout);
    assert_eq!(found(&answer.stdout, "state")?, BTreeMap::new());
    // A link of one's own is state, and so is what is in a link's place without the mount.
    symlink("/data/docker", root.join("var/lib/containers"))?;
    let answer = suggest(&config, &["--json"])?;
    assert_eq!(
        found(&answer.stdout, "files")?,
        BTreeMap::from([
            ("/var/lib/containers".to_owned(), json!(1)),
            ("/var/lib/libvirt".to_owned(), json!(1)),
        ])
    );
    Ok(())
}

#[test]
fn a_year_of_clutter_has_its_state_told_from_its_rubbish() -> Result<()> {
    skip_unless!(capability::root(), Ok(()));
    let scratch = tempfile::tempdir()?;
    let root = scratch.path().join("root");
    let config = directory(scratch.path(), "")?;
    std::fs::write(
        &config,
        fill::clutter_config(&format!(
            "dir = {{ path = \"{}\", blank = \"empty\" }}",
            root.display()
        )),
    )?;
    fill::clutter(&root, 1)?;
    let answer = suggest(&config, &["--json"]);
    let text = suggest(&config, &[]);
    let nix = suggest(&config, &["--nix"]);
    // Immutable entries would keep the directory from going.
    remove::all(&root)?;
    let (answer, text, nix) = (answer?, text?, nix?);
    assert_eq!([answer.code, text.code, nix.code], [Some(3); 3], "{}", answer.stderr);
    let of = |wanted: (&str, &str)| -> Result<Vec<String>> {
        let advice = found(&answer.stdout, "advice")?;
        let state = found(&answer.stdout, "state")?;
        let chosen = advice.into_iter().filter(|(path, advice)| {
            (advice, &state[path]) == (&json!(wanted.0), &json!(wanted.1))
        });
        Ok(chosen.map(|(path, _)| path).collect())
    };
    assert_eq!(
        of(("keep", "kept"))?,
        [
            "/etc/machine-id",
            "/etc/ssh/ssh_host_ed25519_key",
            "/etc/ssh/ssh_host_ed25519_key.pub",
            "/home/mia/documents",
            "/home/mia/pictures",
            "/home/mia/projects",
            "/var/lib/nixos",
            "/var/log",
        ]
    );
    let missed = of(("keep", "not_kept"))?;
    for path in [
        "/etc/NetworkManager/system-connections",
        "/etc/ssh/ssh_host_rsa_key",
        "/home/mia/.gnupg",
        "/home/tom/.ssh",
        "/root/.ssh",
        "/var/lib/bluetooth",
        "/var/lib/fprint",
        "/var/lib/postgresql",
        "/var/lib/systemd/timers",
    ] {
        assert!(missed.iter().any(|missed| missed == path), "{path} is not in {missed:?}");
        let line = format!("\n[[persist]]\npath = \"{path}\"\n");
        assert!(text.stdout.contains(&line), "{path}\n{}", text.stdout);
    }
    assert_eq!(missed.len(), text.stdout.matches("\n[[persist]]\n").count());
    let asked = of(("ask", "not_kept"))?;
    assert_eq!(asked.len(), text.stdout.matches("\n# [[persist]]\n").count());
    for path in ["/var/lib/docker", "/var/lib/systemd/coredump", "/home/mia/downloads"] {
        assert!(asked.iter().any(|asked| asked == path), "{path} is not in {asked:?}");
    }
    assert!(nix.stdout.contains("\n  darlings.users.tom.directories = [\n"), "{}", nix.stdout);
    assert!(nix.stdout.contains("\n    \"/var/lib/bluetooth\"\n"), "{}", nix.stdout);
    Ok(())
}

#[test]
fn two_volumes_each_have_what_is_theirs() -> Result<()> {
    skip_unless!(capability::root_and_btrfs(), Ok(()));
    let machine = Machine::new(
        |_| Ok(()),
        |live| {
            put(live, "home/mia/.ssh/id", "hidden by the other volume\n")?;
            put(live, "etc/machine-id", "8f0c\n")
        },
    )?;
    machine.volume.make_subvolume("@home")?;
    put(&machine.at("@home"), "tom/.ssh/id", "secret\n")?;
    put(&machine.at("@home"), "etc/machine-id", "not that of the machine\n")?;
    let device = machine.volume.fs.device().display().to_string();
    let home = format!(
        "[[volume]]\nmount_point = \"/home\"\nbtrfs = {{ device = \"{device}\", subvolume = \
         \"@home\", blank = \"empty\" }}\n"
    );
    let config = machine.beside("darlings.toml");
    std::fs::write(&config, machine.config() + &home)?;
    let answer = suggest(&config, &["--json"])?;
    assert_eq!(
        found(&answer.stdout, "state")?,
        states(&[("/etc/machine-id", "not_kept"), ("/home/tom/.ssh", "not_kept")])
    );
    // One that is not there is told, and the other is looked at all the same.
    std::fs::write(&config, machine.config() + &home.replace("@home", "@gone"))?;
    let answer = suggest(&config, &[])?;
    assert_eq!(answer.code, Some(1));
    assert!(answer.stderr.starts_with("error: /home: "), "{}", answer.stderr);
    assert!(answer.stderr.contains("@gone"), "{}", answer.stderr);
    assert!(answer.stdout.contains("path = \"/etc/machine-id\""), "{}", answer.stdout);
    machine.close()
}

#[test]
fn wrong_use_says_what_to_do() -> Result<()> {
    skip_unless!(capability::root(), Ok(()));
    let scratch = tempfile::tempdir()?;
    let none = suggest(&scratch.path().join("none.toml"), &[])?;
    assert_eq!(none.code, Some(2));
    let said = "resets nothing on this machine; name the configuration with --config FILE, or \
                write one (see the README)\n";
    assert!(none.stderr.starts_with("error: there is no ") && none.stderr.ends_with(said));
    let config = directory(scratch.path(), "")?;
    let both = suggest(&config, &["--json", "--nix"])?;
    assert_eq!(both.code, Some(2));
    // A copy, where others than root can reach it.
    run(Command::new("chmod").arg("755").arg(scratch.path()))?;
    let program = scratch.path().join("darlings");
    std::fs::copy(env!("CARGO_BIN_EXE_darlings"), &program)?;
    let mut command = Command::new(&program);
    command.uid(65534).gid(65534).args(["suggest", "--config"]).arg(&config);
    let user = ran(&mut command)?;
    let said = "error: only root may look into the volumes and their generations; run `sudo darlings suggest`\n";
    assert_eq!((user.code, user.stderr.as_str()), (Some(2), said));
    Ok(())
}
