//! Copying, moving, removing and comparing on any two trees, with everything that an entry has. Nothing here
//! knows what is persisted, beyond the rules that it is handed.
//!
//! | module | what it knows |
//! |---|---|
//! | `walk` | one subtree, on several threads |
//! | `copy` | several subtrees at once |
//! | `directory` | single directories without what is in them |
//! | `entry` | one entry: file, link, device, directory |
//! | `data` | the ladder: reflink, `copy_file_range`, copy |
//! | `attributes` | owner, mode, extended attributes, flags, times, and their order |
//! | `flags` | the flags that forbid every change |
//! | `equal` | what two entries differ in, each by itself |
//! | `links` | hard links among what is copied |
//! | `move_in` | copying several from another tree, for `adopt` |
//! | `clear` | removing and moving whatever flags say |
//! | `bring` | one path alone, for `recover` |
//! | `compare` | what two entries differ in, with all that is below them |
//! | `settle` | times and seals that moving changes, to be set again |

mod attributes;
mod bring;
mod clear;
mod compare;
mod copy;
mod data;
mod descent;
mod directory;
mod entry;
mod equal;
mod flags;
mod links;
mod move_in;
mod settle;
mod walk;

pub(crate) use attributes::{Created, Handle, Scratch, Source, Unlistable, set_times};
pub use attributes::{seal, unseal};
pub(crate) use bring::make_bare;
pub use bring::{Brought, bring};
pub(crate) use clear::make_writable;
pub use clear::{doom, exchange, remove, remove_single, remove_telling, rename};
pub use compare::{Side, differences};
pub use copy::{Copied, Restored};
pub(crate) use copy::{job, run};
pub use data::{BytesByRung, is_swap_area};
pub(crate) use data::{Ladder, next_data};
pub use descent::{Directory, OPEN_LEVELS};
pub(crate) use directory::{copy_attributes, copy_listable_attributes};
pub use directory::{move_stub, take_attributes};
pub(crate) use entry::is_stub;
pub use equal::{Comparison, Difference, NamedEntry};
pub(crate) use flags::seal_file;
pub use flags::{seals_in, seals_of};
pub(crate) use links::Links;
pub use move_in::{MovedIn, fill_file, move_in};
pub use settle::Settled;
pub(crate) use walk::{Job, Walk};
