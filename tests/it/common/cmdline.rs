//! Running `darlings reset` with words on the kernel command line, and looking at what came of it.

use anyhow::{Context as _, Result, ensure};
use darlings_testkit::{Tree, capture, plant};
use serde_json::{Value, json};

use super::{Machine, Ran, put, subvolumes_of};

/// A volume that keeps `/keep` and was reset so many times. Before each reset it had a file of its
/// own, a kept one and one that goes.
pub(crate) fn machine_after(resets: u32) -> Result<Machine> {
    let machine = Machine::new(
        |blank| {
            put(blank, "etc/os-release", "of the blank")?;
            plant::xattr(blank, "user.of", b"the blank")?;
            Ok(plant::owner(blank, 1001, 1002)?)
        },
        |_| Ok(()),
    )?
    .persist("/keep", &[]);
    for number in 1..=resets {
        be_used(&machine, &number.to_string())?;
        machine.reset_well()?;
    }
    be_used(&machine, "now")?;
    Ok(machine)
}

/// What a boot does to the volume.
pub(crate) fn be_used(machine: &Machine, boot: &str) -> Result<()> {
    let live = machine.volume.live();
    put(&live, &format!("keep/{boot}"), boot)?;
    put(&live, "keep/last", boot)?;
    put(&live, &format!("erased/{boot}"), boot)?;
    put(&live, "etc/os-release", boot)?;
    std::fs::hard_link(live.join("keep/last"), live.join(format!("etc/{boot}")))?;
    plant::xattr(&live, "user.of", boot.as_bytes())?;
    Ok(())
}

/// Runs `darlings reset` with this on the kernel command line.
pub(crate) fn asked(machine: &Machine, line: &str) -> Result<Ran> {
    asked_with(machine, &machine.config(), line, &[])
}

pub(crate) fn asked_with(
    machine: &Machine,
    config: &str,
    line: &str,
    more: &[&str],
) -> Result<Ran> {
    let mut command = machine.command(config)?;
    machine.ran(command.args(more).arg("--cmdline").arg(cmdline(machine, line)?))
}

pub(crate) fn cmdline(machine: &Machine, line: &str) -> Result<std::path::PathBuf> {
    let at = machine.beside("cmdline");
    std::fs::write(&at, format!("BOOT_IMAGE=/vmlinuz root=/dev/vda1 rw {line}\n"))?;
    Ok(at)
}

pub(crate) fn well(ran: Ran, outcome: &str, asked: &str) -> Result<Ran> {
    let report = ran.report.as_ref().context("no report")?;
    ensure!(ran.code == Some(0), "exit code {:?}\n{}", ran.code, ran.stderr);
    assert_eq!((&report["outcome"], &report["asked"]), (&json!(outcome), &json!(asked)));
    Ok(ran)
}

/// The tool's own directory says which run made a tree, so it is looked at apart.
pub(crate) fn tree(machine: &Machine, path: &str) -> Result<Tree> {
    capture(&machine.at(path))
}

pub(crate) fn number(machine: &Machine, path: &str) -> Result<u64> {
    let text = std::fs::read_to_string(machine.at(path).join(".darlings/generation"))?;
    Ok(text.trim().parse()?)
}

pub(crate) fn manifest(machine: &Machine, path: &str) -> Result<Value> {
    let text = std::fs::read(machine.at(path).join(".darlings/manifest"))?;
    Ok(serde_json::from_slice(&text)?)
}

pub(crate) fn read_only(machine: &Machine, path: &str) -> Result<bool> {
    Ok(subvolumes_of(machine.volume.fs.path(), &["-r"])?.contains_key(path))
}

/// The numbers that `darlings generations` lists, and what it says is none.
pub(crate) fn listed_beside(machine: &Machine) -> Result<(Vec<u64>, Value)> {
    let ran = machine.generations(&["--json"])?;
    let mut listing: Value = serde_json::from_str(&ran.stdout)?;
    let volume = &mut listing["volumes"][0];
    let others = volume["others"].take();
    let generations = volume["generations"].as_array().context("no generations")?;
    let numbers = generations.iter().filter_map(|generation| generation["number"].as_u64());
    Ok((numbers.collect(), others))
}

/// The numbers, where there is nothing else.
pub(crate) fn listed(machine: &Machine) -> Result<Vec<u64>> {
    let (numbers, others) = listed_beside(machine)?;
    assert_eq!(others, json!([]));
    Ok(numbers)
}

/// The configuration of a machine with `@home` as a second volume.
pub(crate) fn with_home(machine: &Machine) -> String {
    format!(
        "{}[[volume]]\nmount_point = \"/home\"\nbtrfs = {{ device = {}, subvolume = \"@home\", \
         blank = \"empty\" }}\n",
        machine.config(),
        super::quoted(&machine.volume.fs.device().display().to_string()),
    )
}

/// Everything that is not the tool's own: what the machine boots.
pub(crate) fn boots(machine: &Machine) -> Result<Tree> {
    tree(machine, "@")
}
