//! The reset needs no more than its unit leaves it.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test may stop at once")]

mod common;

use anyhow::Result;
use common::{Machine, as_the_unit_does, put};
use darlings_testkit::{capability, capture, fill, skip_unless};

#[test]
fn everything_comes_back_with_the_capabilities_that_the_unit_leaves() -> Result<()> {
    skip_unless!(capability::root_and_btrfs(), Ok(()));
    for unit in [
        include_str!("../systemd/darlings-reset.service"),
        include_str!("../systemd/darlings-reset-dir.service"),
    ] {
        for strategy in ["rollback", "carry"] {
            let machine = Machine::new(
                |blank| put(blank, "etc/os-release", "of the blank"),
                |live| {
                    let keep = live.join("keep");
                    std::fs::create_dir(&keep)?;
                    assert_eq!(fill::everything(&keep)?, []);
                    put(live, "etc/erased", "erased")
                },
            )?;
            let mut machine = machine.persist("/keep", &[]);
            strategy.clone_into(&mut machine.strategy);
            let expected = machine.expected()?;
            let mut command = as_the_unit_does(unit);
            command.arg(env!("CARGO_BIN_EXE_darlings")).arg("reset");
            command.args(machine.arguments(machine.config())?).env_remove("JOURNAL_STREAM");
            let ran = machine.ran(&mut command)?;
            assert_eq!(ran.code, Some(0), "{strategy}: {}", ran.stderr);
            let difference = capture(&machine.volume.live())?.diff_lines(&expected.tree);
            assert_eq!(difference, "", "{strategy}");
            machine.close()?;
        }
    }
    Ok(())
}
