//! Power cuts of a disk: what was written to it and flushed is recorded in its order, and the disk
//! is made again as it can have been at any moment.
//!
//! A disk with a cache keeps what was written before the last flush. Of what came later it keeps
//! whatever it had got round to: all, nothing, or some, in any order, and of the last perhaps a part.
//!
//! | to | use |
//! |---|---|
//! | record a disk of this computer | [`Recorder`]; a guest's is recorded by its QEMU |
//! | know where in a recording something began and ended | [`mark()`], [`Log::between`] |
//! | choose moments | [`Log::cuts`], [`Log::flushes`], [`Log::try_cuts`] |
//! | make the disk of a moment | [`Log::apply`], [`Log::disk_after`] |

mod cut;
mod log;
mod recorder;
mod tried;

pub use cut::{Cut, Disk};
pub use log::{Kind, Log, Record, mark};
pub use recorder::Recorder;
pub use tried::Tried;
