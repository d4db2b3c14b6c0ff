//! What a reset tells: the report as JSON, plain words on standard error, the exit code.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt as _;
use std::process::Command;

use crate::common::{Machine, put};
use anyhow::{Context as _, Result};
use darlings_testkit::loopfs::run;
use darlings_testkit::{capability, plant, skip_unless};
use serde_json::{Value, json};

const BIG: usize = 3 << 20;

/// A volume with a little of everything that a report tells.
fn machine() -> Result<Machine> {
    let machine = Machine::new(
        |blank| put(blank, "etc/os-release", "of the blank"),
        |live| {
            put(live, "var/log/a", "12345")?;
            put(live, "var/log/below/b", "1234567")?;
            std::fs::hard_link(live.join("var/log/a"), live.join("var/log/again"))?;
            std::os::unix::fs::symlink("a", live.join("var/log/link"))?;
            put(live, "var/log/skip/erased", "erased")?;
            std::fs::write(live.join("big"), vec![b'x'; BIG])?;
            put(live, "empty", "")?;
            put(live, "erased", "erased")?;
            Ok(std::os::unix::fs::symlink("/var", live.join("elsewhere"))?)
        },
    )?;
    let mut machine = machine
        .persist("/var/log", &["skip"])
        .persist("/big", &[])
        .persist("/empty", &[])
        .persist("/absent", &[])
        .persist("/elsewhere/log", &[]);
    // Entries and bytes are counted where they are copied.
    "rollback".clone_into(&mut machine.strategy);
    machine.volume.make_subvolume("@/var/log/nested")?;
    machine.volume.make_subvolume("@/gone")?;
    Ok(machine)
}

/// Takes what differs from run to run out of a report, after a look at whether it can be true.
fn without_measures(mut report: Value) -> Value {
    let peak = report["peak_memory_bytes"].take().as_u64().unwrap();
    assert!((1 << 20..64 << 20).contains(&peak), "{peak}");
    let total = report["seconds"].take().as_f64().unwrap();
    for volume in report["volumes"].as_array_mut().unwrap() {
        let steps = volume["steps"].as_array().unwrap().len();
        let seconds: Vec<f64> = volume["step_seconds"]
            .take()
            .as_array()
            .unwrap()
            .iter()
            .map(|value| value.as_f64().unwrap())
            .collect();
        let phases = volume["phase_seconds"].take();
        let names: Vec<&String> = phases.as_object().unwrap().keys().collect();
        assert_eq!(names, ["commit", "finish", "prepare"]);
        let sum: f64 = phases.as_object().unwrap().values().map(|it| it.as_f64().unwrap()).sum();
        let all: f64 = seconds.iter().sum();
        assert!((sum - all).abs() < 1e-6, "{sum} {all}");
        assert!(all <= total, "{all} {total}");
        assert_eq!(seconds.len(), steps);
    }
    report
}

#[test]
fn the_report_has_exactly_these_fields() -> Result<()> {
    skip_unless!(capability::root_and_btrfs(), Ok(()));
    let machine = machine()?;
    let ran = machine.reset_well()?;
    assert_eq!(ran.stdout, "");
    let device = machine.volume.fs.device().display();
    assert_eq!(
        without_measures(ran.report.unwrap()),
        json!({
            "version": 1,
            "asked": "reset",
            "outcome": "reset",
            "seconds": null,
            "peak_memory_bytes": null,
            "volumes": [{
                "mount_point": "/",
                "volume": format!("btrfs subvolume @ on {device}"),
                "does": "reset",
                "generation": 1,
                "previous_state": "@darlings/root/1",
                "resumes": false,
                "paths": [
                    {"path": "absent", "state": "absent"},
                    {"path": "big", "state": "present", "kind": "file"},
                    {
                        "path": "elsewhere/log", "state": "unreachable",
                        "ancestor": "elsewhere", "kind": "symbolic link",
                    },
                    {"path": "empty", "state": "present", "kind": "file"},
                    {"path": "var/log", "state": "present", "kind": "directory"},
                ],
                "leaving": ["/gone"],
                "warnings": [
                    "/elsewhere/log is not brought over: /elsewhere is a symbolic link, which is \
                     not followed; declare the path that it stands for"
                ],
                "steps": [
                    {"phase": "prepare", "step": "stage", "from": "@blank",
                     "target": "@darlings/root/.darlings/next"},
                    {"phase": "prepare", "step": "copy_in"},
                    {"phase": "prepare", "step": "record"},
                    {"phase": "prepare", "step": "secure", "name": "@darlings/root/ready-1"},
                    {"phase": "commit", "step": "exchange", "staged": "@darlings/root/ready-1",
                     "live": "@"},
                    {"phase": "commit", "step": "move_nested", "path": "var/log/nested", "to": "var/log/nested"},
                    {"phase": "commit", "step": "set_attributes"},
                    {"phase": "finish", "step": "keep_generation", "name": "@darlings/root/1"},
                ],
                "committed": true,
                "tidied": true,
                // `var/log`, a, again, link, below, below/b, nested.
                "restored": [
                    {"path": "big", "entries": 1, "bytes": BIG},
                    {"path": "empty", "entries": 1, "bytes": 0},
                    {"path": "var/log", "entries": 7, "bytes": 17},
                ],
                "bytes": {"reflinked": BIG + 12, "copy_file_range": 0, "copied": 0},
                "step_seconds": null,
                "phase_seconds": null,
            }],
        })
    );
    machine.close()
}

#[test]
fn the_journal_is_told_in_plain_words_what_was_done() -> Result<()> {
    skip_unless!(capability::root_and_btrfs(), Ok(()));
    let machine = machine()?;
    let ran = machine.reset_well()?;
    let device = machine.volume.fs.device().display();
    // Times differ from run to run.
    let lines: Vec<String> = ran
        .stderr
        .lines()
        .map(|line| match line.split_once(" in ") {
            Some((before, _)) if line.contains(" s") && line.contains('.') => before.to_owned(),
            _ => line.to_owned(),
        })
        .collect();
    assert_eq!(
        lines,
        [
            "warning: /: /elsewhere/log is not brought over: /elsewhere is a symbolic link, which \
             is not followed; declare the path that it stands for",
            "warning: /gone is a subvolume below no persisted path: it goes with the generation",
            "/: copy @blank as @darlings/root/.darlings/next",
            "/: copy the persisted paths from the previous state into the stage",
            "/: record the reset and the persisted paths in the stage",
            "/: make it durable as @darlings/root/ready-1",
            "/: exchange @darlings/root/ready-1 with @",
            "/: move the nested subvolume var/log/nested along",
            "/: set the attributes that the exchange has changed",
            "/: keep the previous state as @darlings/root/1",
            &format!("/ (btrfs subvolume @ on {device}): reset 1 done"),
            "  kept /big: 1 entry, 3.0 MiB",
            "  kept /empty: 1 entry, 0 B",
            "  kept /var/log: 7 entries, 17 B",
            "  3.0 MiB shared by reflink",
            "  the previous state is @darlings/root/1",
            "reset complete",
        ]
    );
    machine.close()
}

#[test]
fn what_was_moved_is_told_as_moved_and_not_counted() -> Result<()> {
    skip_unless!(capability::root_and_btrfs(), Ok(()));
    let mut machine = machine()?;
    "carry".clone_into(&mut machine.strategy);
    let ran = machine.reset_well()?;
    let report = ran.report.context("no report")?;
    assert_eq!(
        report["volumes"][0]["restored"],
        json!([{"path": "big"}, {"path": "empty"}, {"path": "var/log"}])
    );
    let kept = |line: &&str| line.starts_with("  kept ");
    assert_eq!(
        ran.stderr.lines().filter(kept).collect::<Vec<_>>(),
        [
            "  kept /big: moved as a whole",
            "  kept /empty: moved as a whole",
            "  kept /var/log: moved as a whole",
        ]
    );
    machine.close()
}

#[test]
fn under_systemd_every_line_begins_with_its_level() -> Result<()> {
    skip_unless!(capability::root_and_btrfs(), Ok(()));
    let mut machine = machine()?;
    let mut command = machine.command(machine.config())?;
    let ran = machine.ran(command.env("JOURNAL_STREAM", "9:1"))?;
    assert_eq!(ran.code, Some(0), "{}", ran.stderr);
    let levels: Vec<&str> = ran.stderr.lines().map(|line| line.get(..3).unwrap()).collect();
    let expected: Vec<&str> = ["<4>"; 2].into_iter().chain(["<6>"; 15]).collect();
    assert_eq!(levels, expected, "{}", ran.stderr);
    assert!(ran.stderr.starts_with("<4>warning: /: /elsewhere/log is not"), "{}", ran.stderr);

    machine.blank = "@blanc".to_owned();
    let mut command = machine.command(machine.config())?;
    let ran = machine.ran(command.env("JOURNAL_STREAM", "9:1"))?;
    assert_eq!(ran.code, Some(10));
    let start = "<3>error: no volume was reset; all are as they were: /: the blank subvolume";
    assert!(ran.stderr.starts_with(start), "{}", ran.stderr);
    machine.close()
}

#[test]
fn several_lines_of_one_error_each_have_the_level() -> Result<()> {
    skip_unless!(capability::root_and_btrfs(), Ok(()));
    let machine = machine()?;
    let config = machine.config().replace("subvolume = \"@\"", "subvolume = \"@one\"");
    let two = config.split("[[persist]]").next().unwrap();
    let two = two.replace("mount_point = \"/\"", "mount_point = \"/two\"").replace("@one", "@two");
    let mut command = machine.command(two + &config)?;
    let ran = machine.ran(command.env("JOURNAL_STREAM", "9:1"))?;
    assert_eq!(ran.stderr.lines().count(), 2, "{}", ran.stderr);
    for line in ran.stderr.lines() {
        assert!(line.starts_with("<3>"), "{line}");
    }
    machine.close()
}

#[test]
fn a_name_with_a_newline_makes_no_line_of_its_own() -> Result<()> {
    skip_unless!(capability::root_and_btrfs(), Ok(()));
    let machine = machine()?;
    machine.volume.make_subvolume("@/forged\n<0>forged")?;
    machine.volume.make_subvolume("@/var/log/forged\n<0>forged")?;
    let ran = machine.reset_well()?;
    assert!(!ran.stderr.contains("\n<0>"), "{}", ran.stderr);
    let plan = machine.run(machine.config(), &["--dry-run"])?;
    assert!(!plan.stdout.contains("\n<0>"), "{}", plan.stdout);
    machine.close()
}

#[test]
fn json_on_standard_output_is_the_report_and_nothing_else() -> Result<()> {
    skip_unless!(capability::root_and_btrfs(), Ok(()));
    let machine = machine()?;
    let ran = machine.run(machine.config(), &["--json"])?;
    assert_eq!(ran.code, Some(0), "{}", ran.stderr);
    let printed: Value = serde_json::from_str(&ran.stdout)?;
    assert_eq!(Some(printed), ran.report);
    machine.close()
}

#[test]
fn a_report_replaces_the_one_before_and_one_that_cannot_be_written_is_a_warning() -> Result<()> {
    skip_unless!(capability::root_and_btrfs(), Ok(()));
    let machine = machine()?;
    let at = machine.beside("new/directory/report.json");
    let arguments = |path: &std::path::Path| ["--report".to_owned(), path.display().to_string()];
    for number in [1, 2] {
        let config = machine.beside("darlings.toml");
        std::fs::write(&config, machine.config())?;
        let mut command = Command::new(env!("CARGO_BIN_EXE_darlings"));
        command.arg("reset").arg("--config").arg(config).args(arguments(&at));
        let ran = machine.ran(command.env_remove("JOURNAL_STREAM"))?;
        assert_eq!(ran.code, Some(0), "{}", ran.stderr);
        let report: Value = serde_json::from_slice(&std::fs::read(&at)?)?;
        assert_eq!(report["volumes"][0]["generation"], number);
        let names = std::fs::read_dir(at.parent().unwrap())?.count();
        assert_eq!(names, 1);
    }
    let config = machine.beside("darlings.toml");
    let mut command = Command::new(env!("CARGO_BIN_EXE_darlings"));
    let nowhere = config.join("report.json");
    command.arg("reset").arg("--config").arg(&config).args(arguments(&nowhere));
    let ran = machine.ran(command.env_remove("JOURNAL_STREAM"))?;
    assert_eq!(ran.code, Some(0), "{}", ran.stderr);
    let last = ran.stderr.lines().last().context("nothing was said")?;
    assert!(last.starts_with(&format!("warning: cannot write the report {nowhere:?}: ")), "{last}");
    machine.close()
}

/// Bytes of a file that are its own and that are shared, as the filesystem counts them.
fn exclusive_and_shared(machine: &Machine, path: &str) -> Result<(u64, u64)> {
    let out =
        run(Command::new("btrfs").args(["filesystem", "du", "--raw", "-s"]).arg(machine.at(path)))?;
    let line = out.lines().last().context("nothing was said")?;
    let numbers: Vec<u64> =
        line.split_whitespace().take(3).map(|word| word.parse().unwrap_or(0)).collect();
    Ok((numbers[1], numbers[0] - numbers[1]))
}

#[test]
fn data_that_is_told_to_be_shared_is_shared_with_the_generation() -> Result<()> {
    skip_unless!(capability::root_and_btrfs(), Ok(()));
    let machine = machine()?;
    plant::file(
        &machine.at("@/var/log/nocow"),
        &[],
        darlings_testkit::Flags::of(darlings_testkit::Attribute::NoCow),
    )?;
    std::fs::write(machine.at("@/var/log/nocow"), vec![b'n'; BIG])?;
    let ran = machine.reset_and_compare()?;
    assert_eq!(
        ran.report.unwrap()["volumes"][0]["bytes"],
        json!({"reflinked": 2 * BIG + 12, "copy_file_range": 0, "copied": 0})
    );
    let size = BIG as u64;
    for path in
        ["@/big", "@/var/log/nocow", "@darlings/root/1/big", "@darlings/root/1/var/log/nocow"]
    {
        assert_eq!(exclusive_and_shared(&machine, path)?, (0, size), "{path}");
    }
    machine.close()
}

#[test]
fn a_failed_reset_is_reported_with_its_error_and_no_volume_as_committed() -> Result<()> {
    skip_unless!(capability::root_and_btrfs(), Ok(()));
    let machine = machine()?;
    let log = machine.beside("strace");
    let mut command = Command::new("strace");
    command
        .args(["-f", "-qqq", "-o"])
        .arg(&log)
        .args(["-e", "trace=symlinkat", "-e", "inject=symlinkat:error=EIO:when=1"])
        .arg(env!("CARGO_BIN_EXE_darlings"))
        .args(["reset", "--threads", "1"])
        .args(machine.arguments(machine.config())?)
        .env_remove("JOURNAL_STREAM");
    let ran = machine.ran(&mut command)?;
    assert_eq!(ran.code, Some(10), "{}", ran.stderr);
    let report = ran.report.unwrap();
    assert_eq!(report["outcome"], "failed");
    let error = "no volume was reset; all are as they were: /: cannot copy the persisted paths \
                 from the previous state into the stage: cannot bring over: \"var/log/link\": cannot \
                 make the symbolic link: Input/output error (os error 5)";
    assert_eq!(report["error"], error);
    assert!(ran.stderr.ends_with(&format!("error: {error}\n")), "{}", ran.stderr);
    assert_eq!(report["volumes"][0]["committed"], false);
    assert_eq!(report["volumes"][0]["tidied"], false);
    assert_eq!(report["volumes"][0]["restored"], json!([]));
    machine.close()
}

#[test]
fn only_root_can_write_where_the_report_and_the_mounts_are() -> Result<()> {
    skip_unless!(capability::root_and_btrfs(), Ok(()));
    let machine = machine()?;
    let [option, config, ..] = machine.arguments(machine.config())?;
    // In a `/run` of its own, and with the report where it is by default.
    let script = "mount -t tmpfs none /run
                  \"$@\" 2>/run/said || { cat /run/said; exit 1; }
                  stat --format='%a %n' /run/darlings /run/darlings/*
                  grep mkdir /run/strace | sed 's/^[0-9]* *//; s/[0-9]*-0-/PID-0-/'";
    // Unforetold, because the script prints what `check` does not.
    let ran = machine.ran_unforetold(
        Command::new("unshare")
            .args(["--mount", "sh", "-ec", script, "sh"])
            .args(["strace", "-f", "-qqq", "-a1", "-o", "/run/strace", "-e", "trace=mkdir"])
            .arg(env!("CARGO_BIN_EXE_darlings"))
            .args([OsStr::new("reset"), option.as_os_str(), config.as_os_str()])
            .env_remove("JOURNAL_STREAM"),
    )?;
    assert_eq!(
        ran.stdout,
        "755 /run/darlings\n\
         644 /run/darlings/report.json\n\
         mkdir(\"/run/darlings\", 0755) = 0\n\
         mkdir(\"/run/darlings/PID-0-btrfs\", 0700) = 0\n\
         mkdir(\"/run/darlings\", 0755) = -1 EEXIST (File exists)\n"
    );
    machine.close()
}

/// In a `/run` of its own, where the umask is one that hides everything.
#[test]
fn a_reset_typed_by_mistake_leaves_the_report_of_the_boot_for_everybody_to_read() -> Result<()> {
    skip_unless!(capability::root_and_btrfs(), Ok(()));
    let machine = machine()?;
    let [option, config, ..] = machine.arguments(machine.config())?;
    let script = "mount -t tmpfs none /run; umask 077; report=/run/darlings/report.json
                  \"$@\" --config /nonexistent 2>/dev/null || stat --format=%a $report
                  outcome() { grep -o '\"outcome\": \"[a-z]*\"' $report; }; outcome
                  \"$@\" \"$config\" 2>/dev/null; outcome
                  \"$@\" --config /nonexistent 2>&1 | tail -n 1; outcome; stat --format=%a $report";
    let script =
        script.replace("\"$config\"", &format!("{} {}", option.display(), config.display()));
    let ran = machine.ran_unforetold(
        Command::new("unshare")
            .args(["--mount", "sh", "-ec", &script, "sh"])
            .arg(env!("CARGO_BIN_EXE_darlings"))
            .arg("reset")
            .env_remove("JOURNAL_STREAM"),
    )?;
    assert_eq!(
        (ran.stdout.as_str(), ran.stderr.as_str()),
        (
            "644\n\"outcome\": \"failed\"\n\"outcome\": \"reset\"\n\
             \"/run/darlings/report.json\" stays the report of this boot's reset\n\
             \"outcome\": \"reset\"\n644\n",
            ""
        )
    );
    machine.close()
}

#[test]
fn names_that_are_not_utf_8_do_not_spoil_the_report() -> Result<()> {
    skip_unless!(capability::root_and_btrfs(), Ok(()));
    let machine =
        Machine::new(|_| Ok(()), |live| put(live, "keep/file", "kept"))?.persist("/keep", &[]);
    for directory in ["keep", ""] {
        let at = machine.volume.live().join(directory).join(OsStr::from_bytes(b"new\nline \xff"));
        run(Command::new("btrfs").args(["subvolume", "create"]).arg(&at))?;
    }
    let ran = machine.run(machine.config(), &["--json"])?;
    assert_eq!(ran.code, Some(0), "{}", ran.stderr);
    let report = ran.report.context("no report")?;
    let printed: Value = serde_json::from_str(&ran.stdout)?;
    assert_eq!(printed, report);
    let moved = machine.volume.live().join("keep").join(OsStr::from_bytes(b"new\nline \xff"));
    assert!(moved.is_dir());
    machine.reset_well()?;
    machine.close()
}
