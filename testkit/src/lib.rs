//! What the tests of darlings share. It is the witness, so it shares no code with the tool: what
//! a tree is ([`capture()`]), how two trees differ ([`Tree::diff`]), what a reset must produce
//! ([`model::expected`]) are all written down here a second time, from the contract.
//!
//! | to | use |
//! |---|---|
//! | write down every attribute of a tree | [`capture()`], [`Tree::diff`], [`attributes::Attribute`] |
//! | make a tree that has every attribute | [`fill::everything`] |
//! | make a tree a person would believe | [`fill::believable_root`] |
//! | make one that nobody has tidied up for a year | [`fill::clutter`] |
//! | compute what a reset must leave | [`model::expected`] |
//! | have a filesystem of one's own | [`loopfs::LoopFs`], [`loopfs::BtrfsVolume`] |
//! | record a disk and cut its power | [`power`] |
//! | have `check` foretell how a reset ends | [`Foretold`] |
//! | skip a test visibly | [`skip_unless!`], [`capability`] |
//! | draw random trees and configurations | [`generate`] |
//! | clean up immutable leftovers | [`remove::all`] |

pub mod attributes;
pub mod capability;
pub mod capture;
pub mod descent;
pub mod difference;
pub mod fill;
pub mod flags;
pub mod foretold;
pub mod generate;
pub mod loopfs;
pub mod model;
pub mod names;
pub mod plant;
pub mod power;
pub mod project;
pub mod remove;
pub mod tree;

pub use attributes::Attribute;
pub use capture::capture;
pub use difference::{Compare, Difference};
pub use flags::Flags;
pub use foretold::Foretold;
pub use names::{ByteString, RelPath};
pub use tree::{Entry, HardLinks, Kind, Time, Tree};
