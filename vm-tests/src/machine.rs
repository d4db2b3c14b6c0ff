//! A machine with a root on disk, booted as often as a test likes.

use std::collections::BTreeMap;
use std::env;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context as _, Result, bail, ensure};
use tempfile::TempDir;

use crate::archive::Archive;
use crate::disk::Disk;
use crate::image::Image;
use crate::qemu::Guest;
use crate::rendered::Rendered;
use crate::{Filesystem, dracut, program, run};

const STEP: &str = include_str!("../guest/step");
const BEFORE: &str = include_str!("../guest/units/darlings-vm-before.service");
const AFTER: &str = include_str!("../guest/units/darlings-vm-after.service");
const EMERGENCY: &str = include_str!("../guest/units/emergency.service");
const ROOT: &str = include_str!("../guest/units/darlings-vm-root.service");
const TARGET: &str = include_str!("../guest/units/darlings-vm.target");

/// What the project ships, as it ships.
const RESET_UNIT: &str = include_str!("../../systemd/darlings-reset.service");
const PURGE_UNIT: &str = include_str!("../../systemd/darlings-purge.service");
const ZFS_DROP_IN: &str = include_str!("../../systemd/examples/zfs.conf");
const BTRFS_DROP_IN: &str = include_str!("../../systemd/examples/btrfs.conf");

/// In place of one that waits for every device.
const SETTLED: &str = r"[Unit]
DefaultDependencies=no
Requires=dev-disk-by\x2did-virtio\x2droot\x2dpart1.device
After=dev-disk-by\x2did-virtio\x2droot\x2dpart1.device

[Service]
Type=oneshot
RemainAfterExit=yes
ExecStart=/bin/true
";

/// Units of the initrd that do nothing for a virtual machine, and take seconds
/// when emulated. Not among them: those that make static device nodes, without
/// which udev finds no btrfs ready, and what orders local-fs-pre.target.
const UNUSED: [&str; 3] =
    ["systemd-modules-load.service", "systemd-sysctl.service", "systemd-tmpfiles-setup.service"];

/// How long one boot may take. Emulated, on a computer that is busy with other things, it takes more than a minute.
const LIMIT: Duration = Duration::from_secs(420);

/// What the machine's kernel and systemd are told. Not systemd's limit of 90 s for a device and
/// for a unit: emulated on a busy computer, a boot was seen to wait longer for udev to see the disk.
const OPTIONS: &str = "rw systemd.unit=darlings-vm.target loglevel=5 SYSTEMD_COLORS=0 \
    systemd.show_status=yes systemd.default_device_timeout_sec=300 \
    systemd.default_timeout_start_sec=300";

/// A moment of a boot at which a test's script runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Moment {
    /// In the initrd: the volumes can be reached and have not been reset.
    Before,
    /// In the initrd: all is mounted below /sysroot, nothing of the root runs.
    After,
    /// In the booted root. The machine is switched off when it has ended.
    Root,
    /// In the initrd, where systemd has stopped the boot.
    Emergency,
}

impl Moment {
    const ALL: [Self; 4] = [Self::Before, Self::After, Self::Root, Self::Emergency];

    fn name(self) -> &'static str {
        match self {
            Self::Before => "before",
            Self::After => "after",
            Self::Root => "root",
            Self::Emergency => "emergency",
        }
    }
}

/// What differs between the two machines.
impl Filesystem {
    /// The initrd's `/etc/fstab`, which mounts everything, as NixOS writes it: the root, and what is
    /// mounted in it.
    fn fstab(self) -> (&'static str, &'static str) {
        match self {
            Self::Zfs => (
                "rpool/local/root /sysroot zfs defaults 0 0\n",
                "rpool/local/usr /sysroot/usr zfs ro 0 0\n\
                 rpool/safe/home /sysroot/home zfs x-initrd.mount 0 0\n",
            ),
            Self::Btrfs => (
                "LABEL=root /sysroot btrfs subvol=@,noatime 0 0\n",
                "LABEL=root /sysroot/usr btrfs subvol=@usr,noatime,ro 0 0\n\
                 LABEL=root /sysroot/home btrfs subvol=@home,noatime,x-initrd.mount 0 0\n",
            ),
        }
    }

    /// The drop-in that ships as an example, and the unit that it names.
    fn device(self) -> (&'static str, &'static str) {
        match self {
            Self::Zfs => (ZFS_DROP_IN, "zfs-import-rpool.service"),
            Self::Btrfs => (BTRFS_DROP_IN, r"dev-disk-by\x2dlabel-root.device"),
        }
    }

    /// The `[[volume]]` tables of the machine's two volumes, `/` and `/home`, with the
    /// given `strategy` and, for each, the text that stands for its `keep`.
    #[must_use]
    pub fn volumes(self, strategy: &str, keep: &str) -> String {
        let tables = match self {
            Self::Zfs => [
                ("/", r#"zfs = { dataset = "rpool/local/root", blank = "blank" }"#),
                ("/home", r#"zfs = { dataset = "rpool/safe/home", blank = "blank" }"#),
            ],
            Self::Btrfs => [
                (
                    "/",
                    r#"btrfs = { device = "/dev/disk/by-label/root", subvolume = "@", blank = "@blank/root", generations = "@darlings/root" }"#,
                ),
                (
                    "/home",
                    r#"btrfs = { device = "/dev/disk/by-label/root", subvolume = "@home", blank = "@blank/home", generations = "@darlings/home" }"#,
                ),
            ],
        };
        tables
            .map(|(mount_point, volume)| {
                format!("[[volume]]\nmount_point = \"{mount_point}\"\nstrategy = \"{strategy}\"\n{volume}\n{keep}\n")
            })
            .join("\n")
    }
}

/// One boot: what is to happen at which moment.
#[derive(Clone, Debug, Default)]
pub struct Boot {
    scripts: BTreeMap<Moment, String>,
    options: String,
    limit: Option<Duration>,
}

impl Boot {
    /// A boot at which nothing is asked for: it ends once the root is up.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Runs a bash script at a moment. What it writes, its exit status and the
    /// files it leaves in `$RESULTS` come back in [`Booted`].
    #[must_use]
    pub fn at(mut self, moment: Moment, script: &str) -> Self {
        self.scripts.insert(moment, script.to_owned());
        self
    }

    /// Adds to the kernel's command line.
    #[must_use]
    pub fn option(mut self, option: &str) -> Self {
        self.options.push(' ');
        self.options.push_str(option);
        self
    }

    /// Lets it take so long, where its scripts have much to do.
    #[must_use]
    pub fn within(mut self, limit: Duration) -> Self {
        self.limit = Some(limit);
        self
    }
}

/// Where a boot ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ending {
    /// The root was up and its script has ended.
    Root,
    /// systemd stopped in the initrd.
    Emergency,
}

/// What came of a script.
#[derive(Debug, Default)]
pub struct Step {
    /// Its exit status.
    pub status: i32,
    /// What it wrote, errors among it.
    pub output: String,
    /// The files that it left in `$RESULTS`.
    pub files: BTreeMap<String, Vec<u8>>,
}

/// What came of a boot.
#[derive(Debug)]
pub struct Booted {
    /// Where it ended.
    pub ending: Ending,
    /// The console: the kernel, systemd, and what `darlings` said.
    pub console: String,
    /// From the start of QEMU to its end.
    pub took: Duration,
    steps: BTreeMap<Moment, Step>,
}

impl Booted {
    /// What came of the script at a moment; an error when it failed or never ran.
    pub fn step(&self, moment: Moment) -> Result<&Step> {
        let Some(step) = self.steps.get(&moment) else {
            bail!("the script {moment:?} did not run to its end\n--- console:\n{}", self.console);
        };
        ensure!(
            step.status == 0,
            "the script {moment:?} ended with {}:\n{}\n--- console:\n{}",
            step.status,
            step.output,
            self.console
        );
        Ok(step)
    }

    /// A file that the script at a moment left in `$RESULTS`.
    pub fn file(&self, moment: Moment, name: &str) -> Result<&[u8]> {
        let step = self.step(moment)?;
        step.files.get(name).map(Vec::as_slice).with_context(|| {
            format!("the script {moment:?} left no {name}; it said:\n{}", step.output)
        })
    }
}

/// A machine. Its disk starts as it was installed and keeps what each boot did.
#[derive(Debug)]
pub struct Machine {
    filesystem: Filesystem,
    image: Image,
    disk: Disk,
    files: Vec<(PathBuf, String)>,
    configuration: Option<String>,
    /// Units other than those that the project ships.
    rendered: Option<Rendered>,
    /// The initrd that has the project already, because dracut put it there.
    initrd: Option<PathBuf>,
    darlings: PathBuf,
    scratch: TempDir,
}

impl Machine {
    /// A newly installed machine on which every boot resets nothing, until
    /// [`configure`](Self::configure) says otherwise.
    pub fn new(filesystem: Filesystem) -> Result<Self> {
        let image = Image::get()?;
        let scratch = tempfile::tempdir().context("cannot make a directory for a machine")?;
        let disk = Disk::overlay(scratch.path().join("disk"), "root", &image.disk(filesystem))?;
        let files =
            vec![(built("TESTKIT_BIN", "darlings-testkit", "testkit")?, "testkit".to_owned())];
        Ok(Self {
            filesystem,
            image,
            disk,
            files,
            configuration: None,
            rendered: None,
            initrd: None,
            darlings: built("DARLINGS_BIN", "darlings", "darlings")?,
            scratch,
        })
    }

    /// Installs the reset with this configuration; the next boot uses it.
    pub fn configure(&mut self, configuration: &str) {
        self.configuration = Some(configuration.to_owned());
    }

    /// Installs the reset as the NixOS module renders it, from a directory with its golden files.
    pub fn configure_as_nixos(&mut self, golden: &Path) -> Result<()> {
        let rendered = Rendered::read(golden)?;
        self.configuration = Some(rendered.configuration.clone());
        self.rendered = Some(rendered);
        Ok(())
    }

    /// Installs the reset as a package does on a machine that boots by dracut, and has dracut make the
    /// machine's initrd.
    pub fn configure_with_dracut(&mut self, configuration: &str) -> Result<()> {
        let initrd =
            dracut::initrd(&self.image.boot, configuration, &self.darlings, self.scratch.path())?;
        self.initrd = Some(initrd);
        Ok(())
    }

    /// Puts another program on the scripts' PATH under the given name.
    pub fn program(&mut self, file: &Path, name: &str) {
        self.files.push((file.to_owned(), name.to_owned()));
    }

    /// Where a file that belongs to this machine goes: its disk is there, and all of it goes with it.
    #[must_use]
    pub fn scratch(&self) -> &Path {
        self.scratch.path()
    }

    /// Has every write and flush of the next boot written down: see `darlings_testkit::power`.
    pub fn record(&mut self) -> Result<PathBuf> {
        let to = self.scratch.path().join("recording");
        self.disk = self.disk.clone().recorded(to.clone())?;
        Ok(to)
    }

    /// The disk as it was installed. Not to be written to.
    #[must_use]
    pub fn installed(&self) -> PathBuf {
        self.image.disk(self.filesystem)
    }

    /// Takes the disk out and puts this image of one in.
    pub fn put_in(&mut self, image: PathBuf) {
        self.disk = Disk::raw(image, "root");
    }

    /// Boots it once. A boot that neither reaches the root nor stops is an error
    /// that holds the console.
    pub fn boot(&mut self, boot: &Boot) -> Result<Booted> {
        let root =
            if self.initrd.is_some() { self.filesystem.root_options() } else { "root=fstab" };
        let initrd = self.initrd.clone().unwrap_or_else(|| self.image.boot.initrd(self.filesystem));
        let ended = Guest {
            kernel: &self.image.boot.kernel,
            initrd: &initrd,
            extra: &self.archive(boot)?,
            options: &format!("{root} {OPTIONS}{}", boot.options),
            disks: std::slice::from_ref(&self.disk),
            memory: 2048,
            limit: boot.limit.unwrap_or(LIMIT),
            stream: false,
        }
        .run()?;
        let ending = match ended.status.trim() {
            "root" => Ending::Root,
            "emergency" => Ending::Emergency,
            _ => bail!(
                "the {} machine {} after {:.0?}\n--- console:\n{}",
                self.filesystem.name(),
                if ended.timed_out { "was stuck and killed" } else { "died" },
                ended.took,
                ended.console
            ),
        };
        let steps = steps(&ended.output).with_context(|| {
            format!("the machine's results are damaged\n--- console:\n{}", ended.console)
        })?;
        Ok(Booted { ending, console: ended.console, took: ended.took, steps })
    }

    /// Runs a script in the initrd with the machine's disk, without booting it.
    /// Nothing is imported or mounted.
    pub fn inspect(&self, script: &str) -> Result<String> {
        let mut command = run::Command::new(self.filesystem, script);
        command.disks = vec![self.disk.clone()];
        command.files = self
            .files
            .iter()
            .map(|(from, name)| (from.clone(), format!("/usr/bin/{name}")))
            .collect();
        command.succeed(&self.image.boot)
    }

    fn archive(&self, boot: &Boot) -> Result<Vec<u8>> {
        let mut archive = Archive::default();
        archive.file("/darlings-vm/step", 0o755, STEP.as_bytes())?;
        for (moment, script) in &boot.scripts {
            let path = format!("/darlings-vm/scripts/{}", moment.name());
            archive.file(
                &path,
                0o755,
                format!("#!/bin/bash\nset -euo pipefail\n{script}\n").as_bytes(),
            )?;
        }
        for (from, name) in &self.files {
            archive.copy(from, &format!("/darlings-vm/bin/{name}"))?;
        }
        archive.file("/darlings-vm/root-units/darlings-vm.target", 0o644, TARGET.as_bytes())?;
        archive.file("/darlings-vm/root-units/darlings-vm-root.service", 0o644, ROOT.as_bytes())?;

        let mut unit = |name: &str, text: &str| {
            archive.file(&format!("/etc/systemd/system/{name}"), 0o644, text.as_bytes())
        };
        let (drop_in, device) = self.filesystem.device();
        let by_dracut = self.initrd.is_some();
        let device = if by_dracut { self.filesystem.reachable_after() } else { device };
        unit("darlings-vm-before.service", BEFORE)?;
        // Wanted, not required: see what darlings' dracut module says of the imports.
        unit(
            "darlings-vm-before.service.d/10-device.conf",
            &format!("[Unit]\nWants={device}\nAfter={device}\n"),
        )?;
        unit("darlings-vm-after.service", AFTER)?;
        unit("emergency.service", EMERGENCY)?;
        if by_dracut && self.filesystem == Filesystem::Zfs {
            // In this fstab, not in that of the root, where dracut's machines have it.
            unit("sysusr-usr.mount.d/10-pool.conf", "[Unit]\nAfter=zfs-import.target\n")?;
            // The import waits for all devices to settle, 180 s at most by a clock that runs fast on a
            // busy computer. One device is all there is.
            unit("systemd-udev-settle.service", SETTLED)?;
        }
        for unit in UNUSED {
            archive.symlink(&format!("/etc/systemd/system/{unit}"), "/dev/null")?;
        }
        let mut require = |by: &str, name: &str| {
            archive.symlink(
                &format!("/etc/systemd/system/{by}.requires/{name}"),
                &format!("../{name}"),
            )
        };
        require("initrd-fs.target", "darlings-vm-after.service")?;
        if boot.scripts.contains_key(&Moment::Before) {
            require("sysroot.mount", "darlings-vm-before.service")?;
        }
        if self.filesystem == Filesystem::Zfs && !by_dracut {
            require("sysroot.mount", "zfs-import-rpool.service")?;
            require("sysusr-usr.mount", "zfs-import-rpool.service")?;
        }
        let (root, inside) = self.filesystem.fstab();
        let root = if by_dracut { "" } else { root };
        archive.file("/etc/fstab", 0o644, format!("{root}{inside}").as_bytes())?;

        if let Some(configuration) = &self.configuration {
            let units = "/etc/systemd/system";
            archive.file("/etc/darlings.toml", 0o600, configuration.as_bytes())?;
            if let Some(rendered) = &self.rendered {
                rendered.install(&mut archive, units, &self.darlings)?;
                return archive.finish();
            }
            archive.copy(&self.darlings, "/usr/bin/darlings")?;
            // For scripts that run it in the booted root.
            let purge = "/darlings-vm/darlings-purge.service";
            archive.file(purge, 0o644, PURGE_UNIT.as_bytes())?;
            archive.file(
                &format!("{units}/darlings-reset.service"),
                0o644,
                RESET_UNIT.as_bytes(),
            )?;
            archive.file(
                &format!("{units}/darlings-reset.service.d/10-device.conf"),
                0o644,
                drop_in.as_bytes(),
            )?;
            archive.symlink(
                &format!("{units}/sysroot.mount.requires/darlings-reset.service"),
                "../darlings-reset.service",
            )?;
        }
        archive.finish()
    }
}

/// A program of this workspace: the file that the variable names, or built now.
pub fn built(variable: &str, package: &str, name: &str) -> Result<PathBuf> {
    match env::var_os(variable) {
        Some(file) => Ok(PathBuf::from(file)),
        None => made_by_cargo(&["build", "--release", "--package", package, "--bin", name], name),
    }
}

/// The executable of a file of tests of this workspace.
pub fn built_tests(package: &str, name: &str) -> Result<PathBuf> {
    made_by_cargo(&["test", "--no-run", "--package", package, "--test", name], name)
}

fn made_by_cargo(arguments: &[&str], name: &str) -> Result<PathBuf> {
    let cargo = env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let built = program::run(
        Command::new(cargo)
            .current_dir(env!("CARGO_MANIFEST_DIR"))
            .args(arguments)
            .args(["--quiet", "--message-format=json"]),
    )?;
    for line in built.lines() {
        let message: serde_json::Value = serde_json::from_str(line)
            .with_context(|| format!("cargo said what is not JSON: {line}"))?;
        if message["target"]["name"] == name
            && let Some(executable) = message["executable"].as_str()
        {
            return Ok(PathBuf::from(executable));
        }
    }
    bail!("cargo {arguments:?} named no program {name}")
}

/// Reads what the guest's `step` wrote.
fn steps(mut bytes: &[u8]) -> Result<BTreeMap<Moment, Step>> {
    let mut unfinished: BTreeMap<Moment, Step> = BTreeMap::new();
    let mut finished = BTreeMap::new();
    while let Some(end) = bytes.iter().position(|&byte| byte == b'\n') {
        let header = std::str::from_utf8(&bytes[..end]).context("a header is not text")?;
        let words: Vec<&str> = header.split(' ').collect();
        let ["darlings-vm", moment, name, length] = words[..] else {
            bail!("a header reads {header:?}")
        };
        let moment = Moment::ALL
            .into_iter()
            .find(|known| known.name() == moment)
            .with_context(|| format!("there is no moment {moment:?}"))?;
        let length: usize = length.parse().with_context(|| format!("a length reads {length:?}"))?;
        let content = bytes
            .get(end + 1..end + 1 + length)
            .with_context(|| format!("{name} at {moment:?} is cut short"))?;
        bytes = &bytes[end + 1 + length..];
        let step = unfinished.entry(moment).or_default();
        match name {
            "output" => step.output = String::from_utf8_lossy(content).into_owned(),
            "status" => {
                step.status =
                    std::str::from_utf8(content)?.parse().context("a status is not a number")?;
                finished.extend(unfinished.remove_entry(&moment));
            }
            _ => {
                step.files.insert(name.to_owned(), content.to_vec());
            }
        }
    }
    Ok(finished)
}

#[cfg(test)]
mod tests {
    use super::{Moment, steps};

    #[test]
    fn a_step_is_there_once_its_status_is() -> anyhow::Result<()> {
        let all = b"darlings-vm before output 3\nhi\ndarlings-vm before a.json 2\n{}darlings-vm before status 1\n7darlings-vm after output 0\n";
        let steps = steps(all)?;
        let before = &steps[&Moment::Before];
        assert_eq!((before.status, before.output.as_str()), (7, "hi\n"));
        assert_eq!(before.files["a.json"], b"{}");
        assert!(!steps.contains_key(&Moment::After), "its status never came");
        Ok(())
    }

    #[test]
    fn a_section_that_is_cut_short_is_an_error() {
        assert!(steps(b"darlings-vm root output 9\nshort").is_err());
    }
}
