//! Properties of datasets and snapshots: reading them, setting user properties, and the set of
//! them that a clone is made with.

use std::collections::BTreeMap;

use crate::name::{self, Kind};
use crate::nvlist::{Data, List};
use crate::program::Program;
use crate::{Error, Zfs};

/// The value of a property.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Value {
    /// Text; so are the ones with a fixed set of values (`canmount`, `type`, ...).
    Text(String),
    /// A number: sizes in bytes, times in seconds, transaction groups, guids.
    Number(u64),
}

impl Value {
    /// The text, if it is one.
    #[must_use]
    pub fn as_text(&self) -> Option<&str> {
        match self {
            Self::Text(text) => Some(text),
            Self::Number(_) => None,
        }
    }

    /// The number, if it is one.
    #[must_use]
    pub fn as_number(&self) -> Option<u64> {
        match self {
            Self::Text(_) => None,
            Self::Number(number) => Some(*number),
        }
    }
}

/// Where a property has its value from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Source {
    /// It was set on this dataset.
    Local,
    /// It was set on this dataset above.
    Inherited(String),
    /// It came with `zfs receive`.
    Received,
    /// Nobody set it.
    Default,
    /// It is given by the mount that is in place.
    Temporary,
    /// It cannot be set; ZFS computes it.
    ReadOnly,
}

/// A property: what it is and where from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Property {
    /// The value.
    pub value: Value,
    /// Where it is from.
    pub source: Source,
}

/// When a dataset is mounted by others (`canmount`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Canmount {
    /// Never.
    Off,
    /// When asked or by `zfs mount -a`.
    On,
    /// Only when asked.
    Noauto,
}

/// The properties that a dataset is made with.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Properties(BTreeMap<String, Value>);

impl Properties {
    /// None.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// With `canmount`.
    #[must_use]
    pub fn canmount(self, canmount: Canmount) -> Self {
        // ZFS takes the number of the value (`zfs_canmount_type_t`), not its name.
        self.native(
            "canmount",
            Value::Number(match canmount {
                Canmount::Off => 0,
                Canmount::On => 1,
                Canmount::Noauto => 2,
            }),
        )
    }

    /// With `mountpoint`: a path, `none` or `legacy`.
    #[must_use]
    pub fn mountpoint(self, mountpoint: &str) -> Self {
        self.native("mountpoint", Value::Text(mountpoint.to_owned()))
    }

    /// With a user property; its name has a colon.
    #[must_use]
    pub fn user(self, property: &str, value: &str) -> Self {
        self.native(property, Value::Text(value.to_owned()))
    }

    /// With any native property, in the kernel's own form: numbers for those with a fixed set of
    /// values (1 for `on`, 0 for `off`).
    #[must_use]
    pub fn native(mut self, property: &str, value: Value) -> Self {
        self.0.insert(property.to_owned(), value);
        self
    }

    pub(crate) fn to_list(&self) -> List {
        let mut list = List::new();
        for (property, value) in &self.0 {
            match value {
                Value::Text(text) => list.insert(property, text.as_str()),
                Value::Number(number) => list.insert(property, *number),
            }
        }
        list
    }
}

const EXISTS: &str = "
local args = ...
return { exists = zfs.exists(args.name) }
";

const GET: &str = "
local args = ...
if not zfs.exists(args.name) then return { missing = true } end
local value, source = zfs.get_prop(args.name, args.property)
return { value = value, source = source }
";

const SET: &str = "
local args = ...
if not zfs.exists(args.name) then return { missing = true } end
return { errno = zfs.sync.set_prop(args.name, args.property, args.value) }
";

const CLEAR: &str = "
local args = ...
if not zfs.exists(args.name) then return { missing = true } end
return { errno = zfs.sync.inherit(args.name, args.property) }
";

impl Zfs {
    /// Whether the dataset or snapshot exists. A pool that is not imported is an error, not a no.
    pub fn exists(&self, name: &str) -> Result<bool, Error> {
        name::check(Kind::DatasetOrSnapshot, name)?;
        // Not `lzc_exists`: that says no to every error.
        let program = Program::look("look for", name, EXISTS);
        let answer = program.run(self, &List::new().with("name", name))?;
        answer.boolean("exists").ok_or_else(|| program.unexpected(&format!("{answer:?}")))
    }

    /// A property of a dataset or snapshot, native or user, or `None` when it has none of that
    /// name: a user property that is nowhere set, `origin` of what is no clone.
    ///
    /// A native property that ZFS does not know is [`Error::ChannelProgram`].
    pub fn property(&self, name: &str, property: &str) -> Result<Option<Property>, Error> {
        name::check(Kind::DatasetOrSnapshot, name)?;
        let program = Program::look("read a property of", name, GET);
        let arguments = List::new().with("name", name).with("property", property);
        let answer = program.run(self, &arguments)?;
        program.check_exists(&answer)?;
        let value = match answer.get("value") {
            None => return Ok(None),
            Some(Data::Text(text)) => Value::Text(text.clone()),
            Some(other) => Value::Number(
                other
                    .number()
                    .ok_or_else(|| program.unexpected(&format!("{property} is {other:?}")))?,
            ),
        };
        let source = match answer.text("source") {
            None => Source::ReadOnly,
            Some(source) if source == name => Source::Local,
            Some("$recvd") => Source::Received,
            Some("default" | "") => Source::Default,
            Some("temporary") => Source::Temporary,
            Some(source) => Source::Inherited(source.to_owned()),
        };
        Ok(Some(Property { value, source }))
    }

    /// The space in bytes that the dataset may still fill, by the pool and by its quotas.
    pub fn available(&self, dataset: &str) -> Result<u64, Error> {
        self.number(dataset, "available")
    }

    /// A native property that is a number and that every dataset has, such as `used`.
    pub fn number(&self, name: &str, property: &str) -> Result<u64, Error> {
        match self.property(name, property)?.map(|property| property.value) {
            Some(Value::Number(number)) => Ok(number),
            other => Err(Error::UnexpectedAnswer {
                operation: "read a property of",
                name: name.to_owned(),
                what: format!("{property} is {other:?}"),
            }),
        }
    }

    /// Sets a user property on a dataset or snapshot. On disk when this returns.
    pub fn set_user_property(&self, name: &str, property: &str, value: &str) -> Result<(), Error> {
        name::check(Kind::DatasetOrSnapshot, name)?;
        name::check_user_property(property)?;
        let program = Program::sync("set a property of", name, SET);
        let arguments =
            List::new().with("name", name).with("property", property).with("value", value);
        program.change(self, &arguments)
    }

    /// Removes a user property from a dataset or snapshot, which then has what a dataset above
    /// has, if any. No error when it was not set. On disk when this returns.
    pub fn clear_user_property(&self, name: &str, property: &str) -> Result<(), Error> {
        name::check(Kind::DatasetOrSnapshot, name)?;
        name::check_user_property(property)?;
        let program = Program::sync("clear a property of", name, CLEAR);
        program.change(self, &List::new().with("name", name).with("property", property))
    }
}
