//! The NixOS module: every file is Nix, and what it writes is what the golden files have.
//!
//! The golden files come from an evaluation with the library of nixpkgs, which `NIXPKGS_LIB` points
//! to; `DARLINGS_WRITE_GOLDEN=1` writes them anew. Where it is missing they are still what is looked
//! at: the binary reads the configurations, systemd the units, systemd-tmpfiles its lines.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use anyhow::{Context as _, Result, ensure};
use darlings_testkit::Foretold;
use darlings_testkit::capability::{root, skipped, skipped_unless};
use serde_json::{Value, json};

/// Where the module's binary is, in the golden files.
const BINARY: &str = "/nix/store/f26d0d39c058faf4f2bbfd551f7d14b9-darlings-0.1.0/bin/darlings";

fn here() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn golden() -> PathBuf {
    here().join("tests/nix/golden")
}

/// Whether a program is there; where it is not, the test says that it is skipped.
fn has(program: &str) -> bool {
    let found = Command::new(program).arg("--version").output().is_ok();
    if !found {
        skipped(&format!("needs the program {program}"));
    }
    found
}

fn text(output: &Output) -> String {
    let streams = [&output.stdout, &output.stderr];
    streams.map(|bytes| String::from_utf8_lossy(bytes).into_owned()).concat()
}

/// Every file of the repository with this ending, by looking, since a package has no git.
fn files(directory: &Path, ending: &str, found: &mut Vec<PathBuf>) -> Result<()> {
    for entry in fs::read_dir(directory)? {
        let path = entry?.path();
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        if path.is_dir() && name != "target" && !name.starts_with('.') {
            files(&path, ending, found)?;
        } else if name.ends_with(ending) {
            found.push(path);
        }
    }
    Ok(())
}

#[test]
fn every_nix_file_is_nix() -> Result<()> {
    if !has("nix-instantiate") {
        return Ok(());
    }
    let mut all = Vec::new();
    files(here(), ".nix", &mut all)?;
    ensure!(all.len() > 15, "there are more than these: {all:?}");
    let output = Command::new("nix-instantiate").arg("--parse").args(&all).output()?;
    ensure!(output.status.success(), "{}", text(&output));
    Ok(())
}

/// What tests/nix/eval.nix says; `None` where the library is missing, which is said.
fn evaluated() -> Result<Option<Value>> {
    let Some(library) = std::env::var_os("NIXPKGS_LIB") else {
        skipped_unless(
            "DARLINGS_REQUIRE_NIXPKGS",
            "NIXPKGS_LIB does not say where nixpkgs' lib is",
        );
        return Ok(None);
    };
    if !has("nix-instantiate") {
        return Ok(None);
    }
    let expression = format!(
        "import {}/tests/nix/eval.nix {{ nixpkgsLib = {}; }}",
        here().display(),
        Path::new(&library).display()
    );
    let output = Command::new("nix-instantiate")
        .args(["--eval", "--strict", "--json", "--expr", &expression])
        .output()?;
    ensure!(output.status.success(), "{}", text(&output));
    Ok(Some(serde_json::from_slice(&output.stdout)?))
}

#[test]
fn the_examples_give_what_the_golden_files_have() -> Result<()> {
    let Some(evaluated) = evaluated()? else { return Ok(()) };
    let examples = evaluated["examples"].as_object().context("no examples")?;
    ensure!(examples.len() >= 6, "so few examples: {:?}", examples.keys());
    let mut expected = BTreeMap::new();
    for (name, example) in examples {
        for (file, text) in example["files"].as_object().context("no files")? {
            let text = text.as_str().context("no text")?.to_owned();
            expected.insert(golden().join(name).join(file), text);
        }
        let rest = serde_json::to_string_pretty(&example["rest"])? + "\n";
        expected.insert(golden().join(name).join("rest.json"), rest);
    }
    if std::env::var_os("DARLINGS_WRITE_GOLDEN").is_some() {
        if golden().exists() {
            fs::remove_dir_all(golden())?;
        }
        for (path, text) in &expected {
            fs::create_dir_all(path.parent().context("no parent")?)?;
            fs::write(path, text)?;
        }
    }
    let mut found = Vec::new();
    files(&golden(), "", &mut found)?;
    let found: BTreeMap<_, _> = found
        .into_iter()
        .map(|path| Ok((path.clone(), fs::read_to_string(path)?)))
        .collect::<Result<_>>()?;
    assert_eq!(found, expected);
    Ok(())
}

#[test]
fn what_is_wrong_with_a_configuration_is_said_and_nothing_else() -> Result<()> {
    let Some(evaluated) = evaluated()? else { return Ok(()) };
    let cases = evaluated["cases"].as_array().context("no cases")?;
    ensure!(cases.len() > 30, "so few cases: {}", cases.len());
    for case in cases {
        assert_eq!(case["found"], case["expected"], "{}", case["name"]);
    }
    Ok(())
}

#[test]
fn the_functions_of_the_library_say_what_they_should() -> Result<()> {
    let Some(evaluated) = evaluated()? else { return Ok(()) };
    let cases = evaluated["functions"].as_array().context("no functions")?;
    ensure!(cases.len() > 9, "so few cases: {}", cases.len());
    for case in cases {
        assert_eq!(case["found"], case["expected"], "{}", case["name"]);
    }
    Ok(())
}

/// Option by option, and the tables in docs/nixos.md say the same.
#[test]
fn what_becomes_of_the_other_tools_options_is_what_the_document_says() -> Result<()> {
    let Some(evaluated) = evaluated()? else { return Ok(()) };
    let path = here().join("docs/nixos.md");
    let mut document = fs::read_to_string(&path)?;
    for (tool, rows) in evaluated["documented"].as_object().context("no tools")? {
        let mut lines = vec!["| option | here |\n|---|---|\n".to_owned()];
        let mut rows = rows.as_array().context("no rows")?.clone();
        rows.sort_by_key(|row| row["option"].as_str().map(str::to_owned));
        ensure!(rows.len() > 15, "{tool}: so few options: {}", rows.len());
        for row in &rows {
            assert_eq!(row["found"], row["expected"], "{tool}: {}", row["option"]);
            let text = |key: &str| row[key].as_str().context("no text");
            lines.push(format!("| `{}` | {} |\n", text("option")?, text("here")?));
        }
        let table = lines.concat();
        let marked = |name: &str| format!("<!-- {name}: options of {tool} -->\n");
        let from = document.find(&marked("begin")).context("no begin")? + marked("begin").len();
        let to = document.find(&marked("end")).context("no end")?;
        if std::env::var_os("DARLINGS_WRITE_GOLDEN").is_some() {
            document.replace_range(from..to, &table);
            fs::write(&path, &document)?;
        } else {
            assert_eq!(document[from..to], table);
        }
    }
    Ok(())
}

/// Written anew in the shapes that public configurations have.
#[test]
fn ten_hosts_of_the_shapes_that_people_have_evaluate_without_a_word() -> Result<()> {
    let hosts: Vec<_> = golden_files("rest.json")?
        .into_iter()
        .filter(|(example, _)| example.starts_with("host-"))
        .collect();
    ensure!(hosts.len() >= 10, "so few hosts: {hosts:?}");
    for (host, path) in hosts {
        let rest: Value = serde_json::from_slice(&fs::read(path)?)?;
        assert_eq!(rest["assertions"], json!([]), "{host}");
        assert_eq!(rest["warnings"], json!([]), "{host}");
    }
    Ok(())
}

#[test]
fn users_declare_paths_in_their_own_homes_in_home_manager() -> Result<()> {
    let Some(evaluated) = evaluated()? else { return Ok(()) };
    let cases = evaluated["home"]["cases"].as_array().context("no cases")?;
    ensure!(cases.len() > 5, "so few cases: {}", cases.len());
    for case in cases {
        assert_eq!(case["found"], case["expected"], "{}", case["name"]);
    }
    Ok(())
}

/// The activation of a user whose Home Manager the system knows nothing of.
#[test]
fn a_standalone_home_manager_prints_what_the_system_does_not_persist() -> Result<()> {
    let Some(evaluated) = evaluated()? else { return Ok(()) };
    let script = evaluated["home"]["script"].as_str().context("no script")?;
    let scratch = tempfile::tempdir()?;
    let run = |kept: &str| -> Result<String> {
        let program = scratch.path().join("darlings");
        fs::write(
            &program,
            format!(
                "#!/bin/sh\n[ \"$1\" = explain ] || exit 2\n[ \"$2\" = \"{kept}\" ] || exit 3\n"
            ),
        )?;
        fs::set_permissions(&program, fs::Permissions::from_mode(0o755))?;
        let path = format!("{}:/usr/bin:/bin", scratch.path().display());
        let output = Command::new("bash")
            .args(["-eu", "-o", "pipefail", "-c", script])
            .env("PATH", path)
            .output()?;
        ensure!(output.status.success(), "{}", text(&output));
        Ok(text(&output))
    };
    let told = "darlings: the next boot erases what this configuration declares. Add to /etc/darlings.toml, or on\n\
                NixOS the same paths to darlings.users:\n";
    let quoted = "[[persist]]\npath = \"/home/mia/it's kept\"\n\n";
    let projects = "[[persist]]\npath = \"/home/mia/projects\"\nexclude = [\"target\"]\n\n";
    assert_eq!(run("/home/mia/it's kept")?, format!("{told}{projects}"));
    assert_eq!(run("/home/mia/projects")?, format!("{told}{quoted}"));
    assert_eq!(run("nothing")?, format!("{told}{quoted}{projects}"));
    Ok(())
}

#[test]
fn presets_persist_the_state_of_what_is_turned_on_and_each_can_be_switched_off() -> Result<()> {
    let Some(evaluated) = evaluated()? else { return Ok(()) };
    let presets = &evaluated["presets"];
    let (acme, bluetooth, postgres) =
        ("/var/lib/acme", "/var/lib/bluetooth", "/var/lib/postgresql");
    let networks = ["/etc/NetworkManager/system-connections", "/var/lib/NetworkManager"];
    let applied = json!({
        "hardware.bluetooth.enable":
            { "paths": [bluetooth], "what": "Bluetooth: paired devices and their keys" },
        "networking.networkmanager.enable": {
            "paths": networks,
            "what": "NetworkManager: networks and VPNs with their passwords; NetworkManager: leases, \
                     access points that were seen, its secret key",
        },
        "security.acme.certs": { "paths": [acme], "what": "ACME: certificates and accounts" },
        "services.postgresql.enable": { "paths": [postgres], "what": "a database" },
    });
    let expected = json!({
        "applied": applied, "assertions": [], "warnings": [], "made": [],
        "persisted": [bluetooth, networks[0], networks[1], acme, postgres],
    });
    assert_eq!(presets["on"], expected);
    assert_eq!(presets["off"]["persisted"], json!([]));
    assert_eq!(presets["off"]["applied"], json!({}));
    assert_eq!(presets["some"]["persisted"], json!([networks[1], acme]));
    assert_eq!(presets["some"]["warnings"], json!([]));
    Ok(())
}

/// Each preset on a disk, as its service leaves it.
#[test]
fn suggest_finds_on_the_disk_what_the_presets_name() -> Result<()> {
    let Some(evaluated) = evaluated()? else { return Ok(()) };
    if let Err(why) = root() {
        skipped(&why);
        return Ok(());
    }
    let presets = evaluated["presets"]["all"].as_object().context("no presets")?;
    ensure!(presets.len() > 30, "so few presets: {}", presets.len());
    let scratch = tempfile::tempdir()?;
    let volume = scratch.path().join("root");
    fs::create_dir_all(volume.join(".darlings"))?;
    let mut named = Vec::new();
    for path in presets.values().filter_map(|preset| preset["paths"].as_array()).flatten() {
        let path = path.as_str().context("no path")?;
        let at = volume.join(path.trim_start_matches('/'));
        fs::create_dir_all(&at)?;
        fs::write(at.join("state"), "x")?;
        named.push(path.to_owned());
    }
    let config = scratch.path().join("darlings.toml");
    let dir = format!("dir = {{ path = \"{}\", blank = \"empty\" }}", volume.display());
    fs::write(&config, format!("[[volume]]\nmount_point = \"/\"\n{dir}\n"))?;
    let output = Command::new(env!("CARGO_BIN_EXE_darlings"))
        .args(["suggest", "--json", "--config"])
        .arg(&config)
        .output()?;
    let answer: Value = serde_json::from_slice(&output.stdout).with_context(|| text(&output))?;
    let mut found: Vec<String> = answer["found"]
        .as_array()
        .context("nothing found")?
        .iter()
        .filter(|it| it["advice"] != "leave")
        .filter_map(|it| it["path"].as_str().map(str::to_owned))
        .collect();
    found.sort();
    named.sort();
    named.dedup();
    assert_eq!(found, named);
    Ok(())
}

/// Where lists of other tools hold what only the module system resolves, which one and what to write.
#[test]
fn lists_that_only_options_understand_are_named() -> Result<()> {
    let Some(library) = std::env::var_os("NIXPKGS_LIB") else { return Ok(()) };
    if !has("nix-instantiate") {
        return Ok(());
    }
    for (function, store, named) in [
        ("fromPersistence", "files = lib.mkIf true [ ]", "\"/persist\".files"),
        ("fromPreservation", "directories = lib.mkMerge [ ]", "\"/persist\".directories"),
        ("fromPersistence", "files = [ (lib.mkIf true \"/etc/x\") ]", "\"/persist\".files"),
        ("fromPersistence", "users.mia.files = lib.mkBefore [ ]", "\"/persist\".users.mia.files"),
        ("fromPersistence", "users.mia = lib.mkIf true { }", "\"/persist\".users.mia"),
    ] {
        let expression = format!(
            "let lib = import {}; in (import {}/nix/lib.nix {{ inherit lib; }}).{function} \
             {{ \"/persist\" = {{ {store}; }}; }}",
            Path::new(&library).display(),
            here().display(),
        );
        let output = Command::new("nix-instantiate")
            .args(["--eval", "--strict", "--expr", &expression])
            .output()?;
        ensure!(!output.status.success(), "{store}: {}", text(&output));
        let told = format!(
            "darlings: {function}: {named} has something of lib.mkIf, lib.mkMerge or the like in it, \
             which only options understand; use lib.optionals or lib.optionalAttrs there, or put \
             lib.mkIf before {function}."
        );
        assert!(text(&output).contains(&told), "{store}: {}", text(&output));
    }
    Ok(())
}

#[test]
fn the_flake_has_what_it_promises() -> Result<()> {
    let Some(evaluated) = evaluated()? else { return Ok(()) };
    let mut flake = evaluated["flake"].clone();
    ensure!(flake["scripts"].take().as_object().is_some_and(|scripts| scripts.len() == 2));
    let expected = json!({
        "outputs": {
            "checks": ["nixos-btrfs", "nixos-zfs", "package", "package-btrfs"],
            "devShells": ["default"],
            "formatter": true,
            "homeManagerModules": ["darlings", "default"],
            "lib": flake["outputs"]["lib"],
            "nixosModules": ["darlings", "default"],
            "overlays": ["default"],
            "packages": ["darlings", "darlings-btrfs", "default"],
        },
        "default": "darlings",
        "overlaid": "darlings",
        "module": { "imports": ["module.nix"], "builds": "darlings", "elsewhere": null },
        "shell": "/nix/store/nixpkgs/lib",
        "shellPackages": 14,
        "package": {
            "pname": "darlings",
            "runsWhenBuilt": true,
            "postFixup": "patchelf --add-rpath /nix/store/zfs/lib $out/bin/darlings\n",
            "mainProgram": "darlings",
            "libraries": ["/nix/store/zfs/lib/libzfs_core.so.3", "/nix/store/zfs/lib/libnvpair.so.3"],
        },
        "withoutZfs": { "postFixup": "", "libraries": [], "withZfs": false },
        "crossed": { "postInstall": "" },
        "scripts": null,
    });
    assert_eq!(flake, expected);
    for function in ["fromHomePersistence", "fromPersistence", "fromPreservation"] {
        let functions = flake["outputs"]["lib"].as_array().context("no functions")?;
        ensure!(functions.contains(&json!(function)), "{functions:?}");
    }
    Ok(())
}

/// Built by the machine's nixpkgs where that can, and for the machine's ZFS in any case.
#[test]
fn a_machine_whose_rust_is_too_old_takes_the_build_of_the_flake() -> Result<()> {
    let Some(evaluated) = evaluated()? else { return Ok(()) };
    let manifest = fs::read_to_string(here().join("Cargo.toml"))?;
    let needs = manifest
        .lines()
        .find_map(|line| line.strip_prefix("rust-version = \"")?.strip_suffix('"'))
        .context("no rust-version")?;
    let refused = format!(
        "darlings.package: darlings needs Rust {needs} or newer, as nixpkgs 25.11 and later have it, \
         and here it would be built with 1.86.0. Use a newer nixpkgs for this machine, or let the flake \
         have one of its own: remove inputs.darlings.inputs.nixpkgs.follows."
    );
    let libraries = json!([
        "/nix/store/zfs-of-the-kernel/lib/libzfs_core.so.3",
        "/nix/store/zfs-of-the-kernel/lib/libnvpair.so.3",
    ]);
    let built =
        |rust: &str, said: Value| json!({ "rust": rust, "libraries": libraries, "said": said });
    let expected = json!({
        "new": built("1.91.1", json!([])),
        "old": built("1.90.0", json!([])),
        "oldWithoutFlake": built("1.86.0", json!([refused])),
        "bothOld": built("1.86.0", json!([refused])),
    });
    assert_eq!(evaluated["builds"], expected);
    Ok(())
}

#[test]
fn the_scripts_of_the_nixos_machines_are_python() -> Result<()> {
    let Some(evaluated) = evaluated()? else { return Ok(()) };
    if !has("python3") {
        return Ok(());
    }
    let scripts = evaluated["flake"]["scripts"].as_object().context("no scripts")?;
    for (name, script) in scripts {
        let output = Command::new("python3")
            .args(["-c", "import ast, sys; ast.parse(sys.argv[1])"])
            .arg(script.as_str().context("no text")?)
            .output()?;
        ensure!(output.status.success(), "{name}: {}", text(&output));
    }
    Ok(())
}

/// What the package leaves out, cargo does not miss.
#[test]
fn the_package_has_every_member_of_the_workspace() -> Result<()> {
    let package = fs::read_to_string(here().join("nix/package.nix"))?;
    let scratch = tempfile::tempdir()?;
    let taken: Vec<&str> =
        package.lines().filter_map(|line| line.strip_prefix("      ../")).collect();
    ensure!(taken.len() > 5, "{taken:?}");
    for name in taken {
        let link = scratch.path().join(name);
        fs::create_dir_all(link.parent().context("no parent")?)?;
        std::os::unix::fs::symlink(here().join(name), link)?;
    }
    let output = Command::new(env!("CARGO"))
        .args(["metadata", "--offline", "--no-deps", "--format-version=1", "--manifest-path"])
        .arg(scratch.path().join("Cargo.toml"))
        .output()?;
    ensure!(output.status.success(), "{}", text(&output));
    Ok(())
}

#[test]
fn every_option_has_a_description_a_type_a_default_and_an_example() -> Result<()> {
    let Some(evaluated) = evaluated()? else { return Ok(()) };
    assert_eq!(evaluated["undocumented"], json!([]));
    ensure!(evaluated["optionCount"].as_u64().is_some_and(|count| count > 100), "too few");
    Ok(())
}

/// The reference and darlings.nix(5) are made of it: `cargo xtask nixos-options docs/nixos-options.md`.
#[test]
fn the_reference_has_the_options_as_they_are() -> Result<()> {
    let Some(evaluated) = evaluated()? else { return Ok(()) };
    let path = here().join("nix/options.json");
    let reference = serde_json::to_string_pretty(&evaluated["reference"])? + "\n";
    ensure!(evaluated["reference"].as_object().is_some_and(|it| it.len() > 50), "{reference}");
    if std::env::var_os("DARLINGS_WRITE_GOLDEN").is_some() {
        fs::write(&path, &reference)?;
    }
    // Each nixpkgs has its own words for the types.
    let untyped = |text: &str| -> Result<Value> {
        let mut options: serde_json::Map<String, Value> = serde_json::from_str(text)?;
        for (name, option) in &mut options {
            let option = option.as_object_mut().with_context(|| name.clone())?;
            ensure!(option.remove("type").is_some(), "{name} has no type");
        }
        Ok(options.into())
    };
    assert_eq!(untyped(&fs::read_to_string(&path)?)?, untyped(&reference)?);
    Ok(())
}

/// Where it is off it sets nothing at all.
#[test]
fn the_module_is_inert_without_enable_and_in_the_machine_of_build_vm() -> Result<()> {
    let Some(evaluated) = evaluated()? else { return Ok(()) };
    let nothing = json!({
        "activationScripts": {}, "assertions": [], "etc": {}, "initrd": [], "initrdBin": {}, "initrdContents": {},
        "neededForBoot": [], "preSwitchChecks": {}, "requiredBy": {}, "wantedBy": {}, "warnings": [],
    });
    assert_eq!(evaluated["disabled"]["rest"], nothing);
    assert_eq!(evaluated["vmVariant"]["rest"], nothing);
    Ok(())
}

#[test]
fn the_check_is_part_of_the_activation_where_there_are_no_pre_switch_checks() -> Result<()> {
    let Some(evaluated) = evaluated()? else { return Ok(()) };
    let script = evaluated["old"]["rest"]["activationScripts"]["darlings-check"].as_str();
    let script = script.context("no such script")?;
    assert!(script.starts_with("if [[ -n ${NIXOS_ACTION-} ]]; then\n"), "{script}");
    let zfs = "PATH=/nix/store/00000000000000000000000000000000-zfs-user/bin:$PATH";
    let check = format!("{zfs} {BINARY} check --fstab /dev/null --config /nix/store/");
    assert!(script.contains(&check), "{script}");
    Ok(())
}

/// The golden files with this name, by example.
fn golden_files(name: &str) -> Result<Vec<(String, PathBuf)>> {
    let mut found = Vec::new();
    for entry in fs::read_dir(golden())? {
        let path = entry?.path();
        let example = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        if path.join(name).exists() {
            found.push((example, path.join(name)));
        }
    }
    found.sort();
    ensure!(found.len() >= 6, "so few examples: {found:?}");
    Ok(found)
}

/// The binary gets past the configuration, to the volumes, which this machine does not have.
#[test]
fn the_binary_reads_every_configuration_that_the_module_writes() -> Result<()> {
    if let Err(why) = root() {
        skipped(&why);
        return Ok(());
    }
    for (example, path) in golden_files("darlings.toml")? {
        let mut command = Command::new(env!("CARGO_BIN_EXE_darlings"));
        command.args(["reset", "--dry-run", "--json", "--cmdline", "/dev/null", "--config"]);
        let output = Foretold::output(command.arg(&path).env_remove("JOURNAL_STREAM"))?;
        let report: Value = serde_json::from_slice(&output.stdout)
            .with_context(|| format!("{example}: {}", text(&output)))?;
        let config = fs::read_to_string(&path)?;
        let Some(error) = report["error"].as_str() else {
            // A dry run looks at the root of this machine in place of one at /sysroot.
            assert!(config.contains("dir = "), "{example}: no error");
            continue;
        };
        assert!(!error.contains("darlings.toml"), "{example}: {error}");
        // Each volume was looked for, and none is there.
        let volumes = config.matches("[[volume]]").count();
        let lines = error.lines().filter(|line| line.contains(": ")).count();
        assert!(lines >= volumes, "{example}: {volumes} volumes, and {error}");
    }
    Ok(())
}

/// A unit that something names, and that is of the kind that the name says.
fn neighbour(unit: &str) -> String {
    let rest = match unit.rsplit_once('.').map(|(_, kind)| kind) {
        Some("mount") => {
            // systemd wants the path that the name says.
            let at = unit.trim_end_matches(".mount").replace('-', "/");
            format!("[Mount]\nWhat=/dev/null\nWhere=/{at}\n")
        }
        Some("service") => "[Service]\nType=oneshot\nExecStart=/bin/true\n".to_owned(),
        _ => String::new(),
    };
    format!("[Unit]\nDescription=A neighbour\nDefaultDependencies=no\n\n{rest}")
}

#[test]
fn systemd_finds_nothing_wrong_with_the_units_and_their_order() -> Result<()> {
    if !has("systemd-analyze") {
        return Ok(());
    }
    let units = ["darlings-reset.service", "darlings-purge.service", "darlings-purge.timer"];
    for (example, path) in golden_files("darlings-reset.service")? {
        let scratch = tempfile::tempdir()?;
        let mut given = Vec::new();
        for unit in units {
            let from = path.with_file_name(unit);
            if from.exists() {
                let text =
                    fs::read_to_string(from)?.replace(BINARY, env!("CARGO_BIN_EXE_darlings"));
                fs::write(scratch.path().join(unit), text)?;
                given.push(scratch.path().join(unit));
            }
        }
        let reset = fs::read_to_string(&path)?;
        let named = reset
            .lines()
            .filter_map(|line| line.split_once('='))
            .filter(|(key, _)| ["Wants", "Requires", "After", "Before"].contains(key))
            .flat_map(|(_, units)| units.split(' '));
        for unit in named.filter(|unit| !unit.ends_with(".device")) {
            // Those that systemd ships are the real ones.
            let shipped = Path::new("/usr/lib/systemd/system").join(unit);
            if !shipped.exists() {
                fs::write(scratch.path().join(unit), neighbour(unit))?;
            }
        }
        // In stage 1 they are started for those that require them, together: only so is a cycle one.
        let summary: Value = serde_json::from_slice(&fs::read(path.with_file_name("rest.json"))?)?;
        let required_by = summary["requiredBy"]["darlings-reset.service"].as_array();
        for unit in required_by.context("nothing requires it")? {
            let unit = unit.as_str().context("no name")?;
            let links = scratch.path().join(format!("{unit}.requires"));
            fs::create_dir(&links)?;
            std::os::unix::fs::symlink(&given[0], links.join(units[0]))?;
            let own = scratch.path().join(unit);
            let shipped = Path::new("/usr/lib/systemd/system").join(unit);
            given.push(if own.exists() { own } else { shipped });
        }
        let output = Command::new("systemd-analyze")
            .args(["verify", "--man=no", "--recursive-errors=yes"])
            .args(&given)
            .env("SYSTEMD_UNIT_PATH", format!("{}:", scratch.path().display()))
            .output()?;
        // What is said of units that are not ours is not ours to mend.
        let about: Vec<String> = text(&output)
            .lines()
            .filter(|line| line.contains("darlings") || line.contains("cycle"))
            .map(str::to_owned)
            .collect();
        assert_eq!(about, Vec::<String>::new(), "{example}");
        ensure!(output.status.success(), "{example}: {}", text(&output));
    }
    Ok(())
}

/// In the sections where switch-to-configuration looks for it.
#[test]
fn a_switch_leaves_a_running_purge_alone() -> Result<()> {
    for (example, path) in golden_files("darlings-purge.service")? {
        let text = fs::read_to_string(path)?;
        let (unit, service) = text.split_once("\n[Service]\n").context("no service")?;
        let words = |section: &str| -> Vec<String> {
            section.lines().filter(|line| line.starts_with("X-")).map(str::to_owned).collect()
        };
        let found = (words(unit), words(service));
        let wanted =
            (vec!["X-StopOnRemoval=false".into()], vec!["X-RestartIfChanged=false".into()]);
        assert_eq!(found, wanted, "{example}");
    }
    Ok(())
}

/// Owner, group and mode of what is at a path, if something is.
fn standing(path: &Path) -> Option<(u32, u32, u32)> {
    let found = fs::symlink_metadata(path).ok()?;
    Some((found.uid(), found.gid(), found.permissions().mode() & 0o7777))
}

#[test]
fn systemd_tmpfiles_makes_what_is_missing_and_leaves_alone_what_is_there() -> Result<()> {
    if let Err(why) = root() {
        skipped(&why);
        return Ok(());
    }
    if !has("systemd-tmpfiles") {
        return Ok(());
    }
    let scratch = tempfile::tempdir()?;
    let at = |path: &str| scratch.path().join(path);
    fs::create_dir_all(at("etc"))?;
    fs::write(
        at("etc/passwd"),
        "root:x:0:0::/root:/bin/sh\nmia:x:1000:100::/home/mia:/bin/sh\ncolord:x:99:98::/:/bin/sh\n",
    )?;
    fs::write(at("etc/group"), "root:x:0:\nusers:x:100:\ncolord:x:98:\n")?;
    // There already, with another owner and another mode.
    fs::create_dir_all(at("var/log"))?;
    fs::set_permissions(at("var/log"), fs::Permissions::from_mode(0o2711))?;
    std::os::unix::fs::chown(at("var/log"), Some(5), Some(6))?;
    fs::set_permissions(at("var/log"), fs::Permissions::from_mode(0o2711))?;
    let run = || -> Result<()> {
        let root = format!("--root={}", scratch.path().display());
        let output = Command::new("systemd-tmpfiles")
            .args(["--create", &root])
            .arg(golden().join("zfs/tmpfiles.conf"))
            .output()?;
        ensure!(output.status.success() && text(&output).is_empty(), "{}", text(&output));
        Ok(())
    };
    run()?;
    let found: Vec<_> = [
        "home/mia",
        "home/mia/.local",
        "home/mia/.local/share/direnv",
        "home/mia/.ssh",
        "home/mia/VirtualBox VMs",
        "home/mia/.bash_history",
        "var/lib/colord",
        "var/lib/nixos",
        "var/log",
        "etc/nix",
        "etc/nix/id_rsa",
        "etc/ssh",
        "etc/ssh/ssh_host_ed25519_key",
        "etc/machine-id",
    ]
    .map(|path| standing(&at(path)))
    .into();
    let mia = |mode| Some((1000, 100, mode));
    assert_eq!(
        found,
        [
            mia(0o700),
            mia(0o755),
            mia(0o755),
            mia(0o700),
            mia(0o755),
            None, // a string: kept, not made
            Some((99, 98, 0o750)),
            Some((0, 0, 0o755)),
            Some((5, 6, 0o2711)),
            Some((0, 0, 0o700)),
            None,
            Some((0, 0, 0o755)), // made above a file that is not
            None,
            None,
        ]
    );
    fs::set_permissions(at("home/mia/.ssh"), fs::Permissions::from_mode(0o711))?;
    run()?;
    assert_eq!(standing(&at("home/mia/.ssh")), mia(0o711));
    Ok(())
}
