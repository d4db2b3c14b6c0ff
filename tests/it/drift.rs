//! The initrd has a copy of the configuration: where the last reset went by another one than lies on the disk,
//! every command says so whose answer depends on it.

use crate::common::{Machine, put, quoted};
use anyhow::Result;
use darlings_testkit::{capability, skip_unless};
use serde_json::Value;

const DIFFERS: &str = "/: the configuration on the disk is not the one that reset 1 went by; unless the initrd \
                       was rebuilt since, the next reset goes by the older one, which does not keep /srv/data: ";

/// A machine that was reset, and has a file that its configuration did not keep then.
fn machine() -> Result<Machine> {
    let machine = Machine::new(|_| Ok(()), |live| put(live, "var/log/messages", "kept"))?;
    let machine = machine.persist("/var/log", &[]);
    machine.reset_well()?;
    put(&machine.volume.live(), "srv/data/file", "new")?;
    Ok(machine)
}

/// What the commands print that answer by the configuration: standard output and error of each.
fn answers(machine: &Machine, config: &str) -> Result<Vec<(String, String, String)>> {
    let report = machine.beside("none.json").display().to_string();
    let commands: [&[&str]; 5] = [
        &["check", "--cmdline", "/dev/null", "--fstab", "/dev/null"],
        &["explain", "/srv/data/file"],
        &["status", "--verbose", "--report", &report],
        &["diff"],
        &["recover", "/var/log/messages", "--dry-run"],
    ];
    let mut all = Vec::new();
    for command in commands {
        let ran = machine.ran(machine.word(command[0], config)?.args(&command[1..]))?;
        all.push((command[0].to_owned(), ran.stdout, ran.stderr));
    }
    Ok(all)
}

#[test]
fn a_configuration_that_the_last_reset_did_not_go_by_is_told_by_every_command() -> Result<()> {
    skip_unless!(capability::root_and_btrfs(), Ok(()));
    let machine = machine()?;
    let config = machine.config();
    let manifest = std::fs::read(machine.volume.live().join(".darlings/manifest"))?;
    let manifest: Value = serde_json::from_slice(&manifest)?;
    assert_eq!(manifest["configuration"].as_str().map(str::len), Some(16), "{manifest}");
    for same in [config.clone(), format!("# a comment\n{config}")] {
        for (command, stdout, stderr) in answers(&machine, &same)? {
            let all = stdout + &stderr;
            assert!(!all.contains("the configuration on the disk"), "{command}: {all}");
        }
    }
    let more = format!("{config}\n[[persist]]\npath = {}\n", quoted("/srv/data"));
    for (command, stdout, stderr) in answers(&machine, &more)? {
        let (text, expected) = match command.as_str() {
            // These head what they say with the volume.
            "check" => (&stdout, format!("  note: {}", &DIFFERS[3..])),
            "status" => (&stdout, format!("  note         {}", &DIFFERS[3..])),
            _ => (&stderr, format!("warning: {DIFFERS}")),
        };
        assert!(text.contains(&expected), "{command}: {stdout}{stderr}");
    }
    // It is what to know, and nothing is wrong: the initrd may have been rebuilt.
    let check = machine.word("check", &more)?;
    let check = { check }.args(["--cmdline", "/dev/null", "--fstab", "/dev/null"]).output()?;
    assert_eq!(check.status.code(), Some(0));
    // Once a reset has gone by it, nothing is said any more.
    let ran = machine.run(&more, &[])?;
    assert_eq!(ran.code, Some(0), "{}", ran.stderr);
    for (command, stdout, stderr) in answers(&machine, &more)? {
        let all = stdout + &stderr;
        assert!(!all.contains("the configuration on the disk"), "{command}: {all}");
    }
    machine.close()
}

#[test]
fn a_machine_that_was_never_reset_has_no_older_configuration() -> Result<()> {
    skip_unless!(capability::root_and_btrfs(), Ok(()));
    let machine = Machine::new(|_| Ok(()), |live| put(live, "var/log/messages", "kept"))?;
    let machine = machine.persist("/var/log", &[]);
    for (command, stdout, stderr) in answers(&machine, &machine.config())? {
        let all = stdout + &stderr;
        assert!(!all.contains("the configuration on the disk"), "{command}: {all}");
    }
    machine.close()
}
