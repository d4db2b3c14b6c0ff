//! Name-value lists, the language in which ZFS is spoken to (`include/sys/nvpair.h` of ZFS).
//!
//! Here they are plain owned data: the foreign list exists only inside [`crate::ffi`], for the
//! length of one call, so that nobody else can hold a pointer into it.

use std::collections::BTreeMap;

/// A list of named values. Names are unique, as in `NV_UNIQUE_NAME`.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct List(BTreeMap<String, Data>);

/// A value of a [`List`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Data {
    /// A name without a value; what `nil` in a channel program becomes.
    Flag,
    Boolean(bool),
    /// What every number of a channel program becomes, also the unsigned ones.
    Signed(i64),
    Unsigned(u64),
    Text(String),
    Texts(Vec<String>),
    List(List),
    /// A value that this crate has no use for: of a type that it does not read (its
    /// `data_type_t`), or a string that is not UTF-8.
    Unread(u32),
}

impl List {
    pub(crate) fn new() -> Self {
        Self::default()
    }

    /// The list with `name` added or replaced.
    #[must_use]
    pub(crate) fn with(mut self, name: &str, data: impl Into<Data>) -> Self {
        self.insert(name, data);
        self
    }

    pub(crate) fn insert(&mut self, name: &str, data: impl Into<Data>) {
        self.0.insert(name.to_owned(), data.into());
    }

    pub(crate) fn get(&self, name: &str) -> Option<&Data> {
        self.0.get(name)
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = (&str, &Data)> {
        self.0.iter().map(|(name, data)| (name.as_str(), data))
    }

    pub(crate) fn text(&self, name: &str) -> Option<&str> {
        match self.get(name)? {
            Data::Text(text) => Some(text),
            _ => None,
        }
    }

    pub(crate) fn list(&self, name: &str) -> Option<&Self> {
        match self.get(name)? {
            Data::List(list) => Some(list),
            _ => None,
        }
    }

    pub(crate) fn boolean(&self, name: &str) -> Option<bool> {
        match self.get(name)? {
            Data::Boolean(boolean) => Some(*boolean),
            _ => None,
        }
    }

    pub(crate) fn number(&self, name: &str) -> Option<u64> {
        self.get(name)?.number()
    }

    /// The strings of an array that a channel program returned, in its order. A Lua array
    /// arrives as a list whose names are "1", "2", and so on.
    pub(crate) fn array(&self, name: &str) -> Option<Vec<String>> {
        let list = self.list(name)?;
        let mut items = list
            .iter()
            .map(|(index, data)| match data {
                Data::Text(text) => Some((index.parse::<u64>().ok()?, text.clone())),
                _ => None,
            })
            .collect::<Option<Vec<_>>>()?;
        items.sort_unstable_by_key(|(index, _)| *index);
        Some(items.into_iter().map(|(_, text)| text).collect())
    }
}

impl Data {
    /// A number as the `uint64_t` that ZFS keeps. Lua knows only `int64_t`, so that one above
    /// `i64::MAX` (every second guid) comes out of a channel program negative: the bits are right.
    pub(crate) fn number(&self) -> Option<u64> {
        match *self {
            Self::Signed(number) => Some(number.cast_unsigned()),
            Self::Unsigned(number) => Some(number),
            _ => None,
        }
    }
}

impl From<bool> for Data {
    fn from(boolean: bool) -> Self {
        Self::Boolean(boolean)
    }
}

impl From<u64> for Data {
    fn from(number: u64) -> Self {
        Self::Unsigned(number)
    }
}

impl From<&str> for Data {
    fn from(text: &str) -> Self {
        Self::Text(text.to_owned())
    }
}

impl From<Vec<String>> for Data {
    fn from(texts: Vec<String>) -> Self {
        Self::Texts(texts)
    }
}

impl From<List> for Data {
    fn from(list: List) -> Self {
        Self::List(list)
    }
}

#[cfg(test)]
mod tests {
    use super::{Data, List};

    #[test]
    fn a_negative_number_from_lua_is_the_unsigned_number_with_the_same_bits() {
        assert_eq!(Data::Signed(-1).number(), Some(u64::MAX));
        assert_eq!(Data::Signed(i64::MIN).number(), Some(1 << 63));
        assert_eq!(Data::Signed(42).number(), Some(42));
    }

    #[test]
    fn a_lua_array_keeps_its_order_past_nine_items() {
        let mut array = List::new();
        for index in 1..=11 {
            array.insert(&index.to_string(), format!("item {index}").as_str());
        }
        let expected: Vec<_> = (1..=11).map(|index| format!("item {index}")).collect();
        assert_eq!(List::new().with("items", array).array("items"), Some(expected));
    }
}
