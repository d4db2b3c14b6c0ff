//! `darlings diff` of a plain directory on ext4.

use std::process::Command;

use crate::common::{put, quoted};
use anyhow::Result;
use darlings_testkit::loopfs::{Filesystem, LoopFs, run, unmount};
use darlings_testkit::{capability, skip_unless};

#[test]
fn a_directory_is_compared_without_what_is_the_filesystems_own_or_mounted_in_it() -> Result<()> {
    skip_unless!(capability::root_and_btrfs(), Ok(()));
    let fs = LoopFs::new(Filesystem::Ext4)?;
    let root = fs.path();
    assert!(root.join("lost+found").is_dir());
    put(root, "keep/kept", "kept")?;
    put(root, "etc/new", "new")?;
    put(root, "mounted/hidden", "hidden")?;
    let mounted = root.join("mounted");
    run(Command::new("mount").args(["-t", "tmpfs", "none"]).arg(&mounted))?;
    put(root, "mounted/of another filesystem", "words")?;
    let path = quoted(root.to_str().unwrap());
    let config = format!(
        "[[volume]]\nmount_point = {path}\ndir = {{ path = {path}, blank = \"empty\" }}\n[[persist]]\npath \
         = {}\n",
        quoted(root.join("keep").to_str().unwrap())
    );
    let file = fs.holder().join("darlings.toml");
    std::fs::write(&file, config)?;
    let diff = |arguments: &[&str]| -> Result<(Option<i32>, String, String)> {
        let mut command = Command::new(env!("CARGO_BIN_EXE_darlings"));
        let output = command.arg("diff").arg("--config").arg(&file).args(arguments).output()?;
        Ok((
            output.status.code(),
            String::from_utf8(output.stdout)?,
            String::from_utf8(output.stderr)?,
        ))
    };
    let told = diff(&["--flat"])?;
    let since = diff(&["--since", "1"])?;
    unmount(&mounted)?;
    let lines = format!(
        "-        3 B  root      {}/etc/new\n{}: the next reset erases 1 file (3 B)\n  left out, since the \
         system makes them again (--all shows them): 1 mount point\n",
        root.display(),
        root.display(),
    );
    assert_eq!(told, (Some(1), lines, String::new()));
    assert_eq!(since.0, Some(2));
    assert!(since.2.contains("there is no generation"), "{}", since.2);
    fs.close()
}
