//! The binary under strace(1): which calls it makes, and what it does when one fails or is its last.

use std::ffi::OsStr;
use std::path::Path;
use std::process::{Command, Stdio};

use anyhow::{Context as _, Result};

/// The calls of the binary that change something: files, or what is mounted where. `openat` does
/// where it makes a file: see [`Call::changes`]. The last line is of calls that only some filesystems
/// need.
pub(crate) const CHANGING: [&str; 27] = [
    "openat",
    "ioctl",
    "mkdir",
    "mkdirat",
    "rename",
    "renameat",
    "renameat2",
    "unlinkat",
    "rmdir",
    "linkat",
    "symlinkat",
    "mknodat",
    "fchown",
    "fchownat",
    "fchmod",
    "fchmodat",
    "fsetxattr",
    "utimensat",
    "write",
    "fsync",
    "syncfs",
    "mount",
    "umount2",
    "copy_file_range",
    "fremovexattr",
    "ftruncate",
    "lsetxattr",
];

/// Those that change nothing outside of the process.
pub(crate) const HARMLESS: [&str; 53] = [
    "access",
    "arch_prctl",
    "brk",
    "clone3",
    "close",
    "execve",
    "exit",
    "exit_group",
    "fcntl",
    "fgetxattr",
    "flistxattr",
    "flock",
    "fstat",
    "fstatfs",
    "futex",
    "getdents64",
    "geteuid",
    "getpid",
    "getrandom",
    "getrlimit",
    "gettid",
    "getuid",
    "ioprio_set",
    "lgetxattr",
    "llistxattr",
    "lseek",
    "madvise",
    "mmap",
    "mprotect",
    "munmap",
    "newfstatat",
    "open",
    "openat2",
    "poll",
    "pread64",
    "prlimit64",
    "read",
    "readlink",
    "readlinkat",
    "rseq",
    "rt_sigaction",
    "rt_sigprocmask",
    "sched_getaffinity",
    "sched_yield",
    "set_robust_list",
    "set_tid_address",
    "setpriority",
    "setrlimit",
    "sigaltstack",
    "statx",
    "umask",
    "unshare",
    "uname",
];

/// One of so many points is tried: what `DARLINGS_STRIDE` says, or the default.
pub(crate) fn stride(default: usize) -> Result<usize> {
    match std::env::var("DARLINGS_STRIDE") {
        Ok(number) => number.parse().context("DARLINGS_STRIDE is no number"),
        Err(_) => Ok(default),
    }
}

/// One call, as strace writes it down.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Call {
    /// Its name.
    pub(crate) name: String,
    /// How many of that name were made up to it, itself included: what `when=` wants.
    pub(crate) when: u32,
    /// Everything after the name.
    pub(crate) rest: String,
}

impl Call {
    /// Whether it changes something.
    pub(crate) fn changes(&self) -> bool {
        let opens = ["open", "openat", "openat2"].contains(&self.name.as_str());
        if opens { self.rest.contains("O_CREAT") } else { CHANGING.contains(&self.name.as_str()) }
    }
}

/// The calls in a log of `strace -f -qqq`.
pub(crate) fn calls(log: &Path) -> Result<Vec<Call>> {
    let text = std::fs::read_to_string(log)?;
    let mut counts = std::collections::BTreeMap::new();
    let mut calls = Vec::new();
    for line in text.lines() {
        // What goes on in a later line was counted where it began, and signals are no calls.
        let Some((_, call)) = line.split_once(' ') else { continue };
        let call = call.trim_start();
        if call.starts_with('<') || call.starts_with('+') || call.starts_with('-') {
            continue;
        }
        let (name, rest) = call.split_once('(').with_context(|| format!("no call: {line}"))?;
        let when = counts.entry(name.to_owned()).or_insert(0);
        *when += 1;
        calls.push(Call { name: name.to_owned(), when: *when, rest: rest.to_owned() });
    }
    Ok(calls)
}

/// A command in a mount namespace with a `/run` of its own, which goes with it however it ends.
pub(crate) fn with_own_run() -> Command {
    let mut command = Command::new("unshare");
    command
        .args(["--mount", "sh", "-ec", "mount -t tmpfs none /run; exec \"$@\"", "sh"])
        .env_remove("JOURNAL_STREAM")
        .stdin(Stdio::null());
    command
}

/// The binary under strace, which writes the calls of these kinds to `log`; all when there are none.
/// After each descriptor comes what it refers to.
pub(crate) fn traced(log: &Path, calls: &[&str]) -> Command {
    let mut command = with_own_run();
    command.args(["strace", "-f", "-qqq", "-y", "-s", "256", "-o"]).arg(log);
    if !calls.is_empty() {
        command.arg(format!("--trace={}", calls.join(",")));
    }
    command.arg(env!("CARGO_BIN_EXE_darlings"));
    command
}

/// The binary, with something done to the `when`th call of a kind.
pub(crate) fn injected(log: &Path, call: &str, what: &str, when: u32) -> Command {
    let mut command = with_own_run();
    command
        .args([OsStr::new("strace"), OsStr::new("-f"), OsStr::new("-qqq"), OsStr::new("-o")])
        .arg(log)
        .args(["-e", &format!("trace={call}")])
        .args(["-e", &format!("inject={call}:{what}:when={when}")])
        .arg(env!("CARGO_BIN_EXE_darlings"));
    command
}

/// Whether the call was made that something was to be done to.
pub(crate) fn happened(log: &Path) -> Result<bool> {
    let text = std::fs::read_to_string(log)?;
    Ok(text.contains("(INJECTED)") || text.contains("+++ killed by SIGKILL"))
}

/// The changing calls of a run of the binary, in their order.
pub(crate) fn changing(log: &Path) -> Result<Vec<Call>> {
    Ok(calls(log)?.into_iter().filter(Call::changes).collect())
}
