//! `vm`: builds the image, runs one command in a guest, and measures in guests.

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use clap::{Parser, Subcommand, ValueEnum};
use darlings_vm_tests::boot_files::BootFiles;
use darlings_vm_tests::disk::Disk;
use darlings_vm_tests::image::Image;
use darlings_vm_tests::{Filesystem, bench, capability, run};

#[derive(Parser)]
#[command(version, about = "Guests with ZFS and btrfs")]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Build the kernel, the initrds and the machines' disks, and say where they are
    Image,
    /// Run a command as root in a guest's initrd; exits as the command does
    Run {
        /// The filesystem whose module is loaded
        #[arg(long, value_enum, default_value = "zfs")]
        fs: Choice,
        /// A file to take along, with its permissions
        #[arg(long = "file", value_name = "HOST:GUEST", value_parser = run::host_and_guest)]
        files: Vec<(PathBuf, String)>,
        /// An empty disk, such as 2G: /dev/disk/by-id/virtio-disk0, then disk1, ...
        #[arg(long = "disk", value_name = "SIZE", value_parser = size)]
        disks: Vec<u64>,
        /// The guest's memory in MiB
        #[arg(long, default_value_t = 3072)]
        memory: u32,
        /// Seconds after which the guest is killed
        #[arg(long, default_value_t = 300)]
        limit: u64,
        /// Show the guest's console afterwards
        #[arg(long)]
        console: bool,
        /// The command and its arguments
        #[arg(last = true, required = true)]
        words: Vec<String>,
    },
    /// Measure resets on ZFS beside other tools, and the boot; script/bench calls it
    Bench {
        /// Only these parts; all by default
        #[arg(long = "only", value_enum, value_delimiter = ',')]
        parts: Vec<bench::Part>,
        /// Where lines of JSON are added
        #[arg(long, value_name = "FILE")]
        results: PathBuf,
        /// The words by which the run was asked for
        #[arg(long, default_value = "vm bench")]
        asked: String,
        /// Numbers of small files on ZFS
        #[arg(long, value_delimiter = ',', default_value = "100,1000,3000")]
        files: Vec<u32>,
        /// Big files on ZFS
        #[arg(long, default_value_t = 4)]
        large: u32,
        /// Their size in MiB
        #[arg(long, default_value_t = 32)]
        mebibytes: u32,
        /// Numbers of bind mounts by systemd
        #[arg(long, value_delimiter = ',', default_value = "1,10,100")]
        mounts: Vec<u32>,
        /// How often each is measured; the median counts
        #[arg(long, default_value_t = 5)]
        rounds: u32,
    },
}

#[derive(Clone, Copy, ValueEnum)]
enum Choice {
    Zfs,
    Btrfs,
}

fn main() -> ExitCode {
    match work(Cli::parse()) {
        Ok(status) => ExitCode::from(status),
        Err(error) => {
            eprintln!("vm: {error:#}");
            // Not a status that the command in the guest is likely to give.
            ExitCode::from(99)
        }
    }
}

fn work(cli: Cli) -> Result<u8> {
    if let Some(why) = capability::missing() {
        bail!("no guest can run here: {why}");
    }
    match cli.command {
        Command::Image => {
            let image = Image::get()?;
            println!("{}", image.boot.kernel.display());
            for filesystem in Filesystem::ALL {
                println!("{}", image.boot.initrd(filesystem).display());
                println!("{}", image.disk(filesystem).display());
            }
            Ok(0)
        }
        Command::Run { fs, files, disks, memory, limit, console, words } => {
            let filesystem = match fs {
                Choice::Zfs => Filesystem::Zfs,
                Choice::Btrfs => Filesystem::Btrfs,
            };
            let scratch = tempfile::tempdir().context("cannot make a directory for the disks")?;
            let disks = disks
                .iter()
                .enumerate()
                .map(|(number, &bytes)| {
                    let serial = format!("disk{number}");
                    Disk::blank(scratch.path().join(&serial), &serial, bytes)
                })
                .collect::<Result<_>>()?;
            let words: Vec<String> = words.iter().map(|word| quoted(word)).collect();
            let mut command = run::Command::new(filesystem, &format!("exec {}", words.join(" ")));
            command.files = files;
            command.disks = disks;
            command.memory = memory;
            command.limit = Duration::from_secs(limit);
            command.stream = true;
            let finished = command.run(&BootFiles::get()?)?;
            if console {
                eprintln!("{}\nthe guest took {:.1?}", finished.console, finished.took);
            }
            Ok(finished.status)
        }
        Command::Bench { parts, results, asked, files, large, mebibytes, mounts, rounds } => {
            let parts = if parts.is_empty() { bench::Part::ALL.to_vec() } else { parts };
            bench::run(&bench::Settings {
                parts,
                results,
                asked,
                files,
                large,
                mebibytes,
                mounts,
                rounds,
            })?;
            Ok(0)
        }
    }
}

/// A word as the guest's shell must read it.
fn quoted(word: &str) -> String {
    format!("'{}'", word.replace('\'', r"'\''"))
}

fn size(text: &str) -> Result<u64, String> {
    let (number, unit) = match text.strip_suffix(['M', 'G']) {
        Some(number) if text.ends_with('M') => (number, 1 << 20),
        Some(number) => (number, 1 << 30),
        None => (text, 1),
    };
    number
        .parse::<u64>()
        .ok()
        .and_then(|number| number.checked_mul(unit))
        .ok_or_else(|| format!("{text} is not a size such as 512M or 2G"))
}
