//! What the properties of a dataset forbid, and a result that would not boot: refused before anything is
//! changed, as `check` foretells.

use std::path::Path;

use anyhow::Result;

use crate::bad_input::{refused, small_machine};
use crate::full_pool::leave;
use crate::machine::{Machine, Strategy};
use crate::pools::{DATASET, MIB, POOL, create_pool, large_file, put, sh};

const STRATEGIES: [Strategy; 2] = [Strategy::Rollback, Strategy::Carry];

/// What is said of a volume that a reset left alone.
fn error(words: &str) -> String {
    format!("error: no volume was reset; all are as they were: /: {words}\n")
}

pub(crate) fn a_dataset_that_is_read_only_is_refused_by_name() -> Result<()> {
    for strategy in STRATEGIES {
        let machine = small_machine()?.by(strategy);
        for (set, from) in [("tank/local", " (inherited from tank/local)"), (DATASET, "")] {
            sh("zfs", &["set", "readonly=on", set])?;
            let words = format!(
                "tank/local/root has readonly=on{from}, and a reset writes to it: run `zfs set \
                 readonly=off tank/local/root`"
            );
            refused(&machine.config(), &error(&words))?;
        }
        // The remedy that is named helps, and how a running system has it mounted does not count.
        sh("zfs", &["set", "readonly=off", DATASET])?;
        std::fs::write("/tmp/darlings.toml", machine.config())?;
        sh("mount", &["-r", "-t", "zfs", DATASET, "/mnt"])?;
        let check = ["check", "--config", "/tmp/darlings.toml", "--fstab", "/dev/null"];
        let ready = sh("darlings", &check);
        sh("umount", &["/mnt"])?;
        ready?;
        machine.reset_and_compare()?;
        sh("zpool", &["destroy", "-f", POOL])?;
    }
    Ok(())
}

pub(crate) fn a_refreservation_that_leaves_no_room_is_refused() -> Result<()> {
    for strategy in STRATEGIES {
        create_pool(POOL, 192, &[])?;
        let live = |live: &Path| {
            put(live, "keep/file", "kept")?;
            large_file(&live.join("erased"), 24)
        };
        let machine = Machine::in_pool(&[], |_| Ok(()), live)?.persist("keep", &[]).by(strategy);
        sh("zpool", &["sync", POOL])?;
        sh("zfs", &["set", &format!("refreservation={}", 32 * MIB), DATASET])?;
        sh("zfs", &["create", "tank/promised"])?;
        leave(16)?;
        refused(
            &machine.config(),
            &error(
                "the refreservation of tank/local/root needs as much free space as the dataset takes: free \
                 some, or lower it (`zfs set refreservation=none tank/local/root`): cannot take the \
                 snapshot tank/local/root@darlings-1: no space is left in its pool or below its \
                 quota: No space left on device (os error 28)",
            ),
        )?;
        // The remedy that is named helps.
        sh("zfs", &["set", "refreservation=none", DATASET])?;
        machine.reset_and_compare()?;
        sh("zpool", &["destroy", "-f", POOL])?;
    }
    Ok(())
}

pub(crate) fn a_blank_above_the_refquota_is_refused() -> Result<()> {
    let blank = |blank: &Path| large_file(&blank.join("large"), 12);
    let live = |live: &Path| {
        std::fs::remove_file(live.join("large"))?;
        put(live, "keep/file", "kept")
    };
    let machine = Machine::new(&[], blank, live)?.persist("keep", &[]);
    sh("zpool", &["sync", POOL])?;
    sh("zfs", &["set", &format!("refquota={}", 8 * MIB), DATASET])?;
    refused(
        &machine.config(),
        &error(
            "tank/local/root@blank takes more than the refquota of tank/local/root allows: raise it (`zfs \
             set refquota=none tank/local/root`)",
        ),
    )?;
    sh("zfs", &["set", "refquota=none", DATASET])?;
    machine.reset_and_compare().map(drop)
}

pub(crate) fn a_root_that_would_lose_its_init_is_refused() -> Result<()> {
    for strategy in STRATEGIES {
        let live = |live: &Path| {
            put(live, "keep/file", "kept")?;
            put(live, "usr/sbin/init", "an init")
        };
        let machine = Machine::new(&[], |_| Ok(()), live)?.by(strategy).persist("keep", &[]);
        refused(
            &machine.config(),
            &error(
                "the result would hold no init, and the previous state has /sbin/init; name a blank \
                 that is not there yet and make it of the installed system with `darlings init \
                 --from-live`, or persist the directories that the system boots from",
            ),
        )?;
        // Kept, or in the blank, it is there.
        machine.persist("usr/sbin", &[]).reset_and_compare()?;
        sh("zpool", &["destroy", "-f", POOL])?;
    }
    Ok(())
}
