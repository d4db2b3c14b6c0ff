//! Which pools are imported, and how they are: what the kernel shows below
//! /proc/spl/kstat/zfs. Needs no library and no privilege.

use std::fs;
use std::io;
use std::path::Path;

use crate::{Errno, Error, Zfs, name, name::Kind, nvlist::List, program::Program};

const KSTATS: &str = "/proc/spl/kstat/zfs";

/// The state of an imported pool.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum PoolState {
    /// All is well.
    Online,
    /// Some devices are missing or failing, and redundancy makes up for them.
    Degraded,
    /// Too many devices are missing or failing.
    Faulted,
    /// ZFS has stopped all input and output until `zpool clear`.
    Suspended,
    /// Any other, in the kernel's words.
    Other(String),
}

impl From<&str> for PoolState {
    fn from(state: &str) -> Self {
        match state {
            "ONLINE" => Self::Online,
            "DEGRADED" => Self::Degraded,
            "FAULTED" => Self::Faulted,
            "SUSPENDED" => Self::Suspended,
            other => Self::Other(other.to_owned()),
        }
    }
}

impl std::fmt::Display for PoolState {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Online => "ONLINE",
            Self::Degraded => "DEGRADED",
            Self::Faulted => "FAULTED",
            Self::Suspended => "SUSPENDED",
            Self::Other(other) => other,
        })
    }
}

/// The names of the imported pools, sorted. None when the module is not loaded.
pub fn imported_pools() -> Result<Vec<String>, Error> {
    pools_in(Path::new(KSTATS))
}

/// The state of `pool`, or `None` when it is not imported.
pub fn pool_state(pool: &str) -> Result<Option<PoolState>, Error> {
    name::check(Kind::Pool, pool)?;
    state_in(Path::new(KSTATS), pool)
}

impl Zfs {
    /// Waits until everything that was done to `pool` so far is on disk.
    pub fn sync_pool(&self, pool: &str) -> Result<(), Error> {
        const OPERATION: &str = "sync";
        name::check(Kind::Pool, pool)?;
        self.core.sync(&name::c_string(pool)?).map_err(|errno| match errno {
            Errno::NOENT => {
                Error::PoolMissing { operation: OPERATION, name: pool.into(), pool: pool.into() }
            }
            _ => Error::from_errno(OPERATION, pool, errno),
        })
    }

    /// Fails unless channel programs run on `pool`, with the reason: [`Error::PoolMissing`],
    /// [`Error::PoolReadOnly`] or [`Error::PoolSuspended`]. For looking before leaping.
    pub fn check_pool(&self, pool: &str) -> Result<(), Error> {
        name::check(Kind::Pool, pool)?;
        let program = Program::look("use", pool, "return {}");
        program.run(self, &List::new()).map(drop)
    }
}

fn pools_in(kstats: &Path) -> Result<Vec<String>, Error> {
    let failed = |error: io::Error| path_error("list", kstats, &error);
    let entries = match fs::read_dir(kstats) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(failed(error)),
    };
    let mut pools = Vec::new();
    for entry in entries {
        let entry = entry.map_err(failed)?;
        // Beside the pools' directories stand the module's own files, such as `arcstats`.
        if !entry.file_type().map_err(failed)?.is_dir() {
            continue;
        }
        // A pool's name is ASCII; what is not is none.
        if let Ok(pool) = entry.file_name().into_string()
            && state_in(kstats, &pool)?.is_some()
        {
            pools.push(pool);
        }
    }
    pools.sort_unstable();
    Ok(pools)
}

fn state_in(kstats: &Path, pool: &str) -> Result<Option<PoolState>, Error> {
    let path = kstats.join(pool).join("state");
    match fs::read_to_string(&path) {
        Ok(state) => Ok(Some(PoolState::from(state.trim_end()))),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(path_error("read", &path, &error)),
    }
}

fn path_error(operation: &'static str, path: &Path, error: &io::Error) -> Error {
    // An error without a number is one of decoding what should be a word in ASCII.
    let source = error.raw_os_error().map_or(Errno::INVAL, Errno::from_raw);
    Error::Path { operation, path: path.to_owned(), source }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::{PoolState, pool_state, pools_in, state_in};

    #[test]
    fn without_the_module_no_pool_is_imported() -> Result<(), crate::Error> {
        let nowhere = Path::new("/proc/spl/kstat/no-such-thing");
        assert_eq!(pools_in(nowhere)?, Vec::<String>::new());
        assert_eq!(state_in(nowhere, "rpool")?, None);
        Ok(())
    }

    #[test]
    fn a_state_that_nobody_has_heard_of_keeps_its_word() {
        assert_eq!(PoolState::from("SUSPENDED"), PoolState::Suspended);
        assert_eq!(PoolState::from("MOLTEN"), PoolState::Other("MOLTEN".to_owned()));
        assert_eq!(PoolState::from("MOLTEN").to_string(), "MOLTEN");
    }

    #[test]
    fn a_pool_cannot_be_named_out_of_the_directory() {
        assert_eq!(
            pool_state("..").err().map(|error| error.to_string()).as_deref(),
            Some("\"..\" is not the name of a pool (like \"rpool\")")
        );
    }
}
