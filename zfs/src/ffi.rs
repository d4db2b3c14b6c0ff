//! The foreign functions: `libnvpair.so.3` and `libzfs_core.so.3`, opened at run time.
//!
//! All `unsafe` code of the crate is here. What leaves this module is plain owned data.
//! The declarations are those of `include/sys/nvpair.h` and `include/libzfs_core.h` of ZFS;
//! the ones used are the same from 2.1 to 2.4, as is the soname.
#![allow(
    unsafe_code,
    reason = "calling a C library; every block says why it is sound, and only safe functions leave"
)]

use std::ffi::{CStr, CString, c_char, c_int, c_uint};
use std::ptr::{self, NonNull};

use libloading::Library;

use crate::errno::Errno;
use crate::nvlist::{Data, List};

const NVPAIR: &str = "libnvpair.so.3";
const ZFS_CORE: &str = "libzfs_core.so.3";

/// `NV_UNIQUE_NAME`: adding a name again replaces it.
const UNIQUE_NAME: c_uint = 0x1;

/// `nvlist_t`, never looked into.
#[repr(C)]
struct Nvlist {
    opaque: [u8; 0],
}

/// `nvpair_t`, never looked into.
#[repr(C)]
struct Nvpair {
    opaque: [u8; 0],
}

/// `boolean_t`, an enum of 0 and 1.
type Boolean = c_uint;

/// What stands in the way of using the libraries.
#[derive(Debug)]
pub(crate) enum LoadError {
    Library { name: &'static str, source: libloading::Error },
    Symbol { library: &'static str, symbol: &'static str, source: libloading::Error },
}

macro_rules! functions {
    ($(#[$doc:meta])* struct $name:ident from $library:ident {
        $($function:ident: fn($($argument:ty),*) $(-> $result:ty)?,)*
    }) => {
        $(#[$doc])*
        struct $name {
            $($function: unsafe extern "C" fn($($argument),*) $(-> $result)?,)*
            // Keeps the pointers above valid; it is private and never closed before them.
            _library: Library,
        }

        impl $name {
            fn open() -> Result<Self, LoadError> {
                // SAFETY: these libraries' initialisers only set up their own state, and a soname
                // without a slash is searched for where the dynamic linker is told to search.
                let library = unsafe { Library::new($library) }
                    .map_err(|source| LoadError::Library { name: $library, source })?;
                Ok(Self {
                    $($function: {
                        let symbol = stringify!($function);
                        // SAFETY: the type is the declaration in the header of OpenZFS, stable
                        // under this soname; the copied pointer lives as long as `_library`.
                        let found = unsafe {
                            library.get::<unsafe extern "C" fn($($argument),*) $(-> $result)?>(symbol)
                        };
                        *found.map_err(|source| {
                            LoadError::Symbol { library: $library, symbol, source }
                        })?
                    },)*
                    _library: library,
                })
            }
        }
    };
}

functions! {
    /// `include/sys/nvpair.h`
    struct NvpairLibrary from NVPAIR {
        nvlist_alloc: fn(*mut *mut Nvlist, c_uint, c_int) -> c_int,
        nvlist_free: fn(*mut Nvlist),
        nvlist_add_boolean: fn(*mut Nvlist, *const c_char) -> c_int,
        nvlist_add_boolean_value: fn(*mut Nvlist, *const c_char, Boolean) -> c_int,
        nvlist_add_int64: fn(*mut Nvlist, *const c_char, i64) -> c_int,
        nvlist_add_uint64: fn(*mut Nvlist, *const c_char, u64) -> c_int,
        nvlist_add_string: fn(*mut Nvlist, *const c_char, *const c_char) -> c_int,
        nvlist_add_string_array:
            fn(*mut Nvlist, *const c_char, *const *const c_char, c_uint) -> c_int,
        nvlist_add_nvlist: fn(*mut Nvlist, *const c_char, *const Nvlist) -> c_int,
        nvlist_next_nvpair: fn(*mut Nvlist, *const Nvpair) -> *mut Nvpair,
        nvpair_name: fn(*const Nvpair) -> *const c_char,
        nvpair_type: fn(*const Nvpair) -> c_int,
        nvpair_value_boolean_value: fn(*const Nvpair, *mut Boolean) -> c_int,
        nvpair_value_int32: fn(*const Nvpair, *mut i32) -> c_int,
        nvpair_value_int64: fn(*const Nvpair, *mut i64) -> c_int,
        nvpair_value_uint64: fn(*const Nvpair, *mut u64) -> c_int,
        nvpair_value_string: fn(*const Nvpair, *mut *const c_char) -> c_int,
        nvpair_value_string_array:
            fn(*mut Nvpair, *mut *const *const c_char, *mut c_uint) -> c_int,
        nvpair_value_nvlist: fn(*mut Nvpair, *mut *mut Nvlist) -> c_int,
    }
}

functions! {
    /// `include/libzfs_core.h`
    struct CoreLibrary from ZFS_CORE {
        libzfs_core_init: fn() -> c_int,
        libzfs_core_fini: fn(),
        lzc_channel_program: fn(
            *const c_char, *const c_char, u64, u64, *mut Nvlist, *mut *mut Nvlist
        ) -> c_int,
        lzc_channel_program_nosync: fn(
            *const c_char, *const c_char, u64, u64, *mut Nvlist, *mut *mut Nvlist
        ) -> c_int,
        lzc_clone: fn(*const c_char, *const c_char, *mut Nvlist) -> c_int,
        lzc_snapshot: fn(*mut Nvlist, *mut Nvlist, *mut *mut Nvlist) -> c_int,
        lzc_destroy: fn(*const c_char) -> c_int,
        lzc_get_bookmarks: fn(*const c_char, *mut Nvlist, *mut *mut Nvlist) -> c_int,
        lzc_destroy_bookmarks: fn(*mut Nvlist, *mut *mut Nvlist) -> c_int,
        lzc_sync: fn(*const c_char, *mut Nvlist, *mut *mut Nvlist) -> c_int,
    }
}

/// `data_type_t` of `include/sys/nvpair.h`, the ones that are read.
mod data_type {
    pub(super) const BOOLEAN: u32 = 1;
    pub(super) const INT32: u32 = 5;
    pub(super) const INT64: u32 = 7;
    pub(super) const UINT64: u32 = 8;
    pub(super) const STRING: u32 = 9;
    pub(super) const STRING_ARRAY: u32 = 17;
    pub(super) const NVLIST: u32 = 19;
    pub(super) const BOOLEAN_VALUE: u32 = 21;
}

/// `libnvpair`, opened.
pub(crate) struct Nvpairs(NvpairLibrary);

impl Nvpairs {
    pub(crate) fn open() -> Result<Self, LoadError> {
        NvpairLibrary::open().map(Self)
    }

    /// `list` as the library's own.
    fn build(&self, list: &List) -> Result<RawList<'_>, Errno> {
        let raw = RawList::new(self)?;
        for (name, data) in list.iter() {
            raw.add(&c_string(name)?, data)?;
        }
        Ok(raw)
    }

    /// A list through the library and back, for trying it without a kernel module.
    #[cfg(test)]
    pub(crate) fn round_trip(&self, list: &List) -> Result<List, Errno> {
        self.build(list)?.read()
    }
}

/// An `nvlist_t` that we own and free.
struct RawList<'a> {
    library: &'a Nvpairs,
    list: NonNull<Nvlist>,
}

impl Drop for RawList<'_> {
    fn drop(&mut self) {
        // SAFETY: we own the list (allocated by `nvlist_alloc`, or handed over by a call that
        // documents so), and nothing points into it any more: `read` copies.
        unsafe { (self.library.0.nvlist_free)(self.list.as_ptr()) }
    }
}

impl<'a> RawList<'a> {
    fn new(library: &'a Nvpairs) -> Result<Self, Errno> {
        let mut list = ptr::null_mut();
        // SAFETY: `list` is a valid place for the pointer; the last argument is unused.
        check(unsafe { (library.0.nvlist_alloc)(&raw mut list, UNIQUE_NAME, 0) })?;
        let list = NonNull::new(list).ok_or(Errno::NOMEM)?;
        Ok(Self { library, list })
    }

    /// Takes over a list that a call has returned; none came if it is null.
    fn adopt(library: &'a Nvpairs, list: *mut Nvlist) -> Option<Self> {
        NonNull::new(list).map(|list| Self { library, list })
    }

    fn add(&self, name: &CStr, data: &Data) -> Result<(), Errno> {
        let functions = &self.library.0;
        let (list, name) = (self.list.as_ptr(), name.as_ptr());
        // Every call copies name and value into the list before it returns.
        check(match data {
            // SAFETY: list and name are valid; no value.
            Data::Flag => unsafe { (functions.nvlist_add_boolean)(list, name) },
            // SAFETY: list and name are valid; 0 and 1 are the values of `boolean_t`.
            Data::Boolean(boolean) => unsafe {
                (functions.nvlist_add_boolean_value)(list, name, Boolean::from(*boolean))
            },
            // SAFETY: list and name are valid; the value is a plain number.
            Data::Signed(number) => unsafe { (functions.nvlist_add_int64)(list, name, *number) },
            // SAFETY: list and name are valid; the value is a plain number.
            Data::Unsigned(number) => unsafe { (functions.nvlist_add_uint64)(list, name, *number) },
            Data::Text(text) => {
                let text = c_string(text)?;
                // SAFETY: list, name and the NUL-terminated text are valid during the call.
                unsafe { (functions.nvlist_add_string)(list, name, text.as_ptr()) }
            }
            Data::Texts(texts) => {
                let texts =
                    texts.iter().map(|text| c_string(text)).collect::<Result<Vec<_>, _>>()?;
                let pointers: Vec<_> = texts.iter().map(|text| text.as_ptr()).collect();
                let length = c_uint::try_from(pointers.len()).map_err(|_| Errno::TOO_BIG)?;
                // SAFETY: list and name are valid, `pointers` holds `length` strings that live in
                // `texts` until after the call.
                unsafe {
                    (functions.nvlist_add_string_array)(list, name, pointers.as_ptr(), length)
                }
            }
            Data::List(inner) => {
                let inner = self.library.build(inner)?;
                // SAFETY: both lists and the name are valid, the lists are distinct, and the inner
                // one is copied, so that each is freed once by its owner.
                unsafe { (functions.nvlist_add_nvlist)(list, name, inner.list.as_ptr()) }
            }
            Data::Unread(_) => return Err(Errno::INVAL),
        })
    }

    fn read(&self) -> Result<List, Errno> {
        // SAFETY: the list is ours and valid as long as `self`.
        unsafe { read_list(&self.library.0, self.list.as_ptr()) }
    }
}

/// Copies a foreign list.
///
/// # Safety
/// `list` is a valid list that nobody changes or frees during the call.
unsafe fn read_list(functions: &NvpairLibrary, list: *mut Nvlist) -> Result<List, Errno> {
    let mut copy = List::new();
    let mut pair: *mut Nvpair = ptr::null_mut();
    loop {
        // SAFETY: the list is valid by our contract; `pair` is null or the list's own.
        pair = unsafe { (functions.nvlist_next_nvpair)(list, pair) };
        if pair.is_null() {
            return Ok(copy);
        }
        // SAFETY: `pair` is a pair of a valid list.
        let name = unsafe { (functions.nvpair_name)(pair) };
        // SAFETY: the name of a pair is NUL-terminated and lives as long as its list.
        let name = unsafe { CStr::from_ptr(name) };
        // Names come from us, from the kernel's source, or are names of datasets: all ASCII.
        let name = name.to_str().map_err(|_| Errno::INVAL)?;
        // SAFETY: `pair` is a pair of a valid list.
        copy.insert(name, unsafe { read_value(functions, pair) }?);
    }
}

/// Copies the value of a pair.
///
/// # Safety
/// `pair` belongs to a valid list that nobody changes or frees during the call.
unsafe fn read_value(functions: &NvpairLibrary, pair: *mut Nvpair) -> Result<Data, Errno> {
    // SAFETY: `pair` is valid by our contract.
    let kind = unsafe { (functions.nvpair_type)(pair) }.cast_unsigned();
    // Each accessor below checks the type again and fails with EINVAL if it is another.
    Ok(match kind {
        data_type::BOOLEAN => Data::Flag,
        data_type::BOOLEAN_VALUE => {
            let mut boolean: Boolean = 0;
            // SAFETY: `pair` and the place for the value are valid.
            check(unsafe { (functions.nvpair_value_boolean_value)(pair, &raw mut boolean) })?;
            Data::Boolean(boolean != 0)
        }
        data_type::INT32 => {
            let mut number = 0;
            // SAFETY: `pair` and the place for the value are valid.
            check(unsafe { (functions.nvpair_value_int32)(pair, &raw mut number) })?;
            Data::Signed(number.into())
        }
        data_type::INT64 => {
            let mut number = 0;
            // SAFETY: `pair` and the place for the value are valid.
            check(unsafe { (functions.nvpair_value_int64)(pair, &raw mut number) })?;
            Data::Signed(number)
        }
        data_type::UINT64 => {
            let mut number = 0;
            // SAFETY: `pair` and the place for the value are valid.
            check(unsafe { (functions.nvpair_value_uint64)(pair, &raw mut number) })?;
            Data::Unsigned(number)
        }
        data_type::STRING => {
            let mut text = ptr::null();
            // SAFETY: `pair` and the place for the value are valid.
            check(unsafe { (functions.nvpair_value_string)(pair, &raw mut text) })?;
            // SAFETY: the call succeeded, so `text` is NUL-terminated and lives with the list.
            unsafe { read_text(text) }.map_or(Data::Unread(kind), Data::Text)
        }
        data_type::STRING_ARRAY => {
            let mut texts = ptr::null();
            let mut length = 0;
            // SAFETY: `pair` and the places for the values are valid.
            let result = unsafe {
                (functions.nvpair_value_string_array)(pair, &raw mut texts, &raw mut length)
            };
            check(result)?;
            let length = usize::try_from(length).map_err(|_| Errno::TOO_BIG)?;
            let texts = if length == 0 {
                &[]
            } else {
                // SAFETY: the call succeeded, so `texts` holds `length` pointers, in the list.
                unsafe { std::slice::from_raw_parts(texts, length) }
            };
            texts
                .iter()
                // SAFETY: each of them is NUL-terminated and lives with the list.
                .map(|text| unsafe { read_text(*text) })
                .collect::<Option<_>>()
                .map_or(Data::Unread(kind), Data::Texts)
        }
        data_type::NVLIST => {
            let mut inner = ptr::null_mut();
            // SAFETY: `pair` and the place for the value are valid.
            check(unsafe { (functions.nvpair_value_nvlist)(pair, &raw mut inner) })?;
            // SAFETY: the inner list belongs to the outer one, which outlives this call.
            Data::List(unsafe { read_list(functions, inner) }?)
        }
        _ => Data::Unread(kind),
    })
}

/// A copy of a foreign string, if it is UTF-8.
///
/// # Safety
/// `text` is NUL-terminated and nobody changes or frees it during the call.
unsafe fn read_text(text: *const c_char) -> Option<String> {
    // SAFETY: by our contract.
    let text = unsafe { CStr::from_ptr(text) };
    text.to_str().ok().map(str::to_owned)
}

/// `libzfs_core`, opened and initialised; closed on drop.
pub(crate) struct Core {
    functions: CoreLibrary,
    nvpairs: Nvpairs,
}

/// What stands in the way of [`Core::open`].
pub(crate) enum OpenError {
    Load(LoadError),
    /// `libzfs_core_init` failed, which is to say open(2) of /dev/zfs.
    Init(Errno),
}

/// Whether a channel program may change anything.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Mode {
    /// `lzc_channel_program_nosync`: runs at once, may only look.
    Look,
    /// `lzc_channel_program`: runs inside the sync of one transaction group.
    Sync,
}

impl Core {
    pub(crate) fn open() -> Result<Self, OpenError> {
        // First, because libzfs_core needs it too: the error then names what is really missing.
        let nvpairs = Nvpairs::open().map_err(OpenError::Load)?;
        let functions = CoreLibrary::open().map_err(OpenError::Load)?;
        // SAFETY: no argument; the library counts the calls, and each is paired with a `fini`.
        check(unsafe { (functions.libzfs_core_init)() }).map_err(OpenError::Init)?;
        Ok(Self { functions, nvpairs })
    }

    /// Runs a channel program. The list is what the program returned or, beside an error, what
    /// ZFS says about it, if anything.
    pub(crate) fn channel_program(
        &self,
        pool: &CStr,
        program: &CStr,
        mode: Mode,
        (instructions, memory): (u64, u64),
        arguments: &List,
    ) -> (Result<(), Errno>, Option<List>) {
        let run = match mode {
            Mode::Look => self.functions.lzc_channel_program_nosync,
            Mode::Sync => self.functions.lzc_channel_program,
        };
        let arguments = match self.nvpairs.build(arguments) {
            Ok(arguments) => arguments,
            Err(errno) => return (Err(errno), None),
        };
        let arguments = arguments.list.as_ptr();
        self.with_answer(|answer| {
            // SAFETY: the strings are NUL-terminated, the list is valid during the call (its owner
            // lives to the end of this function), and `answer` is a place for a list.
            unsafe { run(pool.as_ptr(), program.as_ptr(), instructions, memory, arguments, answer) }
        })
    }

    pub(crate) fn clone(
        &self,
        dataset: &CStr,
        origin: &CStr,
        properties: &List,
    ) -> Result<(), Errno> {
        let properties = self.nvpairs.build(properties)?;
        // SAFETY: the strings are NUL-terminated and the list is valid during the call.
        check(unsafe {
            (self.functions.lzc_clone)(dataset.as_ptr(), origin.as_ptr(), properties.list.as_ptr())
        })
    }

    /// The list names the snapshots that failed, each with its error number.
    pub(crate) fn snapshot(
        &self,
        snapshots: &List,
        properties: &List,
    ) -> (Result<(), Errno>, Option<List>) {
        let lists = self.nvpairs.build(snapshots).and_then(|snapshots| {
            self.nvpairs.build(properties).map(|properties| (snapshots, properties))
        });
        let (snapshots, properties) = match lists {
            Ok(lists) => lists,
            Err(errno) => return (Err(errno), None),
        };
        let (snapshots, properties) = (snapshots.list.as_ptr(), properties.list.as_ptr());
        self.with_answer(|answer| {
            // SAFETY: both lists are valid during the call (their owners live to the end of this
            // function) and `answer` is a place for a list.
            unsafe { (self.functions.lzc_snapshot)(snapshots, properties, answer) }
        })
    }

    pub(crate) fn destroy(&self, name: &CStr) -> Result<(), Errno> {
        // SAFETY: the string is NUL-terminated.
        check(unsafe { (self.functions.lzc_destroy)(name.as_ptr()) })
    }

    pub(crate) fn bookmarks(
        &self,
        dataset: &CStr,
        properties: &List,
    ) -> (Result<(), Errno>, Option<List>) {
        let properties = match self.nvpairs.build(properties) {
            Ok(properties) => properties,
            Err(errno) => return (Err(errno), None),
        };
        let properties = properties.list.as_ptr();
        self.with_answer(|answer| {
            // SAFETY: the string is NUL-terminated, the list is valid during the call (its owner
            // lives to the end of this function), and `answer` is a place for a list.
            unsafe { (self.functions.lzc_get_bookmarks)(dataset.as_ptr(), properties, answer) }
        })
    }

    /// The list names the bookmarks that failed, each with its error number.
    pub(crate) fn destroy_bookmarks(&self, bookmarks: &List) -> (Result<(), Errno>, Option<List>) {
        let bookmarks = match self.nvpairs.build(bookmarks) {
            Ok(bookmarks) => bookmarks,
            Err(errno) => return (Err(errno), None),
        };
        let bookmarks = bookmarks.list.as_ptr();
        self.with_answer(|answer| {
            // SAFETY: the list is valid during the call (its owner lives to the end of this
            // function) and `answer` is a place for a list.
            unsafe { (self.functions.lzc_destroy_bookmarks)(bookmarks, answer) }
        })
    }

    pub(crate) fn sync(&self, pool: &CStr) -> Result<(), Errno> {
        // NULL instead of this list is refused: the loaded module wants one to look into.
        let arguments = self.nvpairs.build(&List::new().with("force", false))?;
        let arguments = arguments.list.as_ptr();
        let (result, _) = self.with_answer(|answer| {
            // SAFETY: the string is NUL-terminated, the list is valid during the call (its owner
            // lives to the end of this function), and `answer` is a place for a list.
            unsafe { (self.functions.lzc_sync)(pool.as_ptr(), arguments, answer) }
        });
        result
    }

    /// Makes a call that hands a list back, and copies and frees that list.
    fn with_answer(
        &self,
        call: impl FnOnce(*mut *mut Nvlist) -> c_int,
    ) -> (Result<(), Errno>, Option<List>) {
        let mut answer = ptr::null_mut();
        let result = check(call(&raw mut answer));
        match RawList::adopt(&self.nvpairs, answer).map(|answer| answer.read()).transpose() {
            Ok(answer) => (result, answer),
            // The call's own error says more than an answer that cannot be read.
            Err(errno) => (result.and(Err(errno)), None),
        }
    }
}

impl Drop for Core {
    fn drop(&mut self) {
        // SAFETY: pairs with the `init` of `open`; no call is under way, since we are not borrowed.
        unsafe { (self.functions.libzfs_core_fini)() }
    }
}

fn check(result: c_int) -> Result<(), Errno> {
    if result == 0 { Ok(()) } else { Err(Errno::from_raw(result)) }
}

fn c_string(text: &str) -> Result<CString, Errno> {
    CString::new(text).map_err(|_| Errno::INVAL)
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use super::{LoadError, Nvpairs};
    use crate::Errno;
    use crate::nvlist::{Data, List};

    /// The library; or `None` where there is none, after having said so.
    fn open() -> Result<Option<Nvpairs>, LoadError> {
        let required = std::env::var("DARLINGS_REQUIRE_ZFS").as_deref() == Ok("1");
        match Nvpairs::open() {
            Err(LoadError::Library { name, .. }) if !required => {
                // Not `eprintln`, which the test harness keeps to itself when a test passes.
                let test = std::thread::current().name().unwrap_or("?").to_owned();
                let message = format!("SKIPPED: {test}: no {name}\n");
                assert!(std::io::stderr().write_all(message.as_bytes()).is_ok());
                Ok(None)
            }
            opened => opened.map(Some),
        }
    }

    #[test]
    fn a_list_comes_back_from_the_library_as_it_was_put_in() -> Result<(), LoadError> {
        let Some(nvpairs) = open()? else { return Ok(()) };
        let inner = List::new().with("deep", List::new().with("deeper", "\u{e4}"));
        let list = List::new()
            .with("flag", Data::Flag)
            .with("yes", true)
            .with("no", false)
            .with("negative", Data::Signed(i64::MIN))
            .with("large", u64::MAX)
            .with("empty text", "")
            .with("texts", vec!["one".to_owned(), String::new(), "three".to_owned()])
            .with("no texts", Vec::new())
            .with("list", inner)
            .with("empty list", List::new());
        assert_eq!(nvpairs.round_trip(&list), Ok(list));
        Ok(())
    }

    #[test]
    fn a_text_with_a_nul_is_refused_and_not_cut() -> Result<(), LoadError> {
        let Some(nvpairs) = open()? else { return Ok(()) };
        let list = List::new().with("text", "a\0b");
        assert_eq!(nvpairs.round_trip(&list), Err(Errno::INVAL));
        Ok(())
    }
}
