//! What others mount and unmount while a command runs in a mount namespace of its own.

use std::path::Path;
use std::process::Command;
use std::sync::mpsc::channel;

use anyhow::Result;
use darlings::fs::process::enter_mount_namespace;
use darlings_testkit::loopfs::{run, unmount};
use darlings_testkit::{capability, skip_unless};

/// Whether something is mounted there, as this thread sees it.
fn is_mounted(path: &Path) -> Result<bool> {
    let mounts = std::fs::read_to_string("/proc/thread-self/mounts")?;
    let path = path.to_string_lossy();
    Ok(mounts.lines().any(|line| line.split(' ').nth(1) == Some(&*path)))
}

#[test]
fn what_somebody_unmounts_while_a_command_runs_is_not_held_by_it_and_its_own_mounts_are_seen_by_nobody()
-> Result<()> {
    skip_unless!(capability::root(), Ok(()));
    let scratch = tempfile::tempdir()?;
    let scratch = scratch.path().canonicalize()?;
    // Like the root of a machine where systemd runs, and a disk that somebody plugged in.
    let (machine, disk, own) =
        (scratch.join("machine"), scratch.join("machine/disk"), scratch.join("machine/own"));
    std::fs::create_dir(&machine)?;
    run(Command::new("mount").args(["-t", "tmpfs", "machine"]).arg(&machine))?;
    run(Command::new("mount").arg("--make-shared").arg(&machine))?;
    std::fs::create_dir(&disk)?;
    std::fs::create_dir(&own)?;
    run(Command::new("mount").args(["-t", "tmpfs", "disk"]).arg(&disk))?;

    let seen = std::thread::scope(|scope| {
        let (entered, has_entered) = channel();
        let (unmounted, was_unmounted) = channel();
        let (disk, own) = (&disk, &own);
        let command = scope.spawn(move || -> Result<_> {
            enter_mount_namespace()?;
            let before = is_mounted(disk)?;
            run(Command::new("mount").args(["-t", "tmpfs", "own"]).arg(own))?;
            entered.send(())?;
            was_unmounted.recv()?;
            Ok((before, is_mounted(disk)?))
        });
        let others = has_entered.recv().map(|()| is_mounted(own));
        unmount(disk)?;
        unmounted.send(())?;
        Ok::<_, anyhow::Error>((others??, command.join().expect("the command's thread")?))
    });
    run(Command::new("umount").args(["--recursive"]).arg(&machine))?;
    let (own_is_seen, (before, after)) = seen?;
    assert_eq!((own_is_seen, before, after), (false, true, false));
    Ok(())
}
