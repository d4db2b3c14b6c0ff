//! `vm demo`: what a reset makes of a machine, shown to a person.
//!
//! In the form of `script/demo`, which shows the same of a loop file.

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::io::{IsTerminal as _, Write as _};
use std::sync::mpsc::{self, RecvTimeoutError};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use darlings_testkit::model::{self, Rule};
use darlings_testkit::tree::Kind;
use darlings_testkit::{RelPath, Tree, difference};
use darlings_vm_tests::accelerator::Accelerator;
use darlings_vm_tests::image::Image;
use darlings_vm_tests::machine::{Boot, Booted, Ending, Machine, Moment};
use darlings_vm_tests::{Filesystem, trees};

/// A volume, where it is mounted, and what is kept of it: paths below the mount point, with what
/// is excluded below each.
struct Volume {
    name: &'static str,
    mount_point: &'static str,
    kept: &'static [(&'static str, &'static [&'static str])],
}

const VOLUMES: [Volume; 2] = [
    Volume {
        name: "root",
        mount_point: "/",
        kept: &[("etc/machine-id", &[]), ("etc/shadow", &[]), ("etc/ssh", &[]), ("var/log", &[])],
    },
    Volume { name: "home", mount_point: "/home", kept: &[("mia/projects", &["site/target"])] },
];

/// What a person does on the new machine at the first boot.
const USE: &str = r##"
    write() { mkdir --parents "${1%/*}"; printf '%s\n' "$2" >"$1.new"; mv "$1.new" "$1"; }
    # Kept: state that a person would miss.
    write /etc/ssh/ssh_host_ed25519_key "-----BEGIN OPENSSH PRIVATE KEY-----"
    chmod 600 /etc/ssh/ssh_host_ed25519_key
    cp --archive /etc/shadow /etc/shadow.new
    echo 'mia:$y$j9T$old:20000::::::' >>/etc/shadow.new
    mv /etc/shadow.new /etc/shadow
    mkdir --parents /var/log/journal
    for name in syslog auth.log kern.log journal/user-1000 journal/system; do
        seq -f "Jan 01 00:00:00 host program[%g]: said something" 2000 >"/var/log/$name"
    done
    setfacl --modify group:4:r /var/log/journal/system
    for name in main parse render; do write "/home/mia/projects/site/src/$name.rs" "// $name"; done
    ln /home/mia/projects/site/src/main.rs /home/mia/projects/main-hardlink.rs
    setfattr --name=user.origin --value=hand-made /home/mia/projects/site/src/main.rs
    truncate --size=1G /home/mia/projects/disk.img
    # Not declared: clutter.
    for name in a b c d e f; do write "/home/mia/projects/site/target/debug/lib$name.rlib" x; done
    for name in {1..60}; do write "/home/mia/.cache/thumbnails/$name.png" x; done
    write /home/mia/.config/program-tried-once/settings.ini "[x]"
    chown --recursive mia:mia /home/mia
    write /etc/hostname hand-edited
    rm --force /etc/issue
    write /etc/cron.d/forgotten "@daily root /root/try.sh"
    write /root/try.sh "#!/bin/sh"
    write /root/notes.txt "the router's admin page is on port 8443"
    write /opt/vendor/agent/agent.db x
    for name in {1..40}; do write "/var/cache/apt/archives/package-$name.deb" x; done
    write /var/lib/program-removed-last-year/state x
    "##;

/// Saves a kept file as most programs do, and would not do on a bind mount.
const SAVE: &str = r"
    cp --archive /etc/shadow /etc/shadow.new
    echo 'mia:$y$j9T$new:20001::::::' >>/etc/shadow.new
    mv /etc/shadow.new /etc/shadow
    ";

/// What gets a file back from the previous state on btrfs.
const RECOVER: [&str; 2] = [
    "mount -o subvolid=5 /dev/disk/by-label/root /mnt",
    "cp --archive /mnt/@darlings/root/1/root/notes.txt /root/",
];

/// Shows both machines, one after the other.
pub(crate) fn show() -> Result<()> {
    let how = match Accelerator::best() {
        Accelerator::Kvm => "on KVM",
        Accelerator::Tcg => "emulated, since KVM does not work here",
    };
    // It says by itself what it builds.
    Image::get()?;
    let paint = Paint::of_stdout();
    for filesystem in Filesystem::ALL {
        show_one(filesystem, how, &paint)
            .with_context(|| format!("the {} machine", filesystem.name()))?;
    }
    Ok(())
}

fn show_one(filesystem: Filesystem, how: &str, paint: &Paint) -> Result<()> {
    let name = filesystem.name();
    let Paint { bold, red, green, dim, plain } = paint;
    let mut machine = while_saying("building darlings", || Machine::new(filesystem))?;

    println!("{bold}A machine with a {name} root{plain}, {how}");
    let first = Boot::new().at(Moment::Root, USE);
    let first = boot(&mut machine, &first, &format!("{name}: boot 1, a person uses the machine"))?;
    first.step(Moment::Root)?;
    println!("  boot 1  {:5.1} s  a person uses it", first.took.as_secs_f64());

    machine.configure(&configuration(filesystem));
    let second = boot(&mut machine, &second_boot(filesystem), &format!("{name}: boot 2, a reset"))?;
    println!(
        "  boot 2  {:5.1} s  reset in the initrd; every entry is written down before and after",
        second.took.as_secs_f64()
    );
    println!("{bold}$ darlings reset --config /etc/darlings.toml{plain}");
    for line in said(&second)? {
        println!("{dim}{line}{plain}");
    }

    let seen = Seen::of(&second)?;
    println!();
    println!(
        "{red}Erased{plain}  {} entries (in brackets: how many there are together):",
        seen.erased.len()
    );
    print!("{}", in_columns(&outermost(&seen.erased)));
    println!(
        "{red}Reset{plain}   the blank's again: {}",
        outermost(&seen.back)
            .into_iter()
            .chain(seen.changed.clone())
            .collect::<Vec<_>>()
            .join(", ")
    );
    println!(
        "{green}Kept{plain}    {} entries; bytes, owners, modes, times, ACLs, xattrs, links compared",
        seen.kept
    );
    second.step(Moment::Root)?;
    println!("        real files, no mounts, no symlinks: replacing /etc/shadow by rename works");
    match filesystem {
        Filesystem::Zfs => println!(
            "{green}Before{plain}  there is none to get files back from: a ZFS rollback destroys it"
        ),
        Filesystem::Btrfs => {
            println!(
                "{green}Before{plain}  the previous state is @darlings/root/1, read-only; to get a file back:"
            );
            for command in RECOVER {
                println!("{bold}        $ {command}{plain}");
            }
            let notes = String::from_utf8_lossy(second.file(Moment::Root, "notes")?);
            println!("        /root/notes.txt: {}", notes.trim_end());
        }
    }
    println!();
    Ok(())
}

fn configuration(filesystem: Filesystem) -> String {
    // Without `keep`: an error on ZFS, where nothing is kept.
    let mut text = format!("on_failure = \"emergency\"\n\n{}", filesystem.volumes("rollback", ""));
    for volume in &VOLUMES {
        for (path, excluded) in volume.kept {
            let path = shown(volume, path);
            // Rust writes these strings as TOML does.
            text.extend([format!("\n[[persist]]\npath = {path:?}\nexclude = {excluded:?}\n")]);
        }
    }
    text
}

fn second_boot(filesystem: Filesystem) -> Boot {
    let after = format!(
        "{}journalctl --quiet --output=cat _COMM=darlings >\"$RESULTS/said\"",
        trees::AFTER
    );
    let recover = match filesystem {
        Filesystem::Zfs => String::new(),
        Filesystem::Btrfs => {
            format!("{}\ncp /root/notes.txt \"$RESULTS/notes\"\numount /mnt", RECOVER.join("\n"))
        }
    };
    Boot::new()
        .at(Moment::Before, &trees::before(filesystem, &trees::WITH_BLANKS))
        .at(Moment::After, &after)
        .at(Moment::Root, &format!("{SAVE}{recover}"))
}

fn boot(machine: &mut Machine, boot: &Boot, what: &str) -> Result<Booted> {
    let booted = while_saying(what, || machine.boot(boot))?;
    ensure!(booted.ending == Ending::Root, "the boot stopped:\n{}", booted.console);
    Ok(booted)
}

/// What the reset told the journal, without the line that each step has while it runs.
fn said(booted: &Booted) -> Result<Vec<String>> {
    let said = String::from_utf8_lossy(booted.file(Moment::After, "said")?).into_owned();
    ensure!(!said.is_empty(), "the reset is not in the journal\n--- console:\n{}", booted.console);
    let is_step = |line: &str| {
        VOLUMES.iter().any(|volume| line.starts_with(&format!("{}: ", volume.mount_point)))
    };
    Ok(said.lines().filter(|line| !is_step(line)).map(str::to_owned).collect())
}

/// What a reset made of the volumes, by what was written down before and after it.
#[derive(Default)]
struct Seen {
    /// There before and not after.
    erased: Vec<String>,
    /// There after and not before.
    back: Vec<String>,
    /// Files with other bytes than before.
    changed: Vec<String>,
    /// How many entries are kept, all of them as they were.
    kept: usize,
}

impl Seen {
    fn of(booted: &Booted) -> Result<Self> {
        let mut seen = Self::default();
        for volume in &VOLUMES {
            let before = trees::read(booted, Moment::Before, volume.name)?;
            let blank = trees::read(booted, Moment::Before, &format!("blank_{}", volume.name))?;
            let after = trees::read(booted, Moment::After, volume.name)?;
            seen.add(volume, &blank, &before, &after)?;
        }
        seen.erased.sort();
        Ok(seen)
    }

    fn add(&mut self, volume: &Volume, blank: &Tree, before: &Tree, after: &Tree) -> Result<()> {
        let rules: Vec<Rule> = volume
            .kept
            .iter()
            .map(|(path, excluded)| Rule::new(path, excluded))
            .collect::<Result<_, _>>()
            .map_err(|why| anyhow::anyhow!("BUG: what is kept: {why}"))?;
        let expected = model::expected(blank, before, &rules)
            .map_err(|error| anyhow::anyhow!("BUG: the model refuses the rules: {error:?}"))?;
        let differences = expected.tree.diff(after);
        ensure!(
            differences.is_empty(),
            "{} is not what a reset must leave, which is a bug in darlings (expected, then found):\n{}",
            volume.mount_point,
            difference::lines(&differences)
        );

        let own = RelPath::root().join(".darlings");
        let there = |tree: &Tree| -> BTreeSet<RelPath> {
            tree.entries.keys().filter(|path| !path.is_at_or_below(&own)).cloned().collect()
        };
        let (was, is) = (there(before), there(after));
        let shown = |path: &RelPath| shown(volume, &path.to_string());
        self.erased.extend(was.difference(&is).map(shown));
        self.back.extend(is.difference(&was).map(shown));
        let bytes = |tree: &Tree, path: &RelPath| match tree.get(path).map(|entry| &entry.kind) {
            Some(Kind::File { sha256, .. }) => Some(sha256.clone()),
            _ => None,
        };
        self.changed.extend(
            was.intersection(&is)
                .filter(|path| bytes(before, path) != bytes(after, path))
                .map(shown),
        );
        let kept = |path: &&RelPath| rules.iter().any(|rule| path.is_at_or_below(&rule.path));
        self.kept += is.iter().filter(kept).count();
        Ok(())
    }
}

/// A path of a volume as the running system has it.
fn shown(volume: &Volume, path: &str) -> String {
    format!("{}/{path}", volume.mount_point.trim_end_matches('/'))
}

/// The outermost of a sorted list of paths, each with how many of the list it stands for.
fn outermost(paths: &[String]) -> Vec<String> {
    let mut outer: Vec<(&String, usize)> = Vec::new();
    for path in paths {
        match outer.last_mut() {
            Some((last, count))
                if path.strip_prefix(last.as_str()).is_some_and(|rest| rest.starts_with('/')) =>
            {
                *count += 1;
            }
            _ => outer.push((path, 1)),
        }
    }
    outer
        .into_iter()
        .map(|(path, count)| if count == 1 { path.clone() } else { format!("{path} ({count})") })
        .collect()
}

/// Side by side, 80 wide.
fn in_columns(words: &[String]) -> String {
    const INDENT: &str = "        ";
    let mut text = String::new();
    let mut width = 0;
    for word in words {
        let length = word.chars().count();
        let gap = if width == 0 {
            INDENT
        } else if width + 2 + length > 80 {
            width = 0;
            text.push('\n');
            INDENT
        } else {
            "  "
        };
        text.extend([gap, word]);
        width += gap.len() + length;
    }
    text.push('\n');
    text
}

struct Paint {
    bold: &'static str,
    red: &'static str,
    green: &'static str,
    dim: &'static str,
    plain: &'static str,
}

impl Paint {
    fn of_stdout() -> Self {
        let wanted = std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty());
        if wanted && std::io::stdout().is_terminal() {
            Self {
                bold: "\x1b[1m",
                red: "\x1b[31m",
                green: "\x1b[32m",
                dim: "\x1b[2m",
                plain: "\x1b[0m",
            }
        } else {
            Self { bold: "", red: "", green: "", dim: "", plain: "" }
        }
    }
}

/// Does something that takes long, and says on standard error what it is and for how many
/// seconds already; on a terminal in one line, which is gone in the end.
fn while_saying<T>(what: &str, work: impl FnOnce() -> Result<T>) -> Result<T> {
    let mut terminal = std::io::stderr();
    if !terminal.is_terminal() {
        writeln!(terminal, "{what}")?;
        return work();
    }
    let (stop, stopped) = mpsc::channel::<()>();
    let what = what.to_owned();
    let ticker = thread::spawn(move || -> std::io::Result<()> {
        let started = Instant::now();
        loop {
            let mut line = String::new();
            write!(line, "\r\x1b[K{what}: {:3} s", started.elapsed().as_secs())
                .unwrap_or_else(|_| unreachable!("BUG: writing to a String cannot fail"));
            terminal.write_all(line.as_bytes())?;
            if stopped.recv_timeout(Duration::from_secs(1)) != Err(RecvTimeoutError::Timeout) {
                return terminal.write_all(b"\r\x1b[K");
            }
        }
    });
    let done = work();
    drop(stop);
    let said = ticker.join().map_err(|_| anyhow::anyhow!("BUG: the ticker panicked"))?;
    let done = done?;
    said.context("cannot say what is being done")?;
    Ok(done)
}

#[cfg(test)]
mod tests {
    use super::{in_columns, outermost};

    #[test]
    fn what_lies_below_an_erased_directory_is_counted_with_it() {
        let paths = ["/a", "/a/b", "/a/b/c", "/ab", "/c/d", "/c/e"].map(String::from);
        assert_eq!(outermost(&paths), ["/a (3)", "/ab", "/c/d", "/c/e"]);
    }

    #[test]
    fn no_line_of_a_list_is_wider_than_80() {
        let words = ["x".repeat(36), "y".repeat(34), "z".into()];
        let expected = format!("        {}  {}\n        z\n", "x".repeat(36), "y".repeat(34));
        assert_eq!(in_columns(&words), expected);
    }
}
