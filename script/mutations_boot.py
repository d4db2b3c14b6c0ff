"""What is planted around the boot: UNITS and the dracut module, which script/mutations tries, and
MACHINES, which script/mutations-vm tries in virtual machines.

Each is a name, the tests that must find it, what a line of theirs must match, and the changes: in
which file, which text, and what it becomes. A text must occur once.
"""

DRACUT = "dracut/90darlings/module-setup.sh"
UNIT = "systemd/darlings-reset.service"

FOR_ZFS = ("dracut", "an_initrd_for_zfs")
FOR_BTRFS = ("dracut", "an_initrd_for_btrfs")
WRITTEN = ("dracut", "tables_dotted_keys")
OWN = ("dracut", "a_drop_in_of_ones_own")
NONE = ("dracut", "a_machine_without")
PRIVILEGE = ("privilege", None)


def without_capability(name, shows):
    return (f"unit: without CAP_{name}", PRIVILEGE, shows, [(UNIT, f"CAP_{name}", "CAP_SYS_BOOT")])


UNITS = [
    (
        "dracut: the libraries of ZFS stay outside",
        FOR_ZFS,
        r"left:",
        [(DRACUT, 'inst_libdir_file "$library"', ":")],
    ),
    (
        "dracut: the reset does not wait for the import",
        FOR_ZFS,
        r"^Wants=zfs-import-cache.service$",
        [(DRACUT, "imports=(zfs-import-scan.service zfs", "imports=(zfs")],
    ),
    (
        "dracut: the reset does not wait for the keys",
        FOR_ZFS,
        r"^After=zfs-import-scan",
        [(DRACUT, '        echo "After=dracut-pre-mount.service"\n', "")],
    ),
    (
        "dracut: a device is not escaped",
        FOR_BTRFS,
        r"^Wants=dev/disk/by-label",
        [(DRACUT, '$(systemd-escape --path --suffix=device "$device")', "${device#/}.device")],
    ),
    (
        "dracut: a table is not understood",
        WRITTEN,
        r"^left: \{.*darlings-reset\.service",
        [(DRACUT, "[[ -n $(darlings_values dir) ]]", 'grep -q "^dir *=" "$darlings_config"')],
    ),
    (
        "dracut: nothing requires the unit",
        FOR_BTRFS,
        r"left:",
        [(DRACUT, '    $SYSTEMCTL --quiet --root "$initdir" enable "$unit"\n', "")],
    ),
    (
        "dracut: the configuration stays outside",
        FOR_BTRFS,
        r"left:",
        [(DRACUT, '    inst_simple "$darlings_config"\n', "")],
    ),
    (
        "dracut: a drop-in of one's own is overwritten",
        OWN,
        r"test failed",  # nothing is left of it
        [(DRACUT, "if [[ ! -e ${initdir}$drop_in/10-device.conf ]]; then", "if true; then")],
    ),
    (
        "dracut: a directory has the unit of the others",
        OWN,
        r"left:",
        [(DRACUT, "        unit=darlings-reset-dir.service\n", "        :\n")],
    ),
    (
        "dracut: in every initrd",
        NONE,
        r"left: Some\(0\)",
        [(DRACUT, "[[ -e ${dracutsysrootdir-}$darlings_config ]] || return 1", ":")],
    ),
    without_capability("SYS_ADMIN", r"left: Some\(10\)"),
    without_capability("DAC_OVERRIDE", r"denied|not permitted"),
    without_capability("FOWNER", r"denied|not permitted"),
    without_capability("CHOWN", r"not permitted"),
    without_capability("MKNOD", r"not permitted"),
    without_capability("SETFCAP", r"not permitted"),
    without_capability("LINUX_IMMUTABLE", r"not permitted"),
]

ZFS = "src/volume/zfs"
BTRFS = "src/volume/btrfs"
DATA = "src/restore/data.rs"

NO_CLONES = (
    DATA,
    "        let mut rung = if first <= Rung::Range as u8 { Rung::Range } else { Rung::Copy };\n",
    "        let mut rung = if first > 9 { Rung::Range } else { Rung::Copy };\n",
)
NO_REFLINKS = (DATA, "if first <= Rung::Reflink as u8 {", "if first > 9 {")

LIVE = '        self.mounted.dataset = mount(&self.source.dataset, "live", fs::Access::ReadWrite)?;\n'
UNMARKED = (
    f"{ZFS}/execute.rs",
    LIVE,
    "        self.library.clear_user_property(&self.source.dataset, MARK)?;\n" + LIVE,
)

MACHINES = [
    (
        "power cut: carry on ZFS moves before what was laid is durable",
        ("zfs_reset", "power_cuts::after_a_power_cut_at_any_moment_of_a_carry"),
        r"not what section 2 wants|is not the previous state|no volume was reset",
        [(
            f"{ZFS}/carry.rs",
            "        self.library.sync_pool(pool)?;\n        prepared.journal.write(live)?;\n"
            "        self.library.sync_pool(pool)?;\n",
            "        prepared.journal.write(live)?;\n        let _ = pool;\n",
        )],
    ),
    (
        "power cut: the stage goes before the dataset is complete",
        ("zfs_reset", "power_cuts::after_a_power_cut_at_any_moment_of_a_rollback"),
        r"cannot mount \S+/darlings-stage@darlings-1",
        [(
            f"{ZFS}/execute.rs",
            "    fn complete(&mut self) -> anyhow::Result<()> {\n        unmount(&mut self.mounted.dataset)?;\n",
            "    fn complete(&mut self) -> anyhow::Result<()> {\n        unmount(&mut self.mounted.dataset)?;\n"
            "        unmount(&mut self.mounted.stage)?;\n        self.destroy_stage()?;\n",
        )],
    ),
    (
        "power cut: the mark of a rollback is taken away before the dataset is filled",
        ("zfs_reset", "power_cuts::after_a_power_cut_at_any_moment_of_a_rollback"),
        r"neither the previous state",
        [UNMARKED],
    ),
    (
        "boot after a power cut: what an interrupted run left on btrfs is not removed",
        ("machines", "power_cuts::a_btrfs_root_boots_after_a_power_cut_in_a_carry"),
        r"this boot stopped",
        [(
            f"{BTRFS}/execute.rs",
            "            Step::Discard { leftover } => self.discard(Path::new(leftover))?,\n",
            "            Step::Discard { leftover } if leftover.len() > 999 => {\n"
            "                self.discard(Path::new(leftover))?;\n            }\n"
            "            Step::Discard { .. } => {}\n",
        )],
    ),
    (
        "boot after a power cut: the journal of a carry on ZFS is not looked at",
        ("machines", "power_cuts::a_zfs_root_boots_after_a_power_cut_in_a_carry"),
        r"existence directory != absent",
        [(
            f"{ZFS}/mod.rs",
            "        facts.journal = journal?;\n",
            "        facts.journal = journal?.filter(|_| false);\n",
        )],
    ),
    (
        "boot after a power cut: a dataset that was rolled back is taken for the previous state",
        ("machines", "power_cuts::a_zfs_root_boots_after_a_power_cut_in_a_rollback"),
        r"existence directory != absent",
        [(
            f"{ZFS}/mod.rs",
            "            rolled_back: self.rolled_back()?,\n",
            "            rolled_back: self.rolled_back()?.filter(|_| false),\n",
        )],
    ),
    (
        "failing disk: ZFS: what is kept is read and copied",
        ("zfs_reset", "a_disk_that_fails_below_a_pool"),
        r"exit code Some\(10\)",
        [NO_CLONES],
    ),
    (
        "failing disk: ZFS: a pool that is suspended is not noticed",
        ("zfs_reset", "a_disk_that_fails_below_a_pool"),
        r"FAILED: \w*a_pool_that_is_suspended",
        [(
            f"{ZFS}/mod.rs",
            "            Some(fs::PoolState::Suspended) => bail!(",
            "            Some(fs::PoolState::Faulted) => bail!(",
        )],
    ),
    (
        "failing disk: ZFS: the mark of a rollback is taken away before the dataset is filled",
        ("zfs_reset", "a_disk_that_fails_below_a_pool"),
        r"neither the previous state",
        [UNMARKED],
    ),
    (
        "failing disk: btrfs: what is kept is read and copied",
        ("disks", "a_disk_that_fails"),
        r"FAILED: bad-range rollback: the reset ended with 10",
        [NO_REFLINKS, NO_CLONES],
    ),
    (
        "failing disk: btrfs: an exchange that is not durable counts",
        ("disks", "a_disk_that_fails"),
        r"FAILED: no-writes ",
        [(
            f"{BTRFS}/execute.rs",
            "            fs::set_read_only(&old, true)?;\n"
            "            Ok(fs::sync(self.top()?)?)\n        });\n        self.or_undo(durable)\n",
            "            let _ = old;\n            Ok(())\n        });\n        self.or_undo(durable)\n",
        )],
    ),
    (
        "failing disk: btrfs: a stage that is not durable is exchanged",
        ("disks", "a_disk_that_fails"),
        r"FAILED: no-writes ",
        [(f"{BTRFS}/execute.rs", "        fs::sync(self.top()?)?;\n        // Whatever", "        // Whatever")],
    ),
    (
        "hibernation: the signature of an image is not known",
        ("disks", "nothing_is_reset_below"),
        r"FAILED: exit code 0",
        [("src/hibernation.rs", '&[u8] = b"S1SUSPEND"', '&[u8] = b"SWAPSPACE"')],
    ),
    (
        "hibernation: looked for at the wrong place",
        ("disks", "nothing_is_reset_below"),
        r"FAILED: exit code 0",
        [("src/hibernation.rs", "const SIGNATURE_AT: u64 = 4086;", "const SIGNATURE_AT: u64 = 4096;")],
    ),
    (
        "LUKS: the volume stays mounted, so that the disk cannot be closed",
        ("disks", "a_btrfs_on_an_encrypted_disk"),
        r"FAILED: encrypted rollback: it is still mounted",
        [
            (
                "src/process.rs",
                "unsafe { unshare_unsafe(UnshareFlags::NEWNS) }",
                "(if UnshareFlags::NEWNS.is_empty() { unsafe { unshare_unsafe(UnshareFlags::NEWNS) } } "
                "else { Ok(()) })",
            ),
            (
                "src/volume/mounts.rs",
                "        unmount(&path)?;\n        remove_directory(&path)\n    }",
                "        let _ = (path, unmount);\n        Ok(())\n    }",
            ),
        ],
    ),
    (
        "encryption: carry copies what it lays",
        ("zfs_reset", "an_encrypted_dataset"),
        r"0 bytes are shared",
        [NO_CLONES],
    ),
    (
        "encryption: the key's place is changed",
        ("zfs_reset", "an_encrypted_dataset"),
        r'^left: "prompt"',
        [(
            f"{ZFS}/mod.rs",
            "        mounts::all_done([unmount(dataset), unmount(stage), unmount(blank)])\n",
            "        let it = [\"set\", \"keylocation=prompt\", &self.source.dataset];\n"
            '        std::process::Command::new("zfs").args(it).status()?;\n'
            "        mounts::all_done([unmount(dataset), unmount(stage), unmount(blank)])\n",
        )],
    ),
]
