//! `darlings check`, `init` and `adopt`: in the running system, where the dataset is mounted.

use std::fmt::Write as _;
use std::fs;
use std::path::Path;
use std::process::Command;

use anyhow::{Context as _, Result, bail, ensure};
use darlings_testkit::{Attribute, Compare, capture, difference, fill};

use crate::guest::{checks, in_guest};
use crate::machine::{Machine, Strategy, reset};
use crate::pools::{DATASET, POOL, Whole, property, put, sh};

#[test]
fn a_running_system_is_checked_and_moves_in() -> Result<()> {
    in_guest(
        "moving_in::a_running_system_is_checked_and_moves_in",
        checks![
            check_finds_what_is_missing_and_changes_nothing,
            check_looks_at_generations_and_at_cloning,
            check_finds_what_would_stop_the_reset_in_the_dataset,
            check_finds_a_bind_mount_and_adopt_fills_below_it,
            init_takes_a_blank_of_an_empty_dataset_or_of_what_is_live,
            adopt_brings_a_store_over_and_a_reset_keeps_it,
        ],
    )
}

const IN_USE: &str = "/tmp/in-use";
const STORE: &str = "/tmp/store";

/// Mounts a dataset as a running system has it.
fn use_it(dataset: &str, at: &str) -> Result<()> {
    fs::create_dir_all(at)?;
    sh("mount", &["-t", "zfs", dataset, at]).map(drop)
}

/// Exit code, what was printed, and what was said.
fn darlings(
    word: &str,
    configuration: &str,
    arguments: &[&str],
) -> Result<(Option<i32>, String, String)> {
    fs::write("/tmp/darlings.toml", configuration)?;
    let output = Command::new("darlings")
        .args([word, "--config", "/tmp/darlings.toml"])
        .args(arguments)
        .env_remove("JOURNAL_STREAM")
        .output()?;
    Ok((output.status.code(), String::from_utf8(output.stdout)?, String::from_utf8(output.stderr)?))
}

fn check(configuration: &str) -> Result<(Option<i32>, serde_json::Value)> {
    let (code, out, error) = darlings("check", configuration, &["--json"])?;
    Ok((code, serde_json::from_str(&out).context(error)?))
}

/// A dataset with something that is kept, in use.
fn machine(strategy: Strategy) -> Result<Machine> {
    let machine =
        Machine::new(&["-O", "xattr=sa"], |_| Ok(()), |live| put(live, "keep/file", "x"))?
            .by(strategy)
            .persist("keep", &[]);
    use_it(DATASET, IN_USE)?;
    Ok(machine)
}

fn check_finds_what_is_missing_and_changes_nothing() -> Result<()> {
    let machine = machine(Strategy::Carry)?;
    let before = Whole::of(POOL)?;
    let (code, found) = check(&machine.config())?;
    ensure!(code == Some(0) && found["ready"] == true, "{found:#}");
    let volume = &found["volumes"][0];
    ensure!(volume["present"] == 1 && volume["declared"] == 1, "{found:#}");
    Whole::of(POOL)?.must_be(&before)?;

    sh("zfs", &["destroy", &format!("{DATASET}@blank")])?;
    let (code, found) = check(&machine.config())?;
    ensure!(code == Some(1) && found["ready"] == false, "{found:#}");
    let problems = found["volumes"][0]["problems"].as_array().context("no problems")?;
    ensure!(
        *problems
            == [format!(
                "the blank snapshot {DATASET}@blank is missing; the dataset has no snapshots: take one \
                 of an empty root, or name another dataset"
            )],
        "{problems:?}"
    );
    let (code, found) = check(&machine.config().replace(DATASET, "tank/local/nothing"))?;
    ensure!(code == Some(1), "{found:#}");
    let problems = found["volumes"][0]["problems"].as_array().context("no problems")?;
    ensure!(
        *problems
            == [
                "there is no dataset tank/local/nothing; imported are: tank; correct the name, or \
                 import the pool that has it"
            ],
        "{problems:?}"
    );
    Ok(())
}

fn check_looks_at_generations_and_at_cloning() -> Result<()> {
    let machine = machine(Strategy::Carry)?;
    sh("umount", &[IN_USE])?;
    reset(&machine.config(), &[])?.well()?;
    use_it(DATASET, IN_USE)?;
    let (code, found) = check(&machine.config())?;
    ensure!(code == Some(0) && found["volumes"][0]["generations"] == 1, "{found:#}");
    let clones = |found: &serde_json::Value| {
        !found["volumes"][0]["notes"].to_string().contains("ZFS clones no blocks here")
    };
    ensure!(clones(&found), "carry clones nothing: {found:#}");
    let rollback = machine.by(Strategy::Rollback);
    ensure!(clones(&check(&rollback.config())?.1), "they are cloned");
    fs::write("/sys/module/zfs/parameters/zfs_bclone_enabled", "0")?;
    let (code, found) = check(&rollback.config())?;
    ensure!(code == Some(0) && !clones(&found), "{found:#}");
    fs::write("/sys/module/zfs/parameters/zfs_bclone_enabled", "1")?;

    let held = format!("{DATASET}@darlings-1");
    sh("zfs", &["hold", "somebody", &held])?;
    let (code, found) = check(&rollback.config())?;
    let problem = only_problem(&found)?;
    ensure!(
        code == Some(1) && problem.contains(&format!("{held} must be destroyed first")),
        "{problem}"
    );
    sh("zfs", &["release", "somebody", &held])?;
    ensure!(check(&rollback.config())?.0 == Some(0), "the hold is gone");
    Ok(())
}

fn only_problem(found: &serde_json::Value) -> Result<String> {
    let problems = found["volumes"][0]["problems"].as_array().context("no problems")?;
    let [problem] = problems.as_slice() else { bail!("{found:#}") };
    Ok(problem.as_str().context("no text")?.to_owned())
}

fn check_finds_what_would_stop_the_reset_in_the_dataset() -> Result<()> {
    let options = ["-o", "feature@block_cloning=disabled"];
    let machine = Machine::new(&options, |_| Ok(()), |live| put(live, "keep/file", "x"))?
        .by(Strategy::Rollback)
        .persist("keep", &[]);
    use_it(DATASET, IN_USE)?;
    let (code, found) = check(&machine.config())?;
    let notes = found["volumes"][0]["notes"].to_string();
    ensure!(
        code == Some(0) && notes.contains("the feature block_cloning of tank is disabled"),
        "{found:#}"
    );

    let used = sh("zfs", &["get", "-Hpo", "value", "used", DATASET])?;
    let quota = used.trim().parse::<u64>()? + (1 << 20);
    sh("zfs", &["set", &format!("quota={quota}"), DATASET])?;
    let (code, found) = check(&machine.config())?;
    let problem = only_problem(&found).with_context(|| format!("quota {quota}"))?;
    ensure!(code == Some(1) && problem.starts_with("there is no room for a reset, "), "{problem}");
    Ok(())
}

/// As on a system that still runs on another tool: what is mounted is the store's.
fn check_finds_a_bind_mount_and_adopt_fills_below_it() -> Result<()> {
    Machine::new(&["-O", "xattr=sa"], |_| Ok(()), |_| Ok(()))?;
    use_it(DATASET, IN_USE)?;
    sh("zfs", &["create", "-p", "-o", "mountpoint=legacy", "tank/safe/persist"])?;
    use_it("tank/safe/persist", STORE)?;
    let (own, store) = (Path::new(IN_USE), Path::new(STORE).join("tmp/in-use"));
    fs::create_dir_all(own.join("log"))?;
    put(own, "id", "")?;
    put(&store, "log/messages", "precious")?;
    put(&store, "id", "0123")?;
    let mut configuration = format!(
        "[[volume]]\nmount_point = {IN_USE:?}\nzfs = {{ dataset = {DATASET:?}, blank = \"empty\" }}\n"
    );
    for name in ["log", "id"] {
        writeln!(configuration, "[[persist]]\npath = \"{IN_USE}/{name}\"")?;
        let (from, to) = (store.join(name), own.join(name));
        let path = |path: &Path| path.display().to_string();
        sh("mount", &["--bind", &path(&from), &path(&to)])?;
    }
    let unmount = || sh("umount", &[&format!("{IN_USE}/log"), &format!("{IN_USE}/id")]);
    let checked = check(&configuration)?;
    let adopted = darlings("adopt", &configuration, &["--from", STORE])?;
    let again = check(&configuration)?;
    unmount()?;
    let (code, found) = checked;
    let problems = found["volumes"][0]["problems"].to_string();
    ensure!(
        code == Some(1)
            && problems.contains(
                "/tmp/in-use/log is a bind mount of /tmp/in-use/log of tank/safe/persist"
            )
            && problems
                .contains("/tmp/in-use/id is a bind mount of /tmp/in-use/id of tank/safe/persist"),
        "{found:#}"
    );
    ensure!(adopted.0 == Some(0), "{adopted:?}");
    ensure!(again.0 == Some(0), "{:#}", again.1);
    ensure!(fs::read_to_string(own.join("log/messages"))? == "precious", "{adopted:?}");
    ensure!(fs::read_to_string(own.join("id"))? == "0123", "{adopted:?}");

    let lock = fs::File::open(own.join(".darlings"))?;
    rustix::fs::flock(&lock, rustix::fs::FlockOperation::NonBlockingLockExclusive)?;
    let (code, _, error) = darlings("adopt", &configuration, &["--from", STORE])?;
    ensure!(code == Some(1) && error.contains("another run is at work in .darlings"), "{error}");
    Ok(())
}

fn init_takes_a_blank_of_an_empty_dataset_or_of_what_is_live() -> Result<()> {
    let machine = Machine::new(&[], |_| Ok(()), |_| Ok(()))?.by(Strategy::Carry);
    let blank = format!("{DATASET}@blank");
    sh("zfs", &["destroy", &blank])?;
    use_it(DATASET, IN_USE)?;
    let init = |arguments: &[&str]| darlings("init", &machine.config(), arguments);
    let made = format!("/: made the blank {blank}, which is empty\n");
    let planned = init(&["--dry-run"])?;
    ensure!(planned.1 == made.replace("made", "would make"), "{planned:?}");
    ensure!(sh("zfs", &["list", &blank]).is_err(), "a dry run took it");
    let (code, out, error) = init(&[])?;
    ensure!(code == Some(0) && out == made, "{out}{error}");
    property(&blank, "creation")?;
    ensure!(init(&[])?.1 == "/: nothing is missing\n");

    sh("zfs", &["destroy", &blank])?;
    put(Path::new(IN_USE), "etc/installed", "by somebody")?;
    let (code, _, error) = init(&[])?;
    ensure!(code == Some(1) && error.contains("run this with --from-live"), "{error}");
    ensure!(sh("zfs", &["list", &blank]).is_err(), "it was taken of what is there");
    let (code, out, error) = init(&["--from-live"])?;
    let made = format!("/: made the blank {blank}, of what is live now\n");
    ensure!(code == Some(0) && out == made, "{out}{error}");
    Ok(())
}

fn adopt_brings_a_store_over_and_a_reset_keeps_it() -> Result<()> {
    let machine = Machine::new(&["-O", "xattr=sa"], |_| Ok(()), |_| Ok(()))?
        .by(Strategy::Carry)
        .persist("var/lib/everything", &[]);
    sh("zfs", &["create", "-p", "-o", "mountpoint=legacy", "tank/safe/persist"])?;
    use_it("tank/safe/persist", STORE)?;
    use_it(DATASET, IN_USE)?;
    let from = Path::new(STORE).join("var/lib/everything");
    fs::create_dir_all(&from)?;
    fill::everything(&from)?;
    let arguments = ["--from", STORE];
    let (code, out, error) = darlings("adopt", &machine.config(), &arguments)?;
    ensure!(code == Some(0), "{out}{error}");
    ensure!(out.starts_with("/var/lib/everything: brought over: "), "{out}");
    let compare = Compare::all().without(Attribute::AccessTime);
    let same = || -> Result<()> {
        let to = Path::new(IN_USE).join("var/lib/everything");
        let lines = difference::lines(&capture(&to)?.diff_with(&capture(&from)?, &compare));
        ensure!(lines.is_empty(), "brought over != store:\n{lines}");
        Ok(())
    };
    same()?;
    let (code, out, _) = darlings("adopt", &machine.config(), &arguments)?;
    ensure!(code == Some(0) && out == "/var/lib/everything: was brought over before\n", "{out}");
    sh("umount", &[IN_USE])?;
    reset(&machine.config(), &[])?.well()?;
    use_it(DATASET, IN_USE)?;
    same()
}
