//! Datasets, snapshots, bookmarks and clones: listing, making and destroying them.

use crate::name::{self, Kind};
use crate::nvlist::{Data, List};
use crate::program::Program;
use crate::{Errno, Error, Properties, Zfs};

/// A snapshot of a dataset.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Snapshot {
    /// The part of the name after the `@`.
    pub name: String,
    /// The transaction group that it was taken in: the order in time of a dataset's snapshots,
    /// which no clock can disturb.
    pub createtxg: u64,
    /// Its identity, also in other pools that have received it.
    pub guid: u64,
    /// The bytes that destroying it, and it alone, would free.
    pub used: u64,
    /// The bytes that it can reach.
    pub referenced: u64,
    /// How many holds there are on it (`zfs hold`). Held, it cannot be destroyed.
    pub userrefs: u64,
    /// The datasets that are clones of it. With any, it cannot be destroyed.
    pub clones: Vec<String>,
}

/// A bookmark of a dataset: the memory of a snapshot, for incremental sends.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Bookmark {
    /// The part of the name after the `#`.
    pub name: String,
    /// The transaction group of the snapshot that it remembers.
    pub createtxg: u64,
    /// The identity of the snapshot that it remembers.
    pub guid: u64,
}

const SNAPSHOTS: &str = "
local args = ...
if not zfs.exists(args.name) then return { missing = true } end
local found = {}
for name in zfs.list.snapshots(args.name) do
    local clones = {}
    for clone in zfs.list.clones(name) do
        clones[#clones + 1] = clone
    end
    found[name] = {
        createtxg = zfs.get_prop(name, 'createtxg'),
        guid = zfs.get_prop(name, 'guid'),
        used = zfs.get_prop(name, 'used'),
        referenced = zfs.get_prop(name, 'referenced'),
        userrefs = zfs.get_prop(name, 'userrefs'),
        clones = clones,
    }
end
return { found = found }
";

const CHILDREN: &str = "
local args = ...
if not zfs.exists(args.name) then return { missing = true } end
local found = {}
for child in zfs.list.children(args.name) do
    found[#found + 1] = child
end
return { found = found }
";

const DEPENDENTS: &str = "
local args = ...
local found = {}
if not zfs.exists(args.name) then return { found = found } end
if args.snapshot then
    for clone in zfs.list.clones(args.name) do
        found[#found + 1] = clone
    end
else
    for snapshot in zfs.list.snapshots(args.name) do
        found[#found + 1] = snapshot
    end
    for child in zfs.list.children(args.name) do
        found[#found + 1] = child
    end
end
return { found = found }
";

const CHECK_SNAPSHOT: &str = "
local args = ...
return { errno = zfs.check.snapshot(args.name) }
";

impl Zfs {
    /// The snapshots of a dataset, oldest first.
    pub fn snapshots(&self, dataset: &str) -> Result<Vec<Snapshot>, Error> {
        name::check(Kind::Dataset, dataset)?;
        let program = Program::look("list the snapshots of", dataset, SNAPSHOTS);
        let answer = program.run(self, &List::new().with("name", dataset))?;
        program.check_exists(&answer)?;
        let found = answer.list("found").ok_or_else(|| program.unexpected("no list"))?;
        let mut snapshots = found
            .iter()
            .map(|(name, data)| {
                Snapshot::read(name, data)
                    .ok_or_else(|| program.unexpected(&format!("{name}: {data:?}")))
            })
            .collect::<Result<Vec<_>, _>>()?;
        snapshots.sort_by(|a, b| (a.createtxg, &a.name).cmp(&(b.createtxg, &b.name)));
        Ok(snapshots)
    }

    /// The bookmarks of a dataset, oldest first.
    pub fn bookmarks(&self, dataset: &str) -> Result<Vec<Bookmark>, Error> {
        const OPERATION: &str = "list the bookmarks of";
        name::check(Kind::Dataset, dataset)?;
        // Not a channel program: there, properties of bookmarks cannot be read.
        let wanted = List::new().with("createtxg", Data::Flag).with("guid", Data::Flag);
        let (result, answer) = self.core.bookmarks(&name::c_string(dataset)?, &wanted);
        result.map_err(|errno| Error::from_errno(OPERATION, dataset, errno))?;
        let mut bookmarks = answer
            .unwrap_or_default()
            .iter()
            .map(|(name, data)| {
                Bookmark::read(name, data).ok_or_else(|| Error::UnexpectedAnswer {
                    operation: OPERATION,
                    name: dataset.to_owned(),
                    what: format!("{name}: {data:?}"),
                })
            })
            .collect::<Result<Vec<_>, _>>()?;
        bookmarks.sort_by(|a, b| (a.createtxg, &a.name).cmp(&(b.createtxg, &b.name)));
        Ok(bookmarks)
    }

    /// The datasets right below a dataset, by their full names, sorted.
    pub fn children(&self, dataset: &str) -> Result<Vec<String>, Error> {
        name::check(Kind::Dataset, dataset)?;
        let program = Program::look("list the datasets below", dataset, CHILDREN);
        let answer = program.run(self, &List::new().with("name", dataset))?;
        program.check_exists(&answer)?;
        let mut children =
            answer.array("found").ok_or_else(|| program.unexpected(&format!("{answer:?}")))?;
        children.sort_unstable();
        Ok(children)
    }

    /// Takes snapshots (full names, all in one pool) in one transaction group, with these user
    /// properties on each. All or none. On disk when this returns.
    pub fn snapshot(&self, snapshots: &[&str], properties: &Properties) -> Result<(), Error> {
        const OPERATION: &str = "take the snapshot";
        let mut names = List::new();
        for snapshot in snapshots {
            name::check(Kind::Snapshot, snapshot)?;
            names.insert(snapshot, Data::Flag);
        }
        let (result, failed) = self.core.snapshot(&names, &properties.to_list());
        result.map_err(|errno| {
            let first = snapshots.first().copied().unwrap_or_default();
            let (name, errno) = first_failure(failed.as_ref()).unwrap_or((first, errno));
            Error::from_errno(OPERATION, name, errno)
        })
    }

    /// Whether [`Zfs::snapshot`] would take this one now: by a `refreservation`, ZFS demands room for as
    /// much again as the dataset takes. Changes nothing, but waits for a transaction group, since
    /// ZFS looks only there.
    pub fn check_snapshot(&self, snapshot: &str) -> Result<(), Error> {
        name::check(Kind::Snapshot, snapshot)?;
        let program = Program::sync("take the snapshot", snapshot, CHECK_SNAPSHOT);
        program.change(self, &List::new().with("name", snapshot))
    }

    /// Makes a dataset that is a clone of a snapshot, with these properties.
    ///
    /// ZFS makes the clone in one transaction group and sets the properties in later ones: after
    /// a power cut in between it is there without them. When setting them fails, ZFS destroys it
    /// again. On disk when this returns.
    pub fn clone(&self, origin: &str, dataset: &str, properties: &Properties) -> Result<(), Error> {
        name::check(Kind::Snapshot, origin)?;
        name::check(Kind::Dataset, dataset)?;
        let result = self.core.clone(
            &name::c_string(dataset)?,
            &name::c_string(origin)?,
            &properties.to_list(),
        );
        result.map_err(|errno| match errno {
            // ZFS does not say which of the two is missing.
            Errno::NOENT => match self.exists(origin) {
                Ok(false) => Error::from_errno("clone", origin, errno),
                Ok(true) => Error::from_errno("make the clone below", parent(dataset), errno),
                Err(error) => error,
            },
            _ => Error::from_errno("make the clone", dataset, errno),
        })
    }

    /// Destroys a dataset or a snapshot, and nothing below it. What a dataset holds is freed in
    /// the background.
    pub fn destroy(&self, name: &str) -> Result<(), Error> {
        const OPERATION: &str = "destroy";
        name::check(Kind::DatasetOrSnapshot, name)?;
        self.core.destroy(&name::c_string(name)?).map_err(|errno| match errno {
            // A dataset with snapshots is EBUSY, with children EEXIST, a snapshot with clones
            // EEXIST: the number alone does not tell what is in the way.
            Errno::BUSY | Errno::EXIST => match self.dependents(name) {
                Ok(dependents) if dependents.is_empty() => {
                    Error::from_errno(OPERATION, name, Errno::BUSY)
                }
                Ok(dependents) => {
                    Error::HasDependents { operation: OPERATION, name: name.to_owned(), dependents }
                }
                Err(error) => error,
            },
            _ => Error::from_errno(OPERATION, name, errno),
        })
    }

    /// Destroys bookmarks (full names, all in one pool). All or none; those that are not there
    /// are no error.
    pub(crate) fn destroy_bookmarks(&self, bookmarks: &[String]) -> Result<(), Error> {
        let mut names = List::new();
        for bookmark in bookmarks {
            names.insert(bookmark, Data::Flag);
        }
        let (result, failed) = self.core.destroy_bookmarks(&names);
        result.map_err(|errno| {
            let first = bookmarks.first().map_or("", String::as_str);
            let (name, errno) = first_failure(failed.as_ref()).unwrap_or((first, errno));
            Error::from_errno("destroy the bookmark", name, errno)
        })
    }

    fn dependents(&self, name: &str) -> Result<Vec<String>, Error> {
        let program = Program::look("list what depends on", name, DEPENDENTS);
        let arguments = List::new().with("name", name).with("snapshot", name.contains('@'));
        let answer = program.run(self, &arguments)?;
        let mut found =
            answer.array("found").ok_or_else(|| program.unexpected(&format!("{answer:?}")))?;
        found.sort_unstable();
        Ok(found)
    }
}

impl Snapshot {
    fn read(full_name: &str, data: &Data) -> Option<Self> {
        let Data::List(list) = data else { return None };
        let mut clones = list.array("clones")?;
        clones.sort_unstable();
        Some(Self {
            name: full_name.split_once('@')?.1.to_owned(),
            createtxg: list.number("createtxg")?,
            guid: list.number("guid")?,
            used: list.number("used")?,
            referenced: list.number("referenced")?,
            userrefs: list.number("userrefs")?,
            clones,
        })
    }
}

impl Bookmark {
    /// Each property is a list of its own: `{ createtxg = { value = 4 } }`.
    fn read(name: &str, data: &Data) -> Option<Self> {
        let Data::List(list) = data else { return None };
        let number = |property| list.list(property)?.number("value");
        Some(Self { name: name.to_owned(), createtxg: number("createtxg")?, guid: number("guid")? })
    }
}

/// The first entry of a list of what failed, each with its error number.
fn first_failure(failed: Option<&List>) -> Option<(&str, Errno)> {
    failed?.iter().find_map(|(name, data)| match data {
        Data::Signed(errno) => Some((name, Errno::from_raw(i32::try_from(*errno).ok()?))),
        _ => None,
    })
}

fn parent(dataset: &str) -> &str {
    dataset.rsplit_once('/').map_or(dataset, |(parent, _)| parent)
}

#[cfg(test)]
mod tests {
    use super::{Bookmark, Snapshot, first_failure};
    use crate::Errno;
    use crate::nvlist::{Data, List};

    #[test]
    fn a_snapshot_is_read_with_a_guid_that_lua_made_negative() {
        let clones = List::new().with("1", "rpool/b").with("2", "rpool/a");
        let list = List::new()
            .with("createtxg", Data::Signed(7))
            .with("guid", Data::Signed(-2))
            .with("used", Data::Signed(0))
            .with("referenced", Data::Signed(24576))
            .with("userrefs", Data::Signed(1))
            .with("clones", clones);
        assert_eq!(
            Snapshot::read("rpool/root@blank", &Data::List(list)),
            Some(Snapshot {
                name: "blank".into(),
                createtxg: 7,
                guid: u64::MAX - 1,
                used: 0,
                referenced: 24576,
                userrefs: 1,
                clones: vec!["rpool/a".into(), "rpool/b".into()],
            })
        );
    }

    #[test]
    fn a_bookmark_is_read_from_its_nested_properties() {
        let value = |number| List::new().with("value", Data::Unsigned(number));
        let list = List::new().with("createtxg", value(9)).with("guid", value(u64::MAX));
        assert_eq!(
            Bookmark::read("mark", &Data::List(list)),
            Some(Bookmark { name: "mark".into(), createtxg: 9, guid: u64::MAX })
        );
    }

    #[test]
    fn a_list_of_failures_gives_the_name_and_the_error_of_the_first() {
        let failed =
            List::new().with("N_MORE_ERRORS", Data::Flag).with("rpool/root@a", Data::Signed(17));
        assert_eq!(first_failure(Some(&failed)), Some(("rpool/root@a", Errno::EXIST)));
        assert_eq!(first_failure(None), None);
    }
}
