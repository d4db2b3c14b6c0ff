//! The kernel command line: what a person asked for in the boot menu, and how the root is mounted.
//!
//! It is taken apart as the kernel does it (`next_arg` in `lib/cmdline.c`), all of it: words after a
//! `--`, which the kernel leaves to init, count too. Somebody who writes `darlings=off` at the end of
//! the line means it.

use std::ffi::OsStr;
use std::fmt;
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Component, Path, PathBuf};

use anyhow::Context as _;

use crate::text::exact_number;

/// Where the kernel shows it.
pub const DEFAULT_PATH: &str = "/proc/cmdline";

/// What a run is to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Asked {
    /// Reset, since nobody asked for anything else.
    #[default]
    Reset,
    /// Complete what an interrupted run has left half done, and nothing else.
    Off,
    /// Keep a generation of every volume, and erase nothing.
    Snapshot,
    /// Make every volume what a generation was.
    Restore(Which),
}

/// A generation that is asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Which {
    /// The newest one.
    Previous,
    /// The one with this number.
    Number(u64),
}

impl Asked {
    fn parse(value: &str) -> Option<Self> {
        match value {
            "off" => Some(Self::Off),
            "snapshot" => Some(Self::Snapshot),
            "restore:previous" => Some(Self::Restore(Which::Previous)),
            _ => exact_number(value.strip_prefix("restore:")?)
                .map(|number| Self::Restore(Which::Number(number))),
        }
    }

    /// Whether a restore of generation `number` is what is asked for.
    #[must_use]
    pub fn is_restore_of(self, number: u64) -> bool {
        match self {
            Self::Restore(Which::Previous) => true,
            Self::Restore(Which::Number(asked)) => asked == number,
            Self::Reset | Self::Off | Self::Snapshot => false,
        }
    }
}

impl fmt::Display for Asked {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Reset => f.write_str("reset"),
            Self::Off => f.write_str("off"),
            Self::Snapshot => f.write_str("snapshot"),
            Self::Restore(Which::Previous) => f.write_str("restore:previous"),
            Self::Restore(Which::Number(number)) => write!(f, "restore:{number}"),
        }
    }
}

impl serde::Serialize for Asked {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

/// A word that looks like one of ours and is none. A typo in a boot menu must not erase.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UnknownWord(String);

impl fmt::Display for UnknownWord {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "the kernel command line says {:?}, which means nothing; valid are darlings=off, \
             darlings=snapshot, darlings=restore:previous, and darlings=restore:N with the number \
             of a generation. Correct it, or remove it for a reset",
            self.0
        )
    }
}

impl std::error::Error for UnknownWord {}

/// One parameter: its name, and what follows the `=` if there is one.
type Parameter = (Vec<u8>, Option<Vec<u8>>);

/// The kernel command line.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CommandLine {
    parameters: Vec<Parameter>,
}

impl CommandLine {
    /// Reads it from a file.
    ///
    /// # Errors
    /// It cannot be read, so that nobody knows what was asked for.
    pub fn read(path: &Path) -> anyhow::Result<Self> {
        let text = std::fs::read(path)
            .with_context(|| format!("cannot read the kernel command line {path:?}"))?;
        Ok(Self::parse(&text))
    }

    /// Takes a line apart.
    #[must_use]
    pub fn parse(mut line: &[u8]) -> Self {
        let mut parameters = Vec::new();
        loop {
            let spaces = line.iter().take_while(|&&byte| is_space(byte)).count();
            line = &line[spaces..];
            if line.is_empty() {
                return Self { parameters };
            }
            let (parameter, rest) = next(line);
            parameters.push(parameter);
            line = rest;
        }
    }

    /// What is asked for: the last of our words counts, since a boot menu's words are appended to
    /// those of the configuration.
    ///
    /// # Errors
    /// The last one is none that we know.
    pub fn asked(&self) -> Result<Asked, UnknownWord> {
        let Some((name, value)) = self.parameters.iter().rfind(|(name, _)| is_meant(name)) else {
            return Ok(Asked::Reset);
        };
        let value = value.as_deref().map(String::from_utf8_lossy);
        let known = if name == NAME { value.as_deref().and_then(Asked::parse) } else { None };
        known.ok_or_else(|| {
            let name = String::from_utf8_lossy(name);
            UnknownWord(value.map_or_else(|| name.to_string(), |value| format!("{name}={value}")))
        })
    }

    /// The id of the btrfs subvolume that the root is mounted by, if it is mounted by one.
    #[must_use]
    pub fn root_subvolid(&self) -> Option<u64> {
        self.root_flags(b"subvolid=")
            .filter_map(|id| std::str::from_utf8(id).ok())
            .filter_map(kernel_number)
            .next_back()
    }

    /// The path, from the top level, of the btrfs subvolume that the root is mounted by, if it is
    /// mounted by one: normal, and relative as the configuration has it.
    #[must_use]
    pub fn root_subvolume(&self) -> Option<PathBuf> {
        let named = self.root_flags(b"subvol=").rfind(|path| !path.is_empty())?;
        let mut normal = PathBuf::new();
        for component in Path::new(OsStr::from_bytes(named)).components() {
            match component {
                Component::Normal(name) => normal.push(name),
                // There is nothing above the top level.
                Component::ParentDir => drop(normal.pop()),
                Component::RootDir | Component::CurDir | Component::Prefix(_) => {}
            }
        }
        Some(normal)
    }

    /// The values of a mount option of the root, in order. systemd joins the flags of several
    /// `rootflags=`, and of several options the filesystem takes the last.
    fn root_flags<'l>(&'l self, option: &'l [u8]) -> impl DoubleEndedIterator<Item = &'l [u8]> {
        self.values(b"rootflags")
            .flat_map(|flags| flags.split(|&byte| byte == b','))
            .filter_map(move |flag| flag.strip_prefix(option))
    }

    /// The ZFS dataset that the root is, if the line names one (`dracut.zfs(7)`; `zfs=` is what
    /// mkinitcpio's hook reads). A pool alone leaves it to the pool's `bootfs`, as `zfs:AUTO` does.
    #[must_use]
    pub fn root_dataset(&self) -> Option<String> {
        let last = |name| self.values(name).rfind(|value| !value.is_empty());
        let dataset = if let Some(dataset) = last(b"zfs") {
            dataset
        } else {
            let root = last(b"root")?;
            let of_zfs = || last(b"rootfstype") == Some(b"zfs");
            root.strip_prefix(b"zfs:")
                .or_else(|| root.strip_prefix(b"ZFS="))
                .or_else(|| of_zfs().then_some(root))?
        };
        // A plus stands for a space, which a dataset's name may have and the line may not.
        let dataset = String::from_utf8_lossy(dataset).replace('+', " ");
        let is_device = dataset.starts_with('/') || dataset.contains('=');
        (dataset.contains('/') && !is_device).then_some(dataset)
    }

    fn values<'l>(&'l self, name: &'l [u8]) -> impl DoubleEndedIterator<Item = &'l [u8]> {
        let named = self.parameters.iter().filter(move |(given, _)| given == name);
        named.filter_map(|(_, value)| value.as_deref())
    }
}

const NAME: &[u8] = b"darlings";

/// Whether somebody who wrote this name meant us: `darlings`, `Darlings`, `darlings.off`. Not
/// `darlings_x`, which is somebody else's.
fn is_meant(name: &[u8]) -> bool {
    let Some((head, tail)) = name.split_at_checked(NAME.len()) else { return false };
    let goes_on = |byte: &u8| byte.is_ascii_alphanumeric() || *byte == b'_' || !byte.is_ascii();
    head.eq_ignore_ascii_case(NAME) && !tail.first().is_some_and(goes_on)
}

/// A number as the kernel takes it in a mount option (`kstrtoull`): in C's notation.
fn kernel_number(text: &str) -> Option<u64> {
    let (digits, radix) = match text.strip_prefix("0x").or_else(|| text.strip_prefix("0X")) {
        Some(digits) => (digits, 16),
        None if text.len() > 1 && text.starts_with('0') => (text, 8),
        None => (text, 10),
    };
    // What is no number is the kernel's to refuse.
    let Ok(number) = u64::from_str_radix(digits, radix) else { return None };
    Some(number)
}

/// The kernel's `isspace`, which takes the no-break space of Latin-1 for one.
fn is_space(byte: u8) -> bool {
    matches!(byte, b' ' | b'\t'..=b'\r' | 0xa0)
}

/// The first parameter of a line that begins with one, and what follows it.
fn next(line: &[u8]) -> (Parameter, &[u8]) {
    let quoted = line.first() == Some(&b'"');
    let line = if quoted { &line[1..] } else { line };
    let (mut in_quotes, mut equals, mut end) = (quoted, None, line.len());
    for (index, &byte) in line.iter().enumerate() {
        if is_space(byte) && !in_quotes {
            end = index;
            break;
        }
        // One that begins the word is part of the name.
        if byte == b'=' && index > 0 && equals.is_none() {
            equals = Some(index);
        }
        if byte == b'"' {
            in_quotes = !in_quotes;
        }
    }
    let (word, rest) = line.split_at(end);
    let unquoted = |text: &[u8]| text.strip_suffix(b"\"").unwrap_or(text).to_vec();
    let (name, value) = match equals {
        None => (if quoted { unquoted(word) } else { word.to_vec() }, None),
        Some(equals) => {
            let (name, value) = (&word[..equals], &word[equals + 1..]);
            let value = match value.strip_prefix(b"\"") {
                Some(value) => unquoted(value),
                None if quoted => unquoted(value),
                None => value.to_vec(),
            };
            (name.to_vec(), Some(value))
        }
    };
    ((name, value), rest)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn asked(line: &str) -> Result<Asked, String> {
        CommandLine::parse(line.as_bytes()).asked().map_err(|UnknownWord(word)| word)
    }

    fn words(line: &str) -> Vec<(String, Option<String>)> {
        let text = |bytes: Vec<u8>| String::from_utf8_lossy(&bytes).into_owned();
        let parameters = CommandLine::parse(line.as_bytes()).parameters.into_iter();
        parameters.map(|(name, value)| (text(name), value.map(text))).collect()
    }

    #[test]
    fn without_a_word_of_ours_it_is_a_reset() {
        for line in [
            "",
            "\n",
            "quiet root=/dev/vda1 rw\n",
            "darlings_vm.modules=zfs",
            "nodarlings=off",
            "x=darlings=off",
            "root=\"a darlings=off b\"",
            "darlingsx=off",
        ] {
            assert_eq!(asked(line), Ok(Asked::Reset), "{line:?}");
        }
    }

    #[test]
    fn each_word_is_what_it_says() {
        for (line, expected) in [
            ("darlings=off", Asked::Off),
            ("quiet darlings=snapshot rw\n", Asked::Snapshot),
            ("a darlings=restore:previous", Asked::Restore(Which::Previous)),
            ("darlings=restore:7", Asked::Restore(Which::Number(7))),
            ("darlings=restore:18446744073709551615", Asked::Restore(Which::Number(u64::MAX))),
            ("darlings=\"off\"", Asked::Off),
            ("\"darlings=off\" quiet", Asked::Off),
            ("\tdarlings=off\t", Asked::Off),
            ("quiet -- darlings=off", Asked::Off),
        ] {
            assert_eq!(asked(line), Ok(expected), "{line:?}");
            assert_eq!(
                asked(&format!("darlings={expected}")),
                Ok(expected),
                "{expected} as it is told"
            );
        }
    }

    #[test]
    fn of_several_words_the_last_counts() {
        assert_eq!(
            asked("darlings=off darlings=restore:3 x"),
            Ok(Asked::Restore(Which::Number(3)))
        );
        assert_eq!(asked("darlings=of darlings=off"), Ok(Asked::Off));
        assert_eq!(asked("darlings=off darlings=of"), Err("darlings=of".into()));
    }

    #[test]
    fn what_looks_like_our_word_and_is_none_is_refused_and_not_a_reset() {
        for (line, word) in [
            ("darlings=of", "darlings=of"),
            ("darlings=", "darlings="),
            ("darlings", "darlings"),
            ("darlings off", "darlings"),
            ("Darlings=off", "Darlings=off"),
            ("darlings=Off", "darlings=Off"),
            ("darlings.off", "darlings.off"),
            ("darlings:restore=7", "darlings:restore=7"),
            ("darlings-off", "darlings-off"),
            ("darlings=restore", "darlings=restore"),
            ("darlings=restore:", "darlings=restore:"),
            ("darlings=restore:-1", "darlings=restore:-1"),
            ("darlings=restore:07", "darlings=restore:07"),
            ("darlings=restore:+7", "darlings=restore:+7"),
            ("darlings=restore:7x", "darlings=restore:7x"),
            ("darlings=restore=7", "darlings=restore=7"),
            ("darlings=restore:18446744073709551616", "darlings=restore:18446744073709551616"),
            ("darlings=\"restore: 7\"", "darlings=restore: 7"),
            ("darlings=off,snapshot", "darlings=off,snapshot"),
        ] {
            assert_eq!(asked(line), Err(word.into()), "{line:?}");
        }
        let not_text = CommandLine::parse(b"darlings=o\xff").asked();
        assert_eq!(not_text, Err(UnknownWord("darlings=o\u{fffd}".into())));
        assert_eq!(
            UnknownWord("darlings=of".into()).to_string(),
            "the kernel command line says \"darlings=of\", which means nothing; valid are \
             darlings=off, darlings=snapshot, darlings=restore:previous, and darlings=restore:N \
             with the number of a generation. Correct it, or remove it for a reset"
        );
    }

    #[test]
    fn quotes_are_the_kernels() {
        let pair = |name: &str, value: &str| (name.to_owned(), Some(value.to_owned()));
        let alone = |name: &str| (name.to_owned(), None);
        assert_eq!(words("a=\"b c\" d"), [pair("a", "b c"), alone("d")]);
        assert_eq!(words("\"a=b c\" d"), [pair("a", "b c"), alone("d")]);
        assert_eq!(words("\"a b\" d"), [alone("a b"), alone("d")]);
        assert_eq!(words("a=b\"c d\"e"), [pair("a", "b\"c d\"e")]);
        assert_eq!(words("a=\"b c"), [pair("a", "b c")]);
        assert_eq!(words("a=\""), [pair("a", "")]);
        assert_eq!(words("=a=b ="), [pair("=a", "b"), alone("=")]);
        assert_eq!(words("a=b=c\u{b}d"), [pair("a", "b=c"), alone("d")]);
    }

    #[test]
    fn the_root_is_mounted_by_number_only_where_the_line_says_so() {
        let id = |line: &str| CommandLine::parse(line.as_bytes()).root_subvolid();
        assert_eq!(id("rootflags=subvol=@ subvolid=5"), None);
        assert_eq!(id("rootflags=rw,subvolid=257"), Some(257));
        assert_eq!(id("rootflags=\"subvolid=257 \" x"), None);
        assert_eq!(id("rootflags=subvolid=0x101"), Some(257));
        assert_eq!(id("rootflags=subvolid=0401"), Some(257));
        assert_eq!(id("rootflags=subvolid=5 rootflags=subvolid=258"), Some(258));
    }

    #[test]
    fn the_subvolume_of_the_root_is_read_in_every_spelling() {
        for (line, expected) in [
            ("root=/dev/vda rw", None),
            ("subvol=@", None),
            ("rootflags=", None),
            ("rootflags=subvol=", None),
            ("rootflags=subvolid=257", None),
            ("rootflags=xsubvol=@", None),
            ("rootflags=subvol=@", Some("@")),
            ("rootflags=subvol=/@", Some("@")),
            ("rootflags=subvol=//@/./", Some("@")),
            ("rootflags=subvol=@snapshots/5", Some("@snapshots/5")),
            ("rootflags=noatime,subvol=/@snapshots/5 ro", Some("@snapshots/5")),
            ("rootflags=degraded,subvol=@snapshots/5,compress=zstd", Some("@snapshots/5")),
            ("rootflags=subvol=@snapshots/../@", Some("@")),
            ("rootflags=subvol=/", Some("")),
            ("rootflags=\"subvol=@my root,ro\" x", Some("@my root")),
            ("\"rootflags=subvol=@my root\"", Some("@my root")),
            ("rootflags=subvol=@,subvol=@snapshots/5", Some("@snapshots/5")),
            ("rootflags=subvol=@snapshots/5 rootflags=subvol=@", Some("@")),
            ("rootflags=subvol=@ rootflags=noatime", Some("@")),
        ] {
            let root = CommandLine::parse(line.as_bytes()).root_subvolume();
            assert_eq!(root.as_deref(), expected.map(Path::new), "{line:?}");
        }
    }

    #[test]
    fn the_dataset_of_the_root_is_read_in_every_spelling() {
        for (line, expected) in [
            ("root=/dev/vda rw", None),
            ("root=UUID=1/2 rootfstype=zfs", None),
            ("root=zfs", None),
            ("root=zfs:AUTO", None),
            ("root=zfs:rpool", None),
            ("zfs=bootfs", None),
            ("root=rpool/root", None),
            ("root=rpool/root rootfstype=ext4", None),
            ("root=rpool/root rootfstype=zfs", Some("rpool/root")),
            ("rootfstype=zfs root=rpool/root", Some("rpool/root")),
            ("root=zfs:rpool/root", Some("rpool/root")),
            ("root=ZFS=rpool/root", Some("rpool/root")),
            ("root=ZFS=rpool/my+root", Some("rpool/my root")),
            ("root=zfs:rpool/root@good", Some("rpool/root@good")),
            ("zfs=rpool/root rw", Some("rpool/root")),
            ("zfs=rpool/a root=/dev/vda", Some("rpool/a")),
            ("zfs.zfs_arc_max=1 root=zfs:rpool/root", Some("rpool/root")),
            ("root=zfs:rpool/a root=zfs:rpool/b", Some("rpool/b")),
            ("root=zfs:rpool/a root=/dev/vda", None),
        ] {
            let root = CommandLine::parse(line.as_bytes()).root_dataset();
            assert_eq!(root.as_deref(), expected, "{line:?}");
        }
    }
}
