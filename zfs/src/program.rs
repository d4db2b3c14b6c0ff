//! Channel programs: Lua that the kernel runs over a pool (zfs-program(8)).
//!
//! They read properties and lists in one call and without races, and they are the only way to
//! make several changes in one transaction group. Arguments and results are name-value lists.
//!
//! ZFS writes each into the history of the pool (`zpool history -i`), with its text, its arguments
//! and its answer, also when it only looks. That is the one thing that a look leaves on disk, and
//! the reason why [`compact`] takes the comments out.

use crate::ffi::Mode;
use crate::nvlist::{Data, List};
use crate::{Errno, Error, Zfs, name};

/// The most that ZFS allows (`zfs_lua_max_instrlimit`); the default is a tenth.
const INSTRUCTIONS: u64 = 100_000_000;

/// For the program's memory, and the size of the answer. The default, 10 MiB, is used up by some
/// ten thousand snapshots. The library allocates this much for the answer, but touches only
/// what is filled.
const MEMORY: u64 = 64 << 20;

/// A program, what it does, and what to: for messages.
#[derive(Clone, Copy)]
pub(crate) struct Program<'a> {
    operation: &'static str,
    /// The dataset or snapshot that it is about, which says the pool as well.
    name: &'a str,
    source: &'static str,
    mode: Mode,
}

impl<'a> Program<'a> {
    /// A program that changes nothing. It runs at once.
    pub(crate) fn look(operation: &'static str, name: &'a str, source: &'static str) -> Self {
        Self { operation, name, source, mode: Mode::Look }
    }

    /// A program that may change things. Returns when that is on disk.
    pub(crate) fn sync(operation: &'static str, name: &'a str, source: &'static str) -> Self {
        Self { operation, name, source, mode: Mode::Sync }
    }

    /// Runs the program. It must return a table.
    pub(crate) fn run(self, zfs: &Zfs, arguments: &List) -> Result<List, Error> {
        let pool = name::pool(self.name);
        let limits = (INSTRUCTIONS, MEMORY);
        let (result, answer) = zfs.core.channel_program(
            &name::c_string(pool)?,
            &name::c_string(&compact(self.source))?,
            self.mode,
            limits,
            arguments,
        );
        match result {
            Ok(()) => {
                answer.as_ref().and_then(|answer| answer.list("return")).cloned().ok_or_else(|| {
                    self.unexpected(&format!("no table was returned, but {answer:?}"))
                })
            }
            Err(errno) => Err(self.failure(pool, errno, answer.as_ref())),
        }
    }

    /// Fails if the program found that what it is about does not exist.
    pub(crate) fn check_exists(self, answer: &List) -> Result<(), Error> {
        match answer.boolean("missing") {
            Some(true) => Err(Error::from_errno(self.operation, self.name, Errno::NOENT)),
            _ => Ok(()),
        }
    }

    /// Runs a program that makes one change and returns its `errno`.
    pub(crate) fn change(self, zfs: &Zfs, arguments: &List) -> Result<(), Error> {
        let answer = self.run(zfs, arguments)?;
        self.check_exists(&answer)?;
        match answer.number("errno").map(i32::try_from) {
            Some(Ok(0)) => Ok(()),
            Some(Ok(errno)) => {
                Err(Error::from_errno(self.operation, self.name, Errno::from_raw(errno)))
            }
            _ => Err(self.unexpected(&format!("{answer:?}"))),
        }
    }

    /// The error for an answer that is not as it must be.
    pub(crate) fn unexpected(self, what: &str) -> Error {
        Error::UnexpectedAnswer {
            operation: self.operation,
            name: self.name.to_owned(),
            what: what.to_owned(),
        }
    }

    fn failure(self, pool: &str, errno: Errno, answer: Option<&List>) -> Error {
        let (operation, name) = (self.operation, self.name.to_owned());
        let message = match answer.and_then(|answer| answer.get("error")) {
            Some(Data::Text(message)) => Some(message.clone()),
            Some(other) => Some(format!("{other:?}")),
            None => None,
        };
        match (errno, message) {
            // The ioctl itself failed, before the program: that is about the pool.
            (Errno::NOENT, None) => Error::PoolMissing { operation, name, pool: pool.to_owned() },
            (Errno::AGAIN | Errno::ROFS | Errno::PERM, None) => {
                Error::from_errno(operation, self.name, errno)
            }
            (_, Some(message)) => Error::ChannelProgram { operation, name, message, source: errno },
            (_, None) => {
                let message = match errno {
                    Errno::NOSPC => "the channel program ran out of memory",
                    Errno::NOMEM => "the channel program's answer is too large",
                    Errno::TIME => "the channel program ran for too long",
                    _ => "the channel program failed and did not say why",
                };
                Error::ChannelProgram { operation, name, message: message.into(), source: errno }
            }
        }
    }
}

/// A program without its comments, its indentation and its blank lines.
fn compact(source: &str) -> String {
    let lines = source.lines().map(str::trim).filter(|line| !line.is_empty());
    lines.filter(|line| !line.starts_with("--")).flat_map(|line| [line, "\n"]).collect()
}

#[cfg(test)]
mod tests {
    use super::compact;

    #[test]
    fn the_history_of_the_pool_gets_programs_without_comments() {
        assert_eq!(
            compact("\n-- why\nif a then\n    b() -- how\nend\n"),
            "if a then\nb() -- how\nend\n"
        );
    }
}
